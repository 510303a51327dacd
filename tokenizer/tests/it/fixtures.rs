//! Golden data of the reference implementations.

use std::path::{Path, PathBuf};

/// A file beside the workspace that users do not have: without it a test is skipped, unless one was promised.
pub(crate) fn shared(file: &str) -> Option<PathBuf> {
    let promised = std::env::var_os("TESSERA_FIXTURES").map(PathBuf::from);
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures");
    let path = promised.clone().unwrap_or_else(default).join(file);
    if path.is_file() {
        return Some(path);
    }
    assert!(
        promised.is_none(),
        "TESSERA_FIXTURES is set, but there is no {}",
        path.display()
    );
    println!("skipped: there is no {}", path.display());
    None
}
