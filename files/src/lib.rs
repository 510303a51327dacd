//! Files and folders that appear whole or not at all: what every writer of the workspace goes through.
//!
//! Something is written under a temporary name in the folder where it is to be, synced to the disk, renamed, and its
//! folder is synced. A kill, a full disk or a power cut at any instant leaves what was there before or what was to be
//! there. What a killed writer leaves has one prefix and is removed by the next writer into the same folder; the
//! files of a writer that lives are locked, and stay.
//!
//! ```
//! use std::io::Write;
//! use tessera_files::{Existing, write_atomically};
//!
//! let folder = tempfile::tempdir()?;
//! let file = folder.path().join("notes.txt");
//! write_atomically(&file, Existing::Keep, |out| writeln!(out, "one"))?;
//! assert!(write_atomically(&file, Existing::Keep, |out| writeln!(out, "two")).is_err());
//! assert_eq!(std::fs::read_to_string(&file)?, "one\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! API boundary: paths and bytes. This crate knows no format.
#![forbid(unsafe_code)]

mod error;
mod file;
mod folder;
mod rename;
mod temporary;

pub use error::{Error, Result};
pub use file::{Existing, write_atomically};
pub use folder::{create_folder, is_vacant, sync_folder, visible_entries, write_folder_atomically};
pub use temporary::{TEMPORARY, abandon, final_path, remove_temporaries};
