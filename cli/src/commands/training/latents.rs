//! Latents that are kept, so that a run that goes on need not encode its pictures again.

use super::run::Pictures;
use crate::{output, ranks};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::path::Path;
use tessera::LatentFile;
use tessera::pictures::dataset::Dataset;
use tessera::train::{LatentCache, LatentPrecision};

/// Where latents are kept, and of what.
pub struct Kept<'a> {
    /// The file.
    pub file: &'a Path,
    /// Whether the user named it: then it must fit. Otherwise it is written anew if it does not.
    pub named: bool,
    /// What it must be of: the tokenizer's configuration, its weights, the side of the pictures, the pictures.
    pub provenance: Value,
    /// Whether those of the mirrored pictures are needed, too.
    pub mirrored: bool,
    /// Whether nothing is said.
    pub quiet: bool,
}

/// What latents are of.
pub fn provenance(vae: Value, weights: &str, img_size: usize, pictures: &Pictures) -> Value {
    json!({ "vae": vae, "weights": weights, "img_size": img_size, "data": pictures })
}

impl Kept<'_> {
    /// The posteriors in the file; or those that `encode` makes, which the first rank writes.
    ///
    /// # Errors
    /// When a file that the user named is of something else or cannot be written, or what `encode` gives.
    pub fn posteriors(
        &self,
        data: &dyn Dataset,
        encode: impl FnOnce() -> Result<LatentCache>,
    ) -> Result<LatentCache> {
        let found = match (self.file.exists(), self.named) {
            (false, _) => None,
            (true, true) => Some(self.checked(LatentCache::read(self.file)?, data)?),
            (true, false) => LatentCache::read(self.file)
                .ok()
                .filter(|cache| cache.provenance == self.provenance && fits(cache, data))
                .filter(|cache| cache.moments_flip.is_some() || !self.mirrored),
        };
        self.found_or(found, encode, |cache| {
            cache.provenance = self.provenance.clone();
            Ok(cache.write(self.file, LatentPrecision::F32)?)
        })
    }

    /// The latents in the file; or those that `encode` makes, which the first rank writes.
    ///
    /// # Errors
    /// What `encode` gives.
    pub fn means(&self, encode: impl FnOnce() -> Result<LatentFile>) -> Result<LatentFile> {
        let found = LatentFile::read(self.file, &self.provenance);
        self.found_or(found.ok().flatten(), encode, |latents| {
            latents.provenance = self.provenance.clone();
            Ok(latents.write(self.file)?)
        })
    }

    fn found_or<T>(
        &self,
        found: Option<T>,
        encode: impl FnOnce() -> Result<T>,
        write: impl FnOnce(&mut T) -> Result<()>,
    ) -> Result<T> {
        // All ranks have looked before the first one writes.
        ranks::of_first(u64::from(found.is_some()))?;
        if let Some(found) = found {
            self.note(format_args!("latents from {}", self.file.display()));
            return Ok(found);
        }
        let mut encoded = encode()?;
        if !ranks::first() {
            return Ok(encoded);
        }
        match write(&mut encoded) {
            Ok(()) => {
                let bytes = std::fs::metadata(self.file).map_or(0, |file| file.len());
                let size = bytes as f64 / 1e6;
                let file = self.file.display();
                self.note(format_args!("latents kept in {file}, {size:.1} MB"));
            }
            Err(error) if self.named => return Err(error),
            Err(error) => output::note(format_args!("warning: latents are not kept: {error:#}")),
        }
        Ok(encoded)
    }

    fn note(&self, line: std::fmt::Arguments<'_>) {
        if !self.quiet {
            output::note(line);
        }
    }

    /// Refuses a file of anything else, naming what. An older version wrote less into it than is compared.
    fn checked(&self, cache: LatentCache, data: &dyn Dataset) -> Result<LatentCache> {
        let file = self.file.display();
        let field = |key: &str| (cache.provenance.get(key), self.provenance.get(key));
        let mut unknown = false;
        for (key, of) in [
            ("vae", "another VAE or patch size"),
            ("weights", "a VAE with other weights"),
            ("img_size", "pictures of another size"),
            ("data", "other pictures"),
        ] {
            match field(key) {
                (None, _) => unknown = true,
                (said, given) if said == given => {}
                _ => bail!("{file}: latents of {of} than those given; give another --cached file"),
            }
        }
        if !fits(&cache, data) {
            bail!(
                "{file}: latents of {} pictures in {} classes, --data has {} in {}, or other labels; give another \
                 --cached file",
                cache.len(),
                cache.class_names.len(),
                data.len(),
                data.class_names().len()
            );
        }
        if self.mirrored && cache.moments_flip.is_none() {
            bail!(
                "{file}: latents without those of the mirrored pictures, which --flip needs; give another --cached file"
            );
        }
        if unknown {
            self.note(format_args!(
                "note: {file}, of an older version, does not say which weights and pictures its latents are of"
            ));
        }
        Ok(cache)
    }
}

/// Whether a cache has the classes and the labels of a data set.
fn fits(cache: &LatentCache, data: &dyn Dataset) -> bool {
    cache.class_names == data.class_names()
        && cache.len() == data.len()
        && (0..data.len()).all(|index| cache.labels[index] as usize == data.label(index))
}

/// SHA-256 of a tokenizer's files, which must be the same at all ranks.
///
/// # Errors
/// When one cannot be read, or a rank has others.
pub fn weights_of(files: &[std::path::PathBuf]) -> Result<String> {
    let sha256 = tessera::sha256_of_files(files).context("the tokenizer's weights")?;
    ranks::require_same("the ranks' tokenizers differ", &sha256)?;
    Ok(sha256)
}
