//! Archives that are the same to the byte whoever makes them: entries in order, one time, no owner, two modes.

use anyhow::{Context, Result};
use flate2::write::DeflateEncoder;
use flate2::{Compression, GzBuilder};
use rawzip::time::UtcDateTime;
use rawzip::{CompressionMethod, ZipArchiveWriter};
use std::io::{self, Write};

/// What Unix calls a plain file: pip makes nothing executable that a wheel does not call one.
const REGULAR: u32 = 0o100_000;

/// A file of an archive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Where it lies, with `/` between folders.
    pub path: String,
    /// What it holds.
    pub bytes: Vec<u8>,
    /// Whether it is a program.
    pub executable: bool,
}

impl Entry {
    /// A file that is read.
    pub fn file(path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.into(),
            bytes: bytes.into(),
            executable: false,
        }
    }

    /// A file that is run.
    pub fn program(path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            executable: true,
            ..Self::file(path, bytes)
        }
    }

    fn mode(&self) -> u32 {
        if self.executable { 0o755 } else { 0o644 }
    }
}

fn in_order(entries: &[Entry]) -> Vec<&Entry> {
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort();
    sorted
}

/// A `.tar.gz` of the entries, all of the time `seconds` after 1970.
///
/// # Errors
/// If a path does not fit in an archive.
pub fn tar_gz(entries: &[Entry], seconds: u64) -> Result<Vec<u8>> {
    // Time 0 and no name: what gzip's header says of neither.
    let gzip = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::best());
    let mut tar = tar::Builder::new(gzip);
    for entry in in_order(entries) {
        let mut header = tar::Header::new_ustar();
        header.set_size(entry.bytes.len() as u64);
        header.set_mode(entry.mode());
        header.set_mtime(seconds);
        header.set_uid(0);
        header.set_gid(0);
        tar.append_data(&mut header, &entry.path, &entry.bytes[..])
            .with_context(|| format!("{}: does not fit in an archive", entry.path))?;
    }
    Ok(tar.into_inner()?.finish()?)
}

/// A `.zip` of the entries, all of the time `seconds` after 1970.
///
/// # Errors
/// If a path does not fit in an archive.
pub fn zip(entries: &[Entry], seconds: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut zip = ZipArchiveWriter::new(&mut bytes);
    for entry in in_order(entries) {
        add(&mut zip, entry, UtcDateTime::from_unix(seconds as i64))
            .with_context(|| format!("{}: does not fit in an archive", entry.path))?;
    }
    zip.finish()?;
    Ok(bytes)
}

fn add<W: Write>(zip: &mut ZipArchiveWriter<W>, entry: &Entry, time: UtcDateTime) -> Result<()> {
    let (mut file, config) = zip
        .new_file(&entry.path[..])
        .compression_method(CompressionMethod::DEFLATE)
        .last_modified(time)
        .unix_permissions(REGULAR | entry.mode())
        .start()?;
    let mut writer = config.wrap(DeflateEncoder::new(&mut file, Compression::best()));
    io::copy(&mut &entry.bytes[..], &mut writer)?;
    let (deflate, descriptor) = writer.finish()?;
    deflate.finish()?;
    file.finish(descriptor)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    const TIME: u64 = 1_700_000_001;

    fn entries() -> [Entry; 2] {
        [
            Entry::program("top/tessera", [7; 9]),
            Entry::file("top/README.md", "words"),
        ]
    }

    fn reversed() -> [Entry; 2] {
        let [a, b] = entries();
        [b, a]
    }

    #[test]
    fn a_tar_says_nothing_of_who_made_it() {
        let packed = tar_gz(&entries(), TIME).unwrap();
        assert_eq!(packed, tar_gz(&reversed(), TIME).unwrap());
        assert_eq!(
            packed[3..8],
            [0; 5],
            "gzip's flags and time: no name, no date"
        );
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(&packed[..]));
        let mut seen = Vec::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
            assert_eq!(header.username().unwrap(), Some(""));
            assert_eq!(header.mtime().unwrap(), TIME);
            let mode = header.mode().unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            seen.push((path, mode, bytes));
        }
        assert_eq!(
            seen,
            [
                ("top/README.md".into(), 0o644, b"words".to_vec()),
                ("top/tessera".into(), 0o755, vec![7; 9])
            ]
        );
    }

    #[test]
    fn a_zip_says_nothing_of_who_made_it() {
        let packed = zip(&entries(), TIME).unwrap();
        assert_eq!(packed, zip(&reversed(), TIME).unwrap());
        assert_ne!(packed, zip(&entries(), TIME + 86_400).unwrap());
        let archive = rawzip::ZipArchive::from_slice(&packed).unwrap();
        let mut seen = Vec::new();
        let mut files = archive.entries();
        while let Some(file) = files.next_entry().unwrap() {
            let data = archive.get_entry(file.wayfinder()).unwrap();
            let plain = flate2::bufread::DeflateDecoder::new(data.data());
            let mut bytes = Vec::new();
            data.verifying_reader(plain)
                .read_to_end(&mut bytes)
                .unwrap();
            let path = file.file_path().try_normalize().unwrap();
            seen.push((
                path.as_ref().to_owned(),
                file.external_attributes() >> 16,
                bytes,
            ));
        }
        assert_eq!(
            seen,
            [
                ("top/README.md".into(), 0o100_644, b"words".to_vec()),
                ("top/tessera".into(), 0o100_755, vec![7; 9])
            ]
        );
    }
}
