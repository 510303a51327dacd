//! The tokenizer of a model, without its generator: pictures ↔ latents, of one size or of any.

use crate::device::Device;
use crate::digest::{base_name, sha256, sha256_of_files};
use crate::error::{Error, Result};
use crate::hub;
use crate::identity::digest_of_tokenizer;
use crate::latents::at_once;
use crate::model::{ArModel, DitModel, Model, builtin, model_folder, no_patch};
use crate::spread::quantizer_of;
use crate::square::Square;
use crate::vae::locate_vae;
use ndarray::{Array3, Array4, ArrayView3, Axis, s};
use std::path::Path;
use std::str::FromStr;
use tessera_checkpoint::weights_in;
use tessera_pictures::{Channels, Pixels, read};
use tessera_quantize::{Calibration, LevelRule, Quantizer, QuantizerConfig};
use tessera_tokenizer::{
    ImageTokenizer, Opened, Tiling, decode_tiled, encode_tiled, open_tokenizer, tiles,
};
use tessera_weights::Which;

/// What turns pictures into latents and latents into pictures, without the generator.
#[derive(Debug)]
pub struct Tokenizer {
    /// What to call it: a base name, never a path.
    pub name: String,
    /// The network.
    pub vae: Box<dyn ImageTokenizer>,
    /// SHA-256 of the network's weights, in hexadecimal: of the file, or of both files' digests. Empty where it was not
    /// read.
    pub sha256: String,
    /// How latents become tokens; `None` where nothing is known of their spread.
    pub quantizer: Option<QuantizerConfig>,
    /// What was measured on its latents.
    pub calibration: Option<Calibration>,
    /// The one size that pictures are brought to; `None` leaves each its own.
    pub square: Option<Square>,
    /// How pictures are cut that are too large to be worked on whole; `None` never cuts.
    pub cuts: Option<Cuts>,
    /// Where it computes.
    pub device: Device,
}

/// When and how pictures are cut into tiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cuts {
    tiling: Tiling,
    /// Pictures of at most so many px are worked on whole.
    whole_px: usize,
}

impl Cuts {
    /// The tiles of a picture, if it is cut.
    fn of(&self, height: usize, width: usize) -> Option<&Tiling> {
        (height * width > self.whole_px).then_some(&self.tiling)
    }
}

/// The size that a bare VAE's pictures are brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImgSize {
    /// None: every picture as it is.
    Full,
    /// Center-cropped to so many px.
    Px(usize),
}

impl FromStr for ImgSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("full", _) => Ok(Self::Full),
            (_, Ok(px)) if px > 0 => Ok(Self::Px(px)),
            _ => Err("expected a number of px, or `full`".into()),
        }
    }
}

/// How a bare VAE is used.
#[derive(Debug, Clone, Default)]
pub struct VaeOptions<'a> {
    /// What was measured on its latents.
    pub calibration: Option<&'a Path>,
    /// The size of the pictures; the one that it was made for unless given.
    pub img_size: Option<ImgSize>,
    /// Which weights of a training checkpoint; averaged ones where there are any unless given.
    pub which: Option<Which>,
    /// Side of the squares of latents that are one token; the calibration's, or 1, unless given.
    pub patch_size: Option<usize>,
    /// Side and overlap of tiles in px; a side of 0 never cuts.
    pub tile: Option<usize>,
    /// What neighboring tiles share, in px.
    pub tile_overlap: Option<usize>,
}

/// Pictures of more px than this are cut unless told otherwise.
const WHOLE_PIXELS: usize = 1 << 20;
/// Side and overlap of tiles unless given: large, since networks that normalize over a picture do so over a tile.
const TILE: Tiling = Tiling {
    tile_px: 768,
    overlap_px: 128,
};

impl Tokenizer {
    /// The tokenizer of a model folder, or of the built-in model.
    ///
    /// # Errors
    /// When the model cannot be opened.
    pub fn of_model(model: Option<&Path>, device: &Device) -> Result<Self> {
        let opened = match model {
            Some(folder) => Model::open(folder, device)?,
            None => Model::builtin(device)?,
        };
        let sha256 = match model {
            Some(folder) => {
                let folder = hub::locate(folder)?;
                let folder = model_folder(&folder).unwrap_or(folder);
                sha256_of_files(weights_in(&folder.join("vae")).as_slice())?
            }
            None => sha256(builtin::VAE_WEIGHTS),
        };
        let tokenizer = match opened {
            Model::Ar(model) => Self::from(model),
            Model::Dit(model) => Self::from(model),
        };
        Ok(Self {
            sha256,
            ..tokenizer
        })
    }

    /// A tokenizer alone, of any kind that is known.
    ///
    /// # Errors
    /// When a file is missing or broken, the calibration is of another tokenizer or patch size, or sizes do not fit.
    pub fn of_vae(path: &Path, options: &VaeOptions<'_>, device: &Device) -> Result<Self> {
        let path = locate_vae(path)?;
        let calibration = options.calibration.map(Calibration::load).transpose()?;
        let measured = calibration.as_ref().map(|measured| measured.patch_size);
        let patch_size = options.patch_size.or(measured).unwrap_or_else(no_patch);
        let Opened {
            tokenizer: vae,
            files,
            latents,
        } = open_tokenizer(&path, options.which, device.burn())?.patched(patch_size)?;
        if let Some((file, calibration)) = options.calibration.zip(calibration.as_ref()) {
            require_of(&*vae, calibration, file)?;
        }
        let img_size = match (options.img_size, vae.resolution()) {
            (Some(ImgSize::Px(px)), _) | (None, Some(px)) => Some(px),
            (Some(ImgSize::Full), _) | (None, None) => None,
        };
        if let Some(px) = img_size {
            vae.check_image_size(px, px)?;
        }
        Ok(Self {
            name: base_name(&path),
            sha256: sha256_of_files(&files)?,
            quantizer: match (&calibration, latents) {
                (Some(calibration), _) => Some(calibration.quantizer.clone()),
                (None, scale) => scale.map(quantizer_of),
            },
            calibration,
            square: img_size.map(|px| Square {
                img_size: px,
                picture_size: px,
            }),
            cuts: options.cuts(&*vae)?,
            vae,
            device: device.clone(),
        })
    }

    fn channels(&self) -> Channels {
        match self.vae.image_channels() {
            1 => Channels::Gray,
            _ => Channels::Rgb,
        }
    }

    /// Rows and columns of a picture's tokens, where all have as many.
    pub fn grid(&self) -> Option<[usize; 2]> {
        let square = self.square?;
        Some([square.img_size / self.vae.downsampling(); 2])
    }

    /// A picture as it is worked on. Where there is one size, it is scaled until its shorter side is that of a finished
    /// picture, and center-cropped.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn prepare(&self, path: &Path) -> Result<Array3<f32>> {
        let picture = read(path, Some(self.channels()))?;
        self.prepare_pixels(&picture)
    }

    /// The same of a picture in memory: `[channels, height, width]` in `[-1, 1]`.
    ///
    /// # Errors
    /// None for a picture that is not empty.
    pub fn prepare_pixels(&self, picture: &Pixels) -> Result<Array3<f32>> {
        let picture = picture.to_channels(self.channels());
        match self.square {
            None => Ok(picture.to_array()),
            Some(square) => square.prepare(&picture),
        }
    }

    /// The finished picture of what is worked on.
    ///
    /// # Errors
    /// When a value is not finite.
    pub fn finish(&self, image: ArrayView3<'_, f32>) -> Result<Pixels> {
        let Some(square) = self.square else {
            return Ok(Pixels::from_array(image)?);
        };
        let margin = (square.img_size - square.picture_size) / 2;
        let inner = margin..margin + square.picture_size;
        Ok(Pixels::from_array(image.slice(s![
            ..,
            inner.clone(),
            inner
        ]))?)
    }

    /// How many pictures are worked on at once.
    pub fn batch(&self) -> usize {
        let side = self.square.map_or(usize::MAX, |square| square.img_size);
        at_once(side.saturating_mul(side))
    }

    /// The latents `[pictures, channels, height, width]` of pictures of one size, whose sides are made to fit the
    /// network by repeating their last rows and columns.
    ///
    /// # Errors
    /// When the tiles do not fit.
    pub fn encode(&self, images: &[Array3<f32>]) -> Result<Array4<f32>> {
        let images = self.padded(images);
        let (count, _, height, width) = images.dim();
        let cuts = self.cuts.as_ref();
        if count == 1
            && let Some(tiling) = cuts.and_then(|cuts| cuts.of(height, width))
        {
            let latents = encode_tiled(&*self.vae, images.index_axis(Axis(0), 0), tiling)?;
            return Ok(latents.insert_axis(Axis(0)));
        }
        self.device.encode(&*self.vae, images)
    }

    /// Pictures of one size as a batch whose sides fit the network.
    fn padded(&self, images: &[Array3<f32>]) -> Array4<f32> {
        let factor = self.vae.downsampling();
        let padded = images.iter().map(|image| tiles::pad(image.view(), factor));
        let padded: Vec<_> = padded.collect();
        let views: Vec<_> = padded.iter().map(|image| image.view()).collect();
        ndarray::stack(Axis(0), &views).expect("prepared pictures are of one size")
    }

    /// The tokens `[pictures, height·width, channels]` of pictures of one size, their levels chosen by `rule`.
    ///
    /// # Errors
    /// As [`encode`](Self::encode); [`Error::NoDistributions`] where the rule needs them.
    pub fn tokenize(
        &self,
        images: &[Array3<f32>],
        quantizer: &Quantizer,
        rule: LevelRule,
    ) -> Result<Array3<u16>> {
        if rule == LevelRule::Nearest {
            return Ok(quantizer.quantize(self.encode(images)?.view())?);
        }
        require_distributions(&*self.vae, rule)?;
        let moments = self
            .device
            .encode_moments(&*self.vae, self.padded(images))?;
        let (mean, logvar) = moments.view().split_at(Axis(1), self.vae.latent_channels());
        let std = logvar.mapv(|logvar| (0.5 * logvar).exp());
        Ok(quantizer.quantize_posterior(mean, std.view())?)
    }

    /// The finished pictures of latents, `[height, width]` px before they are finished.
    ///
    /// # Errors
    /// When a decoded value is not finite, or the tiles do not fit.
    pub fn decode(&self, latents: Array4<f32>, [height, width]: [usize; 2]) -> Result<Vec<Pixels>> {
        let finish =
            |image: ArrayView3<'_, f32>| self.finish(image.slice(s![.., ..height, ..width]));
        let cuts = self.cuts.as_ref();
        if latents.dim().0 == 1
            && let Some(tiling) = cuts.and_then(|cuts| cuts.of(height, width))
        {
            let image = decode_tiled(&*self.vae, latents.index_axis(Axis(0), 0), tiling)?;
            return Ok(vec![finish(image.view())?]);
        }
        let images = self.device.decode(&*self.vae, latents)?;
        images.outer_iter().map(finish).collect()
    }
}

/// Refuses what was measured on another tokenizer, or in other patches.
fn require_of(vae: &dyn ImageTokenizer, found: &Calibration, file: &Path) -> Result<()> {
    let differs = |what, expected: String, found: String| match expected == found {
        true => Ok(()),
        false => Err(Error::Format {
            path: file.into(),
            what,
            expected,
            found,
        }),
    };
    let patch_size = vae.patch_size().to_string();
    differs("patch size", patch_size, found.patch_size.to_string())?;
    let channels = |channels: usize| format!("{channels} channels");
    let of_vae = format!("{}, as the VAE has", channels(vae.latent_channels()));
    if vae.latent_channels() != found.channels {
        return differs(
            "calibration of another VAE",
            of_vae,
            channels(found.channels),
        );
    }
    match &found.vae {
        // Files of before there was this do not say.
        None => Ok(()),
        Some(found) => differs(
            "calibration of another VAE, by its weights",
            digest_of_tokenizer(vae)?,
            found.clone(),
        ),
    }
}

/// Refuses a rule that needs distributions for a tokenizer without.
///
/// # Errors
/// [`Error::NoDistributions`].
pub fn require_distributions(vae: &dyn ImageTokenizer, rule: LevelRule) -> Result<()> {
    match rule == LevelRule::Nearest || vae.gives_distributions() {
        true => Ok(()),
        false => Err(Error::NoDistributions {
            architecture: vae.architecture(),
        }),
    }
}

impl From<ArModel> for Tokenizer {
    fn from(model: ArModel) -> Self {
        let square = model.card.square();
        Self {
            name: model.card.name,
            vae: model.vae,
            sha256: String::new(),
            quantizer: Some(model.card.quantizer),
            calibration: model.calibration,
            square: Some(square),
            cuts: None,
            device: model.device,
        }
    }
}

impl From<DitModel> for Tokenizer {
    fn from(model: DitModel) -> Self {
        Self {
            name: model.card.name,
            vae: model.tokenizer,
            sha256: String::new(),
            quantizer: None,
            calibration: None,
            square: Some(Square {
                img_size: model.card.img_size,
                picture_size: model.card.img_size,
            }),
            cuts: None,
            device: model.device,
        }
    }
}

impl VaeOptions<'_> {
    /// The tiles asked for, brought to multiples of the network's where they are ours to choose.
    fn cuts(&self, vae: &dyn ImageTokenizer) -> Result<Option<Cuts>> {
        let factor = vae.downsampling();
        let tile_px = self.tile.unwrap_or(TILE.tile_px.next_multiple_of(factor));
        if tile_px == 0 {
            return Ok(None);
        }
        let overlap = TILE.overlap_px.min(tile_px / 4) / factor * factor;
        let tiling = Tiling {
            tile_px,
            overlap_px: self.tile_overlap.unwrap_or(overlap),
        };
        tiling.validate(factor)?;
        Ok(Some(Cuts {
            tiling,
            whole_px: self.tile.map_or(WHOLE_PIXELS, |_| 0),
        }))
    }
}
