//! `tessera inspect`: what a file or folder is and what is in it.

use crate::args::{Global, WeightsKind};
use crate::output;
use crate::progress::loading;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::path::PathBuf;
use tessera::{Found, Which, hub, model_folder, require_parts};

/// Say what a file or folder is: a model, a run, weights, a picture, a calibration, tokens.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    tessera inspect out/00000.png\n  \
    tessera inspect runs/ar/model\n  \
    tessera inspect checkpoint-last.pth --weights raw\n  \
    tessera inspect model.safetensors --verify --json")]
pub struct Inspect {
    /// What to look at: a path, or org/name in the hub's cache.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Read every value of weights, make the model of them, and say how much memory that took.
    #[arg(long = "verify", alias = "check")]
    check: bool,
    /// Which weights of a training checkpoint; averaged ones if there are any unless given.
    #[arg(long, value_enum, value_name = "KIND")]
    weights: Option<WeightsKind>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

impl Inspect {
    /// Looks and prints.
    ///
    /// # Errors
    /// When the path does not exist, is of no known kind, or is broken.
    pub fn run(self, global: &Global) -> Result<()> {
        let path = hub::locate(&self.path)?;
        let which = self.weights.map(Which::from);
        let mut found = Found::at(&path, which)?;
        match &mut found {
            Found::Weights(weights) if self.check => {
                let device = global.open()?;
                loading(global.quiet, |progress| {
                    weights.check(which, &device, progress)
                })?;
            }
            Found::Model { weights, .. } if self.check => {
                let device = global.open()?;
                for part in weights.values_mut() {
                    loading(global.quiet, |progress| {
                        part.check(which, &device, progress)
                    })?;
                }
                if let Some(folder) = model_folder(&path) {
                    require_parts(&folder).with_context(|| format!("in {}", folder.display()))?;
                }
            }
            _ if self.check => bail!("{}: --verify is for weights", path.display()),
            _ => {}
        }
        match self.json {
            true => output::report("tessera.inspect/v1", &found),
            false => output::text(described(&found.describe())),
        }
    }
}

/// The lines as a terminal shows them. What breaks a line is in names and texts of the file: none may forge another,
/// so that what follows a break is indented.
fn described(lines: &[String]) -> String {
    let shown = lines.iter().map(|line| {
        let parts = line.split('\n').map(|part| output::shown(part).to_string());
        parts.collect::<Vec<_>>().join("\n  ")
    });
    shown.collect::<Vec<_>>().join("\n")
}
