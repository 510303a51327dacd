//! An inverted residual block (Sandler et al., arXiv 1801.04381): more channels, a convolution of each by itself, fewer
//! channels again.

use super::layers::{Layer, same};
use super::network::RELU6;
use crate::error::Result;
use burn::tensor::{Device, Tensor};
use tessera_backend::nn::Conv2d;
use tessera_backend::ops::{conv2d, depthwise_clamped, residual};
use tessera_weights::Weights;

/// Sizes of one block.
#[derive(Clone, Copy)]
pub(super) struct BlockSizes {
    /// Its number in the checkpoint.
    pub(super) index: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    /// The channels between, as a multiple of those in.
    pub(super) expand: usize,
}

impl BlockSizes {
    /// The layers in the checkpoint's names: to more channels, unless that is no more; each by itself; back.
    pub(super) fn layers(&self) -> (Option<Layer>, Layer, Layer) {
        let name = |layer: &str| format!("_blocks.{}.{layer}", self.index);
        let between = self.inputs * self.expand;
        let expand = || {
            let (conv, norm) = (name("_expand_conv"), name("_bn0"));
            Layer::pointwise(conv, norm, self.inputs, between)
        };
        let depthwise = Layer {
            conv: name("_depthwise_conv"),
            norm: name("_bn1"),
            inputs: between,
            outputs: between,
            kernel: self.kernel,
            stride: self.stride,
            depthwise: true,
        };
        let (conv, norm) = (name("_project_conv"), name("_bn2"));
        let project = Layer::pointwise(conv, norm, between, self.outputs);
        ((self.expand > 1).then(expand), depthwise, project)
    }
}

/// A block with its weights.
#[derive(Debug)]
pub(super) struct Block {
    expand: Option<Conv2d>,
    depthwise: Conv2d,
    project: Conv2d,
    shortcut: bool,
}

impl Block {
    /// # Errors
    /// As [`Layer::fold`].
    pub(super) fn new(sizes: BlockSizes, weights: &Weights, device: &Device) -> Result<Self> {
        let (expand, depthwise, project) = sizes.layers();
        Ok(Self {
            expand: match expand {
                Some(layer) => Some(layer.fold(weights, device)?),
                None => None,
            },
            depthwise: depthwise.fold(weights, device)?,
            project: project.fold(weights, device)?,
            shortcut: sizes.stride == 1 && sizes.inputs == sizes.outputs,
        })
    }

    /// # Shapes
    /// - `x`: `[batch, inputs, height, width]`; before its rectifier, if it is the stem's
    /// - returns `[batch, outputs, ⌈height / stride⌉, ⌈width / stride⌉]`
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, _, height, width] = x.dims();
        // The rectifiers on both sides are the depthwise kernel's: these maps are the largest of the network, and each
        // pass over one costs as much as a convolution.
        let h = match &self.expand {
            Some(conv) => conv2d(x.clone(), conv, [0; 4]),
            None => x.clone(),
        };
        let padding = same([height, width], &self.depthwise);
        let h = depthwise_clamped(h, &self.depthwise, padding, RELU6);
        let h = conv2d(h, &self.project, [0; 4]);
        match self.shortcut {
            true => residual(x, h),
            false => h,
        }
    }
}
