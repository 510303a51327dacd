//! The ways to divide attention between ranks, by name.

use crate::{Error, Grid, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The sizes of one attention over all ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Sequences.
    pub batch: usize,
    /// N, tokens of each.
    pub tokens: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values; divides `heads`.
    pub kv_heads: usize,
    /// H.
    pub head_dim: usize,
}

impl Shape {
    /// E, the elements of all queries.
    pub fn elements(&self) -> usize {
        self.batch * self.tokens * self.heads * self.head_dim
    }
}

/// What queries, keys, values and gradients of outputs travel as. Partial outputs and partial gradients are always f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Payload {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits, 8 of them significant.
    Bf16,
    /// 16 bits, 11 of them significant.
    F16,
}

impl Payload {
    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

impl FromStr for Payload {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            _ => Err(Error::config("a payload", "f32, bf16 or f16", text)),
        }
    }
}

/// How the partial outputs of a row become outputs (algorithm 7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Merge {
    /// All to all, then one merge in the order of the columns: the same bits in every run.
    #[default]
    AllToAll,
    /// Round the row, merging at each hop, as the paper has it.
    Ring,
    /// The largest score by an all-reduce, then a reduce-scatter of rescaled sums: what any carrier has built in.
    MaxSum,
}

/// How the ranks of a column come by keys of one residue class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keys {
    /// They do not: each gathers what it has, and the mask goes by positions.
    #[default]
    AsDealt,
    /// Keys and values are first exchanged with the transposed rank (algorithm 1, line 1), so that a mask is causal or
    /// strictly causal on a square grid.
    Transposed,
}

/// A way to divide attention between ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "method")]
pub enum Method {
    /// Attention2D.
    #[serde(rename = "attention2d")]
    Attention2D {
        /// R×C.
        grid: Grid,
        /// How partial outputs become outputs.
        merge: Merge,
        /// Whether keys and values are transposed first.
        keys: Keys,
        /// Whether messages travel while attention is computed (algorithms 4 to 6), in many calls of the kernel instead of one. Its
        /// outputs go round the row, whatever `merge` says.
        overlap: bool,
    },
    /// Ring Attention (arXiv 2310.01889): keys and values go round all ranks, each computing while the next are on their way.
    Ring {
        /// Each rank has one part of the beginning and one of the end, so that a causal mask leaves all as much to do; otherwise
        /// one contiguous part.
        zigzag: bool,
    },
    /// Every rank gathers all keys and values.
    GatherKv,
    /// DeepSpeed Ulysses (arXiv 2309.14509): from a part of the tokens to a part of the heads and back. Ranks divide the heads.
    Ulysses,
}

impl Method {
    /// Attention2D with what is best by default.
    pub fn attention2d(grid: Grid) -> Self {
        Self::Attention2D {
            grid,
            merge: Merge::default(),
            keys: Keys::default(),
            overlap: false,
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
