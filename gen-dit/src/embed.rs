//! The transformer's inputs: patches, positions, time and class.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use tessera_backend::init::ParamInit;
use tessera_backend::nn::{Conv2d, Embedding, Linear, Silu};
use tessera_backend::ops::{self, Activation};
use tessera_backend::{device_indices, device_values};

/// Embeds the patches of latents as tokens.
#[derive(Module, Debug)]
pub struct PatchEmbed {
    proj: Conv2d,
}

impl PatchEmbed {
    /// Xavier-uniform over the patch's values, as for the linear map that this convolution is.
    pub(crate) fn init(channels: usize, width: usize, patch: usize, init: &mut ParamInit) -> Self {
        Self {
            proj: init.conv2d([channels, width], [patch, patch], patch),
        }
    }

    /// One token per patch, row by row.
    ///
    /// # Shapes
    /// - x: `[batch, channels, height, width]`
    /// - output: `[batch, tokens, d_model]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<3> {
        let y = ops::conv2d(x, &self.proj, [0; 4]); // [batch, d_model, rows, columns]
        y.flatten::<3>(2, 3).swap_dims(1, 2) // [batch, tokens, d_model]
    }
}

/// Sines and cosines of the time embedding.
pub(crate) const FREQUENCIES: usize = 256;
/// Its longest period in radians.
const MAX_PERIOD: f64 = 10_000.0;

/// Embeds a time as a condition.
#[derive(Module, Debug)]
pub struct TimestepEmbedder {
    mlp: (Linear, Silu, Linear),
}

impl TimestepEmbedder {
    pub(crate) fn init(width: usize, init: &mut ParamInit) -> Self {
        Self {
            mlp: (
                init.normal_linear(FREQUENCIES, width, 0.02),
                Silu,
                init.normal_linear(width, width, 0.02),
            ),
        }
    }

    /// Sines and cosines of the time through an MLP.
    ///
    /// # Shapes
    /// - times: one per image, in 0..1000
    /// - output: `[batch, d_model]`
    pub fn forward(&self, times: &[f32]) -> Tensor<2> {
        let device = self.mlp.0.weight.val().device();
        let half = FREQUENCIES / 2;
        let frequency = |i: usize| (-MAX_PERIOD.ln() * i as f64 / half as f64).exp();
        let mut waves = Vec::with_capacity(times.len() * FREQUENCIES);
        for &time in times {
            let angle = |i| f64::from(time) * frequency(i);
            waves.extend((0..half).map(|i| angle(i).cos() as f32));
            waves.extend((0..half).map(|i| angle(i).sin() as f32));
        }
        let waves = device_values(waves, [times.len(), FREQUENCIES], &device);
        let hidden = ops::linear(waves, &self.mlp.0, Activation::Silu);
        ops::linear(hidden, &self.mlp.2, Activation::None)
    }
}

/// Embeds a class as a condition.
#[derive(Module, Debug)]
pub struct LabelEmbedder {
    embedding_table: Embedding,
}

impl LabelEmbedder {
    /// One row per class, and one for no class.
    pub(crate) fn init(classes: usize, width: usize, init: &mut ParamInit) -> Self {
        Self {
            embedding_table: init.embedding(classes + 1, width, 0.02),
        }
    }

    /// The embedding of each label.
    ///
    /// # Shapes
    /// - labels: one per image; `None` takes the row for no class
    /// - output: `[batch, d_model]`
    pub fn forward(&self, labels: &[Option<usize>]) -> Tensor<2> {
        let table = self.embedding_table.weight.val();
        let none = table.dims()[0] - 1;
        let rows: Vec<i32> = labels
            .iter()
            .map(|label| label.unwrap_or(none) as i32)
            .collect();
        let rows = device_indices(rows, [labels.len()], &table.device());
        table.select(0, rows)
    }
}

/// The position embedding of DiT and MAE, `[grid², d_model]`, row-major: sines and cosines of a token's column in the
/// first half of the features, of its row in the second.
pub(crate) fn position_table(d_model: usize, grid: usize) -> Vec<f32> {
    let quarter = d_model / 4;
    let frequency = |i: usize| MAX_PERIOD.powf(-(i as f64) / quarter as f64);
    let mut table = Vec::with_capacity(grid * grid * d_model);
    for row in 0..grid {
        for column in 0..grid {
            for place in [column, row] {
                let angle = |i| place as f64 * frequency(i);
                table.extend((0..quarter).map(|i| angle(i).sin() as f32));
                table.extend((0..quarter).map(|i| angle(i).cos() as f32));
            }
        }
    }
    table
}

/// One factor per image, which broadcasts over its latents.
///
/// # Shapes
/// - output: `[batch, 1, 1, 1]`
pub(crate) fn per_image(values: impl IntoIterator<Item = f64>, device: &Device) -> Tensor<4> {
    let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
    let batch = values.len();
    device_values(values, [batch, 1, 1, 1], device)
}
