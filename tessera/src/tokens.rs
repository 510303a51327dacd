//! Files of tokens: `tokens-00000.safetensors`, … with `ids` `[pictures, tokens, dimensions]` as u8 or u16 and
//! `labels`, and `manifest.json`, which says what they were made with.

use crate::digest::{sha256, sha256_of_file};
use crate::error::{Error, Result, read_json};
use crate::model::{is_no_patch, no_patch};
use crate::tokenizer::Tokenizer;
use ndarray::{Array3, Axis, concatenate};
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};
use tessera_checkpoint::{write_atomically, write_json};
use tessera_quantize::{QuantizerConfig, narrow_u8, widen_u8};

/// The manifest's file name.
pub const MANIFEST_FILE: &str = "manifest.json";

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
    /// Side of the squares of latents that are one token; 1 where the file says nothing.
    #[serde(default = "no_patch", skip_serializing_if = "is_no_patch")]
    pub patch_size: usize,
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
        let path = folder.join(MANIFEST_FILE);
        if folder.is_dir() && !path.exists() {
            let expected = format!("a folder of tokens, with {MANIFEST_FILE}");
            return Err(fault(folder, "tokens", expected, "a folder without".into()));
        }
        let manifest: Self = read_json(&path, "a manifest of tokens")?;
        differ(&path, "schema", Self::SCHEMA, &manifest.schema)?;
        // They become files, here and in the output folder: never outside of it.
        let names = manifest
            .pictures
            .iter()
            .chain(manifest.shards.iter().map(|shard| &shard.file));
        let mut names = names.into_iter();
        if let Some(name) = names.find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
            return Err(fault(
                &path,
                "a file",
                "a name without a folder",
                format!("{name:?}"),
            ));
        }
        Ok(manifest)
    }

    /// Refuses tokens that another model made.
    ///
    /// # Errors
    /// When VAE, quantizer, grid or dimensions are others.
    pub fn check(&self, folder: &Path, tokenizer: &Tokenizer) -> Result<()> {
        let path = &folder.join(MANIFEST_FILE);
        let of = |sha256: &str, model: &str| format!("{sha256} ({model})");
        let (expected, found) = (
            of(&tokenizer.sha256, &tokenizer.name),
            of(&self.vae_sha256, &self.model),
        );
        if tokenizer.sha256 != self.vae_sha256 {
            return Err(fault(
                path,
                "tokens of another VAE: vae_sha256",
                expected,
                found,
            ));
        }
        let patch_size = tokenizer.vae.patch_size().to_string();
        differ(
            path,
            "patch_size",
            &patch_size,
            &self.patch_size.to_string(),
        )?;
        let debug = |value: &dyn std::fmt::Debug| format!("{value:?}");
        let quantizer = Some(self.quantizer.clone());
        differ(
            path,
            "quantizer",
            &debug(&tokenizer.quantizer),
            &debug(&quantizer),
        )?;
        differ(
            path,
            "grid",
            &debug(&tokenizer.grid()),
            &debug(&Some(self.grid)),
        )?;
        let side = tokenizer.square.map(|square| square.img_size);
        differ(
            path,
            "img_size",
            &debug(&side),
            &debug(&Some(self.img_size)),
        )?;
        let dimensions = tokenizer.vae.latent_channels().to_string();
        differ(
            path,
            "dimensions",
            &dimensions,
            &self.dimensions.to_string(),
        )
    }

    /// The tokens `[pictures, tokens, dimensions]` of one of its files, checked against what the manifest says.
    ///
    /// # Errors
    /// When the file is damaged or not the one that the manifest names.
    pub fn read_shard(&self, folder: &Path, shard: &Shard) -> Result<Array3<u16>> {
        let path = &folder.join(&shard.file);
        differ(path, "SHA-256", &shard.sha256, &sha256_of_file(path)?)?;
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let broken = |source| Error::Safetensors {
            path: path.clone(),
            source,
        };
        let tensors = SafeTensors::deserialize(&bytes).map_err(broken)?;
        let ids = tensors.tensor("ids").map_err(broken)?;
        let shape = [shard.pictures, self.grid[0] * self.grid[1], self.dimensions];
        differ(
            path,
            "ids",
            &format!("{shape:?}"),
            &format!("{:?}", ids.shape()),
        )?;
        let (whole, data) = ("the format holds every value", ids.data());
        match ids.dtype() {
            Dtype::U8 => Ok(widen_u8(
                Array3::from_shape_vec(shape, data.to_vec())
                    .expect(whole)
                    .view(),
            )),
            Dtype::U16 => {
                let pairs = data.as_chunks::<2>().0.iter();
                let values = pairs.map(|&pair| u16::from_le_bytes(pair)).collect();
                Ok(Array3::from_shape_vec(shape, values).expect(whole))
            }
            other => Err(fault(path, "ids", "U8 or U16", format!("{other:?}"))),
        }
    }
}

/// Writes the tokens of pictures into a folder, a file whenever enough are there, and at last the manifest: a folder
/// with a manifest is whole.
#[derive(Debug)]
pub struct TokenWriter {
    folder: PathBuf,
    size: usize,
    ids: Vec<Array3<u16>>,
    labels: Vec<u32>,
    waiting: usize,
    names: Vec<String>,
    shards: Vec<Shard>,
}

impl TokenWriter {
    /// Writes into an existing folder, `shard_size` pictures to a file.
    pub fn new(folder: impl Into<PathBuf>, shard_size: usize) -> Self {
        Self {
            folder: folder.into(),
            size: shard_size,
            ids: vec![],
            labels: vec![],
            waiting: 0,
            names: vec![],
            shards: vec![],
        }
    }

    /// How many pictures there are so far.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is none yet.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Adds the tokens `[pictures, tokens, dimensions]` of named pictures; labels are for all of them or none.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn add(&mut self, ids: Array3<u16>, labels: Vec<u32>, names: Vec<String>) -> Result<()> {
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

    /// Writes what is left and the manifest, whose path it returns.
    ///
    /// # Errors
    /// When a file cannot be written, or the tokenizer's pictures are of no one size, or it has no quantizer.
    pub fn finish(mut self, tokenizer: &Tokenizer, class_names: &[String]) -> Result<PathBuf> {
        self.flush()?;
        let path = self.folder.join(MANIFEST_FILE);
        let (Some(quantizer), Some(square), Some(grid)) =
            (&tokenizer.quantizer, tokenizer.square, tokenizer.grid())
        else {
            return Err(fault(
                &path,
                "tokenizer",
                "one of a model over tokens",
                tokenizer.name.clone(),
            ));
        };
        let manifest = Manifest {
            schema: Manifest::SCHEMA.into(),
            model: tokenizer.name.clone(),
            vae_sha256: tokenizer.sha256.clone(),
            quantizer: quantizer.clone(),
            img_size: square.img_size,
            picture_size: square.picture_size,
            patch_size: tokenizer.vae.patch_size(),
            grid,
            dimensions: tokenizer.vae.latent_channels(),
            class_names: class_names.to_vec(),
            shards: self.shards,
            pictures: self.names,
        };
        write_json(&path, &manifest)?;
        Ok(path)
    }

    fn flush(&mut self) -> Result<()> {
        if self.waiting == 0 {
            return Ok(());
        }
        let file = format!("tokens-{:05}.safetensors", self.shards.len());
        let path = self.folder.join(&file);
        let views: Vec<_> = self.ids.iter().map(|ids| ids.view()).collect();
        let ids = concatenate(Axis(0), &views).expect("tokens of one model are of one shape");
        let bytes = shard(&ids, &self.labels).map_err(|source| Error::Safetensors {
            path: path.clone(),
            source,
        })?;
        write_atomically(&path, |out| out.write_all(&bytes))?;
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
fn shard(ids: &Array3<u16>, labels: &[u32]) -> Result<Vec<u8>, SafeTensorError> {
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
    safetensors::serialize(tensors, None)
}

fn fault(path: &Path, what: &'static str, expected: impl Into<String>, found: String) -> Error {
    Error::Format {
        path: path.into(),
        what,
        expected: expected.into(),
        found,
    }
}

/// Refuses a part of a file that is not as expected.
fn differ(path: &Path, what: &'static str, expected: &str, found: &str) -> Result<()> {
    match expected == found {
        true => Ok(()),
        false => Err(fault(path, what, expected, found.into())),
    }
}
