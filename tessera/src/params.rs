//! What made a picture: the text `tessera` in its PNG.

use crate::error::{Error, Result};
use crate::model::Model;
use serde::{Deserialize, Serialize};
use std::path::Path;
use tessera_gen_ar::SampleConfig;
use tessera_pictures::{Pixels, read_metadata};

/// The parameters of one picture, as its PNG's text `tessera` holds them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageParams {
    /// `tessera.image.params/v1`
    pub schema: String,
    /// The model's name.
    pub model: String,
    /// What its weights are known by ([`Model::digest`](crate::Model::digest)); none in pictures of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// The version of the program or library that drew it.
    pub version: String,
    /// The class that was asked for, if one was.
    pub class: Option<usize>,
    /// Its name, or `none`.
    pub class_name: String,
    /// What all of its randomness comes from.
    pub seed: u64,
    /// How it was drawn.
    #[serde(flatten)]
    pub sampling: SampleConfig,
    /// The data type of the generator's linear maps: `f32`, `bf16` or `f16`.
    #[serde(default = "f32_name")]
    pub dtype: String,
}

fn f32_name() -> String {
    "f32".into()
}

impl ImageParams {
    /// The version of the text.
    pub const SCHEMA: &str = "tessera.image.params/v1";

    /// The keyword of the text in the PNG.
    pub const KEYWORD: &str = "tessera";

    /// Refuses a model that cannot draw the picture of `file` again: another, one with other weights, or with fewer
    /// classes.
    ///
    /// # Errors
    /// Then.
    pub fn require_model(&self, model: &Model, file: &Path) -> Result<()> {
        let other = |why: String| {
            Err(Error::OtherModel {
                file: file.into(),
                why,
            })
        };
        let (made, name) = (&self.model, model.name());
        if made != name {
            return other(format!("made by model `{made}`, this one is `{name}`"));
        }
        if let (Some(made), Some(now)) = (&self.weights, model.digest())
            && made != now
        {
            return other(format!(
                "made with other weights of `{name}`: {made}, this model has {now}"
            ));
        }
        let classes = model.class_names().len();
        match self.class.filter(|&class| class >= classes) {
            Some(class) => other(format!(
                "its class is {class}, this model has {classes} classes"
            )),
            None => Ok(()),
        }
    }

    /// Reads them from a PNG.
    ///
    /// # Errors
    /// When the file is no PNG, has no such text, or one that is damaged or of another version.
    pub fn read(file: &Path) -> Result<Self> {
        let texts = read_metadata(file)?;
        let Some((_, json)) = texts.iter().find(|(key, _)| key == Self::KEYWORD) else {
            return Err(Error::Format {
                path: file.into(),
                what: "text `tessera`",
                expected: "the parameters of a generated picture".into(),
                found:
                    "no such text: it was not made by `tessera generate`, or without its metadata"
                        .into(),
            });
        };
        let params: Self = serde_json::from_str(json).map_err(|source| Error::Json {
            what: "a picture whose text `tessera` is whole",
            path: file.into(),
            source,
        })?;
        match params.schema == Self::SCHEMA {
            true => Ok(params),
            false => Err(Error::Format {
                path: file.into(),
                what: "schema",
                expected: format!("{:?}", Self::SCHEMA),
                found: format!("{:?}", params.schema),
            }),
        }
    }

    /// The texts of a picture's PNG: as people's programs read them (`parameters`), and as [`read`](Self::read) does
    /// (`tessera`).
    pub fn texts(&self, picture: &Pixels) -> [(&'static str, String); 2] {
        let SampleConfig {
            steps,
            cfg_scale,
            temperature,
            ..
        } = self.sampling;
        let text = format!(
            "{}\nSteps: {steps}, CFG scale: {cfg_scale}, Temperature: {temperature}, Seed: {}, Size: {}x{}, Model: {}, \
            Version: {}",
            self.class_name,
            self.seed,
            picture.width(),
            picture.height(),
            self.model,
            self.version
        );
        let json = serde_json::to_string(self).expect("settings are numbers and names");
        [("parameters", text), (Self::KEYWORD, json)]
    }
}
