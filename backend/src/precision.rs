//! 16-bit weights, for inference.

use crate::ops;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Tensor};
use std::fmt;

/// The type in which weights of linear maps are stored and multiplied. Everything else, sums included, is f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
    /// Casts the weights of the module's [`Linear`](crate::nn::Linear) maps from f32 to this type. They serve inference
    /// through [`ops::linear`](crate::ops::linear) only and have no gradient.
    pub fn apply<M: Module>(self, module: M) -> M {
        match self {
            Self::F32 => module,
            Self::Bf16 | Self::F16 => module.map(&mut ToHalf {
                dtype: self.dtype(),
                within: Vec::new(),
            }),
        }
    }

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

/// Casts the weights of linear maps, which it tells by the containers it has entered.
struct ToHalf {
    dtype: DType,
    within: Vec<(String, String)>,
}

impl ModuleMapper for ToHalf {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.within.push((name.into(), container.into()));
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.within.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let weight = matches!(self.within.last(), Some((name, container))
            if name == "weight" && container == "Struct:Linear");
        match weight {
            true => param.map(|weight| ops::packed(weight.detach().cast(self.dtype))),
            false => param,
        }
    }
}
