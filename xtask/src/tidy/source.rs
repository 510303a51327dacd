//! A Rust file split into code, strings and comments, each marked as test code or not.

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The line it begins in, from 1.
    pub line: usize,
    /// Its text; a string without its quotes, a comment without its slashes.
    pub text: &'a str,
    /// Whether it belongs to an item under `#[cfg(test)]`.
    pub in_tests: bool,
}

/// A comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comment {
    /// `//!`: documents the module.
    Module,
    /// `///`: documents the next item.
    Item,
    /// All others.
    Plain,
}

/// A Rust file in pieces.
#[derive(Debug, Default)]
pub struct Source<'a> {
    /// Identifiers, numbers and punctuation; `::` is one token, lifetimes and literals in quotes are left out.
    pub tokens: Vec<Piece<'a>>,
    /// String literals.
    pub strings: Vec<Piece<'a>>,
    /// Comments, line by line.
    pub comments: Vec<(Comment, Piece<'a>)>,
}

impl<'a> Source<'a> {
    /// Splits a file that compiles.
    pub fn parse(text: &'a str) -> Self {
        let mut lexer = Lexer {
            text,
            at: 0,
            line: 1,
            source: Self::default(),
        };
        while lexer.step() {}
        let mut source = lexer.source;
        source.mark_tests();
        source
    }

    /// The tokens outside tests.
    pub fn code(&self) -> impl Iterator<Item = &Piece<'a>> {
        self.tokens.iter().filter(|token| !token.in_tests)
    }

    /// The lines outside tests in which these tokens follow each other.
    pub fn lines_with(&self, pattern: &[&str]) -> Vec<usize> {
        let matches = |window: &&[Piece<'a>]| {
            let same =
                |(token, wanted): (&Piece<'a>, &&str)| token.text == *wanted && !token.in_tests;
            window.iter().zip(pattern).all(same)
        };
        let windows = self.tokens.windows(pattern.len());
        windows
            .filter(matches)
            .map(|window| window[0].line)
            .collect()
    }

    /// The line where the first item begins that is compiled for tests only.
    pub fn first_test(&self) -> Option<usize> {
        let token = self.tokens.iter().find(|token| token.in_tests);
        token.map(|token| token.line)
    }

    /// The names of modules in files of their own that are compiled for tests only.
    pub fn test_modules(&self) -> Vec<&'a str> {
        let declared = |window: &&[Piece<'a>]| {
            window[0].text == "mod" && window[2].text == ";" && window[0].in_tests
        };
        self.tokens
            .windows(3)
            .filter(declared)
            .map(|window| window[1].text)
            .collect()
    }

    fn mark_tests(&mut self) {
        let mut ranges = Vec::new();
        for at in 0..self.tokens.len() {
            if let Some(after) = self.test_attribute(at) {
                let end = self.end_of_item(after);
                self.tokens[at..end]
                    .iter_mut()
                    .for_each(|token| token.in_tests = true);
                ranges.push((self.tokens[at].line, self.tokens[end - 1].line));
            }
        }
        let comments = self.comments.iter_mut().map(|(_, piece)| piece);
        for piece in self.strings.iter_mut().chain(comments) {
            piece.in_tests = ranges
                .iter()
                .any(|(first, last)| (first..=last).contains(&&piece.line));
        }
    }

    fn is(&self, at: usize, text: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.text == text)
    }

    /// If an attribute `#[cfg(…)]` that selects tests begins here, the token after it.
    fn test_attribute(&self, at: usize) -> Option<usize> {
        if !["#", "[", "cfg", "("]
            .iter()
            .zip(at..)
            .all(|(text, at)| self.is(at, text))
        {
            return None;
        }
        let end = self.closing(at + 1);
        let selects =
            |at: usize| self.is(at, "test") && !(self.is(at - 1, "(") && self.is(at - 2, "not"));
        (at + 4..end).any(selects).then_some(end)
    }

    /// The token after the bracket that closes the one here.
    fn closing(&self, open: usize) -> usize {
        let mut depth = 0;
        for (at, token) in self.tokens.iter().enumerate().skip(open) {
            match token.text {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return at + 1;
            }
        }
        self.tokens.len()
    }

    /// The token after the item, field or match arm that begins here.
    fn end_of_item(&self, start: usize) -> usize {
        const ITEMS: [&str; 16] = [
            "async",
            "const",
            "enum",
            "extern",
            "fn",
            "impl",
            "let",
            "macro_rules",
            "mod",
            "pub",
            "static",
            "struct",
            "trait",
            "type",
            "unsafe",
            "use",
        ];
        let mut at = start;
        while self.is(at, "#") {
            at = self.closing(at + 1);
        }
        let item = self
            .tokens
            .get(at)
            .is_some_and(|token| ITEMS.contains(&token.text));
        if self.is(at, "pub") {
            at = if self.is(at + 1, "(") {
                self.closing(at + 1)
            } else {
                at + 1
            };
        }
        let import = self.is(at, "use");
        while let Some(token) = self.tokens.get(at) {
            match token.text {
                ";" => return at + 1,
                "," if !item => return at + 1,
                ")" | "]" | "}" => return at,
                "{" if item && !import => return self.closing(at),
                "(" | "[" | "{" => at = self.closing(at),
                _ => at += 1,
            }
        }
        at
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    source: Source<'a>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Takes so many bytes.
    fn take(&mut self, bytes: usize) -> Piece<'a> {
        let text = &self.rest()[..bytes];
        let piece = Piece {
            line: self.line,
            text,
            in_tests: false,
        };
        self.line += text.matches('\n').count();
        self.at += bytes;
        piece
    }

    /// Takes a piece; false at the end of the file.
    fn step(&mut self) -> bool {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return false;
        };
        if rest.starts_with("//") {
            self.line_comment();
        } else if rest.starts_with("/*") {
            self.block_comment();
        } else if let Some(prefix) = string_prefix(rest) {
            self.string(prefix);
        } else if first == '\'' {
            self.quote();
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let word = self.take(end);
            self.source.tokens.push(word);
        } else if first.is_whitespace() {
            self.take(first.len_utf8());
        } else {
            let length = if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let token = self.take(length);
            self.source.tokens.push(token);
        }
        true
    }

    fn line_comment(&mut self) {
        let rest = self.rest();
        let mut piece = self.take(rest.find('\n').unwrap_or(rest.len()));
        let (kind, skipped) = match piece.text.as_bytes() {
            [_, _, b'!', ..] => (Comment::Module, 3),
            [_, _, b'/', b'/', ..] => (Comment::Plain, 2),
            [_, _, b'/', ..] => (Comment::Item, 3),
            _ => (Comment::Plain, 2),
        };
        piece.text = &piece.text[skipped..];
        self.source.comments.push((kind, piece));
    }

    fn block_comment(&mut self) {
        let rest = self.rest();
        let (mut depth, mut end) = (0, 0);
        while end < rest.len() {
            match &rest.as_bytes()[end..] {
                [b'/', b'*', ..] => (depth, end) = (depth + 1, end + 2),
                [b'*', b'/', ..] => (depth, end) = (depth - 1, end + 2),
                _ => end += 1,
            }
            if depth == 0 {
                break;
            }
        }
        let piece = self.take(end);
        self.source.comments.push((Comment::Plain, piece));
    }

    /// A string that opens with `prefix`.
    fn string(&mut self, prefix: &str) {
        let length = prefix.len();
        let hashes = prefix.matches('#').count();
        self.take(length);
        let rest = self.rest();
        let end = if prefix.contains('r') {
            let close = format!("\"{}", "#".repeat(hashes));
            rest.find(&close)
        } else {
            let mut escaped = false;
            rest.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            })
        };
        let piece = self.take(end.unwrap_or(rest.len()));
        self.source.strings.push(piece);
        self.take((1 + hashes).min(self.rest().len()));
    }

    /// A character, which is skipped, or a lifetime, whose name is.
    fn quote(&mut self) {
        let rest = self.rest();
        let mut chars = rest.char_indices().skip(1);
        let end = match (chars.next(), chars.next()) {
            (Some((_, '\\')), Some((at, escaped))) => {
                let after = at + escaped.len_utf8();
                rest[after..]
                    .find('\'')
                    .map_or(rest.len(), |close| after + close + 1)
            }
            (Some(_), Some((close, '\''))) => close + 1,
            _ => {
                1 + rest[1..]
                    .find(|c: char| !c.is_alphanumeric() && c != '_')
                    .unwrap_or(rest.len() - 1)
            }
        };
        self.take(end);
    }
}

/// What opens a string literal here: `"`, `b"`, `r#"` and the like.
fn string_prefix(rest: &str) -> Option<&str> {
    let letters = rest
        .find(|c| !matches!(c, 'b' | 'c' | 'r'))
        .filter(|&letters| letters <= 2)?;
    let hashes = rest[letters..].find(|c| c != '#')?;
    let raw = rest[..letters].ends_with('r');
    let opens = rest[letters + hashes..].starts_with('"') && (raw || hashes == 0);
    opens.then(|| &rest[..=letters + hashes])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<'a>(pieces: impl IntoIterator<Item = &'a Piece<'a>>) -> Vec<&'a str> {
        pieces.into_iter().map(|piece| piece.text).collect()
    }

    #[test]
    fn code_strings_and_comments_are_told_apart() {
        let text = "//! M\nfn f<'a>() { // \"no\"\n  g(\"// s\\\"\", r#\"a\"b\"#, '\"', '\\'', b'x'); /* x /* y */ z \
            */ h::i }\n/// D\n";
        let source = Source::parse(text);
        let expected = "fn f < > ( ) { g ( , , , , b ) ; h :: i }";
        assert_eq!(words(&source.tokens).join(" "), expected);
        assert_eq!(words(&source.strings), ["// s\\\"", "a\"b"]);
        let kinds: Vec<_> = source
            .comments
            .iter()
            .map(|(kind, piece)| (*kind, piece.line))
            .collect();
        assert_eq!(
            kinds,
            [
                (Comment::Module, 1),
                (Comment::Plain, 2),
                (Comment::Plain, 3),
                (Comment::Item, 4)
            ]
        );
    }

    #[test]
    fn only_the_item_below_the_attribute_is_a_test() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n use c::{d, e};\n fn b() { \"s\" }\n}\n#[cfg(not(test))]\nfn \
            c() {}\n\
                    #[cfg(any(test, x))]\npub mod d;\n#[cfg(test)]\npub(crate) use e::{f};\nstruct G { #[cfg(test)] h: \
                    I, j: K }\n";
        let source = Source::parse(text);
        let code = words(source.code()).join(" ");
        assert_eq!(
            code,
            "fn a ( ) { } # [ cfg ( not ( test ) ) ] fn c ( ) { } struct G { j : K }"
        );
        assert!(source.strings[0].in_tests);
        assert_eq!(source.test_modules(), ["d"]);
    }

    #[test]
    fn patterns_are_found_outside_tests() {
        let source = Source::parse("a\n.b();\n// .b()\n#[cfg(test)]\nfn t() { a.b() }\n");
        assert_eq!(source.lines_with(&[".", "b", "("]), [2]);
    }
}
