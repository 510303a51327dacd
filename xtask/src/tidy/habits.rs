//! Module docs, `unwrap`, unfinished work, transfers that nobody counts, and random streams without a name.

use super::broken::Broken;
use super::members::{Role, RustFile};

/// Marks of unfinished work, spelled in two parts so that this file has none.
const UNFINISHED: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

/// Transfers between host and device that bypass `tessera_backend`, which counts them.
const TRANSFERS: [&[&str]; 3] = [
    &["::", "from_data", "("],
    &[".", "into_data", "("],
    &[".", "into_scalar"],
];

/// Refuses a file that does not begin with its docs.
pub fn module_docs(file: &RustFile<'_>) -> Vec<Broken> {
    let first = file
        .text
        .lines()
        .find(|line| !line.is_empty() && !line.starts_with("#!["));
    let documented = first.is_some_and(|line| line.starts_with("//!"));
    let broken = || Broken::new(1, "a module begins with a line of //! docs");
    (!documented).then(broken).into_iter().collect()
}

/// Refuses `unwrap` outside tests.
pub fn unwraps(file: &RustFile<'_>) -> Vec<Broken> {
    if file.role == Role::Support {
        return Vec::new();
    }
    let lines = file.source.lines_with(&[".", "unwrap", "(", ")"]);
    lines
        .into_iter()
        .map(|line| Broken::new(line, "unwrap outside tests"))
        .collect()
}

/// Refuses comments that announce work to be done.
pub fn unfinished(file: &RustFile<'_>) -> Vec<Broken> {
    let mut broken = Vec::new();
    for (_, comment) in &file.source.comments {
        if let Some(word) = UNFINISHED.iter().find(|word| comment.text.contains(**word)) {
            broken.push(Broken::new(comment.line, format!("{word} in a comment")));
        }
    }
    broken
}

/// Refuses transfers between host and device outside `backend`.
pub fn transfers(file: &RustFile<'_>) -> Vec<Broken> {
    if file.role == Role::Support || file.name.starts_with("backend/src") {
        return Vec::new();
    }
    let rule =
        "a transfer between host and device that is not counted: use tessera_backend::host_values";
    let lines = TRANSFERS
        .iter()
        .flat_map(|transfer| file.source.lines_with(transfer));
    lines.map(|line| Broken::new(line, rule)).collect()
}

/// Refuses random streams that the registry of `tessera_backend` does not name.
pub fn streams(file: &RustFile<'_>) -> Vec<Broken> {
    if file.role == Role::Support || file.name.starts_with("backend/src") {
        return Vec::new();
    }
    let lines = file.source.lines_with(&["Rng", "::", "new", "("]);
    let rule = "a random stream without a name: see tessera_backend::streams";
    lines
        .into_iter()
        .map(|line| Broken::new(line, rule))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::members::{rust, testing::files};
    use super::*;

    fn broken(rule: fn(&RustFile<'_>) -> Vec<Broken>, name: &str, text: &str) -> Vec<usize> {
        rule(&rust(&files(&[(name, text)]))[0])
            .iter()
            .map(|broken| broken.line)
            .collect()
    }

    #[test]
    fn a_module_has_docs() {
        assert!(
            broken(
                module_docs,
                "a/src/b.rs",
                "#![forbid(unsafe_code)]\n\n//! Docs.\n"
            )
            .is_empty()
        );
        assert_eq!(
            broken(module_docs, "a/src/b.rs", "/// Docs.\nfn f() {}\n"),
            [1]
        );
    }

    #[test]
    fn unwrap_is_for_tests() {
        let text = "fn f() {\n x\n  .unwrap();\n // .unwrap()\n \".unwrap()\"\n}\n#[cfg(test)]\nfn g() { x.unwrap() \
            }\n";
        assert_eq!(broken(unwraps, "a/src/b.rs", text), [3]);
        assert!(broken(unwraps, "a/tests/it/b.rs", text).is_empty());
        assert!(broken(unwraps, "a/src/b.rs", "fn f() { x.unwrap_or(0) }").is_empty());
    }

    #[test]
    fn comments_announce_no_work() {
        let text = format!(
            "// done\n// {}: later\nconst X: &str = \"{0}\";\n",
            UNFINISHED[0]
        );
        assert_eq!(broken(unfinished, "a/tests/it/b.rs", &text), [2]);
    }

    #[test]
    fn transfers_go_through_the_backend() {
        let text = "fn f() {\n x.into_data();\n Tensor::<1>::from_data(x, y);\n x.into_scalar::<f32>();\n}\n";
        let mut found = broken(transfers, "moe/src/b.rs", text);
        found.sort_unstable();
        assert_eq!(found, [2, 3, 4]);
        assert!(broken(transfers, "backend/src/b.rs", text).is_empty());
        assert!(broken(transfers, "moe/benches/b.rs", text).is_empty());
    }

    #[test]
    fn streams_have_names() {
        let text = "fn f() {\n Rng::new(0, 1);\n}\n";
        assert_eq!(broken(streams, "moe/src/b.rs", text), [2]);
        assert!(broken(streams, "backend/src/b.rs", text).is_empty());
        assert!(broken(streams, "moe/tests/it/b.rs", text).is_empty());
    }
}
