//! The number type that tensors have between ranks.

use crate::error::{Error, Result};
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The number type of messages with queries, keys, values and output gradients. Partial outputs and partial gradients
/// are always sent as f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WireDtype {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits, 8 of them significant.
    Bf16,
    /// 16 bits, 11 of them significant.
    F16,
}

impl WireDtype {
    /// Bytes per value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// The bits of `values`, rounded to a 16-bit type.
    pub(crate) fn narrowed(self, values: &[f32]) -> Vec<u16> {
        let mut bits = vec![0_u16; values.len()];
        match self {
            Self::F16 => bits
                .reinterpret_cast_mut::<f16>()
                .convert_from_f32_slice(values),
            _ => bits
                .reinterpret_cast_mut::<bf16>()
                .convert_from_f32_slice(values),
        }
        bits
    }

    /// The values of these bits of a 16-bit type.
    pub(crate) fn widened(self, bits: &[u16]) -> Vec<f32> {
        match self {
            Self::F16 => bits.reinterpret_cast::<f16>().to_f32_vec(),
            _ => bits.reinterpret_cast::<bf16>().to_f32_vec(),
        }
    }
}

impl fmt::Display for WireDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

impl FromStr for WireDtype {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            _ => Err(Error::config(
                "the number type of messages",
                "f32, bf16 or f16",
                text,
            )),
        }
    }
}
