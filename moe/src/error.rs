//! What can go wrong in a mixture of experts.

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field of [`MoeConfig`](crate::MoeConfig) is out of range.
    #[error("mixture of experts: `{field}` must be {expected}, found {found}")]
    Config {
        /// The field.
        field: &'static str,
        /// What it must satisfy.
        expected: String,
        /// What it is.
        found: String,
    },
    /// Every race of a rule selects nobody.
    #[error(
        "mixture of experts: with rule {rule:?} and k = {k}, a race among {} images of {} tokens and {} experts \
        selects nobody; expected more tokens, a larger k or another rule",
        shape[0], shape[1], shape[2]
    )]
    NobodyWins {
        /// Who races whom.
        rule: crate::race::RoutingRule,
        /// Experts per token on average.
        k: f64,
        /// Images, tokens of each, experts.
        shape: [usize; 3],
    },
    /// A text is not of the form `k-in-E`.
    #[error("experts `{found}`: expected k-in-E such as 4-in-32, with k of E at most")]
    KInE {
        /// The text.
        found: String,
    },
    /// A score is NaN, which cannot be ranked.
    #[error("router scores: NaN for token {token} and expert {expert}")]
    NotANumber {
        /// The token's index over batch and sequence.
        token: usize,
        /// The expert.
        expert: usize,
    },
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
