//! A user's data as a data set of one size: photographs are centre-cropped, IDX pictures padded with black.

use crate::args::DataArgs;
use crate::memory;
use anyhow::{Context, Result};
use ndarray::{Array3, Array4, s};
use std::path::{Path, PathBuf};
use tessera_tokenizer::{
    Channels, ImageTokenizer, center_crop, decode_within, encode_within, read,
};
use tessera_train::data::{Dataset, ImageFolder, Split, load_mnist_folder};

/// Pixels kept in memory; beyond, pictures are decoded again.
const MEMORY_BYTES: usize = 2 << 30;

/// Opens `args.data`: IDX files if the folder holds them, else pictures.
///
/// # Errors
/// When there is no data, or none of it can be read.
pub fn open(args: &DataArgs, split: Split, quiet: bool) -> Result<Box<dyn Dataset>> {
    match load_mnist_folder(&args.data, split) {
        Ok(idx) => return Ok(Box::new(Padded::new(idx, args.img_size, args.channels)?)),
        // No IDX files: a folder of pictures, then. Damaged ones are the user's to know of.
        Err(tessera_train::Error::NoData { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let root = half_of(&args.data, split);
    let (size, channels) = (args.img_size, args.channels);
    let decode = move |path: &Path| {
        let channels = if channels == 1 {
            Channels::Grey
        } else {
            Channels::Rgb
        };
        Ok(center_crop(&read(path, Some(channels))?, size)?.to_array())
    };
    let folder = ImageFolder::open(&root, Box::new(decode), args.strict, MEMORY_BYTES)
        .with_context(|| format!("cannot use the data in {}", root.display()))?;
    for skipped in folder.skipped().iter().filter(|_| !quiet) {
        eprintln!(
            "warning: skipped {}: {}",
            skipped.file.display(),
            skipped.reason
        );
    }
    if !folder.skipped().is_empty() {
        eprintln!(
            "warning: {} of {} pictures skipped",
            folder.skipped().len(),
            folder.len() + folder.skipped().len()
        );
    }
    Ok(Box::new(folder))
}

/// `folder/train` or `folder/test` where there are both, else the folder itself for either half.
fn half_of(folder: &Path, split: Split) -> PathBuf {
    let halves = ["train", "test"].map(|half| folder.join(half));
    match (halves.iter().all(|half| half.is_dir()), split) {
        (false, _) => folder.into(),
        (true, Split::Train) => halves[0].clone(),
        (true, Split::Test) => halves[1].clone(),
    }
}

/// Pictures centred on a black square.
pub struct Padded<D> {
    inner: D,
    size: usize,
    channels: usize,
}

impl<D: Dataset> Padded<D> {
    /// The pictures of `inner` as squares of `size` px.
    ///
    /// # Errors
    /// When they are larger.
    pub fn new(inner: D, size: usize, channels: usize) -> Result<Self> {
        let (_, height, width) = inner.image(0)?.dim();
        anyhow::ensure!(
            height <= size && width <= size,
            "--img-size {size}: the pictures of {} are {width}x{height} px and are padded, never shrunk",
            inner.name()
        );
        Ok(Self {
            inner,
            size,
            channels,
        })
    }
}

impl<D: Dataset> Dataset for Padded<D> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn len(&self) -> usize {
        self.inner.len()
    }

    fn label(&self, index: usize) -> usize {
        self.inner.label(index)
    }

    fn class_names(&self) -> &[String] {
        self.inner.class_names()
    }

    fn image(&self, index: usize) -> tessera_train::Result<Array3<f32>> {
        let image = self.inner.image(index)?;
        let (_, height, width) = image.dim();
        let mut square = Array3::from_elem((self.channels, self.size, self.size), -1.0);
        let (top, left) = ((self.size - height) / 2, (self.size - width) / 2);
        square
            .slice_mut(s![.., top..top + height, left..left + width])
            .assign(&image);
        Ok(square)
    }
}

/// The latents of images, in as many goes as the device's memory asks for.
///
/// # Errors
/// When there is not even room for a tile.
pub fn encoded(vae: &dyn ImageTokenizer, images: Array4<f32>) -> Result<Array4<f32>> {
    Ok(encode_within(
        vae,
        images,
        memory::largest_tensor(&vae.device()),
    )?)
}

/// The images of latents, in as many goes as the device's memory asks for.
///
/// # Errors
/// As [`encoded`].
pub fn decoded(vae: &dyn ImageTokenizer, latents: Array4<f32>) -> Result<Array4<f32>> {
    Ok(decode_within(
        vae,
        latents,
        memory::largest_tensor(&vae.device()),
    )?)
}

/// At most `wanted` of `available`, evenly spaced, so that data in the order of their classes give all classes.
pub fn spaced(available: usize, wanted: usize) -> Vec<usize> {
    let count = wanted.min(available);
    (0..count).map(|i| i * available / count).collect()
}

/// Whole batches of `available` examples, evenly spaced, that the thresholds of experts are measured on; one of all there are,
/// if they do not fill a batch.
pub fn calibration_batches(available: usize, batch_size: usize) -> Vec<Vec<usize>> {
    const BATCHES: usize = 16;
    let examples = spaced(available, BATCHES * batch_size);
    let batches = examples.chunks_exact(batch_size.min(examples.len()));
    batches.map(<[usize]>::to_vec).collect()
}
