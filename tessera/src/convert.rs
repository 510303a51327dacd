//! Weights of any format to safetensors with a config beside them.

use crate::device::Device;
use crate::digest::base_name;
use crate::error::{Error, Result, read_json};
use crate::inspect::counted;
use crate::model::parts::{self, CALIBRATION, VAE};
use crate::model::source::without_targets;
use crate::model::{
    ArCard, CARD_FILE, DitCard, ModelCard, Source, dit_config, generator_config, model_folder, run,
};
use crate::vae::open_vae;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use tessera_checkpoint::{
    Architecture, Checkpoint, Dtype, Existing, StateDict, final_path, weights_in,
    write_folder_atomically,
};
use tessera_evaluate::Classifier;
use tessera_gen_ar::{BUFFERS, CONFIG_FILE};
use tessera_gen_dit::DitConfig;
use tessera_quantize::Calibration;
use tessera_tokenizer::{Opened, load_tokenizer, open_tokenizer, require_both_halves};
use tessera_weights::{Loaded, WeightDtype, Weights, Which};

/// Hears of every tensor that is written.
type OnTensor<'a> = &'a mut dyn FnMut(Loaded);

/// How weights are converted.
#[derive(Debug, Clone, Default)]
pub struct Converter {
    /// The tokenizer of a generator, which makes a whole model folder of it.
    pub vae: Option<PathBuf>,
    /// Which weights of a training checkpoint; averaged ones where there are any unless given.
    pub which: Option<Which>,
    /// How the weights are stored; as they are unless given.
    pub dtype: Option<WeightDtype>,
    /// The largest size of a file, in bytes, beyond which there are several with an index.
    pub shard_bytes: Option<u64>,
    /// The sizes of a generator whose shapes do not tell its number of heads.
    pub config: Option<PathBuf>,
    /// What becomes of a model that the folder holds.
    pub existing: Existing,
}

/// What was written.
#[derive(Debug, Serialize)]
pub struct Conversion {
    /// Where the weights came from.
    #[serde(flatten)]
    pub origin: Origin,
    /// How many there are.
    pub tensors: usize,
    /// Their size in bytes.
    pub total_size: u64,
    /// The names of the files in the folder.
    pub files: Vec<String>,
}

/// Where weights came from.
#[derive(Debug, Serialize)]
pub struct Origin {
    /// What they are of, if that is known.
    pub architecture: Option<Architecture>,
    /// How they were stored.
    pub format: String,
    /// `raw` or `ema`, of a training checkpoint.
    pub weights: Option<&'static str>,
    /// What else a training checkpoint holds, with how many tensors each part has.
    pub left_out: BTreeMap<String, usize>,
}

impl Conversion {
    /// What was written into a folder, in lines for people.
    pub fn describe(&self, folder: &Path) -> String {
        let weights = self
            .origin
            .weights
            .map_or(String::new(), |which| format!(", {which} weights"));
        let mut text = format!(
            "{} from {}{weights}: {} tensors, {:.1} MB in {}",
            self.origin
                .architecture
                .map_or("unknown model", Architecture::name),
            self.origin.format,
            self.tensors,
            self.total_size as f64 / 1e6,
            match &self.files[..] {
                [file] => folder.join(file).display().to_string(),
                files => format!("{} files in {}", files.len(), folder.display()),
            }
        );
        if !self.origin.left_out.is_empty() {
            text += &format!("\nleft out: {}", counted(&self.origin.left_out));
        }
        text
    }

    /// Whether the weights are of a model that is known here and has its config beside it; others keep their names and
    /// get none.
    pub fn has_config(&self) -> bool {
        let known = |architecture: Architecture| {
            architecture.is_tokenizer()
                || matches!(architecture, Architecture::TokenBridge | Architecture::Dit)
        };
        self.origin.architecture.is_some_and(known)
    }
}

impl Converter {
    /// Reads `input`, a file, a folder or the common name of a tokenizer in two files, and writes the folder `output`:
    /// all of it or nothing, in the place of a model that is there if it may be replaced.
    ///
    /// # Errors
    /// A file that cannot be read or written, weights that do not fit what they are of.
    pub fn convert(
        &self,
        input: &Path,
        output: &Path,
        device: &Device,
        progress: &mut dyn FnMut(Loaded),
    ) -> Result<Conversion> {
        write_folder_atomically(output, self.existing, of_model, |aside| {
            self.fill(input, aside, device, progress)
        })
    }

    fn fill(
        &self,
        input: &Path,
        output: &Path,
        device: &Device,
        progress: &mut dyn FnMut(Loaded),
    ) -> Result<Conversion> {
        let source = self.source(input)?;
        let input = source.model.as_deref().unwrap_or(input);
        let paths = [input, output];
        let file = source.checkpoint.as_deref().unwrap_or(input);
        if !file.exists() || (file.is_dir() && weights_in(file).is_none()) {
            // The common name of a tokenizer in two files is none itself; a folder has both, or a pipeline's VAE.
            return self.tokenizer(paths, None, device, progress);
        }
        let checkpoint = Checkpoint::open(file)?;
        let found = checkpoint.state_dict(source.which)?;
        let origin = Origin::of(&checkpoint, &found);
        let mut weights = Weights::of_state_dict(&checkpoint, found);
        if source.checkpoint.is_some() {
            without_targets(&mut weights);
        }
        match origin.architecture {
            Some(Architecture::TokenBridge) => {
                self.generator(paths, weights, origin, device, progress)
            }
            Some(Architecture::Dit) => self.dit(paths, weights, origin, device, progress),
            Some(architecture) if architecture.is_tokenizer() => {
                self.tokenizer(paths, Some(origin), device, progress)
            }
            _ if self.vae.is_some() || self.config.is_some() => Err(Error::Format {
                path: input.into(),
                what: "weights",
                expected: "a generator's, since a tokenizer or sizes of one are given".into(),
                found: "names of no architecture that is known here".into(),
            }),
            _ => {
                require_both_halves(&checkpoint.file, &weights)?;
                self.write(output, &weights, origin, self.dtype, progress)
            }
        }
    }

    /// What is meant by a path: of a run its model, whose weights are in a checkpoint where the run has not ended, or
    /// its tokenizer.
    fn source(&self, input: &Path) -> Result<Source<'static>> {
        let source = Source::new(input).weights(self.which);
        if !input.is_dir() {
            return Ok(source);
        }
        let Some(folder) = model_folder(input) else {
            let tokenizer = input.join(VAE);
            if run::is_run(input) && weights_in(&tokenizer).is_some() {
                return Ok(Source::new(tokenizer).weights(self.which));
            }
            run::require_none(input)?;
            return Ok(source);
        };
        let mut source = Source::new(&folder).weights(self.which);
        source.at(run::checkpoint(input, &folder, self.which)?, &folder);
        Ok(source)
    }

    /// The tokenizer that is given for a generator whose latents have `channels`, in the patches that this makes of the
    /// tokenizer's own.
    fn given_tokenizer(
        &self,
        channels: usize,
        patch_size: impl Fn(usize) -> usize,
        device: &Device,
    ) -> Result<Option<Opened>> {
        let Some(vae) = &self.vae else {
            return Ok(None);
        };
        let opened = open_vae(vae, None, device)?;
        let patch_size = patch_size(opened.tokenizer.latent_channels());
        let opened = opened.patched(patch_size)?;
        match opened.tokenizer.latent_channels() {
            found if found == channels => Ok(Some(opened)),
            found => Err(Error::Parts {
                what: "channels of the latents",
                expected: format!("{found}, as {} has them", vae.display()),
                found: channels.to_string(),
            }),
        }
    }

    /// A generator: its names stay, its config is read, given, or told by the shapes.
    fn generator(
        &self,
        [input, output]: [&Path; 2],
        mut weights: Weights,
        origin: Origin,
        device: &Device,
        progress: OnTensor<'_>,
    ) -> Result<Conversion> {
        for buffer in BUFFERS {
            if let Some(table) = weights.take(buffer) {
                weights.insert(buffer, table.exact());
            }
        }
        let config = match &self.config {
            Some(file) => read_json(file, "a generator's config")?,
            None => generator_config(input, &weights)?,
        };
        config.validate()?;
        let mut parameters = weights.clone();
        for buffer in &BUFFERS[1..] {
            parameters.take(buffer);
        }
        parameters.require_room(config.elements())?;
        parameters.fits(&config.unfilled(device.burn()))?;
        let patch_size = |channels| ArCard::patch_size_of(&config, channels);
        let given = self.given_tokenizer(config.token_embed_dim, patch_size, device)?;
        let report = self.write(output, &weights, origin, self.dtype, progress)?;
        config.save(output)?;
        if let Some(opened) = given {
            let card = ArCard::of_released(&base_name(&final_path(output)), &config, &opened);
            let dtype = parts::of_tokenizer(self.dtype.unwrap_or_default());
            opened.tokenizer.save_dir(&output.join(VAE), dtype)?;
            parts::seal(output, card.into())?;
        } else if input.join(CARD_FILE).is_file() {
            self.rest_of_model([input, output], device)?;
        }
        Ok(report)
    }

    /// A diffusion transformer: its names stay, its config is read, given, or told by the shapes.
    fn dit(
        &self,
        [input, output]: [&Path; 2],
        weights: Weights,
        origin: Origin,
        device: &Device,
        progress: OnTensor<'_>,
    ) -> Result<Conversion> {
        let config: DitConfig = match &self.config {
            Some(file) => read_json(file, "a diffusion transformer's config")?,
            None => dit_config(input, &weights)?,
        };
        config.validate()?;
        weights.require_room(config.elements())?;
        weights.fits(&config.init(0, device.burn()))?;
        let given = self.given_tokenizer(config.in_channels, |_| 1, device)?;
        let report = self.write(output, &weights, origin, self.dtype, progress)?;
        config.save(output)?;
        if let Some(opened) = given {
            let dtype = parts::of_tokenizer(self.dtype.unwrap_or_default());
            let card = DitCard::of_released(&base_name(&final_path(output)), &config, &opened);
            opened.tokenizer.save_dir(&output.join(VAE), dtype)?;
            parts::seal(output, card.into())?;
        } else if input.join(CARD_FILE).is_file() {
            self.tokenizer_of_model([input, output], device)?;
            parts::seal(output, ModelCard::read(input)?)?;
        }
        Ok(report)
    }

    /// What a model folder has beside its generator.
    fn rest_of_model(&self, [input, output]: [&Path; 2], device: &Device) -> Result<()> {
        self.tokenizer_of_model([input, output], device)?;
        let judge = input.join("judge");
        if judge.is_dir() {
            let dtype = self.dtype_of_part(&judge)?;
            Classifier::load_dir(&judge, device.burn())?.save_dir(output.join("judge"), dtype)?;
        }
        let calibration = input.join(CALIBRATION);
        if calibration.is_file() {
            // Of the latents of weights that stay what they are, unless they are stored as something else.
            let dtype = self.dtype.unwrap_or_default();
            parts::save_calibration(Calibration::load(calibration)?, output, dtype)?;
        }
        parts::seal(output, ModelCard::read(input)?)
    }

    fn tokenizer_of_model(&self, [input, output]: [&Path; 2], device: &Device) -> Result<()> {
        let folder = input.join(VAE);
        let vae = load_tokenizer(&folder, device.burn())?;
        Ok(vae.save_dir(&output.join(VAE), self.dtype_of_part(&folder)?)?)
    }

    /// How the weights of a part beside the generator are stored: as they were, unless told otherwise.
    fn dtype_of_part(&self, folder: &Path) -> Result<WeightDtype> {
        match self.dtype {
            Some(dtype) => Ok(parts::of_tokenizer(dtype)),
            None => stored(weights_in(folder).as_slice()),
        }
    }

    /// A tokenizer: loaded, which checks it and translates its names, and saved. In two files it has no one origin.
    fn tokenizer(
        &self,
        [input, output]: [&Path; 2],
        origin: Option<Origin>,
        device: &Device,
        progress: OnTensor<'_>,
    ) -> Result<Conversion> {
        if self.vae.is_some() {
            return Err(Error::Format {
                path: input.into(),
                what: "weights",
                expected: "a generator, since a tokenizer is given for it".into(),
                found: "a tokenizer itself".into(),
            });
        }
        let opened = open_tokenizer(input, self.which, device.burn())?;
        let origin = match origin {
            Some(origin) => origin,
            None => {
                let first = Checkpoint::open(&opened.files[0])?;
                let mut origin = Origin::of(&first, &first.state_dict(self.which)?);
                if opened.files.len() > 1 {
                    origin.architecture = Some(Architecture::TinyAutoencoder);
                }
                origin
            }
        };
        let whole = output.join(".whole");
        opened.tokenizer.save_dir(&whole, WeightDtype::F32)?;
        if let Some(latents) = &opened.latents {
            latents.save(output)?;
        }
        let weights = Weights::read(&whole)?;
        let dtype = self.dtype.map_or_else(|| stored(&opened.files), Ok)?;
        let report = self.write(output, &weights, origin, Some(dtype), progress)?;
        let config = output.join(CONFIG_FILE);
        std::fs::rename(whole.join(CONFIG_FILE), &config)
            .and_then(|()| std::fs::remove_dir_all(&whole))
            .map_err(Error::io("write", &final_path(&config)))?;
        Ok(report)
    }

    /// Writes the tensors; `None` for the type keeps that of each.
    fn write(
        &self,
        output: &Path,
        weights: &Weights,
        origin: Origin,
        dtype: Option<WeightDtype>,
        progress: OnTensor<'_>,
    ) -> Result<Conversion> {
        let (mut tensors, of) = (0, weights.len());
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        let shard_bytes = self.shard_bytes.unwrap_or(u64::MAX);
        let shards = weights.write_shards(output, &metadata, dtype, shard_bytes, || {
            tensors += 1;
            progress(Loaded { tensors, of });
        })?;
        Ok(Conversion {
            origin,
            tensors: of,
            total_size: shards.total_size,
            files: shards.files,
        })
    }
}

impl Origin {
    fn of(checkpoint: &Checkpoint, found: &StateDict) -> Self {
        Self {
            architecture: Architecture::of_names(found.tensors.keys().map(String::as_str)),
            format: checkpoint.format.to_string(),
            weights: found.which.map(Which::name),
            left_out: found.left_out.clone(),
        }
    }
}

/// Whether an entry of a folder, by its name, is a part of a model or of its weights.
pub fn of_model(name: &OsStr) -> bool {
    parts::is_ours(name) || name == "judge"
}

/// 16 bits if all of a file's tensors are stored so, 8 if its matrices are, else 32.
fn stored(files: &[PathBuf]) -> Result<WeightDtype> {
    let mut dtypes = Vec::new();
    for file in files {
        dtypes.extend(
            Checkpoint::open(file)?
                .tensors
                .values()
                .map(|tensor| tensor.dtype()),
        );
    }
    let all = |dtype| dtypes.iter().all(|found| *found == dtype);
    Ok(match () {
        () if all(Dtype::F16) => WeightDtype::F16,
        () if all(Dtype::BF16) => WeightDtype::BF16,
        () if dtypes.contains(&Dtype::I8) => WeightDtype::Int8,
        () => WeightDtype::F32,
    })
}
