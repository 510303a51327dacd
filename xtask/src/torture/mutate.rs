//! Damaged files: whatever is in a file, the command that reads it ends soon, in little memory, and names it.

use super::formats::{FORMATS, Format, Good};
use super::sandbox::{Sandbox, plant, tree};
use super::tally::{Outcome, Tally, in_parallel};
use crate::workspace;
use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Address space in KiB; what the commands need on good files is a third of it.
const MEMORY: u64 = 3_000_000;
/// Seconds.
const PATIENCE: u32 = 60;
/// What a panic or an assertion says, and no message for people.
const PANICS: [&str; 5] = [
    "panicked",
    ".rs:",
    "RUST_BACKTRACE",
    "stack backtrace",
    "assertion",
];

/// Damages files of every format, `count` in all, and opens each; `done` hears of a format.
///
/// # Errors
/// When a command cannot be started, or refuses a good file.
pub fn torture(
    sandbox: &Sandbox,
    count: usize,
    jobs: usize,
    mut done: impl FnMut(&'static str, Tally),
) -> Result<()> {
    let shares: usize = FORMATS.iter().map(|format| format.share).sum();
    for format in FORMATS {
        let good = good(sandbox, &format)?;
        let tried = open(sandbox, &format, &good, usize::MAX)?;
        if let Outcome::Broken(what) = tried {
            anyhow::bail!("{}: the good file: {what}", format.name);
        }
        let points: Vec<usize> = (0..(count * format.share).div_ceil(shares)).collect();
        let tally = in_parallel(format.name, &points, jobs, |&number| {
            open(sandbox, &format, &damaged(&good, number as u64), number)
        })?;
        done(format.name, tally);
    }
    Ok(())
}

fn good(sandbox: &Sandbox, format: &Format) -> Result<Vec<u8>> {
    let input = |name: &str| workspace::read(&sandbox.base.join("in").join(name));
    Ok(match format.good {
        Good::Bytes(bytes) => bytes.to_vec(),
        Good::Input(name) => input(name)?,
        Good::Packed(name) => {
            let mut packed = GzEncoder::new(Vec::new(), Compression::default());
            packed.write_all(&input(name)?)?;
            packed.finish()?
        }
    })
}

/// Opens a file in a folder of its own. `number` is `usize::MAX` for a good one, which must be taken.
fn open(sandbox: &Sandbox, format: &Format, bytes: &[u8], number: usize) -> Result<Outcome> {
    let scratch = sandbox.scratch(None)?;
    let inputs = sandbox.base.join("in");
    for (from, to) in format.beside {
        let to = scratch.path.join(to);
        let has_runs = format.args.contains("--resume");
        match has_runs {
            true => plant(&to, &tree(&inputs.join(from)))?,
            // Nothing writes into them, so links do.
            false => link_all(
                &inputs.join(from),
                &to,
                Path::new(format.file),
                &scratch.path,
            )?,
        }
    }
    let file = scratch.path.join(format.file);
    // Not through a link.
    let _ = std::fs::remove_file(&file);
    if let Some(packed) = format.file.strip_suffix(".gz") {
        let _ = std::fs::remove_file(scratch.path.join(packed));
    }
    std::fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
    let limits = format!("ulimit -v {MEMORY}; exec timeout {PATIENCE} \"$@\"");
    let output = Command::new("sh")
        .args(["-c", &limits, "sh"])
        .arg(&sandbox.program)
        .args(format.args.split_whitespace())
        .current_dir(&scratch.path)
        .stdin(Stdio::null())
        .output()
        .context("cannot start `sh`")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr.lines().last().unwrap_or_default();
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let folder = format.file.split('/').next().unwrap_or_default();
    let broken = match (output.status.code(), output.status.signal()) {
        (Some(124), _) => Some("did not end".to_owned()),
        (Some(0 | 1), _) if PANICS.iter().any(|words| stderr.contains(words)) => {
            Some(format!("a panic: {last}"))
        }
        (Some(1), _) if number == usize::MAX => Some(format!("refused: {last}")),
        (Some(1), _) if !stderr.contains(&*name) && !stderr.contains(folder) => {
            Some(format!("the file is not named: {last}"))
        }
        (Some(0 | 1), _) => None,
        (code, signal) => Some(format!("ended with {code:?}, signal {signal:?}: {last}")),
    };
    Ok(match broken {
        Some(broken) => Outcome::Broken(format!("damage {number}: {broken}")),
        None => Outcome::Held,
    })
}

/// Links to the files of a folder, except to the one that is damaged.
fn link_all(from: &Path, to: &Path, damaged: &Path, root: &Path) -> Result<()> {
    workspace::create_folder(to)?;
    for path in workspace::list(from) {
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            link_all(&path, &target, damaged, root)?;
        } else if target != root.join(damaged) {
            symlink(&path, &target)?;
        }
    }
    Ok(())
}

/// Numbers from a seed.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        (self.next() % count.max(1) as u64) as usize
    }
}

/// What is put in the place of a number in a text.
const NUMBERS: [&str; 14] = [
    "0",
    "-1",
    "1e30",
    "-1e30",
    "1e400",
    "65536",
    "4294967296",
    "18446744073709551615",
    "9223372036854775808",
    "null",
    "\"x\"",
    "[]",
    "0.1",
    "1e-30",
];
/// Numbers of four bytes that lengths go wrong with.
const LENGTHS: [u32; 6] = [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x0001_0000];

/// The file with damage number so-and-so: one place, or a few.
fn damaged(good: &[u8], number: u64) -> Vec<u8> {
    let mut noise = Noise(number.wrapping_mul(0x1000_0000_01b3));
    let mut bytes = good.to_vec();
    for _ in 0..1 + noise.below(3) {
        // What describes the rest is in front, in most formats, and is what damage is worth most in.
        let reach = match noise.below(2) {
            0 => bytes.len(),
            _ => bytes.len().min(400),
        };
        let at = noise.below(reach);
        let end = at + noise.below(bytes.len() - at).min(64);
        if bytes.is_empty() {
            break;
        }
        match noise.below(9) {
            0 => bytes[at] ^= 1 << noise.below(8),
            1 => bytes[at] = noise.next() as u8,
            2 => bytes.truncate(at),
            3 => bytes[at..end].fill(0),
            4 => bytes[at..end].fill(0xff),
            5 => drop(bytes.splice(at..end, [])),
            6 => {
                let twice = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, twice));
            }
            7 => {
                let length = LENGTHS[noise.below(LENGTHS.len())];
                let length = match noise.below(2) {
                    0 => length.to_be_bytes(),
                    _ => length.to_le_bytes(),
                };
                let end = bytes.len().min(at + 4);
                bytes[at..end].copy_from_slice(&length[..end - at]);
            }
            _ => number_in_text(&mut bytes, at, &mut noise),
        }
    }
    bytes
}

/// Puts another number in the place of the first one after `at`.
fn number_in_text(bytes: &mut Vec<u8>, at: usize, noise: &mut Noise) {
    let Some(start) = bytes[at..].iter().position(u8::is_ascii_digit) else {
        return;
    };
    let start = at + start;
    let rest = bytes[start..].iter();
    let length = rest
        .take_while(|byte| byte.is_ascii_digit() || **byte == b'.')
        .count();
    let number = NUMBERS[noise.below(NUMBERS.len())];
    drop(bytes.splice(start..start + length, number.bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_decided_by_its_number_alone() {
        let good: Vec<u8> = (0..=255).collect();
        let all: Vec<_> = (0..100).map(|number| damaged(&good, number)).collect();
        assert_eq!(all[7], damaged(&good, 7));
        let unlike = all.iter().filter(|bytes| **bytes != good).count();
        assert!(unlike > 80, "{unlike}");
        damaged(&[], 3);
        let mut text = b"{\"depth\": 12, \"x\": 1}".to_vec();
        number_in_text(&mut text, 3, &mut Noise(1));
        assert!(!text.windows(2).any(|pair| pair == b"12"));
    }
}
