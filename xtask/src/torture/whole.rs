//! Whether a file is whole, by its format.

use super::sandbox::Tree;
use flate2::Crc;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The names of files that are not whole.
pub fn halves(tree: &Tree) -> Vec<PathBuf> {
    let half = |(name, bytes): (&PathBuf, &Vec<u8>)| (!is_whole(name, bytes)).then(|| name.clone());
    tree.iter().filter_map(half).collect()
}

fn is_whole(name: &Path, bytes: &[u8]) -> bool {
    match name.extension().and_then(|end| end.to_str()) {
        Some("png") => png(bytes).is_some(),
        Some("safetensors") => safetensors(bytes).is_some(),
        Some("json") => serde_json::from_slice::<Value>(bytes).is_ok(),
        Some("svg") => bytes.trim_ascii_end().ends_with(b"</svg>"),
        // A log: its last line may be torn, and is dropped by who reads it.
        Some("jsonl") => bytes
            .split_inclusive(|&byte| byte == b'\n')
            .filter(|line| line.ends_with(b"\n"))
            .all(|line| serde_json::from_slice::<Value>(line).is_ok()),
        _ => true,
    }
}

/// Chunk after chunk to the last one, each with its sum.
fn png(bytes: &[u8]) -> Option<()> {
    let mut rest = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n")?;
    loop {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length) as usize;
        let (chunk, after) = after.split_at_checked(4 + length)?;
        let (sum, after) = after.split_first_chunk::<4>()?;
        let mut crc = Crc::new();
        crc.update(chunk);
        if crc.sum() != u32::from_be_bytes(*sum) {
            return None;
        }
        if chunk.starts_with(b"IEND") {
            return after.is_empty().then_some(());
        }
        rest = after;
    }
}

/// A header of JSON, and as many bytes as it says.
fn safetensors(bytes: &[u8]) -> Option<()> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (header, data) =
        rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let header: Value = serde_json::from_slice(header).ok()?;
    let ends = header
        .as_object()?
        .values()
        .filter_map(|tensor| tensor["data_offsets"][1].as_u64());
    (ends.max().unwrap_or(0) == data.len() as u64).then_some(())
}

/// A tree without what differs between two runs of one command: times in logs.
pub fn timeless(tree: &Tree) -> Tree {
    const TIMES: [&str; 4] = ["img_s", "seconds", "time", "elapsed"];
    let without = |(name, bytes): (&PathBuf, &Vec<u8>)| {
        if name.extension().is_none_or(|end| end != "jsonl") {
            return (name.clone(), bytes.clone());
        }
        let lines = bytes.split(|&byte| byte == b'\n').map(|line| {
            let Ok(mut value) = serde_json::from_slice::<Value>(line) else {
                return String::from_utf8_lossy(line).into_owned();
            };
            if let Some(fields) = value.as_object_mut() {
                fields.retain(|key, _| !TIMES.contains(&key.as_str()));
            }
            value.to_string()
        });
        let text: Vec<_> = lines.collect();
        (name.clone(), text.join("\n").into_bytes())
    };
    tree.iter().map(without).collect()
}

/// The first name in which two trees differ.
pub fn difference(one: &Tree, other: &Tree) -> Option<PathBuf> {
    let names = one.keys().chain(other.keys());
    names
        .into_iter()
        .find(|name| one.get(*name) != other.get(*name))
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_file_is_known_by_its_format() {
        let header = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let mut weights = (header.len() as u64).to_le_bytes().to_vec();
        weights.extend(header);
        weights.extend([0; 4]);
        let mut end = Crc::new();
        end.update(b"IEND");
        let mut picture = b"\x89PNG\r\n\x1a\n\0\0\0\0IEND".to_vec();
        picture.extend(end.sum().to_be_bytes());
        for (name, bytes) in [
            ("a.safetensors", &*weights),
            ("a.png", &picture),
            ("a.json", b"{\"a\": 1}\n"),
            ("a.svg", b"<svg></svg>\n"),
        ] {
            assert!(is_whole(Path::new(name), bytes), "{name}");
            for length in 0..bytes.len() - 1 {
                assert!(
                    !is_whole(Path::new(name), &bytes[..length]),
                    "{name} {length}"
                );
            }
        }
        assert!(is_whole(Path::new("a.jsonl"), b"{\"a\":1}\n{\"a\":"));
        assert!(!is_whole(Path::new("a.jsonl"), b"{\"a\":\n{\"a\":1}\n"));
    }
}
