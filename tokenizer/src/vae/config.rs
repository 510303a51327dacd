//! What defines a KL-VAE's weights: every size is a field.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use tessera_backend::elements_of;

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

/// More px than a side of any picture that is read has; a damaged file may claim any number.
const MOST_RESOLUTION: usize = 1 << 14;

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
        require(
            self.resolution <= MOST_RESOLUTION,
            "resolution",
            format!("at most {MOST_RESOLUTION}"),
            self.resolution,
        )?;
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

    /// How many numbers the parameters are; `u64::MAX` where they are more.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn elements(&self) -> Result<u64> {
        self.validate()?;
        let (widths, latents) = (self.widths(), self.z_channels);
        let (first, last) = (widths[0], widths[widths.len() - 1]);
        let mut total = elements_of(&[
            &[9, self.in_channels, self.ch],
            &[self.ch],
            &[2, last],
            &[9, last, 2, latents],
            &[4, latents, latents],
            &[5, latents],
            &[latents, latents],
            &[9, latents, last],
            &[last],
            &[2, first],
            &[9, first, self.out_ch],
            &[self.out_ch],
        ]);
        let mut add = |elements: u64, times: usize| {
            total = total.saturating_add(elements.saturating_mul(times as u64));
        };
        // The middle of either half.
        add(residual_elements(last, last), 4);
        add(attention_elements(last), 2);
        for (level, &width) in widths.iter().enumerate() {
            let sampling = elements_of(&[&[9, width, width], &[width]]);
            let lowest = level + 1 == widths.len();
            let encoder_from = match level {
                0 => self.ch,
                level => widths[level - 1],
            };
            let decoder_from = if lowest { last } else { widths[level + 1] };
            for (blocks, from, attended, sampled) in [
                (
                    self.num_res_blocks,
                    encoder_from,
                    &self.attn_resolutions,
                    !lowest,
                ),
                (
                    self.num_res_blocks.saturating_add(1),
                    decoder_from,
                    &self.decoder_attn_resolutions,
                    level > 0,
                ),
            ] {
                add(residual_elements(from, width), 1);
                add(residual_elements(width, width), blocks - 1);
                if self.attends(attended, level) {
                    add(attention_elements(width), blocks);
                }
                add(sampling, usize::from(sampled));
            }
        }
        Ok(total)
    }

    /// Whether images of this side can be halved at every level.
    pub(crate) fn fits_resolution(&self, side: usize) -> bool {
        (1..=MOST_RESOLUTION).contains(&side) && side.is_multiple_of(self.downsampling())
    }

    /// The same network, its levels with attention listed by their sides at another resolution.
    pub(crate) fn at_resolution(self, side: usize) -> Self {
        let at = |list: &[usize]| {
            let levels = (0..self.levels()).filter(|level| self.attends(list, *level));
            levels.map(|level| side >> level).collect()
        };
        Self {
            attn_resolutions: at(&self.attn_resolutions),
            decoder_attn_resolutions: at(&self.decoder_attn_resolutions),
            resolution: side,
            ..self
        }
    }

    /// Number of resolution levels.
    pub(crate) fn levels(&self) -> usize {
        self.ch_mult.len()
    }

    /// Width of each level, the full resolution first.
    pub(crate) fn widths(&self) -> Vec<usize> {
        let widths = self.ch_mult.iter();
        widths.map(|mult| self.ch.saturating_mul(*mult)).collect()
    }

    /// Whether the level's side, at the configuration's resolution, is in the list.
    pub(crate) fn attends(&self, resolutions: &[usize], level: usize) -> bool {
        resolutions.contains(&(self.resolution >> level))
    }
}

/// Of a residual block: two normalizations and convolutions, and a shortcut where the width changes.
fn residual_elements(from: usize, to: usize) -> u64 {
    let shortcut = usize::from(from != to);
    elements_of(&[
        &[2, from],
        &[9, from, to],
        &[2, to],
        &[9, to, to],
        &[2, to],
        &[shortcut, from, to],
        &[shortcut, to],
    ])
}

/// Of a block of attention: a normalization and four maps.
fn attention_elements(width: usize) -> u64 {
    elements_of(&[&[2, width], &[4, width, width], &[4, width]])
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
