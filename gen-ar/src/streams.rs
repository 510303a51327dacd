//! The streams of a seed that this crate draws from, beside those of the parameters.

/// The order in which an image's positions are generated.
pub(crate) const ORDERS: u64 = 1;
/// The draws of an image's tokens.
pub(crate) const TOKENS: u64 = 2;
