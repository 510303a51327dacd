//! Weights for inference: of 16 bits, and in the order that is multiplied fastest.

use crate::flex::half;
use crate::ops;
use crate::precision::ComputePrecision;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};

impl ComputePrecision {
    /// Casts the weights of the module's [`Linear`](crate::nn::Linear) maps from f32 to this type, and keeps them in
    /// the order that the device multiplies fastest. They serve inference through
    /// [`ops::linear`](crate::ops::linear) only, have no gradient and are not to be saved. F32 changes no result.
    pub fn apply<M: Module>(self, module: M) -> M {
        module.map(&mut ForInference {
            dtype: self.dtype(),
            within: Vec::new(),
        })
    }

    /// Whether [`apply`](Self::apply) changed a module, so that it can not be saved.
    pub fn is_applied<M: Module>(module: &M) -> bool {
        let mut looked = Applied::default();
        module.visit(&mut looked);
        looked.applied
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
            true => param.map(|weight| ops::packed(weight.detach().cast(self.dtype))),
            false => param,
        }
    }
}

/// Looks at linear maps: of a weight in panels, the columns are not those of the bias.
#[derive(Default)]
struct Applied {
    within: Vec<(String, String)>,
    columns: usize,
    applied: bool,
}

impl ModuleVisitor for Applied {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.within.push((name.into(), container.into()));
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.within.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let dims = param.val().dims();
        match self.within.last() {
            Some((name, container)) if container == "Struct:Linear" => match name.as_str() {
                "weight" => {
                    self.columns = dims[D - 1];
                    self.applied |= param.val().dtype() != DType::F32;
                }
                _ => self.applied |= self.columns != dims[D - 1],
            },
            _ => {}
        }
    }
}
