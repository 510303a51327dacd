//! Random parameters of a seed.

use burn::module::{Param, ParamId};
use burn::tensor::{Device, Shape, Tensor};
use tessera_backend::Rng;

/// Uniform in `±bound`, from `rng`. Drawn when first used, so that a network made only to be loaded
/// into draws nothing.
pub(crate) fn uniform<const D: usize>(
    mut rng: Rng,
    shape: [usize; D],
    bound: f64,
    device: &Device,
) -> Param<Tensor<D>> {
    let draw = move |device: &Device, require_grad: bool| {
        let unit = rng.uniform_tensor(shape, device);
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
