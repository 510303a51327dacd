//! The choice of a method and a grid: the predicted time of each on a network, as if all ranks were synchronized after
//! every round.

use crate::comm::collective::Member;
use crate::cost::network::{Network, Route};
use crate::cost::schedule::{Axis, Round, Schedule, Setting, Source, Tile};
use crate::cost::volume::{Direction, Volume, messages, volume};
use crate::error::Result;
use crate::methods::grid::{Grid, Place};
use crate::methods::method::Method;
use serde::Serialize;

/// One method and its predicted cost.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Prediction {
    /// The method.
    #[serde(flatten)]
    pub method: Method,
    /// Seconds per layer.
    pub seconds: f64,
    /// Seconds of these inside kernels, on the rank that computes longest.
    pub computing_s: f64,
    /// What rank 0 receives, which has the most tokens.
    pub volume: Volume,
    /// Bytes that rank 0 receives.
    pub bytes: u64,
    /// Messages that a rank receives one after another.
    pub messages: u64,
}

/// All methods that a number of ranks can compute, fastest first.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// Fastest first; of equals, the one with the fewest kernel calls first.
    pub predictions: Vec<Prediction>,
}

impl Plan {
    /// Predicts every method and every grid.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if `kv_heads` does not divide `heads`, or without ranks.
    pub fn new(setting: &Setting, network: &Network, directions: &[Direction]) -> Result<Self> {
        Method::GatherKv.check(setting.shape, setting.ranks)?;
        let mut predictions = candidates(setting)
            .into_iter()
            .map(|method| predict(setting, network, method, directions))
            .collect::<Result<Vec<_>>>()?;
        // Times that differ only by rounding are equal.
        predictions.sort_by(|a, b| (a.seconds as f32).total_cmp(&(b.seconds as f32)));
        Ok(Self { predictions })
    }

    /// The fastest method.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn best(
        setting: &Setting,
        network: &Network,
        directions: &[Direction],
    ) -> Result<Prediction> {
        Ok(Self::new(setting, network, directions)?.predictions[0])
    }

    /// The fastest grid of Attention2D. There always is one, since every number of ranks has a grid.
    pub fn attention2d(&self) -> Option<&Prediction> {
        self.predictions
            .iter()
            .find(|prediction| matches!(prediction.method, Method::Attention2D { .. }))
    }
}

/// The methods to choose from. Other merges and transposed keys are left out: they never improve a prediction.
fn candidates(setting: &Setting) -> Vec<Method> {
    let mut methods = Vec::new();
    for grid in Grid::of(setting.ranks) {
        let method = Method::attention2d(grid);
        methods.push(method);
        if let Method::Attention2D { merge, keys, .. } = method {
            let overlap = true;
            methods.push(Method::Attention2D {
                grid,
                merge,
                keys,
                overlap,
            });
        }
    }
    methods.push(Method::GatherKv);
    methods.extend([true, false].map(|zigzag| Method::Ring { zigzag }));
    if Method::Ulysses.check(setting.shape, setting.ranks).is_ok() {
        methods.push(Method::Ulysses);
    }
    methods
}

/// Predicts one method. Every round takes as long as on its slowest rank.
///
/// # Errors
/// As [`Method::check`].
pub fn predict(
    setting: &Setting,
    network: &Network,
    method: Method,
    directions: &[Direction],
) -> Result<Prediction> {
    let (mut seconds, mut computing_s) = (0.0, 0.0);
    let (mut received, mut rounds) = (Volume::default(), 0);
    let first = Member {
        rank: 0,
        ranks: setting.ranks,
    };
    for &direction in directions {
        let schedule = Schedule::new(setting, network, method, direction)?;
        for round in &schedule.rounds {
            let computing = round.tile.map_or(0.0, |tile| longest(&schedule, tile));
            seconds += computing.max(travel(&schedule, network, round));
            computing_s += computing;
        }
        received = received + volume(method, setting.shape, first, direction)?;
        rounds += messages(method, setting.ranks, direction);
    }
    Ok(Prediction {
        method,
        seconds,
        computing_s,
        volume: received,
        bytes: received.bytes(setting.wire_dtype),
        messages: rounds,
    })
}

/// The kernel's time on the rank with the most scores, which is at a corner of the grid, or at an end of a ring.
fn longest(schedule: &Schedule, tile: Tile) -> f64 {
    let Grid { rows, cols } = schedule.grid;
    let corners = [[0, 0], [rows - 1, 0], [0, cols - 1], [rows - 1, cols - 1]];
    corners
        .iter()
        .map(|&[row, col]| schedule.grid.rank(Place { row, col }))
        .map(|rank| schedule.compute_seconds(rank, tile))
        .fold(0.0, f64::max)
}

/// The time of the slowest message.
fn travel(schedule: &Schedule, network: &Network, round: &Round) -> f64 {
    let bytes = schedule.bytes(0, round) as f64;
    let Grid { rows, cols } = schedule.grid;
    let Some((side, stride, distance)) = (match round.source {
        Source::Nobody => None,
        Source::Along(Axis::Column, distance) => Some((rows, 1, distance)),
        Source::Along(Axis::Row, distance) => Some((cols, rows, distance)),
        // The partner of some rank is as far away as possible.
        Source::Transposed | Source::Back => Some((rows * cols, 1, rows * cols / 2)),
    }) else {
        return 0.0;
    };
    let group = side * stride;
    if group <= network.ranks_per_node && network.ranks_per_node.is_multiple_of(group) {
        return network.seconds(Route::IntraNode, bytes);
    }
    // This many of a node's ranks receive from another node, counting the cyclic hops.
    let hop = stride * distance.min(side - distance);
    let messages = hop.min(network.ranks_per_node).min(rows * cols);
    network.seconds(Route::InterNode { messages }, bytes)
}

#[cfg(test)]
mod tests;
