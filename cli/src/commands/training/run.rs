//! How trainings enter their run folder: what may differ when a run goes on, in the words of the command line.

use super::latents::weights_of;
use crate::args::{DataArgs, RunArgs, WeightsKind};
use crate::{output, ranks};
use anyhow::{Error, Result, anyhow, ensure};
use serde::Serialize;
use std::path::Path;
use tessera::checkpoint::weights_in;
use tessera::gen_ar::Error as ArError;
use tessera::gen_dit::Error as DitError;
use tessera::pictures::dataset::Dataset;
use tessera::tokenizers::{Error as TokenizerError, ImageTokenizer, Opened};
use tessera::train::{
    Decay, Difference, Error as TrainError, Ranks, RunEntry, RunFolder, TrainConfig,
};
use tessera::weights::Weights;
use tessera::{Device, Which, open_vae, sha256_of_data};

/// The pictures that a run is trained on, as its `config.json` has them: a run that goes on must have the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pictures {
    /// How many.
    pub pictures: usize,
    /// Of their classes, labels and content.
    pub sha256: String,
}

impl Pictures {
    /// Those of a data set, which must be the same at all ranks.
    ///
    /// # Errors
    /// When one cannot be read, or a rank has others.
    pub fn of(data: &dyn Dataset) -> Result<Self> {
        let sha256 = sha256_of_data(data)?;
        let pictures = data.len();
        let text = format!("{pictures} pictures, SHA-256 {sha256}");
        ranks::require_same("the ranks' pictures differ", &text)?;
        Ok(Self { pictures, sha256 })
    }
}

/// The tokenizer of a training, of any kind, and SHA-256 of its weights, which must be the same at all ranks.
///
/// # Errors
/// When it cannot be opened, or takes no pictures of the data's channels and size.
pub fn tokenizer(
    path: &Path,
    weights: Option<WeightsKind>,
    data: &DataArgs,
    device: &Device,
) -> Result<(Box<dyn ImageTokenizer>, String)> {
    let Opened {
        tokenizer, files, ..
    } = open_vae(path, weights.map(Which::from), device)?;
    let takes = tokenizer.image_channels();
    ensure!(
        takes == data.channels,
        "{}: takes pictures of {takes} channels, --channels says {}",
        path.display(),
        data.channels
    );
    tokenizer.check_image_size(data.img_size, data.img_size)?;
    let mut sha256 = weights_of(&files)?;
    let averaged = |file| Weights::read_model(file, Some(Which::Ema)).is_ok();
    if weights == Some(WeightsKind::Raw) && files.iter().any(averaged) {
        // The files have others, too, whose latents these are not.
        sha256 += " raw";
    }
    Ok((tokenizer, sha256))
}

/// Enters the run's folder before long work: nobody else writes there, and there is a run to resume, or none.
///
/// # Errors
/// When that is not so.
pub fn enter(ranks: &Ranks, run: &RunArgs) -> Result<RunEntry> {
    Ok(ranks.enter(&run.output, run.start())?)
}

/// Holds what is known of the configuration before the long work against that of the run to resume.
///
/// # Errors
/// When something differs that shapes the result.
pub fn require_same(entry: &RunEntry, known: &impl Serialize) -> Result<()> {
    entry.require_same(known).map_err(in_words)
}

/// Begins the run, or goes on with it, and says what is otherwise than before.
///
/// # Errors
/// When something differs that shapes the result, or a file cannot be written.
pub fn open(
    ranks: &Ranks,
    entry: RunEntry,
    config: &impl Serialize,
    training: &TrainConfig,
    quiet: bool,
) -> Result<RunFolder> {
    let run = ranks.open(entry, config).map_err(in_words)?;
    if quiet {
        return Ok(run);
    }
    let config = run.root().join("config.json");
    let changes = run.changes();
    for difference in &changes.settings {
        output::note(format_args!("note: {}", spelled(difference)));
    }
    let end = |difference: &Difference| {
        let field = difference.field.rsplit('.').next();
        matches!(field, Some("epochs" | "max_steps"))
    };
    let prolonged = changes.settings.iter().any(end);
    let ended = ["model", "vae"].map(|made| run.root().join(made));
    if let Some(made) = ended.iter().find(|made| weights_in(made).is_some())
        && prolonged
    {
        output::note(format_args!(
            "note: {} stays as the run left it before, until it ends again; what is newer is in {}",
            made.display(),
            run.root().join("checkpoint").display()
        ));
    }
    if training.decay == Decay::Cosine && prolonged {
        output::note(
            "note: the learning rate falls along a cosine to the end of the run, so it goes on along that of the new \
             end; this is not the run that had this end from the start, as it would be with --decay constant",
        );
    }
    if changes.unrecorded.iter().any(|field| field == "data") {
        output::note(format_args!(
            "note: {}, of an older version, does not say which pictures the run was started with: it goes on with \
             those given",
            config.display()
        ));
    }
    for line in run.dropped_metrics() {
        let file = run.root().join("metrics.jsonl");
        output::note(format_args!(
            "warning: {}: line {line} was none of metrics and is dropped",
            file.display()
        ));
    }
    Ok(run)
}

/// An error in the words of the command line.
pub fn in_words(error: TrainError) -> Error {
    if let TrainError::Config {
        field,
        found,
        expected,
    } = &error
    {
        return match option_of(&format!("training.{field}")) {
            Some(option) => anyhow!("{option} {found}: {expected}"),
            None => error.into(),
        };
    }
    let TrainError::ConfigChanged { file, differences } = &error else {
        return error.into();
    };
    let of = |name: &str| differences.iter().find(|one| one.field == name);
    if let Some(Difference {
        ran: Some(ran),
        now: Some(now),
        ..
    }) = of("kind")
    {
        let name = |kind: &serde_json::Value| match kind.as_str() {
            Some("kl-vae") => "train vae".to_owned(),
            Some("gen-ar") => "train ar".to_owned(),
            Some("gen-dit") => "train dit".to_owned(),
            Some("judge") => "train judge".to_owned(),
            _ => kind.to_string(),
        };
        let (ran, now) = (name(ran), name(now));
        return anyhow!("{}: this is a run of {ran}, not of {now}", file.display());
    }
    let changed = differences.iter().any(|one| one.field.starts_with("data"));
    if changed {
        let count = of("data.pictures");
        let count = count.and_then(|count| Some((count.ran.as_ref()?, count.now.as_ref()?)));
        let how = match count {
            Some((ran, now)) => format!("the run was started with {ran}, --data now has {now}"),
            None => "as many as the run was started with, but others".to_owned(),
        };
        return anyhow!("{}: the pictures changed: {how}", file.display());
    }
    let mut texts: Vec<String> = differences.iter().map(spelled).collect();
    texts.dedup();
    let more = texts.len().saturating_sub(5);
    texts.truncate(5);
    if more > 0 {
        texts.push(format!("and {more} more"));
    }
    anyhow!(
        "{}: the run was started with other settings: {}",
        file.display(),
        texts.join("; ")
    )
}

/// A size that makes no model, under the name of its option.
pub fn sizes_in_words(error: impl Into<tessera::Error>) -> Error {
    let error = error.into();
    let (part, field, expected, found) = match &error {
        tessera::Error::Tokenizer(TokenizerError::VaeConfig {
            field,
            expected,
            found,
        }) => ("vae", field, expected, found),
        tessera::Error::GenAr(ArError::Config {
            field,
            expected,
            found,
        }) => ("generator", field, expected, found),
        tessera::Error::GenDit(DitError::Config {
            field,
            expected,
            found,
        }) => ("model", field, expected, found),
        _ => return error.into(),
    };
    match option_of(&format!("{part}.{field}")) {
        Some(option) => anyhow!("{option}: {field} is {found}, expected {expected}"),
        None => error.into(),
    }
}

/// A difference under the name of its option, and its field where that says more.
fn spelled(difference: &Difference) -> String {
    let Difference { field, ran, now } = difference;
    if field == "vae_sha256" {
        return "--vae: a tokenizer with other weights than the run was started with".into();
    }
    let value = |value: &Option<serde_json::Value>| match value {
        None | Some(serde_json::Value::Null) => "nothing".to_owned(),
        Some(value) => value.to_string(),
    };
    let (ran, now) = (value(ran), value(now));
    let name = match option_of(field) {
        Some(option) => {
            let last = field.rsplit('.').next().unwrap_or(field);
            match option[2..] == last.replace('_', "-") {
                true => option.to_owned(),
                false => format!("{option} ({last})"),
            }
        }
        None => field.clone(),
    };
    format!("{name}: ran with {ran}, now {now}")
}

/// The option that decides a field of `config.json`.
fn option_of(field: &str) -> Option<&'static str> {
    let (part, rest) = field.split_once('.').unwrap_or(("", field));
    Some(match (part, rest) {
        ("training", "batch_size") => "--batch-size",
        ("training", "grad_accum") => "--grad-accum",
        ("training", "epochs") => "--epochs",
        ("training", "max_steps") => "--max-steps",
        ("training", "lr") => "--lr",
        ("training", "warmup_epochs") => "--warmup-epochs",
        ("training", "decay") => "--decay",
        ("training", "weight_decay") => "--weight-decay",
        ("training", "grad_clip") => "--grad-clip",
        ("training", "ema_decay") => "--ema-rate",
        ("training", "save_every") => "--save-every",
        ("training", "keep_last") => "--keep-last",
        ("training", "seed") => "--seed",
        ("loss", "l1_weight") => "--l1-weight",
        ("loss", "l2_weight") => "--l2-weight",
        ("loss", "kl_weight") => "--kl-weight",
        ("", "flip") => "--flip",
        ("", "val_share") => "--val-share",
        ("", "head_subset") => "--head-subset",
        ("", "class_names") => "--class-names",
        ("vae" | "classifier", "in_channels" | "out_ch" | "channels") => "--channels",
        (
            "vae" | "classifier",
            "resolution" | "attn_resolutions" | "decoder_attn_resolutions" | "img_size",
        )
        | ("generator", "grid")
        | ("model", "input_size") => "--img-size",
        ("vae", "ch") => "--ch",
        ("vae", "ch_mult") => "--ch-mult",
        ("vae", "num_res_blocks") => "--num-res-blocks",
        ("vae", "z_channels") => "--z-channels",
        ("generator", "levels" | "channel_levels") | ("quantizer", "bits" | "channel_bits") => {
            "--bits"
        }
        ("generator", "dims_per_step") => "--dims-per-step",
        ("", "level") => "--level",
        ("quantizer", "range") => "--range",
        ("generator", "buffer_size") => "--buffer-size",
        ("generator", "attn_dropout" | "proj_dropout") => "--dropout",
        ("generator", "mask_ratio_min") => "--mask-ratio-min",
        ("generator", "mask_ratio_std") => "--mask-ratio-std",
        ("model", "hidden_size" | "depth" | "num_heads") => "--size",
        ("" | "model", "patch_size") => "--patch",
        ("model", "process" | "learn_sigma") => "--process",
        ("generator" | "model", rest) if rest.starts_with("moe") => match rest {
            "moe.rule" => "--rule",
            "moe.gate" => "--gate",
            "moe.k" => "--mean-k",
            "moe.threshold" => "--no-threshold",
            "moe.similarity_weight" => "--similarity",
            "moe.balance_weight" => "--balance",
            "moe.target_weight" => "--per-layer",
            _ => "--experts",
        },
        ("generator", rest) => match rest.split('.').next() {
            Some("enc") => "--enc",
            Some("dec") => "--dec",
            Some("ch") => "--head",
            _ => return None,
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::Cli;
    use clap::CommandFactory;
    use serde_json::json;

    fn difference(field: &str, ran: serde_json::Value, now: serde_json::Value) -> Difference {
        Difference {
            field: field.into(),
            ran: Some(ran),
            now: Some(now),
        }
    }

    fn words(differences: Vec<Difference>) -> String {
        let error = TrainError::ConfigChanged {
            file: "r/config.json".into(),
            differences,
        };
        in_words(error).to_string()
    }

    #[test]
    fn what_differs_has_the_names_of_the_command_line() {
        let lr = difference("training.lr", json!(0.1), json!(0.2));
        let rate = difference("training.ema_decay", json!(0.9), json!(0.99));
        let width = difference("generator.enc.width", json!(16), json!(32));
        assert_eq!(
            words(vec![lr, rate, width]),
            "r/config.json: the run was started with other settings: --lr: ran with 0.1, now 0.2; \
             --ema-rate (ema_decay): ran with 0.9, now 0.99; --enc (width): ran with 16, now 32"
        );
    }

    #[test]
    fn other_pictures_and_another_command_are_called_so() {
        let sha256 = || difference("data.sha256", json!("a"), json!("b"));
        let count = difference("data.pictures", json!(640), json!(16));
        let mean = difference("latent_mean", json!([0.1]), json!([0.2]));
        assert_eq!(
            words(vec![count, sha256(), mean]),
            "r/config.json: the pictures changed: the run was started with 640, --data now has 16"
        );
        assert!(words(vec![sha256()]).ends_with("as many as the run was started with, but others"));
        let weights = difference("vae_sha256", json!("a"), json!("b"));
        assert!(words(vec![weights]).contains("--vae: a tokenizer with other weights"));
        let kind = difference("kind", json!("kl-vae"), json!("gen-ar"));
        assert_eq!(
            words(vec![kind, sha256()]),
            "r/config.json: this is a run of train vae, not of train ar"
        );
    }

    #[test]
    fn every_option_that_decides_a_field_exists() {
        let mut train = Cli::command();
        let train = train.find_subcommand_mut("train").unwrap();
        let known: Vec<String> = train
            .get_subcommands()
            .flat_map(|command| command.get_arguments())
            .filter_map(|argument| argument.get_long().map(|long| format!("--{long}")))
            .collect();
        let fields = [
            "training.batch_size",
            "training.grad_accum",
            "training.epochs",
            "training.max_steps",
            "training.lr",
            "training.warmup_epochs",
            "training.decay",
            "training.weight_decay",
            "training.grad_clip",
            "training.ema_decay",
            "training.save_every",
            "training.keep_last",
            "training.seed",
            "loss.l1_weight",
            "flip",
            "val_share",
            "head_subset",
            "class_names",
            "vae.in_channels",
            "vae.resolution",
            "vae.ch_mult",
            "vae.num_res_blocks",
            "vae.z_channels",
            "quantizer.bits",
            "quantizer.channel_bits",
            "generator.dims_per_step",
            "level",
            "quantizer.range",
            "generator.buffer_size",
            "generator.attn_dropout",
            "generator.mask_ratio_std",
            "generator.ch.depth",
            "generator.moe.experts",
            "model.hidden_size",
            "patch_size",
            "model.patch_size",
            "model.process",
            "model.moe.rule",
            "model.moe.k",
            "model.moe.target_weight",
        ];
        for field in fields {
            let option = option_of(field).unwrap_or_else(|| panic!("{field} has no option"));
            assert!(known.iter().any(|known| known == option), "{option}");
        }
    }
}
