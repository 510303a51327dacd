//! `tessera classes`.

use crate::args::Global;
use crate::output;
use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use tessera::{Model, ModelCard};

/// List the classes of a model: their ids and names.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  tessera classes\n  tessera classes boot -m runs/ar/model --json"
)]
pub struct Classes {
    /// Only names that contain this, whatever the case.
    #[arg(value_name = "GREP")]
    grep: Option<String>,
    /// A model folder; the built-in model unless given.
    #[arg(short, long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Class<'a> {
    id: usize,
    name: &'a str,
}

impl Classes {
    /// Prints the classes.
    ///
    /// # Errors
    /// When the model cannot be opened, or no class matches.
    pub fn run(self, global: &Global) -> Result<()> {
        let (name, class_names) = match &self.model {
            Some(path) => {
                let card = ModelCard::of(path)?;
                (card.name().to_owned(), card.class_names().to_vec())
            }
            None => {
                let model = Model::builtin(&global.open()?)?;
                (model.name().to_owned(), model.class_names().to_vec())
            }
        };
        let grep = self.grep.as_deref().unwrap_or_default().to_lowercase();
        let classes = class_names
            .iter()
            .enumerate()
            .filter(|(_, name)| name.to_lowercase().contains(&grep));
        let classes: Vec<Class<'_>> = classes.map(|(id, name)| Class { id, name }).collect();
        if self.json {
            return output::json(
                &serde_json::json!({ "schema": "tessera.classes/v1", "model": name, "classes": classes }),
            );
        }
        ensure!(
            !classes.is_empty(),
            "no class of {name} contains {grep:?}; it has {}",
            class_names.len()
        );
        let lines: Vec<String> = classes
            .iter()
            .map(|Class { id, name }| format!("{id}\t{}", output::shown(name)))
            .collect();
        output::text(lines.join("\n"))
    }
}
