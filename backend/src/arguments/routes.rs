//! Which tokens go to which expert.

use std::ops::Range;
use std::sync::Arc;

/// Which tokens go to which expert: the pairs sorted by expert, and by token within each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes {
    tokens: usize,
    /// The token of each pair.
    token: Arc<[u32]>,
    /// Index of the first pair of each expert, and the number of pairs at the end.
    offsets: Arc<[usize]>,
}

impl Routes {
    /// From a row-major mask `[tokens, experts]`, true where a token goes to an expert.
    ///
    /// # Panics
    /// If the mask is not a whole number of rows, or there are no experts.
    pub fn of_mask(mask: &[bool], experts: usize) -> Self {
        assert!(
            experts > 0 && mask.len().is_multiple_of(experts),
            "a row per token, a column per expert"
        );
        let mut offsets = vec![0; experts + 1];
        for row in mask.chunks_exact(experts) {
            for (count, &routed) in offsets[1..].iter_mut().zip(row) {
                *count += usize::from(routed);
            }
        }
        for expert in 0..experts {
            offsets[expert + 1] += offsets[expert];
        }
        let mut next = offsets.clone();
        let mut token = vec![0; offsets[experts]];
        for (index, row) in mask.chunks_exact(experts).enumerate() {
            for (next, _) in next.iter_mut().zip(row).filter(|(_, routed)| **routed) {
                token[*next] = index as u32;
                *next += 1;
            }
        }
        Self {
            tokens: mask.len() / experts,
            token: token.into(),
            offsets: offsets.into(),
        }
    }

    /// The routes of a range of tokens, which are counted from its start.
    pub(crate) fn narrow(&self, tokens: Range<usize>) -> Self {
        if tokens == (0..self.tokens) {
            return self.clone();
        }
        let (mut token, mut offsets) = (Vec::new(), vec![0]);
        for expert in 0..self.experts() {
            let all = self.tokens_of(expert);
            let [start, end] = [tokens.start, tokens.end]
                .map(|bound| all.partition_point(|&token| (token as usize) < bound));
            token.extend(
                all[start..end]
                    .iter()
                    .map(|token| token - tokens.start as u32),
            );
            offsets.push(token.len());
        }
        Self {
            tokens: tokens.len(),
            token: token.into(),
            offsets: offsets.into(),
        }
    }

    /// Number of tokens, routed or not.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Number of experts, with tokens or without.
    pub fn experts(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of pairs of a token and an expert.
    pub fn pairs(&self) -> usize {
        self.token.len()
    }

    /// The tokens of an expert, ascending.
    pub fn tokens_of(&self, expert: usize) -> &[u32] {
        &self.token[self.offsets[expert]..self.offsets[expert + 1]]
    }

    /// Index of the first pair of an expert.
    pub fn offset(&self, expert: usize) -> usize {
        self.offsets[expert]
    }
}

/// Whether a score reaches a threshold. NaN does: leaving the expert out would hide it.
pub fn reaches(score: f32, threshold: f32) -> bool {
    score >= threshold || score.is_nan()
}
