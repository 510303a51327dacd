//! A pass as rounds: from whom every rank receives what, and what it computes meanwhile. [`Plan`](crate::Plan) adds rounds up,
//! [`simulate`](fn@crate::simulate) plays them out.

use crate::collective::share;
use crate::volume::{check, dealt};
use crate::{Grid, Keys, Merge, Method, Network, Pass, Payload, Result, Shape};
use serde::{Deserialize, Serialize};

/// What is to be computed, on how many ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The attention.
    pub shape: Shape,
    /// P.
    pub ranks: usize,
    /// Whether a token attends to none after it.
    pub causal: bool,
    /// What queries, keys and values travel as.
    pub payload: Payload,
    /// What partial outputs and gradients travel as: f32 here, 16 bits in some programs.
    pub partials: Payload,
}

/// A side of the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Axis {
    Row,
    Column,
}

/// From whom a rank receives in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// From nobody: it computes.
    Nobody,
    /// From the rank so many places further along the axis.
    Along(Axis, usize),
    /// From the rank whose keys it takes.
    Transposed,
    /// From the rank that took its keys.
    Back,
}

/// Of what a message has so many bytes a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    /// The queries of a rank.
    Queries,
    /// The keys that a rank gives to its column.
    Keys,
    /// The largest scores that a rank has the reduction of.
    Maxima,
}

/// A part of a message: `bytes` for each row of the rank so many places further along the axis.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parcel {
    pub rows: Rows,
    pub axis: Axis,
    pub place: usize,
    pub bytes: u64,
}

/// Which scores a call of the kernel computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tile {
    /// The row's queries on the column's keys.
    Grid,
    /// The own queries on the keys of the rank so many places down the column.
    Column(usize),
    /// The queries of the rank so many places along the row on the column's keys.
    Row(usize),
    /// The own queries on the keys of the rank so many places round the ring.
    Ring(usize),
    /// All tokens, a P-th of the heads.
    Heads,
}

/// A round: all ranks receive, and compute while the messages are on their way.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    pub source: Source,
    pub parcels: Vec<Parcel>,
    pub tile: Option<Tile>,
}

/// One pass of one method.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub method: Method,
    pub setting: Setting,
    /// For methods without one, a column of all ranks.
    pub grid: Grid,
    pub rounds: Vec<Round>,
    /// Seconds per score and head, and of a call.
    pub seconds: [f64; 2],
    /// Of one sequence, by rank.
    queries: Vec<u64>,
    keys: Vec<u64>,
    maxima: Vec<u64>,
    /// Of `keys`, by column.
    columns: Vec<u64>,
}

impl Schedule {
    pub fn new(setting: &Setting, network: &Network, method: Method, pass: Pass) -> Result<Self> {
        let Setting { shape, ranks, .. } = *setting;
        check(method, shape, ranks)?;
        let (grid, order) = match method {
            Method::Attention2D { grid, keys, .. } => (grid, keys),
            _ => (Grid::new(ranks, 1)?, Keys::AsDealt),
        };
        let queries = dealt(method, shape.tokens, ranks);
        let keys: Vec<_> = match order {
            Keys::AsDealt => queries.clone(),
            Keys::Transposed => (0..ranks)
                .map(|rank| queries[grid.transposed(rank)[1]])
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
        // Two products of a score with a vector forward, five backward; each is a multiplication and an addition.
        let flops = match pass {
            Pass::Forward => 4,
            Pass::Backward => 10,
        };
        let rate = (flops * shape.head_dim * shape.batch) as f64 / network.flops_per_s;
        let mut schedule = Self {
            method,
            setting: *setting,
            grid,
            rounds: Vec::new(),
            seconds: [rate, network.launch_s],
            queries,
            keys,
            maxima,
            columns,
        };
        let moves = Moves::new(setting);
        match pass {
            Pass::Forward => schedule.forward(&moves),
            Pass::Backward => schedule.backward(&moves),
        }
        Ok(schedule)
    }

    fn forward(&mut self, moves: &Moves) {
        use Axis::{Column, Row};
        let Grid { rows, cols } = self.grid;
        let state = moves.output + moves.scalar;
        match self.method {
            Method::Attention2D {
                keys,
                overlap: true,
                ..
            } => {
                self.transpose(Source::Transposed, keys, Rows::Keys, moves.keys);
                // Algorithm 5: the own queries on the column's keys, as they come.
                for hop in 1..rows {
                    self.hop(
                        Column,
                        hop,
                        Rows::Keys,
                        moves.keys,
                        Some(Tile::Column(hop - 1)),
                    );
                }
                let last = Some(Tile::Column(rows - 1));
                match cols {
                    1 => self.compute(last),
                    _ => self.hop(Row, 1, Rows::Queries, moves.query, last),
                }
                // Algorithm 6: the row's queries, as they come, on all keys of the column; states leave as they are done.
                for hop in 1..cols {
                    let parcel = |place, bytes| Parcel {
                        rows: Rows::Queries,
                        axis: Row,
                        place,
                        bytes,
                    };
                    let next = (hop + 1 < cols).then(|| parcel(hop + 1, moves.query));
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
                self.transpose(Source::Transposed, keys, Rows::Keys, moves.keys);
                self.gather(Row, Rows::Queries, moves.query);
                self.gather(Column, Rows::Keys, moves.keys);
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
                self.rotate(moves.keys);
                self.compute(Some(Tile::Ring(rows - 1)));
            }
            Method::GatherKv => {
                self.gather(Column, Rows::Keys, moves.keys);
                self.compute(Some(Tile::Grid));
            }
            Method::Ulysses => {
                let ranks = rows as u64;
                self.gather_pairs((moves.query + moves.keys) / ranks);
                self.compute(Some(Tile::Heads));
                self.scatter(Column, Rows::Queries, moves.output / ranks);
            }
        }
    }

    fn backward(&mut self, moves: &Moves) {
        use Axis::{Column, Row};
        let rows = self.grid.rows;
        match self.method {
            Method::Attention2D { keys, .. } => {
                self.gather(Row, Rows::Queries, 2 * moves.query + 2 * moves.scalar);
                self.gather(Column, Rows::Keys, moves.keys);
                self.compute(Some(Tile::Grid));
                self.scatter(Row, Rows::Queries, moves.output);
                self.scatter(Column, Rows::Keys, moves.key_gradients);
                self.transpose(Source::Back, keys, Rows::Queries, moves.key_gradients);
            }
            Method::Ring { .. } => {
                self.rotate(moves.keys + moves.key_gradients);
                self.compute(Some(Tile::Ring(rows - 1)));
                if rows > 1 {
                    self.hop(Column, rows, Rows::Keys, moves.key_gradients, None);
                }
            }
            Method::GatherKv => {
                self.gather(Column, Rows::Keys, moves.keys);
                self.compute(Some(Tile::Grid));
                self.scatter(Column, Rows::Keys, moves.key_gradients);
            }
            Method::Ulysses => {
                let ranks = rows as u64;
                self.gather_pairs(moves.query / ranks);
                self.compute(Some(Tile::Heads));
                self.scatter(
                    Column,
                    Rows::Queries,
                    (moves.output + moves.key_gradients) / ranks,
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

    /// What the neighbour has had from the rank `hop` places further.
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

    /// Ring Attention: an all-gather that computes with each part and forgets it.
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

    /// A reduce-scatter or an all-to-all of own rows: pairs of ranks, one distance after the other.
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

    /// An all-to-all where a rank has of each other as many rows as that one.
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

    /// The rank so many places further along the axis, and round.
    pub fn member(&self, rank: usize, axis: Axis, place: usize) -> usize {
        let Grid { rows, cols } = self.grid;
        let [r, c] = self.grid.place(rank);
        match axis {
            Axis::Row => self.grid.rank(r, (c + place) % cols),
            Axis::Column => self.grid.rank((r + place) % rows, c),
        }
    }

    /// From whom the rank receives; itself: from nobody.
    pub fn source(&self, rank: usize, source: Source) -> usize {
        match source {
            Source::Nobody => rank,
            Source::Along(axis, place) => self.member(rank, axis, place),
            Source::Transposed => self.grid.transposed(rank)[1],
            Source::Back => self.grid.transposed(rank)[0],
        }
    }

    /// By rank, of all sequences unless of maxima.
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

    /// Seconds of the kernel; none when there is nothing to compute.
    pub fn compute_seconds(&self, rank: usize, tile: Tile) -> f64 {
        let heads = match tile {
            Tile::Heads => self.setting.shape.heads / self.setting.ranks,
            _ => self.setting.shape.heads,
        };
        match self.scores(rank, tile) {
            0 => 0.0,
            scores => (scores * heads as u64) as f64 * self.seconds[0] + self.seconds[1],
        }
    }

    /// Scores of one head and sequence that the mask leaves, exactly.
    pub fn scores(&self, rank: usize, tile: Tile) -> u64 {
        let own = self.queries[rank];
        let all = self.setting.shape.tokens as u64;
        let [_, c] = self.grid.place(rank);
        let causal = self.setting.causal;
        match tile {
            Tile::Heads if causal => all * (all + 1) / 2,
            Tile::Heads => all * all,
            Tile::Ring(place) => self.ring_scores(rank, self.member(rank, Axis::Column, place)),
            Tile::Column(place) => {
                let other = self.member(rank, Axis::Column, place);
                match causal {
                    // m-th query and k-th key, of ranks that have every P-th token: k ≤ m, or k < m.
                    true => own * (own + 1) / 2 - own * u64::from(self.first(other) > rank),
                    false => own * self.keys[other],
                }
            }
            Tile::Row(place) => self.column_scores(self.member(rank, Axis::Row, place), c),
            Tile::Grid => (0..self.grid.cols)
                .map(|place| self.column_scores(self.member(rank, Axis::Row, place), c))
                .sum(),
        }
    }

    /// A rank's queries on all keys of a column.
    fn column_scores(&self, rank: usize, col: usize) -> u64 {
        let own = self.queries[rank];
        let Grid { rows, cols } = self.grid;
        if !self.setting.causal {
            return own * self.columns[col];
        }
        // Of the column's R classes of keys, those that begin no later than the queries have one key more a query.
        let earlier = match self.method {
            Method::Attention2D {
                keys: Keys::Transposed,
                ..
            } => match rank.checked_sub(col) {
                Some(after) => after / cols + 1,
                None => 0,
            },
            _ => (rank + 1).saturating_sub(col * rows).min(rows),
        };
        rows as u64 * (own * own.saturating_sub(1) / 2) + earlier as u64 * own
    }

    /// The first position of the keys that a rank gives to its column.
    fn first(&self, rank: usize) -> usize {
        match self.method {
            Method::Attention2D {
                keys: Keys::Transposed,
                ..
            } => self.grid.transposed(rank)[1],
            _ => rank,
        }
    }

    fn ring_scores(&self, rank: usize, other: usize) -> u64 {
        let [own, their] = [self.queries[rank], self.queries[other]];
        if !self.setting.causal {
            return own * their;
        }
        let [head, tail] = self.ends(rank);
        match rank.cmp(&other) {
            std::cmp::Ordering::Equal => {
                head * (head + 1) / 2 + tail * (tail + 1) / 2 + head * tail
            }
            // All own queries come after the others' first part and before their second.
            std::cmp::Ordering::Greater => own * self.ends(other)[0],
            // The own second part comes after all of theirs.
            std::cmp::Ordering::Less => tail * their,
        }
    }

    /// Tokens of a rank's first and second part; without a zigzag there is only the first.
    pub fn ends(&self, rank: usize) -> [u64; 2] {
        let head = match self.method {
            Method::Ring { zigzag: true } => {
                share(self.setting.shape.tokens, 2 * self.setting.ranks, rank) as u64
            }
            _ => self.queries[rank],
        };
        [head, self.queries[rank] - head]
    }
}

/// Bytes of a row.
struct Moves {
    query: u64,
    keys: u64,
    output: u64,
    key_gradients: u64,
    /// Of all heads.
    scalar: u64,
}

impl Moves {
    fn new(setting: &Setting) -> Self {
        let Setting {
            shape,
            payload,
            partials,
            ..
        } = setting;
        let query = shape.heads * shape.head_dim;
        let keys = 2 * shape.kv_heads * shape.head_dim;
        let [narrow, wide] = [payload.bytes(), partials.bytes()];
        Self {
            query: (query * narrow) as u64,
            keys: (keys * narrow) as u64,
            output: (query * wide) as u64,
            key_gradients: (keys * wide) as u64,
            scalar: (shape.heads * size_of::<f32>()) as u64,
        }
    }
}

/// Of the largest scores of a row's queries, those that each rank reduces.
fn maxima(grid: Grid, queries: &[u64], shape: Shape) -> Vec<u64> {
    let of_row = |row: usize| -> u64 { queries.iter().skip(row).step_by(grid.rows).sum() };
    let values: Vec<_> = (0..grid.rows)
        .map(|row| of_row(row) as usize * shape.batch * shape.heads)
        .collect();
    (0..grid.ranks())
        .map(|rank| {
            let [row, col] = grid.place(rank);
            share(values[row], grid.cols, col) as u64
        })
        .collect()
}
