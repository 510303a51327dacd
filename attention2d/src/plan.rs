//! Which method and which grid: the time of every one of them on a network, as if all ranks kept step.

use crate::schedule::{Axis, Round, Schedule, Source, Tile};
use crate::volume::{check, messages, volume};
use crate::{Grid, Method, Network, Pass, Result, Setting, Volume, Way};
use serde::Serialize;

/// One method and what it would cost.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Prediction {
    /// The method.
    #[serde(flatten)]
    pub method: Method,
    /// Of a layer.
    pub seconds: f64,
    /// Of it, inside of kernels, on the rank that computes longest.
    pub computing_s: f64,
    /// What the first rank receives, which has the most tokens.
    pub volume: Volume,
    /// The same in bytes.
    pub bytes: u64,
    /// Messages one after the other.
    pub messages: u64,
}

/// All methods that can be had, the fastest first.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// Fastest first. Of equals, the first has the fewest calls of the kernel.
    pub predictions: Vec<Prediction>,
}

impl Plan {
    /// Predicts every method and every grid.
    ///
    /// # Errors
    /// Heads that those of keys do not divide, or no ranks.
    pub fn new(setting: &Setting, network: &Network, passes: &[Pass]) -> Result<Self> {
        check(Method::GatherKv, setting.shape, setting.ranks)?;
        let mut predictions = candidates(setting)
            .into_iter()
            .map(|method| predict(setting, network, method, passes))
            .collect::<Result<Vec<_>>>()?;
        // What differs by rounding alone is equal.
        predictions.sort_by(|a, b| (a.seconds as f32).total_cmp(&(b.seconds as f32)));
        Ok(Self { predictions })
    }

    /// The fastest.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn best(setting: &Setting, network: &Network, passes: &[Pass]) -> Result<Prediction> {
        Ok(Self::new(setting, network, passes)?.predictions[0])
    }

    /// The fastest grid of Attention2D; there is always one.
    pub fn attention2d(&self) -> Option<&Prediction> {
        self.predictions
            .iter()
            .find(|prediction| matches!(prediction.method, Method::Attention2D { .. }))
    }
}

/// What there is to choose from: ways to merge and transposed keys change nothing that a prediction sees for the better.
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
    if check(Method::Ulysses, setting.shape, setting.ranks).is_ok() {
        methods.push(Method::Ulysses);
    }
    methods
}

/// The time of one method, every round taking as long as for the rank that it takes longest for.
///
/// # Errors
/// A method that these ranks or heads cannot have.
pub fn predict(
    setting: &Setting,
    network: &Network,
    method: Method,
    passes: &[Pass],
) -> Result<Prediction> {
    let (mut seconds, mut computing_s) = (0.0, 0.0);
    let (mut received, mut rounds) = (Volume::default(), 0);
    for &pass in passes {
        let schedule = Schedule::new(setting, network, method, pass)?;
        for round in &schedule.rounds {
            let computing = round.tile.map_or(0.0, |tile| longest(&schedule, tile));
            seconds += computing.max(travel(&schedule, network, round));
            computing_s += computing;
        }
        received = received + volume(method, setting.shape, setting.ranks, 0, pass)?;
        rounds += messages(method, setting.ranks, pass);
    }
    Ok(Prediction {
        method,
        seconds,
        computing_s,
        volume: received,
        bytes: received.bytes(setting.payload),
        messages: rounds,
    })
}

/// The kernel's time on the rank that has most to do: at a corner of the grid, and on a ring at an end of it.
fn longest(schedule: &Schedule, tile: Tile) -> f64 {
    let Grid { rows, cols } = schedule.grid;
    let corners = [[0, 0], [rows - 1, 0], [0, cols - 1], [rows - 1, cols - 1]];
    corners
        .iter()
        .map(|&[row, col]| schedule.compute_seconds(schedule.grid.rank(row, col), tile))
        .fold(0.0, f64::max)
}

/// The slowest message's time.
fn travel(schedule: &Schedule, network: &Network, round: &Round) -> f64 {
    let bytes = schedule.bytes(0, round) as f64;
    let Grid { rows, cols } = schedule.grid;
    let Some((side, stride, distance)) = (match round.source {
        Source::Nobody => None,
        Source::Along(Axis::Column, distance) => Some((rows, 1, distance)),
        Source::Along(Axis::Row, distance) => Some((cols, rows, distance)),
        // Somebody's counterpart is as far away as can be.
        Source::Transposed | Source::Back => Some((rows * cols, 1, rows * cols / 2)),
    }) else {
        return 0.0;
    };
    let group = side * stride;
    if group <= network.node && network.node.is_multiple_of(group) {
        return network.seconds(Way::Inside, bytes);
    }
    // Of a node's ranks, so many have their source beyond its end, or its beginning on the way round.
    let hop = stride * distance.min(side - distance);
    let messages = hop.min(network.node).min(rows * cols);
    network.seconds(Way::Between { messages }, bytes)
}

#[cfg(test)]
mod tests;
