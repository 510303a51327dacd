//! Convolutions as the checkpoint has them, each with the batch normalization behind it folded in.

use crate::error::Result;
use burn::module::{Initializer, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::Device;
use std::collections::BTreeMap;
use tessera_backend::device_values;
use tessera_weights::Weights;

/// Added to the variance of every normalization.
const EPS: f32 = 1e-3;
/// What a normalization has per channel.
const STATISTICS: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

/// One convolution of the table, without bias, and the normalization behind it.
pub(super) struct Layer {
    pub(super) conv: String,
    pub(super) norm: String,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    /// Whether each channel is convolved by itself.
    pub(super) depthwise: bool,
}

impl Layer {
    /// Channels in and out, over all of which a 1 x 1 kernel goes.
    pub(super) fn pointwise(conv: String, norm: String, inputs: usize, outputs: usize) -> Self {
        Self {
            conv,
            norm,
            inputs,
            outputs,
            kernel: 1,
            stride: 1,
            depthwise: false,
        }
    }

    fn groups(&self) -> usize {
        if self.depthwise { self.inputs } else { 1 }
    }

    /// `[out, in per group, kernel, kernel]`.
    fn shape(&self) -> [usize; 4] {
        let per_group = self.inputs / self.groups();
        [self.outputs, per_group, self.kernel, self.kernel]
    }

    /// The names and shapes that a checkpoint has for it.
    pub(super) fn expect(&self, shapes: &mut BTreeMap<String, Vec<usize>>) {
        shapes.insert(format!("{}.weight", self.conv), self.shape().to_vec());
        for name in STATISTICS {
            shapes.insert(format!("{}.{name}", self.norm), vec![self.outputs]);
        }
    }

    /// `w x` then `(y − mean) / √(var + ε) · weight + bias` as one convolution.
    ///
    /// # Errors
    /// When the file can no longer be read; its names and shapes are known to fit.
    pub(super) fn fold(&self, weights: &Weights, device: &Device) -> Result<Conv2d> {
        let mut w = values(weights, &format!("{}.weight", self.conv))?;
        let mut statistics = Vec::with_capacity(STATISTICS.len());
        for name in STATISTICS {
            statistics.push(values(weights, &format!("{}.{name}", self.norm))?);
        }
        let depth = w.len() / self.outputs;
        let mut shift = Vec::with_capacity(self.outputs);
        for (channel, taps) in w.chunks_exact_mut(depth).enumerate() {
            let of = |index: usize| statistics[index][channel];
            let scale = of(0) / (of(3) + EPS).sqrt();
            taps.iter_mut().for_each(|tap| *tap *= scale);
            shift.push(of(1) - of(2) * scale);
        }
        let mut conv = Conv2dConfig::new([self.inputs, self.outputs], [self.kernel; 2])
            .with_stride([self.stride; 2])
            .with_groups(self.groups())
            .with_initializer(Initializer::Zeros)
            .init(device);
        conv.weight = Param::from_tensor(device_values(w, self.shape(), device));
        conv.bias = Some(Param::from_tensor(device_values(
            shift,
            [self.outputs],
            device,
        )));
        Ok(conv)
    }
}

/// The values of a tensor that is known to be there.
pub(super) fn values(weights: &Weights, name: &str) -> Result<Vec<f32>> {
    let weight = weights.get(name);
    let weight = weight.expect("the names were held against the network's");
    Ok(weight.values()?.into_owned())
}

/// TensorFlow's padding `SAME`, `[top, left, bottom, right]`: ⌈side / stride⌉ outputs, and where the zeros are odd,
/// one more at the end.
pub(super) fn same(sides: [usize; 2], conv: &Conv2d) -> [usize; 4] {
    let [top, left] = [0, 1].map(|axis| {
        let (side, stride) = (sides[axis], conv.stride[axis]);
        let covered = (side.div_ceil(stride) - 1) * stride + conv.kernel_size[axis];
        covered.saturating_sub(side)
    });
    [top / 2, left / 2, top - top / 2, left - left / 2]
}
