//! `tessera init`: an architecture of the field with random weights.

use crate::args::{Dtype, Global, within};
use crate::output;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;
use tessera::Preset;
use tessera::checkpoint::write_folder_atomically;

/// Write an architecture with random weights, initialized as its authors do: to measure, or to train from.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  tessera init --arch tokenbridge-l -o tokenbridge-l && tessera inspect tokenbridge-l"
)]
pub struct Init {
    /// What to write: tokenbridge-b, -l, -h, kl16, taesd, taesd3, taef1, taef2; dit-SIZE/PATCH or
    /// race-dit-SIZE/PATCH-KinE with SIZE one of s, b, m, l, xl, such as race-dit-b/2-4in32.
    #[arg(short, long, value_name = "NAME")]
    arch: Preset,
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
            self.arch
                .write(aside, self.seed, self.dtype.into(), &device)
        })?;
        output::text(format!("{parameters} parameters in {}", folder.display()))
    }
}
