//! The pictures of a study: those of a user, a part of them, or generated shapes.

use crate::recipe::Images;
use crate::{data, synthetic, workspace};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// Pictures of made-up data: training and test.
const MADE_UP: [usize; 2] = [4000, 1000];

/// Data that the models are trained on and held against.
pub struct Pictures {
    /// A folder that `tessera` reads both halves from.
    pub folder: PathBuf,
    /// The same with every picture, for the judge.
    pub whole: PathBuf,
    /// 1 for gray, 3 for color.
    pub channels: usize,
    /// Number of classes.
    pub classes: usize,
    /// Pictures of the training half.
    pub train: usize,
    /// What it is, for the report.
    pub description: String,
}

impl Pictures {
    /// The pictures of `given`, a folder of train/ and test/ of class folders, or simple shapes made up in `out/data`.
    /// With `limit`, at most so many of either half.
    ///
    /// # Errors
    /// If `given` has not both halves, or a file cannot be copied.
    pub fn prepare(given: Option<&Path>, limit: Option<usize>, out: &Path) -> Result<Self> {
        let part = out.join("data");
        let Some(whole) = given else {
            let [train, test] = MADE_UP.map(|count| count.min(limit.unwrap_or(count)));
            data::write_shapes(Images { train, test }, &part)?;
            return Ok(Self {
                whole: part.clone(),
                folder: part,
                channels: 1,
                classes: synthetic::CLASSES.len(),
                train,
                description: format!(
                    "{train} training and {test} test images of generated discs and squares, as no --data was given"
                ),
            });
        };
        let halves = ["train", "test"].map(|half| whole.join(half));
        if let Some(missing) = halves.iter().find(|half| !half.is_dir()) {
            bail!(
                "{}: no such folder\n  hint: --data takes a folder of train/ and test/, each with a folder of pictures \
                    per class",
                missing.display()
            );
        }
        let classes = folders(&halves[0]).len();
        if classes == 0 {
            bail!("{}: has no class folders", halves[0].display());
        }
        let counts = [count(&halves[0]), count(&halves[1])];
        let (folder, [train, test]) = match limit {
            None => (whole.into(), counts),
            Some(limit) => {
                let copied = ["train", "test"]
                    .map(|half| copy(&whole.join(half), &part.join(half), limit.div_ceil(classes)));
                let [train, test] = copied;
                (part, [train?, test?])
            }
        };
        let of = match limit {
            Some(_) => format!(
                ", the first of every class out of {} and {}",
                counts[0], counts[1]
            ),
            None => String::new(),
        };
        Ok(Self {
            folder,
            whole: whole.into(),
            channels: 3,
            classes,
            train,
            description: format!(
                "{train} training and {test} test pictures of {classes} classes{of}"
            ),
        })
    }
}

fn folders(half: &Path) -> Vec<PathBuf> {
    let mut entries = workspace::list(half);
    entries.retain(|entry| entry.is_dir());
    entries
}

fn count(half: &Path) -> usize {
    let classes = folders(half);
    classes
        .iter()
        .map(|class| workspace::list(class).len())
        .sum()
}

/// Copies the first pictures of every class, and says how many there are.
fn copy(from: &Path, to: &Path, per_class: usize) -> Result<usize> {
    let mut copied = 0;
    for class in folders(from) {
        let target = to.join(class.file_name().unwrap_or_default());
        workspace::create_folder(&target)?;
        for file in workspace::list(&class).into_iter().take(per_class) {
            let target = target.join(file.file_name().unwrap_or_default());
            fs::copy(&file, &target)
                .with_context(|| format!("cannot copy {} to {}", file.display(), to.display()))?;
            copied += 1;
        }
    }
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use xshell::Shell;

    #[test]
    fn a_part_is_the_first_of_every_class() {
        let sh = Shell::new().unwrap();
        let folder = sh.create_temp_dir().unwrap();
        let (whole, out) = (folder.path().join("whole"), folder.path().join("out"));
        assert!(Pictures::prepare(Some(&whole), None, &out).is_err());
        for half in ["train", "test"] {
            for name in ["cat/1.jpg", "cat/2.jpg", "cat/3.jpg", "dog/1.jpg"] {
                sh.write_file(whole.join(half).join(name), name).unwrap();
            }
        }
        let all = Pictures::prepare(Some(&whole), None, &out).unwrap();
        assert_eq!((&all.folder, all.classes, all.train), (&whole, 2, 4));
        let part = Pictures::prepare(Some(&whole), Some(4), &out).unwrap();
        assert_eq!((part.folder, part.whole), (out.join("data"), whole));
        assert_eq!((part.train, part.classes), (3, 2));
        assert!(!out.join("data/train/cat/3.jpg").exists());
    }

    #[test]
    fn without_data_it_is_made_up_and_said_so() {
        let sh = Shell::new().unwrap();
        let folder = sh.create_temp_dir().unwrap();
        let made = Pictures::prepare(None, Some(40), folder.path()).unwrap();
        assert_eq!((made.channels, made.classes, made.train), (1, 10, 40));
        assert!(made.description.contains("generated"));
        assert!(made.folder.join("t10k-labels-idx1-ubyte").is_file());
    }
}
