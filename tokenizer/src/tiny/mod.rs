//! The tiny autoencoders (TAESD and its kin, `madebyollin/taesd`): convolutions of one width, distilled from the VAEs
//! of large image models, whose latents they share at a small part of the cost. The latents are points, not
//! distributions.
//!
//! Both halves are sequences of [`Layer`]s, and the checkpoints name a layer by its place in its sequence. So the
//! sequences are written here as they are there, layers without weights included, and the names follow.

mod checkpoint;
mod config;
mod init;
mod layer;
mod model;

pub use config::TinyAutoencoderConfig;
pub use layer::{Block, Layer};
pub use model::TinyAutoencoder;
