//! Devices, seeded randomness and the backend-generic trait of fused operations that Tessera's models run on: the parts
//! of a transformer block and of a convolutional autoencoder, each as one pass over memory, forward and backward.
//!
//! Models are plain structs over Burn's `Tensor<D>`; the device carries the backend. The operations of [`ops`] run a
//! fused kernel where the device has one and a portable body elsewhere. Results of a row never depend on the other
//! rows.
//!
//! API boundary: this crate alone knows which backend runs. Other crates call [`ops`], [`nn`], [`init`] and the
//! functions that copy between host and device; all randomness comes from the [`streams`] registry. Kernels, backward
//! passes and the trait's bodies are private, and `unsafe` stays in the CPU kernels.
//!
//! ```
//! use tessera_backend::{DeviceSpec, Rng, init::ParamInit, nn::LayerNorm, ops};
//!
//! let device = "flex".parse::<DeviceSpec>()?.open()?;
//! let x = Rng::new(7, 0).normal_tensor([4, 32], &device); // the same numbers on every device
//! let norm = LayerNorm::new(32, 1e-6, &device);
//! let fc1 = ParamInit::new(7, &device).linear(32, 128);
//! let h = ops::linear(ops::layer_norm(x, &norm), &fc1, ops::Activation::Gelu);
//! assert_eq!(h.dims(), [4, 128]);
//! # Ok::<(), tessera_backend::Error>(())
//! ```
//!
//! Out of scope: models, their losses and their files.
#![warn(missing_docs)]
#![recursion_limit = "256"]

#[cfg(feature = "wgpu")]
mod adapters;
mod arguments;
mod arrays;
mod autodiff;
mod backward;
mod cast;
mod count;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod cube;
mod device;
mod error;
mod extension;
mod flex;
mod fused;
mod host;
pub mod init;
mod instructions;
pub mod nn;
pub mod ops;
mod panels;
mod portable;
mod precision;
pub mod random;
mod request;
pub mod streams;
pub mod transformer;

#[cfg(feature = "wgpu")]
pub use adapters::{Adapter, Limits, adapters, limits};
pub use arrays::{download, upload};
pub use count::elements_of;
pub use device::{DeviceName, DeviceSpec, device_names};
pub use error::{Error, Result};
pub use extension::Backend;
pub use host::{
    DEVICE_FAILED, Transfers, device_indices, device_values, host_indices, host_values, transfers,
};
pub use instructions::Instructions;
pub use precision::{ComputePrecision, autocast};
pub use random::Rng;
pub use request::{ImageRequest, UnknownClass};
