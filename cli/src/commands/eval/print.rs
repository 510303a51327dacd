//! The figures of an evaluation, printed for people.

use crate::output;
use anyhow::Result;
use tessera::evaluate::Evaluation;

/// Prints an evaluation.
///
/// # Errors
/// When stdout cannot be written.
pub fn print(evaluation: &Evaluation, classes: &[String]) -> Result<()> {
    if let Some(agreement) = &evaluation.agreement {
        output::text(format_args!(
            "agreement of the classifier with the requested class: {:.1} %",
            100.0 * agreement.accuracy
        ))?;
        for (name, class) in classes.iter().zip(&agreement.per_class) {
            let name = output::shown(name).to_string();
            output::text(format_args!(
                "  {name:<12} {:>4} of {}",
                class.agreed, class.requested
            ))?;
        }
    }
    if let Some(accuracy) = evaluation.real_test_accuracy {
        output::text(format_args!(
            "the same classifier on real test images: {:.2} %",
            100.0 * accuracy
        ))?;
    }
    match &evaluation.frechet {
        Some(f) => {
            output::text(format_args!(
                "Fréchet distance in the classifier's features to {} test images: {:.3}",
                f.test_count, f.distance
            ))?;
            output::text(format_args!(
                "  the same of {} real training images (the floor): {:.3} ± {:.3}",
                f.count, f.floor, f.floor_std
            ))?;
        }
        None => output::note("no real data: give --data for the Fréchet distance"),
    }
    Ok(())
}
