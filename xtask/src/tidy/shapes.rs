//! Shapes in the docs of public functions on tensors.

use super::broken::Broken;
use super::members::{Role, RustFile};
use super::source::{Comment, Piece, Source};

/// Refuses a public function with a `Tensor<…>` in its signature whose docs tell no shape: neither in a section
/// `# Shapes` nor in brackets, as in `[B, L, D]`.
pub fn documented(file: &RustFile<'_>) -> Vec<Broken> {
    if file.role != Role::Library {
        return Vec::new();
    }
    let mut broken = Vec::new();
    for function in functions(&file.source) {
        let has_shape = function.docs.contains("# Shapes") || names_a_shape(&function.docs);
        if function.on_tensors && !has_shape {
            let rule = format!(
                "the docs of `{}` tell no shapes of its tensors",
                function.name
            );
            broken.push(Broken::new(function.line, rule));
        }
    }
    broken
}

struct Function<'a> {
    line: usize,
    name: &'a str,
    on_tensors: bool,
    docs: String,
}

/// The public functions of a file: `pub fn`, and the methods of public traits.
fn functions<'a>(source: &Source<'a>) -> Vec<Function<'a>> {
    let tokens: Vec<_> = source.code().copied().collect();
    let mut functions = Vec::new();
    // Depth of braces, and that of the public trait around the current token.
    let (mut depth, mut public_trait) = (0, None);
    // Whether the current item is public, and the line it begins in, attributes included.
    let (mut public, mut first_line) = (false, None);
    for (at, token) in tokens.iter().enumerate() {
        let next = tokens.get(at + 1).map_or("", |next| next.text);
        match token.text {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                public_trait = public_trait.filter(|inside| depth >= *inside);
            }
            "pub" if next != "(" => public = true,
            "trait" if public => public_trait = Some(depth + 1),
            "fn" if public || public_trait == Some(depth) => functions.push(Function {
                line: token.line,
                name: next,
                on_tensors: on_tensors(&tokens[at..]),
                docs: docs_above(source, first_line.unwrap_or(token.line)),
            }),
            _ => {}
        }
        let between = matches!(token.text, "{" | "}" | ";");
        if between {
            (public, first_line) = (false, None);
        } else {
            first_line.get_or_insert(token.line);
        }
    }
    functions
}

/// Whether the signature that begins here has a `Tensor<…>`.
fn on_tensors(tokens: &[Piece<'_>]) -> bool {
    let mut brackets = 0;
    for pair in tokens.windows(2) {
        match pair[0].text {
            "(" | "[" => brackets += 1,
            ")" | "]" => brackets -= 1,
            "{" | ";" if brackets == 0 => return false,
            "Tensor" if pair[1].text == "<" => return true,
            _ => {}
        }
    }
    false
}

/// The docs that end above a line.
fn docs_above(source: &Source<'_>, line: usize) -> String {
    let docs = source
        .comments
        .iter()
        .filter(|(kind, _)| *kind == Comment::Item);
    let mut lines = Vec::new();
    let mut expected = line;
    for (_, piece) in docs.rev().skip_while(|(_, piece)| piece.line >= line) {
        if piece.line + 1 != expected {
            break;
        }
        lines.push(piece.text);
        expected = piece.line;
    }
    lines.reverse();
    lines.join("\n")
}

/// Whether a text has a shape in brackets: axes separated by commas, or one axis as code.
fn names_a_shape(text: &str) -> bool {
    text.match_indices('[').any(|(open, _)| {
        let inside = text[open + 1..].split(']').next().unwrap_or_default();
        let several = inside.contains(',');
        let code = text[..open].ends_with('`') && text[open + 1 + inside.len()..].starts_with("]`");
        let has_name = inside.contains(|c: char| c.is_alphabetic());
        let type_name = [
            "f16", "f32", "f64", "bf16", "u8", "u16", "u32", "u64", "usize", "i32", "i64",
        ]
        .contains(&inside);
        has_name && !type_name && !inside.contains('[') && (several || code)
    })
}

#[cfg(test)]
mod tests {
    use super::super::members::{rust, testing::files};
    use super::*;

    fn broken(text: &str) -> Vec<usize> {
        documented(&rust(&files(&[("moe/src/a.rs", text)]))[0])
            .iter()
            .map(|broken| broken.line)
            .collect()
    }

    #[test]
    fn a_public_function_on_tensors_tells_shapes() {
        let text = "/// Adds.\n#[inline]\npub fn a(x: Tensor<3>) {}\n/// Maps `[B, L, D]`.\n#[must_use]\npub fn b(\n  \
            x: Tensor<3>,\n) {}\n\
                    /// # Shapes\n/// - `x`: any\npub fn c() -> Option<Tensor<3>> {}\npub const fn d(x: \
                    Vec<Tensor<1>>) {}\n";
        assert_eq!(broken(text), [3, 12]);
    }

    #[test]
    fn methods_of_public_traits_count_and_private_functions_do_not() {
        let text = "pub trait T {\n fn a(&self, x: Tensor<4>);\n fn b(&self);\n}\ntrait U { fn c(x: Tensor<1>); }\n\
                    fn d(x: Tensor<1>) {}\npub(crate) fn e(x: Tensor<1>) {}\nimpl T for V { fn a(&self, x: Tensor<4>) \
                    {} }\n\
                    pub fn f(x: FloatTensor<B>) { let y: Tensor<1>; }\n";
        assert_eq!(broken(text), [2]);
    }

    #[test]
    fn ranges_and_links_are_no_shapes() {
        for text in [
            "in [-1, 1]",
            "see [`Foo`]",
            "[Foo]",
            "a `[f32]`",
            "[x](y), z",
        ] {
            assert!(!names_a_shape(text), "{text}");
        }
        for text in [
            "`[batch, seq, d_model]`",
            "[B, 3, H, W] in [-1, 1]",
            "one per row `[N]`",
        ] {
            assert!(names_a_shape(text), "{text}");
        }
    }
}
