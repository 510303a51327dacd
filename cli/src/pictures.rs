//! Pictures named on the command line, brought to the size a tokenizer reads.

use crate::args::{DataArgs, within};
use crate::{data, interrupt, output};
use anyhow::{Context, Result, bail, ensure};
use clap::{ArgGroup, Args};
use ndarray::Array3;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Once;
use tessera::Tokenizer;
use tessera::pictures::dataset::{Dataset, Split};
use tessera::pictures::{Channels, Found, Pixels, find, read};

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
    /// Stop after so many pictures; none is left out unless given.
    #[arg(long, value_name = "N", value_parser = within(1..=u64::MAX))]
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
    /// Single files.
    Files {
        /// With their unique names.
        files: Vec<(PathBuf, String)>,
        /// Says once that color is lost; spent where notes are not wanted.
        gray_note: Once,
    },
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
            let gray_note = Once::new();
            if quiet {
                gray_note.call_once(|| {});
            }
            return Ok(Self::Files {
                files: named(files),
                gray_note,
            });
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
            Self::Files { files, .. } => files.len(),
            Self::Data(_, count) => *count,
        }
    }

    /// The names of the classes, none for single files.
    pub fn class_names(&self) -> &[String] {
        match self {
            Self::Files { .. } => &[],
            Self::Data(data, _) => data.class_names(),
        }
    }

    /// Height and width that the pictures had before they were padded, where they were.
    pub fn padded_from(&self) -> Option<[usize; 2]> {
        match self {
            Self::Files { .. } => None,
            Self::Data(data, _) => data.padded_from(),
        }
    }

    /// Picture `index`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn get(&self, index: usize, tokenizer: &Tokenizer) -> Result<Picture> {
        match self {
            Self::Files { files, .. } => {
                let (path, name) = &files[index];
                let pixels = read(path, None)?;
                if tokenizer.vae.image_channels() == 1 && is_colored(&pixels) {
                    self.say_gray(path, tokenizer);
                }
                Ok(Picture {
                    name: name.clone(),
                    label: None,
                    image: tokenizer.prepare_pixels(&pixels)?,
                })
            }
            Self::Data(data, _) => Ok(Picture {
                name: format!("{index:05}"),
                label: Some(data.label(index) as u32),
                image: data.image(index)?,
            }),
        }
    }

    /// Says of the first picture in color that its color is lost.
    fn say_gray(&self, path: &Path, tokenizer: &Tokenizer) {
        if let Self::Files { gray_note, .. } = self {
            gray_note.call_once(|| {
                output::note(format_args!(
                    "note: {} is in color and {} is gray: color is lost; give a tokenizer for color with -m",
                    path.display(),
                    tokenizer.name
                ));
            });
        }
    }

    /// Gives all pictures in batches to `each`; one that cannot be read is named on stderr and left out.
    ///
    /// # Errors
    /// When `each` fails or Ctrl-C is pressed.
    pub fn batches(
        &self,
        tokenizer: &Tokenizer,
        mut each: impl FnMut(Vec<Picture>) -> Result<()>,
    ) -> Result<LeftOut> {
        let mut left_out = LeftOut::none_of(self.len());
        let indices: Vec<_> = (0..self.len()).collect();
        for chunk in indices.chunks(tokenizer.batch()) {
            let mut batch = Vec::with_capacity(chunk.len());
            for &index in chunk {
                batch.extend(left_out.or(self.get(index, tokenizer))?);
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
        left_out.some_done()?;
        Ok(left_out)
    }
}

/// Says which tokenizer works where the user named none.
pub fn say_builtin(tokenizer: &Tokenizer, quiet: bool) {
    if quiet {
        return;
    }
    let color = match tokenizer.vae.image_channels() {
        1 => "gray",
        _ => "color",
    };
    let size = tokenizer.square.map_or_else(String::new, |square| {
        format!(", {} px", square.picture_size)
    });
    output::note(format_args!(
        "note: no model given, so the built-in one is used: {} ({color}{size}); give another with -m",
        tokenizer.name
    ));
}

/// Pictures that are named and left out, so that one bad file does not end what others are in.
#[derive(Debug)]
pub struct LeftOut {
    failed: usize,
    of: usize,
}

impl LeftOut {
    /// None yet, of so many pictures.
    pub fn none_of(pictures: usize) -> Self {
        Self {
            failed: 0,
            of: pictures,
        }
    }

    /// A picture, or nothing in place of one whose error is said.
    ///
    /// # Errors
    /// When it is the only one: its fault is the command's.
    pub fn or<T>(&mut self, picture: Result<T>) -> Result<Option<T>> {
        match picture {
            Ok(picture) => Ok(Some(picture)),
            Err(error) if self.of == 1 => Err(error),
            Err(error) => {
                self.failed += 1;
                output::note(format_args!("error: {error:#}"));
                Ok(None)
            }
        }
    }

    /// Goes on with the others.
    ///
    /// # Errors
    /// When there are none.
    pub fn some_done(&self) -> Result<()> {
        ensure!(
            self.failed < self.of,
            "none of the {} pictures could be read",
            self.of
        );
        Ok(())
    }

    /// Ends what was done for the others.
    ///
    /// # Errors
    /// When any was left out.
    pub fn all_done(&self) -> Result<()> {
        let Self { failed, of } = self;
        ensure!(
            *failed == 0,
            "{failed} of {of} pictures could not be read; the others are done"
        );
        Ok(())
    }
}

/// Whether any pixel is not gray.
fn is_colored(picture: &Pixels) -> bool {
    let gray = |[r, g, b]: &[u8; 3]| r == g && g == b;
    picture.channels() == Channels::Rgb && !picture.data().as_chunks().0.iter().all(gray)
}

/// Whether a name is one that the commands may give to another picture's reconstruction.
fn is_ours(name: &str) -> bool {
    let bits = |(_, end): (&str, &str)| {
        let digits = end.strip_suffix("bit").unwrap_or_default();
        end == "grid" || (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    name.rsplit_once('-').is_some_and(bits)
}

/// Gives every file its stem as a name, numbered where it was given before, in letters of either case: some file
/// systems know no difference.
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
            .find(|name| !is_ours(name) && !taken.contains(&name.to_lowercase()));
        let name = name.expect("the numbers do not end");
        taken.insert(name.to_lowercase());
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

    #[test]
    fn names_never_meet_those_of_reconstructions_nor_in_another_case() {
        let names = named(
            ["a-6bit.png", "a.png", "A.png", "grid.png", "a-grid.png"]
                .map(PathBuf::from)
                .into(),
        );
        assert_eq!(
            names.into_iter().map(|(_, name)| name).collect::<Vec<_>>(),
            ["a-6bit-2", "a", "A-2", "grid-2", "a-grid-2"]
        );
    }
}
