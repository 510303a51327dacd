//! The rounds of Ring Attention. There are P of them, each with P messages: 4·10⁹ on 65,536 ranks. So a round is a loop over
//! slices that has no branch and allocates nothing.

use super::{Ranks, Ways};
use crate::schedule::{Round, Rows, Schedule, Tile};

/// What the ranks have, as the loop wants it.
pub(super) struct Ring {
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
        let ends = |end: usize| {
            (0..setting.ranks)
                .map(|rank| schedule.ends(rank)[end] as f64)
                .collect()
        };
        let own = |rank| schedule.scores(rank, Tile::Ring(0)) as f64;
        let [rate, call] = schedule.seconds;
        Self {
            causal: setting.causal,
            rows: schedule
                .rows(Rows::Keys)
                .iter()
                .map(|&rows| rows as f64)
                .collect(),
            heads: ends(0),
            tails: ends(1),
            own: (0..setting.ranks).map(own).collect(),
            ones: vec![1.0; setting.ranks],
            batch: setting.shape.batch as f64,
            seconds: [rate * setting.shape.heads as f64, call],
        }
    }

    /// A round from the neighbour.
    pub fn round(&self, ranks: &mut Ranks, ways: &Ways, round: &Round) {
        let all = self.rows.len();
        // Rows of the rank `moved` places further arrive; scores on those of the rank `seen` places further are computed.
        let [parcel] = &round.parcels[..] else { return };
        let moved = parcel.place % all;
        let seen = match round.tile {
            Some(Tile::Ring(place)) => Some(place),
            _ => None,
        };
        // Between these cuts no owner's number goes round from P − 1 to 0.
        let mut cuts = [0, all - moved, all - seen.unwrap_or(0), all];
        cuts.sort_unstable();
        let bytes = parcel.bytes as f64 * self.batch;
        for cut in cuts.windows(2) {
            let (from, to) = (cut[0], cut[1]);
            if from == to {
                continue;
            }
            let owners = |place| {
                let first = (from + place) % all;
                first..first + to - from
            };
            let arriving = Messages {
                rows: &self.rows[owners(moved)],
                bytes,
                latency: &ways.latency[from..to],
                per_byte: &ways.per_byte[from..to],
            };
            let mut part = Part {
                clock: &ranks.clock[from..=to],
                next: &mut ranks.next[from..to],
                computing: &mut ranks.computing[from..to],
                received: &mut ranks.received[from..to],
            };
            let Some(place) = seen else {
                part.play(&arriving, |_| 0.0);
                continue;
            };
            let theirs = owners(place);
            let [queries, keys] = match (place, self.causal) {
                (0, _) => [&self.own[from..to], &self.ones[theirs]],
                (_, false) => [&self.rows[from..to], &self.rows[theirs]],
                // As in `Schedule::scores`: of a rank after this one, of one before.
                (_, true) if theirs.start > from => [&self.tails[from..to], &self.rows[theirs]],
                (_, true) => [&self.rows[from..to], &self.heads[theirs]],
            };
            let (queries, keys) = (&queries[..to - from], &keys[..to - from]);
            let [rate, call] = self.seconds;
            part.play(&arriving, |rank| {
                let scores = queries[rank] * keys[rank];
                if scores > 0.0 {
                    scores * rate + call
                } else {
                    0.0
                }
            });
        }
        ranks.messages += all as u64;
        ranks.turn();
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
struct Part<'a> {
    clock: &'a [f64],
    next: &'a mut [f64],
    computing: &'a mut [f64],
    received: &'a mut [f64],
}

impl Part<'_> {
    fn play(&mut self, arriving: &Messages<'_>, compute: impl Fn(usize) -> f64) {
        let ranks = self.next.len();
        let (own, source) = (&self.clock[..ranks], &self.clock[1..=ranks]);
        let (computing, received) = (&mut self.computing[..ranks], &mut self.received[..ranks]);
        let (rows, latency) = (&arriving.rows[..ranks], &arriving.latency[..ranks]);
        let per_byte = &arriving.per_byte[..ranks];
        for rank in 0..ranks {
            let bytes = rows[rank] * arriving.bytes;
            let busy = compute(rank);
            let arrived = later(own[rank], source[rank]) + latency[rank] + bytes * per_byte[rank];
            self.next[rank] = later(own[rank] + busy, arrived);
            computing[rank] += busy;
            received[rank] += bytes;
        }
    }
}

/// `f64::max` minds NaN, which costs more than the rest of the loop.
fn later(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}
