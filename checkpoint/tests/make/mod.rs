//! Small files of every format, made by hand: state dicts of two tensors and whatever a test puts beside them.

use std::collections::BTreeMap;
use std::path::Path;
use tessera_checkpoint::{Dtype, Entry, write};

/// A tensor of f32.
pub type Tensor = (&'static str, Vec<usize>, Vec<f32>);

/// Two tensors, the second of so many values.
pub fn tensors(values: usize) -> Vec<Tensor> {
    let numbers = |count: usize| (0..count).map(|i| i as f32 * 0.5 - 1.0).collect();
    vec![
        ("first.bias", vec![3], numbers(3)),
        ("first.weight", vec![values / 4, 4], numbers(values / 4 * 4)),
    ]
}

/// A safetensors file of the tensors, with checksums.
pub fn safetensors(path: &Path, tensors: &[Tensor]) {
    let entries = tensors.iter().map(|(name, shape, values)| Entry {
        name: (*name).into(),
        dtype: Dtype::F32,
        shape: shape.into(),
        bytes: Box::new(|file| file.write_all(&little_endian(values))),
    });
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    write(path, &metadata, entries.collect()).unwrap();
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// Instructions of a pickle.
#[derive(Default)]
pub struct Pickle(pub Vec<u8>);

impl Pickle {
    /// Protocol 2.
    pub fn new() -> Self {
        Self(vec![0x80, 2])
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub fn text(self, text: &str) -> Self {
        self.raw(b"X")
            .raw(&(text.len() as u32).to_le_bytes())
            .raw(text.as_bytes())
    }

    pub fn int(self, value: usize) -> Self {
        self.raw(b"J").raw(&(value as i32).to_le_bytes())
    }

    pub fn global(self, module: &str, name: &str) -> Self {
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }

    pub fn ints(mut self, values: &[usize]) -> Self {
        self = self.raw(b"(");
        for &value in values {
            self = self.int(value);
        }
        self.raw(b"t")
    }

    /// A tensor of f32: `_rebuild_tensor_v2(storage, offset, size, stride, False, OrderedDict())`.
    pub fn tensor(
        self,
        key: &str,
        stored: usize,
        offset: usize,
        size: &[usize],
        stride: &[usize],
    ) -> Self {
        self.global("torch._utils", "_rebuild_tensor_v2")
            .raw(b"((")
            .text("storage")
            .global("torch", "FloatStorage")
            .text(key)
            .text("cpu")
            .int(stored)
            .raw(b"tQ")
            .int(offset)
            .ints(size)
            .ints(stride)
            .raw(b"\x89")
            .global("collections", "OrderedDict")
            .raw(b")RtR")
    }

    pub fn stop(self) -> Vec<u8> {
        self.raw(b".").0
    }
}

/// The pickle of `{"model": {name: tensor}, "epoch": 7}`, a storage to each tensor.
pub fn state_dict(tensors: &[Tensor]) -> Vec<u8> {
    let mut pickle = Pickle::new().raw(b"}(").text("model").raw(b"}(");
    for (key, (name, shape, values)) in tensors.iter().enumerate() {
        let stride = match shape[..] {
            [_, columns] => vec![columns, 1],
            _ => vec![1],
        };
        pickle = pickle
            .text(name)
            .tensor(&key.to_string(), values.len(), 0, shape, &stride);
    }
    pickle.raw(b"u").text("epoch").int(7).raw(b"u").stop()
}

/// An archive of `torch.save` with this pickle and the tensors' storages.
pub fn zip(pickle: &[u8], tensors: &[Tensor]) -> Vec<u8> {
    let mut entries = vec![
        ("archive/data.pkl".to_owned(), pickle.to_vec()),
        ("archive/byteorder".into(), b"little".to_vec()),
    ];
    for (key, (_, _, values)) in tensors.iter().enumerate() {
        entries.push((format!("archive/data/{key}"), little_endian(values)));
    }
    entries.push(("archive/version".into(), b"3\n".to_vec()));
    archive(&entries)
}

/// A zip archive of stored entries.
pub fn archive(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let offset = bytes.len() as u32;
        let mut fields = Vec::new();
        fields.extend([0; 8]); // flags, method, time, date
        fields.extend(crc32fast::hash(content).to_le_bytes());
        fields.extend((content.len() as u32).to_le_bytes());
        fields.extend((content.len() as u32).to_le_bytes());
        fields.extend((name.len() as u16).to_le_bytes());
        fields.extend([0; 2]);
        bytes.extend(b"PK\x03\x04\x00\x00");
        bytes.extend(&fields);
        bytes.extend(name.as_bytes());
        bytes.extend(content);
        directory.extend(b"PK\x01\x02\x00\x00\x00\x00");
        directory.extend(&fields);
        directory.extend([0; 10]); // comment, disk, attributes
        directory.extend(offset.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (start, count) = (bytes.len() as u32, entries.len() as u16);
    bytes.extend(&directory);
    bytes.extend(b"PK\x05\x06\x00\x00\x00\x00");
    bytes.extend(count.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.extend((directory.len() as u32).to_le_bytes());
    bytes.extend(start.to_le_bytes());
    bytes.extend([0; 2]);
    bytes
}

/// A file of PyTorch before 1.6 with this pickle and the tensors' storages.
pub fn legacy(pickle: &[u8], tensors: &[Tensor]) -> Vec<u8> {
    let mut bytes = Pickle::new()
        .raw(b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19")
        .stop();
    bytes.extend(Pickle::new().raw(b"M\xe9\x03").stop());
    let system = Pickle::new()
        .raw(b"}(")
        .text("protocol_version")
        .raw(b"M\xe9\x03");
    bytes.extend(system.text("little_endian").raw(b"\x88u").stop());
    bytes.extend(pickle);
    let mut keys = Pickle::new().raw(b"](");
    for key in 0..tensors.len() {
        keys = keys.text(&key.to_string());
    }
    bytes.extend(keys.raw(b"e").stop());
    for (_, _, values) in tensors {
        bytes.extend((values.len() as u64).to_le_bytes());
        bytes.extend(little_endian(values));
    }
    bytes
}
