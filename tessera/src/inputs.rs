//! Pictures that a tokenizer works on: files or a data set, each brought to its size when it is asked for.

use crate::error::Result;
use crate::tokenizer::Tokenizer;
use ndarray::Array3;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tessera_pictures::dataset::Dataset;
use tessera_pictures::{Channels, Pixels, read};

/// One picture as a tokenizer reads it.
#[derive(Debug, Clone)]
pub struct InputPicture {
    /// Its file's name without the ending, or its number in the data; unique among its [`Inputs`].
    pub name: String,
    /// Its class, where the data has classes.
    pub label: Option<u32>,
    /// `[channels, height, width]`, in `[-1, 1]`.
    pub image: Array3<f32>,
    /// What became of its color.
    pub color: Color,
}

/// What a tokenizer leaves of a picture's color.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// All there is.
    Kept,
    /// None: the picture has some, and the tokenizer reads gray.
    Lost,
}

/// Pictures, read when they are asked for.
pub enum Inputs {
    /// Single files with their unique names.
    Files(Vec<(PathBuf, String)>),
    /// A data set and how many of its pictures are taken.
    Data(Box<dyn Dataset>, usize),
}

impl Inputs {
    /// Files, each under its stem as a name: numbered where it was given before, and never one that a reconstruction
    /// of another has.
    pub fn files(files: Vec<PathBuf>) -> Self {
        Self::Files(named(files))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
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

    /// Height and width that the pictures had before they were padded, where they were.
    pub fn padded_from(&self) -> Option<[usize; 2]> {
        match self {
            Self::Files(_) => None,
            Self::Data(data, _) => data.padded_from(),
        }
    }

    /// The file of picture `index`, where it has one of its own.
    pub fn file(&self, index: usize) -> Option<&Path> {
        match self {
            Self::Files(files) => Some(&files[index].0),
            Self::Data(..) => None,
        }
    }

    /// Picture `index`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn get(&self, index: usize, tokenizer: &Tokenizer) -> Result<InputPicture> {
        match self {
            Self::Files(files) => {
                let (path, name) = &files[index];
                let pixels = read(path, None)?;
                let gray = tokenizer.vae.image_channels() == 1;
                Ok(InputPicture {
                    name: name.clone(),
                    label: None,
                    image: tokenizer.prepare_pixels(&pixels)?,
                    color: match gray && is_colored(&pixels) {
                        true => Color::Lost,
                        false => Color::Kept,
                    },
                })
            }
            Self::Data(data, _) => Ok(InputPicture {
                name: format!("{index:05}"),
                label: Some(data.label(index) as u32),
                image: data.image(index)?,
                color: Color::Kept,
            }),
        }
    }
}

/// Whether any pixel is not gray.
fn is_colored(picture: &Pixels) -> bool {
    let gray = |[r, g, b]: &[u8; 3]| r == g && g == b;
    picture.channels() == Channels::Rgb && !picture.data().as_chunks().0.iter().all(gray)
}

/// Whether a name is one that another picture's reconstruction may have.
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
    // What pictures are shown in together.
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
