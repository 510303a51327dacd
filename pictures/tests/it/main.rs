//! Tests of the crate from outside, in one binary.
// The helpers are tests too, which the lint's own exception does not see.
#![allow(clippy::unwrap_used)]

mod datasets;
mod files;
mod folders;
mod formats;
mod golden;
mod hostile;
mod properties;
mod support;
