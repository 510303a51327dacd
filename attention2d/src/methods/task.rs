//! What all methods share: their input and output, and the local attention.

use crate::methods::mask::Mask;
use crate::methods::wire::WireDtype;
use burn::tensor::Tensor;
use tessera_backend::{device_indices, ops};

/// One attention over all ranks.
#[derive(Debug, Clone)]
pub struct Task {
    /// N, the tokens of a sequence over all ranks.
    pub tokens: usize,
    /// Which tokens attend to which.
    pub mask: Mask,
    /// The number type of messages with queries, keys, values and output gradients.
    pub wire_dtype: WireDtype,
}

/// The result of a forward pass.
#[derive(Debug, Clone)]
pub struct Forward {
    /// The output of this rank's tokens: `[batch, heads, local_tokens, head_dim]`.
    pub out: Tensor<4>,
    /// What the backward pass needs.
    pub saved: Saved,
}

/// Tensors saved for the backward pass, as the method wants them: Attention2D saves transposed keys and values, Ulysses
/// a part of the heads of all tokens.
///
/// # Shapes
/// - q, out: `[batch, heads, tokens, head_dim]`
/// - k, v: `[batch, kv_heads, tokens, head_dim]`
/// - lse: `[batch, heads, tokens]`
#[derive(Debug, Clone)]
pub struct Saved {
    pub(crate) q: Tensor<4>,
    pub(crate) k: Tensor<4>,
    pub(crate) v: Tensor<4>,
    pub(crate) out: Tensor<4>,
    pub(crate) lse: Tensor<3>,
}

impl Saved {
    /// As tensors of one rank, for an operation of autodiff; undone by [`from_tensors`](Self::from_tensors).
    pub(crate) fn into_tensors(self) -> Vec<Tensor<4>> {
        let lse = self.lse.unsqueeze_dim(3); // [batch, heads, tokens, 1]
        vec![self.q, self.k, self.v, self.out, lse]
    }

    pub(crate) fn from_tensors(tensors: Vec<Tensor<4>>) -> Self {
        let [q, k, v, out, lse] = <[_; 5]>::try_from(tensors).expect("five tensors were saved");
        Self {
            q,
            k,
            v,
            out,
            lse: lse.squeeze_dim::<3>(3), // [batch, heads, tokens]
        }
    }
}

/// Attention of some queries over some of the keys.
pub(crate) struct Partial {
    /// `[batch, heads, queries, head_dim]`
    pub out: Tensor<4>,
    /// L, the log-sum-exp of the scores: `[batch, heads, queries]`.
    pub lse: Tensor<3>,
}

/// The local attention kernel: queries and keys at these positions.
///
/// # Shapes
/// - q: `[batch, heads, queries, head_dim]`
/// - k, v: `[batch, kv_heads, keys, head_dim]`
pub(crate) fn local(
    [q, k, v]: [Tensor<4>; 3],
    task: &Task,
    queries: &[usize],
    keys: &[usize],
) -> Partial {
    let (out, lse) = ops::attention_with_lse(q, k, v, task.mask.between(queries, keys));
    Partial { out, lse }
}

/// δ = Σ dO·O over the features, as the gradient of the softmax needs it.
///
/// # Shapes
/// - out, d_out: `[batch, heads, tokens, head_dim]`
/// - output: `[batch, heads, tokens]`
pub(crate) fn delta(out: &Tensor<4>, d_out: &Tensor<4>) -> Tensor<3> {
    let product = out.clone() * d_out.clone();
    product.sum_dim(3).squeeze_dim::<3>(3) // [batch, heads, tokens]
}

/// The shard of a whole tensor that holds the tokens at `positions`.
///
/// # Shapes
/// - tensor: `[batch, heads, tokens, features]`
/// - output: `[batch, heads, positions, features]`
pub fn shard(tensor: &Tensor<4>, positions: &[usize]) -> Tensor<4> {
    let indices = positions.iter().map(|&position| position as i32).collect();
    let indices = device_indices(indices, [positions.len()], &tensor.device());
    tensor.clone().select(2, indices)
}
