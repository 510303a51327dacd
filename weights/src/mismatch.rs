//! The report of weights that do not fit a model.

use std::fmt;
use std::path::PathBuf;
use tessera_checkpoint::Architecture;

/// How many names of a kind the message lists.
const LISTED: usize = 5;

/// What keeps weights from being loaded; the message lists the first five of each kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The file of the weights; empty if they were made in memory.
    pub file: PathBuf,
    /// What the weights look like, by their names.
    pub guess: Option<Architecture>,
    /// Parameters of the model that the weights lack.
    pub missing: Vec<Stray>,
    /// Tensors that the model has no parameter for.
    pub unexpected: Vec<Stray>,
    /// Tensors whose shape is not the parameter's.
    pub misshapen: Vec<Misshapen>,
}

/// A name that only one side has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// The name.
    pub name: String,
    /// The most similar name of the other side, if one is similar (looked up for the listed names).
    pub nearest: Option<String>,
}

/// A tensor of the wrong shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misshapen {
    /// The name.
    pub name: String,
    /// The shape among the weights.
    pub found: Vec<usize>,
    /// The shape that the model wants.
    pub expected: Vec<usize>,
}

impl std::error::Error for Mismatch {}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.file.as_os_str().is_empty() {
            true => write!(f, "the weights")?,
            false => write!(f, "{}", self.file.display())?,
        }
        write!(f, " do not fit the model")?;
        let mut separator = ": ";
        let mut kind = |what: &str, rows: Vec<String>| {
            let count = rows.len();
            if count == 0 {
                return Ok(());
            }
            let listed = rows[..count.min(LISTED)].join(", ");
            let more = match count.saturating_sub(LISTED) {
                0 => String::new(),
                more => format!(", and {more} more"),
            };
            write!(f, "{separator}{count} {what} ({listed}{more})")?;
            separator = "; ";
            Ok(())
        };
        kind("missing", strays(&self.missing))?;
        kind("unexpected", strays(&self.unexpected))?;
        let shapes = self.misshapen.iter().map(|row| {
            let Misshapen {
                name,
                found,
                expected,
            } = row;
            format!("`{name}` has shape {found:?}, expected {expected:?}")
        });
        kind("misshapen", shapes.collect())?;
        match self.guess {
            Some(guess) if !self.unexpected.is_empty() => write!(f, "; it looks like a {guess}"),
            _ => Ok(()),
        }
    }
}

fn strays(rows: &[Stray]) -> Vec<String> {
    let row = |stray: &Stray| match &stray.nearest {
        Some(nearest) => format!("`{}`, nearest `{nearest}`", stray.name),
        None => format!("`{}`", stray.name),
    };
    rows.iter().map(row).collect()
}

/// Gives each of `names` the most similar of `others`.
pub(crate) fn with_nearest(names: Vec<&str>, others: &[&str]) -> Vec<Stray> {
    let stray = |(index, name): (usize, &str)| Stray {
        name: name.into(),
        nearest: (index < LISTED).then(|| nearest(name, others)).flatten(),
    };
    names.into_iter().enumerate().map(stray).collect()
}

fn nearest(name: &str, others: &[&str]) -> Option<String> {
    others
        .iter()
        .map(|other| (strsim::levenshtein(name, other), other))
        .min()
        .filter(|(distance, _)| *distance <= name.len() / 2)
        .map(|(_, other)| (*other).into())
}
