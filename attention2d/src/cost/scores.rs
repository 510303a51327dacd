//! How many scores each kernel call of a schedule computes.

use crate::comm::collective::Member;
use crate::cost::schedule::{Axis, Schedule, Tile};
use crate::methods::grid::{Grid, Place};
use crate::methods::method::{Keys, Method};
use std::cmp::Ordering;

/// Tokens of a rank's part from the beginning of the sequence, and of that from its end, which only a zigzag ring has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub head: u64,
    pub tail: u64,
}

impl Schedule {
    /// Seconds of a kernel call; 0 when there is nothing to compute.
    pub fn compute_seconds(&self, rank: usize, tile: Tile) -> f64 {
        let heads = match tile {
            Tile::Heads => self.setting.shape.heads / self.setting.ranks,
            _ => self.setting.shape.heads,
        };
        match self.scores(rank, tile) {
            0 => 0.0,
            scores => (scores * heads as u64) as f64 * self.kernel.score_s + self.kernel.launch_s,
        }
    }

    /// The exact number of scores of one head and sequence that the mask keeps.
    pub fn scores(&self, rank: usize, tile: Tile) -> u64 {
        let own = self.queries[rank];
        let all = self.setting.shape.tokens as u64;
        let Place { col, .. } = self.grid.place(rank);
        let causal = self.setting.causal;
        match tile {
            Tile::Heads if causal => all * (all + 1) / 2,
            Tile::Heads => all * all,
            Tile::Ring(place) => self.ring_scores(rank, self.member(rank, Axis::Column, place)),
            Tile::Column(place) => {
                let other = self.member(rank, Axis::Column, place);
                match causal {
                    // m-th query and k-th key of ranks that own every P-th token: k ≤ m, or k < m.
                    true => own * (own + 1) / 2 - own * u64::from(self.first(other) > rank),
                    false => own * self.keys[other],
                }
            }
            Tile::Row(place) => self.column_scores(self.member(rank, Axis::Row, place), col),
            Tile::Grid => (0..self.grid.cols)
                .map(|place| self.column_scores(self.member(rank, Axis::Row, place), col))
                .sum(),
        }
    }

    /// Scores of a rank's queries with all keys of a column.
    fn column_scores(&self, rank: usize, col: usize) -> u64 {
        let own = self.queries[rank];
        let Grid { rows, cols } = self.grid;
        if !self.setting.causal {
            return own * self.columns[col];
        }
        // Of the column's R residue classes, those that begin no later than the queries have one more key per query.
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

    /// The first position of the keys that a rank contributes to its column.
    fn first(&self, rank: usize) -> usize {
        match self.method {
            Method::Attention2D {
                keys: Keys::Transposed,
                ..
            } => self.grid.transposed(rank).from,
            _ => rank,
        }
    }

    fn ring_scores(&self, rank: usize, other: usize) -> u64 {
        let [own, their] = [self.queries[rank], self.queries[other]];
        if !self.setting.causal {
            return own * their;
        }
        let Ends { head, tail } = self.ends(rank);
        match rank.cmp(&other) {
            Ordering::Equal => head * (head + 1) / 2 + tail * (tail + 1) / 2 + head * tail,
            // All own queries come after the other rank's first part and before its second.
            Ordering::Greater => own * self.ends(other).head,
            // The own second part comes after all keys of the other rank.
            Ordering::Less => tail * their,
        }
    }

    /// The tokens of a rank's two parts.
    pub fn ends(&self, rank: usize) -> Ends {
        let head = match self.method {
            Method::Ring { zigzag: true } => {
                let ranks = 2 * self.setting.ranks;
                Member { rank, ranks }.share(self.setting.shape.tokens) as u64
            }
            _ => self.queries[rank],
        };
        Ends {
            head,
            tail: self.queries[rank] - head,
        }
    }
}
