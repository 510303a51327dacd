//! The program as a Python wheel, as `pip` and `uv` install it: no Python in it, the same bytes as in the archive.
//!
//! maturin makes such wheels too, and `pip install .` has it build one from source (pyproject.toml). What it makes
//! differs from run to run, as its list of parts has a random number, the time and paths of this machine; it links the
//! program again, with a flag of its own; and it knows no address of the sources but the manifest's.

use super::archive::{self, Entry};
use super::build;
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use xshell::{Shell, cmd};

/// What `pip install` calls it; pyproject.toml says why it is not `tessera`.
const NAME: &str = "tessera-images";

/// The oldest glibc that a manylinux wheel is for, and musl in its way.
const OLDEST_GLIBC: u32 = 17;

/// What a wheel says of the program in it.
pub struct Wheel<'a> {
    /// The program's version.
    pub version: &'a str,
    /// Under which licenses it is: an SPDX expression.
    pub license: &'a str,
    /// Where its sources are, if they are anywhere.
    pub repository: Option<&'a str>,
    /// README.md.
    pub readme: &'a str,
    /// The texts of the licenses.
    pub licenses: &'a [Entry],
}

impl Wheel<'_> {
    /// The wheel of `program`, its name first.
    ///
    /// # Errors
    /// If it cannot be packed.
    pub fn pack(&self, program: &Entry, platform: &str, seconds: u64) -> Result<(String, Vec<u8>)> {
        let stem = format!("{}-{}", NAME.replace('-', "_"), self.version);
        let mut entries = vec![
            Entry::program(
                format!("{stem}.data/scripts/{}", program.path),
                &program.bytes[..],
            ),
            Entry::file(format!("{stem}.dist-info/METADATA"), self.metadata()),
            Entry::file(format!("{stem}.dist-info/WHEEL"), tags(platform)),
        ];
        for Entry { path, bytes, .. } in self.licenses {
            let path = format!("{stem}.dist-info/licenses/{path}");
            entries.push(Entry::file(path, &bytes[..]));
        }
        entries.sort();
        let record = format!("{stem}.dist-info/RECORD");
        entries.push(Entry::file(record.clone(), recorded(&entries, &record)));
        let bytes = archive::zip(&entries, seconds)?;
        Ok((format!("{stem}-py3-none-{platform}.whl"), bytes))
    }

    fn metadata(&self) -> String {
        let mut text = format!(
            "Metadata-Version: 2.4\nName: {NAME}\nVersion: {}\nSummary: The program tessera: image generation over \
                discrete tokens\n\
             License-Expression: {}\n",
            self.version, self.license
        );
        for Entry { path, .. } in self.licenses {
            let _ = writeln!(text, "License-File: {path}");
        }
        if let Some(repository) = self.repository {
            let _ = writeln!(text, "Project-URL: Source, {repository}");
        }
        let _ = write!(
            text,
            "Requires-Python: >=3.8\nDescription-Content-Type: text/markdown\n\n{}",
            self.readme
        );
        text
    }
}

/// What Python calls the platforms that a program for `target` runs on, `.` between them.
///
/// # Errors
/// If it has no name for them.
pub fn platform(sh: &Shell, target: &str, program: &[u8]) -> Result<String> {
    let (arch, system) = target.split_once('-').unwrap_or((target, ""));
    Ok(match system {
        "unknown-linux-gnu" => format!("manylinux_2_{}_{arch}", glibc(program)?),
        "unknown-linux-musl" => format!("manylinux_2_{OLDEST_GLIBC}_{arch}.musllinux_1_1_{arch}"),
        "apple-darwin" => {
            let rustc = build::rustc();
            let oldest = cmd!(sh, "{rustc} --print deployment-target --target {target}");
            let arch = if arch == "aarch64" { "arm64" } else { arch };
            macos(oldest.quiet().read()?.trim(), arch)?
        }
        "pc-windows-msvc" | "pc-windows-gnu" => match arch {
            "x86_64" => "win_amd64".into(),
            "aarch64" => "win_arm64".into(),
            _ => bail!("Python has no name for the platform of {target}"),
        },
        _ => bail!("Python has no name for the platform of {target}"),
    })
}

/// `MACOSX_DEPLOYMENT_TARGET=10.12` as a platform.
fn macos(oldest: &str, arch: &str) -> Result<String> {
    let version = oldest.split_once('=').map(|(_, version)| version);
    let (major, minor) = version
        .and_then(|version| version.split_once('.'))
        .with_context(|| format!("rustc names no version of macOS, but {oldest:?}"))?;
    Ok(format!("macosx_{major}_{minor}_{arch}"))
}

/// The newest `GLIBC_2.x` that a program asks for, as its symbols name it.
fn glibc(program: &[u8]) -> Result<u32> {
    const NAMED: &[u8] = b"GLIBC_2.";
    let version = |at: usize| -> Option<u32> {
        let digits = program[at..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit());
        let digits: Vec<u8> = digits.copied().collect();
        std::str::from_utf8(&digits).ok()?.parse().ok()
    };
    let named = program.windows(NAMED.len()).enumerate();
    let versions = named.filter(|(_, window)| *window == NAMED);
    let newest = versions
        .filter_map(|(at, _)| version(at + NAMED.len()))
        .max()
        .context("the program names no version of glibc")?;
    Ok(newest.max(OLDEST_GLIBC))
}

fn tags(platform: &str) -> String {
    let mut text =
        "Wheel-Version: 1.0\nGenerator: cargo xtask dist\nRoot-Is-Purelib: false\n".into();
    for platform in platform.split('.') {
        text = format!("{text}Tag: py3-none-{platform}\n");
    }
    text
}

/// What `pip` checks the files with: a line for each, and one for the list itself, which cannot have a sum.
fn recorded(entries: &[Entry], record: &str) -> String {
    let mut text = String::new();
    for Entry { path, bytes, .. } in entries {
        let sum = base64(&Sha256::digest(bytes));
        let _ = writeln!(text, "{path},sha256={sum},{}", bytes.len());
    }
    text + record + ",,\n"
}

/// Base64 for addresses, without padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, i| {
            bits << 8 | usize::from(three.get(i).copied().unwrap_or(0))
        });
        let digits = (0..=three.len()).map(|i| char::from(DIGITS[bits >> (18 - 6 * i) & 63]));
        text.extend(digits);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    fn wheel<'a>(licenses: &'a [Entry], repository: Option<&'a str>) -> Wheel<'a> {
        Wheel {
            version: "1.2.3",
            license: "MIT OR Apache-2.0",
            repository,
            readme: "# Words",
            licenses,
        }
    }

    #[test]
    fn base64_is_that_of_the_standard() {
        let found =
            ["", "f", "fo", "foo", "foob", "\u{7f}~\u{7f}?"].map(|text| base64(text.as_bytes()));
        assert_eq!(found, ["", "Zg", "Zm8", "Zm9v", "Zm9vYg", "f35_Pw"]);
    }

    #[test]
    fn a_wheel_holds_the_program_and_a_line_for_every_file() {
        let licenses = [Entry::file("LICENSE-MIT", "terms")];
        let program = Entry::program("tessera", "code");
        let address = "https://example.org/x";
        let (name, bytes) = wheel(&licenses, Some(address))
            .pack(&program, "manylinux_2_17_x86_64.musllinux_1_1_x86_64", 0)
            .unwrap();
        assert_eq!(
            name,
            "tessera_images-1.2.3-py3-none-manylinux_2_17_x86_64.musllinux_1_1_x86_64.whl"
        );
        let zip = rawzip::ZipArchive::from_slice(&bytes).unwrap();
        let (mut names, mut files) = (Vec::new(), zip.entries());
        while let Some(file) = files.next_entry().unwrap() {
            let path = file.file_path().try_normalize().unwrap();
            names.push((path.as_ref().to_owned(), file.mode().permissions()));
        }
        let info = |name: &str| (format!("tessera_images-1.2.3.dist-info/{name}"), 0o644);
        assert_eq!(
            names,
            [
                ("tessera_images-1.2.3.data/scripts/tessera".into(), 0o755),
                info("METADATA"),
                info("RECORD"),
                info("WHEEL"),
                info("licenses/LICENSE-MIT"),
            ]
        );
    }

    #[test]
    fn metadata_names_an_address_only_where_there_is_one() {
        let licenses = [Entry::file("LICENSE-MIT", "terms")];
        let with = wheel(&licenses, Some("https://example.org/x")).metadata();
        assert!(with.contains("\nProject-URL: Source, https://example.org/x\n"));
        assert!(with.contains("\nLicense-File: LICENSE-MIT\n") && with.ends_with("\n\n# Words"));
        assert!(!wheel(&licenses, None).metadata().contains("Project-URL"));
    }

    #[test]
    fn the_record_has_sums_and_lengths() {
        let text = recorded(&[Entry::file("a", "abc")], "RECORD");
        assert_eq!(
            text,
            "a,sha256=ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0,3\nRECORD,,\n"
        );
    }

    #[test]
    fn platforms_have_pythons_names() {
        let sh = Shell::new().unwrap();
        let of = |target: &str, program: &[u8]| platform(&sh, target, program).ok();
        let newer = b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.9\0";
        let linux = of("x86_64-unknown-linux-gnu", newer);
        assert_eq!(linux.as_deref(), Some("manylinux_2_34_x86_64"));
        let linux = of("aarch64-unknown-linux-gnu", b"GLIBC_2.4");
        assert_eq!(linux.as_deref(), Some("manylinux_2_17_aarch64"));
        assert_eq!(of("x86_64-unknown-linux-gnu", b"none"), None);
        let windows = of("x86_64-pc-windows-msvc", b"");
        assert_eq!(windows.as_deref(), Some("win_amd64"));
        assert_eq!(of("wasm32-unknown-unknown", b""), None);
        let mac = macos("MACOSX_DEPLOYMENT_TARGET=10.12", "x86_64").unwrap();
        assert_eq!(mac, "macosx_10_12_x86_64");
        assert!(macos("none", "arm64").is_err());
    }

    #[test]
    fn maturin_gives_it_the_same_name() {
        let project = std::fs::read_to_string(workspace::root().join("pyproject.toml")).unwrap();
        assert!(project.contains(&format!("\nname = \"{NAME}\"\n")));
    }
}
