//! The sizes of a KL-VAE that comes without a configuration, from the names and shapes of its tensors.

use super::config::KlVaeConfig;
use crate::{Error, Result};
use tessera_weights::Weights;

/// Groups of the reference's normalizations; shapes do not tell them.
pub(super) const NORM_GROUPS: usize = 32;
/// Side in px that attention is listed for: the released VAEs' own.
const RESOLUTION: usize = 256;

impl KlVaeConfig {
    /// What the weights are of. Everything follows from the shapes but for the groups of the normalizations and the
    /// resolution, which are the released VAEs' 32 and 256.
    ///
    /// # Errors
    /// [`Error::Infer`] names the tensor that is absent or of an unexpected shape.
    pub fn infer(weights: &Weights) -> Result<Self> {
        Self::infer_with(NORM_GROUPS, weights)
    }

    /// The same of normalizations that have another number of groups.
    pub(super) fn infer_with(norm_groups: usize, weights: &Weights) -> Result<Self> {
        let axis = |name: &str, axis: usize| {
            let found = weights.get(name);
            let size = found.and_then(|weight| weight.shape().get(axis).copied());
            size.filter(|&size| size > 0).ok_or_else(|| Error::Infer {
                file: weights.file().into(),
                name: name.into(),
                expected: "a tensor of a KL-VAE",
                found: match (found, weights.guess()) {
                    (Some(weight), _) => format!("{:?}", weight.shape()),
                    (None, Some(guess)) => format!("absent (it looks like a {guess})"),
                    (None, None) => "absent".into(),
                },
            })
        };
        let there = |name: String| weights.get(&name).is_some();
        let count =
            |name: &dyn Fn(usize) -> String| (0..).take_while(|&index| there(name(index))).count();
        let levels = count(&|level| format!("encoder.down.{level}.block.0.conv1.weight"));
        let ch = axis("encoder.conv_in.weight", 0)?;
        let ch_mult = (0..levels).map(|level| {
            let name = format!("encoder.down.{level}.block.0.conv1.weight");
            let width = axis(&name, 0)?;
            match width.is_multiple_of(ch) {
                true => Ok(width / ch),
                false => Err(Error::Infer {
                    file: weights.file().into(),
                    name,
                    expected: "a multiple of the first width",
                    found: width.to_string(),
                }),
            }
        });
        let attends = |blocks: &str| -> Vec<usize> {
            let at = |level: &usize| there(format!("{blocks}.{level}.attn.0.q.weight"));
            (0..levels)
                .filter(at)
                .map(|level| RESOLUTION >> level)
                .collect()
        };
        let config = Self {
            in_channels: axis("encoder.conv_in.weight", 1)?,
            out_ch: axis("decoder.conv_out.weight", 0)?,
            ch,
            ch_mult: ch_mult.collect::<Result<_>>()?,
            num_res_blocks: count(&|block| format!("encoder.down.0.block.{block}.conv1.weight")),
            attn_resolutions: attends("encoder.down"),
            decoder_attn_resolutions: attends("decoder.up"),
            resolution: RESOLUTION,
            z_channels: axis("post_quant_conv.weight", 0)?,
            norm_groups,
        };
        config.validate()?;
        Ok(config)
    }
}
