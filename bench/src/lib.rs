//! How fast this machine is, and where the time goes: what is measured, on which shapes, and how it is timed.
//!
//! | | |
//! |---|---|
//! | [`operations`] | the operations and blocks one by one, at the shapes of TokenBridge-L and KL-16; steps of whole models |
//! | [`pictures`] | whole pictures, by part of the model |
//! | [`attention`] | every method of distributed attention on ranks |
//!
//! API boundary: models, shapes and ranks in, figures out; the tables of the figures are their `Display`. This crate
//! opens no model, knows no command line and prints nothing.
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![recursion_limit = "256"]

pub mod attention;
mod models;
pub mod operations;
pub mod pictures;
mod timing;

pub use timing::{Median, matmul_peak, median};
