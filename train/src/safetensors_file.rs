//! The safetensors container, streamed: a header of JSON, then the tensors' bytes. The bytes written depend on
//! the content alone (the format's own crate writes its metadata in the order of a hash map).

use crate::error::{Error, Result};
use crate::files::write_atomically;
use safetensors::tensor::{Dtype, Metadata, SafeTensorError, TensorInfo};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;

/// The longest header that the format allows, in bytes.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// One tensor to write.
pub(crate) struct Entry<'a> {
    pub name: &'a str,
    pub dtype: Dtype,
    pub shape: &'a [usize],
    pub bytes: Bytes<'a>,
}

/// Writes exactly the tensor's bytes, little-endian.
pub(crate) type Bytes<'a> = Box<dyn Fn(&mut dyn Write) -> io::Result<()> + 'a>;

/// Writes a whole file, tensors by descending alignment and then by name.
pub(crate) fn write(
    path: &Path,
    metadata: &BTreeMap<String, String>,
    mut entries: Vec<Entry<'_>>,
) -> Result<()> {
    entries.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(b.name)));
    let header = header(metadata, &entries).map_err(|source| Error::Json {
        file: path.into(),
        line: 1,
        source,
    })?;
    write_atomically(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        entries.iter().try_for_each(|entry| (entry.bytes)(file))
    })
}

fn header(
    metadata: &BTreeMap<String, String>,
    entries: &[Entry<'_>],
) -> serde_json::Result<String> {
    let mut fields = Vec::with_capacity(entries.len() + 1);
    if !metadata.is_empty() {
        fields.push(format!(
            "\"__metadata__\":{}",
            serde_json::to_string(metadata)?
        ));
    }
    let mut start = 0;
    for entry in entries {
        let bytes = entry.shape.iter().product::<usize>() * entry.dtype.bitsize() / 8;
        let info = TensorInfo {
            dtype: entry.dtype,
            shape: entry.shape.to_vec(),
            data_offsets: (start, start + bytes),
        };
        start += bytes;
        fields.push(format!(
            "{}:{}",
            serde_json::to_string(entry.name)?,
            serde_json::to_string(&info)?
        ));
    }
    let mut text = format!("{{{}}}", fields.join(","));
    // Readers map the file and want the tensors 8-byte aligned.
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    Ok(text)
}

/// Reads `length` bytes of `reader` as a safetensors file, giving each tensor to `each`; returns the metadata.
pub(crate) fn read(
    file: &Path,
    mut reader: impl Read,
    length: u64,
    mut each: impl FnMut(&str, &TensorInfo, &[u8]) -> Result<()>,
) -> Result<BTreeMap<String, String>> {
    let corrupt = |source| Error::Safetensors {
        file: file.into(),
        source,
    };
    let mut prefix = [0; 8];
    if length < 8 {
        return Err(corrupt(SafeTensorError::HeaderTooSmall));
    }
    let unreadable = || Error::io("cannot read", file);
    reader.read_exact(&mut prefix).map_err(unreadable())?;
    let header_bytes = u64::from_le_bytes(prefix);
    if header_bytes > MAX_HEADER_BYTES {
        return Err(corrupt(SafeTensorError::HeaderTooLarge));
    }
    if header_bytes > length - 8 {
        return Err(corrupt(SafeTensorError::InvalidHeaderLength));
    }
    let mut header = vec![0; header_bytes as usize];
    reader.read_exact(&mut header).map_err(unreadable())?;
    // Parsing also checks that the tensors follow each other without holes or overlaps.
    let header: Metadata = serde_json::from_slice(&header)
        .map_err(|e| corrupt(SafeTensorError::InvalidHeaderDeserialization(e)))?;
    if header.data_len() as u64 != length - 8 - header_bytes {
        return Err(corrupt(SafeTensorError::MetadataIncompleteBuffer));
    }
    let mut bytes = Vec::new();
    for name in header.offset_keys() {
        let info = header.info(&name).expect("the header named this tensor");
        let (start, end) = info.data_offsets;
        bytes.resize(end - start, 0);
        reader.read_exact(&mut bytes).map_err(unreadable())?;
        each(&name, info, &bytes)?;
    }
    let metadata = header.metadata().clone().unwrap_or_default();
    Ok(metadata.into_iter().collect())
}
