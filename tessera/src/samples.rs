//! Grids of samples that show how a training goes on, one for an epoch.

use crate::error::Result;
use std::path::{Path, PathBuf};
use tessera_backend::ImageRequest;
use tessera_checkpoint::create_folder;
use tessera_pictures::{Existing, GridStyle, Pixels, grid, write_png};

/// Requests for a grid of samples with a column per class, of the first 10 at most; and its columns.
pub fn sample_requests(classes: usize) -> (Vec<ImageRequest>, usize) {
    const ROWS: usize = 4;
    let columns = classes.min(10);
    let request = |i| ImageRequest {
        class: Some(i % columns),
        seed: i as u64,
    };
    ((0..ROWS * columns).map(request).collect(), columns)
}

/// Writes a grid of pictures as `epoch-0005.png`, over one that is there.
///
/// # Errors
/// When it cannot be written.
pub fn write_samples(folder: &Path, epoch: u64, cells: &[Pixels], columns: usize) -> Result<()> {
    let picture = grid(cells, columns, GridStyle::default())?;
    create_folder(folder)?;
    Ok(write_png(
        samples_file(folder, epoch),
        &picture,
        &[],
        Existing::Replace,
    )?)
}

/// The grid of an epoch.
pub fn samples_file(folder: &Path, epoch: u64) -> PathBuf {
    folder.join(format!("epoch-{epoch:04}.png"))
}
