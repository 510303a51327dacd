//! Weights of 16 bits, for inference.

use crate::flex::half;
use crate::ops;
use crate::precision::ComputePrecision;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Tensor};

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

    /// Whether the CPU multiplies this type itself. Of others it widens the weights, and computes in f32.
    pub fn is_native_on_cpu(self) -> bool {
        match self {
            Self::F32 => true,
            Self::Bf16 => half::Kernel::best().is_some(),
            Self::F16 => false,
        }
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
