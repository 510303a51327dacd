//! The race (section 4, figure 3): of the scores `[batch, seq, experts]`, those along some axes compete with each other, once
//! for every place along the others, and the K best of each race win.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use tessera_backend::ops::reaches;

/// Who races whom: the rows of figure 3. They differ in the racing axes alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The experts of one token: each token has its k best.
    Token,
    /// The tokens of one image for one expert: each expert takes its best of every image.
    Expert,
    /// The tokens of the whole batch for one expert.
    BatchSeq,
    /// At one position, all images and experts.
    BatchExperts,
    /// In one image, all tokens and experts.
    SeqExperts,
    /// Everything against everything.
    #[default]
    Race,
}

impl Rule {
    /// All, in the paper's order.
    pub const ALL: [Self; 6] = [
        Self::Token,
        Self::Expert,
        Self::BatchSeq,
        Self::BatchExperts,
        Self::SeqExperts,
        Self::Race,
    ];

    /// Whether batch, sequence and experts race; along the others, races are independent.
    pub fn racing(self) -> [bool; 3] {
        match self {
            Self::Token => [false, false, true],
            Self::Expert => [false, true, false],
            Self::BatchSeq => [true, true, false],
            Self::BatchExperts => [true, false, true],
            Self::SeqExperts => [false, true, true],
            Self::Race => [true, true, true],
        }
    }

    /// Runs the races: `K = round(k · batch · seq / races)` of each win, which gives every token `k` experts on average.
    /// Among equal scores the one of the lower index wins.
    ///
    /// # Shapes
    /// - `scores`: `[batch, seq, experts]`, row-major
    ///
    /// # Errors
    /// [`Error::NotANumber`]: what cannot be compared cannot be ranked.
    ///
    /// # Panics
    /// If the scores do not fill the shape.
    pub fn winners(self, scores: &[f32], shape: [usize; 3], k: f64) -> Result<Winners> {
        let [batch, seq, experts] = shape;
        assert_eq!(scores.len(), batch * seq * experts);
        if let Some(index) = scores.iter().position(|score| score.is_nan()) {
            let [token, expert] = [index / experts, index % experts];
            return Err(Error::NotANumber { token, expert });
        }
        let racing = self.racing();
        let races = offsets(shape, racing.map(|axis| !axis)); // D_A
        let racers = offsets(shape, racing); // D_B
        let winning = (k * (batch * seq) as f64 / races.len().max(1) as f64).round();
        let winning = (winning.max(0.0) as usize).min(racers.len());
        let mut winners = Winners {
            shape,
            mask: vec![false; scores.len()],
            kth: None,
        };
        if winning == 0 {
            return Ok(winners);
        }
        let mut keys = vec![0; racers.len()];
        let mut kth = 0.0_f64;
        for first in &races {
            for (key, racer) in keys.iter_mut().zip(&racers) {
                *key = key_of(scores[first + racer], first + racer);
            }
            let (_, &mut last, _) = keys.select_nth_unstable(winning - 1);
            kth += f64::from(scores[index_of(last)]);
            for &key in &keys[..winning] {
                winners.mask[index_of(key)] = true;
            }
        }
        winners.kth = (!races.is_empty()).then(|| (kth / races.len() as f64) as f32);
        Ok(winners)
    }
}

/// The row-major offsets of all places along the axes of `shape` that `along` has, ascending.
fn offsets(shape: [usize; 3], along: [bool; 3]) -> Vec<usize> {
    let [batch, seq, experts] = std::array::from_fn(|axis| match along[axis] {
        true => shape[axis],
        false => 1,
    });
    let place = |b: usize, l: usize, e: usize| (b * shape[1] + l) * shape[2] + e;
    let mut offsets = Vec::with_capacity(batch * seq * experts);
    for b in 0..batch {
        for l in 0..seq {
            offsets.extend((0..experts).map(|e| place(b, l, e)));
        }
    }
    offsets
}

/// A number that is the smaller the better: first by score, then by index.
fn key_of(score: f32, index: usize) -> u64 {
    let bits = (score + 0.0).to_bits(); // -0 equals 0
    let ascending = bits ^ (((bits as i32 >> 31) as u32) | 0x8000_0000);
    u64::from(!ascending) << 32 | index as u64
}

/// The index in a key of [`key_of`].
fn index_of(key: u64) -> usize {
    (key & 0xffff_ffff) as usize
}

/// Which experts each token has.
#[derive(Debug, Clone, PartialEq)]
pub struct Winners {
    shape: [usize; 3],
    mask: Vec<bool>,
    kth: Option<f32>,
}

impl Winners {
    /// All scores that [reach](reaches) a threshold: a token's experts then depend on no other token (section 4).
    ///
    /// # Panics
    /// If the scores do not fill the shape.
    pub fn above(threshold: f32, scores: &[f32], shape: [usize; 3]) -> Self {
        assert_eq!(scores.len(), shape.iter().product::<usize>());
        Self {
            shape,
            mask: scores
                .iter()
                .map(|&score| reaches(score, threshold))
                .collect(),
            kth: None,
        }
    }

    /// Those of images that raced without each other, one after the other.
    ///
    /// # Panics
    /// If there are none, or they differ in shape.
    pub fn stacked(images: &[Self]) -> Self {
        let [_, seq, experts] = images[0].shape;
        assert!(images.iter().all(|one| one.shape[1..] == [seq, experts]));
        Self {
            shape: [images.iter().map(|one| one.shape[0]).sum(), seq, experts],
            mask: images.iter().flat_map(|one| one.mask.clone()).collect(),
            kth: None,
        }
    }

    /// Those of the first images alone.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn first(&self, images: usize) -> Self {
        let [batch, seq, experts] = self.shape;
        assert!(images <= batch, "{images} of {batch} images");
        Self {
            shape: [images, seq, experts],
            mask: self.mask[..images * seq * experts].to_vec(),
            kth: None,
        }
    }

    /// Batch, sequence, experts.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Row-major, true for a winner.
    pub fn mask(&self) -> &[bool] {
        &self.mask
    }

    /// The last score that won, a mean over the races; `None` where nothing raced or nothing won.
    pub fn kth(&self) -> Option<f32> {
        self.kth
    }

    /// The experts of each token, row by row.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[bool]> {
        self.mask.chunks_exact(self.shape[2])
    }
}
