//! A build of `tessera` without paths of the machine that built it.

use crate::workspace;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use xshell::{Shell, cmd};

/// Between the flags in `CARGO_ENCODED_RUSTFLAGS`, so that paths may have spaces.
const SEPARATOR: &str = "\u{1f}";

/// The properties of the compiler that the build depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler {
    /// The target it builds for unless told otherwise.
    pub host: String,
    commit: String,
    sysroot: String,
}

impl Compiler {
    /// Asks rustc.
    ///
    /// # Errors
    /// If there is none.
    pub fn ask(sh: &Shell) -> Result<Self> {
        let rustc = rustc();
        let version = cmd!(sh, "{rustc} -vV").quiet().read()?;
        let field = |name: &str| {
            let found = version.lines().find_map(|line| line.strip_prefix(name));
            found.with_context(|| format!("`rustc -vV` does not report {name}"))
        };
        Ok(Self {
            host: field("host: ")?.into(),
            commit: field("commit-hash: ")?.into(),
            sysroot: cmd!(sh, "{rustc} --print sysroot").quiet().read()?,
        })
    }
}

/// The compiler that cargo calls.
pub fn rustc() -> String {
    env::var("RUSTC").unwrap_or_else(|_| "rustc".into())
}

/// Builds `tessera` for `target` in a folder of its own, because its flags differ, and returns its path.
///
/// # Errors
/// If it does not compile or contains a path of this machine.
pub fn tessera(sh: &Shell, compiler: &Compiler, target: &str) -> Result<PathBuf> {
    let (root, cargo) = (workspace::root(), workspace::cargo());
    let manifest = root.join("Cargo.toml");
    let metadata = cmd!(
        sh,
        "{cargo} metadata --locked --format-version 1 --filter-platform {target} --manifest-path {manifest}"
    );
    let metadata: Value = serde_json::from_str(&metadata.quiet().read()?)?;
    let places = places(compiler, &metadata);
    let flags = flags(&places, target, given_flags());
    let folder = target_folder(&metadata)?.join("dist-build");
    let mut build = cmd!(
        sh,
        "{cargo} build --locked --release --manifest-path {manifest} --package tessera-cli --bin tessera
         --target-dir {folder} --message-format json-render-diagnostics"
    )
    .env("CARGO_ENCODED_RUSTFLAGS", flags.join(SEPARATOR));
    if target != compiler.host {
        build = build.args(["--target", target]);
    }
    let program = workspace::built(&build.quiet().read().context("tessera does not compile")?)?;
    let bytes = workspace::read(&program)?;
    if let Some(place) = places
        .iter()
        .find(|place| is_specific(place) && contains(&bytes, &place.path))
    {
        bail!(
            "{}: contains {}, a path of this machine",
            program.display(),
            place.path
        );
    }
    Ok(program)
}

/// The folder of cargo's builds.
fn target_folder(metadata: &Value) -> Result<&Path> {
    let folder = metadata["target_directory"].as_str();
    folder
        .map(Path::new)
        .context("cargo does not report its target folder")
}

/// A folder of this machine, and what the program calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    path: String,
    name: String,
}

/// Where sources lie here. Of two that hold a file the compiler takes the later.
fn places(compiler: &Compiler, metadata: &Value) -> Vec<Place> {
    let place = |path: &Path, name: &str| Place {
        path: path.display().to_string(),
        name: name.into(),
    };
    let mut places = Vec::new();
    if let Some(home) = cargo_home() {
        places.push(place(&home, "/cargo"));
    }
    // Each registry has a folder with its name; the same sources may come from another.
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let registries: BTreeSet<_> = packages
        .filter(|package| !package["source"].is_null())
        .filter_map(|package| {
            Path::new(package["manifest_path"].as_str()?)
                .parent()?
                .parent()
        })
        .collect();
    places.extend(
        registries
            .into_iter()
            .map(|folder| place(folder, "/cargo/registry")),
    );
    let sysroot = Path::new(&compiler.sysroot);
    places.push(place(sysroot, "/rust"));
    // Where the compiler's own sources are installed they are read there, and elsewhere known by this name.
    places.push(place(
        &sysroot.join("lib").join("rustlib").join("src").join("rust"),
        &format!("/rustc/{}", compiler.commit),
    ));
    places.push(place(workspace::root(), "/tessera"));
    places
}

fn cargo_home() -> Option<PathBuf> {
    let given = env::var_os("CARGO_HOME").map(PathBuf::from);
    given.or_else(|| Some(env::home_dir()?.join(".cargo")))
}

/// The flags that the environment asks for, which those of a variable would replace.
fn given_flags() -> Vec<String> {
    let split = |flags: String, separator: &str| {
        let flags = flags.split(separator).filter(|flag| !flag.is_empty());
        flags.map(str::to_owned).collect()
    };
    match (env::var("CARGO_ENCODED_RUSTFLAGS"), env::var("RUSTFLAGS")) {
        (Ok(flags), _) => split(flags, SEPARATOR),
        (_, Ok(flags)) => split(flags, " "),
        _ => Vec::new(),
    }
}

fn flags(places: &[Place], target: &str, mut flags: Vec<String>) -> Vec<String> {
    flags.extend(
        places
            .iter()
            .map(|Place { path, name }| format!("--remap-path-prefix={path}={name}")),
    );
    if target.ends_with("windows-msvc") {
        // In place of the time at which the program was linked, a number that depends on what it holds.
        flags.push("-Clink-arg=/Brepro".into());
    }
    flags
}

/// Whether a path cannot occur in a program by chance: `/src` may be a part of any other.
fn is_specific(place: &Place) -> bool {
    Path::new(&place.path).components().count() > 2
}

fn contains(bytes: &[u8], path: &str) -> bool {
    let mut windows = bytes.windows(path.len());
    windows.any(|window| window == path.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiler() -> Compiler {
        Compiler {
            host: "x86_64-unknown-linux-gnu".into(),
            commit: "abc".into(),
            sysroot: "/opt/rust".into(),
        }
    }

    #[test]
    fn every_place_of_sources_has_another_name() {
        let metadata = serde_json::json!({ "packages": [
            { "source": null, "manifest_path": "/w/cli/Cargo.toml" },
            { "source": "registry", "manifest_path": "/r/src/one/a-1.0.0/Cargo.toml" },
            { "source": "registry", "manifest_path": "/r/src/one/b-1.0.0/Cargo.toml" },
        ] });
        let flags = flags(
            &places(&compiler(), &metadata),
            "x86_64-pc-windows-msvc",
            vec!["-Cx".into()],
        );
        let root = workspace::root().display();
        assert_eq!(flags[0], "-Cx");
        for name in [
            "/r/src/one=/cargo/registry".to_owned(),
            "/opt/rust=/rust".to_owned(),
            format!("{root}=/tessera"),
        ] {
            let flag = format!("--remap-path-prefix={name}");
            let times = flags.iter().filter(|given| **given == flag).count();
            assert_eq!(times, 1, "{flag} of {flags:?}");
        }
        assert_eq!(flags.last().unwrap(), "-Clink-arg=/Brepro");
        let of_compiler = |flag: &String| flag.ends_with("rust=/rustc/abc");
        assert!(flags.iter().any(of_compiler), "{flags:?}");
    }

    #[test]
    fn a_path_in_a_program_is_found() {
        assert!(contains(b"\0/home/me/.cargo/x.rs\0", "/home/me/.cargo"));
        assert!(!contains(b"\0/cargo/x.rs\0", "/home/me/.cargo"));
        let place = |path: &str| Place {
            path: path.into(),
            name: String::new(),
        };
        assert!(is_specific(&place("/home/me")) && !is_specific(&place("/src")));
    }
}
