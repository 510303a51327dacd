//! The devices that the parity suite runs on.

use burn::tensor::Device;
use tessera_backend::DeviceSpec;

/// Those that `TESSERA_DEVICES` names, separated by commas; the CPU's two backends where it is not set.
///
/// # Panics
/// When one of them was not built in, or the machine has none.
pub fn devices() -> impl Iterator<Item = Device> {
    names().into_iter().map(|name| open(&name))
}

/// Their names.
pub fn names() -> Vec<String> {
    let names = std::env::var("TESSERA_DEVICES");
    let names = names.unwrap_or_else(|_| "flex,ndarray".into());
    names
        .split(',')
        .map(|name| name.trim().to_owned())
        .collect()
}

/// Those that have kernels of our own.
pub fn with_kernels() -> Vec<String> {
    let mut names = names();
    names.retain(|name| name != "ndarray");
    names
}

/// One of them.
///
/// # Panics
/// When it was not built in, or the machine has none.
pub fn open(name: &str) -> Device {
    let spec = name.parse::<DeviceSpec>();
    let device = spec.and_then(DeviceSpec::open);
    device.unwrap_or_else(|error| panic!("TESSERA_DEVICES: {error}"))
}
