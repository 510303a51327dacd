//! What a model's loss hands to the loop, and the same on the host.

use crate::error::{Error, Result};
use burn::tensor::Tensor;
use tessera_backend::host_values;

/// The losses of one batch.
///
/// # Shapes
/// - every tensor: `[1]`
#[derive(Debug, Clone)]
pub struct Losses {
    /// What is minimized.
    pub total: Tensor<1>,
    /// What is only reported, by the name it has in `metrics.jsonl`.
    pub parts: Vec<(&'static str, Tensor<1>)>,
    /// New values of buffers, by name: after the step the loop writes them into the model and its average. Where a
    /// batch has parts, their mean is written.
    pub buffers: Vec<(String, f32)>,
}

impl Losses {
    /// A loss alone, of shape `[1]`.
    ///
    /// # Shapes
    /// - `total`: `[1]`
    pub fn new(total: Tensor<1>) -> Self {
        Self {
            total,
            parts: Vec::new(),
            buffers: Vec::new(),
        }
    }
}

/// [`Losses`] on the host.
#[derive(Debug, Default)]
pub(crate) struct LossValues {
    pub total: f32,
    pub parts: Vec<(&'static str, f32)>,
    pub buffers: Vec<(String, f32)>,
}

impl LossValues {
    /// Reads the device once; `step` (from 1) is for the error.
    pub(crate) fn read(losses: &Losses, step: u64) -> Result<Self> {
        let names = std::iter::once("total").chain(losses.parts.iter().map(|(name, _)| *name));
        let total = std::iter::once(&losses.total);
        let tensors = total.chain(losses.parts.iter().map(|(_, tensor)| tensor));
        let values = Tensor::cat(tensors.map(|t| t.clone().inner()).collect(), 0);
        let values: Vec<_> = names.zip(host_values(values)).collect();
        if let Some((name, _)) = values.iter().find(|(_, value)| !value.is_finite()) {
            let what = format!("the loss `{name}`");
            return Err(Error::NonFinite { step, what });
        }
        if let Some((name, _)) = losses.buffers.iter().find(|(_, value)| !value.is_finite()) {
            let what = format!("the buffer `{name}`");
            return Err(Error::NonFinite { step, what });
        }
        Ok(Self {
            total: values[0].1,
            parts: values[1..].to_vec(),
            buffers: losses.buffers.clone(),
        })
    }

    /// All of them, in the order in which [`set`](Self::set) takes them.
    pub(crate) fn values(&self) -> Vec<f32> {
        let parts = self.parts.iter().map(|part| part.1);
        let buffers = self.buffers.iter().map(|buffer| buffer.1);
        std::iter::once(self.total)
            .chain(parts)
            .chain(buffers)
            .collect()
    }

    pub(crate) fn set(&mut self, values: &[f32]) {
        let parts = self.parts.iter_mut().map(|part| &mut part.1);
        let buffers = self.buffers.iter_mut().map(|buffer| &mut buffer.1);
        let all = std::iter::once(&mut self.total).chain(parts).chain(buffers);
        all.zip(values).for_each(|(to, &value)| *to = value);
    }

    /// The sum by name.
    pub(crate) fn plus(mut self, other: Self) -> Self {
        self.total += other.total;
        add(&mut self.parts, other.parts);
        add(&mut self.buffers, other.buffers);
        self
    }

    pub(crate) fn divided(mut self, by: f32) -> Self {
        self.total /= by;
        self.parts.iter_mut().for_each(|(_, value)| *value /= by);
        self.buffers.iter_mut().for_each(|(_, value)| *value /= by);
        self
    }
}

/// Adds values to those of the same names.
fn add<N: PartialEq>(sums: &mut Vec<(N, f32)>, values: Vec<(N, f32)>) {
    for (name, value) in values {
        match sums.iter_mut().find(|sum| sum.0 == name) {
            Some((_, sum)) => *sum += value,
            None => sums.push((name, value)),
        }
    }
}
