//! Devices by name: `auto|flex|ndarray|wgpu|vulkan|metal|cuda[:N]`. Burn panics where a user needs an error.

use crate::{Error, Result};
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

const KINDS: [(&str, Kind, bool); 7] = [
    ("auto", Kind::Auto, true),
    ("flex", Kind::Flex, true),
    ("ndarray", Kind::NdArray, cfg!(feature = "ndarray")),
    ("wgpu", Kind::Wgpu, cfg!(feature = "wgpu")),
    ("vulkan", Kind::Vulkan, cfg!(feature = "vulkan")),
    ("metal", Kind::Metal, cfg!(feature = "metal")),
    ("cuda", Kind::Cuda, cfg!(feature = "cuda")),
];

/// Every device name, with whether it was built in.
pub fn available() -> impl Iterator<Item = (&'static str, bool)> {
    KINDS.iter().map(|&(name, _, built)| (name, built))
}

impl Kind {
    fn row(self) -> (&'static str, bool) {
        let &(name, _, built) = KINDS
            .iter()
            .find(|row| row.1 == self)
            .expect("every kind has its row");
        (name, built)
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
        let (_, kind, _) = KINDS.iter().find(|row| row.0 == name).ok_or_else(unknown)?;
        Ok(Self { kind: *kind, index })
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            None => f.write_str(self.kind.row().0),
            Some(index) => write!(f, "{}:{index}", self.kind.row().0),
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
        let (name, built) = self.kind.row();
        if !built {
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
            _ => Ok(Device::flex()),
        }
    }

    /// The device that `auto` selects on this machine; any other is itself.
    pub fn chosen(self) -> Self {
        if self.kind != Kind::Auto {
            return self;
        }
        let gpus = [Kind::Cuda, Kind::Metal, Kind::Vulkan, Kind::Wgpu];
        let there = |kind: &Kind| kind.row().1 && (*kind == Kind::Cuda || gpu());
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
        for (name, _) in available().filter(|&(_, built)| built) {
            // The machine may have none of the kind.
            let open = || name.parse::<DeviceSpec>().unwrap().open().ok();
            assert_eq!(open(), open(), "{name}");
        }
    }

    #[test]
    fn a_device_that_was_not_built_in_names_its_feature() {
        for (name, built) in
            available().filter(|(name, _)| ["ndarray", "cuda", "metal"].contains(name))
        {
            let opened = name.parse::<DeviceSpec>().unwrap().open();
            if !built {
                let error = opened.unwrap_err().to_string();
                assert!(error.contains(&format!("feature `{name}`")), "{error}");
            }
        }
    }
}
