//! Devices, seeded randomness and the backend-generic trait of fused operations that Tessera's models run on.
#![recursion_limit = "256"]

mod autodiff;
mod device;
mod error;
mod extension;
mod flex;
pub mod nn;
pub mod ops;
mod portable;
pub mod random;

pub use device::{DeviceSpec, available};
pub use error::{Error, Result};
pub use extension::Backend;
pub use random::Rng;
