//! Arrays of pictures and latents between the host and a device.

use crate::host::{device_values, host_values};
use burn::tensor::{Device, Tensor};
use ndarray::Array4;

/// An array as a tensor.
///
/// # Shapes
/// - output: the array's
pub fn upload(array: Array4<f32>, device: &Device) -> Tensor<4> {
    let shape: [usize; 4] = array.dim().into();
    let array = array.as_standard_layout().into_owned();
    let (values, _) = array.into_raw_vec_and_offset();
    device_values(values, shape, device)
}

/// A tensor `[batch, channels, height, width]` as an array; it waits for the device.
///
/// # Panics
/// When the device failed at what the tensor is computed from.
pub fn download(tensor: Tensor<4>) -> Array4<f32> {
    let shape = tensor.dims();
    Array4::from_shape_vec(shape, host_values(tensor))
        .expect("a tensor has as many values as its shape says")
}
