//! Which instructions of the processor the kernels use.

#[cfg(target_arch = "x86_64")]
mod tiles;

use crate::error::{Error, Result};
use std::fmt::{self, Display, Formatter};
use std::sync::LazyLock;

/// Says which instructions are used at most, so that one machine can try the kernels of a lesser one.
const VARIABLE: &str = "TESSERA_CPU";

/// Sets of instructions that there are kernels for, each with all those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Instructions {
    /// What every processor of its kind has: SSE2 on x86-64, NEON on aarch64.
    Baseline,
    /// AVX2, and fused multiply-adds.
    Avx2,
    /// AVX-512 F, VL, DQ and BW.
    Avx512,
    /// AVX-512's dot products of bf16.
    Avx512Bf16,
    /// AMX's tiles of bf16.
    Amx,
}

impl Instructions {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Baseline,
        Self::Avx2,
        Self::Avx512,
        Self::Avx512Bf16,
        Self::Amx,
    ];

    /// What `TESSERA_CPU` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512-bf16",
            Self::Amx => "amx",
        }
    }

    /// Those of this processor.
    pub fn of_processor() -> Self {
        static FOUND: LazyLock<Instructions> = LazyLock::new(Instructions::find);
        *FOUND
    }

    /// Those that the kernels use: the processor's, or what `TESSERA_CPU` allows of them. The products of the crate
    /// `gemm` always use the processor's.
    pub fn used() -> Self {
        static USED: LazyLock<Instructions> = LazyLock::new(|| {
            let found = Instructions::of_processor();
            match Instructions::allowed() {
                Ok(Some(allowed)) => allowed.min(found),
                _ => found,
            }
        });
        *USED
    }

    /// Those that `TESSERA_CPU` names, if it is set.
    ///
    /// # Errors
    /// When there are none of that name, or the processor lacks them.
    pub fn allowed() -> Result<Option<Self>> {
        let Some(value) = std::env::var_os(VARIABLE) else {
            return Ok(None);
        };
        let value = value.to_string_lossy();
        Self::named(&value, Self::of_processor()).map(Some)
    }

    fn named(value: &str, found: Self) -> Result<Self> {
        let named = Self::ALL.into_iter().find(|set| set.name() == value);
        named
            .filter(|named| *named <= found)
            .ok_or_else(|| Error::Instructions {
                asked: value.to_owned(),
                known: named.is_some(),
                found,
            })
    }

    #[cfg(target_arch = "x86_64")]
    fn find() -> Self {
        use std::arch::is_x86_feature_detected as has;
        let avx2 = has!("avx2") && has!("fma");
        let avx512 = has!("avx512f") && has!("avx512vl") && has!("avx512dq") && has!("avx512bw");
        let bf16 = avx512 && has!("avx512bf16");
        match (avx2, avx512, bf16) {
            (false, ..) => Self::Baseline,
            (_, false, _) => Self::Avx2,
            (_, _, false) => Self::Avx512,
            _ if tiles::permitted() => Self::Amx,
            _ => Self::Avx512Bf16,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn find() -> Self {
        Self::Baseline
    }
}

impl Display for Instructions {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Baseline if cfg!(target_arch = "aarch64") => "NEON",
            Self::Baseline if cfg!(target_arch = "x86_64") => "SSE2",
            Self::Baseline => "no vectors",
            Self::Avx2 => "AVX2 with FMA",
            Self::Avx512 => "AVX-512",
            Self::Avx512Bf16 => "AVX-512 with bf16",
            Self::Amx => "AVX-512 with bf16, AMX",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_named_or_the_names_are_told() {
        use Instructions::{Amx, Avx2, Avx512, Baseline};
        for set in Instructions::ALL {
            assert_eq!(Instructions::named(set.name(), Amx).unwrap(), set);
        }
        assert_eq!(Instructions::named("avx2", Avx512).unwrap(), Avx2);
        let error = |value, found| Instructions::named(value, found).unwrap_err().to_string();
        assert_eq!(
            error("sse9", Amx),
            "TESSERA_CPU=sse9: expected baseline, avx2, avx512, avx512-bf16 or amx"
        );
        let lacking = error("avx512", Baseline);
        assert!(
            lacking.starts_with("TESSERA_CPU=avx512: this processor has "),
            "{lacking}"
        );
    }

    #[test]
    fn what_is_used_is_what_the_processor_has_or_less() {
        assert!(Instructions::used() <= Instructions::of_processor());
    }
}
