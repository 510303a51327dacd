//! The KL-VAE of latent diffusion (Rombach et al., 2022) that TokenBridge tokenizes: an image becomes the mean and
//! the variance of a small map of continuous latents, and a sample of them becomes an image again.

mod attention;
mod checkpoint;
mod config;
mod decoder;
mod diffusers;
mod encoder;
mod infer;
mod init;
#[cfg(feature = "train")]
mod loss;
mod model;
#[cfg(feature = "train")]
mod objective;
mod posterior;
mod resnet;
mod sampling;
mod tokenizer;

pub use attention::AttnBlock;
pub(crate) use checkpoint::save;
pub use checkpoint::{CONFIG_FILE, WEIGHTS_FILE};
pub use config::KlVaeConfig;
pub use decoder::{Decoder, DecoderLevel};
pub(crate) use diffusers::Diffusers;
pub use diffusers::DiffusersSizes;
pub use encoder::{Encoder, EncoderLevel, Mid};
#[cfg(feature = "train")]
pub use loss::{VaeLossConfig, losses};
pub use model::KlVae;
#[cfg(feature = "train")]
pub use objective::{Flip, ReconstructionObjective};
pub use posterior::Posterior;
pub use resnet::ResnetBlock;
pub use sampling::{Downsample, Upsample};
