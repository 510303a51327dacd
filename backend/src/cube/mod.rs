//! Kernels for GPUs, written once in CubeCL and compiled for Vulkan, Metal, WebGPU or CUDA when they first run. All
//! compute in f32 whatever type the tensors are of. What they cannot take (odd sizes, types other than floats) goes to
//! the portable bodies.

pub(crate) mod attention;
pub(crate) mod attention_backward;
pub(crate) mod elementwise;
pub(crate) mod experts;
#[cfg(not(feature = "fusion"))]
pub(crate) mod experts_backward;
pub(crate) mod norm;
#[cfg(not(feature = "fusion"))]
pub(crate) mod norm_backward;
pub(crate) mod sampling;

use crate::host::count_upload;
use burn::backend::TensorMetadata;
use burn::backend::ops::{FloatTensorOps, IntTensorOps};
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, Shape, TensorData};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

/// Threads of a cube that reduces a row, a power of two.
const UNITS: u32 = 256;

/// Whether the kernels support these tensors: all of one float type of at most 32 bits.
pub(crate) fn taken(tensors: &[&FloatTensor<CubeBackend>]) -> bool {
    let dtype = tensors[0].dtype;
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
        && tensors.iter().all(|tensor| tensor.dtype == dtype)
}

/// An uninitialized tensor on the device of `like`.
fn empty<const D: usize>(like: &CubeTensor, shape: [usize; D], dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(
        like.client.clone(),
        like.device.clone(),
        Shape::from(shape),
        dtype,
    )
}

fn dims<const D: usize>(tensor: &CubeTensor) -> [usize; D] {
    tensor.shape().dims()
}

fn elem(tensor: &CubeTensor) -> cubecl::ir::ElemType {
    burn::backend::cubecl::dtype_to_elem_type(tensor.dtype)
}

/// A tensor of these integers on the device of `like`.
fn upload(like: &CubeTensor, values: Vec<i32>) -> CubeTensor {
    let len = values.len();
    count_upload();
    CubeBackend::int_from_data(TensorData::new(values, [len]), &like.device)
}

/// A tensor of these values on the device and of the type of `like`.
fn upload_floats<const D: usize>(
    like: &CubeTensor,
    values: Vec<f32>,
    shape: [usize; D],
) -> CubeTensor {
    count_upload();
    let values = TensorData::new(values, shape).convert_dtype(like.dtype);
    CubeBackend::float_from_data(values, &like.device)
}

/// Number of threads for the work, a power of two that the device allows.
fn units(like: &CubeTensor, work: usize) -> u32 {
    let most = like.client.properties().hardware.max_units_per_cube.max(1);
    let most = UNITS.min(1 << most.ilog2());
    (work.next_power_of_two() as u32).clamp(1, most)
}

/// One cube per row.
fn cubes(like: &CubeTensor, rows: usize) -> CubeCount {
    cubecl::calculate_cube_count_elemwise(&like.client, rows, CubeDim::new_single())
}

/// The sum of the rows of a matrix, `[rows, width]` to `[width]`.
#[cfg(not(feature = "fusion"))]
pub(crate) fn sum_of_rows(x: CubeTensor) -> CubeTensor {
    let [_, width] = dims(&x);
    CubeBackend::float_reshape(CubeBackend::float_sum_dim(x, 0), Shape::from([width]))
}

/// The sum of the values of all threads, returned to every thread.
#[cube]
fn cube_sum(value: f32, scratch: &mut Shared<[f32]>) -> f32 {
    sync_cube();
    scratch[UNIT_POS as usize] = value;
    sync_cube();
    let mut half = CUBE_DIM / 2;
    while half > 0 {
        if UNIT_POS < half {
            let other = scratch[(UNIT_POS + half) as usize];
            scratch[UNIT_POS as usize] += other;
        }
        sync_cube();
        half /= 2;
    }
    scratch[0]
}
