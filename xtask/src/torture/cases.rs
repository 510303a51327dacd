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
    other: (&'static str, &'static str),
    /// Whether what is left of it goes on with `--resume latest`.
    pub resumes: bool,
    /// Whether all of `out` is one thing that appears, and is replaced, at once.
    pub is_one: bool,
    /// Whether it is among the few that are tried when time is short.
    pub quick: bool,
}

/// A row for a command: its name, whether it is `one` thing, `resumes` and is `quick`, how the command differs that
/// wrote what it replaces, and the command.
const TABLE: &str = "
| generate       | quick         | --seed 1 > --seed 5       | generate -c 0,1 --seed 1 --steps 4 -t 1 --grid -o out
| reconstruct    |               | --bits 4 > --bits 5       | reconstruct -i in/photos --bits 4 -t 1 --grid -o out
| tokenize       |               | --limit 8 > --limit 7     | tokenize --data in/data --limit 8 --shard-size 3 -t 1 -o out
| decode         |               | in/tokens > in/tokens2    | decode -i in/tokens -t 1 --grid -o out
| calibrate      |               | --bits 4 > --bits 5       | CALIBRATE
| convert        | one quick     | in/ar/model > in/ar2/model | convert in/ar/model -t 1 -o out
| convert-shards | one           | in/ar/model --shard 20KB > in/vae/vae | convert in/ar/model --shard 20KB -t 1 -o out
| init           | one           | -t 1 > --seed 1 -t 1      | init --arch taef1 --dtype f16 -t 1 -o out
| route          |               | -c 0 > -c 1               | route -m in/dit -c 0 --steps 2 -t 1 -o out
| eval           |               | --limit 8 > --limit 7     | eval --data in/data --reconstruction --limit 8 -t 1 -o out
| train-vae      | resumes quick | -t 1 > --seed 7 -t 1      | VAE
| train-ar       | resumes       | -t 1 > --seed 7 -t 1      | AR
| train-dit      | resumes       | -t 1 > --seed 7 -t 1      | DIT
| train-judge    | resumes       | -t 1 > --seed 7 -t 1      | JUDGE
";

const CALIBRATE: &str = "calibrate --vae in/vae/vae --data in/data --limit 12 --bits 4 -t 1 \
     -o out/c.json --plot out/c.svg";
const VAE: &str = "train vae --data in/data --img-size 32 --channels 1 --ch 8 --ch-mult 1,2 --z-channels 4 \
     --batch-size 10 --epochs 2 --save-every 1 --keep-last 2 -t 1 -o out";
const AR: &str = "train ar --data in/data --img-size 32 --channels 1 --vae in/vae/vae --bits 4 --picture-size 28 \
     --enc 16,1,2 --dec 16,1,2 --head 16,1,2 --buffer-size 2 --batch-size 10 --epochs 2 --save-every 1 -t 1 -o out";
const DIT: &str = "train dit --data in/data --img-size 32 --channels 1 --patch 4 --size 16,2,2 --experts 2-in-4 \
     --batch-size 10 --steps 2 --epochs 2 --save-every 1 -t 1 -o out";
const JUDGE: &str =
    "train judge --data in/many --img-size 32 --channels 1 --max-steps 2 -t 1 -o out";

/// The commands.
pub fn cases() -> Vec<Case> {
    TABLE.trim().lines().map(Case::of).collect()
}

impl Case {
    /// The command of a row.
    fn of(row: &'static str) -> Self {
        let cells: Vec<_> = row.split('|').skip(1).map(str::trim).collect();
        let [name, marks, other, args] = cells[..] else {
            unreachable!("a row of four cells: {row}");
        };
        let is = |mark| marks.split(' ').any(|given| given == mark);
        Self {
            name,
            args: match args {
                "CALIBRATE" => CALIBRATE,
                "VAE" => VAE,
                "AR" => AR,
                "DIT" => DIT,
                "JUDGE" => JUDGE,
                args => args,
            },
            other: other.split_once(" > ").unwrap_or_default(),
            resumes: is("resumes"),
            is_one: is("one"),
            quick: is("quick"),
        }
    }

    /// The command that wrote what is to be replaced.
    pub fn before(&self) -> String {
        self.args.replacen(self.other.0, self.other.1, 1)
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
    make("ar2", &AR.replace("-t 1", "--seed 7 -t 1"))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_command_and_another_before_it() {
        let marks = TABLE
            .split('|')
            .skip(2)
            .step_by(4)
            .flat_map(str::split_whitespace);
        for mark in marks {
            assert!(["one", "resumes", "quick"].contains(&mark), "{mark}");
        }
        for case in cases() {
            assert!(
                case.args.contains(' ') && case.args.contains("out"),
                "{case:?}"
            );
            assert_ne!(case.args, case.before(), "{case:?}");
        }
        assert!(cases().iter().any(|case| case.resumes && case.quick));
    }
}
