//! A weights file of any of the formats, by what it holds and not by its name.

use crate::error::{Error, Result};
use crate::sharded::{self, INDEX_SUFFIX};
use crate::source::Source;
use crate::tensor::StoredTensor;
use crate::{safetensors_file, torch};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The names under which a folder has its weights, the likeliest first.
const NAMES: [&str; 6] = [
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
    "checkpoint-last.pth",
    "kl16.ckpt",
];

/// What is read, in words.
const EXPECTED: &str =
    "safetensors, an index of safetensors shards, or a PyTorch file (.pt, .pth, .ckpt)";

/// The formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One safetensors file.
    Safetensors,
    /// Several, with an index.
    ShardedSafetensors,
    /// `torch.save` since 1.6: a zip archive.
    TorchZip,
    /// `torch.save` before 1.6: pickles in a row.
    TorchLegacy,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::ShardedSafetensors => "sharded safetensors",
            Self::TorchZip => "PyTorch (zip)",
            Self::TorchLegacy => "PyTorch (legacy)",
        })
    }
}

/// The tensors of a file or of an indexed set of files, still on disk.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The file, or the index of several.
    pub file: PathBuf,
    /// What it is.
    pub format: Format,
    /// Whether a checksum stands beside every tensor.
    pub checksums: bool,
    /// What the file says besides: safetensors' metadata, or the numbers and strings of a pickle by their path.
    pub metadata: BTreeMap<String, String>,
    /// Objects of a pickle that are not read, by their path: the class of each. Nothing of them is run.
    pub opaque: BTreeMap<String, String>,
    /// Tensors by name; those of nested dictionaries by their path, joined with `.`.
    pub tensors: BTreeMap<String, StoredTensor>,
}

impl Checkpoint {
    /// Opens a file, or the weights of a folder under one of their usual names. Reads no tensor.
    ///
    /// # Errors
    /// When there is no such file, it is of no known format, or it is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.is_dir() {
            let found = weights_in(path).ok_or_else(|| Error::Unknown {
                file: path.into(),
                expected: "a folder with model.safetensors, diffusion_pytorch_model.safetensors or a PyTorch \
                    checkpoint",
                found: "a folder without weights".into(),
            });
            return Self::of(Source::open(&found?)?);
        }
        Self::of(Source::open(path)?)
    }

    /// Opens a file that is in memory; `name` stands for it in errors.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(
        name: impl Into<PathBuf>,
        bytes: impl Into<Cow<'static, [u8]>>,
    ) -> Result<Self> {
        Self::of(Source::memory(name, bytes))
    }

    fn of(source: Source) -> Result<Self> {
        let source = Arc::new(source);
        let file = source.name().to_path_buf();
        let start = source.window(0..source.length().min(64))?.to_vec();
        if torch::recognize(&start).is_some() {
            let torch::Parsed {
                kind,
                metadata,
                opaque,
                tensors,
            } = torch::open(source)?;
            let format = match kind {
                torch::Kind::Zip => Format::TorchZip,
                torch::Kind::Legacy => Format::TorchLegacy,
            };
            return Ok(Self {
                file,
                format,
                checksums: false,
                metadata,
                opaque,
                tensors,
            });
        }
        let ending = |ending: &str| file.to_string_lossy().ends_with(ending);
        let (format, parsed) = match start[..] {
            [b'{', ..] if ending(INDEX_SUFFIX) => {
                (Format::ShardedSafetensors, sharded::open(&source)?)
            }
            // The length of a header of less than 2^32 bytes, which begins right after it.
            [_, _, _, _, 0, 0, 0, 0, b'{', ..] => {
                (Format::Safetensors, safetensors_file::open(&source)?)
            }
            _ => match what(&start) {
                None if ending(".safetensors") => {
                    (Format::Safetensors, safetensors_file::open(&source)?)
                }
                found => {
                    let found = found.map_or_else(|| unknown(&start), str::to_owned);
                    return Err(Error::Unknown {
                        file,
                        expected: EXPECTED,
                        found,
                    });
                }
            },
        };
        Ok(Self {
            file,
            format,
            checksums: parsed.summed,
            metadata: parsed.metadata,
            opaque: BTreeMap::new(),
            tensors: parsed.tensors,
        })
    }
}

/// The weights of a folder, under one of their usual names; sharded ones by their index.
pub fn weights_in(folder: &Path) -> Option<PathBuf> {
    NAMES
        .iter()
        .flat_map(|name| [(*name).to_owned(), format!("{name}{INDEX_SUFFIX}")])
        .map(|name| folder.join(name))
        .find(|path| path.is_file())
}

/// What a file that holds no weights is, where its first bytes give it away.
fn what(start: &[u8]) -> Option<&'static str> {
    let text = start.trim_ascii_start().to_ascii_lowercase();
    Some(match start {
        [] => "an empty file",
        _ if start.starts_with(b"version https://git-lfs") => {
            "a Git LFS pointer: the weights were not fetched, see `git lfs pull`"
        }
        _ if text.starts_with(b"<!doctype")
            || text.starts_with(b"<html")
            || text.starts_with(b"<?xml") =>
        {
            "a web page: the download failed"
        }
        _ if start.starts_with(b"\x89PNG") => "a PNG picture",
        _ if start.starts_with(b"\xff\xd8\xff") => "a JPEG picture",
        _ if start.starts_with(b"GGUF") => "a GGUF file",
        _ if start.starts_with(b"\x89HDF") => "an HDF5 file",
        _ if start.starts_with(b"\x93NUMPY") => "a NumPy array",
        _ if start.starts_with(b"\x1f\x8b") => "a gzip file: unpack it first",
        _ if start.starts_with(b"\xfd7zXZ") => "an xz file: unpack it first",
        [0x80, 2..=5, ..] => "a pickle that `torch.save` did not write",
        [b'{', ..] => "JSON",
        _ => return None,
    })
}

fn unknown(start: &[u8]) -> String {
    format!(
        "a file that begins with \"{}\"",
        start[..start.len().min(12)].escape_ascii()
    )
}
