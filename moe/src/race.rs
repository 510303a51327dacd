//! The race (section 4, figure 3): the top K of the scores `[batch, seq, experts]` along the racing axes, taken
//! independently at each position of the other axes.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use tessera_backend::ops::reaches;

/// The routing rules of figure 3. They differ only in the racing axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoutingRule {
    /// Token choice: the experts of one token race, so every token has its k best.
    Token,
    /// Expert choice: the tokens of one image race for one expert.
    Expert,
    /// BL choice: the tokens of the whole batch race for one expert.
    BatchSeq,
    /// BE choice: all images and experts race at one position.
    BatchExperts,
    /// LE choice: all tokens and experts of one image race.
    SeqExperts,
    /// Expert Race: all tokens of the batch and all experts race.
    #[default]
    Race,
}

/// Which axes of the scores race; the races along the other axes are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RacingAxes {
    /// The images of the batch.
    pub batch: bool,
    /// The tokens of an image.
    pub seq: bool,
    /// The experts.
    pub experts: bool,
}

impl RacingAxes {
    /// The axes that do not race.
    fn independent(self) -> Self {
        Self {
            batch: !self.batch,
            seq: !self.seq,
            experts: !self.experts,
        }
    }

    /// The row-major offsets of all positions along these axes, ascending.
    fn offsets(self, [batch, seq, experts]: [usize; 3]) -> Vec<usize> {
        let extent = |listed: bool, size: usize| if listed { size } else { 1 };
        let mut offsets = Vec::new();
        for b in 0..extent(self.batch, batch) {
            for l in 0..extent(self.seq, seq) {
                let row = (b * seq + l) * experts;
                offsets.extend((0..extent(self.experts, experts)).map(|e| row + e));
            }
        }
        offsets
    }
}

impl RoutingRule {
    /// All, in the paper's order.
    pub const ALL: [Self; 6] = [
        Self::Token,
        Self::Expert,
        Self::BatchSeq,
        Self::BatchExperts,
        Self::SeqExperts,
        Self::Race,
    ];

    /// The axes that race.
    pub fn racing(self) -> RacingAxes {
        let axes = |batch, seq, experts| RacingAxes {
            batch,
            seq,
            experts,
        };
        match self {
            Self::Token => axes(false, false, true),
            Self::Expert => axes(false, true, false),
            Self::BatchSeq => axes(true, true, false),
            Self::BatchExperts => axes(true, false, true),
            Self::SeqExperts => axes(false, true, true),
            Self::Race => axes(true, true, true),
        }
    }

    /// K: how many racers each race selects, for k experts per token on average; 0 where that rounds to none.
    ///
    /// # Shapes
    /// - shape: `[batch, seq, experts]`
    pub fn selected(self, shape: [usize; 3], k: f64) -> usize {
        let [batch, seq, _] = shape;
        let races = self.racing().independent().offsets(shape).len(); // D_A
        let racers = self.racing().offsets(shape).len(); // D_B
        let selected = (k * (batch * seq) as f64 / races.max(1) as f64).round();
        (selected.max(0.0) as usize).min(racers)
    }

    /// Selects the K largest scores of each race, `K = round(k · batch · seq / races)`, so that a token has `k`
    /// experts on average. Of equal scores the one with the lower index wins.
    ///
    /// # Shapes
    /// - `scores`: `[batch, seq, experts]`, row-major
    ///
    /// # Errors
    /// [`Error::NotANumber`]: NaN cannot be ranked.
    ///
    /// # Panics
    /// If the scores do not fill the shape.
    pub fn select(self, scores: &[f32], shape: [usize; 3], k: f64) -> Result<RoutingMask> {
        let [batch, seq, experts] = shape;
        assert_eq!(scores.len(), batch * seq * experts);
        if let Some(index) = scores.iter().position(|score| score.is_nan()) {
            let [token, expert] = [index / experts, index % experts];
            return Err(Error::NotANumber { token, expert });
        }
        let races = self.racing().independent().offsets(shape); // D_A of them
        let racers = self.racing().offsets(shape); // D_B of them
        let selected = self.selected(shape, k); // K
        let mut mask = RoutingMask {
            shape,
            mask: vec![false; scores.len()],
            cutoff: None,
        };
        if selected == 0 {
            return Ok(mask);
        }
        let mut keys = vec![0; racers.len()];
        let mut cutoffs = 0.0_f64;
        for first in &races {
            for (key, racer) in keys.iter_mut().zip(&racers) {
                *key = key_of(scores[first + racer], first + racer);
            }
            let (_, &mut last, _) = keys.select_nth_unstable(selected - 1);
            cutoffs += f64::from(scores[index_of(last)]);
            for &key in &keys[..selected] {
                mask.mask[index_of(key)] = true;
            }
        }
        mask.cutoff = (!races.is_empty()).then(|| (cutoffs / races.len() as f64) as f32);
        Ok(mask)
    }
}

/// A sort key: ascending keys are descending scores, and ascending indices of equal scores.
fn key_of(score: f32, index: usize) -> u64 {
    let bits = (score + 0.0).to_bits(); // -0 equals 0
    let ascending = bits ^ (((bits as i32 >> 31) as u32) | 0x8000_0000);
    u64::from(!ascending) << 32 | index as u64
}

/// The index in a key of [`key_of`].
fn index_of(key: u64) -> usize {
    (key & 0xffff_ffff) as usize
}

/// The mask M: which experts each token is routed to.
#[derive(Debug, Clone, PartialEq)]
pub struct RoutingMask {
    shape: [usize; 3],
    mask: Vec<bool>,
    cutoff: Option<f32>,
}

impl RoutingMask {
    /// All scores that [reach](reaches) a threshold: a token's experts then depend on no other token (section 4).
    ///
    /// # Shapes
    /// - `scores`: `[batch, seq, experts]`, row-major
    ///
    /// # Panics
    /// If the scores do not fill the shape.
    pub fn above(threshold: f32, scores: &[f32], shape: [usize; 3]) -> Self {
        assert_eq!(scores.len(), shape.iter().product::<usize>());
        let reached = scores.iter().map(|&score| reaches(score, threshold));
        Self {
            shape,
            mask: reached.collect(),
            cutoff: None,
        }
    }

    /// The masks of images that raced independently, concatenated along the batch.
    ///
    /// # Panics
    /// If there are none, or they differ in shape.
    pub fn concat(images: &[Self]) -> Self {
        let [_, seq, experts] = images[0].shape;
        assert!(images.iter().all(|one| one.shape[1..] == [seq, experts]));
        Self {
            shape: [images.iter().map(|one| one.shape[0]).sum(), seq, experts],
            mask: images.iter().flat_map(|one| one.mask.clone()).collect(),
            cutoff: None,
        }
    }

    /// The mask of the first images alone.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn first(&self, images: usize) -> Self {
        let [batch, seq, experts] = self.shape;
        assert!(images <= batch, "{images} of {batch} images");
        Self {
            shape: [images, seq, experts],
            mask: self.mask[..images * seq * experts].to_vec(),
            cutoff: None,
        }
    }

    /// Batch, sequence, experts.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// `[batch, seq, experts]`, row-major; true = routed.
    pub fn as_slice(&self) -> &[bool] {
        &self.mask
    }

    /// The smallest selected score, averaged over the races: the target of the threshold's moving average. `None` if
    /// nothing raced or nothing was selected.
    pub fn cutoff(&self) -> Option<f32> {
        self.cutoff
    }

    /// The experts of each token, row by row.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[bool]> {
        self.mask.chunks_exact(self.shape[2])
    }
}
