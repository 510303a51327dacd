//! Computing with 16 bits: of weights for inference, and of what is multiplied in training.

use burn::tensor::DType;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::fmt;

thread_local! {
    static AUTOCAST: Cell<ComputePrecision> = const { Cell::new(ComputePrecision::F32) };
}

/// Runs `f`, in which linear maps with weights in f32 and attention are multiplied in `precision`, as are the backward
/// passes of what is computed there: mixed precision, in which weights, their gradients and everything else stay f32.
/// As PyTorch's `autocast`, it holds for the calling thread. The CPU does so in bf16, if it [multiplies
/// it](ComputePrecision::is_native_on_cpu); all else is computed in f32.
pub fn autocast<R>(precision: ComputePrecision, f: impl FnOnce() -> R) -> R {
    /// Also after a panic.
    struct Restore(ComputePrecision);
    impl Drop for Restore {
        fn drop(&mut self) {
            AUTOCAST.set(self.0);
        }
    }
    let _restore = Restore(AUTOCAST.replace(precision));
    f()
}

/// What [`autocast`] asks for here.
pub(crate) fn autocasting() -> ComputePrecision {
    AUTOCAST.get()
}

/// The type in which weights of linear maps are stored and multiplied. Everything else, sums included, is f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComputePrecision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits, 8 of them significant: half the memory, and at least twice the speed on processors that multiply bf16
    /// (AVX-512 BF16, AMX).
    Bf16,
    /// 16 bits, 11 of them significant, range up to 65504: the fastest type of most GPUs. CPUs compute in f32.
    F16,
}

impl ComputePrecision {
    /// The type of the weights.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }
}

impl fmt::Display for ComputePrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}
