//! `cargo xtask dist`: release artifacts, an archive and a Python wheel with their checksums.
//!
//! The same commit, compiler and target give the same bytes, wherever and whenever.

mod archive;
mod build;
mod wheel;

use crate::workspace;
use anyhow::{Context, Result};
use archive::Entry;
use clap::Args;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use wheel::Wheel;
use xshell::{Shell, cmd};

/// Write release artifacts: an archive for `cargo binstall`, a Python wheel and SHA256SUMS.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask dist\n  cargo xtask dist --target aarch64-unknown-linux-gnu -o artifacts \
        --no-wheel\n  \
                  SOURCE_DATE_EPOCH=0 cargo xtask dist --repository https://example.org/tessera"
)]
pub struct Dist {
    /// The target to build for [default: that of this machine].
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
    /// Output folder, where other files are kept [default: target/dist].
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// The address of the sources, for the wheel's metadata.
    #[arg(long, value_name = "URL")]
    repository: Option<String>,
    /// Write no wheel.
    #[arg(long)]
    no_wheel: bool,
}

/// The whole workspace has one version, and one license.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const LICENSE: &str = env!("CARGO_PKG_LICENSE");

/// Files of the workspace that the archive contains.
const TEXTS: [&str; 4] = [
    "README.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "LICENSE-TAEF2",
];

/// Shells and the usual names of their completion files.
const COMPLETIONS: [(&str, &str); 4] = [
    ("bash", "tessera.bash"),
    ("zsh", "_tessera"),
    ("fish", "tessera.fish"),
    ("powershell", "_tessera.ps1"),
];

/// The earliest time that every archive format supports: 1980, where those of zip begin.
const EARLIEST: u64 = 315_532_800;

/// Extensions of artifacts.
const ARTIFACTS: [&str; 3] = [".tar.gz", ".zip", ".whl"];

impl Dist {
    /// Builds, packs, and prints the checksums.
    ///
    /// # Errors
    /// If the program does not compile, or a file cannot be written.
    pub fn run(self, sh: &Shell) -> Result<()> {
        let root = workspace::root();
        let seconds = seconds(std::env::var("SOURCE_DATE_EPOCH").ok().as_deref(), || {
            cmd!(sh, "git -C {root} log -1 --format=%ct")
                .quiet()
                .ignore_stderr()
                .read()
                .ok()
        })?;
        let compiler = build::Compiler::ask(sh)?;
        let target = self.target.as_ref().unwrap_or(&compiler.host);
        eprintln!("building tessera {VERSION} for {target}");
        let path = build::tessera(sh, &compiler, target)?;
        let name = path.file_name().context("cargo built no file")?;
        let program = Entry::program(name.to_string_lossy(), workspace::read(&path)?);
        let texts: Vec<_> = TEXTS
            .iter()
            .map(|name| Ok(Entry::file(*name, workspace::read(&root.join(name))?)))
            .collect::<Result<_>>()?;

        let mut artifacts = Vec::new();
        let mut entries = vec![program.clone()];
        entries.extend_from_slice(&texts);
        match completions_and_pages(sh, &path) {
            Ok(files) => entries.extend(files),
            Err(_) if *target != compiler.host => {
                eprintln!(
                    "note: no completions and no man pages, as a program for {target} does not run here"
                );
            }
            Err(error) => return Err(error),
        }
        artifacts.push(packed(entries, target, seconds)?);
        if !self.no_wheel {
            match wheel::platform(sh, target, &program.bytes) {
                Ok(platform) => {
                    let wheel = Wheel {
                        version: VERSION,
                        license: LICENSE,
                        repository: self.repository.as_deref(),
                        readme: &String::from_utf8_lossy(&texts[0].bytes),
                        licenses: &texts[1..],
                    };
                    artifacts.push(wheel.pack(&program, &platform, seconds)?);
                }
                Err(error) => eprintln!("note: no wheel: {error:#}"),
            }
        }
        let folder = match self.output {
            Some(folder) => folder,
            None => root.join("target").join("dist"),
        };
        print!("{}", write_artifacts(&folder, &artifacts)?);
        Ok(())
    }
}

/// The time of all files: SOURCE_DATE_EPOCH, else that of the commit, else the earliest.
fn seconds(given: Option<&str>, commit: impl FnOnce() -> Option<String>) -> Result<u64> {
    let seconds = match given {
        Some(given) => given.parse().with_context(|| {
            format!("SOURCE_DATE_EPOCH: expected seconds since 1970, found {given:?}")
        })?,
        None => commit()
            .and_then(|seconds| seconds.trim().parse().ok())
            .unwrap_or(EARLIEST),
    };
    Ok(seconds.max(EARLIEST))
}

/// Shell completions and manual pages, as the program writes them.
fn completions_and_pages(sh: &Shell, program: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for (shell, name) in COMPLETIONS {
        let script = cmd!(sh, "{program} completions {shell}").quiet().output()?;
        entries.push(Entry::file(format!("completions/{name}"), script.stdout));
    }
    let temporary = sh.create_temp_dir()?;
    let folder = temporary.path();
    cmd!(sh, "{program} man -o {folder}")
        .quiet()
        .ignore_stdout()
        .run()?;
    for page in workspace::list(folder) {
        let name = page.file_name().unwrap_or_default().to_string_lossy();
        entries.push(Entry::file(format!("man/{name}"), workspace::read(&page)?));
    }
    Ok(entries)
}

/// The name and the bytes of the archive: zip for Windows, tar.gz elsewhere.
fn packed(mut entries: Vec<Entry>, target: &str, seconds: u64) -> Result<(String, Vec<u8>)> {
    let top = format!("tessera-{VERSION}-{target}");
    for entry in &mut entries {
        entry.path = format!("{top}/{}", entry.path);
    }
    Ok(match target.contains("windows") {
        true => (format!("{top}.zip"), archive::zip(&entries, seconds)?),
        false => (format!("{top}.tar.gz"), archive::tar_gz(&entries, seconds)?),
    })
}

/// Writes the artifacts and the checksums of all artifacts in the folder, those of other targets included.
fn write_artifacts(folder: &Path, artifacts: &[(String, Vec<u8>)]) -> Result<String> {
    workspace::create_folder(folder)?;
    for (name, bytes) in artifacts {
        workspace::write(&folder.join(name), bytes)?;
    }
    let mut sums = String::new();
    for path in workspace::list(folder) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_file() && ARTIFACTS.iter().any(|end| name.ends_with(end)) {
            let _ = writeln!(
                sums,
                "{:x}  {name}",
                Sha256::digest(workspace::read(&path)?)
            );
        }
    }
    workspace::write(&folder.join("SHA256SUMS"), sums.as_bytes())?;
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_time_is_the_environments_then_the_commits_then_the_earliest() {
        let commit = || Some("1700000000\n".to_owned());
        assert_eq!(seconds(Some("1600000000"), commit).unwrap(), 1_600_000_000);
        assert_eq!(seconds(None, commit).unwrap(), 1_700_000_000);
        assert_eq!(seconds(None, || None).unwrap(), EARLIEST);
        assert_eq!(seconds(Some("0"), commit).unwrap(), EARLIEST);
        let error = seconds(Some("today"), commit).unwrap_err().to_string();
        assert!(
            error.contains("SOURCE_DATE_EPOCH") && error.contains("today"),
            "{error}"
        );
    }

    #[test]
    fn an_archive_has_one_top_folder_and_the_form_of_its_target() {
        let entries = || vec![Entry::program("tessera", "code")];
        let (name, bytes) = packed(entries(), "x86_64-unknown-linux-musl", EARLIEST).unwrap();
        assert_eq!(
            name,
            format!("tessera-{VERSION}-x86_64-unknown-linux-musl.tar.gz")
        );
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(&bytes[..]));
        let first = tar.entries().unwrap().next().unwrap().unwrap();
        let path = format!("tessera-{VERSION}-x86_64-unknown-linux-musl/tessera");
        assert_eq!(first.path().unwrap(), Path::new(&path));
        let (name, _) = packed(entries(), "x86_64-pc-windows-msvc", EARLIEST).unwrap();
        assert_eq!(
            name,
            format!("tessera-{VERSION}-x86_64-pc-windows-msvc.zip")
        );
    }

    /// What `cargo binstall` asks for is what is made here.
    #[test]
    fn binstall_knows_the_layout() {
        let manifest =
            fs::read_to_string(workspace::root().join("cli").join("Cargo.toml")).unwrap();
        for line in [
            "pkg-url = \"{ repo }/releases/download/v{ version }/tessera-{ version }-{ target }{ archive-suffix }\"",
            "bin-dir = \"tessera-{ version }-{ target }/{ bin }{ binary-ext }\"",
            "pkg-fmt = \"tgz\"",
        ] {
            assert!(manifest.lines().any(|found| found == line), "{line}");
        }
    }

    #[test]
    fn sums_are_of_every_artifact_in_the_folder() {
        let sh = Shell::new().unwrap();
        let temporary = sh.create_temp_dir().unwrap();
        let folder = temporary.path().join("dist");
        let artifact = |name: &str| (name.to_owned(), b"abc".to_vec());
        write_artifacts(&folder, &[artifact("b.whl")]).unwrap();
        fs::write(folder.join("notes.txt"), "mine").unwrap();
        let sums = write_artifacts(&folder, &[artifact("a.tar.gz")]).unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sums, format!("{abc}  a.tar.gz\n{abc}  b.whl\n"));
        assert_eq!(fs::read_to_string(folder.join("SHA256SUMS")).unwrap(), sums);
        assert_eq!(workspace::list(&folder).len(), 4);
    }
}
