//! `tessera convert`: weights of any format to safetensors with a config beside them.

use crate::args::{Dtype, Global, WeightsKind};
use crate::output;
use crate::progress::loading;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;
use tessera::{Architecture, Converter, WeightDtype, Which, hub};
use tessera_command_line::bytes;

/// Convert weights (PyTorch's .pth, .pt and .ckpt, safetensors whole or in shards, diffusers' folders) to safetensors.
///
/// Writes model.safetensors and, where the weights say what they are of, config.json. A generator with --vae becomes a
/// whole model folder, for `generate -m`. Of a training checkpoint the averaged weights are taken if there are any.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    tessera convert checkpoint-last.pth --vae kl16.ckpt -o tokenbridge-l\n  \
    tessera convert kl16.ckpt -o kl16\n  \
    tessera convert checkpoint-last.pth --weights raw --dtype bf16 --shard 1GB -o raw\n  \
    tessera convert stabilityai/sd-vae-ft-mse -o vae")]
pub struct Convert {
    /// A file, a folder, or org/name in the hub's cache.
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// Folder for the result.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// The tokenizer of a generator: makes a whole model folder.
    #[arg(long, value_name = "PATH")]
    vae: Option<PathBuf>,
    /// Which weights of a training checkpoint; averaged ones if there are any unless given.
    #[arg(long, value_enum, value_name = "KIND")]
    weights: Option<WeightsKind>,
    /// The same as --weights ema: fail if there is no average.
    #[arg(long, conflicts_with = "weights")]
    ema: bool,
    /// How to store the weights; as they are unless given.
    #[arg(long, value_enum, value_name = "TYPE")]
    dtype: Option<Dtype>,
    /// Split into files of at most this size, such as 2GB or 500MB, with an index; one file unless given.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    shard: Option<u64>,
    /// The sizes of a generator whose number of heads its shapes do not tell.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print what was written as JSON.
    #[arg(long)]
    json: bool,
    /// Write into a folder that is not empty.
    #[arg(long)]
    overwrite: bool,
}

impl Convert {
    /// Reads, names and writes.
    ///
    /// # Errors
    /// A file that cannot be read, an output folder that is in use, weights that do not fit what they are of.
    pub fn run(self, global: &Global) -> Result<()> {
        let input = hub::locate(&self.input)?;
        let converter = Converter {
            vae: self.vae.clone(),
            which: match self.ema {
                true => Some(Which::Ema),
                false => self.weights.map(Which::from),
            },
            dtype: self.dtype.map(WeightDtype::from),
            shard_bytes: self.shard,
            config: self.config.clone(),
            existing: output::existing(self.overwrite),
        };
        output::free(&self.output, self.overwrite)?;
        let device = global.open()?;
        let conversion = loading(global.quiet, |progress| {
            converter.convert(&input, &self.output, &device, progress)
        })?;
        if !global.quiet && !conversion.has_config() {
            let what = conversion.origin.architecture;
            let what = what.map_or("model that is not known here", Architecture::name);
            let input = input.display();
            output::note(format_args!(
                "note: {input}: a {what}; it keeps its names and gets no config.json"
            ));
        }
        match self.json {
            true => output::report("tessera.convert/v1", &conversion),
            false => output::text(conversion.describe(&self.output)),
        }
    }
}
