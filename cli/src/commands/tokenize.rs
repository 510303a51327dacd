//! `tessera tokenize` and `tessera decode`: pictures to files of tokens and back.

use crate::args::Global;
use crate::output;
use crate::pictures::{PictureArgs, Pictures, all_done};
use crate::progress::Progress;
use crate::tokenizer::{ModelArgs, Tokenizer, sha256, sha256_of_file};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use ndarray::{Array3, Axis, concatenate};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};
use tessera_quantize::{Quantizer, QuantizerConfig, narrow_u8, widen_u8};
use tessera_tokenizer::{GridStyle, Pixels, grid};

/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";
/// Why a model's tokenizer has a size.
const ONE_SIZE: &str = "a model's pictures are of one size";
/// Pictures that a grid shows at most.
const GRID_CELLS: usize = 256;

/// Turn pictures into discrete tokens.
///
/// Writes tokens-00000.safetensors, … {ids [pictures, tokens, dimensions] as u8 or u16, labels} and manifest.json, which
/// says what they were made with.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    tessera tokenize -i photos/ -o tokens\n  \
    tessera tokenize --data fashion-mnist/ -m runs/ar/model -o tokens\n  \
    tessera decode -i tokens -o out --grid")]
pub struct Tokenize {
    #[command(flatten)]
    pictures: PictureArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Folder for the tokens.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Pictures per file.
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    shard_size: u64,
    /// Write into a folder that is not empty.
    #[arg(long)]
    overwrite: bool,
}

/// Turn tokens back into pictures.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  tessera decode -i tokens -o out --grid")]
pub struct Decode {
    /// A folder that `tessera tokenize` wrote.
    #[arg(short, long, value_name = "DIR")]
    input: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// Folder for the pictures.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Also write grid.png, of the first 256 pictures at most.
    #[arg(long)]
    grid: bool,
    /// Write into a folder that is not empty.
    #[arg(long)]
    overwrite: bool,
}

/// `manifest.json`: what the tokens of a folder are of, and which model reads them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// `tessera.tokens/v1`
    pub schema: String,
    /// The model's name.
    pub model: String,
    /// SHA-256 of the VAE's weights file.
    pub vae_sha256: String,
    /// How latents became tokens: bits, range, means, scales.
    pub quantizer: QuantizerConfig,
    /// Side in px of what the VAE read.
    pub img_size: usize,
    /// Side in px of a finished picture.
    pub picture_size: usize,
    /// Rows and columns of tokens.
    pub grid: [usize; 2],
    /// Dimensions of a token.
    pub dimensions: usize,
    /// The names of the classes that labels count; empty without labels.
    pub class_names: Vec<String>,
    /// The files, in order.
    pub shards: Vec<Shard>,
    /// The pictures' names, in order.
    pub pictures: Vec<String>,
}

/// One file of tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Its name in the folder.
    pub file: String,
    /// How many pictures it holds.
    pub pictures: usize,
    /// SHA-256 of the file.
    pub sha256: String,
}

impl Manifest {
    /// The version of the file this program writes and reads.
    pub const SCHEMA: &str = "tessera.tokens/v1";

    /// Reads the manifest of a folder.
    ///
    /// # Errors
    /// When it is missing, broken or of another version.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        let text =
            std::fs::read(&path).with_context(|| format!("{}: cannot read", path.display()))?;
        let manifest: Self = serde_json::from_slice(&text)
            .with_context(|| format!("{}: not a manifest of tokens", path.display()))?;
        let (expected, found) = (Self::SCHEMA, &manifest.schema);
        ensure!(
            found == expected,
            "{}: schema: expected {expected}, found {found}",
            path.display()
        );
        // They become files, here and in the output folder: never outside of it.
        let names = manifest
            .pictures
            .iter()
            .chain(manifest.shards.iter().map(|shard| &shard.file));
        if let Some(name) = names
            .into_iter()
            .find(|name| Path::new(name).file_name() != Some(name.as_ref()))
        {
            bail!(
                "{}: expected names of files, found {name:?}",
                path.display()
            );
        }
        Ok(manifest)
    }

    /// Refuses tokens that another model made.
    fn check(&self, folder: &Path, tokenizer: &Tokenizer) -> Result<()> {
        let path = folder.join(MANIFEST);
        let (expected, found) = (&tokenizer.sha256, &self.vae_sha256);
        ensure!(
            expected == found,
            "{}: tokens of another VAE: expected vae_sha256 {expected} ({}), found {found} ({})",
            path.display(),
            tokenizer.name,
            self.model
        );
        let expected = tokenizer.quantizer.as_ref();
        ensure!(
            expected == Some(&self.quantizer),
            "{}: quantizer: expected {expected:?}, found {:?}",
            path.display(),
            self.quantizer
        );
        let (expected, found) = (tokenizer.grid(), Some(self.grid));
        ensure!(
            expected == found,
            "{}: grid: expected {expected:?}, found {found:?}",
            path.display()
        );
        Ok(())
    }
}

impl Tokenize {
    /// Tokenizes every picture.
    ///
    /// # Errors
    /// A model or picture that cannot be read, an output folder that is in use.
    pub fn run(self, global: &Global) -> Result<()> {
        let tokenizer = Tokenizer::of_model(self.model.model.as_deref(), &global.device.open()?)?;
        let config = tokenizer
            .quantizer
            .clone()
            .context("the model has no quantiser")?;
        let quantizer = Quantizer::new(config.clone())?;
        let pictures = Pictures::open(&self.pictures, &tokenizer, global.quiet)?;
        output::folder(&self.output, self.overwrite)?;
        let mut writer = Writer::new(&self.output, self.shard_size as usize);
        let mut progress =
            Progress::new("tokenize", "pictures", pictures.len() as u64, global.quiet);
        let failed = pictures.batches(&tokenizer, |batch| {
            let labels = batch.iter().filter_map(|picture| picture.label).collect();
            let (images, names): (Vec<_>, Vec<_>) = batch
                .into_iter()
                .map(|picture| (picture.image, picture.name))
                .unzip();
            writer.add(
                quantizer.quantize(tokenizer.encode(&images)?.view())?,
                labels,
                names,
            )?;
            progress.set(writer.names.len() as u64, "");
            Ok(())
        })?;
        progress.finish();
        writer.flush()?;
        let manifest = Manifest {
            schema: Manifest::SCHEMA.into(),
            model: tokenizer.name.clone(),
            vae_sha256: tokenizer.sha256.clone(),
            quantizer: config,
            img_size: tokenizer.square.expect(ONE_SIZE).img_size,
            picture_size: tokenizer.square.expect(ONE_SIZE).picture_size,
            grid: tokenizer.grid().expect(ONE_SIZE),
            dimensions: tokenizer.vae.latent_channels(),
            class_names: pictures.class_names().to_vec(),
            shards: writer.shards,
            pictures: writer.names,
        };
        // Last, so that a folder with a manifest is whole.
        let path = self.output.join(MANIFEST);
        let text = serde_json::to_vec_pretty(&manifest)?;
        tessera_train::write_atomically(&path, |file| file.write_all(&text))?;
        output::text(path.display())?;
        all_done(failed, pictures.len())
    }
}

/// Collects tokens and writes them, a file when enough are there.
struct Writer<'a> {
    folder: &'a Path,
    size: usize,
    ids: Vec<Array3<u16>>,
    labels: Vec<u32>,
    waiting: usize,
    names: Vec<String>,
    shards: Vec<Shard>,
}

impl<'a> Writer<'a> {
    fn new(folder: &'a Path, size: usize) -> Self {
        Self {
            folder,
            size,
            ids: vec![],
            labels: vec![],
            waiting: 0,
            names: vec![],
            shards: vec![],
        }
    }

    /// Adds the tokens `[pictures, tokens, dimensions]` of named pictures; labels are for all of them or none.
    fn add(&mut self, ids: Array3<u16>, labels: Vec<u32>, names: Vec<String>) -> Result<()> {
        let mut labels = labels.into_iter();
        for (one, name) in ids.axis_iter(Axis(0)).zip(names) {
            self.ids.push(one.insert_axis(Axis(0)).to_owned());
            self.labels.extend(labels.next());
            self.names.push(name);
            self.waiting += 1;
            if self.waiting == self.size {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.waiting == 0 {
            return Ok(());
        }
        let views: Vec<_> = self.ids.iter().map(|ids| ids.view()).collect();
        let bytes = shard(&concatenate(Axis(0), &views)?, &self.labels)?;
        let file = format!("tokens-{:05}.safetensors", self.shards.len());
        tessera_train::write_atomically(&self.folder.join(&file), |out| out.write_all(&bytes))?;
        self.shards.push(Shard {
            file,
            pictures: self.waiting,
            sha256: sha256(&bytes),
        });
        self.ids.clear();
        self.labels.clear();
        self.waiting = 0;
        Ok(())
    }
}

/// The bytes of a file of tokens.
fn shard(ids: &Array3<u16>, labels: &[u32]) -> Result<Vec<u8>> {
    let (dtype, bytes) = match narrow_u8(ids.view()) {
        Some(narrow) => (Dtype::U8, narrow.iter().copied().collect()),
        None => (
            Dtype::U16,
            ids.iter()
                .flat_map(|id| id.to_le_bytes())
                .collect::<Vec<u8>>(),
        ),
    };
    let label_bytes: Vec<u8> = labels
        .iter()
        .flat_map(|label| label.to_le_bytes())
        .collect();
    let mut tensors = vec![("ids", TensorView::new(dtype, ids.shape().to_vec(), &bytes)?)];
    if !labels.is_empty() {
        tensors.push((
            "labels",
            TensorView::new(Dtype::U32, vec![labels.len()], &label_bytes)?,
        ));
    }
    Ok(safetensors::serialize(tensors, None)?)
}

/// The tokens of a file, held against what the manifest says.
fn read_shard(folder: &Path, manifest: &Manifest, shard: &Shard) -> Result<Array3<u16>> {
    let path = folder.join(&shard.file);
    let found = sha256_of_file(&path)?;
    ensure!(
        found == shard.sha256,
        "{}: expected SHA-256 {}, found {found}",
        path.display(),
        shard.sha256
    );
    let bytes = std::fs::read(&path).with_context(|| format!("{}: cannot read", path.display()))?;
    let tensors = SafeTensors::deserialize(&bytes)
        .with_context(|| format!("{}: broken safetensors", path.display()))?;
    let ids = tensors
        .tensor("ids")
        .with_context(|| format!("{}: no tensor `ids`", path.display()))?;
    let expected = [
        shard.pictures,
        manifest.grid[0] * manifest.grid[1],
        manifest.dimensions,
    ];
    ensure!(
        ids.shape() == expected,
        "{}: ids: expected {expected:?}, found {:?}",
        path.display(),
        ids.shape()
    );
    Ok(match ids.dtype() {
        Dtype::U8 => widen_u8(Array3::from_shape_vec(expected, ids.data().to_vec())?.view()),
        Dtype::U16 => {
            let values = ids
                .data()
                .as_chunks::<2>()
                .0
                .iter()
                .map(|&pair| u16::from_le_bytes(pair));
            Array3::from_shape_vec(expected, values.collect())?
        }
        other => bail!(
            "{}: ids: expected U8 or U16, found {other:?}",
            path.display()
        ),
    })
}

impl Decode {
    /// Decodes every picture of the folder.
    ///
    /// # Errors
    /// Tokens of another model, a file that is not what the manifest says, an output folder that is in use.
    pub fn run(self, global: &Global) -> Result<()> {
        let manifest = Manifest::read(&self.input)?;
        let tokenizer = Tokenizer::of_model(self.model.model.as_deref(), &global.device.open()?)?;
        manifest.check(&self.input, &tokenizer)?;
        let quantizer = Quantizer::new(manifest.quantizer.clone())?;
        output::folder(&self.output, self.overwrite)?;
        let total = manifest.pictures.len();
        let mut progress = Progress::new("decode", "pictures", total as u64, global.quiet);
        let size = [manifest.img_size; 2];
        let mut names = manifest.pictures.iter();
        let (mut done, mut cells): (usize, Vec<Pixels>) = (0, Vec::new());
        for shard in &manifest.shards {
            let ids = read_shard(&self.input, &manifest, shard)?;
            for part in ids.axis_chunks_iter(Axis(0), tokenizer.batch()) {
                let latents = quantizer.dequantize(part, manifest.grid[0], manifest.grid[1])?;
                for (picture, name) in tokenizer.decode(latents, size)?.into_iter().zip(&mut names)
                {
                    output::picture(&self.output.join(format!("{name}.png")), &picture, &[])?;
                    if self.grid && cells.len() < GRID_CELLS {
                        cells.push(picture);
                    }
                    done += 1;
                }
                progress.set(done as u64, "");
                if crate::interrupt::requested() {
                    bail!("stopped after {done} of {total} pictures");
                }
            }
        }
        progress.finish();
        ensure!(
            done == total,
            "{}: names {total} pictures, its files hold {done}",
            self.input.join(MANIFEST).display()
        );
        if self.grid && !cells.is_empty() {
            let columns = (cells.len() as f64).sqrt().ceil() as usize;
            output::picture(
                &self.output.join("grid.png"),
                &grid(&cells, columns, GridStyle::default())?,
                &[],
            )?;
        }
        output::text(self.output.display())
    }
}
