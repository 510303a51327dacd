//! A weights file of any of the formats, by what it holds and not by its name.

use crate::error::{Error, Result};
use crate::scaled::join_scales;
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

/// What stands before the ending of these names where the weights are stored with fewer bits.
const VARIANTS: [&str; 3] = ["", ".fp16", ".bf16"];

/// How files of weights end, where a folder has one under another name.
const ENDINGS: [&str; 5] = [".safetensors", ".pt", ".pth", ".ckpt", ".bin"];

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
            return match choice_in(path) {
                Choice::One(file) => Self::of(Source::open(&file)?),
                Choice::Several(names) => Err(Error::Unknown {
                    file: path.into(),
                    expected: "a folder with one file of weights, or one of a usual name such as model.safetensors",
                    found: format!("several: {}", listed(&names)),
                }),
                Choice::None => Err(Error::Unknown {
                    file: path.into(),
                    expected: "a folder with model.safetensors, diffusion_pytorch_model.safetensors or a PyTorch \
                        checkpoint",
                    found: "a folder without weights".into(),
                }),
            };
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
        let mut checkpoint = Self::as_stored(source)?;
        join_scales(&mut checkpoint.tensors)?;
        Ok(checkpoint)
    }

    fn as_stored(source: Source) -> Result<Self> {
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

/// The weights of a folder: under one of their usual names, sharded ones by their index, as they are or as a variant
/// (`model.fp16.safetensors`); else the one file of weights that lies there.
pub fn weights_in(folder: &Path) -> Option<PathBuf> {
    match choice_in(folder) {
        Choice::One(file) => Some(file),
        Choice::None | Choice::Several(_) => None,
    }
}

/// The weights that a folder has.
enum Choice {
    None,
    One(PathBuf),
    Several(Vec<String>),
}

fn choice_in(folder: &Path) -> Choice {
    let usual = |variant: &str| {
        let names = NAMES.iter().map(|name| {
            let (stem, ending) = name.rsplit_once('.').unwrap_or((name, ""));
            format!("{stem}{variant}.{ending}")
        });
        names
            .flat_map(|name| {
                let index = format!("{name}{INDEX_SUFFIX}");
                [name, index]
            })
            .map(|name| folder.join(name))
            .find(|path| path.is_file())
    };
    if let Some(file) = VARIANTS.iter().find_map(|variant| usual(variant)) {
        return Choice::One(file);
    }
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    let indices: Vec<String> = names
        .iter()
        .filter(|name| name.ends_with(INDEX_SUFFIX))
        .cloned()
        .collect();
    if indices.is_empty() {
        names.retain(|name| ENDINGS.iter().any(|ending| name.ends_with(ending)));
    } else {
        names = indices;
    }
    match &names[..] {
        [] => Choice::None,
        [name] => Choice::One(folder.join(name)),
        _ => Choice::Several(names),
    }
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

/// The first few names.
fn listed(names: &[String]) -> String {
    const LISTED: usize = 5;
    let more = match names.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    format!("{}{more}", names[..names.len().min(LISTED)].join(", "))
}

fn unknown(start: &[u8]) -> String {
    format!(
        "a file that begins with \"{}\"",
        start[..start.len().min(12)].escape_ascii()
    )
}
