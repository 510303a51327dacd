//! A pass as a list of rounds: what every rank receives, from whom, and what it computes meanwhile.
//! [`Plan`](crate::Plan) adds up the times of rounds, [`simulate`](fn@crate::simulate) plays them out.

use crate::comm::collective::Member;
use crate::cost::network::Network;
use crate::cost::volume::Direction;
use crate::error::Result;
use crate::methods::grid::{Grid, Place};
use crate::methods::method::{Keys, Merge, Method};
use crate::methods::shape::Shape;
use crate::methods::wire::WireDtype;
use serde::{Deserialize, Serialize};

/// An attention and the number of ranks that compute it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Its sizes.
    pub shape: Shape,
    /// P, the number of ranks.
    pub ranks: usize,
    /// Whether a token attends only to tokens up to itself.
    pub causal: bool,
    /// The number type of messages with queries, keys, values and output gradients.
    #[serde(rename = "payload")]
    pub wire_dtype: WireDtype,
    /// The number type of messages with partial outputs and gradients: f32 in this crate, 16 bits in some programs.
    #[serde(rename = "partials")]
    pub partial_dtype: WireDtype,
}

/// A direction along the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Axis {
    Row,
    Column,
}

/// The rank from which a rank receives in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// None: it only computes.
    Nobody,
    /// The rank this many places ahead along the axis.
    Along(Axis, usize),
    /// The rank whose keys it gets in the transpose.
    Transposed,
    /// The rank that got its keys in the transpose.
    Back,
}

/// The unit in which a message is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    /// Queries of a rank.
    Queries,
    /// Keys that a rank contributes to its column.
    Keys,
    /// Maxima that a rank reduces.
    Maxima,
}

/// A part of a message: `bytes` for each row of the rank `place` places ahead along the axis.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parcel {
    pub rows: Rows,
    pub axis: Axis,
    pub place: usize,
    pub bytes: u64,
}

/// The scores that one kernel call computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tile {
    /// Queries of the row, keys of the column.
    Grid,
    /// Own queries, keys of the rank this many places down the column.
    Column(usize),
    /// Queries of the rank this many places along the row, keys of the column.
    Row(usize),
    /// Own queries, keys of the rank this many places around the ring.
    Ring(usize),
    /// All tokens, 1/P of the heads.
    Heads,
}

/// A round, in which all ranks receive, and compute while the messages are in flight.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    pub source: Source,
    pub parcels: Vec<Parcel>,
    pub tile: Option<Tile>,
}

/// The time of the attention kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kernel {
    /// Seconds per score of one head, for all sequences.
    pub score_s: f64,
    /// Seconds per call.
    pub launch_s: f64,
}

/// One method in one direction.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub method: Method,
    pub setting: Setting,
    /// For methods without a grid, one column of all ranks.
    pub grid: Grid,
    pub rounds: Vec<Round>,
    pub kernel: Kernel,
    /// Queries of one sequence, by rank.
    pub queries: Vec<u64>,
    /// Keys of one sequence that a rank contributes to its column, by rank.
    pub keys: Vec<u64>,
    /// Maxima of all sequences, by rank.
    maxima: Vec<u64>,
    /// Sums of `keys`, by column.
    pub columns: Vec<u64>,
}

impl Schedule {
    pub fn new(
        setting: &Setting,
        network: &Network,
        method: Method,
        direction: Direction,
    ) -> Result<Self> {
        let Setting { shape, ranks, .. } = *setting;
        method.check(shape, ranks)?;
        let (grid, order) = match method {
            Method::Attention2D { grid, keys, .. } => (grid, keys),
            _ => (Grid::new(ranks, 1)?, Keys::AsSharded),
        };
        let queries = method.tokens_per_rank(shape, ranks);
        let keys: Vec<_> = match order {
            Keys::AsSharded => queries.clone(),
            Keys::Transposed => (0..ranks)
                .map(|rank| queries[grid.transposed(rank).from])
                .collect(),
        };
        let columns = keys
            .chunks(grid.rows)
            .map(|keys| keys.iter().sum())
            .collect();
        let maxima = match method {
            Method::Attention2D {
                merge: Merge::MaxSum,
                overlap: false,
                ..
            } => maxima(grid, &queries, shape),
            _ => Vec::new(),
        };
        // Per score and feature two multiply-adds forward, five backward.
        let flops = match direction {
            Direction::Forward => 4,
            Direction::Backward => 10,
        };
        let score_s = (flops * shape.head_dim * shape.batch) as f64 / network.flops_per_s;
        let mut schedule = Self {
            method,
            setting: *setting,
            grid,
            rounds: Vec::new(),
            kernel: Kernel {
                score_s,
                launch_s: network.launch_s,
            },
            queries,
            keys,
            maxima,
            columns,
        };
        let bytes = RowBytes::new(setting);
        match direction {
            Direction::Forward => schedule.forward(&bytes),
            Direction::Backward => schedule.backward(&bytes),
        }
        Ok(schedule)
    }

    fn forward(&mut self, row_bytes: &RowBytes) {
        use Axis::{Column, Row};
        let Grid { rows, cols } = self.grid;
        let state = row_bytes.output + row_bytes.scalar;
        match self.method {
            Method::Attention2D {
                keys,
                overlap: true,
                ..
            } => {
                self.transpose(Source::Transposed, keys, Rows::Keys, row_bytes.keys);
                // Algorithm 5: own queries, keys of the column as they arrive.
                for hop in 1..rows {
                    self.hop(
                        Column,
                        hop,
                        Rows::Keys,
                        row_bytes.keys,
                        Some(Tile::Column(hop - 1)),
                    );
                }
                let last = Some(Tile::Column(rows - 1));
                match cols {
                    1 => self.compute(last),
                    _ => self.hop(Row, 1, Rows::Queries, row_bytes.query, last),
                }
                // Algorithm 6: queries of the row as they arrive, all keys of the column; states are sent as soon as
                // they are computed.
                for hop in 1..cols {
                    let parcel = |place, bytes| Parcel {
                        rows: Rows::Queries,
                        axis: Row,
                        place,
                        bytes,
                    };
                    let next = (hop + 1 < cols).then(|| parcel(hop + 1, row_bytes.query));
                    let done = (hop > 1).then(|| parcel(hop, state));
                    let parcels: Vec<_> = next.into_iter().chain(done).collect();
                    let source = match parcels.is_empty() {
                        true => Source::Nobody,
                        false => Source::Along(Row, 1),
                    };
                    self.round(source, parcels, Some(Tile::Row(hop)));
                }
                if cols > 1 {
                    self.hop(Row, cols, Rows::Queries, state, None);
                }
            }
            Method::Attention2D { merge, keys, .. } => {
                self.transpose(Source::Transposed, keys, Rows::Keys, row_bytes.keys);
                self.gather(Row, Rows::Queries, row_bytes.query);
                self.gather(Column, Rows::Keys, row_bytes.keys);
                self.compute(Some(Tile::Grid));
                match merge {
                    Merge::AllToAll => self.scatter(Row, Rows::Queries, state),
                    Merge::Ring => {
                        (2..=cols).for_each(|hop| self.hop(Row, hop, Rows::Queries, state, None))
                    }
                    Merge::MaxSum => {
                        self.scatter(Row, Rows::Maxima, 4);
                        self.gather(Row, Rows::Maxima, 4);
                        self.scatter(Row, Rows::Queries, state);
                    }
                }
            }
            Method::Ring { .. } => {
                self.rotate(row_bytes.keys);
                self.compute(Some(Tile::Ring(rows - 1)));
            }
            Method::GatherKv => {
                self.gather(Column, Rows::Keys, row_bytes.keys);
                self.compute(Some(Tile::Grid));
            }
            Method::Ulysses => {
                let ranks = rows as u64;
                self.gather_pairs((row_bytes.query + row_bytes.keys) / ranks);
                self.compute(Some(Tile::Heads));
                self.scatter(Column, Rows::Queries, row_bytes.output / ranks);
            }
        }
    }

    fn backward(&mut self, row_bytes: &RowBytes) {
        use Axis::{Column, Row};
        let rows = self.grid.rows;
        match self.method {
            Method::Attention2D { keys, .. } => {
                self.gather(
                    Row,
                    Rows::Queries,
                    2 * row_bytes.query + 2 * row_bytes.scalar,
                );
                self.gather(Column, Rows::Keys, row_bytes.keys);
                self.compute(Some(Tile::Grid));
                self.scatter(Row, Rows::Queries, row_bytes.output);
                self.scatter(Column, Rows::Keys, row_bytes.key_gradients);
                self.transpose(Source::Back, keys, Rows::Queries, row_bytes.key_gradients);
            }
            Method::Ring { .. } => {
                self.rotate(row_bytes.keys + row_bytes.key_gradients);
                self.compute(Some(Tile::Ring(rows - 1)));
                if rows > 1 {
                    self.hop(Column, rows, Rows::Keys, row_bytes.key_gradients, None);
                }
            }
            Method::GatherKv => {
                self.gather(Column, Rows::Keys, row_bytes.keys);
                self.compute(Some(Tile::Grid));
                self.scatter(Column, Rows::Keys, row_bytes.key_gradients);
            }
            Method::Ulysses => {
                let ranks = rows as u64;
                self.gather_pairs(row_bytes.query / ranks);
                self.compute(Some(Tile::Heads));
                self.scatter(
                    Column,
                    Rows::Queries,
                    (row_bytes.output + row_bytes.key_gradients) / ranks,
                );
            }
        }
    }

    fn round(&mut self, source: Source, parcels: Vec<Parcel>, tile: Option<Tile>) {
        self.rounds.push(Round {
            source,
            parcels,
            tile,
        });
    }

    fn compute(&mut self, tile: Option<Tile>) {
        self.round(Source::Nobody, Vec::new(), tile);
    }

    /// Receives from the neighbor what it has of the rank `hop` places ahead.
    fn hop(&mut self, axis: Axis, hop: usize, rows: Rows, bytes: u64, tile: Option<Tile>) {
        let parcel = Parcel {
            rows,
            axis,
            place: hop,
            bytes,
        };
        self.round(Source::Along(axis, 1), vec![parcel], tile);
    }

    /// An all-gather as a ring.
    fn gather(&mut self, axis: Axis, rows: Rows, bytes: u64) {
        (1..self.along(axis)).for_each(|hop| self.hop(axis, hop, rows, bytes, None));
    }

    /// Ring Attention: an all-gather that computes on each part and drops it.
    fn rotate(&mut self, bytes: u64) {
        for hop in 1..self.grid.rows {
            self.hop(
                Axis::Column,
                hop,
                Rows::Keys,
                bytes,
                Some(Tile::Ring(hop - 1)),
            );
        }
    }

    /// A reduce-scatter or an all-to-all of own rows, as exchanges between pairs of ranks at growing distance.
    fn scatter(&mut self, axis: Axis, rows: Rows, bytes: u64) {
        for distance in 1..self.along(axis) {
            let parcel = Parcel {
                rows,
                axis,
                place: 0,
                bytes,
            };
            self.round(Source::Along(axis, distance), vec![parcel], None);
        }
    }

    /// An all-to-all in which a rank receives from each other rank that rank's own number of rows.
    fn gather_pairs(&mut self, bytes: u64) {
        for place in 1..self.grid.rows {
            let parcel = Parcel {
                rows: Rows::Queries,
                axis: Axis::Column,
                place,
                bytes,
            };
            self.round(Source::Along(Axis::Column, place), vec![parcel], None);
        }
    }

    fn transpose(&mut self, source: Source, keys: Keys, rows: Rows, bytes: u64) {
        if keys == Keys::Transposed && self.grid.rows > 1 && self.grid.cols > 1 {
            let parcel = Parcel {
                rows,
                axis: Axis::Row,
                place: 0,
                bytes,
            };
            self.round(source, vec![parcel], None);
        }
    }

    pub fn along(&self, axis: Axis) -> usize {
        match axis {
            Axis::Row => self.grid.cols,
            Axis::Column => self.grid.rows,
        }
    }

    /// The rank `place` places ahead along the axis, cyclically.
    pub fn member(&self, rank: usize, axis: Axis, place: usize) -> usize {
        let Grid { rows, cols } = self.grid;
        let Place { row, col } = self.grid.place(rank);
        self.grid.rank(match axis {
            Axis::Row => Place {
                row,
                col: (col + place) % cols,
            },
            Axis::Column => Place {
                row: (row + place) % rows,
                col,
            },
        })
    }

    /// The rank from which `rank` receives, or itself if it does not.
    pub fn source(&self, rank: usize, source: Source) -> usize {
        match source {
            Source::Nobody => rank,
            Source::Along(axis, place) => self.member(rank, axis, place),
            Source::Transposed => self.grid.transposed(rank).from,
            Source::Back => self.grid.transposed(rank).to,
        }
    }

    /// Rows by rank, of one sequence; maxima of all sequences.
    pub fn rows(&self, rows: Rows) -> &[u64] {
        match rows {
            Rows::Queries => &self.queries,
            Rows::Keys => &self.keys,
            Rows::Maxima => &self.maxima,
        }
    }

    /// Bytes that the rank receives in a round.
    pub fn bytes(&self, rank: usize, round: &Round) -> u64 {
        let bytes = |parcel: &Parcel| {
            let batch = match parcel.rows {
                Rows::Maxima => 1,
                _ => self.setting.shape.batch as u64,
            };
            let owner = self.member(rank, parcel.axis, parcel.place);
            self.rows(parcel.rows)[owner] * parcel.bytes * batch
        };
        round.parcels.iter().map(bytes).sum()
    }
}

/// Bytes per row.
struct RowBytes {
    query: u64,
    /// Key and value.
    keys: u64,
    output: u64,
    /// Gradients of key and value.
    key_gradients: u64,
    /// One scalar for every head.
    scalar: u64,
}

impl RowBytes {
    fn new(setting: &Setting) -> Self {
        let Setting {
            shape,
            wire_dtype,
            partial_dtype,
            ..
        } = setting;
        let query = shape.heads * shape.head_dim;
        let keys = 2 * shape.kv_heads * shape.head_dim;
        let [narrow, wide] = [wire_dtype.bytes(), partial_dtype.bytes()];
        Self {
            query: (query * narrow) as u64,
            keys: (keys * narrow) as u64,
            output: (query * wide) as u64,
            key_gradients: (keys * wide) as u64,
            scalar: (shape.heads * size_of::<f32>()) as u64,
        }
    }
}

/// How many maxima of its row's queries each rank reduces.
fn maxima(grid: Grid, queries: &[u64], shape: Shape) -> Vec<u64> {
    let of_row = |row: usize| -> u64 { queries.iter().skip(row).step_by(grid.rows).sum() };
    let values: Vec<_> = (0..grid.rows)
        .map(|row| of_row(row) as usize * shape.batch * shape.heads)
        .collect();
    (0..grid.ranks())
        .map(|rank| {
            let Place { row, col } = grid.place(rank);
            let in_row = Member {
                rank: col,
                ranks: grid.cols,
            };
            in_row.share(values[row]) as u64
        })
        .collect()
}
