//! Weights for inference: of 16 bits, and in the order that is multiplied fastest.

use crate::flex::half;
use crate::ops;
use crate::panels;
use crate::precision::ComputePrecision;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Tensor};

impl ComputePrecision {
    /// Casts the weights of the module's [`Linear`](crate::nn::Linear) maps from f32 to this type, and keeps them in
    /// the order that the device multiplies fastest. They serve inference through
    /// [`ops::linear`](crate::ops::linear) only and have no gradient; saved, they are f32 in the order of a checkpoint
    /// again, rounded if this type is narrower. F32 changes no result outside [`autocast`](crate::autocast).
    pub fn apply<M: Module>(self, module: M) -> M {
        module.map(&mut ForInference {
            dtype: self.dtype(),
            within: Vec::new(),
        })
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
struct ForInference {
    dtype: DType,
    within: Vec<(String, String)>,
}

impl ModuleMapper for ForInference {
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
            true => {
                let (param, dtype) = (param.transform_for_save(), self.dtype);
                let inputs = param.val().dims()[0];
                let packed = param.map(|weight| ops::packed(weight.detach().cast(dtype)));
                packed.save_mapper(move |weight| {
                    let weight = Tensor::<2>::from_dispatch(weight.into_dispatch());
                    let weight = panels::in_rows(weight, inputs).cast(DType::F32);
                    Tensor::from_dispatch(weight.into_dispatch())
                })
            }
            false => param,
        }
    }
}
