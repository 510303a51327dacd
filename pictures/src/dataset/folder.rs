//! A folder of pictures; its sub-folders are the classes.

use super::Dataset;
use crate::error::{BoxError, Error, Result, of_file};
use crate::probe::reading_bytes;
use crate::walk::{ENDINGS, LeftOut, class_of, text_of, walk};
use ndarray::Array3;
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// Reads one picture as `[channels, height, width]` in `[-1, 1]`, cropped and scaled to the size of training.
pub type Decoder = Box<dyn Fn(&Path) -> Result<Array3<f32>, BoxError> + Send + Sync>;

/// Memory that pictures take while they are read, all threads together; a larger one is read alone.
const READING_BYTES: u64 = 1 << 30;
/// Pictures that are read at a time.
const BLOCK: usize = 256;

/// What becomes of a picture that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPictures {
    /// It is left out and reported.
    Skip,
    /// It is an error.
    Fail,
}

/// A picture, or a folder, that is left out.
#[derive(Debug)]
pub struct Skipped {
    /// Which.
    pub file: PathBuf,
    /// Why.
    pub reason: BoxError,
}

/// The file and the reason, each once.
impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&of_file(&self.file, &*self.reason))
    }
}

/// What is taken of a folder.
#[derive(Debug, Clone)]
pub struct FolderOptions {
    /// What becomes of a picture that cannot be used, and of a sub-folder without pictures.
    pub bad_pictures: BadPictures,
    /// As many bytes of pixels are kept; other pictures are decoded again when they are used.
    pub memory_bytes: usize,
    /// The folder whose sub-folders are the classes: the training half, for a test half that may lack some of them.
    pub classes_of: Option<PathBuf>,
}

/// `root/class/…/*.{png,jpg,…}`, or `root/*.…` as one class; in the order of the names.
pub struct ImageFolder {
    name: String,
    class_names: Vec<String>,
    pictures: Vec<Picture>,
    skipped: Vec<Skipped>,
    empty: Vec<Skipped>,
    left_out: LeftOut,
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
    /// begins and the indices never change after it.
    ///
    /// A class is a sub-folder of `root` that holds at least one picture, at any depth; without such sub-folders all
    /// pictures of `root` are one class. Sub-folders without pictures are no classes (see [`empty`](Self::empty)).
    /// A picture that cannot be decoded, has another size than the first, or lies beside the classes is skipped (see
    /// [`skipped`](Self::skipped)). Links are followed, each real file is taken once, and hidden names do not count.
    ///
    /// # Errors
    /// When the folder cannot be listed or no picture is left, of all or of one class; when a picture or a sub-folder
    /// is bad and that is an error; when a class is not among those of `classes_of`.
    pub fn open(root: impl AsRef<Path>, decoder: Decoder, options: &FolderOptions) -> Result<Self> {
        let root = root.as_ref();
        let mut listed = Listed::of(root)?;
        if let Some(training) = &options.classes_of {
            listed.take_classes_of(training)?;
        }
        let Listed {
            classes,
            flat,
            files,
            loose,
            empty,
            left_out,
        } = listed;
        let outside = |file| Skipped {
            file,
            reason: "it lies beside the class folders, in none of them".into(),
        };
        let mut skipped: Vec<_> = loose.into_iter().map(outside).collect();
        if let (BadPictures::Fail, Some(first)) = (options.bad_pictures, empty.first()) {
            return Err(Error::BadPicture {
                file: first.file.clone(),
                reason: first.reason.to_string().into(),
            });
        }
        let mut pictures: Vec<Picture> = Vec::with_capacity(files.len());
        let mut kept_bytes = 0;
        let mut shape = None;
        // Block by block, so that no more than a block is in memory beyond what is kept.
        for block in files.chunks(BLOCK) {
            for (&(ref file, label), decoded) in block.iter().zip(decode(block, &decoder, shape)) {
                match decoded.and_then(|pixels| same_shape(pixels, &mut shape)) {
                    Ok(pixels) => {
                        kept_bytes += pixels.len() * size_of::<f32>();
                        let pixels = (kept_bytes <= options.memory_bytes).then_some(pixels);
                        pictures.push(Picture {
                            file: file.clone(),
                            label,
                            pixels,
                        });
                    }
                    Err(reason) => skipped.push(Skipped {
                        file: file.clone(),
                        reason,
                    }),
                }
            }
        }
        skipped.sort_by(|a, b| a.file.cmp(&b.file));
        if options.bad_pictures == BadPictures::Fail && !skipped.is_empty() {
            let Skipped { file, reason } = skipped.swap_remove(0);
            return Err(Error::BadPicture { file, reason });
        }
        let opened = Self {
            name: text_of(
                root.canonicalize()
                    .unwrap_or_else(|_| root.into())
                    .file_name()
                    .unwrap_or_default(),
            ),
            class_names: classes.iter().map(|class| text_of(class)).collect(),
            pictures,
            skipped,
            empty,
            left_out,
            decoder,
        };
        let folder = |label: usize| match flat {
            true => root.into(),
            false => root.join(&classes[label]),
        };
        opened.expect_pictures(root, &files, folder)?;
        Ok(opened)
    }

    /// Fails unless every class that has files has a picture that can be read.
    fn expect_pictures(
        &self,
        root: &Path,
        files: &[(PathBuf, usize)],
        folder: impl Fn(usize) -> PathBuf,
    ) -> Result<()> {
        let mut missing: BTreeSet<usize> = files.iter().map(|(_, label)| *label).collect();
        self.pictures.iter().for_each(|picture| {
            missing.remove(&picture.label);
        });
        if files.is_empty() {
            let found = match self.left_out.is_empty() {
                true => String::new(),
                false => format!("; it holds {}", self.left_out),
            };
            return Err(Error::NoData {
                folder: root.into(),
                expected: format!("pictures ({})", ENDINGS.join(", ")),
                found,
            });
        }
        let Some(label) = missing.pop_first() else {
            return Ok(());
        };
        let of_class = files.iter().filter(|(_, of)| *of == label);
        let first = files
            .iter()
            .find(|(_, of)| *of == label)
            .map(|(file, _)| file);
        let reason = self
            .skipped
            .iter()
            .find(|skipped| Some(&skipped.file) == first);
        Err(Error::BadClass {
            folder: folder(label),
            count: of_class.count(),
            reason: reason.map_or_else(String::new, Skipped::to_string),
        })
    }

    /// The pictures that were left out, each to be warned of, in the order of their names.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// The sub-folders that are no classes because they hold no picture, in the order of their names.
    pub fn empty(&self) -> &[Skipped] {
        &self.empty
    }

    /// What lies in the folder besides pictures.
    pub fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// The three before, handed over.
    pub(crate) fn take_left_out(&mut self) -> (Vec<Skipped>, Vec<Skipped>, LeftOut) {
        (
            std::mem::take(&mut self.skipped),
            std::mem::take(&mut self.empty),
            std::mem::take(&mut self.left_out),
        )
    }

    /// The file of picture `index`.
    pub fn file(&self, index: usize) -> &Path {
        &self.pictures[index].file
    }
}

/// Decodes the pictures of a block, as many at a time as [`READING_BYTES`] allows.
fn decode(
    block: &[(PathBuf, usize)],
    decoder: &Decoder,
    shape: Option<[usize; 3]>,
) -> Vec<Result<Array3<f32>, BoxError>> {
    let decoded_bytes = shape.map_or(0, |shape| {
        shape.iter().product::<usize>() * size_of::<f32>()
    });
    let needed =
        |(file, _): &(PathBuf, usize)| reading_bytes(file).saturating_add(decoded_bytes as u64);
    let needed: Vec<u64> = block.par_iter().map(needed).collect();
    let mut decoded = Vec::with_capacity(block.len());
    while decoded.len() < block.len() {
        let start = decoded.len();
        let end = start + fitting(&needed[start..]);
        decoded.par_extend(block[start..end].par_iter().map(|(file, _)| decoder(file)));
    }
    decoded
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
            None => (self.decoder)(&picture.file).map_err(|reason| Error::BadPicture {
                file: picture.file.clone(),
                reason,
            }),
        }
    }
}

impl fmt::Debug for ImageFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageFolder")
            .field("name", &self.name)
            .field("classes", &self.class_names.len())
            .field("pictures", &self.pictures.len())
            .field("skipped", &self.skipped)
            .field("empty", &self.empty)
            .finish_non_exhaustive()
    }
}

/// How many of the next pictures are read at a time, at least one.
fn fitting(needed: &[u64]) -> usize {
    let mut total = 0_u64;
    let fits = needed.iter().take_while(|bytes| {
        total = total.saturating_add(**bytes);
        total <= READING_BYTES
    });
    fits.count().max(1)
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

/// What a folder holds, by class.
struct Listed {
    /// The names of the sub-folders that are classes; that of the folder itself if there are none.
    classes: Vec<OsString>,
    /// Whether there are no such sub-folders.
    flat: bool,
    /// Pictures with their labels.
    files: Vec<(PathBuf, usize)>,
    /// Pictures beside the classes.
    loose: Vec<PathBuf>,
    /// Sub-folders without pictures.
    empty: Vec<Skipped>,
    left_out: LeftOut,
}

impl Listed {
    fn of(root: &Path) -> Result<Self> {
        let walked = walk(root)?;
        let classes: BTreeSet<_> = walked
            .pictures
            .iter()
            .filter_map(|path| class_of(root, path))
            .collect();
        if classes.is_empty() {
            let name = root.canonicalize().unwrap_or_else(|_| root.into());
            return Ok(Self {
                classes: vec![name.file_name().unwrap_or_default().into()],
                flat: true,
                files: walked.pictures.into_iter().map(|file| (file, 0)).collect(),
                loose: Vec::new(),
                empty: Vec::new(),
                left_out: walked.left_out,
            });
        }
        let empty = walked.folders.into_iter().filter(|folder| {
            let name = folder.file_name().unwrap_or_default();
            !classes.contains(name)
        });
        let empty = empty.map(|file| {
            let within = walked.left_out.within(&file);
            let found = match within.is_empty() {
                true => "it is empty".into(),
                false => format!("it holds {within} and no picture"),
            };
            Skipped {
                file,
                reason: format!("{found}, so it is no class").into(),
            }
        });
        let empty = empty.collect();
        let classes: Vec<_> = classes.into_iter().collect();
        let (mut files, mut loose) = (Vec::with_capacity(walked.pictures.len()), Vec::new());
        for file in walked.pictures {
            let class = class_of(root, &file).and_then(|class| classes.binary_search(&class).ok());
            match class {
                Some(label) => files.push((file, label)),
                None => loose.push(file),
            }
        }
        Ok(Self {
            classes,
            flat: false,
            files,
            loose,
            empty,
            left_out: walked.left_out,
        })
    }

    /// Renumbers the classes as those of another folder.
    fn take_classes_of(&mut self, training: &Path) -> Result<()> {
        let Self { classes, flat, .. } = Self::of(training)?;
        if self.flat && flat {
            self.classes = classes;
            return Ok(());
        }
        let labels = self.classes.iter().map(|class| {
            classes
                .binary_search(class)
                .map_err(|_| Error::UnknownClass {
                    folder: class.into(),
                    training: training.into(),
                    classes: classes.iter().map(|class| text_of(class)).collect(),
                })
        });
        let labels: Vec<usize> = labels.collect::<Result<_>>()?;
        self.files
            .iter_mut()
            .for_each(|(_, label)| *label = labels[*label]);
        self.classes = classes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pictures_are_read_few_at_a_time() {
        let small = 1 << 20;
        assert_eq!(fitting(&[small; 9]), 9);
        assert_eq!(fitting(&[READING_BYTES / 2, small, READING_BYTES / 2]), 2);
        assert_eq!(fitting(&[u64::MAX, small]), 1);
        assert_eq!(fitting(&[small, u64::MAX, small]), 1);
    }
}
