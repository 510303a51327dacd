//! Drawing requests before a person's eyes: with a bar, until Ctrl-C.

use crate::interrupt;
use crate::progress::Progress;
use anyhow::{Result, bail};
use tessera::{Event, Generation, Picture};

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
    while let Some(event) = generation.advance() {
        match event? {
            Event::Step(at) => {
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
            }
            Event::Picture(picture) => each(picture)?,
        }
    }
    progress.finish();
    Ok(())
}
