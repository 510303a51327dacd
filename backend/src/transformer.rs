//! The two halves of a transformer block that every model here has: multi-head self-attention and the MLP. Fields
//! carry the names of the released checkpoints.

use crate::init::ParamInit;
use crate::nn::Linear;
use crate::ops::{self, Activation};
use crate::precision::{ComputePrecision, autocast};
use burn::module::Module;
use burn::tensor::{DType, Tensor};

/// The projections of multi-head self-attention, with queries, keys and values packed into one map. The attention
/// between [`project`](Self::project) and [`merge`](Self::merge) is the caller's: dense, distributed, or with
/// dropout.
#[derive(Module, Debug)]
pub struct Attention {
    qkv: Linear,
    proj: Linear,
    #[module(skip)]
    heads: usize,
}

impl Attention {
    /// Random weights; `heads` divides `d_model`.
    pub fn init(d_model: usize, heads: usize, init: &mut ParamInit) -> Self {
        Self {
            qkv: init.linear(d_model, 3 * d_model),
            proj: init.linear(d_model, d_model),
            heads,
        }
    }

    /// Queries, keys and values of all tokens.
    ///
    /// # Shapes
    /// - x: `[batch, seq, d_model]`
    /// - outputs: `[batch, heads, seq, head_dim]` each
    pub fn project(&self, x: Tensor<3>) -> [Tensor<4>; 3] {
        ops::split_linear(x, &self.qkv).map(|x| self.split(x))
    }

    /// Queries of some tokens, and keys and values of all.
    ///
    /// # Shapes
    /// - queries: `[batch, wanted, d_model]`
    /// - x: `[batch, seq, d_model]`
    /// - outputs: `[batch, heads, wanted, head_dim]` and twice `[batch, heads, seq, head_dim]`
    pub fn project_queries(&self, queries: Tensor<3>, x: Tensor<3>) -> [Tensor<4>; 3] {
        let [q, k, v] = ops::columns(&self.qkv, x.dims()[2]);
        let project = |x, part| self.split(ops::linear(x, &part, Activation::None));
        [project(queries, q), project(x.clone(), k), project(x, v)]
    }

    /// Runs the attention between [`project`](Self::project) and [`merge`](Self::merge): with weights in bf16, its
    /// products are in bf16 too.
    pub fn in_precision<R>(&self, attention: impl FnOnce() -> R) -> R {
        match self.qkv.weight.val().dtype() {
            DType::BF16 => autocast(ComputePrecision::Bf16, attention),
            _ => attention(),
        }
    }

    /// The output projection of what the heads gathered.
    ///
    /// # Shapes
    /// - y: `[batch, heads, seq, head_dim]`
    /// - output: `[batch, seq, d_model]`
    pub fn merge(&self, y: Tensor<4>) -> Tensor<3> {
        ops::linear(ops::merge_heads(y), &self.proj, Activation::None)
    }

    /// `[batch, seq, d_model]` to `[batch, heads, seq, head_dim]`.
    fn split(&self, x: Tensor<3>) -> Tensor<4> {
        ops::split_heads(x, self.heads).swap_dims(1, 2) // [batch, heads, seq, head_dim]
    }
}

/// Two linear maps with an activation between them.
#[derive(Module, Debug)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    /// Random weights: `d_model` features to `hidden` and back.
    pub fn init(
        d_model: usize,
        hidden: usize,
        activation: Activation,
        init: &mut ParamInit,
    ) -> Self {
        Self {
            fc1: init.linear(d_model, hidden),
            fc2: init.linear(hidden, d_model),
            activation,
        }
    }

    /// `fc2(act(fc1(x)))`.
    ///
    /// # Shapes
    /// - x, output: `[.., d_model]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.output(self.hidden(x))
    }

    /// `act(fc1(x))`, for dropout between the maps.
    ///
    /// # Shapes
    /// - x: `[.., d_model]`
    /// - output: `[.., hidden]`
    pub fn hidden<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::linear(x, &self.fc1, self.activation)
    }

    /// `fc2(hidden)`.
    ///
    /// # Shapes
    /// - hidden: `[.., hidden]`
    /// - output: `[.., d_model]`
    pub fn output<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        ops::linear(hidden, &self.fc2, Activation::None)
    }
}
