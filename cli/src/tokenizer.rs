//! The tokenizer of a model, without its generator: pictures to latents and latents to pictures.

use crate::bundle::Bundle;
use crate::data;
use anyhow::{Context, Result, bail};
use burn::tensor::Device;
use clap::Args;
use ndarray::{Array3, Array4, Axis, s};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use tessera_quantize::{Calibration, QuantizerConfig};
use tessera_tokenizer::{Channels, ImageTokenizer, KlVae, Pixels, center_crop, read};

/// Pixels worked on at once: 64 small pictures, or 16 of 256 px.
const BATCH_PIXELS: usize = 1 << 20;

/// Whose tokenizer works.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// A model folder; the built-in model unless given.
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<PathBuf>,
}

/// What turns pictures into latents and latents into pictures, without the generator.
#[derive(Debug)]
pub struct Tokenizer {
    /// What to call it: a base name, never a path.
    pub name: String,
    /// The network.
    pub vae: Box<dyn ImageTokenizer>,
    /// SHA-256 of the network's weights file, in hexadecimal.
    pub sha256: String,
    /// The model's quantiser; `None` for a VAE without a calibration.
    pub quantizer: Option<QuantizerConfig>,
    /// Side in px of what the network reads.
    pub img_size: usize,
    /// Side in px of a finished picture, the centre of that.
    pub picture_size: usize,
    /// Where it computes.
    pub device: Device,
}

impl Tokenizer {
    /// The tokenizer of a model folder, or of the built-in model.
    ///
    /// # Errors
    /// When the model cannot be opened.
    pub fn of_model(model: Option<&Path>, device: &Device) -> Result<Self> {
        let bundle = Bundle::open(model, device)?;
        let sha256 = match model {
            Some(folder) => sha256_of_file(&folder.join("vae").join("model.safetensors"))?,
            None => sha256(BUILTIN_VAE),
        };
        Ok(Self {
            name: bundle.info.name,
            vae: bundle.vae,
            sha256,
            quantizer: Some(bundle.info.quantizer),
            img_size: bundle.info.img_size,
            picture_size: bundle.info.picture_size,
            device: device.clone(),
        })
    }

    /// The VAE of a folder alone, with what was measured on it if `calibration` is given.
    ///
    /// # Errors
    /// When a file is missing or broken, or the calibration is of latents of other channels.
    pub fn of_vae(folder: &Path, calibration: Option<&Path>, device: &Device) -> Result<Self> {
        let vae = KlVae::load_dir(folder, device)?;
        let calibration = calibration.map(Calibration::load).transpose()?;
        if let Some(found) = calibration
            .as_ref()
            .filter(|found| found.channels != vae.config().z_channels)
        {
            bail!(
                "the calibration is of {} channels, the VAE has {}",
                found.channels,
                vae.config().z_channels
            );
        }
        let resolution = vae.config().resolution;
        Ok(Self {
            name: base_name(folder),
            sha256: sha256_of_file(&folder.join("model.safetensors"))?,
            vae: Box::new(vae),
            quantizer: calibration.map(|calibration| calibration.quantizer),
            img_size: resolution,
            picture_size: resolution,
            device: device.clone(),
        })
    }

    fn channels(&self) -> Channels {
        if self.vae.image_channels() == 1 {
            Channels::Grey
        } else {
            Channels::Rgb
        }
    }

    /// Rows and columns of a picture's tokens.
    pub fn grid(&self) -> [usize; 2] {
        [self.img_size / self.vae.downsampling(); 2]
    }

    /// A picture as the network reads it: larger ones are centre-cropped to the size of a finished picture, and all
    /// are centred on black.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn prepare(&self, path: &Path) -> Result<Array3<f32>> {
        let picture = read(path, Some(self.channels()))?;
        let fits = picture.height().max(picture.width()) <= self.picture_size;
        let picture = if fits {
            picture
        } else {
            center_crop(&picture, self.picture_size)?
        };
        Ok(picture.pad(self.img_size, self.img_size)?.to_array())
    }

    /// The finished picture of what the network works on.
    ///
    /// # Errors
    /// When a value is not finite.
    pub fn finish(&self, image: ndarray::ArrayView3<'_, f32>) -> Result<Pixels> {
        let margin = (self.img_size - self.picture_size) / 2;
        let inner = margin..margin + self.picture_size;
        Ok(Pixels::from_array(image.slice(s![
            ..,
            inner.clone(),
            inner
        ]))?)
    }

    /// How many pictures are worked on at once.
    pub fn batch(&self) -> usize {
        (BATCH_PIXELS / (self.img_size * self.img_size)).clamp(1, 64)
    }

    /// The means of the posteriors `[pictures, channels, height, width]`.
    pub fn encode(&self, images: &[Array3<f32>]) -> Array4<f32> {
        let views: Vec<_> = images.iter().map(|image| image.view()).collect();
        let images = ndarray::stack(Axis(0), &views).expect("prepared pictures are of one size");
        data::download(self.vae.encode(data::upload(images, &self.device)))
    }

    /// The finished pictures of latents.
    ///
    /// # Errors
    /// When a decoded value is not finite.
    pub fn decode(&self, latents: Array4<f32>) -> Result<Vec<Pixels>> {
        let images = data::download(self.vae.decode(data::upload(latents, &self.device)));
        images
            .outer_iter()
            .map(|image| self.finish(image))
            .collect()
    }
}

/// The weights of the built-in tokenizer.
const BUILTIN_VAE: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../models/fashion/vae/model.safetensors"
));

/// The last part of a path, in words.
pub fn base_name(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.into());
    whole
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// SHA-256 of bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub fn sha256_of_file(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut file =
        std::fs::File::open(path).with_context(|| format!("{}: cannot read", path.display()))?;
    std::io::copy(&mut file, &mut hasher)
        .with_context(|| format!("{}: cannot read", path.display()))?;
    Ok(hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
