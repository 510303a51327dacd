//! A mixture of experts: every expert's two linear maps over the tokens routed to it, no token dropped and none padded.

use super::Activation;
use crate::Backend;
use burn::backend::Dispatch;
use burn::tensor::Tensor;
use std::ops::Range;
use std::sync::Arc;

/// Which tokens go to which expert: the pairs sorted by expert, and by token within each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes {
    tokens: usize,
    /// The token of each pair.
    token: Arc<[u32]>,
    /// Where the pairs of each expert begin, and their number at the end.
    offsets: Arc<[usize]>,
}

impl Routes {
    /// Of a row-major mask `[tokens, experts]`, true where a token goes to an expert.
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

    /// Of some of the tokens, counted from the first of them.
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

    /// How many tokens there are, routed anywhere or not.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// How many experts there are, chosen by any token or not.
    pub fn experts(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Pairs of a token and an expert.
    pub fn pairs(&self) -> usize {
        self.token.len()
    }

    /// The tokens of an expert, ascending.
    pub fn tokens_of(&self, expert: usize) -> &[u32] {
        &self.token[self.offsets[expert]..self.offsets[expert + 1]]
    }

    /// Where the pairs of an expert begin.
    pub fn offset(&self, expert: usize) -> usize {
        self.offsets[expert]
    }
}

/// The weights of all experts, each an MLP of two linear maps.
#[derive(Debug, Clone)]
pub struct Experts {
    /// `[experts, d, hidden]`
    pub w1: Tensor<3>,
    /// `[experts, hidden]`
    pub b1: Tensor<2>,
    /// `[experts, hidden, d]`
    pub w2: Tensor<3>,
    /// `[experts, d]`
    pub b2: Tensor<2>,
}

impl Experts {
    /// # Panics
    /// If the shapes do not fit each other.
    fn assert_fit(&self, x: &Tensor<2>, gates: &Tensor<2>) {
        let ([tokens, d], [experts, _, hidden]) = (x.dims(), self.w1.dims());
        assert_eq!(gates.dims(), [tokens, experts]);
        assert_eq!(self.w1.dims(), [experts, d, hidden]);
        assert_eq!(self.b1.dims(), [experts, hidden]);
        assert_eq!(self.w2.dims(), [experts, hidden, d]);
        assert_eq!(self.b2.dims(), [experts, d]);
    }
}

/// `y_t = Σ_e gate_te · (act(x_t W1_e + b1_e) W2_e + b2_e)` over the experts e that token t is routed to; zero where there are
/// none. An expert without tokens costs nothing. Gates outside the routes are not read and have zero gradient.
///
/// # Shapes
/// - `x`: `[tokens, d]`
/// - `gates`: `[tokens, experts]`
/// - output: `[tokens, d]`
///
/// # Panics
/// If the shapes do not fit each other and the routes.
pub fn experts(
    x: Tensor<2>,
    gates: Tensor<2>,
    weights: Experts,
    routes: Routes,
    act: Activation,
) -> Tensor<2> {
    assert_eq!([routes.tokens(), routes.experts()], gates.dims());
    weights.assert_fit(&x, &gates);
    Tensor::from_dispatch(<Dispatch as Backend>::grouped_experts(
        x.into_dispatch(),
        gates.into_dispatch(),
        weights.w1.into_dispatch(),
        weights.b1.into_dispatch(),
        weights.w2.into_dispatch(),
        weights.b2.into_dispatch(),
        routes,
        act,
    ))
}

/// [`experts`] where a token goes to all whose gate [reaches](reaches) a threshold, which depends on no other token. GPUs find out
/// themselves who goes where, and the host does not wait for them.
///
/// # Shapes
/// - `x`: `[tokens, d]`
/// - `gates`: `[tokens, experts]`
/// - `threshold`: `[1]`
/// - output: `[tokens, d]`
///
/// # Panics
/// If the shapes do not fit each other.
pub fn experts_above(
    x: Tensor<2>,
    gates: Tensor<2>,
    threshold: Tensor<1>,
    weights: Experts,
    act: Activation,
) -> Tensor<2> {
    assert_eq!(threshold.dims(), [1]);
    weights.assert_fit(&x, &gates);
    Tensor::from_dispatch(<Dispatch as Backend>::experts_above(
        x.into_dispatch(),
        gates.into_dispatch(),
        threshold.into_dispatch(),
        weights.w1.into_dispatch(),
        weights.b1.into_dispatch(),
        weights.w2.into_dispatch(),
        weights.b2.into_dispatch(),
        act,
    ))
}

/// Whether a score wins by a threshold. One that is NaN does, because an expert left out would hide it.
pub fn reaches(score: f32, threshold: f32) -> bool {
    score >= threshold || score.is_nan()
}
