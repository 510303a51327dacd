//! The config of a checkpoint that comes without one, inferred from the names and shapes of its tensors.

use crate::config::{GenArConfig, TransformerConfig};
use crate::{Error, Result};
use tessera_weights::Weights;

/// The number of heads of the released backbones by width, which shapes do not tell.
const HEADS: [(usize, usize); 3] = [(768, 12), (1024, 16), (1280, 16)];

/// A tensor of backbones with experts, in place of an MLP's.
const EXPERTS: &str = "encoder_blocks.0.moe.experts.fc1.weight";

impl GenArConfig {
    /// Infers the config from the shapes of the weights. They tell all sizes but the backbone's number of heads,
    /// which is known for the released widths. A model with experts needs a config, because shapes do not tell the
    /// routing rule.
    ///
    /// # Errors
    /// [`Error::Infer`] names a tensor that is absent or of an unexpected shape.
    pub fn infer(weights: &Weights) -> Result<Self> {
        let shape = Shapes(weights);
        let [_, rows, _] = shape.of("encoder_pos_embed_learned")?;
        let [_, seq, dec_width] = shape.of("output_pos_embed")?;
        let [_, dims, ch_width] = shape.of("channel_embed")?;
        let [class_num, enc_width] = shape.of("class_emb.weight")?;
        let [levels, _] = shape.of("channel_heads.0.weight")?;
        let dense = "encoder_blocks.0.mlp.fc1.weight";
        if let Some(experts) = weights.get(EXPERTS) {
            let expected = "there: shapes do not tell how experts are routed, such a model needs a config.json";
            let found = format!("absent, and `{EXPERTS}` is {:?}", experts.shape());
            return Err(shape.fault(dense, expected, found));
        }
        let [hidden, _] = shape.of(dense)?;
        let [head_dim] = shape.of("channel_blocks.0.attn.q_norm.weight")?;
        let side = seq.isqrt();
        let sizes = [
            (
                side * side == seq,
                "output_pos_embed",
                "positions of a square",
                seq,
            ),
            (
                rows > seq,
                "encoder_pos_embed_learned",
                "more rows than positions",
                rows,
            ),
            (
                hidden.is_multiple_of(enc_width),
                dense,
                "a multiple of the width",
                hidden,
            ),
            (
                head_dim > 0 && ch_width.is_multiple_of(head_dim),
                "channel_blocks.0.attn.q_norm.weight",
                "a divisor of the head's width",
                head_dim,
            ),
        ];
        if let Some((_, name, expected, found)) = sizes.into_iter().find(|size| !size.0) {
            return Err(shape.fault(name, expected, found));
        }
        let backbone = |name: &'static str, width| {
            let heads = HEADS
                .iter()
                .find(|known| known.0 == width)
                .map(|known| known.1);
            let expected =
                "a width of 768, 1024 or 1280, whose heads are known; others need a config.json";
            let heads = heads.ok_or_else(|| shape.fault(name, expected, width))?;
            Ok::<_, Error>(TransformerConfig {
                width,
                depth: shape.depth(name),
                heads,
            })
        };
        let [enc, dec] = [
            backbone("encoder_blocks", enc_width)?,
            backbone("decoder_blocks", dec_width)?,
        ];
        let head = TransformerConfig {
            width: ch_width,
            depth: shape.depth("channel_blocks"),
            heads: ch_width / head_dim,
        };
        Ok(Self {
            class_num,
            dec,
            buffer_size: rows - seq,
            mlp_ratio: hidden / enc_width,
            ..Self::new([side, side], dims, levels, enc, head)
        })
    }
}

/// The shapes of a state dict.
struct Shapes<'a>(&'a Weights);

impl Shapes<'_> {
    /// The shape of a tensor that must be there.
    fn of<const D: usize>(&self, name: &'static str) -> Result<[usize; D]> {
        let found = self.0.get(name).map(|weight| weight.shape());
        let shape = found.and_then(|shape| <[usize; D]>::try_from(shape).ok());
        let shape = shape.filter(|shape| !shape.contains(&0));
        shape.ok_or_else(|| {
            let found = match (found, self.0.guess()) {
                (Some(shape), _) => format!("{shape:?}"),
                (None, Some(guess)) => format!("absent (it looks like a {guess})"),
                (None, None) => "absent".into(),
            };
            self.fault(name, &format!("a tensor of {D} axes"), found)
        })
    }

    /// The number of blocks in a stack.
    fn depth(&self, blocks: &str) -> usize {
        let there = |index: &usize| {
            self.0
                .get(&format!("{blocks}.{index}.norm1.weight"))
                .is_some()
        };
        (0..).take_while(there).count()
    }

    fn fault(&self, name: &'static str, expected: &str, found: impl ToString) -> Error {
        Error::Infer {
            file: self.0.file().into(),
            name,
            expected: expected.into(),
            found: found.to_string(),
        }
    }
}
