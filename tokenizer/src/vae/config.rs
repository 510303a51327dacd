//! What defines a KL-VAE's weights: every size is a field.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// The sizes of a [`KlVae`](super::KlVae), under the names of the reference configuration (`ddconfig`).
///
/// The encoder gives a mean and a log-variance for each latent (`double_z` there; always so here). Both halves put
/// one attention block in the middle, at the lowest resolution, whatever the two lists of resolutions say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KlVaeConfig {
    /// Channels of the images the encoder reads.
    pub in_channels: usize,
    /// Channels of the images the decoder writes.
    pub out_ch: usize,
    /// Base width: level `i` is `ch * ch_mult[i]` channels wide.
    pub ch: usize,
    /// Multiplier of each resolution level, the full resolution first; each level but the last halves the sides.
    pub ch_mult: Vec<usize>,
    /// Residual blocks of each encoder level; a decoder level has one more.
    pub num_res_blocks: usize,
    /// Encoder levels (by their side in px, at [`resolution`](Self::resolution)) with attention after each block.
    #[serde(default)]
    pub attn_resolutions: Vec<usize>,
    /// The same for the decoder; empty in the paper's VAE, unlike in latent diffusion's own.
    #[serde(default)]
    pub decoder_attn_resolutions: Vec<usize>,
    /// Side in px that the two lists refer to. Images of other sides pass as well.
    pub resolution: usize,
    /// Channels of the latents.
    pub z_channels: usize,
    /// Groups of every group normalization; divides every width.
    #[serde(default = "default_norm_groups")]
    pub norm_groups: usize,
}

/// The reference's, everywhere.
const DEFAULT_NORM_GROUPS: usize = 32;

fn default_norm_groups() -> usize {
    DEFAULT_NORM_GROUPS
}

impl KlVaeConfig {
    /// The paper's KL-16: 256 px to 16 x 16 latents of 16 channels, 66,456,019 parameters.
    pub fn kl16() -> Self {
        Self {
            in_channels: 3,
            out_ch: 3,
            ch: 128,
            ch_mult: vec![1, 1, 2, 2, 4],
            num_res_blocks: 2,
            attn_resolutions: vec![16],
            decoder_attn_resolutions: Vec::new(),
            resolution: 256,
            z_channels: 16,
            norm_groups: DEFAULT_NORM_GROUPS,
        }
    }

    /// A VAE of any size with attention in the middle only, and at least four channels to a group where `ch` allows.
    pub fn small(
        in_channels: usize,
        resolution: usize,
        ch: usize,
        ch_mult: &[usize],
        num_res_blocks: usize,
        z_channels: usize,
    ) -> Self {
        // Four is what the reference's narrowest level has; a group of one channel would erase its mean altogether.
        let most = (ch / 4).clamp(1, DEFAULT_NORM_GROUPS);
        let divides = |groups: &usize| ch.is_multiple_of(*groups);
        Self {
            in_channels,
            out_ch: in_channels,
            ch,
            ch_mult: ch_mult.to_vec(),
            num_res_blocks,
            attn_resolutions: Vec::new(),
            decoder_attn_resolutions: Vec::new(),
            resolution,
            z_channels,
            norm_groups: (1..=most).rev().find(divides).unwrap_or(1),
        }
    }

    /// Whether these sizes describe a network.
    ///
    /// # Errors
    /// [`Error::VaeConfig`] names the first field that does not fit, what it holds and what it must be.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [
            ("in_channels", self.in_channels),
            ("out_ch", self.out_ch),
            ("ch", self.ch),
            ("num_res_blocks", self.num_res_blocks),
            ("resolution", self.resolution),
            ("z_channels", self.z_channels),
            ("norm_groups", self.norm_groups),
        ] {
            require(value > 0, field, "at least 1", value)?;
        }
        // Sixteen levels would already ask for images of 32,768 px.
        let levels = (1..=16).contains(&self.ch_mult.len()) && !self.ch_mult.contains(&0);
        require(
            levels,
            "ch_mult",
            "1 to 16 multipliers, each at least 1",
            format!("{:?}", self.ch_mult),
        )?;
        for width in self.widths() {
            require(
                width.is_multiple_of(self.norm_groups),
                "norm_groups",
                format!("a divisor of every width, {width} among them"),
                self.norm_groups,
            )?;
        }
        let factor = self.downsampling();
        require(
            self.resolution.is_multiple_of(factor),
            "resolution",
            format!("a multiple of {factor}"),
            self.resolution,
        )?;
        for (field, list) in [
            ("attn_resolutions", &self.attn_resolutions),
            ("decoder_attn_resolutions", &self.decoder_attn_resolutions),
        ] {
            let sides: Vec<usize> = (0..self.levels())
                .map(|level| self.resolution >> level)
                .collect();
            for side in list {
                require(
                    sides.contains(side),
                    field,
                    format!("sides out of {sides:?}"),
                    side,
                )?;
            }
        }
        Ok(())
    }

    /// Image px per latent, along each side.
    pub fn downsampling(&self) -> usize {
        1 << (self.levels() - 1)
    }

    /// Number of resolution levels.
    pub(crate) fn levels(&self) -> usize {
        self.ch_mult.len()
    }

    /// Width of each level, the full resolution first.
    pub(crate) fn widths(&self) -> Vec<usize> {
        self.ch_mult.iter().map(|mult| self.ch * mult).collect()
    }

    /// Whether the level's side, at the configuration's resolution, is in the list.
    pub(crate) fn attends(&self, resolutions: &[usize], level: usize) -> bool {
        resolutions.contains(&(self.resolution >> level))
    }
}

fn require(
    holds: bool,
    field: &'static str,
    expected: impl Into<String>,
    found: impl ToString,
) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::VaeConfig {
        field,
        expected: expected.into(),
        found: found.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid() {
        KlVaeConfig::kl16().validate().unwrap();
        for ch in [1, 6, 8, 10, 24, 32, 96, 256] {
            let config = KlVaeConfig::small(3, 32, ch, &[1, 2, 3], 1, 4);
            config.validate().unwrap();
            assert!(ch < 8 || ch / config.norm_groups >= 4, "{config:?}");
        }
    }

    #[test]
    fn a_misfit_is_named() {
        let misfit = |change: fn(&mut KlVaeConfig)| {
            let mut config = KlVaeConfig::kl16();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert!(misfit(|c| c.ch = 100).contains("norm_groups"));
        assert!(misfit(|c| c.ch_mult.clear()).contains("ch_mult"));
        assert!(misfit(|c| c.z_channels = 0).contains("z_channels"));
        assert!(misfit(|c| c.resolution = 250).contains("a multiple of 16"));
        assert!(misfit(|c| c.attn_resolutions = vec![20]).contains("attn_resolutions"));
    }

    #[test]
    fn json_may_leave_the_defaults_out_but_not_add_a_field() {
        let short = r#"{"in_channels":3,"out_ch":3,"ch":128,"ch_mult":[1,1,2,2,4],"num_res_blocks":2,
            "attn_resolutions":[16],"resolution":256,"z_channels":16}"#;
        assert_eq!(
            serde_json::from_str::<KlVaeConfig>(short).unwrap(),
            KlVaeConfig::kl16()
        );
        let typo = short.replace("\"out_ch\":3", "\"out_ch\":3,\"dropuot\":0");
        assert!(serde_json::from_str::<KlVaeConfig>(&typo).is_err());
    }
}
