//! Communication volume: what a rank receives, exactly, for every method and any number of tokens and ranks.
//!
//! A softmax state counts as its output and one scalar per row and head, the log-sum-exp. The paper's state has two, M
//! and D; an output that is already divided by D needs only M + ln D to be merged with another.

use crate::comm::collective::Member;
use crate::error::{Error, Result};
use crate::methods::grid::{Grid, Place};
use crate::methods::method::{Keys, Merge, Method};
use crate::methods::shape::Shape;
use crate::methods::wire::WireDtype;
use serde::{Deserialize, Serialize};
use std::ops::Add;

/// A direction through attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Outputs from queries, keys and values.
    Forward,
    /// Gradients of queries, keys and values from those of outputs.
    Backward,
}

impl Direction {
    /// The directions of inference.
    pub const INFERENCE: &[Self] = &[Self::Forward];
    /// The directions of a training step.
    pub const TRAINING: &[Self] = &[Self::Forward, Self::Backward];
}

/// Elements that a rank receives, by their number type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Elements of Q, K, V and dO, which are sent as [`WireDtype`].
    pub narrow: u64,
    /// Elements of partial outputs and partial gradients, which are sent as f32.
    pub wide: u64,
    /// Softmax scalars per row and head, sent as f32.
    pub scalars: u64,
}

impl Volume {
    /// Bytes, with this number type on the wire.
    pub fn bytes(self, wire_dtype: WireDtype) -> u64 {
        self.narrow * wire_dtype.bytes() as u64
            + (self.wide + self.scalars) * size_of::<f32>() as u64
    }

    /// Elements without the scalars, which the formulas of the literature leave out.
    pub fn elements(self) -> u64 {
        self.narrow + self.wide
    }
}

impl Add for Volume {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            narrow: self.narrow + other.narrow,
            wide: self.wide + other.wide,
            scalars: self.scalars + other.scalars,
        }
    }
}

/// What one rank receives in one direction through one layer.
///
/// # Errors
/// As [`Method::check`], and when the member's rank is not below its number of ranks.
pub fn volume(
    method: Method,
    shape: Shape,
    member: Member,
    direction: Direction,
) -> Result<Volume> {
    let Member { rank, ranks } = member;
    method.check(shape, ranks)?;
    if rank >= ranks {
        return Err(Error::config("a rank", format!("below {ranks}"), rank));
    }
    let counter = Counter::new(method, shape, member);
    Ok(match direction {
        Direction::Forward => counter.forward(method),
        Direction::Backward => counter.backward(method),
    })
}

/// Messages that a rank receives in one direction, where collectives are rings or pairwise exchanges and tensors with
/// the same path share a message. This is the latency in units of α, except that with overlap some messages are in
/// flight at the same time.
pub fn messages(method: Method, ranks: usize, direction: Direction) -> u64 {
    let others = |ranks: usize| ranks as u64 - 1;
    match (method, direction) {
        (
            Method::Attention2D {
                grid,
                merge,
                keys,
                overlap,
            },
            direction,
        ) => {
            let [rows, cols] = [others(grid.rows), others(grid.cols)];
            let exchange = u64::from(keys == Keys::Transposed && rows > 0 && cols > 0);
            exchange
                + match direction {
                    Direction::Forward if merge == Merge::MaxSum && !overlap => rows + 4 * cols,
                    Direction::Forward => rows + 2 * cols,
                    Direction::Backward => 2 * rows + 2 * cols,
                }
        }
        (Method::Ring { .. }, Direction::Backward) if ranks > 1 => ranks as u64,
        (Method::Ring { .. }, _) | (Method::GatherKv, Direction::Forward) => others(ranks),
        (Method::GatherKv, Direction::Backward) | (Method::Ulysses, _) => 2 * others(ranks),
    }
}

/// Counts the rows of all sequences that a rank receives, and their elements.
struct Counter {
    rank: usize,
    /// P.
    ranks: u64,
    /// Rows of every rank.
    rows: Vec<u64>,
    /// N, summed over the sequences.
    all: u64,
    heads: u64,
    /// Elements of a row of queries or outputs.
    query: u64,
    /// Elements of a row of keys and values together.
    keys: u64,
}

impl Counter {
    fn new(method: Method, shape: Shape, Member { rank, ranks }: Member) -> Self {
        let mut rows = method.tokens_per_rank(shape, ranks);
        rows.iter_mut().for_each(|rows| *rows *= shape.batch as u64);
        Self {
            rank,
            ranks: ranks as u64,
            all: rows.iter().sum(),
            rows,
            heads: shape.heads as u64,
            query: (shape.heads * shape.head_dim) as u64,
            keys: (2 * shape.kv_heads * shape.head_dim) as u64,
        }
    }

    /// Rows that the other ranks of a group own.
    fn others(&self, group: impl Iterator<Item = usize>) -> u64 {
        group
            .filter(|&other| other != self.rank)
            .map(|other| self.rows[other])
            .sum()
    }

    fn forward(&self, method: Method) -> Volume {
        let own = self.rows[self.rank];
        match method {
            Method::Attention2D {
                grid,
                merge,
                keys,
                overlap,
            } => {
                let cols = grid.cols as u64;
                let sides = Sides::new(self, grid, keys);
                let narrow =
                    sides.row * self.query + (sides.received_keys + sides.column) * self.keys;
                let [outputs, scalars] = match merge {
                    Merge::Ring => [sides.hops; 2],
                    _ if overlap => [sides.hops; 2],
                    Merge::AllToAll => [(cols - 1) * own; 2],
                    Merge::MaxSum => {
                        let heads = self.heads as usize;
                        let values = (sides.row + own) as usize * heads;
                        let in_row = Member {
                            rank: grid.place(self.rank).col,
                            ranks: grid.cols,
                        };
                        let part = in_row.share(values) as u64;
                        let maxima = (cols - 1) * part + values as u64 - part;
                        return Volume {
                            narrow,
                            wide: (cols - 1) * own * self.query,
                            scalars: maxima + (cols - 1) * own * self.heads,
                        };
                    }
                };
                Volume {
                    narrow,
                    wide: outputs * self.query,
                    scalars: scalars * self.heads,
                }
            }
            // P − 1 rotations of K and V, or all of them gathered.
            Method::Ring { .. } | Method::GatherKv => Volume {
                narrow: (self.all - own) * self.keys,
                ..Volume::default()
            },
            // Q, K and V of all tokens for 1/P of the heads, then outputs of all heads for the own tokens.
            Method::Ulysses => Volume {
                narrow: (self.all - own) * (self.query + self.keys) / self.ranks,
                wide: own * (self.query - self.query / self.ranks),
                scalars: 0,
            },
        }
    }

    fn backward(&self, method: Method) -> Volume {
        let own = self.rows[self.rank];
        match method {
            Method::Attention2D { grid, keys, .. } => {
                let [rows, cols] = [grid.rows as u64, grid.cols as u64];
                let sides = Sides::new(self, grid, keys);
                Volume {
                    // Q and dO along the row; the saved K and V along the column.
                    narrow: 2 * sides.row * self.query + sides.column * self.keys,
                    // dQ along the row; dK and dV along the column, then back to their owners.
                    wide: (cols - 1) * own * self.query
                        + ((rows - 1) * sides.keys + sides.returned_keys) * self.keys,
                    // The log-sum-exp and δ, the sum of dO·O.
                    scalars: 2 * sides.row * self.heads,
                }
            }
            Method::Ring { .. } if self.ranks == 1 => Volume::default(),
            // K and V as in the forward pass; dK and dV once around the ring, back to their owners.
            Method::Ring { .. } => Volume {
                narrow: (self.all - own) * self.keys,
                wide: self.all * self.keys,
                scalars: 0,
            },
            Method::GatherKv => Volume {
                narrow: (self.all - own) * self.keys,
                wide: (self.ranks - 1) * own * self.keys,
                scalars: 0,
            },
            Method::Ulysses => Volume {
                narrow: (self.all - own) * self.query / self.ranks,
                wide: own * (self.query + self.keys - (self.query + self.keys) / self.ranks),
                scalars: 0,
            },
        }
    }
}

/// Rows that a rank of Attention2D receives along the two sides of its grid.
struct Sides {
    /// Queries, from the other ranks of the row.
    row: u64,
    /// Keys, from the other ranks of the column.
    column: u64,
    /// Keys that this rank contributes to its column.
    keys: u64,
    /// Outputs, when they travel around the row: all chunks but the first that this rank sends, its right neighbor's.
    hops: u64,
    /// Keys received from the transposed rank.
    received_keys: u64,
    /// Gradients of keys received back.
    returned_keys: u64,
}

impl Sides {
    fn new(counter: &Counter, grid: Grid, keys: Keys) -> Self {
        let rank = counter.rank;
        let Place { row, col } = grid.place(rank);
        let others = counter.others(grid.row(row));
        let own = counter.rows[rank];
        let right = Place {
            row,
            col: (col + 1) % grid.cols,
        };
        let right = counter.rows[grid.rank(right)];
        // The owner of the keys that a rank contributes to its column.
        let origin = |rank| match keys {
            Keys::AsSharded => rank,
            Keys::Transposed => grid.transposed(rank).from,
        };
        let column: u64 = grid
            .column(col)
            .map(|rank| counter.rows[origin(rank)])
            .sum();
        let keys = counter.rows[origin(rank)];
        let moved = u64::from(origin(rank) != rank);
        Self {
            row: others,
            column: column - keys,
            keys,
            hops: others + own - right,
            received_keys: moved * keys,
            returned_keys: moved * own,
        }
    }
}

#[cfg(test)]
mod tests;
