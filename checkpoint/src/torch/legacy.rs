//! Files of `torch.save` before PyTorch 1.6: pickles in a row, then the storages.
//!
//! A magic number, the version of the layout, what machine wrote it, the object, the storages' keys; then for each key,
//! in that order, how many elements there are, as an i64, and the elements.

use super::budget::Budget;
use super::pickle::{Unpickled, unpickle};
use super::tensors::{Place, collect};
use super::value::Value;
use super::{Kind, Parsed};
use crate::error::{Error, Result};
use crate::source::Source;
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The pickle of the magic number 0x1950a86a20f9469cfc6c.
pub(super) const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
/// The version of the layout.
const VERSION: i64 = 1001;
/// Bytes of a number of elements.
const COUNT_BYTES: u64 = 8;

pub(super) fn open(source: &Arc<Source>) -> Result<Parsed> {
    let file = source.name();
    let bytes = source.window(0..source.length())?;
    let mut at = MAGIC.len();
    let mut next = |budget: &mut Budget| -> Result<(Unpickled, &[u8])> {
        let pickle = bytes.get(at..).unwrap_or_default();
        let unpickled = unpickle(file, pickle, budget)?;
        at += unpickled.length;
        Ok((unpickled, pickle))
    };
    let (version, _) = next(&mut Budget::of(source))?;
    if version.root != Value::Int(VERSION) {
        let found = version.root.kind();
        return Err(Error::format(
            file,
            "the version of its layout",
            VERSION,
            found,
        ));
    }
    let (machine, machine_pickle) = next(&mut Budget::of(source))?;
    if attribute(&machine, machine_pickle, b"little_endian") != Some(Value::Bool(true)) {
        return Err(Error::format(
            file,
            "the machine that wrote it",
            "a little-endian one",
            "another",
        ));
    }
    let mut budget = Budget::of(source);
    let (object, object_pickle) = next(&mut budget)?;
    let (keys, keys_pickle) = next(&mut budget)?;
    let Value::List(list) = keys.root else {
        return Err(Error::format(
            file,
            "what follows the object",
            "a list of the storages' keys",
            keys.root.kind(),
        ));
    };
    let keys = keys.arena.list(list).iter().map(|key| match key {
        Value::Text(key) => Ok(key.of(keys_pickle)),
        other => Err(Error::format(
            file,
            "the key of a storage",
            "a string",
            other.kind(),
        )),
    });
    let dtypes = dtypes(source, &object, object_pickle)?;
    let places = places(source, &bytes, at as u64, keys, &dtypes)?;
    let content = collect(source, object_pickle, &object, |key| {
        places.get(key.as_bytes()).cloned()
    })?;
    Ok(Parsed::of(Kind::Legacy, content))
}

/// The value of a dictionary under a string.
fn attribute(object: &Unpickled, pickle: &[u8], name: &[u8]) -> Option<Value> {
    let Value::Dict(dict) = object.root else {
        return None;
    };
    let named =
        |(key, _): &&(Value, Value)| matches!(key, Value::Text(key) if key.of(pickle) == name);
    object
        .arena
        .dict(dict)
        .iter()
        .find(named)
        .map(|&(_, value)| value)
}

/// The type of each storage's elements, by its key.
fn dtypes<'a>(
    source: &Source,
    object: &Unpickled,
    pickle: &'a [u8],
) -> Result<BTreeMap<&'a [u8], Option<Dtype>>> {
    let mut dtypes = BTreeMap::new();
    for storage in &object.arena.storages {
        let key = storage.key.of(pickle);
        let first = *dtypes.entry(key).or_insert(storage.dtype);
        if first != storage.dtype {
            let found = format!("{:?}", storage.dtype);
            return Err(Error::format(
                source.name(),
                named(key),
                format!("of {first:?}"),
                found,
            ));
        }
    }
    Ok(dtypes)
}

/// Where the storages are: each follows the one before it, from `at` to the end of the file.
fn places<'a>(
    source: &Source,
    bytes: &[u8],
    mut at: u64,
    keys: impl Iterator<Item = Result<&'a [u8]>>,
    dtypes: &BTreeMap<&[u8], Option<Dtype>>,
) -> Result<BTreeMap<&'a [u8], Place>> {
    let length = bytes.len() as u64;
    let mut places = BTreeMap::new();
    for key in keys {
        let key = key?;
        let wrong = |expected: &str, found: String| {
            Error::format(source.name(), named(key), expected, found)
        };
        let dtype = dtypes.get(key).ok_or_else(|| {
            wrong(
                "one of those that the tensors are in",
                "none of them".into(),
            )
        })?;
        let size = dtype.map_or(1, |dtype| dtype.bitsize() as u64 / 8);
        let count = bytes
            .get(at as usize..)
            .and_then(<[u8]>::first_chunk::<{ COUNT_BYTES as usize }>);
        let count =
            count.ok_or_else(|| wrong("a number of elements", "the end of the file".into()))?;
        let count = i64::from_le_bytes(*count);
        let start = at + COUNT_BYTES;
        let end = u64::try_from(count)
            .ok()
            .and_then(|count| start.checked_add(count.checked_mul(size)?));
        at = end.filter(|&end| end <= length).ok_or_else(|| {
            let expected = format!("within the {} bytes that are left", length - start);
            wrong(&expected, format!("{count} elements of {size} bytes"))
        })?;
        if places
            .insert(
                key,
                Place {
                    range: start..at,
                    crc32: None,
                },
            )
            .is_some()
        {
            return Err(wrong("listed once", "listed twice".into()));
        }
    }
    match at == length {
        true => Ok(places),
        false => Err(Error::format(
            source.name(),
            "what follows the last storage",
            "the end of the file",
            format!("{} bytes", length - at),
        )),
    }
}

fn named(key: &[u8]) -> String {
    format!("storage `{}`", String::from_utf8_lossy(key))
}
