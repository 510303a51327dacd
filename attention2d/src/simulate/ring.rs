//! The rounds of Ring Attention. There are P of them, each with P messages: 4·10⁹ on 65,536 ranks. So a round is a loop over
//! slices that has no branch and allocates nothing, and many rounds are played on few neighbours before the next ones' turn:
//! what they need stays in the cache.

use super::{Ranks, Ways};
use crate::schedule::{Round, Rows, Schedule, Tile};
use rayon::prelude::*;

/// Neighbours that rounds are played on together.
const WIDTH: usize = 2048;
/// Rounds played on them. A clock depends on the next rank's of the round before, so as many ranks further on are played too.
const DEPTH: usize = 32;
/// Both.
const REACH: usize = WIDTH + DEPTH;

/// What the ranks have, as the loop wants it: twice round, and as far as a block reaches.
pub(super) struct Ring {
    ranks: usize,
    causal: bool,
    rows: Vec<f64>,
    /// Of `rows`, those of the first part, and of the second.
    heads: Vec<f64>,
    tails: Vec<f64>,
    /// Scores of the own queries on the own keys, and 1 to multiply them by.
    own: Vec<f64>,
    ones: Vec<f64>,
    batch: f64,
    /// Seconds per score, and of a call.
    seconds: [f64; 2],
}

impl Ring {
    pub fn new(schedule: &Schedule) -> Self {
        let setting = &schedule.setting;
        let round = |of: &dyn Fn(usize) -> u64| {
            let once: Vec<_> = (0..setting.ranks).map(|rank| of(rank) as f64).collect();
            twice(&once)
        };
        let rows = schedule.rows(Rows::Keys);
        let [rate, call] = schedule.seconds;
        Self {
            ranks: setting.ranks,
            causal: setting.causal,
            rows: round(&|rank| rows[rank]),
            heads: round(&|rank| schedule.ends(rank)[0]),
            tails: round(&|rank| schedule.ends(rank)[1]),
            own: round(&|rank| schedule.scores(rank, Tile::Ring(0))),
            ones: round(&|_| 1),
            batch: setting.shape.batch as f64,
            seconds: [rate * setting.shape.heads as f64, call],
        }
    }

    /// Rounds from the neighbour.
    pub fn play(&self, ranks: &mut Ranks, ways: &Ways, rounds: &[Round]) {
        let links = [twice(&ways.latency), twice(&ways.per_byte)];
        for rounds in rounds.chunks(DEPTH) {
            let Ranks {
                clock,
                next,
                computing,
                received,
                ..
            } = &mut *ranks;
            let clock = &clock[..];
            next.par_chunks_mut(WIDTH)
                .zip(computing.par_chunks_mut(WIDTH))
                .zip(received.par_chunks_mut(WIDTH))
                .enumerate()
                .for_each(|(block, ((next, computing), received))| {
                    let first = block * WIDTH;
                    let mut block = Block {
                        clock: std::array::from_fn(|i| clock[(first + i) % self.ranks]),
                        computing: [0.0; REACH],
                        received: [0.0; REACH],
                    };
                    for (round, later) in rounds.iter().zip((0..rounds.len()).rev()) {
                        self.round(&mut block, first, next.len() + later, &links, round);
                    }
                    next.copy_from_slice(&block.clock[..next.len()]);
                    add(computing, &block.computing);
                    add(received, &block.received);
                });
            ranks.messages += (self.ranks * rounds.len()) as u64;
            ranks.turn();
        }
    }

    /// One round, for `count` ranks from `first` on.
    fn round(
        &self,
        block: &mut Block,
        first: usize,
        count: usize,
        [latency, per_byte]: &[Vec<f64>; 2],
        round: &Round,
    ) {
        // Rows of the rank `moved` places further arrive; scores on those of the rank `seen` places further are computed.
        let [parcel] = &round.parcels[..] else { return };
        let moved = parcel.place % self.ranks;
        let seen = match round.tile {
            Some(Tile::Ring(place)) => Some(place),
            _ => None,
        };
        let [rate, call] = self.seconds;
        let mut from = first;
        while from < first + count {
            let rank = from % self.ranks;
            let goes_round = self.ranks - seen.unwrap_or(0);
            // Up to here, whose keys are seen is always after, or always before, who sees them.
            let end = if rank < goes_round {
                goes_round
            } else {
                self.ranks
            };
            let to = (from + end - rank).min(first + count);
            let span = from - first..to - first;
            let arriving = Messages {
                rows: &self.rows[from + moved..to + moved],
                bytes: parcel.bytes as f64 * self.batch,
                latency: &latency[from..to],
                per_byte: &per_byte[from..to],
            };
            match seen {
                None => block.play(span, &arriving, |_| 0.0),
                Some(place) => {
                    let [queries, keys] = match self.causal {
                        _ if place == 0 => [&self.own, &self.ones],
                        false => [&self.rows, &self.rows],
                        // As in `Schedule::scores`.
                        true if rank < goes_round => [&self.tails, &self.rows],
                        true => [&self.rows, &self.heads],
                    };
                    let (queries, keys) = (&queries[from..to], &keys[from + place..to + place]);
                    block.play(span, &arriving, |i| {
                        let scores = queries[i] * keys[i];
                        if scores > 0.0 {
                            scores * rate + call
                        } else {
                            0.0
                        }
                    });
                }
            }
            from = to;
        }
    }
}

/// What arrives at neighbouring ranks.
struct Messages<'a> {
    rows: &'a [f64],
    /// Of a row.
    bytes: f64,
    latency: &'a [f64],
    per_byte: &'a [f64],
}

/// Neighbouring ranks.
struct Block {
    /// One more, for the last one's source.
    clock: [f64; REACH + 1],
    computing: [f64; REACH],
    received: [f64; REACH],
}

impl Block {
    #[inline(always)]
    fn play(
        &mut self,
        span: std::ops::Range<usize>,
        arriving: &Messages<'_>,
        compute: impl Fn(usize) -> f64,
    ) {
        let ranks = span.len();
        let clock = &mut self.clock[span.start..=span.end];
        let computing = &mut self.computing[span.clone()];
        let received = &mut self.received[span];
        let (rows, latency) = (&arriving.rows[..ranks], &arriving.latency[..ranks]);
        let per_byte = &arriving.per_byte[..ranks];
        for i in 0..ranks {
            let (own, source) = (clock[i], clock[i + 1]);
            let bytes = rows[i] * arriving.bytes;
            let busy = compute(i);
            let arrived = later(own, source) + latency[i] + bytes * per_byte[i];
            clock[i] = later(own + busy, arrived);
            computing[i] += busy;
            received[i] += bytes;
        }
    }
}

/// `f64::max` minds NaN, which costs more than the rest of the loop.
fn later(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

fn add(sums: &mut [f64], parts: &[f64]) {
    sums.iter_mut()
        .zip(parts)
        .for_each(|(sum, part)| *sum += part);
}

/// So that no index goes round.
fn twice(once: &[f64]) -> Vec<f64> {
    once.iter()
        .copied()
        .cycle()
        .take(2 * once.len() + REACH)
        .collect()
}
