//! Weights of 16 bits, for inference.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Tensor};
use std::fmt;

/// The type that the weights of linear maps are held and multiplied in. Everything else, sums included, is f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits, 8 of them significant: half the memory, and on processors that multiply bf16 (AVX-512 BF16, AMX) about
    /// twice the speed or more.
    Bf16,
    /// 16 bits, 11 of them significant and a range up to 65504: what most GPUs multiply fastest. Processors compute in f32.
    F16,
}

impl Precision {
    /// The module with the weights of its [`Linear`](burn::nn::Linear) maps in this precision, from f32. They are for
    /// inference through [`ops::linear`](crate::ops::linear) alone: nothing else computes with them, and they have no
    /// gradient.
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

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

/// Casts the weights of linear maps, knowing where it is by the containers it has entered.
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
            true => param.map(|weight| weight.detach().cast(self.dtype)),
            false => param,
        }
    }
}
