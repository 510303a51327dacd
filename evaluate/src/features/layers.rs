//! Convolutions as the checkpoint has them, each with the batch normalization behind it folded in.

use crate::error::Result;
use burn::module::Param;
use burn::tensor::Device;
use std::collections::BTreeMap;
use tessera_backend::device_values;
use tessera_backend::nn::Conv2d;
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

    /// `[out, in per output, kernel, kernel]`.
    fn shape(&self) -> [usize; 4] {
        let each = if self.depthwise { 1 } else { self.inputs };
        [self.outputs, each, self.kernel, self.kernel]
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
        Ok(Conv2d {
            weight: Param::from_tensor(device_values(w, self.shape(), device)),
            bias: Some(Param::from_tensor(device_values(
                shift,
                [self.outputs],
                device,
            ))),
            stride: [self.stride; 2],
        })
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
    let [_, _, height, width] = conv.weight.dims();
    let [top, left] = [0, 1].map(|axis| {
        let (side, stride) = (sides[axis], conv.stride[axis]);
        let covered = (side.div_ceil(stride) - 1) * stride + [height, width][axis];
        covered.saturating_sub(side)
    });
    [top / 2, left / 2, top - top / 2, left - left / 2]
}
