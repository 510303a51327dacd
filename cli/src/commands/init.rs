//! `tessera init`: an architecture of the field with random weights.

use crate::args::{Dtype, Global, within};
use crate::output;
use anyhow::Result;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use tessera::Device;
use tessera::checkpoint::write_folder_atomically;
use tessera::gen_ar::GenArConfig;
use tessera::gen_dit::DitConfig;
use tessera::quantize::{Quantizer, QuantizerConfig};
use tessera::tokenizers::{KlVaeConfig, TinyAutoencoderConfig};

/// Write an architecture with random weights, initialized as its authors do: to measure, or to train from.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  tessera init --arch tokenbridge-l -o tokenbridge-l && tessera inspect tokenbridge-l"
)]
pub struct Init {
    /// What to write: tokenbridge-b, -l, -h, kl16, taesd, taesd3, taef1, taef2; dit-SIZE/PATCH or
    /// race-dit-SIZE/PATCH-KinE with SIZE one of s, b, m, l, xl, such as race-dit-b/2-4in32.
    #[arg(short, long, value_parser = arch, value_name = "NAME")]
    arch: Arch,
    /// Folder for config.json and model.safetensors.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Decides the weights.
    #[arg(short, long, default_value_t = 0, value_name = "N")]
    #[arg(value_parser = within(0..=u64::MAX))]
    seed: u64,
    /// How to store the weights.
    #[arg(long, value_enum, default_value = "f32", value_name = "TYPE")]
    dtype: Dtype,
    /// Write into a folder that is not empty.
    #[arg(long)]
    overwrite: bool,
}

/// The architectures with a name.
#[derive(Debug, Clone, PartialEq, ValueEnum)]
pub enum Arch {
    /// TokenBridge-B: 218 M parameters, 256 px, 6 bits, 1000 classes.
    TokenbridgeB,
    /// TokenBridge-L: 487 M parameters.
    TokenbridgeL,
    /// TokenBridge-H: 910 M parameters.
    TokenbridgeH,
    /// KL-16, the VAE that TokenBridge quantizes: 66 M parameters.
    Kl16,
    /// The tiny autoencoder of Stable Diffusion 1, 2 and XL: 4 channels.
    Taesd,
    /// That of Stable Diffusion 3: 16 channels.
    Taesd3,
    /// That of FLUX.1: 16 channels.
    Taef1,
    /// That of FLUX.2: 32 channels.
    Taef2,
    /// A diffusion transformer by its preset.
    #[value(skip)]
    Dit(Box<DitConfig>),
}

fn arch(text: &str) -> Result<Arch, String> {
    if let Ok(arch) = Arch::from_str(text, true) {
        return Ok(arch);
    }
    match text.parse() {
        Ok(config) => Ok(Arch::Dit(Box::new(config))),
        Err(_) => {
            let named = Arch::value_variants()
                .iter()
                .filter_map(Arch::to_possible_value);
            let named: Vec<_> = named.map(|value| value.get_name().to_owned()).collect();
            Err(format!(
                "expected {}, dit-SIZE/PATCH or race-dit-SIZE/PATCH-KinE",
                named.join(", ")
            ))
        }
    }
}

impl Init {
    /// Draws and writes.
    ///
    /// # Errors
    /// An output folder that is in use, a file that cannot be written.
    pub fn run(self, global: &Global) -> Result<()> {
        let device = global.open()?;
        output::free(&self.output, self.overwrite)?;
        let existing = output::existing(self.overwrite);
        let folder = self.output.clone();
        let parameters = write_folder_atomically(&folder, existing, tessera::of_model, |aside| {
            self.write(aside, &device)
        })?;
        output::text(format!("{parameters} parameters in {}", folder.display()))
    }

    /// Draws and writes into a folder; how many parameters there are.
    fn write(self, folder: &Path, device: &Device) -> Result<usize> {
        let (dtype, seed) = (self.dtype.into(), self.seed);
        let generator = |config: GenArConfig| -> Result<usize> {
            let quantizer = Quantizer::new(QuantizerConfig::tokenbridge())?;
            let model = config.init(&quantizer.values(), seed, device.burn());
            model.save_dir(folder, dtype)?;
            Ok(model.num_trainable())
        };
        let tiny = |config: TinyAutoencoderConfig| -> Result<usize> {
            let model = config.init(seed, device.burn())?;
            model.save_dir(folder, dtype)?;
            Ok(burn::module::Module::num_params(&model))
        };
        Ok(match self.arch {
            Arch::TokenbridgeB => generator(GenArConfig::tokenbridge_b())?,
            Arch::TokenbridgeL => generator(GenArConfig::tokenbridge_l())?,
            Arch::TokenbridgeH => generator(GenArConfig::tokenbridge_h())?,
            Arch::Kl16 => {
                let model = KlVaeConfig::kl16().init(seed, device.burn())?;
                model.save_dir(folder, dtype)?;
                burn::module::Module::num_params(&model)
            }
            Arch::Taesd => tiny(TinyAutoencoderConfig::taesd())?,
            Arch::Taesd3 => tiny(TinyAutoencoderConfig::taesd3())?,
            Arch::Taef1 => tiny(TinyAutoencoderConfig::taef1())?,
            Arch::Taef2 => tiny(TinyAutoencoderConfig::taef2())?,
            Arch::Dit(config) => {
                config.validate()?;
                let model = config.init(seed, device.burn());
                model.save_dir(folder, dtype)?;
                burn::module::Module::num_params(&model)
            }
        })
    }
}
