//! Which file of a crate imports from which.

use super::super::members::{Role, RustFile};
use super::parse::{self, Module, Path};
use std::collections::{BTreeMap, BTreeSet};

/// Imports of imports are followed so far.
const DEEPEST: usize = 16;

/// The files of a crate and the arrows between them.
#[derive(Debug)]
pub struct Graph {
    /// The files, as paths below `src`.
    pub files: Vec<String>,
    /// For each file those it imports from.
    pub arrows: Vec<BTreeSet<usize>>,
}

/// The modules of a crate, each with the file it is in.
struct Tree<'a> {
    modules: BTreeMap<Path<'a>, (usize, Module<'a>)>,
    /// Macros that are called as `crate::name!`, with their files.
    macros: BTreeMap<&'a str, usize>,
}

impl Graph {
    /// The graph of the crate whose sources are below `folder`, such as `moe/src`.
    pub fn of<'a>(files: &'a [RustFile<'a>], folder: &std::path::Path) -> Self {
        let inside =
            |file: &&RustFile<'_>| file.role != Role::Support && file.name.starts_with(folder);
        let files: Vec<_> = files.iter().filter(inside).collect();
        let mut tree = Tree {
            modules: BTreeMap::new(),
            macros: BTreeMap::new(),
        };
        for (index, file) in files.iter().enumerate() {
            let own = module_path(file.name.strip_prefix(folder).unwrap_or(file.name));
            for (inline, module) in parse::modules(&file.source) {
                let path = own.iter().copied().chain(inline).collect();
                tree.modules.insert(path, (index, module));
            }
            for window in file.source.tokens.windows(3) {
                if window[0].text == "macro_rules" && !window[2].in_tests {
                    tree.macros.insert(window[2].text, index);
                }
            }
        }
        let mut arrows = vec![BTreeSet::new(); files.len()];
        for (path, (file, module)) in &tree.modules {
            arrows[*file].extend(tree.imports(path, module));
            arrows[*file].remove(file);
        }
        let name = |file: &&RustFile<'_>| {
            let below = file.name.strip_prefix(folder).unwrap_or(file.name);
            below.to_string_lossy().replace('\\', "/")
        };
        Self {
            files: files.iter().map(name).collect(),
            arrows,
        }
    }
}

/// The module that a file is, from its path below `src`.
fn module_path(file: &std::path::Path) -> Path<'_> {
    let mut path: Path<'_> = file.iter().filter_map(|part| part.to_str()).collect();
    let stem = path
        .pop()
        .and_then(|name| name.strip_suffix(".rs"))
        .unwrap_or_default();
    let root = path.is_empty() && matches!(stem, "lib" | "main");
    if !root && stem != "mod" {
        path.push(stem);
    }
    path
}

impl<'a> Tree<'a> {
    /// The files that a module takes names from.
    fn imports(&self, path: &[&'a str], module: &Module<'a>) -> BTreeSet<usize> {
        let mut files = BTreeSet::new();
        for (name, import) in &module.imports {
            // A name that is only passed on is no use of it. A module is used by the paths that begin with it.
            let used = !import.exported || module.words.contains(name);
            if used && !self.is_module(path, &import.path, 0) {
                files.extend(self.resolve(path, &import.path, 0));
            }
        }
        for used in &module.paths {
            files.extend(self.resolve(path, used, 0));
        }
        for glob in &module.globs {
            if let Some(from) = self.module(path, glob, 0) {
                let named = |name: &&&'a str| module.words.contains(**name);
                let (_, source) = &self.modules[&from];
                let names = source.defines.iter().chain(source.imports.keys());
                for name in names.filter(named) {
                    files.extend(self.walk(&from, &[*name], 1));
                }
            }
        }
        files
    }

    /// Where a path begins, as a module, and what remains of it; `None` if in another crate.
    fn begin<'p>(
        &self,
        here: &[&'a str],
        path: &'p [&'a str],
        depth: usize,
    ) -> Option<(Path<'a>, &'p [&'a str])> {
        let (first, mut rest) = path.split_first()?;
        let mut module = match *first {
            "crate" => Path::new(),
            "self" => here.to_vec(),
            "super" => here[..here.len().checked_sub(1)?].to_vec(),
            name => {
                let mut child = here.to_vec();
                child.push(name);
                if self.modules.contains_key(&child) {
                    child
                } else {
                    let import = self.modules.get(here)?.1.imports.get(name)?;
                    // `use anyhow;` would lead back to itself.
                    let next = (import.path[..] != [name]).then_some(&import.path)?;
                    return self.follow(here, next, depth).map(|module| (module, rest));
                }
            }
        };
        while let [first, after @ ..] = rest {
            if *first != "super" {
                break;
            }
            module.pop();
            rest = after;
        }
        Some((module, rest))
    }

    fn follow(&self, here: &[&'a str], path: &[&'a str], depth: usize) -> Option<Path<'a>> {
        (depth < DEEPEST)
            .then(|| self.module(here, path, depth + 1))
            .flatten()
    }

    /// The module that a path names.
    fn module(&self, here: &[&'a str], path: &[&'a str], depth: usize) -> Option<Path<'a>> {
        let (mut module, rest) = self.begin(here, path, depth)?;
        for name in rest {
            module.push(name);
            if !self.modules.contains_key(&module) {
                module.pop();
                let import = self.modules.get(&module)?.1.imports.get(name)?;
                module = self.follow(&module, &import.path, depth)?;
            }
        }
        Some(module)
    }

    fn is_module(&self, here: &[&'a str], path: &[&'a str], depth: usize) -> bool {
        self.module(here, path, depth).is_some()
    }

    /// The file of the item that a path names; `None` if it is of another crate.
    fn resolve(&self, here: &[&'a str], path: &[&'a str], depth: usize) -> Option<usize> {
        if depth > DEEPEST {
            return None;
        }
        if let Some((module, rest)) = self.begin(here, path, depth) {
            return self.walk(&module, rest, depth);
        }
        // An imported item, and something of it: `Error::new`.
        let import = self.modules.get(here)?.1.imports.get(path.first()?)?;
        let elsewhere = import.path[..] != path[..1];
        elsewhere
            .then(|| self.resolve(here, &import.path, depth + 1))
            .flatten()
    }

    /// The file of what `rest` names below a module.
    fn walk(&self, module: &[&'a str], rest: &[&'a str], depth: usize) -> Option<usize> {
        let (file, contents) = self.modules.get(module)?;
        let Some((name, after)) = rest.split_first() else {
            return Some(*file);
        };
        let mut child = module.to_vec();
        child.push(name);
        if self.modules.contains_key(&child) {
            return self.walk(&child, after, depth);
        }
        if contents.defines.contains(name) {
            return Some(*file);
        }
        if let Some(import) = contents.imports.get(name) {
            let path: Path<'a> = import.path.iter().chain(after).copied().collect();
            return self.resolve(module, &path, depth + 1);
        }
        for glob in &contents.globs {
            if let Some(from) = self
                .follow(module, glob, depth)
                .filter(|from| from != module)
                && self.modules[&from].1.defines.contains(name)
            {
                return Some(self.modules[&from].0);
            }
        }
        Some(*self.macros.get(name).unwrap_or(file))
    }
}

#[cfg(test)]
pub mod tests {
    use super::super::super::members::{rust, testing::files};
    use super::*;

    /// The arrows of a crate `moe`, as `from > to`.
    fn arrows(sources: &[(&str, &str)]) -> Vec<String> {
        let files = files(sources);
        let parsed = rust(&files);
        let graph = Graph::of(&parsed, "moe/src".as_ref());
        let pairs = graph.arrows.iter().zip(&graph.files);
        pairs
            .flat_map(|(to, from)| {
                to.iter()
                    .map(|&to| format!("{from} > {}", graph.files[to]))
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    const LIB: (&str, &str) = (
        "moe/src/lib.rs",
        "mod error;\nmod race;\npub mod vae;\npub use error::{Error, Result as R};\npub use vae::*;\npub fn here() \
            {}\n",
    );
    const ERROR: (&str, &str) = (
        "moe/src/error.rs",
        "pub struct Error; pub type Result = ();",
    );
    const VAE: (&str, &str) = (
        "moe/src/vae/mod.rs",
        "mod block;\npub use block::Block;\npub struct Vae;",
    );
    const BLOCK: (&str, &str) = ("moe/src/vae/block.rs", "pub struct Block;");

    fn race(text: &str) -> Vec<String> {
        arrows(&[LIB, ERROR, ("moe/src/race.rs", text), VAE, BLOCK])
    }

    #[test]
    fn an_export_leads_to_the_file_that_defines() {
        assert_eq!(race("use crate::Error;"), ["race.rs > error.rs"]);
        assert_eq!(race("fn f() { crate::R::x() }"), ["race.rs > error.rs"]);
        assert_eq!(
            race("use super::{vae::Block, here};"),
            ["race.rs > lib.rs", "race.rs > vae/block.rs"]
        );
        assert_eq!(race("use crate::Vae;"), ["race.rs > vae/mod.rs"]);
        assert_eq!(
            race("use crate::vae;\nfn f() { vae::Block::new() }"),
            ["race.rs > vae/block.rs"]
        );
        assert_eq!(
            race("use crate::*;\nfn f() -> Error { g() }"),
            ["race.rs > error.rs"]
        );
    }

    #[test]
    fn other_crates_declarations_and_tests_are_no_arrows() {
        assert!(race("use std::fmt;\nmod x { use anyhow::Result; }\n// crate::Error\n").is_empty());
        assert!(race("#[cfg(test)]\nmod tests { use crate::Error; }").is_empty());
    }

    #[test]
    fn a_name_that_is_exported_and_used_is_an_arrow() {
        let lib = |text| arrows(&[("moe/src/lib.rs", text), ERROR]);
        assert!(lib("mod error;\npub use error::Error;").is_empty());
        assert_eq!(
            lib("mod error;\npub use error::Error;\nfn f() -> Error {}"),
            ["lib.rs > error.rs"]
        );
        assert_eq!(
            lib("mod error;\nfn f() { error::Error::new() }"),
            ["lib.rs > error.rs"]
        );
    }

    #[test]
    fn inline_modules_and_macros_belong_to_their_files() {
        let sources = [
            ("moe/src/lib.rs", "#[macro_use]\nmod shape;\nmod a;\n"),
            (
                "moe/src/a.rs",
                "mod inner { fn f() { super::super::shape::g(); crate::check!() } }",
            ),
            (
                "moe/src/shape.rs",
                "macro_rules! check { () => {} }\npub mod deep { pub fn g() {} }\npub use deep::g;",
            ),
        ];
        assert_eq!(arrows(&sources), ["a.rs > shape.rs"]);
    }
}
