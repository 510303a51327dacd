//! Opens the weight files that the field has, and gives their tensors by name.
//!
//! | format | how it is told | files |
//! |---|---|---|
//! | safetensors | a header of JSON | `.safetensors` |
//! | safetensors in shards | an index of JSON beside them | `….safetensors.index.json` |
//! | PyTorch since 1.6 | a zip archive with `data.pkl` | `.pt` `.pth` `.ckpt` |
//! | PyTorch before 1.6 | a pickle of PyTorch's magic number | the same |
//!
//! Nothing is executed: of a pickle's instructions only those that build plain containers and tensors are obeyed, and a
//! class outside a small set is refused by name. Opening reads what describes the tensors; their values are mapped one
//! tensor at a time, when asked for. Whatever a file claims is checked against the bytes it has before memory is
//! taken for it.
//!
//! ```
//! use std::collections::BTreeMap;
//! use tessera_checkpoint::{Checkpoint, Dtype, Entry, write};
//!
//! let folder = tempfile::tempdir()?;
//! let file = folder.path().join("model.safetensors");
//! let bias = Entry {
//!     name: "model.bias".into(),
//!     dtype: Dtype::F32,
//!     shape: (&[1]).into(),
//!     bytes: Box::new(|out| out.write_all(&1.5_f32.to_le_bytes())),
//! };
//! write(&file, &BTreeMap::new(), vec![bias])?;
//!
//! let checkpoint = Checkpoint::open(folder.path())?; // the folder's weights, whatever they are called
//! let weights = checkpoint.state_dict(None)?; // without the `model.` of a training checkpoint
//! assert_eq!(weights.tensors["bias"].values()?, [1.5]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! API boundary: files in, tensors by name out. This crate knows neither modules nor devices, and not what tensors
//! mean.
#![deny(unsafe_code)]

mod architecture;
mod container;
mod error;
mod files;
mod mapped;
mod open;
mod safetensors_file;
mod scaled;
mod sharded;
mod source;
mod tensor;
mod torch;
mod write;

pub use architecture::Architecture;
pub use container::{StateDict, Which};
pub use error::{Error, Result};
pub use files::{
    CONFIG_FILE, WEIGHTS_FILE, create_folder, is_vacant, read_json, remove_temporaries,
    visible_entries, write_atomically, write_folder_atomically, write_json,
};
pub use mapped::mapped_file;
pub use open::{Checkpoint, Format, weights_in};
pub use safetensors::Dtype;
pub use safetensors_file::{Bytes, Entry, write};
pub use scaled::{SCALE_SUFFIX, scale_shape};
pub use tensor::{StoredTensor, evenly_spaced};
pub use tessera_files::{Existing, TEMPORARY, abandon, final_path, sync_folder};
pub use write::{Shards, write_shards};
