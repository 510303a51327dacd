//! Devices, seeded randomness and the operations that Tessera's models run on.
#![recursion_limit = "256"]

mod device;
mod error;
pub mod nn;
pub mod ops;
pub mod random;

pub use device::{DeviceSpec, available};
pub use error::{Error, Result};
pub use random::Rng;
