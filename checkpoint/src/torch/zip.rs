//! The zip archive of a PyTorch file: where its entries lie. They are stored as they are, for a compressed one cannot
//! be mapped.

use super::tensors::Place;
use crate::error::{Error, Result};
use crate::source::{Source, Window};
use std::collections::BTreeMap;
use std::ops::Range;

/// How the header before an entry begins, and so the file.
pub(super) const LOCAL_HEADER: &[u8] = b"PK\x03\x04";
const DIRECTORY_HEADER: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";

const LOCAL_HEADER_BYTES: u64 = 30;
const DIRECTORY_HEADER_BYTES: u64 = 46;
const END_BYTES: u64 = 22;
const END_64_BYTES: u64 = 56;
const LOCATOR_64_BYTES: u64 = 20;
/// The longest comment, which is what can follow the end.
const MAX_COMMENT_BYTES: u64 = u16::MAX as u64;

/// The field of an entry's extra data that has its numbers in 64 bits.
const EXTRA_64: u16 = 1;
/// Flag: the entry is encrypted.
const ENCRYPTED: u16 = 1;

/// The entries of an archive, by name.
pub(super) fn entries(source: &Source) -> Result<BTreeMap<String, Place>> {
    let directory = Directory::find(source)?;
    let bytes = source.window(directory.range.clone())?;
    let mut fields = Fields(&bytes);
    let mut entries = BTreeMap::new();
    // What each entry takes with its header, to see that none takes another's.
    let mut taken = Vec::new();
    for index in 0..directory.entries {
        let entry = Entry::parse(&mut fields).ok_or_else(|| {
            let what = format!("entry {index} of the central directory");
            Error::format(source.name(), what, "a whole header", "something else")
        })?;
        if entry.is_of_torchscript() {
            let found = "TorchScript, which is a program: save the state_dict() of the module with torch.save";
            return Err(Error::format(
                source.name(),
                "the archive",
                "a file of torch.save",
                found,
            ));
        }
        let (name, place, header) = entry.locate(source, directory.range.start)?;
        taken.push(header..place.range.end);
        if entries.insert(name.clone(), place).is_some() {
            return Err(Error::format(
                source.name(),
                format!("entry `{name}`"),
                "one",
                "two",
            ));
        }
    }
    if !fields.0.is_empty() {
        let expected = format!("{} entries", directory.entries);
        let found = format!("{} bytes more", fields.0.len());
        return Err(Error::format(
            source.name(),
            "the central directory",
            expected,
            found,
        ));
    }
    taken.sort_by_key(|range| range.start);
    if let Some([first, second]) = taken
        .array_windows()
        .find(|[first, second]| first.end > second.start)
    {
        let what = format!("the entry at byte {}", second.start);
        let expected = format!(
            "at byte {} or later, where the one before it ends",
            first.end
        );
        return Err(Error::format(source.name(), what, expected, "inside it"));
    }
    Ok(entries)
}

/// The bytes of an entry that describes others, whose checksum is checked.
pub(super) fn read<'a>(source: &'a Source, name: &str, place: &Place) -> Result<Window<'a>> {
    let bytes = source.window(place.range.clone())?;
    match place
        .crc32
        .map(|expected| (expected, crc32fast::hash(&bytes)))
    {
        Some((expected, found)) if expected != found => Err(Error::Checksum {
            file: source.name().into(),
            what: format!("entry `{name}`"),
            expected,
            found,
        }),
        _ => Ok(bytes),
    }
}

/// Where the central directory is.
struct Directory {
    range: Range<u64>,
    entries: u64,
}

impl Directory {
    fn find(source: &Source) -> Result<Self> {
        let wrong = |expected: &str, found: String| {
            Error::format(source.name(), "the archive", expected, found)
        };
        let length = source.length();
        let tail_start = length.saturating_sub(END_BYTES + MAX_COMMENT_BYTES);
        let tail = source.window(tail_start..length)?;
        let ends_there = |at: &usize| {
            let comment = tail
                .get(*at..)
                .and_then(|end| Fields(end).skip(END_BYTES as usize - 2)?.u16());
            tail[*at..].starts_with(END)
                && comment.is_some()
                && comment.map(usize::from) == tail.len().checked_sub(at + END_BYTES as usize)
        };
        let at = (0..tail.len()).rev().find(ends_there);
        let at = at.ok_or_else(|| {
            wrong(
                "whole, with a directory at its end",
                format!(
                    "cut short: it ends after {length} bytes without one, as half a download does"
                ),
            )
        })?;
        let end = tail_start + at as u64;
        let stated =
            End::parse(&tail[at..]).ok_or_else(|| wrong("a whole end", "a part".into()))?;
        let (full, directory_end) = match End::parse_64(source, end)? {
            Some((full, start)) => (full, start),
            None => (stated, end),
        };
        if full.disks != [0; 2] || full.entries_here != full.entries {
            return Err(wrong("one file", "one of several".into()));
        }
        if !stated.agrees_with(&full) {
            return Err(wrong(
                "one end of the central directory",
                "two that disagree".into(),
            ));
        }
        let (start, size) = (full.offset, full.size);
        match start.checked_add(size) {
            Some(stop)
                if stop <= directory_end && full.entries <= size / DIRECTORY_HEADER_BYTES =>
            {
                Ok(Self {
                    range: start..stop,
                    entries: full.entries,
                })
            }
            _ => {
                let found = format!("{} entries in {size} bytes from {start}", full.entries);
                Err(wrong(
                    &format!("a central directory before byte {directory_end}"),
                    found,
                ))
            }
        }
    }
}

/// The end of the central directory.
#[derive(Clone, Copy)]
struct End {
    disks: [u64; 2],
    entries_here: u64,
    entries: u64,
    size: u64,
    offset: u64,
}

impl End {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes).skip(END.len())?;
        Some(Self {
            disks: [fields.u16()?.into(), fields.u16()?.into()],
            entries_here: fields.u16()?.into(),
            entries: fields.u16()?.into(),
            size: fields.u32()?.into(),
            offset: fields.u32()?.into(),
        })
    }

    /// The end in 64 bits and where it starts, if one stands before the end at `end`.
    fn parse_64(source: &Source, end: u64) -> Result<Option<(Self, u64)>> {
        let Some(locator_start) = end.checked_sub(LOCATOR_64_BYTES) else {
            return Ok(None);
        };
        let locator = source.window(locator_start..end)?;
        if !locator.starts_with(LOCATOR_64) {
            return Ok(None);
        }
        let wrong = || {
            let expected = format!("an end of 64 bits before byte {locator_start}");
            Error::format(source.name(), "the archive", expected, "none")
        };
        let start = Fields(&locator)
            .skip(LOCATOR_64.len() + 4)
            .and_then(|mut fields| fields.u64());
        let start = start.ok_or_else(wrong)?;
        let stop = start
            .checked_add(END_64_BYTES)
            .filter(|&stop| stop <= locator_start)
            .ok_or_else(wrong)?;
        let bytes = source.window(start..stop)?;
        let parse = || {
            let mut fields = Fields(bytes.strip_prefix(END_64)?).skip(8 + 2 + 2)?;
            Some(Self {
                disks: [fields.u32()?.into(), fields.u32()?.into()],
                entries_here: fields.u64()?,
                entries: fields.u64()?,
                size: fields.u64()?,
                offset: fields.u64()?,
            })
        };
        Ok(Some((parse().ok_or_else(wrong)?, start)))
    }

    /// Whether each number is that of `full`, or left to it.
    fn agrees_with(&self, full: &Self) -> bool {
        let short = |stated: u64, full: u64| stated == full || stated == u64::from(u16::MAX);
        let long = |stated: u64, full: u64| stated == full || stated == u64::from(u32::MAX);
        short(self.disks[0], full.disks[0])
            && short(self.disks[1], full.disks[1])
            && short(self.entries_here, full.entries_here)
            && short(self.entries, full.entries)
            && long(self.size, full.size)
            && long(self.offset, full.offset)
    }
}

/// An entry of the central directory.
struct Entry<'a> {
    name: &'a [u8],
    flags: u16,
    method: u16,
    crc32: u32,
    compressed: u64,
    size: u64,
    /// Where its local header is.
    header: u64,
}

impl<'a> Entry<'a> {
    fn parse(fields: &mut Fields<'a>) -> Option<Self> {
        let mut head = Fields(
            fields
                .take(DIRECTORY_HEADER_BYTES as usize)?
                .strip_prefix(DIRECTORY_HEADER)?,
        )
        .skip(4)?;
        let (flags, method) = (head.u16()?, head.u16()?);
        let mut head = head.skip(4)?;
        let crc32 = head.u32()?;
        let (compressed, size) = (head.u32()?, head.u32()?);
        let lengths = [head.u16()?, head.u16()?, head.u16()?];
        let header = head.skip(8)?.u32()?;
        let [name, extra, _comment] = lengths.map(|length| fields.take(length.into()));
        let (name, extra) = (name?, extra?);
        let mut wide = wide_fields(extra);
        let mut widen = |short: u32| match short {
            u32::MAX => wide.u64(),
            short => Some(short.into()),
        };
        // In the order in which the extra data has them.
        let (size, compressed, header) = (widen(size)?, widen(compressed)?, widen(header)?);
        Some(Self {
            name,
            flags,
            method,
            crc32,
            compressed,
            size,
            header,
        })
    }

    /// Whether it is one that `torch.jit.save` writes and `torch.save` does not.
    fn is_of_torchscript(&self) -> bool {
        let name = self.name.splitn(2, |&byte| byte == b'/').nth(1);
        name.is_some_and(|name| name == b"constants.pkl" || name.starts_with(b"code/__torch__"))
    }

    /// Its name, its bytes, and where its header starts.
    fn locate(&self, source: &Source, directory: u64) -> Result<(String, Place, u64)> {
        let name = String::from_utf8_lossy(self.name).into_owned();
        let wrong = |expected: &str, found: &str| {
            Error::format(source.name(), format!("entry `{name}`"), expected, found)
        };
        if self.method != 0 || self.compressed != self.size {
            return Err(wrong(
                "stored as it is",
                "compressed: load and save it with torch.save",
            ));
        }
        if self.flags & ENCRYPTED != 0 {
            return Err(wrong("stored as it is", "encrypted"));
        }
        let outside = || wrong("in the file before the central directory", "beyond it");
        let fits = |start: u64, length: u64| {
            start
                .checked_add(length)
                .filter(|&end| end <= directory)
                .ok_or_else(outside)
        };
        let header_end = fits(self.header, LOCAL_HEADER_BYTES + self.name.len() as u64)?;
        let header = source.window(self.header..header_end)?;
        let extra = || {
            let mut fields = Fields(header.strip_prefix(LOCAL_HEADER)?).skip(22)?;
            let (name, extra) = (fields.u16()?, fields.u16()?);
            (usize::from(name) == self.name.len() && fields.0 == self.name).then_some(extra)
        };
        let extra =
            extra().ok_or_else(|| wrong("behind a header with its name", "behind another"))?;
        let start = fits(header_end, extra.into())?;
        let end = fits(start, self.size)?;
        let place = Place {
            range: start..end,
            crc32: (self.crc32 != 0).then_some(self.crc32),
        };
        Ok((name, place, self.header))
    }
}

/// The numbers in 64 bits of an entry's extra data.
fn wide_fields(extra: &[u8]) -> Fields<'_> {
    let mut fields = Fields(extra);
    let mut next = || {
        let (id, length) = (fields.u16()?, fields.u16()?);
        Some((id, fields.take(length.into())?))
    };
    while let Some((id, field)) = next() {
        if id == EXTRA_64 {
            return Fields(field);
        }
    }
    Fields(&[])
}

/// Little-endian numbers that follow each other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(mut self, length: usize) -> Option<Self> {
        self.take(length)?;
        Some(self)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.first_chunk().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}
