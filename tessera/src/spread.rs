//! What is known of the spread of a tokenizer's latents, as a quantizer takes it.

use tessera_quantize::QuantizerConfig;
use tessera_tokenizer::LatentScale;

/// The quantizer of latents of known spread.
pub fn quantizer_of(LatentScale { mean, scale }: LatentScale) -> QuantizerConfig {
    let unless = |values: &[f32], neutral: &[f32]| match values == neutral {
        true => Vec::new(),
        false => values.to_vec(),
    };
    QuantizerConfig {
        mean: unless(&mean, &LatentScale::UNIT.mean),
        scale: unless(&scale, &LatentScale::UNIT.scale),
        ..QuantizerConfig::default()
    }
}
