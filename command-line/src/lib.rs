//! What the command line of any program needs: numbers within ranges as the values of options, and the program's help
//! as Markdown and as manual pages.
//!
//! API boundary: [`clap::Command`]s and texts. This crate knows no option and no program, and prints nothing.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod commands;
mod manual;
mod markdown;
mod numbers;

pub use commands::{calls, is_number, leaves, valued};
pub use manual::{ManualPage, manual_pages};
pub use markdown::markdown;
pub use numbers::{Number, above, bytes, negative_numbers, share, within};
