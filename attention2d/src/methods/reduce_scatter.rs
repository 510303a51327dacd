//! The reduce-scatter of softmax states along a row (algorithm 7), in three variants that communicate equally many
//! outputs.

use crate::comm::collective::Reduce;
use crate::error::Result;
use crate::methods::gather::Line;
use crate::methods::method::Merge;
use crate::methods::ring_pass::ring_reduce;
use crate::methods::rows::Rows;
use crate::methods::state::State;
use crate::methods::wire::WireDtype;

/// Merges the states that all ranks of a row have of this rank's queries.
///
/// `part` holds this rank's states of all queries of the row, ordered by the rank that owns them; `counts[c]` of them
/// belong to rank c.
pub(crate) fn reduce_scatter(
    row: &Line,
    merge: Merge,
    part: State,
    counts: &[usize],
) -> Result<State> {
    match merge {
        Merge::AllToAll => all_to_all(row, part, counts),
        Merge::Ring => ring(row, part, counts),
        Merge::MaxSum => max_sum(row, part, counts),
    }
}

/// One all-to-all, then a merge in column order.
fn all_to_all(row: &Line, part: State, counts: &[usize]) -> Result<State> {
    let own = counts[row.comm.rank()];
    let received = vec![own; row.comm.size()];
    let all = part
        .rows
        .all_to_all(&row.comm, counts, &received, WireDtype::F32)?;
    let length = own * all.width;
    let mut states = (0..received.len()).map(|rank| &all.values[rank * length..][..length]);
    let first = Rows {
        values: states.next().unwrap_or_default().to_vec(),
        width: all.width,
    };
    Ok(states.fold(part.with(first), State::merge))
}

/// As in the paper: states travel around the row and are merged with each rank's own.
fn ring(row: &Line, part: State, counts: &[usize]) -> Result<State> {
    let (rank, size) = (row.comm.rank(), row.comm.size());
    // The chunks of the columns ahead, nearest first, then the own one.
    let owners: Vec<_> = (1..=size).map(|step| (rank + step) % size).collect();
    let chunk = |&owner: &usize| {
        let start = counts[..owner].iter().sum();
        let numbers: Vec<_> = (start..start + counts[owner]).collect();
        Ok(part.with(part.rows.select(&numbers)))
    };
    let tokens: Vec<_> = owners.iter().map(|&owner| counts[owner]).collect();
    ring_reduce(row.ring(), &tokens, owners.iter().map(chunk))
}

/// An all-reduce of the largest log-sum-exp, then a reduce-scatter of sums that are rescaled by it.
fn max_sum(row: &Line, mut part: State, counts: &[usize]) -> Result<State> {
    let comm = &row.comm;
    let mut max = part.lse();
    let heads = max.len() / part.rows.tokens().max(1);
    comm.all_reduce(&mut max, Reduce::Max)?;
    part.rescale(&max);
    let width = part.rows.width;
    let lengths: Vec<_> = counts.iter().map(|tokens| tokens * width).collect();
    let values = comm.reduce_scatter_sum(&part.rows.values, &lengths)?;
    let mut own = part.with(Rows { values, width });
    let before: usize = counts[..comm.rank()].iter().sum();
    let of_own = before * heads..(before + counts[comm.rank()]) * heads;
    own.normalize(&max[of_own]);
    Ok(own)
}
