//! The commands that write, each with tiny settings, and what they read.

use super::sandbox::{Sandbox, Watch, plant, tree};
use crate::data::write_shapes;
use crate::recipe::Images;
use anyhow::{Result, bail};
use std::path::Path;

/// A command that writes into `out`.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What it is called in the table.
    pub name: &'static str,
    /// The command.
    pub args: &'static str,
    /// What differs in another command of the kind, which wrote what is replaced.
    pub other: [&'static str; 2],
    /// Whether what is left of it goes on with `--resume latest`.
    pub resumes: bool,
    /// Whether all of `out` is one thing that appears, and is replaced, at once.
    pub is_one: bool,
    /// Whether it is among the few that are tried when time is short.
    pub quick: bool,
}

const FILES: Case = Case {
    name: "",
    args: "",
    other: ["", ""],
    resumes: false,
    is_one: false,
    quick: false,
};

/// The commands.
pub const CASES: [Case; 13] = [
    Case {
        name: "generate",
        args: "generate -c 0,1 --seed 1 --steps 4 -t 1 --grid -o out",
        other: ["--seed 1", "--seed 5"],
        quick: true,
        ..FILES
    },
    Case {
        name: "reconstruct",
        args: "reconstruct -i in/photos --bits 4 -t 1 --grid -o out",
        other: ["--bits 4", "--bits 5"],
        ..FILES
    },
    Case {
        name: "tokenize",
        args: "tokenize --data in/data --limit 8 --shard-size 3 -t 1 -o out",
        other: ["--limit 8", "--limit 7"],
        ..FILES
    },
    Case {
        name: "decode",
        args: "decode -i in/tokens -t 1 --grid -o out",
        other: ["in/tokens", "in/tokens2"],
        ..FILES
    },
    Case {
        name: "calibrate",
        args: "calibrate --vae in/vae/vae --data in/data --limit 12 --bits 4 -t 1 -o out/c.json --plot out/c.svg",
        other: ["--bits 4", "--bits 5"],
        ..FILES
    },
    Case {
        name: "convert",
        args: "convert in/ar/model -t 1 -o out",
        other: ["in/ar/model", "in/ar2/model"],
        is_one: true,
        quick: true,
        ..FILES
    },
    Case {
        name: "convert-shards",
        args: "convert in/ar/model --shard 20KB -t 1 -o out",
        other: ["in/ar/model --shard 20KB", "in/vae/vae"],
        is_one: true,
        ..FILES
    },
    Case {
        name: "init",
        args: "init --arch taef1 --dtype f16 -t 1 -o out",
        other: ["-o out", "--seed 1 -o out"],
        is_one: true,
        ..FILES
    },
    Case {
        name: "route",
        args: "route -m in/dit -c 0 --steps 2 -t 1 -o out",
        other: ["-c 0", "-c 1"],
        ..FILES
    },
    Case {
        name: "eval",
        args: "eval --data in/data --reconstruction --limit 8 -t 1 -o out",
        other: ["--limit 8", "--limit 7"],
        ..FILES
    },
    Case {
        name: "train-vae",
        args: VAE,
        resumes: true,
        other: ["--epochs", "--seed 7 --epochs"],
        quick: true,
        ..FILES
    },
    Case {
        name: "train-ar",
        args: AR,
        resumes: true,
        other: ["--epochs", "--seed 7 --epochs"],
        ..FILES
    },
    Case {
        name: "train-dit",
        args: DIT,
        resumes: true,
        other: ["--epochs", "--seed 7 --epochs"],
        ..FILES
    },
];

/// One more, slower one.
pub const JUDGE: Case = Case {
    name: "train-judge",
    args: "train judge --data in/many --img-size 32 --channels 1 --max-steps 2 -t 1 -o out",
    resumes: true,
    other: ["-t 1", "--seed 7 -t 1"],
    ..FILES
};

const VAE: &str = "train vae --data in/data --img-size 32 --channels 1 --ch 8 --ch-mult 1,2 --z-channels 4 \
     --batch-size 10 --epochs 2 --save-every 1 --keep-last 2 -t 1 -o out";
const AR: &str = "train ar --data in/data --img-size 32 --channels 1 --vae in/vae/vae --bits 4 --picture-size 28 \
     --enc 16,1,2 --dec 16,1,2 --head 16,1,2 --buffer-size 2 --batch-size 10 --epochs 2 --save-every 1 -t 1 -o out";
const DIT: &str = "train dit --data in/data --img-size 32 --channels 1 --patch 4 --size 16,2,2 --experts 2-in-4 \
     --batch-size 10 --steps 2 --epochs 2 --save-every 1 -t 1 -o out";

impl Case {
    /// The command that wrote what is to be replaced.
    pub fn before(&self) -> String {
        self.args.replacen(self.other[0], self.other[1], 1)
    }
}

/// Makes what the commands read: a data set, two models of each kind, pictures, tokens.
///
/// # Errors
/// When a command fails.
pub fn prepare(sandbox: &Sandbox) -> Result<()> {
    let inputs = sandbox.base.join("in");
    write_shapes(
        Images {
            train: 20,
            test: 10,
        },
        &inputs.join("data"),
    )?;
    // As many as a judge takes in one step.
    write_shapes(
        Images {
            train: 64,
            test: 10,
        },
        &inputs.join("many"),
    )?;
    let make = |name: &str, args: &str| -> Result<()> {
        let scratch = sandbox.scratch(None)?;
        let ended = sandbox.run(&scratch, args, Watch::Off)?;
        if ended.code != Some(0) {
            bail!("tessera {args}\n{}", ended.stderr);
        }
        plant(&inputs.join(name), &tree(&scratch.path.join("out")))
    };
    make("vae", VAE)?;
    make("ar", AR)?;
    make("ar2", &AR.replace("--epochs", "--seed 7 --epochs"))?;
    make("dit", DIT)?;
    make("photos", "generate -c 0,1,2 --steps 2 -o out")?;
    make(
        "tokens",
        "tokenize --data in/data --limit 8 --shard-size 3 -o out",
    )?;
    make(
        "tokens2",
        "tokenize --data in/data --limit 7 --shard-size 3 -o out",
    )?;
    make(
        "calibration",
        "calibrate --vae in/vae/vae --data in/data -o out/c.json",
    )?;
    make(
        "latents",
        &AR.replace("-o out", "--cached out/latents.safetensors -o run"),
    )?;
    std::fs::copy(first(&inputs.join("photos")), inputs.join("photo.png"))?;
    Ok(())
}

fn first(folder: &Path) -> std::path::PathBuf {
    crate::workspace::list(folder)
        .into_iter()
        .next()
        .unwrap_or_default()
}
