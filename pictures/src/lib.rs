//! Pictures, without Burn: reading, cropping, resizing, writing, grids, PNG text, PSNR, SSIM, and data sets of them.
//!
//! Pictures come in through [`read`], are cut by [`center_crop`] and become `[3, height, width]` arrays in `[-1, 1]` by
//! [`Pixels::to_array`]; they go out by [`Pixels::from_array`], whose rounding rule is the only one, and [`write_png`].
//! [`dataset`] has labeled pictures by index: folders, files of the MNIST family, and squares of one size made of
//! either.
//!
//! ```
//! use tessera_pictures::{Channels, Existing, Pixels, psnr, read, write_png};
//!
//! let folder = tempfile::tempdir().expect("a temporary folder");
//! let file = folder.path().join("gray.png");
//! let picture = Pixels::new(2, 2, Channels::Gray, vec![0, 85, 170, 255])?;
//! write_png(&file, &picture, &[("Title", "four grays")], Existing::Keep)?;
//! let again = read(&file, None)?;
//! assert_eq!(psnr(&picture, &again)?, f64::INFINITY);
//! assert_eq!(again.to_array().dim(), (1, 2, 2)); // [channels, height, width] in [-1, 1]
//! # Ok::<(), tessera_pictures::Error>(())
//! ```
//!
//! API boundary: host memory and files only. This crate knows no device, no model and no training.
#![forbid(unsafe_code)]

mod canvas;
mod container;
mod crop;
pub mod dataset;
mod decoders;
mod error;
mod find;
mod grid;
mod metadata;
mod metrics;
mod orientation;
mod pixels;
mod probe;
mod read;
mod resize;
mod room;
mod ssim;
mod walk;
mod write;

pub use canvas::Canvas;
pub use crop::center_crop;
pub use decoders::is_decoding;
pub use error::{BoxError, Error, Result};
pub use find::{Found, find, paired};
pub use grid::{GridStyle, difference, grid};
pub use metadata::read_metadata;
pub use metrics::{psnr, psnr_array};
pub use pixels::{Channels, Pixels};
pub use read::{decode, read};
pub use resize::{Filter, resize};
pub use room::is_reserving;
pub use ssim::ssim;
pub use tessera_files::Existing;
pub use walk::{ENDINGS, LeftOut, counted};
pub use write::write_png;
