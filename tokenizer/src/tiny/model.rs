//! The autoencoder: two sequences of layers.

use super::checkpoint::ConfigFile;
use super::config::TinyAutoencoderConfig;
use super::init::TinyInit;
use super::layer::{Block, Layer, WIDTH, forward};
use crate::Result;
use crate::image_tokenizer::{ImageTokenizer, only_device};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde_json::{Value, json};
use std::path::Path;
use tessera_weights::{WeightDtype, Weights};

/// Channels of the images.
const RGB: usize = 3;
/// How often the encoder halves the sides and the decoder doubles them.
const LEVELS: usize = 3;
/// Residual blocks of each of these levels; there is one more at the full resolution.
const BLOCKS: usize = 3;

/// An autoencoder whose latents are points. Its parameters are named as in the released checkpoints, the halves'
/// names before them: `encoder.0.weight`, …, `decoder.19.bias`.
#[derive(Module, Debug)]
pub struct TinyAutoencoder {
    encoder: Vec<Layer>,
    decoder: Vec<Layer>,
    #[module(skip)]
    config: TinyAutoencoderConfig,
}

impl TinyAutoencoderConfig {
    /// Image px per latent, along each side.
    pub const DOWNSAMPLING: usize = 1 << LEVELS;

    /// Places of the decoder's sequence: three in front, as many blocks as levels have and two more places for each,
    /// two behind.
    pub(super) const DECODER_PLACES: usize = 3 + LEVELS * (BLOCKS + 2) + 2;

    /// A network with PyTorch's default initial weights, the same for a seed wherever it is made.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn init(&self, seed: u64, device: &Device) -> Result<TinyAutoencoder> {
        self.validate()?;
        let init = &mut TinyInit::new(seed, device);
        Ok(TinyAutoencoder {
            encoder: self.encoder(init),
            decoder: self.decoder(init),
            config: self.clone(),
        })
    }

    fn encoder(&self, init: &mut TinyInit) -> Vec<Layer> {
        let mut layers = vec![
            Layer::Conv(init.conv(RGB, WIDTH, 3)),
            Layer::Block(Block::new(false, init)),
        ];
        for level in 1..=LEVELS {
            layers.push(Layer::Conv(init.unbiased(WIDTH, WIDTH, 3, 2)));
            layers.extend(self.blocks(level == LEVELS, init));
        }
        layers.push(Layer::Conv(init.conv(WIDTH, self.latent_channels, 3)));
        layers
    }

    fn decoder(&self, init: &mut TinyInit) -> Vec<Layer> {
        let mut layers = vec![
            Layer::Clamp,
            Layer::Conv(init.conv(self.latent_channels, WIDTH, 3)),
            Layer::Relu,
        ];
        for level in (1..=LEVELS).rev() {
            layers.extend(self.blocks(level == LEVELS, init));
            layers.push(Layer::Upsample);
            layers.push(Layer::Conv(init.unbiased(WIDTH, WIDTH, 3, 1)));
        }
        layers.push(Layer::Block(Block::new(false, init)));
        layers.push(Layer::Conv(init.conv(WIDTH, RGB, 3)));
        layers
    }

    fn blocks(&self, lowest: bool, init: &mut TinyInit) -> impl Iterator<Item = Layer> {
        (0..BLOCKS).map(move |_| Layer::Block(Block::new(self.pooled && lowest, init)))
    }
}

impl TinyAutoencoder {
    /// What it was made with.
    pub fn config(&self) -> &TinyAutoencoderConfig {
        &self.config
    }
}

impl ImageTokenizer for TinyAutoencoder {
    fn architecture(&self) -> &'static str {
        "tiny autoencoder"
    }

    fn config_json(&self) -> Value {
        json!(ConfigFile::TinyAutoencoder(self.config.clone()))
    }

    fn weights(&self) -> Weights {
        Weights::of(self)
    }

    fn image_channels(&self) -> usize {
        RGB
    }

    fn latent_channels(&self) -> usize {
        self.config.latent_channels
    }

    fn downsampling(&self) -> usize {
        TinyAutoencoderConfig::DOWNSAMPLING
    }

    fn resolution(&self) -> Option<usize> {
        None
    }

    fn device(&self) -> Device {
        only_device(self)
    }

    fn largest_tensor(&self, height_px: usize, width_px: usize) -> usize {
        WIDTH * height_px * width_px
    }

    fn encode(&self, images: Tensor<4>) -> Tensor<4> {
        let [_, channels, height, width] = images.dims();
        assert_eq!(channels, RGB, "channels of the images");
        assert!(
            self.check_image_size(height, width).is_ok(),
            "images of {height}x{width} px: sides must be multiples of {}",
            self.downsampling()
        );
        // The network's own images are in [0, 1].
        forward(&self.encoder, images * 0.5 + 0.5)
    }

    fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        let [_, channels, _, _] = latents.dims();
        assert_eq!(
            channels, self.config.latent_channels,
            "channels of the latents"
        );
        forward(&self.decoder, latents) * 2.0 - 1.0
    }

    fn save_dir(&self, folder: &Path, dtype: WeightDtype) -> Result<()> {
        self.save_dir(folder, dtype)
    }
}
