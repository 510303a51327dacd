//! The training objective: reconstruction plus the divergence of the posterior.

use super::config::KlVaeConfig;
use super::model::KlVae;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use tessera_train::Losses;

/// Latent diffusion's weight of the divergence, in its own units (see [`VaeLossConfig`]).
const LDM_KL_WEIGHT: f64 = 1e-6;

/// Weights of the terms: `total = l1_weight * l1 + l2_weight * l2 + kl_weight * kl`.
///
/// Every term is a mean, so that weights carry over between image sizes and batch sizes: `l1` and `l2` are the mean
/// `|x - x̂|` and `(x - x̂)²` over all channel values of the images (in `[-1, 1]`), `kl` is the mean divergence per
/// latent dimension in nats.
///
/// Latent diffusion *sums* both per image and weighs the sum of divergences by 1e-6. An image has
/// `in_channels * downsampling²` values for every `z_channels` latents, so the same balance is
/// `kl_weight = 1e-6 * z_channels / (in_channels * downsampling²)`, 2.1e-8 for KL-16:
/// [`ldm`](Self::ldm) computes it. The perceptual and adversarial terms of that recipe are not part of this one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaeLossConfig {
    /// Weight of the absolute error.
    pub l1_weight: f64,
    /// Weight of the squared error; at 0 it is not computed.
    #[serde(default)]
    pub l2_weight: f64,
    /// Weight of the divergence per latent dimension.
    pub kl_weight: f64,
}

impl VaeLossConfig {
    /// Latent diffusion's balance of absolute error and divergence.
    pub fn ldm(config: &KlVaeConfig) -> Self {
        let values = config.in_channels * config.downsampling().pow(2);
        Self {
            l1_weight: 1.0,
            l2_weight: 0.0,
            kl_weight: LDM_KL_WEIGHT * config.z_channels as f64 / values as f64,
        }
    }
}

/// The objective on one batch: encode, sample, decode, compare. The parts, each before its weight, are `l1`, `l2`
/// (where weighed) and `kl`.
///
/// # Shapes
/// - `images`: `[batch, channels, height, width]`, in `[-1, 1]`
/// - `noise`: `[batch, z_channels, height / downsampling, width / downsampling]`, standard normal
///
/// # Panics
/// As [`KlVae::encode`], and if the decoder's images have other channels than the encoder's.
pub fn losses(
    model: &KlVae,
    images: Tensor<4>,
    noise: Tensor<4>,
    config: &VaeLossConfig,
) -> Losses {
    let posterior = model.encode(images.clone());
    let error = model.decode(posterior.sample_with(noise)) - images;
    let [_, channels, height, width] = posterior.mean.dims();
    let kl = posterior.kl().mean() / (channels * height * width) as f64;

    let l1 = error.clone().abs().mean();
    let mut total = l1.clone() * config.l1_weight + kl.clone() * config.kl_weight;
    let mut parts = vec![("l1", l1)];
    if config.l2_weight != 0.0 {
        let l2 = (error.clone() * error).mean();
        total = total + l2.clone() * config.l2_weight;
        parts.push(("l2", l2));
    }
    parts.push(("kl", kl));
    Losses {
        parts,
        ..Losses::new(total)
    }
}
