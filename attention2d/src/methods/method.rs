//! The methods by name.

use crate::error::{Error, Result};
use crate::methods::grid::Grid;
use crate::methods::shape::Shape;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How a row of the grid reduces its partial outputs (algorithm 7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Merge {
    /// One all-to-all, then a local merge in column order: deterministic, the same bits in every run.
    #[default]
    AllToAll,
    /// A ring that merges at each hop, as in the paper.
    Ring,
    /// An all-reduce of the maximum, then a reduce-scatter of rescaled sums: built-in reductions only.
    MaxSum,
}

/// Which keys and values a column of the grid gathers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keys {
    /// Those that its ranks own. The mask is computed from positions.
    #[default]
    #[serde(rename = "as-dealt")]
    AsSharded,
    /// Those that its ranks have after an exchange with the transposed rank (algorithm 1, line 1), so that a causal
    /// mask stays causal or becomes strictly causal on a square grid.
    Transposed,
}

/// A method that distributes attention over ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "method")]
pub enum Method {
    /// Attention2D (arXiv 2503.15758).
    #[serde(rename = "attention2d")]
    Attention2D {
        /// R×C.
        grid: Grid,
        /// How partial outputs are reduced along a row. With `overlap` it is always a ring.
        merge: Merge,
        /// Which keys and values a column gathers.
        keys: Keys,
        /// Whether communication overlaps with computation in the forward pass (algorithms 4 to 6), at the price of 2√P
        /// − 1 kernel calls instead of one.
        overlap: bool,
    },
    /// Ring Attention (arXiv 2310.01889): keys and values travel around all ranks, each of which computes while the
    /// next block is in flight.
    Ring {
        /// Whether each rank has one part from the beginning and one from the end of the sequence, which balances a
        /// causal mask. Otherwise each has one contiguous part.
        zigzag: bool,
    },
    /// Every rank gathers all keys and values, like Attention2D on a P×1 grid.
    GatherKv,
    /// DeepSpeed Ulysses (arXiv 2309.14509): all-to-alls from a part of the tokens to a part of the heads and back. The
    /// number of ranks must divide the number of heads.
    Ulysses,
}

impl Method {
    /// Attention2D with the default variant: no overlap, no transpose, a deterministic merge.
    pub fn attention2d(grid: Grid) -> Self {
        Self::Attention2D {
            grid,
            merge: Merge::default(),
            keys: Keys::default(),
            overlap: false,
        }
    }

    /// Checks that `ranks` ranks can compute an attention of this shape.
    ///
    /// # Errors
    /// [`Error::Config`] if `kv_heads` does not divide `heads`, if the grid has another number of ranks, or if the
    /// ranks of Ulysses do not divide `kv_heads`.
    pub fn check(self, shape: Shape, ranks: usize) -> Result<()> {
        let Shape {
            heads, kv_heads, ..
        } = shape;
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            let expected = format!("a multiple of the {kv_heads} of keys and values");
            return Err(Error::config("the heads of queries", expected, heads));
        }
        match self {
            _ if ranks == 0 => Err(Error::config("ranks", "1 or more", ranks)),
            Self::Attention2D { grid, .. } if grid.ranks() != ranks => Err(Error::config(
                "a grid",
                format!("of {ranks} ranks"),
                format!("{grid}, {}", grid.ranks()),
            )),
            Self::Ulysses if !kv_heads.is_multiple_of(ranks) => Err(Error::config(
                "ranks of Ulysses",
                format!("a divisor of the {kv_heads} heads of keys and values"),
                ranks,
            )),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Attention2D {
                grid,
                merge,
                keys,
                overlap,
            } => {
                let mut name = format!("attention2d {grid}");
                if *overlap {
                    name += " overlap";
                } else if *merge != Merge::default() {
                    name += match merge {
                        Merge::Ring => " ring-merge",
                        _ => " max-sum",
                    };
                }
                if *keys == Keys::Transposed {
                    name += " transposed";
                }
                name
            }
            Self::Ring { zigzag: false } => "ring".into(),
            Self::Ring { zigzag: true } => "zigzag ring".into(),
            Self::GatherKv => "gather-kv".into(),
            Self::Ulysses => "ulysses".into(),
        };
        f.pad(&name)
    }
}
