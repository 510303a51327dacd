//! Imports between the files of one crate, which must not run in large circles.

mod circles;
mod graph;
mod parse;

use super::broken::Broken;
use super::members::RustFile;
use graph::Graph;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// So many files may import each other, as a trait and its types do.
const MOST_FILES: usize = 3;

/// Refuses circles of imports, each with its files.
pub fn circles(files: &[RustFile<'_>]) -> Vec<(PathBuf, Broken)> {
    let mut broken = Vec::new();
    for folder in folders(files) {
        let graph = Graph::of(files, folder);
        for circle in circles::circles(&graph)
            .iter()
            .filter(|circle| circle.len() > MOST_FILES)
        {
            let rule = format!(
                "{} files import each other in a circle, at most {MOST_FILES} may: {}",
                circle.len(),
                names(&graph, circle)
            );
            broken.push((folder.join(&graph.files[circle[0]]), Broken::new(1, rule)));
        }
    }
    broken
}

/// All imports and all circles of every crate, for a reader.
pub fn describe(files: &[RustFile<'_>]) -> String {
    let mut text = String::new();
    for folder in folders(files) {
        let graph = Graph::of(files, folder);
        let _ = writeln!(text, "{}", folder.display());
        for (file, arrows) in graph.files.iter().zip(&graph.arrows) {
            let arrows: Vec<_> = arrows.iter().copied().collect();
            if !arrows.is_empty() {
                let _ = writeln!(text, "  {file} → {}", names(&graph, &arrows));
            }
        }
        for circle in circles::circles(&graph) {
            let _ = writeln!(
                text,
                "  circle of {}: {}",
                circle.len(),
                names(&graph, &circle)
            );
        }
    }
    text
}

/// The source folders of the crates.
fn folders<'a>(files: &'a [RustFile<'_>]) -> BTreeSet<&'a Path> {
    let roots = files
        .iter()
        .filter(|file| file.name.ends_with("src/lib.rs") || file.name.ends_with("src/main.rs"));
    roots.filter_map(|file| file.name.parent()).collect()
}

fn names(graph: &Graph, files: &[usize]) -> String {
    let names: Vec<_> = files.iter().map(|&file| &*graph.files[file]).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::members::{rust, testing};
    use super::*;

    /// A crate of so many files, each of which imports from the next, and the last from the first.
    fn circle_of(count: usize) -> Vec<(String, String)> {
        let import = |i: usize| {
            format!(
                "use crate::m{0}::f{0};\npub fn f{i}() {{}}",
                (i + 1) % count
            )
        };
        let mut files = vec![("moe/src/lib.rs".into(), String::new())];
        files.extend((0..count).map(|i| (format!("moe/src/m{i}.rs"), import(i))));
        files
    }

    fn with<T>(sources: &[(String, String)], read: impl FnOnce(&[RustFile<'_>]) -> T) -> T {
        let borrowed: Vec<_> = sources
            .iter()
            .map(|(name, text)| (&**name, &**text))
            .collect();
        read(&rust(&testing::files(&borrowed)))
    }

    #[test]
    fn a_circle_of_four_is_refused_and_one_of_three_is_not() {
        assert!(with(&circle_of(3), circles).is_empty());
        let broken = with(&circle_of(4), circles);
        assert_eq!(broken.len(), 1);
        assert_eq!(broken[0].0, Path::new("moe/src/m0.rs"));
        assert!(
            broken[0].1.rule.ends_with("m0.rs, m1.rs, m2.rs, m3.rs"),
            "{}",
            broken[0].1.rule
        );
    }

    #[test]
    fn a_reader_sees_small_circles_too() {
        let text = with(&circle_of(2), describe);
        assert_eq!(
            text,
            "moe/src\n  m0.rs → m1.rs\n  m1.rs → m0.rs\n  circle of 2: m0.rs, m1.rs\n"
        );
    }
}
