//! Where bytes come from: a file, of which only the part in use is mapped, or memory.

use crate::error::{Error, Result};
use crate::mapped::Known;
use memmap2::{Mmap, MmapOptions};
use std::borrow::Cow;
use std::fs::File;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};

/// The bytes of one weights file.
#[derive(Debug)]
pub(crate) struct Source {
    name: PathBuf,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    File { file: File, length: u64 },
    Memory(Cow<'static, [u8]>),
}

/// A part of a source. Of a file it is mapped, and unmapped when dropped, so that what was read does not stay resident.
#[derive(Debug)]
pub(crate) enum Window<'a> {
    Mapped(Mapped),
    Memory(&'a [u8]),
}

/// A mapping, whose file is known as long.
#[derive(Debug)]
pub(crate) struct Mapped {
    // Dropped in this order: the address is free only when nobody takes it for the file's.
    _known: Known,
    map: Mmap,
}

impl Deref for Window<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(mapped) => &mapped.map,
            Self::Memory(bytes) => bytes,
        }
    }
}

impl Source {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let unreadable = || Error::io("cannot read", path);
        // Before it is opened: opening a pipe waits for whoever writes into it.
        let kind = std::fs::metadata(path).map_err(unreadable())?.file_type();
        if !kind.is_file() {
            let found = if kind.is_dir() {
                "a folder"
            } else {
                "a pipe, a socket or a device"
            };
            return Err(Error::format(path, "the path", "a file", found));
        }
        let file = File::open(path).map_err(unreadable())?;
        let metadata = file.metadata().map_err(unreadable())?;
        Ok(Self {
            name: path.into(),
            bytes: Bytes::File {
                file,
                length: metadata.len(),
            },
        })
    }

    /// Bytes in memory; `name` stands for the file in errors.
    pub(crate) fn memory(name: impl Into<PathBuf>, bytes: impl Into<Cow<'static, [u8]>>) -> Self {
        Self {
            name: name.into(),
            bytes: Bytes::Memory(bytes.into()),
        }
    }

    /// The file, for errors.
    pub(crate) fn name(&self) -> &Path {
        &self.name
    }

    /// Length in bytes.
    pub(crate) fn length(&self) -> u64 {
        match &self.bytes {
            Bytes::File { length, .. } => *length,
            Bytes::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// The bytes of `range`, which must lie inside the source.
    ///
    /// # Errors
    /// [`Error::Format`] when it does not, or when the file has shrunk since it was opened.
    pub(crate) fn window(&self, range: Range<u64>) -> Result<Window<'_>> {
        let end = || format!("{} bytes", range.end);
        if range.start > range.end || range.end > self.length() {
            let found = format!("{} bytes", self.length());
            return Err(Error::format(
                &self.name,
                "the length of the file",
                end(),
                found,
            ));
        }
        match &self.bytes {
            Bytes::Memory(bytes) => Ok(Window::Memory(
                &bytes[range.start as usize..range.end as usize],
            )),
            Bytes::File { .. } if range.is_empty() => Ok(Window::Memory(&[])),
            Bytes::File { file, .. } => {
                let unreadable = || Error::io("cannot map", &self.name);
                // A page of a mapping beyond the end of its file raises SIGBUS, so look again before each.
                let length = file.metadata().map_err(unreadable())?.len();
                if range.end > length {
                    let found = format!("{length} bytes: it was cut while being read");
                    return Err(Error::format(
                        &self.name,
                        "the length of the file",
                        end(),
                        found,
                    ));
                }
                let options = MmapOptions::new()
                    .offset(range.start)
                    .len((range.end - range.start) as usize)
                    .to_owned();
                // SAFETY: the mapping is private and read-only, lies inside the file, and lives as long as the window.
                // Whoever overwrites the file meanwhile changes weights, not program state: bytes become numbers
                // through checked conversions alone.
                #[allow(unsafe_code)]
                let map = unsafe { options.map(file) }.map_err(unreadable())?;
                let start = map.as_ptr() as usize;
                let _known = Known::new(start..start + map.len(), &self.name);
                Ok(Window::Mapped(Mapped { _known, map }))
            }
        }
    }
}
