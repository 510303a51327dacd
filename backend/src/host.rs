//! What crosses between the host and a device. Everything goes through here, so that it can be counted: a GPU waits for each.

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, Device, Int, Tensor, TensorData, try_read_sync};
use std::cell::Cell;
use std::fmt::Display;

/// How a panic begins that tells of a device which failed.
pub const DEVICE_FAILED: &str = "the device failed: ";

/// How often tensors have crossed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Transfers {
    /// Copies to a device, which need not be waited for.
    pub to_device: u64,
    /// Copies to the host, each of which waits for all that was asked of the device before.
    pub to_host: u64,
}

thread_local! {
    static TRANSFERS: Cell<Transfers> = const { Cell::new(Transfers { to_device: 0, to_host: 0 }) };
}

/// How often this thread has copied tensors between host and devices so far.
pub fn transfers() -> Transfers {
    TRANSFERS.get()
}

/// Counts a copy to a device.
pub(crate) fn count_upload() {
    let mut transfers = TRANSFERS.get();
    transfers.to_device += 1;
    TRANSFERS.set(transfers);
}

/// What was read, which is counted.
fn read(data: Result<TensorData, impl Display>) -> TensorData {
    let mut transfers = TRANSFERS.get();
    transfers.to_host += 1;
    TRANSFERS.set(transfers);
    // A driver's error lists what came of it first, and what it was last.
    let cause = |error: &str| {
        let told =
            |line: &&str| !line.is_empty() && !line.ends_with(':') && !line.contains("backtrace");
        let lines: Vec<_> = error.lines().map(str::trim).filter(told).collect();
        lines
            .last()
            .copied()
            .unwrap_or("it does not say why")
            .to_owned()
    };
    data.unwrap_or_else(|error| panic!("{DEVICE_FAILED}{}", cause(&error.to_string())))
}

/// The values of any float type. Those that need no conversion are copied as they are: Burn would look at each.
fn floats(data: TensorData) -> Vec<f32> {
    match data.dtype() {
        DType::F32 => {
            let (values, _) = data.as_bytes().as_chunks();
            values.iter().copied().map(f32::from_ne_bytes).collect()
        }
        _ => data
            .try_into_vec_as::<f32>()
            .expect("every float type converts to f32"),
    }
}

/// A tensor's values in row-major order, whatever float type they are of; it waits for the device.
///
/// # Shapes
/// - tensor: any
///
/// # Panics
/// When the device failed, for want of memory say, at what the tensor is computed from.
pub fn host_values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    floats(read(tensor.try_into_data()))
}

/// [`host_values`] of a backend's own tensor.
pub(crate) fn host_floats<B: Backend>(tensor: FloatTensor<B>) -> Vec<f32> {
    floats(read(
        try_read_sync(B::float_into_data(tensor)).expect("no browser"),
    ))
}

/// A tensor's whole numbers in row-major order, whatever type they are of; it waits for the device.
///
/// # Shapes
/// - tensor: any
///
/// # Panics
/// As [`host_values`].
pub fn host_indices<const D: usize>(tensor: Tensor<D, Int>) -> Vec<i64> {
    read(tensor.try_into_data())
        .try_into_vec_as::<i64>()
        .expect("every type of whole numbers converts to i64")
}

/// Values of the host on a device.
///
/// # Shapes
/// - output: as said
///
/// # Panics
/// When `values` do not fill the shape.
pub fn device_values<const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    device: &Device,
) -> Tensor<D> {
    count_upload();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Whole numbers of the host on a device.
///
/// # Shapes
/// - output: as said
///
/// # Panics
/// When `indices` do not fill the shape.
pub fn device_indices<const D: usize>(
    indices: Vec<i32>,
    shape: [usize; D],
    device: &Device,
) -> Tensor<D, Int> {
    count_upload();
    Tensor::from_data(TensorData::new(indices, shape), device)
}
