//! A pass played out message by message, with a clock for every rank: `clock'[r] = max(clock[r] + computing, max(clock[r],
//! clock[source]) + α + b/β)`, round by round. A message begins when both ends are ready; a rank goes on when it has computed
//! and has received.

mod ring;

use self::ring::Ring;
use crate::schedule::{Round, Schedule, Source};
use crate::{Link, Method, Network, Pass, Result, Setting, Way};
use serde::Serialize;

/// How a time differs over the ranks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Of all ranks.
    pub mean_s: f64,
    /// Of the one that it is longest for.
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

/// What became of a pass.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Simulation {
    /// Until the last rank is done.
    pub seconds: f64,
    /// Inside of kernels.
    pub computing: Spread,
    /// Until all are done, and not computing.
    pub waiting: Spread,
    /// Messages received by all ranks.
    pub messages: u64,
    /// Bytes that each rank received.
    #[serde(skip)]
    pub received: Vec<u64>,
}

/// Plays a pass of a method out.
///
/// # Errors
/// A method that these ranks or heads cannot have.
pub fn simulate(
    setting: &Setting,
    network: &Network,
    method: Method,
    pass: Pass,
) -> Result<Simulation> {
    let schedule = Schedule::new(setting, network, method, pass)?;
    let mut ranks = Ranks::new(setting.ranks);
    let on_ring = matches!(method, Method::Ring { .. }).then(|| Ring::new(&schedule));
    for rounds in schedule.rounds.chunk_by(|a, b| a.source == b.source) {
        let ways = Ways::new(&schedule, network, rounds[0].source);
        match &on_ring {
            Some(ring) if rounds[0].source != Source::Nobody => {
                ring.play(&mut ranks, &ways, rounds)
            }
            _ => rounds
                .iter()
                .for_each(|round| ranks.round(&schedule, &ways, round)),
        }
    }
    Ok(ranks.end())
}

/// Every rank's state, a quantity at a time, so that a round is a loop over vectors.
struct Ranks {
    clock: Vec<f64>,
    next: Vec<f64>,
    computing: Vec<f64>,
    /// Whole numbers, below 2^53.
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

    fn round(&mut self, schedule: &Schedule, ways: &Ways, round: &Round) {
        for rank in 0..self.computing.len() {
            let computing = round
                .tile
                .map_or(0.0, |tile| schedule.compute_seconds(rank, tile));
            let mut done = self.clock[rank] + computing;
            let source = ways.source[rank];
            if source as usize != rank {
                let bytes = schedule.bytes(rank, round) as f64;
                let begin = self.clock[rank].max(self.clock[source as usize]);
                done = done.max(begin + ways.latency[rank] + bytes * ways.per_byte[rank]);
                self.received[rank] += bytes;
                self.messages += round.parcels.len() as u64;
            }
            self.next[rank] = done;
            self.computing[rank] += computing;
        }
        self.turn();
    }

    /// What was the next time is now.
    fn turn(&mut self) {
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

/// From whom every rank receives, and over what link.
struct Ways {
    source: Vec<u32>,
    latency: Vec<f64>,
    per_byte: Vec<f64>,
}

impl Ways {
    fn new(schedule: &Schedule, network: &Network, source: Source) -> Self {
        let ranks = schedule.setting.ranks;
        let source: Vec<_> = (0..ranks)
            .map(|rank| schedule.source(rank, source) as u32)
            .collect();
        let node = |rank: usize| rank / network.node;
        let enters = |rank: usize| node(rank) != node(source[rank] as usize);
        let mut entering = vec![0; node(ranks - 1) + 1];
        for rank in (0..ranks).filter(|&rank| enters(rank)) {
            entering[node(rank)] += 1;
        }
        let link = |rank: usize| -> Link {
            network.link(match enters(rank) {
                true => Way::Between {
                    messages: entering[node(rank)],
                },
                false => Way::Inside,
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
