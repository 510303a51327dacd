//! The figures of an evaluation, printed for people.

use crate::output;
use anyhow::Result;
use tessera::evaluate::Evaluation;

/// Prints an evaluation.
///
/// # Errors
/// When stdout cannot be written.
pub fn print(evaluation: &Evaluation, classes: &[String]) -> Result<()> {
    let names = classes.iter().map(|name| output::shown(name).to_string());
    let text = evaluation.text(&names.collect::<Vec<_>>());
    if !text.is_empty() {
        output::text(text)?;
    }
    if evaluation.frechet.is_none() {
        output::note("no real data: give --data for the Fréchet distance");
    }
    Ok(())
}
