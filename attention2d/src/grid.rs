//! The grid of ranks (section 3.1 of the paper, generalised to R rows and C columns) and who has which token.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// R×C ranks, numbered column by column: rank `c · R + r` is in row `r` and column `c`. Queries and outputs move along
/// rows, keys and values along columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grid {
    /// R. Ranks of one column, which gather keys and values.
    pub rows: usize,
    /// C. Ranks of one row, which gather queries.
    pub cols: usize,
}

impl Grid {
    /// A grid; neither side may be 0.
    ///
    /// # Errors
    /// [`Error::Config`] on an empty one.
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

    /// R·C.
    pub fn ranks(self) -> usize {
        self.rows * self.cols
    }

    /// Row and column of a rank.
    pub fn place(self, rank: usize) -> [usize; 2] {
        [rank % self.rows, rank / self.rows]
    }

    /// The rank at a row and a column.
    pub fn rank(self, row: usize, col: usize) -> usize {
        col * self.rows + row
    }

    /// All grids of so many ranks, from 1×P to P×1.
    pub fn of(ranks: usize) -> Vec<Self> {
        (1..=ranks)
            .filter(|&rows| ranks.is_multiple_of(rows))
            .map(|rows| Self {
                rows,
                cols: ranks / rows,
            })
            .collect()
    }

    /// To which rank `rank` gives its keys and values, and whose it takes, so that the ranks of a column gather those of one
    /// residue mod C (algorithm 1, line 1): from numbers column by column to numbers row by row. Not an involution
    /// unless R = C.
    pub fn transposed(self, rank: usize) -> [usize; 2] {
        let cols = self.cols;
        let to = self.rank(rank / cols, rank % cols);
        let [r, c] = self.place(rank);
        [to, r * cols + c]
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
            Some((rows, cols)) => Self::new(rows, cols),
            None => Err(Error::config("a grid", "rows x columns such as 2x4", text)),
        }
    }
}
