//! The safetensors container: a header of JSON, then the tensors' bytes. The bytes written depend on the content alone
//! (the format's own crate writes its metadata in the order of a hash map).
//!
//! Files written here carry a checksum of their header and of every tensor in their metadata. Other readers ignore it;
//! this one tells a damaged weight from a good one by it.

use crate::error::{Error, Result};
use crate::files::write_atomically;
use crate::source::Source;
use crate::tensor::StoredTensor;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

/// The longest header that the format allows, in bytes.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Metadata: CRC-32 of the header with this value as zeros, in hexadecimal.
const HEADER_CRC: &str = "tessera.crc32.header";
/// Metadata: CRC-32 of each tensor in the order of their bytes. A file has both or neither.
const TENSOR_CRCS: &str = "tessera.crc32.tensors";
/// Digits of a checksum.
const CRC_DIGITS: usize = 8;

/// One tensor to write.
pub struct Entry<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// The type of what `bytes` writes.
    pub dtype: Dtype,
    /// Axis lengths.
    pub shape: Cow<'a, [usize]>,
    /// Its bytes.
    pub bytes: Bytes<'a>,
}

/// Writes exactly the tensor's bytes, little-endian.
pub type Bytes<'a> = Box<dyn Fn(&mut dyn Write) -> io::Result<()> + 'a>;

impl Entry<'_> {
    /// How many bytes it takes in the file.
    pub fn length(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// Writes a whole safetensors file or none, tensors by descending alignment and then by name.
///
/// # Errors
/// [`Error::Io`].
pub fn write(
    path: &Path,
    metadata: &BTreeMap<String, String>,
    mut entries: Vec<Entry<'_>>,
) -> Result<()> {
    entries.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
    let mut crcs = vec![0; entries.len()];
    write_atomically(path, |file| {
        // The checksums have their place from the start and their values at the end.
        write_header(file, metadata, &entries, &crcs)?;
        for (entry, crc) in entries.iter().zip(&mut crcs) {
            let mut hashed = Hashed {
                file: &mut *file,
                crc: crc32fast::Hasher::new(),
            };
            (entry.bytes)(&mut hashed)?;
            *crc = hashed.crc.finalize();
        }
        file.seek(SeekFrom::Start(0))?;
        write_header(file, metadata, &entries, &crcs)
    })
}

/// Passes bytes on and sums them up.
struct Hashed<W> {
    file: W,
    crc: crc32fast::Hasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.crc.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn write_header(
    file: &mut impl Write,
    metadata: &BTreeMap<String, String>,
    entries: &[Entry<'_>],
    crcs: &[u32],
) -> io::Result<()> {
    let mut metadata = metadata.clone();
    metadata.insert(HEADER_CRC.into(), "0".repeat(CRC_DIGITS));
    metadata.insert(
        TENSOR_CRCS.into(),
        crcs.iter().map(|crc| format!("{crc:08x}")).collect(),
    );
    let unsummed = header(&metadata, entries)?;
    let crc = crc32fast::hash(unsummed.as_bytes());
    metadata.insert(HEADER_CRC.into(), format!("{crc:08x}"));
    let header = header(&metadata, entries)?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())
}

fn header(
    metadata: &BTreeMap<String, String>,
    entries: &[Entry<'_>],
) -> serde_json::Result<String> {
    let mut fields = Vec::with_capacity(entries.len() + 1);
    fields.push(format!(
        "\"__metadata__\":{}",
        serde_json::to_string(metadata)?
    ));
    let mut start = 0;
    for entry in entries {
        let info = TensorInfo {
            dtype: entry.dtype,
            shape: entry.shape.to_vec(),
            data_offsets: (start, start + entry.length()),
        };
        start += entry.length();
        let name = serde_json::to_string(&entry.name)?;
        fields.push(format!("{name}:{}", serde_json::to_string(&info)?));
    }
    let mut text = format!("{{{}}}", fields.join(","));
    // Readers map the file and want the tensors 8-byte aligned.
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    Ok(text)
}

/// What a header says.
pub(crate) struct Parsed {
    pub metadata: BTreeMap<String, String>,
    pub tensors: BTreeMap<String, StoredTensor>,
    /// Whether the file carries checksums.
    pub summed: bool,
}

/// Reads the header of a safetensors file; the tensors stay where they are.
pub(crate) fn open(source: &Arc<Source>) -> Result<Parsed> {
    let wrong = |what: &str, expected: String, found: String| {
        Error::format(source.name(), what, expected, found)
    };
    let length = source.length();
    let cut = |whole: u64| {
        wrong(
            "the length of the file",
            format!("{whole} bytes"),
            format!("cut short: it ends after {length} of {whole} bytes, as half a download does"),
        )
    };
    if length < 8 {
        return Err(wrong(
            "the length of the file",
            "8 bytes and a header at least".into(),
            format!("{length} bytes"),
        ));
    }
    let prefix = source.window(0..8)?;
    let prefix = prefix.first_chunk().expect("the window is of eight bytes");
    let header_bytes = u64::from_le_bytes(*prefix);
    if header_bytes > MAX_HEADER_BYTES {
        return Err(wrong(
            "the length of the header",
            format!("at most {MAX_HEADER_BYTES} bytes"),
            format!("{header_bytes} bytes"),
        ));
    }
    if header_bytes > length - 8 {
        return Err(cut(8 + header_bytes));
    }
    let start = 8 + header_bytes;
    let text = source.window(8..start)?;
    // Parsing also checks that the tensors follow each other without holes or overlaps.
    let header: Metadata =
        serde_json::from_slice(&text).map_err(|fault| header_fault(source, &text, &fault))?;
    let whole = start.saturating_add(header.data_len() as u64);
    match whole.cmp(&length) {
        Ordering::Greater => return Err(cut(whole)),
        Ordering::Less => {
            return Err(wrong(
                "the length of the file",
                format!("{whole} bytes, where the last tensor ends"),
                format!("{length} bytes"),
            ));
        }
        Ordering::Equal => {}
    }
    let mut metadata: BTreeMap<_, _> = header
        .metadata()
        .clone()
        .unwrap_or_default()
        .into_iter()
        .collect();
    let names = header.offset_keys();
    let crcs = checksums(source, &text, &mut metadata, names.len())?;
    let tensor = |(index, name): (usize, String)| {
        let info = header.info(&name).expect("the header named this tensor");
        let (from, to) = info.data_offsets;
        let tensor = StoredTensor {
            name: name.clone(),
            dtype: info.dtype,
            shape: info.shape.clone(),
            source: source.clone(),
            range: start + from as u64..start + to as u64,
            crc32: crcs.as_ref().map(|crcs| crcs[index]),
            view: None,
            position: None,
            scales: None,
        };
        (name, tensor)
    };
    Ok(Parsed {
        tensors: names.into_iter().enumerate().map(tensor).collect(),
        metadata,
        summed: crcs.is_some(),
    })
}

/// What is wrong with a header that does not parse, said once.
fn header_fault(source: &Source, text: &[u8], fault: &serde_json::Error) -> Error {
    /// As much as tells a fault from another.
    #[derive(serde::Deserialize)]
    struct Loose {
        dtype: Option<serde_json::Value>,
    }
    let what = |what: String, expected: &str, found: String| {
        Error::format(source.name(), what, expected, found)
    };
    let loose: Option<BTreeMap<String, serde_json::Value>> = serde_json::from_slice(text).ok();
    for (name, value) in loose.into_iter().flatten() {
        if name == "__metadata__" {
            let texts = value.as_object().into_iter().flatten();
            if let Some((key, value)) = texts.into_iter().find(|(_, value)| !value.is_string()) {
                return what(
                    format!("the metadata `{key}`"),
                    "a string",
                    value.to_string(),
                );
            }
            continue;
        }
        let Ok(Loose { dtype: Some(dtype) }) = serde_json::from_value(value) else {
            continue;
        };
        if serde_json::from_value::<Dtype>(dtype.clone()).is_err() {
            let expected = "one of the format's types, such as F32, F16, BF16 or F8_E4M3";
            return what(format!("the type of `{name}`"), expected, dtype.to_string());
        }
    }
    what(
        "the header".into(),
        "that of a safetensors file",
        fault.to_string(),
    )
}

/// Takes the checksums out of the metadata, holds the header's against `text`, and gives the tensors'.
fn checksums(
    source: &Source,
    text: &[u8],
    metadata: &mut BTreeMap<String, String>,
    tensors: usize,
) -> Result<Option<Vec<u32>>> {
    let (stated, list) = match (metadata.remove(HEADER_CRC), metadata.remove(TENSOR_CRCS)) {
        (None, None) => return Ok(None),
        (Some(stated), Some(list)) => (stated, list),
        _ => {
            let expected = "a checksum of the header and one of each tensor";
            return Err(Error::format(
                source.name(),
                "the metadata",
                expected,
                "one without the other",
            ));
        }
    };
    let wrong = |what: &str, expected: String, found: &str| {
        Error::format(
            source.name(),
            format!("the checksum of {what}"),
            expected,
            format!("{found:?}"),
        )
    };
    let hex = |digits: &str| u32::from_str_radix(digits, 16).ok();
    let expected = hex(&stated)
        .filter(|_| stated.len() == CRC_DIGITS)
        .ok_or_else(|| wrong("the header", format!("{CRC_DIGITS} digits"), &stated))?;
    let field = format!("\"{HEADER_CRC}\":\"");
    let at = text
        .windows(field.len())
        .position(|window| window == field.as_bytes());
    let at = at.ok_or_else(|| wrong("the header", format!("{field}…"), &stated))? + field.len();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&text[..at]);
    hasher.update(&[b'0'; CRC_DIGITS]);
    hasher.update(text.get(at + CRC_DIGITS..).unwrap_or_default());
    let found = hasher.finalize();
    if found != expected {
        return Err(Error::Checksum {
            file: source.name().into(),
            what: "the header".into(),
            expected,
            found,
        });
    }
    let crcs: Option<Vec<u32>> = list
        .as_bytes()
        .chunks(CRC_DIGITS)
        .map(|digits| hex(std::str::from_utf8(digits).ok()?))
        .collect();
    let crcs = crcs.filter(|crcs| crcs.len() == tensors);
    Ok(Some(crcs.ok_or_else(|| {
        wrong("the tensors", format!("{tensors} of them"), &list)
    })?))
}
