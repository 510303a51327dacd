//! The rounds of Ring Attention. There are P of them with P messages each: 4·10⁹ on 65,536 ranks. So a round is a loop
//! over slices without branches or allocations, and many rounds are simulated on a block of neighboring ranks before
//! the next block, which keeps their data in the cache.

use super::{Links, Ranks};
use crate::cost::schedule::{Kernel, Round, Rows, Schedule, Tile};
use rayon::prelude::*;

/// Ranks of a block.
const WIDTH: usize = 2048;
/// Rounds simulated on a block at once. A clock depends on the next rank's clock one round before, so as many further
/// ranks are simulated too.
const DEPTH: usize = 32;
/// Ranks that a block needs.
const REACH: usize = WIDTH + DEPTH;

/// What the ranks own, in the form that the loop needs: twice around the ring, and as far as a block reaches.
pub(super) struct Ring {
    ranks: usize,
    causal: bool,
    rows: Vec<f64>,
    /// The part of `rows` from the beginning of the sequence.
    heads: Vec<f64>,
    /// The part of `rows` from its end.
    tails: Vec<f64>,
    /// Scores of the own queries with the own keys, and ones as the other factor.
    own: Vec<f64>,
    ones: Vec<f64>,
    batch: f64,
    /// For all heads.
    kernel: Kernel,
}

impl Ring {
    pub fn new(schedule: &Schedule) -> Self {
        let setting = &schedule.setting;
        let round = |of: &dyn Fn(usize) -> u64| {
            let once: Vec<_> = (0..setting.ranks).map(|rank| of(rank) as f64).collect();
            twice(&once)
        };
        let rows = schedule.rows(Rows::Keys);
        Self {
            ranks: setting.ranks,
            causal: setting.causal,
            rows: round(&|rank| rows[rank]),
            heads: round(&|rank| schedule.ends(rank).head),
            tails: round(&|rank| schedule.ends(rank).tail),
            own: round(&|rank| schedule.scores(rank, Tile::Ring(0))),
            ones: round(&|_| 1),
            batch: setting.shape.batch as f64,
            kernel: Kernel {
                score_s: schedule.kernel.score_s * setting.shape.heads as f64,
                ..schedule.kernel
            },
        }
    }

    /// Simulates rounds in which every rank receives from its neighbor.
    pub fn play(&self, ranks: &mut Ranks, links: &Links, rounds: &[Round]) {
        let links = RingLinks {
            latency: twice(&links.latency),
            per_byte: twice(&links.per_byte),
        };
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
            ranks.advance();
        }
    }

    /// One round on `count` ranks from `first`.
    fn round(
        &self,
        block: &mut Block,
        first: usize,
        count: usize,
        links: &RingLinks,
        round: &Round,
    ) {
        // Rows of the rank `moved` places ahead arrive; scores with keys of the rank `seen` places ahead are computed.
        let [parcel] = &round.parcels[..] else { return };
        let moved = parcel.place % self.ranks;
        let seen = match round.tile {
            Some(Tile::Ring(place)) => Some(place),
            _ => None,
        };
        let Kernel { score_s, launch_s } = self.kernel;
        let mut from = first;
        while from < first + count {
            let rank = from % self.ranks;
            let wraps_at = self.ranks - seen.unwrap_or(0);
            // Up to here, the owner of the keys is always after, or always before, the owner of the queries.
            let end = if rank < wraps_at {
                wraps_at
            } else {
                self.ranks
            };
            let to = (from + end - rank).min(first + count);
            let span = from - first..to - first;
            let arriving = Messages {
                rows: &self.rows[from + moved..to + moved],
                bytes: parcel.bytes as f64 * self.batch,
                latency: &links.latency[from..to],
                per_byte: &links.per_byte[from..to],
            };
            match seen {
                None => block.play(span, &arriving, |_| 0.0),
                Some(place) => {
                    let [queries, keys] = match self.causal {
                        _ if place == 0 => [&self.own, &self.ones],
                        false => [&self.rows, &self.rows],
                        // As in `Schedule::scores`.
                        true if rank < wraps_at => [&self.tails, &self.rows],
                        true => [&self.rows, &self.heads],
                    };
                    let (queries, keys) = (&queries[from..to], &keys[from + place..to + place]);
                    block.play(span, &arriving, |i| {
                        let scores = queries[i] * keys[i];
                        if scores > 0.0 {
                            scores * score_s + launch_s
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

/// The links of all ranks, twice around the ring.
struct RingLinks {
    latency: Vec<f64>,
    per_byte: Vec<f64>,
}

/// The messages that arrive at neighboring ranks.
struct Messages<'a> {
    rows: &'a [f64],
    /// Bytes per row.
    bytes: f64,
    latency: &'a [f64],
    per_byte: &'a [f64],
}

/// The state of neighboring ranks.
struct Block {
    /// With one rank more, the source of the last.
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

/// The larger of two numbers. `f64::max` also handles NaN, which costs more than the rest of the loop.
fn later(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

fn add(sums: &mut [f64], parts: &[f64]) {
    sums.iter_mut()
        .zip(parts)
        .for_each(|(sum, part)| *sum += part);
}

/// The values twice around the ring and one block further, so that no index wraps around.
fn twice(once: &[f64]) -> Vec<f64> {
    once.iter()
        .copied()
        .cycle()
        .take(2 * once.len() + REACH)
        .collect()
}
