//! A folder of pictures; its sub-folders are the classes.

use super::Dataset;
use crate::error::{BoxError, Error, Result};
use crate::find::{ENDINGS, entries, is_picture};
use ndarray::Array3;
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Reads one picture as `[channels, height, width]` in `[-1, 1]`, cropped and scaled to the size of training.
pub type Decoder = Box<dyn Fn(&Path) -> Result<Array3<f32>, BoxError> + Send + Sync>;

/// What becomes of a picture that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPictures {
    /// It is left out and reported.
    Skip,
    /// It is an error.
    Fail,
}

/// A picture that is left out.
#[derive(Debug)]
pub struct Skipped {
    /// The picture.
    pub file: PathBuf,
    /// Why.
    pub reason: BoxError,
}

/// `root/class/*.{png,jpg,jpeg,webp}`, or `root/*.…` as one class; in the order of the names.
pub struct ImageFolder {
    name: String,
    class_names: Vec<String>,
    pictures: Vec<Picture>,
    skipped: Vec<Skipped>,
    decoder: Decoder,
}

struct Picture {
    file: PathBuf,
    label: usize,
    /// Kept if the data set fits the memory granted.
    pixels: Option<Array3<f32>>,
}

impl ImageFolder {
    /// Lists the folder and decodes every picture once, on all threads, so that a bad one is known before training
    /// begins and the indices never change after it. As many bytes of pixels as `memory_bytes` are kept; other
    /// pictures are decoded again when they are used.
    ///
    /// A picture that cannot be decoded, or has another size than the first, is skipped (see
    /// [`skipped`](Self::skipped)).
    ///
    /// # Errors
    /// When a folder cannot be listed or no picture is left; when a picture is bad and that is an error.
    pub fn open(
        root: impl AsRef<Path>,
        decoder: Decoder,
        bad_pictures: BadPictures,
        memory_bytes: usize,
    ) -> Result<Self> {
        let root = root.as_ref();
        let (class_names, mut files, mut skipped) = list(root)?;
        let mut pictures: Vec<Picture> = Vec::with_capacity(files.len());
        let mut kept_bytes = 0;
        let mut shape = None;
        // Block by block, so that no more than a block is in memory beyond what is kept.
        while !files.is_empty() {
            let block: Vec<_> = files.drain(..files.len().min(256)).collect();
            let decoded: Vec<_> = block.par_iter().map(|(file, _)| decoder(file)).collect();
            for ((file, label), decoded) in block.into_iter().zip(decoded) {
                match decoded.and_then(|pixels| same_shape(pixels, &mut shape)) {
                    Ok(pixels) => {
                        kept_bytes += pixels.len() * size_of::<f32>();
                        let pixels = (kept_bytes <= memory_bytes).then_some(pixels);
                        pictures.push(Picture {
                            file,
                            label,
                            pixels,
                        });
                    }
                    Err(reason) => skipped.push(Skipped { file, reason }),
                }
            }
        }
        skipped.sort_by(|a, b| a.file.cmp(&b.file));
        if bad_pictures == BadPictures::Fail && !skipped.is_empty() {
            let Skipped { file, reason } = skipped.swap_remove(0);
            return Err(Error::BadPicture {
                file,
                source: reason,
            });
        }
        if pictures.is_empty() {
            return Err(Error::NoData {
                folder: root.into(),
                expected: match skipped.len() {
                    0 => format!("pictures ({})", ENDINGS.join(", ")),
                    bad => format!("usable picture ({bad} could not be decoded)"),
                },
            });
        }
        let name = root.canonicalize().unwrap_or_else(|_| root.into());
        let name = name.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            class_names: match class_names.is_empty() {
                true => vec![name.clone().into_owned()],
                false => class_names,
            },
            name: name.into_owned(),
            pictures,
            skipped,
            decoder,
        })
    }

    /// The pictures that were left out, each to be warned of, in the order of their names.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// The same, handed over.
    pub(crate) fn take_skipped(&mut self) -> Vec<Skipped> {
        std::mem::take(&mut self.skipped)
    }

    /// The file of picture `index`.
    pub fn file(&self, index: usize) -> &Path {
        &self.pictures[index].file
    }
}

impl Dataset for ImageFolder {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.pictures.len()
    }

    fn label(&self, index: usize) -> usize {
        self.pictures[index].label
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn image(&self, index: usize) -> Result<Array3<f32>> {
        let picture = &self.pictures[index];
        match &picture.pixels {
            Some(pixels) => Ok(pixels.clone()),
            None => (self.decoder)(&picture.file).map_err(|source| Error::BadPicture {
                file: picture.file.clone(),
                source,
            }),
        }
    }
}

impl std::fmt::Debug for ImageFolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageFolder")
            .field("name", &self.name)
            .field("classes", &self.class_names.len())
            .field("pictures", &self.pictures.len())
            .field("skipped", &self.skipped)
            .finish_non_exhaustive()
    }
}

fn same_shape(
    pixels: Array3<f32>,
    first: &mut Option<[usize; 3]>,
) -> Result<Array3<f32>, BoxError> {
    let shape: [usize; 3] = pixels.dim().into();
    let expected = *first.get_or_insert(shape);
    match shape == expected {
        true => Ok(pixels),
        false => Err(format!("it has shape {shape:?}, the first picture has {expected:?}").into()),
    }
}

/// Class names, pictures with their labels, and the pictures that belong to no class. Hidden names do not count.
#[allow(clippy::type_complexity)]
fn list(root: &Path) -> Result<(Vec<String>, Vec<(PathBuf, usize)>, Vec<Skipped>)> {
    let entries = sorted(root)?;
    let folders: Vec<&PathBuf> = entries.iter().filter(|path| path.is_dir()).collect();
    let loose = entries.iter().filter(|path| is_picture(path)).cloned();
    if folders.is_empty() {
        return Ok((
            Vec::new(),
            loose.map(|file| (file, 0)).collect(),
            Vec::new(),
        ));
    }
    let mut files = Vec::new();
    for (label, folder) in folders.iter().enumerate() {
        let pictures = sorted(folder)?.into_iter().filter(|path| is_picture(path));
        files.extend(pictures.map(|file| (file, label)));
    }
    let name = |folder: &&PathBuf| {
        folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let outside = |file| Skipped {
        file,
        reason: "it lies beside the class folders, in none of them".into(),
    };
    Ok((
        folders.iter().map(name).collect(),
        files,
        loose.map(outside).collect(),
    ))
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = entries(folder)?;
    let hidden = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
    };
    paths.retain(|path| !hidden(path));
    Ok(paths)
}
