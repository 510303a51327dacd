//! Drawing requests before a person's eyes: with a bar, until Ctrl-C.

use crate::interrupt;
use crate::progress::Progress;
use anyhow::{Result, bail};
use tessera::attention2d::Comm;
use tessera::{Divided, Generation, Picture, Request, Step};

/// Draws `total` requests and hands over every picture as it is finished.
///
/// # Errors
/// A value that is not finite, Ctrl-C, or what `each` gives.
pub fn draw(
    mut generation: Generation<'_>,
    total: usize,
    quiet: bool,
    mut each: impl FnMut(Picture) -> Result<()>,
) -> Result<()> {
    let mut progress = Progress::new("generate", "images", total as u64, quiet);
    while let Some(picture) = generation.next_after(|at| said(&mut progress, at, total))? {
        each(picture)?;
    }
    progress.finish();
    Ok(())
}

/// Draws this rank's share of pictures; `each` gets all of them at the first rank.
///
/// # Errors
/// A value that is not finite, Ctrl-C, a rank that failed, or what `each` gives.
pub fn draw_divided<R: Fn(usize) -> Request>(
    divided: &Divided<'_, R>,
    ranks: &Comm,
    quiet: bool,
    each: impl FnMut(Picture) -> Result<()>,
) -> Result<()> {
    let total = divided.total;
    let mut progress = Progress::new("generate", "images", total as u64, quiet);
    divided.draw(ranks, |at| said(&mut progress, at, total), each)?;
    progress.finish();
    Ok(())
}

/// Shows a step, `at.first` counting all pictures; fails after Ctrl-C.
fn said(progress: &mut Progress, at: Step, total: usize) -> Result<()> {
    let done = at.first + at.pictures * at.step / at.steps;
    progress.set(done as u64, format!("step {}/{}", at.step, at.steps));
    if interrupt::requested() {
        bail!(
            "after {} of {total} images: stopped at step {} of {}",
            at.first,
            at.step,
            at.steps
        );
    }
    Ok(())
}
