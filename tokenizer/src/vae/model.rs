//! The autoencoder: both halves, and the 1 x 1 convolutions around the latents.

use super::config::KlVaeConfig;
use super::decoder::Decoder;
use super::encoder::Encoder;
use super::init::VaeInit;
use super::posterior::Posterior;
use super::resnet::NONE;
use crate::{ImageTokenizer, Result};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use tessera_backend::nn::Conv2d;
use tessera_backend::ops::conv2d;

/// An autoencoder with Gaussian latents. Its fields are named as in the released `kl16.ckpt`.
#[derive(Module, Debug)]
pub struct KlVae {
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: Conv2d,
    post_quant_conv: Conv2d,
    #[module(skip)]
    config: KlVaeConfig,
}

impl KlVaeConfig {
    /// A network with PyTorch's default initial weights, the same for a seed wherever it is made.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn init(&self, seed: u64, device: &Device) -> Result<KlVae> {
        self.validate()?;
        let init = &mut VaeInit::new(seed, self.norm_groups, device);
        let z = self.z_channels;
        Ok(KlVae {
            encoder: Encoder::new(self, init),
            decoder: Decoder::new(self, init),
            quant_conv: init.conv(2 * z, 2 * z, 1, 1),
            post_quant_conv: init.conv(z, z, 1, 1),
            config: self.clone(),
        })
    }
}

impl KlVae {
    /// The sizes it was made with.
    pub fn config(&self) -> &KlVaeConfig {
        &self.config
    }

    /// The first half.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// The second half.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The distribution of the images' latents.
    ///
    /// # Shapes
    /// - `images`: `[batch, in_channels, height, width]`, in `[-1, 1]`
    /// - returns moments of `[batch, z_channels, height / downsampling, width / downsampling]`
    ///
    /// # Panics
    /// On another number of channels, or a size that [`check_image_size`](ImageTokenizer::check_image_size) refuses.
    pub fn encode(&self, images: Tensor<4>) -> Posterior {
        let [_, channels, height, width] = images.dims();
        assert_eq!(channels, self.config.in_channels, "channels of the images");
        let fits = self.check_image_size(height, width).is_ok();
        assert!(
            fits,
            "images of {height}x{width} px: sides must be multiples of {}",
            self.config.downsampling()
        );
        let h = self.encoder.forward(images);
        Posterior::from_moments(conv2d(h, &self.quant_conv, NONE))
    }

    /// Images of the latents. Nothing clamps them: values may lie a little outside `[-1, 1]`.
    ///
    /// # Shapes
    /// - `latents`: `[batch, z_channels, height, width]`
    /// - returns `[batch, out_ch, height * downsampling, width * downsampling]`
    ///
    /// # Panics
    /// On another number of channels.
    pub fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        let [_, channels, _, _] = latents.dims();
        assert_eq!(channels, self.config.z_channels, "channels of the latents");
        self.decoder
            .forward(conv2d(latents, &self.post_quant_conv, NONE))
    }
}
