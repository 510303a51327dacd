//! Architectures of the field by name, with random weights.

use crate::device::Device;
use crate::error::{Error, Result};
use burn::module::Module;
use std::path::Path;
use std::str::FromStr;
use tessera_gen_ar::GenArConfig;
use tessera_gen_dit::DitConfig;
use tessera_quantize::{Quantizer, QuantizerConfig};
use tessera_tokenizer::{KlVaeConfig, TinyAutoencoderConfig};
use tessera_weights::WeightDtype;

/// An architecture of the field, by its name.
///
/// ```
/// use tessera::Preset;
///
/// assert!("race-dit-b/2-4in32".parse::<Preset>().is_ok());
/// assert!("taef3".parse::<Preset>().is_err());
/// ```
#[derive(Debug, Clone)]
pub enum Preset {
    /// TokenBridge: `tokenbridge-b` (218 M parameters, 256 px, 6 bits, 1000 classes), `-l` (487 M), `-h` (910 M).
    Generator(Box<GenArConfig>),
    /// `kl16`, the VAE that TokenBridge quantizes: 66 M parameters.
    KlVae(Box<KlVaeConfig>),
    /// The tiny autoencoders of Stable Diffusion 1, 2 and XL (`taesd`: 4 channels), of Stable Diffusion 3 (`taesd3`:
    /// 16), of FLUX.1 (`taef1`: 16) and of FLUX.2 (`taef2`: 32).
    Tiny(TinyAutoencoderConfig),
    /// A diffusion transformer: `dit-SIZE/PATCH` or `race-dit-SIZE/PATCH-KinE`.
    Dit(Box<DitConfig>),
}

/// The names of the architectures that have one size each.
const NAMES: [&str; 8] = [
    "tokenbridge-b",
    "tokenbridge-l",
    "tokenbridge-h",
    "kl16",
    "taesd",
    "taesd3",
    "taef1",
    "taef2",
];

impl FromStr for Preset {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let generator = |config| Self::Generator(Box::new(config));
        Ok(match text.to_ascii_lowercase().as_str() {
            "tokenbridge-b" => generator(GenArConfig::tokenbridge_b()),
            "tokenbridge-l" => generator(GenArConfig::tokenbridge_l()),
            "tokenbridge-h" => generator(GenArConfig::tokenbridge_h()),
            "kl16" => Self::KlVae(Box::new(KlVaeConfig::kl16())),
            "taesd" => Self::Tiny(TinyAutoencoderConfig::taesd()),
            "taesd3" => Self::Tiny(TinyAutoencoderConfig::taesd3()),
            "taef1" => Self::Tiny(TinyAutoencoderConfig::taef1()),
            "taef2" => Self::Tiny(TinyAutoencoderConfig::taef2()),
            _ => match text.parse() {
                Ok(config) => Self::Dit(Box::new(config)),
                Err(_) => {
                    return Err(Error::UnknownPreset {
                        known: NAMES.into(),
                    });
                }
            },
        })
    }
}

impl Preset {
    /// Draws weights as the authors initialize them, and writes `config.json` and `model.safetensors` into a folder;
    /// how many parameters there are.
    ///
    /// # Errors
    /// Sizes that make no model, a file that cannot be written.
    pub fn write(
        &self,
        folder: &Path,
        seed: u64,
        dtype: WeightDtype,
        device: &Device,
    ) -> Result<usize> {
        Ok(match self {
            Self::Generator(config) => {
                let quantizer = Quantizer::new(QuantizerConfig::tokenbridge())?;
                let model = config.init(&quantizer.values(), seed, device.burn());
                model.save_dir(folder, dtype)?;
                model.num_trainable()
            }
            Self::KlVae(config) => {
                let model = config.init(seed, device.burn())?;
                model.save_dir(folder, dtype)?;
                model.num_params()
            }
            Self::Tiny(config) => {
                let model = config.init(seed, device.burn())?;
                model.save_dir(folder, dtype)?;
                model.num_params()
            }
            Self::Dit(config) => {
                config.validate()?;
                let model = config.init(seed, device.burn());
                model.save_dir(folder, dtype)?;
                model.num_params()
            }
        })
    }
}
