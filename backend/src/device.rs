//! Devices by name: `auto|flex|ndarray|wgpu|vulkan|metal|cuda[:N]`. Burn panics where a user needs an error.

use crate::{Error, Instructions, Result};
use burn::tensor::Device;
use std::{fmt, str::FromStr};

/// A device by name and index, before it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DeviceSpec {
    kind: Kind,
    index: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Kind {
    #[default]
    Auto,
    Flex,
    NdArray,
    Wgpu,
    Vulkan,
    Metal,
    Cuda,
}

/// The name of a kind of device, and whether it was built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceName {
    /// As [`DeviceSpec`] parses it, without an index.
    pub name: &'static str,
    /// Whether this build has it.
    pub built_in: bool,
}

/// Every device name.
pub fn device_names() -> impl Iterator<Item = DeviceName> {
    Kind::ALL.into_iter().map(Kind::name)
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Auto,
        Self::Flex,
        Self::NdArray,
        Self::Wgpu,
        Self::Vulkan,
        Self::Metal,
        Self::Cuda,
    ];

    fn name(self) -> DeviceName {
        let (name, built_in) = match self {
            Self::Auto => ("auto", true),
            Self::Flex => ("flex", true),
            Self::NdArray => ("ndarray", cfg!(feature = "ndarray")),
            Self::Wgpu => ("wgpu", cfg!(feature = "wgpu")),
            Self::Vulkan => ("vulkan", cfg!(feature = "vulkan")),
            Self::Metal => ("metal", cfg!(feature = "metal")),
            Self::Cuda => ("cuda", cfg!(feature = "cuda")),
        };
        DeviceName { name, built_in }
    }
}

impl FromStr for DeviceSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::UnknownDevice { found: text.into() };
        let (name, index) = match text.split_once(':') {
            Some((name, index)) => (name, Some(index.parse().map_err(|_| unknown())?)),
            None => (text, None),
        };
        let mut kinds = Kind::ALL.into_iter();
        let kind = kinds.find(|kind| kind.name().name == name);
        let kind = kind.ok_or_else(unknown)?;
        Ok(Self { kind, index })
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            None => f.write_str(self.kind.name().name),
            Some(index) => write!(f, "{}:{index}", self.kind.name().name),
        }
    }
}

impl DeviceSpec {
    /// The CPU, with this crate's kernels; in every build.
    pub const CPU: Self = Self {
        kind: Kind::Flex,
        index: None,
    };

    /// Opens the device. `auto` is the first of cuda, metal, vulkan and wgpu that was built in and finds a GPU, else
    /// the CPU (`flex`). The index counts discrete GPUs; without one, the system's default GPU opens.
    ///
    /// # Errors
    /// [`Error::NotBuiltIn`] names the cargo feature to add; [`Error::Unavailable`] gives the driver's message.
    pub fn open(self) -> Result<Device> {
        let DeviceName { name, built_in } = self.kind.name();
        if !built_in {
            return Err(Error::NotBuiltIn {
                device: self.to_string(),
                feature: name,
            });
        }
        match self.kind {
            Kind::Auto => self.chosen().open(),
            #[cfg(feature = "ndarray")]
            #[allow(deprecated)]
            Kind::NdArray => Ok(Device::ndarray()),
            #[cfg(feature = "wgpu")]
            Kind::Wgpu => self.wgpu(burn::tensor::wgpu::WgpuBackend::Auto),
            #[cfg(feature = "vulkan")]
            Kind::Vulkan => self.wgpu(burn::tensor::wgpu::WgpuBackend::Vulkan),
            #[cfg(feature = "metal")]
            Kind::Metal => self.wgpu(burn::tensor::wgpu::WgpuBackend::Metal),
            #[cfg(feature = "cuda")]
            Kind::Cuda => Ok(Device::cuda(self.index.unwrap_or(0))),
            _ => {
                Instructions::allowed()?;
                Ok(Device::flex())
            }
        }
    }

    /// The device that `auto` selects on this machine; any other is itself.
    pub fn chosen(self) -> Self {
        if self.kind != Kind::Auto {
            return self;
        }
        let gpus = [Kind::Cuda, Kind::Metal, Kind::Vulkan, Kind::Wgpu];
        let there = |kind: &Kind| kind.name().built_in && (*kind == Kind::Cuda || gpu());
        let kind = gpus.into_iter().find(there).unwrap_or(Kind::Flex);
        Self { kind, ..self }
    }

    /// Opens through the options, which return an error where `Device::wgpu` panics in a server thread at first use.
    /// They can open a device only once per process.
    #[cfg(feature = "wgpu")]
    fn wgpu(self, api: burn::tensor::wgpu::WgpuBackend) -> Result<Device> {
        use burn::tensor::DeviceKind;
        use std::collections::HashMap;
        use std::sync::{Mutex, PoisonError};
        static OPEN: Mutex<Option<HashMap<DeviceSpec, Device>>> = Mutex::new(None);
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let open = open.get_or_insert_default();
        if let Some(device) = open.get(&self) {
            return Ok(device.clone());
        }
        let kind = self
            .index
            .map_or(DeviceKind::DefaultDevice, DeviceKind::DiscreteGpu);
        let options = Device::wgpu_options().device_kind(kind).graphics_api(api);
        let device = options.init().map_err(|error| Error::Unavailable {
            device: self.to_string(),
            reason: error.to_string(),
        })?;
        open.insert(self, device.clone());
        Ok(device)
    }
}

/// Whether wgpu finds more than a software renderer, which is many times slower than the CPU kernels.
fn gpu() -> bool {
    #[cfg(feature = "wgpu")]
    let there = crate::adapters().iter().any(|adapter| adapter.gpu);
    #[cfg(not(feature = "wgpu"))]
    let there = false;
    there
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_indices_are_parsed_and_printed_alike() {
        for text in [
            "auto", "flex", "ndarray", "wgpu", "vulkan:1", "metal", "cuda:3",
        ] {
            assert_eq!(text.parse::<DeviceSpec>().unwrap().to_string(), text);
        }
        for text in ["gpu", "", "cuda:", "cuda:x", "flex:-1"] {
            let error = text.parse::<DeviceSpec>().unwrap_err().to_string();
            assert!(error.contains("expected auto, flex"), "{error}");
        }
    }

    #[test]
    fn a_device_that_is_open_is_opened_again() {
        for DeviceName { name, .. } in device_names().filter(|device| device.built_in) {
            // The machine may have none of the kind.
            let open = || name.parse::<DeviceSpec>().unwrap().open().ok();
            assert_eq!(open(), open(), "{name}");
        }
    }

    #[test]
    fn a_device_that_was_not_built_in_names_its_feature() {
        let optional = |device: &DeviceName| ["ndarray", "cuda", "metal"].contains(&device.name);
        for DeviceName { name, built_in } in device_names().filter(optional) {
            let opened = name.parse::<DeviceSpec>().unwrap().open();
            if !built_in {
                let error = opened.unwrap_err().to_string();
                assert!(error.contains(&format!("feature `{name}`")), "{error}");
            }
        }
    }
}
