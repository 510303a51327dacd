//! The config of a released checkpoint, which comes without one, inferred from the names and shapes of its tensors.

use crate::{DitConfig, Error, Result};
use tessera_weights::Weights;

/// The number of heads by width, which shapes do not tell (DiT, table 1; Expert Race, table 4).
const HEADS: [(usize, usize); 5] = [(384, 6), (768, 12), (960, 16), (1024, 16), (1152, 16)];

impl DitConfig {
    /// Whether the names are those of a diffusion transformer.
    pub fn fits(weights: &Weights) -> bool {
        weights.get("x_embedder.proj.weight").is_some()
            && weights.get("final_layer.linear.weight").is_some()
    }

    /// Infers the config of a dense model from the shapes of its weights.
    ///
    /// # Errors
    /// [`Error::Infer`] names a tensor that is absent or of an unexpected shape.
    pub fn infer(weights: &Weights) -> Result<Self> {
        let fault = |name: &str, expected: &str, found: String| Error::Infer {
            file: weights.file().into(),
            name: name.into(),
            expected: expected.into(),
            found,
        };
        let shape = |name: &str, axes: usize| {
            let found = weights.get(name).map(|weight| weight.shape());
            let whole = found.filter(|shape| shape.len() == axes && !shape.contains(&0));
            whole.ok_or_else(|| {
                let found = found.map_or("absent".into(), |shape| format!("{shape:?}"));
                fault(name, &format!("a tensor of {axes} axes"), found)
            })
        };
        let &[width, channels, patch, _] = shape("x_embedder.proj.weight", 4)? else {
            unreachable!("it has four axes")
        };
        let seq = shape("pos_embed", 3)?[1];
        let classes = shape("y_embedder.embedding_table.weight", 2)?[0];
        let outputs = shape("final_layer.linear.weight", 2)?[0];
        let hidden = shape("blocks.0.mlp.fc1.weight", 2)?[0];
        let heads = HEADS.iter().find(|known| known.0 == width).ok_or_else(|| {
            let expected = "of width 384, 768, 960, 1024 or 1152, whose heads are known; others need a config.json";
            fault("x_embedder.proj.weight", expected, width.to_string())
        })?;
        let block = |i: &usize| {
            weights
                .get(&format!("blocks.{i}.attn.qkv.weight"))
                .is_some()
        };
        let depth = (0..).take_while(block).count();
        if classes < 2 {
            let expected = "of a row or more for classes and one for none";
            let name = "y_embedder.embedding_table.weight";
            return Err(fault(name, expected, classes.to_string()));
        }
        let latents = patch * patch * channels;
        if outputs != latents && outputs != 2 * latents {
            let expected = format!("of {latents} outputs, or {} with a variance", 2 * latents);
            let name = "final_layer.linear.weight";
            return Err(fault(name, &expected, outputs.to_string()));
        }
        if seq.isqrt().pow(2) != seq {
            return Err(fault("pos_embed", "positions of a square", seq.to_string()));
        }
        Ok(Self {
            input_size: seq.isqrt() * patch,
            in_channels: channels,
            mlp_ratio: hidden / width,
            num_classes: classes - 1,
            learn_sigma: outputs == 2 * latents,
            hidden_size: width,
            depth,
            num_heads: heads.1,
            patch_size: patch,
            ..Self::xl_2()
        })
    }
}
