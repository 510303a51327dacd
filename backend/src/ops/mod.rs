//! The operations models call: safe functions over `Tensor`, whatever device it is on and whether or not it is being
//! differentiated. Rows (images, heads) are computed independently: none depends on how many there are.

mod custom_op;
mod experts;
mod image;
mod optim;
mod parts;
mod sequence;

pub use crate::arguments::{
    Activation, AdamWStep, CustomOp, Mask, Routes, Sampling, SavedForBackward, reaches,
};
pub use custom_op::{custom_op, custom_op_3};
pub use experts::{Experts, experts, experts_above};
pub use image::{conv2d, depthwise_clamped, group_norm, upsample_nearest};
pub use optim::adamw_step;
pub use parts::{
    columns, merge_heads, repeat_rows, split_heads, split_linear, sum_rows, weight_of,
};
pub(crate) use sequence::packed;
pub use sequence::{
    attention, attention_gradients, attention_with_dropout, attention_with_lse, categorical,
    cross_entropy, layer_norm, linear, modulate,
};

use crate::Backend;
use burn::backend::Dispatch;
use burn::tensor::{Int, Shape, Tensor};

/// `act(x)`, where no linear map or normalization precedes it.
///
/// # Shapes
/// - `x`: any; the output has the same.
pub fn activation<const D: usize>(x: Tensor<D>, act: Activation) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Backend>::activation(x.into_dispatch(), act))
}

/// `average + share · (value − average)`: a step of an exponential moving average. Not differentiated.
///
/// # Shapes
/// - `average`, `value`, output: any, all the same
pub fn blend<const D: usize>(average: Tensor<D>, value: Tensor<D>, share: f64) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Backend>::blend(
        average.into_dispatch(),
        value.into_dispatch(),
        share,
    ))
}

/// A table with other values in some of its rows, each of which is named once; in place if nobody else has the table.
/// Not differentiated.
///
/// # Shapes
/// - `table`, output: `[n, d]`
/// - `rows`: `[m]`, each in `0..n`
/// - `values`: `[m, d]`
pub fn put_rows(table: Tensor<2>, rows: Tensor<1, Int>, values: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as Backend>::put_rows(
        table.into_dispatch(),
        rows.into_dispatch(),
        values.into_dispatch(),
    ))
}

/// The sum of all values. On the CPU the order of summation does not depend on the number of threads.
///
/// # Shapes
/// - `x`: any
/// - output: `[1]`
pub fn sum<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as Backend>::sum(x.into_dispatch()))
}

/// The sum of all squares. On the CPU the order of summation does not depend on the number of threads. Not
/// differentiated.
///
/// # Shapes
/// - `x`: any
/// - output: `[1]`
pub fn sum_of_squares<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as Backend>::sum_of_squares(x.into_dispatch()))
}

/// [`Tensor::reshape`], with a copy by all threads where one is needed.
///
/// # Shapes
/// - `x`: any
/// - output: `shape`
///
/// # Panics
/// If `shape` has another number of values.
pub fn reshape<const D: usize, const E: usize>(x: Tensor<D>, shape: [usize; E]) -> Tensor<E> {
    let values = |shape: &[usize]| shape.iter().product::<usize>();
    assert_eq!(
        values(&x.dims()),
        values(&shape),
        "a reshape keeps the number of values"
    );
    let shape = Shape::from(shape);
    Tensor::from_dispatch(<Dispatch as Backend>::reshaped(x.into_dispatch(), shape))
}

/// `x + y`: the residual of a branch.
///
/// # Shapes
/// - `x`, `y`, output: any, all the same
pub fn residual<const D: usize>(x: Tensor<D>, y: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Backend>::residual(
        x.into_dispatch(),
        y.into_dispatch(),
    ))
}

/// Dropout: `x · keep`, where `keep` is 0 or `1 / (1 - rate)` and has no gradient.
///
/// # Shapes
/// - `x`, `keep`, output: any, all the same
pub fn dropped<const D: usize>(x: Tensor<D>, keep: Tensor<D>) -> Tensor<D> {
    assert_eq!(x.dims(), keep.dims(), "a value for each feature");
    Tensor::from_dispatch(<Dispatch as Backend>::dropped(
        x.into_dispatch(),
        keep.into_dispatch(),
    ))
}

/// `x + gate · y`: the residual of a branch that adaLN gates.
///
/// # Shapes
/// - `x`, `gate`, `y`, output: any, all the same
pub fn gated_add<const D: usize>(x: Tensor<D>, gate: Tensor<D>, y: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Backend>::gated_add(
        x.into_dispatch(),
        gate.into_dispatch(),
        y.into_dispatch(),
    ))
}
