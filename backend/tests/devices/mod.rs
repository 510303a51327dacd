//! The devices that the parity suite runs on.

use burn::tensor::Device;
use tessera_backend::DeviceSpec;

/// Those that `TESSERA_DEVICES` names, separated by commas; where it is not set, those of the CPU's backends that are
/// built in.
///
/// # Panics
/// When one of them was not built in, or the machine has none.
pub fn devices() -> impl Iterator<Item = Device> {
    names().into_iter().map(|name| open(&name))
}

/// Their names.
pub fn names() -> Vec<String> {
    let Ok(names) = std::env::var("TESSERA_DEVICES") else {
        let built_in = |name: &&str| opened(name).is_ok();
        let of_the_cpu = ["flex", "ndarray"].into_iter().filter(built_in);
        return of_the_cpu.map(str::to_owned).collect();
    };
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
    opened(name).unwrap_or_else(|error| panic!("TESSERA_DEVICES: {error}"))
}

fn opened(name: &str) -> Result<Device, tessera_backend::Error> {
    name.parse::<DeviceSpec>().and_then(DeviceSpec::open)
}
