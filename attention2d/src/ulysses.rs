//! DeepSpeed Ulysses (Jacobs et al., arXiv 2309.14509): from a part of the tokens with all heads to all tokens with a part of the heads,
//! attention there, and back.

use crate::attention::{Distributed, Forward, Saved, Task, delta, local};
use crate::rows::{Rows, width};
use crate::{Payload, Result};
use burn::tensor::Tensor;
use tessera_backend::ops;

/// Tokens of each rank.
fn counts(ulysses: &Distributed, task: &Task) -> Vec<usize> {
    let size = ulysses.comm().size();
    (0..size)
        .map(|rank| ulysses.layout().count(rank, size, task.tokens))
        .collect()
}

/// `[batch, heads, tokens here, d]` to `[batch, heads / P, all tokens, d]`.
fn to_heads<const N: usize>(
    ulysses: &Distributed,
    task: &Task,
    tensors: [&Tensor<4>; N],
    payload: Payload,
) -> Result<[Tensor<4>; N]> {
    let (comm, counts) = (ulysses.comm(), counts(ulysses, task));
    let (size, own, device) = (comm.size(), counts[comm.rank()], tensors[0].device());
    let share = |tensor: &Tensor<4>, rank: usize| {
        let heads = tensor.dims()[1] / size;
        tensor.clone().narrow(1, rank * heads, heads)
    };
    let parts = (0..size).map(|rank| {
        let parts = tensors.map(|tensor| share(tensor, rank));
        Rows::of(&parts.each_ref())
    });
    let rows = concat(parts.collect());
    let rows = rows.all_to_all(comm, &vec![own; size], &counts, payload)?;
    let widths = tensors.map(|tensor| {
        let [batch, heads, features] = width(tensor);
        [batch, heads / size, features]
    });
    Ok(rows.tensors(widths, &device))
}

/// The way back.
fn to_tokens<const N: usize>(
    ulysses: &Distributed,
    task: &Task,
    tensors: [&Tensor<4>; N],
) -> Result<[Tensor<4>; N]> {
    let (comm, counts) = (ulysses.comm(), counts(ulysses, task));
    let (size, own, device) = (comm.size(), counts[comm.rank()], tensors[0].device());
    let rows = Rows::of(&tensors);
    let rows = rows.all_to_all(comm, &counts, &vec![own; size], Payload::F32)?;
    // What came from each rank is its share of the heads.
    let length = own * rows.width;
    let parts = (0..size).map(|rank| {
        let part = Rows {
            values: rows.values[rank * length..][..length].to_vec(),
            width: rows.width,
        };
        part.tensors(tensors.map(width), &device)
    });
    let mut by_tensor = tensors.map(|_| Vec::with_capacity(size));
    for part in parts {
        for (tensor, part) in by_tensor.iter_mut().zip(part) {
            tensor.push(part);
        }
    }
    Ok(by_tensor.map(|parts| Tensor::cat(parts, 1)))
}

fn concat(parts: Vec<Rows>) -> Rows {
    let width = parts[0].width;
    let values = parts.into_iter().flat_map(|part| part.values).collect();
    Rows { values, width }
}

pub(crate) fn forward(
    ulysses: &Distributed,
    task: &Task,
    [q, k, v]: [Tensor<4>; 3],
) -> Result<Forward> {
    let [q, k, v] = to_heads(ulysses, task, [&q, &k, &v], task.payload)?;
    let all: Vec<_> = (0..task.tokens).collect();
    let qkv = [q.clone(), k.clone(), v.clone()];
    let (out, lse) = local(qkv, task, &all, &all);
    let [own] = to_tokens(ulysses, task, [&out])?;
    let saved = Saved { q, k, v, out, lse };
    Ok(Forward { out: own, saved })
}

pub(crate) fn backward(
    ulysses: &Distributed,
    task: &Task,
    saved: Saved,
    d_out: Tensor<4>,
) -> Result<[Tensor<4>; 3]> {
    let [d_out] = to_heads(ulysses, task, [&d_out], task.payload)?;
    let all: Vec<_> = (0..task.tokens).collect();
    let (delta, mask) = (delta(&saved.out, &d_out), task.mask.between(&all, &all));
    let qkv = [saved.q, saved.k, saved.v];
    let [dq, dk, dv] = ops::attention_gradients(qkv, d_out, saved.lse, delta, mask);
    to_tokens(ulysses, task, [&dq, &dk, &dv])
}
