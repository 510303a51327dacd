//! A pass simulated message by message, with a clock for every rank: `clock'[r] = max(clock[r] + computing,
//! max(clock[r], clock[source]) + α + b/β)`, round by round. A message begins when both ends are ready; a rank
//! continues when it has computed and received.

mod ring;

use self::ring::Ring;
use crate::cost::network::{Link, Network, Route};
use crate::cost::schedule::{Round, Schedule, Setting, Source};
use crate::cost::volume::Direction;
use crate::error::Result;
use crate::methods::method::Method;
use serde::Serialize;

/// How a time is distributed over the ranks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Mean over the ranks, in seconds.
    pub mean_s: f64,
    /// Maximum over the ranks, in seconds.
    pub max_s: f64,
}

impl Spread {
    fn of(times: &[f64]) -> Self {
        Self {
            mean_s: times.iter().sum::<f64>() / times.len() as f64,
            max_s: times.iter().copied().fold(0.0, f64::max),
        }
    }
}

/// The result of a simulated pass.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Simulation {
    /// Seconds until the last rank is done.
    pub seconds: f64,
    /// Time inside kernels.
    pub computing: Spread,
    /// Time until the last rank is done, without computation.
    pub waiting: Spread,
    /// Messages received by all ranks.
    pub messages: u64,
    /// Bytes that each rank received.
    #[serde(skip)]
    pub received: Vec<u64>,
}

/// Simulates a method in one direction.
///
/// # Errors
/// As [`Method::check`].
pub fn simulate(
    setting: &Setting,
    network: &Network,
    method: Method,
    direction: Direction,
) -> Result<Simulation> {
    let schedule = Schedule::new(setting, network, method, direction)?;
    let mut ranks = Ranks::new(setting.ranks);
    let on_ring = matches!(method, Method::Ring { .. }).then(|| Ring::new(&schedule));
    for rounds in schedule.rounds.chunk_by(|a, b| a.source == b.source) {
        let links = Links::new(&schedule, network, rounds[0].source);
        match &on_ring {
            Some(ring) if rounds[0].source != Source::Nobody => {
                ring.play(&mut ranks, &links, rounds)
            }
            _ => rounds
                .iter()
                .for_each(|round| ranks.round(&schedule, &links, round)),
        }
    }
    Ok(ranks.end())
}

/// The state of all ranks, one vector per quantity, so that a round is a loop over vectors.
struct Ranks {
    clock: Vec<f64>,
    next: Vec<f64>,
    computing: Vec<f64>,
    /// Bytes: whole numbers below 2^53.
    received: Vec<f64>,
    messages: u64,
}

impl Ranks {
    fn new(ranks: usize) -> Self {
        Self {
            clock: vec![0.0; ranks],
            next: vec![0.0; ranks],
            computing: vec![0.0; ranks],
            received: vec![0.0; ranks],
            messages: 0,
        }
    }

    fn round(&mut self, schedule: &Schedule, links: &Links, round: &Round) {
        for rank in 0..self.computing.len() {
            let computing = round
                .tile
                .map_or(0.0, |tile| schedule.compute_seconds(rank, tile));
            let mut done = self.clock[rank] + computing;
            let source = links.source[rank];
            if source as usize != rank {
                let bytes = schedule.bytes(rank, round) as f64;
                let begin = self.clock[rank].max(self.clock[source as usize]);
                done = done.max(begin + links.latency[rank] + bytes * links.per_byte[rank]);
                self.received[rank] += bytes;
                self.messages += round.parcels.len() as u64;
            }
            self.next[rank] = done;
            self.computing[rank] += computing;
        }
        self.advance();
    }

    /// Makes the next clocks the current ones.
    fn advance(&mut self) {
        std::mem::swap(&mut self.clock, &mut self.next);
    }

    fn end(self) -> Simulation {
        let seconds = self.clock.iter().copied().fold(0.0, f64::max);
        let waiting: Vec<_> = self.computing.iter().map(|time| seconds - time).collect();
        Simulation {
            seconds,
            computing: Spread::of(&self.computing),
            waiting: Spread::of(&waiting),
            messages: self.messages,
            received: self.received.iter().map(|&bytes| bytes as u64).collect(),
        }
    }
}

/// From whom every rank receives, and over which link.
struct Links {
    source: Vec<u32>,
    latency: Vec<f64>,
    per_byte: Vec<f64>,
}

impl Links {
    fn new(schedule: &Schedule, network: &Network, source: Source) -> Self {
        let ranks = schedule.setting.ranks;
        let source: Vec<_> = (0..ranks)
            .map(|rank| schedule.source(rank, source) as u32)
            .collect();
        let node = |rank: usize| rank / network.ranks_per_node;
        let enters = |rank: usize| node(rank) != node(source[rank] as usize);
        let mut entering = vec![0; node(ranks - 1) + 1];
        for rank in (0..ranks).filter(|&rank| enters(rank)) {
            entering[node(rank)] += 1;
        }
        let link = |rank: usize| -> Link {
            network.link(match enters(rank) {
                true => Route::InterNode {
                    messages: entering[node(rank)],
                },
                false => Route::IntraNode,
            })
        };
        let links: Vec<_> = (0..ranks).map(link).collect();
        Self {
            source,
            latency: links.iter().map(|link| link.latency_s).collect(),
            per_byte: links.iter().map(|link| 1.0 / link.bytes_per_s).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
