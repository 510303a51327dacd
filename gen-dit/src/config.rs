//! What defines a model, and the papers' models.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::str::FromStr;
use tessera_moe::MoeConfig;

/// From noise to data, and what the model is trained to say on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Process {
    /// Denoising diffusion of 1,000 linear steps, as DiT has it: the model says the noise.
    #[default]
    Ddpm,
    /// Rectified flow: the model says the velocity from data to noise along a straight line.
    Flow,
}

/// Sizes and training choices; fields are named as the arguments of the reference's `DiT`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DitConfig {
    /// Side of the latents.
    pub input_size: usize,
    /// Side of the squares of latents that are one token.
    pub patch_size: usize,
    /// Channels of the latents.
    pub in_channels: usize,
    /// Width.
    pub hidden_size: usize,
    /// Blocks.
    pub depth: usize,
    /// Heads of attention.
    pub num_heads: usize,
    /// Width of the MLP in multiples of the model's.
    pub mlp_ratio: usize,
    /// Share of labels hidden in training, for classifier-free guidance.
    pub class_dropout_prob: f32,
    /// Classes.
    pub num_classes: usize,
    /// Whether the model also says the variance of a denoising step; DDPM only.
    pub learn_sigma: bool,
    /// What it is trained on.
    pub process: Process,
    /// Experts in place of the MLP of every block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moe: Option<MoeConfig>,
}

impl DitConfig {
    /// A dense model for 256 px ImageNet through the autoencoder of Stable Diffusion (latents 4 × 32 × 32, 1,000 classes),
    /// trained as DiT is.
    pub fn sized(hidden_size: usize, depth: usize, num_heads: usize, patch_size: usize) -> Self {
        Self {
            input_size: 32,
            patch_size,
            in_channels: 4,
            hidden_size,
            depth,
            num_heads,
            mlp_ratio: 4,
            class_dropout_prob: 0.1,
            num_classes: 1000,
            learn_sigma: true,
            process: Process::Ddpm,
            moe: None,
        }
    }

    /// Channels that the model puts out.
    pub fn out_channels(&self) -> usize {
        self.in_channels * if self.learn_sigma { 2 } else { 1 }
    }

    /// Tokens along a side.
    pub fn grid(&self) -> usize {
        self.input_size / self.patch_size
    }

    /// Tokens.
    pub fn seq(&self) -> usize {
        self.grid() * self.grid()
    }

    /// Latents of one token, which the per-layer target heads guess.
    pub fn target_width(&self) -> usize {
        self.patch_size * self.patch_size * self.in_channels
    }

    /// Refuses what no model can be.
    ///
    /// # Errors
    /// [`Error::Config`] names the field.
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
            Some(moe) => Ok(moe.validate(self.mlp_ratio * self.hidden_size)?),
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
            let (width, depth, heads) = match parts.next()? {
                "s" => (384, 12, 6),
                "b" => (768, 12, 12),
                "m" => (960, 16, 16),
                "l" => (1024, 24, 16),
                "xl" => (1152, 28, 16),
                _ => return None,
            };
            let patch = parts
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
                moe,
                ..Self::sized(width, depth, heads, patch)
            })
        };
        parse().ok_or_else(|| Error::Preset { found: text.into() })
    }
}
