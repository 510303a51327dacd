//! Random parameters of a seed.

use burn::module::{Param, ParamId};
use burn::tensor::{Device, Shape, Tensor};
use tessera_backend::Rng;

/// Uniform in `±bound`, from a random stream of its own. Drawn when first used, so that a network made only to be loaded
/// into draws nothing.
pub(crate) fn uniform<const D: usize>(
    [seed, stream]: [u64; 2],
    shape: [usize; D],
    bound: f64,
    device: &Device,
) -> Param<Tensor<D>> {
    let draw = move |device: &Device, require_grad: bool| {
        let unit = Rng::new(seed, stream).uniform_tensor(shape, device);
        (unit * (2.0 * bound) - bound).set_require_grad(require_grad)
    };
    Param::uninitialized(
        ParamId::new(),
        draw,
        device.clone(),
        true,
        Shape::from(shape),
    )
}
