//! Copies between the host and a device. All go through this module, which counts them: each copy to the host stalls a
//! GPU.

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, Device, Int, Tensor, TensorData, try_read_sync};
use std::cell::Cell;
use std::fmt::Display;

/// Prefix of the panic message when a device failed.
pub const DEVICE_FAILED: &str = "the device failed: ";

/// Counts of tensors copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Transfers {
    /// Copies to a device; nothing waits for them.
    pub to_device: u64,
    /// Copies to the host, each of which waits for all work queued on the device.
    pub to_host: u64,
}

thread_local! {
    static TRANSFERS: Cell<Transfers> = const { Cell::new(Transfers { to_device: 0, to_host: 0 }) };
}

/// The copies between host and devices that this thread has made so far.
pub fn transfers() -> Transfers {
    TRANSFERS.get()
}

/// Counts a copy to a device.
pub(crate) fn count_upload() {
    let mut transfers = TRANSFERS.get();
    transfers.to_device += 1;
    TRANSFERS.set(transfers);
}

/// The data read, counted as a copy to the host.
fn read(data: Result<TensorData, impl Display>) -> TensorData {
    let mut transfers = TRANSFERS.get();
    transfers.to_host += 1;
    TRANSFERS.set(transfers);
    // A driver's error lists its consequences first and its cause last.
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

/// The values of any float type. f32 is copied in one piece: Burn would convert value by value.
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

/// A tensor's values in row-major order, from any float type; waits for the device.
///
/// # Shapes
/// - tensor: any
///
/// # Panics
/// If the device fails to compute the tensor, for example out of memory.
pub fn host_values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    floats(read(tensor.try_into_data()))
}

/// [`host_values`] of a backend's own tensor.
pub(crate) fn host_floats<B: Backend>(tensor: FloatTensor<B>) -> Vec<f32> {
    floats(read(
        try_read_sync(B::float_into_data(tensor)).expect("no browser"),
    ))
}

/// A tensor's integers in row-major order, from any integer type; waits for the device.
///
/// # Shapes
/// - tensor: any
///
/// # Panics
/// As [`host_values`].
pub fn host_indices<const D: usize>(tensor: Tensor<D, Int>) -> Vec<i64> {
    read(tensor.try_into_data())
        .try_into_vec_as::<i64>()
        .expect("every integer type converts to i64")
}

/// A tensor of these values on a device.
///
/// # Shapes
/// - output: `shape`
///
/// # Panics
/// If `values` do not fill the shape.
pub fn device_values<const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    device: &Device,
) -> Tensor<D> {
    count_upload();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// A tensor of these integers on a device.
///
/// # Shapes
/// - output: `shape`
///
/// # Panics
/// If `indices` do not fill the shape.
pub fn device_indices<const D: usize>(
    indices: Vec<i32>,
    shape: [usize; D],
    device: &Device,
) -> Tensor<D, Int> {
    count_upload();
    Tensor::from_data(TensorData::new(indices, shape), device)
}
