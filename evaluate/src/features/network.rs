//! EfficientNet-Lite0 (Tan & Le, arXiv 1905.11946, without squeeze-and-excitation and with ReLU6), trained on ImageNet:
//! 0.39 billion multiplications a picture.

use super::block::{Block, BlockSizes};
use super::layers::{Layer, same, values};
use crate::error::{Error, Result};
use burn::module::Param;
use burn::tensor::{Device, Tensor};
use ndarray::{Array2, Array4};
use std::collections::BTreeMap;
use std::path::Path;
use tessera_backend::nn::{Conv2d, Linear};
use tessera_backend::ops::{Activation, conv2d, linear};
use tessera_backend::{device_values, host_values, upload};
use tessera_pictures::{Channels, Filter, Pixels, resize};
use tessera_weights::Weights;

/// The rectifier that levels off at 6.
pub(super) const RELU6: [f32; 2] = [0.0, 6.0];
/// Height and width that pictures are brought to.
const SIDE: usize = 224;
/// Channels behind the stem.
const STEM: usize = 32;
/// Classes of ImageNet.
const CLASSES: usize = 1000;
/// Repeats, kernel, stride of the first, expansion, channels out.
const STAGES: [[usize; 5]; 7] = [
    [1, 3, 1, 1, 16],
    [2, 3, 2, 6, 24],
    [2, 5, 2, 6, 40],
    [3, 3, 2, 6, 80],
    [3, 5, 1, 6, 112],
    [4, 5, 2, 6, 192],
    [1, 3, 1, 6, 320],
];
/// The blocks that end the stages of 24, 40, 112 and 320 channels.
const TAPS: [usize; 4] = [2, 4, 10, 15];
/// Pictures that go through together: results do not depend on it.
const BATCH: usize = 8;
/// Added to a squared length that is divided by.
const TINY: f32 = 1e-10;

/// The network, for looking at pictures.
#[derive(Debug)]
pub struct EffLite0 {
    stem: Conv2d,
    blocks: Vec<Block>,
    head: Conv2d,
    classes: Linear,
}

/// What the network sees in some pictures.
#[derive(Debug)]
pub struct View {
    /// The pooled features of every picture, `[pictures, 1280]`.
    pub features: Array2<f64>,
    /// The stages of every batch, each position a unit vector: `[batch, channels, height, width]`.
    stages: Vec<Vec<Tensor<4>>>,
}

fn blocks() -> Vec<BlockSizes> {
    let (mut blocks, mut inputs) = (Vec::new(), STEM);
    for [repeats, kernel, stride, expand, outputs] in STAGES {
        for repeat in 0..repeats {
            blocks.push(BlockSizes {
                index: blocks.len(),
                inputs,
                outputs,
                kernel,
                stride: if repeat == 0 { stride } else { 1 },
                expand,
            });
            inputs = outputs;
        }
    }
    blocks
}

fn stem() -> Layer {
    Layer {
        conv: "_conv_stem".into(),
        norm: "_bn0".into(),
        inputs: 3,
        outputs: STEM,
        kernel: 3,
        stride: 2,
        depthwise: false,
    }
}

fn head() -> Layer {
    let [.., last] = STAGES.map(|[.., outputs]| outputs);
    Layer::pointwise("_conv_head".into(), "_bn1".into(), last, EffLite0::FEATURES)
}

impl EffLite0 {
    /// What a distance in these features is called. It is not FID, which is defined by one Inception network.
    pub const DISTANCE: &str = "FD-EffLite0";
    /// Features of a picture.
    pub const FEATURES: usize = 1280;

    /// Every name of a checkpoint with its shape, without the counters of training steps, which are not used.
    pub fn shapes() -> BTreeMap<String, Vec<usize>> {
        let mut shapes = BTreeMap::new();
        for layer in [stem(), head()] {
            layer.expect(&mut shapes);
        }
        for sizes in blocks() {
            let (expand, depthwise, project) = sizes.layers();
            for layer in expand.iter().chain([&depthwise, &project]) {
                layer.expect(&mut shapes);
            }
        }
        shapes.insert("_fc.weight".into(), vec![CLASSES, Self::FEATURES]);
        shapes.insert("_fc.bias".into(), vec![CLASSES]);
        shapes
    }

    /// Opens published weights, as safetensors or in PyTorch's own formats: whole, or not at all.
    ///
    /// # Errors
    /// When the file cannot be read, or its names and shapes are another network's.
    pub fn open(file: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Self::from_weights(Weights::read_model(file, None)?, device)
    }

    /// The network of these weights.
    ///
    /// # Errors
    /// When their names and shapes are another network's.
    pub fn from_weights(mut weights: Weights, device: &Device) -> Result<Self> {
        let expected = Self::shapes();
        // A counter of training steps, beside each normalization.
        for name in expected.keys() {
            if let Some(norm) = name.strip_suffix("running_mean") {
                weights.take(&format!("{norm}num_batches_tracked"));
            }
        }
        weights.fits_shapes(&expected)?;
        let of_blocks = blocks().into_iter();
        let of_blocks = of_blocks.map(|sizes| Block::new(sizes, &weights, device));
        let table = values(&weights, "_fc.weight")?;
        let table: Tensor<2> = device_values(table, [CLASSES, Self::FEATURES], device);
        let bias = values(&weights, "_fc.bias")?;
        let classes = Linear {
            weight: Param::from_tensor(table.transpose()),
            bias: Some(Param::from_tensor(device_values(bias, [CLASSES], device))),
        };
        Ok(Self {
            stem: stem().fold(&weights, device)?,
            blocks: of_blocks.collect::<Result<_>>()?,
            head: head().fold(&weights, device)?,
            classes,
        })
    }

    /// The outputs of the stages of 24, 40, 112 and 320 channels, and the pooled features.
    ///
    /// # Shapes
    /// - `images`: `[batch, 3, height, width]`, `(x − 127) / 128` of samples in `[0, 255]`
    /// - returns `[batch, channels, height', width']` each, and `[batch, 1280]`
    pub fn forward(&self, images: Tensor<4>) -> (Vec<Tensor<4>>, Tensor<2>) {
        let [batch, _, height, width] = images.dims();
        let mut x = conv2d(images, &self.stem, same([height, width], &self.stem));
        let mut stages = Vec::with_capacity(TAPS.len());
        for (index, block) in self.blocks.iter().enumerate() {
            x = block.forward(x);
            if TAPS.contains(&index) {
                stages.push(x.clone());
            }
        }
        let [low, high] = RELU6;
        let x = conv2d(x, &self.head, [0; 4]).clamp(low, high);
        let pooled = x
            .reshape([batch as i32, Self::FEATURES as i32, -1])
            .mean_dim(2);
        (stages, pooled.reshape([batch, Self::FEATURES]))
    }

    /// The logits of ImageNet's classes from the pooled features.
    ///
    /// # Shapes
    /// - `features`: `[batch, 1280]`
    /// - returns `[batch, 1000]`
    pub fn logits(&self, features: Tensor<2>) -> Tensor<2> {
        linear(features, &self.classes, Activation::None)
    }

    /// Looks at pictures of any size: each is made RGB and resized to 224 x 224 px as a whole, by the bicubic filter of
    /// [`resize`], which does not keep its proportions and crops nothing.
    ///
    /// # Errors
    /// [`Error::NonFiniteFeature`].
    pub fn view(&self, pictures: &[Pixels]) -> Result<View> {
        let device = self.stem.weight.val().device();
        let (mut features, mut stages) = (Vec::new(), Vec::new());
        for pictures in pictures.chunks(BATCH) {
            let (taps, pooled) = self.forward(upload(prepared(pictures)?, &device));
            let pooled = pooled.reshape([pictures.len() * Self::FEATURES]);
            features.extend(host_values(pooled).into_iter().map(f64::from));
            stages.push(taps);
        }
        let features = Array2::from_shape_vec((pictures.len(), Self::FEATURES), features)
            .expect("every picture gave one row");
        match features.indexed_iter().find(|(_, x)| !x.is_finite()) {
            Some(((row, column), _)) => Err(Error::NonFiniteFeature { row, column }),
            None => Ok(View { features, stages }),
        }
    }
}

impl View {
    /// How unlike the pictures of two views are, one by one: the squared difference of the stages' outputs, each
    /// position of unit length over its channels, averaged over positions and then over the four stages. As LPIPS
    /// (Zhang et al., arXiv 1801.03924), but in another network and without learned weights: it is not LPIPS.
    ///
    /// # Panics
    /// If the views are of unequal numbers of pictures.
    pub fn distances(&self, other: &Self) -> Vec<f64> {
        assert_eq!(self.features.nrows(), other.features.nrows(), "pictures");
        let mut distances = Vec::with_capacity(self.features.nrows());
        for (here, there) in self.stages.iter().zip(&other.stages) {
            let of_stage = |(a, b): (&Tensor<4>, &Tensor<4>)| {
                let apart = unit(a) - unit(b);
                let [batch, _, height, width] = apart.dims();
                let apart = (apart.clone() * apart).sum_dim(1);
                apart.reshape([batch, height * width]).mean_dim(1)
            };
            let of_stages = here.iter().zip(there).map(of_stage);
            let mean = Tensor::cat(of_stages.collect(), 1).mean_dim(1);
            let [batch, _] = mean.dims();
            let mean = host_values(mean.reshape([batch]));
            distances.extend(mean.into_iter().map(f64::from));
        }
        distances
    }
}

/// Every position of unit length over its channels.
fn unit(x: &Tensor<4>) -> Tensor<4> {
    let squares = (x.clone() * x.clone()).sum_dim(1);
    x.clone() / (squares + TINY).sqrt()
}

/// Pictures as the network was trained on them.
fn prepared(pictures: &[Pixels]) -> Result<Array4<f32>> {
    let mut images = Array4::zeros((pictures.len(), 3, SIDE, SIDE));
    for (picture, mut image) in pictures.iter().zip(images.outer_iter_mut()) {
        let picture = resize(
            &picture.to_channels(Channels::Rgb),
            SIDE,
            SIDE,
            Filter::Bicubic,
        )?;
        for (at, pixel) in picture.data().as_chunks::<3>().0.iter().enumerate() {
            for (channel, &sample) in pixel.iter().enumerate() {
                image[[channel, at / SIDE, at % SIDE]] = (f32::from(sample) - 127.0) / 128.0;
            }
        }
    }
    Ok(images)
}
