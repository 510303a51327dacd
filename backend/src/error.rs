//! Errors of naming and opening devices.

use crate::instructions::Instructions;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No device has this name.
    #[error(
        "unknown device `{found}`: expected auto, flex, ndarray, wgpu, vulkan, metal or cuda, with an optional index \
         such as cuda:1"
    )]
    UnknownDevice {
        /// The name given.
        found: String,
    },
    /// The device is known, but was not built in.
    #[error("device `{device}` was not built in: the cargo feature `{feature}` adds it")]
    NotBuiltIn {
        /// The device asked for.
        device: String,
        /// The cargo feature that adds it.
        feature: &'static str,
    },
    /// `TESSERA_CPU` asks for instructions that nobody knows, or that the processor lacks.
    #[error("TESSERA_CPU={asked}: {}", match known {
        true => format!("this processor has {found}"),
        false => "expected baseline, avx2, avx512, avx512-bf16 or amx".into(),
    })]
    Instructions {
        /// The value.
        asked: String,
        /// Whether it names a set.
        known: bool,
        /// What the processor has.
        found: Instructions,
    },
    /// The device was built in, but the machine has none (or no driver for it).
    #[error("device `{device}` could not be opened: {reason}")]
    Unavailable {
        /// The device asked for.
        device: String,
        /// The driver's message.
        reason: String,
    },
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
