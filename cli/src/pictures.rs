//! Pictures named on the command line, brought to the size a tokenizer reads.

use crate::args::DataArgs;
use crate::{data, interrupt, output};
use anyhow::{Context, Result, bail, ensure};
use clap::{ArgGroup, Args};
use ndarray::Array3;
use std::collections::BTreeSet;
use std::path::PathBuf;
use tessera::Tokenizer;
use tessera::pictures::dataset::{Dataset, Split};
use tessera::pictures::{Found, find};

/// Where pictures come from.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("pictures").required(true).args(["input", "data"]))]
pub struct PictureArgs {
    /// Pictures: files, folders with all below them, or patterns with * and ?.
    #[arg(short, long, num_args = 1.., value_name = "PATH")]
    pub input: Vec<PathBuf>,
    /// A folder with a sub-folder per class, or of MNIST-style IDX files (their test half).
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Take the train half of IDX files.
    #[arg(long, requires = "data")]
    pub train_split: bool,
    /// Stop after so many pictures.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
}

/// One picture as a tokenizer reads it.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Its file's name without the ending, or its number in the data; unique among a command's pictures.
    pub name: String,
    /// Its class, where the data has classes.
    pub label: Option<u32>,
    /// `[channels, height, width]`, in `[-1, 1]`.
    pub image: Array3<f32>,
}

/// The pictures of a command, read when they are asked for.
pub enum Pictures {
    /// Single files, with their unique names.
    Files(Vec<(PathBuf, String)>),
    /// A data set and how many of its pictures are taken.
    Data(Box<dyn Dataset>, usize),
}

impl Pictures {
    /// Finds the pictures; each is read later.
    ///
    /// # Errors
    /// When a path does not exist, a pattern matches nothing, or no picture is found.
    pub fn open(args: &PictureArgs, tokenizer: &Tokenizer, quiet: bool) -> Result<Self> {
        let limit = args.limit.map_or(usize::MAX, |limit| limit as usize);
        let Some(folder) = &args.data else {
            let Found {
                mut files,
                left_out,
            } = find(&args.input)?;
            if !quiet && !left_out.is_empty() {
                output::note(format_args!(
                    "data: {}; left out: {left_out}",
                    data::counted(files.len())
                ));
            }
            files.truncate(limit);
            return Ok(Self::Files(named(files)));
        };
        let square = tokenizer.square.with_context(|| {
            format!(
                "{}: the pictures of a data set are of one size; give it with --img-size",
                folder.display()
            )
        })?;
        let split = if args.train_split {
            Split::Train
        } else {
            Split::Test
        };
        let args = DataArgs {
            data: folder.clone(),
            img_size: square.img_size,
            channels: tokenizer.vae.image_channels(),
            strict: false,
        };
        let data = data::open(&args, split, quiet)?;
        let count = data.len().min(limit);
        Ok(Self::Data(data, count))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Files(files) => files.len(),
            Self::Data(_, count) => *count,
        }
    }

    /// The names of the classes, none for single files.
    pub fn class_names(&self) -> &[String] {
        match self {
            Self::Files(_) => &[],
            Self::Data(data, _) => data.class_names(),
        }
    }

    /// Picture `index`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn get(&self, index: usize, tokenizer: &Tokenizer) -> Result<Picture> {
        match self {
            Self::Files(files) => {
                let (path, name) = &files[index];
                Ok(Picture {
                    name: name.clone(),
                    label: None,
                    image: tokenizer.prepare(path)?,
                })
            }
            Self::Data(data, _) => Ok(Picture {
                name: format!("{index:05}"),
                label: Some(data.label(index) as u32),
                image: data.image(index)?,
            }),
        }
    }

    /// Gives all pictures in batches to `each`; one that cannot be read is named on stderr and left out. Returns how
    /// many were.
    ///
    /// # Errors
    /// When `each` fails or Ctrl-C is pressed.
    pub fn batches(
        &self,
        tokenizer: &Tokenizer,
        mut each: impl FnMut(Vec<Picture>) -> Result<()>,
    ) -> Result<usize> {
        let (mut failed, indices) = (0, (0..self.len()).collect::<Vec<_>>());
        for chunk in indices.chunks(tokenizer.batch()) {
            let mut batch = Vec::with_capacity(chunk.len());
            for &index in chunk {
                match self.get(index, tokenizer) {
                    Ok(picture) => batch.push(picture),
                    Err(error) => {
                        failed += 1;
                        output::note(format_args!("error: {error:#}"));
                    }
                }
            }
            if !batch.is_empty() {
                each(batch)?;
            }
            if interrupt::requested() {
                bail!(
                    "stopped after {} of {} pictures",
                    chunk[chunk.len() - 1] + 1,
                    self.len()
                );
            }
        }
        ensure!(
            failed < self.len(),
            "none of the {failed} pictures could be read"
        );
        Ok(failed)
    }
}

/// Says at the end what [`Pictures::batches`] left out.
///
/// # Errors
/// When that is anything.
pub fn all_done(failed: usize, of: usize) -> Result<()> {
    ensure!(
        failed == 0,
        "{failed} of {of} pictures could not be read; the others are done"
    );
    Ok(())
}

/// Gives every file its stem as a name, numbered where it was given before.
fn named(files: Vec<PathBuf>) -> Vec<(PathBuf, String)> {
    // What the commands call their own picture.
    let mut taken = BTreeSet::from(["grid".to_owned()]);
    let mut unique = |path: PathBuf| {
        let stem = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let numbered = (2..).map(|number| format!("{stem}-{number}"));
        let name = std::iter::once(stem.clone())
            .chain(numbered)
            .find(|name| !taken.contains(name));
        let name = name.expect("the numbers do not end");
        taken.insert(name.clone());
        (path, name)
    };
    files.into_iter().map(&mut unique).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_one_name_are_numbered() {
        let names = named(["a/x.png", "b/x.png", "x-2.png"].map(PathBuf::from).into());
        assert_eq!(
            names.into_iter().map(|(_, name)| name).collect::<Vec<_>>(),
            ["x", "x-2", "x-2-2"]
        );
    }
}
