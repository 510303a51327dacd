//! Reading a tensor.

use burn::tensor::Tensor;

/// A tensor's values in row-major order, whatever float type they are of; it waits for the device.
///
/// # Shapes
/// - tensor: any
pub fn host_values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .into_data()
        .try_into_vec_as::<f32>()
        .expect("every float type converts to f32")
}
