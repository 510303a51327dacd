//! The grid of ranks: that of the paper's section 3.1, generalized to R rows and C columns.

use crate::comm::collective::Peers;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A grid of R×C ranks in column-major order: rank `c · R + r` is in row `r` and column `c`. Queries and outputs are
/// communicated along rows, keys and values along columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grid {
    /// R, the ranks of one column, which gather keys and values.
    pub rows: usize,
    /// C, the ranks of one row, which gather queries.
    pub cols: usize,
}

/// A rank's place in a grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// r, below R.
    pub row: usize,
    /// c, below C.
    pub col: usize,
}

impl Grid {
    /// A grid with neither side 0.
    ///
    /// # Errors
    /// [`Error::Config`] for an empty grid.
    pub fn new(rows: usize, cols: usize) -> Result<Self> {
        match rows > 0 && cols > 0 {
            true => Ok(Self { rows, cols }),
            false => Err(Error::config(
                "a grid",
                "1x1 or more",
                format!("{rows}x{cols}"),
            )),
        }
    }

    /// P = R·C.
    pub fn ranks(self) -> usize {
        self.rows * self.cols
    }

    /// The place of a rank.
    pub fn place(self, rank: usize) -> Place {
        Place {
            row: rank % self.rows,
            col: rank / self.rows,
        }
    }

    /// The rank at a place.
    pub fn rank(self, place: Place) -> usize {
        place.col * self.rows + place.row
    }

    /// The ranks of one row, by column.
    pub(crate) fn row(self, row: usize) -> impl Iterator<Item = usize> {
        (0..self.cols).map(move |col| self.rank(Place { row, col }))
    }

    /// The ranks of one column, by row.
    pub(crate) fn column(self, col: usize) -> impl Iterator<Item = usize> {
        (0..self.rows).map(move |row| self.rank(Place { row, col }))
    }

    /// All grids of `ranks` ranks, from 1×P to P×1.
    pub fn of(ranks: usize) -> Vec<Self> {
        (1..=ranks)
            .filter(|&rows| ranks.is_multiple_of(rows))
            .map(|rows| Self {
                rows,
                cols: ranks / rows,
            })
            .collect()
    }

    /// The partners of a rank in the exchange of keys and values that makes each column gather the positions of one
    /// residue mod C (algorithm 1, line 1): from column-major to row-major numbers. It is its own inverse only if R =
    /// C.
    pub fn transposed(self, rank: usize) -> Peers {
        let Place { row, col } = self.place(rank);
        Peers {
            to: self.rank(Place {
                row: rank / self.cols,
                col: rank % self.cols,
            }),
            from: row * self.cols + col,
        }
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.rows, self.cols)
    }
}

impl FromStr for Grid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let sides = text
            .split_once('x')
            .and_then(|(r, c)| Some((r.trim().parse().ok()?, c.trim().parse().ok()?)));
        match sides {
            Some((rows, cols)) if usize::checked_mul(rows, cols).is_some() => Self::new(rows, cols),
            _ => Err(Error::config("a grid", "rows x columns such as 2x4", text)),
        }
    }
}
