//! What a training run shows of itself after an epoch.

use anyhow::{Context, Result};
use std::path::Path;
use tessera::pictures::{Existing, GridStyle, Pixels, grid, write_png};

/// Writes a grid of pictures as `epoch-0005.png`.
///
/// # Errors
/// When it cannot be written.
pub fn write_samples(folder: &Path, epoch: u64, cells: &[Pixels], columns: usize) -> Result<()> {
    let picture = grid(cells, columns, GridStyle::default())?;
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let file = folder.join(format!("epoch-{epoch:04}.png"));
    Ok(write_png(file, &picture, &[], Existing::Replace)?)
}
