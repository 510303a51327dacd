//! A place in the sequence, and the residual block that takes most of them.

use super::init::TinyInit;
use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::tensor::{Device, Tensor};
use tessera_backend::nn::{Conv2d, GroupNorm};
use tessera_backend::ops::{
    Activation, activation, conv2d, group_norm, residual, upsample_nearest,
};

/// Channels everywhere between image and latents.
pub(super) const WIDTH: usize = 64;
/// Channels of the pooled branch.
const POOL_WIDTH: usize = 256;
/// Groups of the pooled branch's normalization.
const POOL_GROUPS: usize = 4;
/// PyTorch's default.
const NORM_EPS: f64 = 1e-5;
/// Where [`Layer::Clamp`] levels off: latents are near the standard normal.
const LATENT_BOUND: f32 = 3.0;

/// One place of a sequence. The parameters are named as if this enum were not there: `3.weight`, not `3.Conv.weight`.
#[derive(Debug, Clone)]
pub enum Layer {
    /// A convolution whose zero padding keeps the sides, or halves them at stride 2.
    Conv(Conv2d),
    /// Group normalization.
    Norm(GroupNorm),
    /// A residual block.
    Block(Block),
    /// What is below 0 becomes 0.
    Relu,
    /// `3 tanh(z / 3)`: what no encoder gives is brought near what one does.
    Clamp,
    /// Nearest-neighbor doubling of the sides.
    Upsample,
}

impl Layer {
    /// # Shapes
    /// - `x`: `[batch, channels, height, width]`
    /// - returns `[batch, channels', height', width']`, as the layer has it
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Conv(conv) => conv2d(x, conv, [conv.weight.dims()[2] / 2; 4]),
            Self::Norm(norm) => group_norm(x, norm, Activation::None),
            Self::Block(block) => block.forward(x),
            Self::Relu => activation(x, Activation::Relu),
            Self::Clamp => (x / LATENT_BOUND).tanh() * LATENT_BOUND,
            Self::Upsample => upsample_nearest(x),
        }
    }
}

/// One layer after the other.
///
/// # Shapes
/// - `x`: as the first layer reads it; returned as the last one leaves it
pub(super) fn forward(layers: &[Layer], x: Tensor<4>) -> Tensor<4> {
    layers.iter().fold(x, |x, layer| layer.forward(x))
}

/// `relu(x + conv(x))`, `conv` being three convolutions with rectifiers between them. Where there is a `pool`, two
/// 1 x 1 convolutions around a normalization over the whole picture, `x` stands for `x + pool(x)`.
#[derive(Module, Debug)]
pub struct Block {
    conv: Vec<Layer>,
    pool: Vec<Layer>,
}

impl Block {
    pub(super) fn new(pooled: bool, init: &mut TinyInit) -> Self {
        let mut conv = || Layer::Conv(init.conv(WIDTH, WIDTH, 3));
        Self {
            conv: vec![conv(), Layer::Relu, conv(), Layer::Relu, conv()],
            pool: match pooled {
                true => pool(init),
                false => Vec::new(),
            },
        }
    }

    /// # Shapes
    /// - `x`: `[batch, 64, height, width]`
    /// - returns `[batch, 64, height, width]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = match &*self.pool {
            [] => x,
            pool => residual(x.clone(), forward(pool, x)),
        };
        let y = residual(x.clone(), forward(&self.conv, x));
        activation(y, Activation::Relu)
    }
}

fn pool(init: &mut TinyInit) -> Vec<Layer> {
    vec![
        Layer::Conv(init.unbiased(WIDTH, POOL_WIDTH, 1, 1)),
        Layer::Norm(GroupNorm::new(
            POOL_GROUPS,
            POOL_WIDTH,
            NORM_EPS,
            init.device,
        )),
        Layer::Relu,
        Layer::Conv(init.unbiased(POOL_WIDTH, WIDTH, 1, 1)),
    ]
}

/// The layer with its module, if it has one, replaced.
macro_rules! map_module {
    ($layer:expr, $module:ident => $mapped:expr) => {
        match $layer {
            Layer::Conv($module) => Layer::Conv($mapped),
            Layer::Norm($module) => Layer::Norm($mapped),
            Layer::Block($module) => Layer::Block($mapped),
            Layer::Relu => Layer::Relu,
            Layer::Clamp => Layer::Clamp,
            Layer::Upsample => Layer::Upsample,
        }
    };
}

/// What is made of the layer's module, or of there being none.
macro_rules! with_module {
    ($layer:expr, $module:ident => $result:expr, $none:expr) => {
        match $layer {
            Layer::Conv($module) => $result,
            Layer::Norm($module) => $result,
            Layer::Block($module) => $result,
            Layer::Relu | Layer::Clamp | Layer::Upsample => $none,
        }
    };
}

/// By hand, because the derived walk would put the variant into every parameter's name.
impl Module for Layer {
    fn visit<Visitor: ModuleVisitor>(&self, visitor: &mut Visitor) {
        with_module!(self, module => module.visit(visitor), ())
    }
    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        map_module!(self, module => module.map(mapper))
    }
    fn collect_devices(&self, devices: Devices) -> Devices {
        with_module!(self, module => module.collect_devices(devices), devices)
    }
    fn to_device(self, device: &Device) -> Self {
        map_module!(self, module => module.to_device(device))
    }
    fn fork(self, device: &Device) -> Self {
        map_module!(self, module => module.fork(device))
    }
    fn train(self) -> Self {
        map_module!(self, module => module.train())
    }
    fn valid(&self) -> Self {
        map_module!(self, module => module.valid())
    }
    fn materialize(self) -> Self {
        map_module!(self, module => module.materialize())
    }
}

impl ModuleDisplay for Layer {}

impl ModuleDisplayDefault for Layer {
    fn content(&self, content: Content) -> Option<Content> {
        let bare = content.clone().set_top_level_type(&format!("{self:?}"));
        with_module!(self, module => content.add_single(module), bare).optional()
    }
}
