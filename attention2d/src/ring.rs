//! Ring Attention (Liu et al., arXiv 2310.01889), plain and zigzag: keys and values go round all ranks, and each rank computes on those
//! it has while the next are on their way.

use crate::attention::{Distributed, Forward, Saved, Task, delta, local};
use crate::rows::{Rows, width};
use crate::state::State;
use crate::{Payload, Result};
use burn::tensor::Tensor;
use tessera_backend::ops;

/// To whom a rank sends and from whom it receives.
fn peers(ring: &Distributed) -> [usize; 2] {
    let (rank, size) = (ring.comm().rank(), ring.comm().size());
    [(rank + 1) % size, (rank + size - 1) % size]
}

/// The positions of the keys that are here in round `i`.
fn keys_of(ring: &Distributed, task: &Task, i: usize) -> Vec<usize> {
    let (rank, size) = (ring.comm().rank(), ring.comm().size());
    ring.layout()
        .positions((rank + size - i) % size, size, task.tokens)
}

pub(crate) fn forward(
    ring: &Distributed,
    task: &Task,
    [q, k, v]: [Tensor<4>; 3],
) -> Result<Forward> {
    let (size, device) = (ring.comm().size(), q.device());
    let queries = ring.positions(task.tokens);
    let widths = [width(&k), width(&v)];
    let mut rows = Rows::of(&[&k, &v]);
    let mut state: Option<State> = None;
    for i in 0..size {
        let keys = keys_of(ring, task, i);
        let [k, v] = rows.clone().tensors(widths, &device);
        let compute = || State::of(local([q.clone(), k, v], task, &queries, &keys));
        let part;
        if i + 1 < size {
            let tokens = keys_of(ring, task, i + 1).len();
            (rows, part) =
                rows.send_recv_while(ring.comm(), peers(ring), tokens, task.payload, compute)?;
        } else {
            part = compute();
        }
        state = Some(match state {
            None => part,
            Some(state) => state.merge([&part.rows.values[..]]),
        });
    }
    let state = state.expect("a ring has a rank");
    let (out, lse) = state.tensors(width(&q), &device);
    let saved = Saved {
        q,
        k,
        v,
        out: out.clone(),
        lse,
    };
    Ok(Forward { out, saved })
}

/// Keys and values go round as before; their gradients follow one round behind and come home in the last.
pub(crate) fn backward(
    ring: &Distributed,
    task: &Task,
    saved: Saved,
    d_out: Tensor<4>,
) -> Result<[Tensor<4>; 3]> {
    let (comm, size, device) = (ring.comm(), ring.comm().size(), saved.q.device());
    let queries = ring.positions(task.tokens);
    let delta = delta(&saved.out, &d_out);
    let widths = [width(&saved.k), width(&saved.v)];
    let mut rows = Rows::of(&[&saved.k, &saved.v]);
    let mut dq: Option<Tensor<4>> = None;
    let mut travelling: Option<Rows> = None;
    for i in 0..size {
        let keys = keys_of(ring, task, i);
        let [k, v] = rows.clone().tensors(widths, &device);
        let compute = || {
            let mask = task.mask.between(&queries, &keys);
            let (lse, delta) = (saved.lse.clone(), delta.clone());
            let qkv = [saved.q.clone(), k, v];
            let [dq, dk, dv] = ops::attention_gradients(qkv, d_out.clone(), lse, delta, mask);
            (dq, Rows::of(&[&dk, &dv]))
        };
        let pass_on = || -> Result<_> {
            if i + 1 == size {
                return Ok((None, compute()));
            }
            let tokens = keys_of(ring, task, i + 1).len();
            let (next, part) =
                rows.send_recv_while(comm, peers(ring), tokens, task.payload, compute)?;
            Ok((Some(next), part))
        };
        let (next, (dq_part, mut dkv)) = match travelling.take() {
            None => pass_on()?,
            Some(before) => {
                let (arrived, result) =
                    before.send_recv_while(comm, peers(ring), keys.len(), Payload::F32, pass_on)?;
                let (next, (dq_part, mut dkv)) = result?;
                for (sum, more) in dkv.values.iter_mut().zip(&arrived.values) {
                    *sum += more;
                }
                (next, (dq_part, dkv))
            }
        };
        if i + 1 == size && size > 1 {
            let own = keys_of(ring, task, 0).len();
            dkv = dkv.send_recv(comm, peers(ring), own, Payload::F32)?;
        }
        travelling = Some(dkv);
        dq = Some(match dq {
            None => dq_part,
            Some(dq) => dq + dq_part,
        });
        if let Some(next) = next {
            rows = next;
        }
    }
    let dkv = travelling.expect("a ring has a rank");
    let [dk, dv] = dkv.tensors(widths, &device);
    Ok([dq.expect("a ring has a rank"), dk, dv])
}
