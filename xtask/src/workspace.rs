//! The workspace: its folder, its files, and the program it builds.

use anyhow::{Context, Result};
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use xshell::{Shell, cmd};

/// The workspace's top folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
}

/// The cargo that runs xtask, or the one on the path.
pub fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Builds `tessera` and returns its path, which cargo reports whatever the target folder is.
///
/// # Errors
/// If it does not compile.
pub fn build_tessera(sh: &Shell) -> Result<PathBuf> {
    let manifest = root().join("Cargo.toml");
    let cargo = cargo();
    let messages = cmd!(
        sh,
        "{cargo} build --release --quiet --manifest-path {manifest} --package tessera-cli --bin tessera
         --message-format json-render-diagnostics"
    )
    .quiet()
    .read()
    .context("tessera does not compile")?;
    built(&messages)
}

/// The path of the program in the messages of cargo.
///
/// # Errors
/// If they do not name it.
pub fn built(messages: &str) -> Result<PathBuf> {
    executable(messages).context("cargo built tessera but did not report its path")
}

fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "tessera")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

/// Reads a file.
///
/// # Errors
/// If it cannot be read; the message names it.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Reads a text.
///
/// # Errors
/// If it cannot be read or is not UTF-8; the message names it.
pub fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Creates a folder and those above it; one that exists is fine.
///
/// # Errors
/// If it cannot be created; the message names it.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))
}

/// Writes a file whole or not at all.
///
/// # Errors
/// If it cannot be written; the message names it.
pub fn write(path: &Path, contents: &[u8]) -> Result<()> {
    let unfinished = path.with_added_extension("part");
    fs::write(&unfinished, contents)
        .with_context(|| format!("cannot write {}", unfinished.display()))?;
    fs::rename(&unfinished, path).with_context(|| format!("cannot write {}", path.display()))
}

/// Removes a file.
///
/// # Errors
/// If it cannot be removed; the message names it.
pub fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
}

/// The entries of a folder, sorted by name; none if there is no such folder.
pub fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_among_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"burn"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"tessera"},"executable":"/t/release/tessera"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(
            executable(messages),
            Some(PathBuf::from("/t/release/tessera"))
        );
        assert_eq!(executable("{}"), None);
    }

    #[test]
    fn the_root_is_a_workspace() {
        let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[workspace]"));
    }
}
