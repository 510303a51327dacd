//! Attention2D: the forward pass without overlap (algorithms 1 and 7), with it (4 to 6), and the backward pass.

use crate::attention::{Forward, Saved, Task, delta, local};
use crate::rows::{Rows, width};
use crate::state::{self, State};
use crate::{Comm, Grid, Keys, Layout, Merge, Method, Payload, Reduce, Result};
use burn::tensor::Tensor;
use tessera_backend::ops;

/// The ranks of a row or a column, and which tokens each brings.
#[derive(Debug, Clone)]
struct Line {
    comm: Comm,
    /// The ranks of the job, in the order of the line.
    ranks: Vec<usize>,
}

/// Tokens of a line put in order.
struct Gathered {
    /// Their positions, ascending.
    positions: Vec<usize>,
    /// Which row of what comes rank by rank each of them is.
    order: Vec<usize>,
    /// How many each rank brings.
    counts: Vec<usize>,
}

impl Line {
    fn next(&self) -> usize {
        (self.comm.rank() + 1) % self.comm.size()
    }

    fn previous(&self) -> usize {
        (self.comm.rank() + self.comm.size() - 1) % self.comm.size()
    }
}

impl Gathered {
    fn of(lists: &[Vec<usize>]) -> Self {
        let all = lists.iter().flatten().copied().enumerate();
        let mut sorted: Vec<_> = all.map(|(row, position)| (position, row)).collect();
        sorted.sort_unstable();
        let (positions, order) = sorted.into_iter().unzip();
        Self {
            positions,
            order,
            counts: lists.iter().map(Vec::len).collect(),
        }
    }

    /// For each row that goes rank by rank, where it is in order.
    fn back(&self) -> Vec<usize> {
        let mut back = vec![0; self.order.len()];
        for (place, &row) in self.order.iter().enumerate() {
            back[row] = place;
        }
        back
    }
}

/// Attention2D on the ranks of a grid.
#[derive(Debug, Clone)]
pub(crate) struct Attention2D {
    grid: Grid,
    merge: Merge,
    keys: Keys,
    overlap: bool,
    world: Comm,
    /// Along which queries and outputs move.
    row: Line,
    /// Along which keys and values move.
    column: Line,
}

impl Attention2D {
    /// `None` for the methods that have no grid.
    pub fn new(world: &Comm, method: &Method) -> Result<Option<Self>> {
        let (grid, merge, keys, overlap) = match *method {
            Method::Attention2D {
                grid,
                merge,
                keys,
                overlap,
            } => (grid, merge, keys, overlap),
            Method::GatherKv => {
                let grid = Grid::new(world.size(), 1)?;
                (grid, Merge::AllToAll, Keys::AsDealt, false)
            }
            Method::Ring { .. } | Method::Ulysses => return Ok(None),
        };
        let [r, c] = grid.place(world.rank());
        Ok(Some(Self {
            row: Line {
                comm: world.split(r, c)?,
                ranks: (0..grid.cols).map(|col| grid.rank(r, col)).collect(),
            },
            column: Line {
                comm: world.split(c, r)?,
                ranks: (0..grid.rows).map(|row| grid.rank(row, c)).collect(),
            },
            grid,
            merge,
            keys,
            overlap,
            world: world.clone(),
        }))
    }

    pub fn forward(&self, task: &Task, [q, k, v]: [Tensor<4>; 3]) -> Result<Forward> {
        let [k, v] = self.transpose(task, [k, v], false, task.payload)?; // K_t, V_t
        let mine = match self.overlap {
            false => self.gathered(task, [&q, &k, &v])?,
            true => self.overlapped(task, [&q, &k, &v])?,
        };
        let (out, lse) = mine.tensors(width(&q), &q.device());
        let saved = Saved {
            q,
            k,
            v,
            out: out.clone(),
            lse,
        };
        Ok(Forward { out, saved })
    }

    /// Algorithm 1: gathers along both axes, one attention, and the reduction along the row.
    fn gathered(&self, task: &Task, [q, k, v]: [&Tensor<4>; 3]) -> Result<State> {
        let (queries, keys) = (self.queries(task), self.keys(task));
        let [q] = gather(&self.row, &queries, [q], task.payload)?;
        let [k, v] = gather(&self.column, &keys, [k, v], task.payload)?;
        let part = local([q, k, v], task, &queries.positions, &keys.positions);
        let part = State::of(part);
        let by_rank = part.with(part.rows.select(&queries.back()));
        match self.merge {
            Merge::AllToAll => self.merge_all_to_all(by_rank, &queries.counts),
            Merge::Ring => self.merge_ring(by_rank, &queries.counts),
            Merge::MaxSum => self.merge_max_sum(by_rank, &queries.counts),
        }
    }

    /// Everyone's states of this rank's queries, merged in the order of the columns.
    fn merge_all_to_all(&self, part: State, counts: &[usize]) -> Result<State> {
        let own = counts[self.row.comm.rank()];
        let received = vec![own; self.row.comm.size()];
        let all = part
            .rows
            .all_to_all(&self.row.comm, counts, &received, Payload::F32)?;
        let length = own * all.width;
        let mut states = (0..received.len()).map(|rank| &all.values[rank * length..][..length]);
        let first = states.next().unwrap_or_default().to_vec();
        let first = part.with(Rows {
            values: first,
            width: all.width,
        });
        Ok(first.merge(states))
    }

    /// Algorithm 7: states go round the row, each rank adding its own.
    fn merge_ring(&self, part: State, counts: &[usize]) -> Result<State> {
        let (rank, size) = (self.row.comm.rank(), self.row.comm.size());
        let chunk = |i: usize| {
            let of = (rank + i) % size;
            let start = counts[..of].iter().sum();
            let numbers: Vec<_> = (start..start + counts[of]).collect();
            part.with(part.rows.select(&numbers))
        };
        let mut state = chunk(1);
        for i in 2..=size {
            let mine = chunk(i);
            let peers = [self.row.previous(), self.row.next()];
            let tokens = mine.rows.tokens();
            let arrived = state
                .rows
                .send_recv(&self.row.comm, peers, tokens, Payload::F32)?;
            state = mine.merge([&arrived.values[..]]);
        }
        Ok(state)
    }

    /// With the reductions that every carrier has: the largest log-sum-exp, then sums of what is weighed by it.
    fn merge_max_sum(&self, mut part: State, counts: &[usize]) -> Result<State> {
        let comm = &self.row.comm;
        let mut max = state::lse(&part);
        let scalars = max.len() / part.rows.tokens().max(1);
        comm.all_reduce(&mut max, Reduce::Max)?;
        state::weighed(&mut part, &max);
        let width = part.rows.width;
        let lengths: Vec<_> = counts.iter().map(|tokens| tokens * width).collect();
        let values = comm.reduce_scatter_sum(&part.rows.values, &lengths)?;
        let mut own = part.with(Rows { values, width });
        let before: usize = counts[..comm.rank()].iter().sum();
        let of_own = before * scalars..(before + counts[comm.rank()]) * scalars;
        state::unweighed(&mut own, &max[of_own]);
        Ok(own)
    }

    /// Algorithms 4 to 6: keys and values go round the column while this rank's queries are at work on them, then queries and
    /// states round the row.
    fn overlapped(&self, task: &Task, [q, k, v]: [&Tensor<4>; 3]) -> Result<State> {
        let (row, column) = (&self.row, &self.column);
        let keys = self.keys(task);
        let (device, payload) = (q.device(), task.payload);
        let (q_width, kv_width) = (width(q), [width(k), width(v)]);
        let positions_of = |line: &Line, i: usize, of: &dyn Fn(usize) -> Vec<usize>| {
            of(line.ranks[(line.comm.rank() + i) % line.comm.size()])
        };
        let of_queries = |rank| self.positions(task, rank);
        let of_keys = |rank| self.key_positions(task, rank);

        // GthrCmpt (algorithm 5), while the queries of the next column are on their way.
        let own = of_queries(self.world.rank());
        let q_rows = Rows::of(&[q]);
        let gather_compute = || -> Result<(State, Rows)> {
            let mut kv = Rows::of(&[k, v]);
            let mut arrived = kv.clone();
            let mut state: Option<State> = None;
            for i in 0..column.comm.size() {
                let at = positions_of(column, i, &of_keys);
                let [k, v] = kv.clone().tensors(kv_width, &device);
                let compute = || State::of(local([q.clone(), k, v], task, &own, &at));
                let part;
                if i + 1 < column.comm.size() {
                    let peers = [column.previous(), column.next()];
                    let tokens = positions_of(column, i + 1, &of_keys).len();
                    (kv, part) =
                        kv.send_recv_while(&column.comm, peers, tokens, payload, compute)?;
                    arrived.values.extend_from_slice(&kv.values);
                } else {
                    part = compute();
                }
                state = Some(match state {
                    None => part,
                    Some(state) => state.merge([&part.rows.values[..]]),
                });
            }
            Ok((state.expect("a column has a rank"), arrived))
        };
        if row.comm.size() == 1 {
            return Ok(gather_compute()?.0);
        }
        let peers = [row.previous(), row.next()];
        let tokens = positions_of(row, 1, &of_queries).len();
        let (mut q_next, first) =
            q_rows.send_recv_while(&row.comm, peers, tokens, payload, gather_compute)?;
        let (first, arrived) = first?;
        // The column's keys came in the order of its ring; put in the order of positions once.
        let ring = |i| positions_of(column, i, &of_keys);
        let lists: Vec<_> = (0..column.comm.size()).map(ring).collect();
        let in_order = Gathered::of(&lists).order;
        let [k, v] = arrived.select(&in_order).tensors(kv_width, &device);

        // GthrCmptSctr (algorithm 6).
        let size = row.comm.size();
        let mut pending: Option<State> = None;
        for i in 1..size {
            let at = positions_of(row, i, &of_queries);
            let [q] = q_next.clone().tensors([q_width], &device);
            let compute = || {
                let qkv = [q, k.clone(), v.clone()];
                State::of(local(qkv, task, &at, &keys.positions))
            };
            let pass_on = || -> Result<(State, Option<Rows>)> {
                if i + 1 == size {
                    return Ok((compute(), None));
                }
                let tokens = positions_of(row, i + 1, &of_queries).len();
                let (next, part) =
                    q_next.send_recv_while(&row.comm, peers, tokens, payload, compute)?;
                Ok((part, Some(next)))
            };
            let (part, next) = match pending.take() {
                None => pass_on()?,
                Some(state) => {
                    let (arrived, result) = state.rows.send_recv_while(
                        &row.comm,
                        peers,
                        at.len(),
                        Payload::F32,
                        pass_on,
                    )?;
                    let (part, next) = result?;
                    (part.merge([&arrived.values[..]]), next)
                }
            };
            pending = Some(part);
            if let Some(next) = next {
                q_next = next;
            }
        }
        let state = pending.expect("a row has more than one rank");
        let arrived = state
            .rows
            .send_recv(&row.comm, peers, own.len(), Payload::F32)?;
        Ok(first.merge([&arrived.values[..]]))
    }

    /// The gradients: gathers as forward, with dO, L and δ beside Q; one backward kernel; sums along both axes. Keys and values were
    /// saved transposed, so that only their gradients go back.
    pub fn backward(&self, task: &Task, saved: Saved, d_out: Tensor<4>) -> Result<[Tensor<4>; 3]> {
        let (queries, keys) = (self.queries(task), self.keys(task));
        let delta = delta(&saved.out, &d_out).unsqueeze_dim::<4>(3);
        let lse = saved.lse.unsqueeze_dim::<4>(3);
        let widths = [width(&saved.q), width(&saved.k), width(&saved.v)];
        let device = saved.q.device();
        let [q, d_out] = gather(&self.row, &queries, [&saved.q, &d_out], task.payload)?;
        let [lse, delta] = gather(&self.row, &queries, [&lse, &delta], Payload::F32)?;
        let [k, v] = gather(&self.column, &keys, [&saved.k, &saved.v], task.payload)?;
        let mask = task.mask.between(&queries.positions, &keys.positions);
        let [lse, delta] = [lse, delta].map(|x| x.squeeze_dim::<3>(3));
        let [dq, dk, dv] = ops::attention_gradients([q, k, v], d_out, lse, delta, mask);
        let dq = sum_scatter(&self.row, &queries, &[&dq])?;
        let dkv = sum_scatter(&self.column, &keys, &[&dk, &dv])?;
        let [dq] = dq.tensors([widths[0]], &device);
        let dkv = dkv.tensors([widths[1], widths[2]], &device);
        let [dk, dv] = self.transpose(task, dkv, true, Payload::F32)?;
        Ok([dq, dk, dv])
    }

    /// Keys and values to where they are gathered from (algorithm 1, line 1), or their gradients back.
    fn transpose(
        &self,
        task: &Task,
        kv: [Tensor<4>; 2],
        back: bool,
        payload: Payload,
    ) -> Result<[Tensor<4>; 2]> {
        let rank = self.world.rank();
        let [mut to, mut from] = self.grid.transposed(rank);
        // Ranks on the diagonal come too, though they keep what they have: an exchange is everyone's.
        if self.keys == Keys::AsDealt || self.grid.rows == 1 || self.grid.cols == 1 {
            return Ok(kv);
        }
        let mut tokens = self.positions(task, from).len();
        if back {
            (to, from) = (from, to);
            tokens = self.positions(task, rank).len();
        }
        let widths = [width(&kv[0]), width(&kv[1])];
        let rows = Rows::of(&[&kv[0], &kv[1]]);
        let rows = rows.send_recv(&self.world, [to, from], tokens, payload)?;
        Ok(rows.tensors(widths, &kv[0].device()))
    }

    /// The positions of the tokens dealt to a rank.
    fn positions(&self, task: &Task, rank: usize) -> Vec<usize> {
        Layout::Cyclic.positions(rank, self.grid.ranks(), task.tokens)
    }

    /// The positions of the keys a rank has when columns gather.
    fn key_positions(&self, task: &Task, rank: usize) -> Vec<usize> {
        match self.keys {
            Keys::AsDealt => self.positions(task, rank),
            Keys::Transposed => self.positions(task, self.grid.transposed(rank)[1]),
        }
    }

    fn queries(&self, task: &Task) -> Gathered {
        let of = |&rank: &usize| self.positions(task, rank);
        Gathered::of(&self.row.ranks.iter().map(of).collect::<Vec<_>>())
    }

    fn keys(&self, task: &Task) -> Gathered {
        let of = |&rank: &usize| self.key_positions(task, rank);
        Gathered::of(&self.column.ranks.iter().map(of).collect::<Vec<_>>())
    }
}

/// The tokens of a line, in order, at each of its ranks.
fn gather<const N: usize>(
    line: &Line,
    tokens: &Gathered,
    tensors: [&Tensor<4>; N],
    payload: Payload,
) -> Result<[Tensor<4>; N]> {
    let (widths, device) = (tensors.map(width), tensors[0].device());
    let rows = Rows::of(&tensors).all_gather(&line.comm, &tokens.counts, payload)?;
    Ok(rows.select(&tokens.order).tensors(widths, &device))
}

/// The sums over a line of what its ranks have for this rank's tokens.
fn sum_scatter(line: &Line, tokens: &Gathered, tensors: &[&Tensor<4>]) -> Result<Rows> {
    let by_rank = Rows::of(tensors).select(&tokens.back());
    by_rank.reduce_scatter(&line.comm, &tokens.counts)
}
