//! The modules of a file, what each defines, and the paths it names.

use super::super::source::{Piece, Source};
use std::collections::{BTreeMap, BTreeSet};

/// The segments of a path, `crate::a::b` as `["crate", "a", "b"]`.
pub type Path<'a> = Vec<&'a str>;

/// A module, in a file of its own or inline.
#[derive(Debug, Default)]
pub struct Module<'a> {
    /// What it imports and exports, by the name it has here.
    pub imports: BTreeMap<&'a str, Import<'a>>,
    /// Modules whose names are all imported.
    pub globs: Vec<Path<'a>>,
    /// Items it defines.
    pub defines: BTreeSet<&'a str>,
    /// Paths in its code, apart from imports.
    pub paths: Vec<Path<'a>>,
    /// Every identifier in its code, apart from imports.
    pub words: BTreeSet<&'a str>,
}

/// An imported name.
#[derive(Debug, PartialEq, Eq)]
pub struct Import<'a> {
    /// Where it is from.
    pub path: Path<'a>,
    /// Whether other crates or modules see it here too.
    pub exported: bool,
}

/// The modules of a file: its own under the empty path, inline ones under their names.
pub type Modules<'a> = BTreeMap<Path<'a>, Module<'a>>;

/// Keywords before the name of an item.
const DEFINING: [&str; 9] = [
    "const",
    "enum",
    "fn",
    "macro_rules",
    "static",
    "struct",
    "trait",
    "type",
    "union",
];

/// Parses a file, without its tests.
pub fn modules<'a>(source: &Source<'a>) -> Modules<'a> {
    let mut parser = Parser {
        tokens: source.code().copied().collect(),
        at: 0,
        blocks: Vec::new(),
        modules: BTreeMap::from([(Path::new(), Module::default())]),
    };
    while parser.at < parser.tokens.len() {
        parser.step();
    }
    parser.modules
}

/// A pair of braces.
enum Block<'a> {
    Module(&'a str),
    Other,
}

struct Parser<'a> {
    tokens: Vec<Piece<'a>>,
    at: usize,
    blocks: Vec<Block<'a>>,
    modules: Modules<'a>,
}

impl<'a> Parser<'a> {
    /// The text of the token so many places from here.
    fn peek(&self, ahead: usize) -> &'a str {
        self.tokens
            .get(self.at + ahead)
            .map_or("", |token| token.text)
    }

    fn previous(&self) -> &'a str {
        self.at.checked_sub(1).map_or("", |at| self.tokens[at].text)
    }

    fn module(&mut self) -> &mut Module<'a> {
        let named = self.blocks.iter().filter_map(|block| match block {
            Block::Module(name) => Some(*name),
            Block::Other => None,
        });
        self.modules.entry(named.collect()).or_default()
    }

    fn step(&mut self) {
        let (token, next) = (self.peek(0), self.peek(1));
        match token {
            "mod" if self.peek(2) == "{" => {
                self.blocks.push(Block::Module(next));
                self.module();
                self.at += 3;
            }
            "mod" if self.peek(2) == ";" => self.at += 3,
            "{" => {
                self.blocks.push(Block::Other);
                self.at += 1;
            }
            "}" => {
                self.blocks.pop();
                self.at += 1;
            }
            "pub" if next == "(" => {
                // `pub(in crate::a)` names no import.
                while !matches!(self.peek(0), ")" | "") {
                    self.at += 1;
                }
                self.at += 1;
                self.import(true);
            }
            "pub" => {
                self.at += 1;
                self.import(true);
            }
            "use" if next != "<" => self.import(false),
            _ if next == "::" && self.previous() != "::" && is_word(token) => self.path(),
            _ => self.word(),
        }
    }

    /// An import, if there is one here.
    fn import(&mut self, exported: bool) {
        if self.peek(0) == "use" {
            self.at += 1;
            self.tree(&mut Path::new(), exported);
        }
    }

    /// A path with braces, a star or another name at its end.
    fn tree(&mut self, path: &mut Path<'a>, exported: bool) {
        let length = path.len();
        loop {
            match self.peek(0) {
                "{" => {
                    self.at += 1;
                    while !matches!(self.peek(0), "}" | "") {
                        let before = self.at;
                        self.tree(path, exported);
                        // A comma, or what only a macro has here.
                        self.at += usize::from(self.peek(0) == "," || self.at == before);
                    }
                    self.at += 1;
                    break;
                }
                "*" => {
                    self.at += 1;
                    let path = path.clone();
                    self.module().globs.push(path);
                    break;
                }
                "::" => self.at += 1,
                word if is_word(word) => {
                    self.at += 1;
                    if word != "self" || path.is_empty() {
                        path.push(word);
                    }
                    if self.peek(0) != "::" {
                        self.name(path.clone(), exported);
                        break;
                    }
                }
                _ => break,
            }
        }
        path.truncate(length);
    }

    /// The name that an imported path has here.
    fn name(&mut self, path: Path<'a>, exported: bool) {
        let mut name = path.last().copied().unwrap_or_default();
        if self.peek(0) == "as" {
            name = self.peek(1);
            self.at += 2;
        }
        self.module()
            .imports
            .insert(name, Import { path, exported });
    }

    fn path(&mut self) {
        let mut path = vec![self.peek(0)];
        self.at += 1;
        while self.peek(0) == "::" && is_word(self.peek(1)) {
            path.push(self.peek(1));
            self.at += 2;
        }
        let module = self.module();
        module.words.insert(path[0]);
        module.paths.push(path);
    }

    fn word(&mut self) {
        let (token, before) = (self.peek(0), self.previous());
        let macro_name =
            before == "!" && self.at >= 2 && self.tokens[self.at - 2].text == "macro_rules";
        let at_the_top = !matches!(self.blocks.last(), Some(Block::Other));
        let module = self.module();
        if at_the_top && is_word(token) && (DEFINING.contains(&before) || macro_name) {
            module.defines.insert(token);
        } else if is_word(token) {
            module.words.insert(token);
        }
        self.at += 1;
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import<'a>(path: &[&'a str], exported: bool) -> Import<'a> {
        Import {
            path: path.to_vec(),
            exported,
        }
    }

    #[test]
    fn trees_of_imports_are_taken_apart() {
        let source =
            Source::parse("pub(crate) use crate::a::{self, b::C, d as e, f::*};\nuse std::fmt;\n");
        let modules = modules(&source);
        let module = &modules[&Path::new()];
        let expected = BTreeMap::from([
            ("a", import(&["crate", "a"], true)),
            ("C", import(&["crate", "a", "b", "C"], true)),
            ("e", import(&["crate", "a", "d"], true)),
            ("fmt", import(&["std", "fmt"], false)),
        ]);
        assert_eq!(module.imports, expected);
        assert_eq!(module.globs, [["crate", "a", "f"]]);
    }

    #[test]
    fn paths_definitions_and_inline_modules_are_found() {
        let source = Source::parse(
            "mod x;\npub fn f() -> impl J + use<> { crate::a::g::<T>(b::H::new()); fn inner() {} }\nmod m { pub struct \
                S; fn k() { super::f() } }\n\
             macro_rules! n { () => {} }\n#[cfg(test)]\nmod tests { use crate::z; }\n",
        );
        let modules = modules(&source);
        let file = &modules[&Path::new()];
        assert_eq!(file.paths, [vec!["crate", "a", "g"], vec!["b", "H", "new"]]);
        assert_eq!(file.defines, BTreeSet::from(["f", "n"]));
        let inline = &modules[&vec!["m"]];
        assert_eq!(inline.defines, BTreeSet::from(["S", "k"]));
        assert_eq!(inline.paths, [["super", "f"]]);
        assert_eq!(modules.len(), 2);
    }
}
