//! Names of tensors ↔ parameters of modules: what a weights file holds and what a module wants, held strictly against
//! each other.
//!
//! A name is the path of the module's fields joined by `.`, which is PyTorch's state-dict key where the fields have the
//! reference's names. Values are in PyTorch's layout: `Linear.weight` is `[out, in]` here and `[in, out]` in `backend`.
//! Weights load whole or not at all; a [`Mismatch`] lists what is missing, unexpected or misshapen, with the nearest
//! names.
//!
//! ```
//! use burn::tensor::Device;
//! use tessera_backend::init::ParamInit;
//! use tessera_weights::{WeightDtype, Weights};
//!
//! let folder = tempfile::tempdir()?;
//! let file = folder.path().join("model.safetensors");
//! let model = ParamInit::new(7, &Device::flex()).linear(2, 3);
//! Weights::of(&model).write(&file, [("epoch".into(), "7".into())].into(), WeightDtype::F32)?;
//!
//! let weights = Weights::read(&file)?;
//! let loaded = weights.apply(ParamInit::new(8, &Device::flex().autodiff()).linear(2, 3))?;
//! assert_eq!(Weights::of(&loaded).get("weight").unwrap().shape(), [3, 2]);
//! assert!(weights.apply(ParamInit::new(8, &Device::flex()).linear(2, 4)).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! API boundary: this crate knows modules and files, no model, no training and no pictures. File formats are
//! `tessera-checkpoint`'s.
#![forbid(unsafe_code)]

mod error;
mod mismatch;
mod walk;
mod weights;

pub use error::{Error, Result};
pub use mismatch::{Mismatch, Misshapen, Stray};
pub use tessera_checkpoint::{Checkpoint, Which};
pub use walk::{Loaded, NamePath, flat_tensors, with_buffers, with_flat_tensors};
pub use weights::{Weight, WeightDtype, Weights, encode};
