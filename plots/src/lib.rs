//! Figures as pictures: charts as SVG, and heat maps that lie over pictures.
//!
//! API boundary: numbers, names and pictures in; a file or [`Pixels`](tessera_pictures::Pixels) out. This crate knows
//! no model and no command.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod charts;
mod colors;
mod error;
pub mod heat;

pub use charts::{Line, Look, bars, cells, lines, powers, require_svg};
pub use colors::color;
pub use error::{Error, Result};
