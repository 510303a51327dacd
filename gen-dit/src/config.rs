//! The config of a model, with the papers' models as presets.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::str::FromStr;
use tessera_moe::MoeConfig;

/// The process between data and noise, which decides what the model predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Process {
    /// Denoising diffusion with 1,000 linear steps, as in DiT: the model predicts the noise.
    #[default]
    Ddpm,
    /// Rectified flow: the model predicts the velocity from data to noise along a straight line.
    Flow,
}

/// Sizes and training choices, named as the arguments of the reference's `DiT`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DitConfig {
    /// Height and width of the latents.
    pub input_size: usize,
    /// Height and width of a patch, whose latents are one token.
    pub patch_size: usize,
    /// Channels of the latents.
    pub in_channels: usize,
    /// Features per token, d_model.
    pub hidden_size: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Number of attention heads.
    pub num_heads: usize,
    /// Hidden width of the MLP divided by d_model.
    pub mlp_ratio: usize,
    /// Share of labels dropped in training, for classifier-free guidance.
    pub class_dropout_prob: f32,
    /// Number of classes.
    pub num_classes: usize,
    /// Whether the model also predicts the variance of a denoising step; DDPM only.
    pub learn_sigma: bool,
    /// The process it is trained on.
    pub process: Process,
    /// Experts in place of the MLP of every block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moe: Option<MoeConfig>,
}

impl DitConfig {
    /// DiT-XL/2 for 256 px ImageNet with the autoencoder of Stable Diffusion (latents 4 × 32 × 32, 1,000 classes).
    pub fn xl_2() -> Self {
        Self {
            input_size: 32,
            patch_size: 2,
            in_channels: 4,
            hidden_size: 1152,
            depth: 28,
            num_heads: 16,
            mlp_ratio: 4,
            class_dropout_prob: 0.1,
            num_classes: 1000,
            learn_sigma: true,
            process: Process::Ddpm,
            moe: None,
        }
    }

    /// Channels of the model's output.
    pub fn out_channels(&self) -> usize {
        self.in_channels * if self.learn_sigma { 2 } else { 1 }
    }

    /// Tokens per row and per column.
    pub fn grid(&self) -> usize {
        self.input_size / self.patch_size
    }

    /// Number of tokens.
    pub fn seq(&self) -> usize {
        self.grid() * self.grid()
    }

    /// Values of one token, which the target heads predict.
    pub fn target_width(&self) -> usize {
        self.patch_size * self.patch_size * self.in_channels
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Moe`] names the first field that is out of range.
    pub fn validate(&self) -> Result<()> {
        let positive = [
            ("input_size", self.input_size),
            ("patch_size", self.patch_size),
            ("in_channels", self.in_channels),
            ("hidden_size", self.hidden_size),
            ("depth", self.depth),
            ("num_heads", self.num_heads),
            ("mlp_ratio", self.mlp_ratio),
            ("num_classes", self.num_classes),
        ];
        let fault = |field, expected: String, found: String| Error::Config {
            field,
            expected,
            found,
        };
        if let Some((field, found)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return Err(fault(field, "1 or more".into(), found.to_string()));
        }
        let multiple = [
            ("input_size", self.input_size, self.patch_size, "patch_size"),
            ("hidden_size", self.hidden_size, self.num_heads, "num_heads"),
            (
                "hidden_size",
                self.hidden_size,
                4,
                "the position embedding's parts",
            ),
        ];
        for (field, value, of, what) in multiple {
            if !value.is_multiple_of(of) {
                return Err(fault(
                    field,
                    format!("a multiple of {what}, {of}"),
                    value.to_string(),
                ));
            }
        }
        if !(0.0..1.0).contains(&self.class_dropout_prob) {
            let found = self.class_dropout_prob.to_string();
            return Err(fault("class_dropout_prob", "in 0..1".into(), found));
        }
        if self.learn_sigma && self.process == Process::Flow {
            let expected = "false where the process is a flow, which has no variance";
            return Err(fault("learn_sigma", expected.into(), "true".into()));
        }
        match &self.moe {
            Some(moe) => Ok(moe.validate(self.mlp_ratio.saturating_mul(self.hidden_size))?),
            None => Ok(()),
        }
    }
}

/// `dit-xl/2`, `race-dit-b/2-4in32` (`-` in place of `/` as well): DiT's table 1 with the M of Expert Race's table 4.
impl FromStr for DitConfig {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let name = text.to_lowercase().replace('/', "-");
            let (race, name) = match name.strip_prefix("race-") {
                Some(rest) => (true, rest),
                None => (false, &*name),
            };
            let mut parts = name.strip_prefix("dit-")?.splitn(3, '-');
            let (hidden_size, depth, num_heads) = match parts.next()? {
                "s" => (384, 12, 6),
                "b" => (768, 12, 12),
                "m" => (960, 16, 16),
                "l" => (1024, 24, 16),
                "xl" => (1152, 28, 16),
                _ => return None,
            };
            let patch_size = parts
                .next()?
                .parse()
                .ok()
                .filter(|patch| [2, 4, 8].contains(patch))?;
            let moe: Option<MoeConfig> = match (race, parts.next()) {
                (true, Some(experts)) => Some(experts.parse().ok()?),
                (false, None) => None,
                _ => return None,
            };
            Some(Self {
                hidden_size,
                depth,
                num_heads,
                patch_size,
                moe,
                ..Self::xl_2()
            })
        };
        parse().ok_or_else(|| Error::Preset { found: text.into() })
    }
}
