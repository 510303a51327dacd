//! The fused operations on the CPU (`Flex`): raw slices, SIMD and rayon.
//!
//! Two rules hold in every kernel. A row's result never depends on how many rows there are, nor on how many threads
//! work: work is cut by shape alone and partial sums are added in a fixed order. And nothing is read before it is
//! written: outputs are allocated without being cleared.

mod amx;
pub(crate) mod attention;
pub(crate) mod conv;
pub(crate) mod copy;
pub(crate) mod depthwise;
pub(crate) mod elementwise;
pub(crate) mod experts;
pub(crate) mod few_rows;
pub(crate) mod half;
mod half_attention;
mod half_attention_backward;
pub(crate) mod half_operands;
#[cfg(target_arch = "x86_64")]
mod half_pairs;
pub(crate) mod half_product;
mod heads;
pub(crate) mod linear;
pub(crate) mod loss;
pub(crate) mod matmul;
pub(crate) mod norm;
pub(crate) mod optim;
#[cfg(target_arch = "x86_64")]
mod panel_product;
pub(crate) mod rows;
pub(crate) mod simd;
mod winograd;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Shape, TensorData};

/// The tensor's values in row-major order, copied only when they are not already so.
pub(crate) fn contiguous(tensor: &FlexTensor) -> FlexTensor {
    match tensor.as_slice::<f32>() {
        Some(_) => tensor.clone(),
        None => self::tensor(copy::row_major(tensor), tensor.shape()),
    }
}

/// The values of a [`contiguous`] tensor.
pub(crate) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor
        .as_slice::<f32>()
        .expect("a contiguous f32 tensor is a slice")
}

/// A tensor that takes over `data`.
pub(crate) fn tensor(data: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(data, shape.into()))
}

/// Whether the kernels here apply: they are written for f32.
pub(crate) fn all_f32(tensors: &[&FlexTensor]) -> bool {
    tensors.iter().all(|t| t.dtype() == DType::F32)
}

/// Whether these are f32 and a weight in bf16.
pub(crate) fn half_weight(tensors: &[&FlexTensor], weight: &FlexTensor) -> bool {
    all_f32(tensors) && weight.dtype() == DType::BF16
}

/// The sizes of a tensor whose rank is known.
pub(crate) fn dims<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    tensor.shape().dims()
}

/// Numbers of which every bit pattern is one.
pub(crate) trait AnyBits: Copy {}
impl AnyBits for f32 {}
impl AnyBits for u16 {}
impl AnyBits for u32 {}

/// Memory for `len` values that are all to be written before any is read: clearing it first would cost as much as many
/// a kernel.
#[allow(clippy::uninit_vec)]
pub(crate) fn uninit<T: AnyBits>(len: usize) -> Vec<T> {
    let mut data = Vec::with_capacity(len);
    // SAFETY: the capacity is `len`; every bit pattern is a value, and the kernels write before they read.
    unsafe { data.set_len(len) };
    data
}

/// A buffer of `len` values that `fill` writes completely.
pub(crate) fn filled(len: usize, fill: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut data = uninit(len);
    fill(&mut data);
    data
}

/// A raw pointer that threads may share: the kernels hand out disjoint parts of it.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(pub(crate) *mut T);

// SAFETY: every use writes a part that no other thread touches, within the lifetime of the buffer.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// The part `[start, start + len)`.
    ///
    /// # Safety
    /// The part lies in the buffer, and no other thread uses it at the same time.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part<'a>(self, start: usize, len: usize) -> &'a mut [T] {
        // SAFETY: the caller's contract.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}
