//! What a rank receives: the communication volume of every method, exactly, for any number of tokens and ranks.
//!
//! A softmax state is counted as its output and one scalar per row and head, the log-sum-exp. The paper's state has two, M and
//! D; an output that is already divided by D needs only M + ln D to be merged with another.

use crate::collective::share;
use crate::{Error, Grid, Keys, Merge, Method, Payload, Result, Shape};
use serde::{Deserialize, Serialize};
use std::ops::Add;

/// A direction through attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pass {
    /// Outputs from queries, keys and values.
    Forward,
    /// Their gradients from that of the outputs.
    Backward,
}

impl Pass {
    /// What inference does.
    pub const INFERENCE: &[Self] = &[Self::Forward];
    /// What a training step does.
    pub const TRAINING: &[Self] = &[Self::Forward, Self::Backward];
}

/// Elements that a rank receives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Of Q, K, V and dO, which travel as the payload.
    pub narrow: u64,
    /// Of partial outputs and partial gradients, which travel as f32.
    pub wide: u64,
    /// Scalars of the softmax per row and head, f32.
    pub scalars: u64,
}

impl Volume {
    /// Bytes, with this payload.
    pub fn bytes(self, payload: Payload) -> u64 {
        self.narrow * payload.bytes() as u64 + (self.wide + self.scalars) * size_of::<f32>() as u64
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

/// Refuses ranks and heads that a method cannot have.
///
/// # Errors
/// [`Error::Config`]: heads that those of keys do not divide, a grid of another number of ranks, Ulysses on ranks that do not
/// divide the heads of keys.
pub fn check(method: Method, shape: Shape, ranks: usize) -> Result<()> {
    let Shape {
        heads, kv_heads, ..
    } = shape;
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        let expected = format!("a multiple of the {kv_heads} of keys and values");
        return Err(Error::config("the heads of queries", expected, heads));
    }
    match method {
        _ if ranks == 0 => Err(Error::config("ranks", "1 or more", ranks)),
        Method::Attention2D { grid, .. } if grid.ranks() != ranks => Err(Error::config(
            "a grid",
            format!("of {ranks} ranks"),
            format!("{grid}, {}", grid.ranks()),
        )),
        Method::Ulysses if !kv_heads.is_multiple_of(ranks) => Err(Error::config(
            "ranks of Ulysses",
            format!("a divisor of the {kv_heads} heads of keys and values"),
            ranks,
        )),
        _ => Ok(()),
    }
}

/// How many of a sequence's tokens each rank has.
pub fn dealt(method: Method, tokens: usize, ranks: usize) -> Vec<u64> {
    let rank_tokens = |rank| method.layout().count(rank, ranks, tokens) as u64;
    (0..ranks).map(rank_tokens).collect()
}

/// What `rank` receives in one pass through one layer.
///
/// # Errors
/// As [`check`].
pub fn volume(
    method: Method,
    shape: Shape,
    ranks: usize,
    rank: usize,
    pass: Pass,
) -> Result<Volume> {
    check(method, shape, ranks)?;
    if rank >= ranks {
        return Err(Error::config("a rank", format!("below {ranks}"), rank));
    }
    let counted = Counted::new(method, shape, ranks, rank);
    Ok(match pass {
        Pass::Forward => counted.forward(method),
        Pass::Backward => counted.backward(method),
    })
}

/// Messages that a rank receives in a pass, when collectives are rings or pairs of ranks in turn and what goes the same way
/// goes together: the latency of a pass in units of α. Of those with overlap some are on their way at once.
pub fn messages(method: Method, ranks: usize, pass: Pass) -> u64 {
    let others = |ranks: usize| ranks as u64 - 1;
    match (method, pass) {
        (
            Method::Attention2D {
                grid,
                merge,
                keys,
                overlap,
            },
            pass,
        ) => {
            let [rows, cols] = [others(grid.rows), others(grid.cols)];
            let exchange = u64::from(keys == Keys::Transposed && rows > 0 && cols > 0);
            exchange
                + match pass {
                    Pass::Forward if merge == Merge::MaxSum && !overlap => rows + 4 * cols,
                    Pass::Forward => rows + 2 * cols,
                    Pass::Backward => 2 * rows + 2 * cols,
                }
        }
        (Method::Ring { .. }, Pass::Backward) if ranks > 1 => ranks as u64,
        (Method::Ring { .. }, _) | (Method::GatherKv, Pass::Forward) => others(ranks),
        (Method::GatherKv, Pass::Backward) | (Method::Ulysses, _) => 2 * others(ranks),
    }
}

/// The rows of all sequences, and how wide they are.
struct Counted {
    rank: usize,
    /// P.
    ranks: u64,
    /// Rows of every rank.
    rows: Vec<u64>,
    /// N, of all sequences.
    all: u64,
    heads: u64,
    /// Elements of a row of queries or outputs.
    query: u64,
    /// Elements of a row of keys and values together.
    keys: u64,
}

impl Counted {
    fn new(method: Method, shape: Shape, ranks: usize, rank: usize) -> Self {
        let mut rows = dealt(method, shape.tokens, ranks);
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

    /// Rows that the others of a group have.
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
                    sides.row * self.query + (sides.exchanged[1] + sides.column) * self.keys;
                let [outputs, scalars] = match merge {
                    Merge::Ring => [sides.hops; 2],
                    _ if overlap => [sides.hops; 2],
                    Merge::AllToAll => [(cols - 1) * own; 2],
                    Merge::MaxSum => {
                        let heads = self.heads as usize;
                        let values = (sides.row + own) as usize * heads;
                        let part = share(values, grid.cols, grid.place(self.rank)[1]) as u64;
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
            // Q, K and V of all tokens for a P-th of the heads, then outputs of all heads for the own tokens.
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
                    // Q and dO along the row; K and V, as they were saved, along the column.
                    narrow: 2 * sides.row * self.query + sides.column * self.keys,
                    // dQ along the row; dK and dV along the column, then back to whose they are.
                    wide: (cols - 1) * own * self.query
                        + ((rows - 1) * sides.keys + sides.exchanged[0]) * self.keys,
                    // The log-sum-exp and δ, the sum of dO·O.
                    scalars: 2 * sides.row * self.heads,
                }
            }
            Method::Ring { .. } if self.ranks == 1 => Volume::default(),
            // K and V as in the forward pass; dK and dV once round, all the way home.
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

/// Rows that Attention2D moves along the two sides of its grid.
struct Sides {
    /// Of queries, from the others of the row.
    row: u64,
    /// Of keys, from the others of the column.
    column: u64,
    /// Of keys that this rank gives to its column.
    keys: u64,
    /// Of outputs, when they go round the row: all chunks but the one that this rank sends off, its right neighbour's.
    hops: u64,
    /// Of keys, taken back from, and given by, the transposed rank.
    exchanged: [u64; 2],
}

impl Sides {
    fn new(counted: &Counted, grid: Grid, keys: Keys) -> Self {
        let rank = counted.rank;
        let [r, c] = grid.place(rank);
        let row = counted.others((0..grid.cols).map(|col| grid.rank(r, col)));
        let own = counted.rows[rank];
        let right = counted.rows[grid.rank(r, (c + 1) % grid.cols)];
        // Whose keys a rank gathers with.
        let origin = |rank| match keys {
            Keys::AsDealt => rank,
            Keys::Transposed => grid.transposed(rank)[1],
        };
        let column: u64 = (0..grid.rows)
            .map(|row| counted.rows[origin(grid.rank(row, c))])
            .sum();
        let keys = counted.rows[origin(rank)];
        let moved = origin(rank) != rank;
        Self {
            row,
            column: column - keys,
            keys,
            hops: row + own - right,
            exchanged: if moved { [own, keys] } else { [0; 2] },
        }
    }
}

#[cfg(test)]
mod tests;
