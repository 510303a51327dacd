//! A place where a rule is broken.

/// A rule that is broken, in a file that the caller knows.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub rule: String,
}

impl Broken {
    /// A rule that is broken in a line.
    pub fn new(line: usize, rule: impl Into<String>) -> Self {
        Self {
            line,
            rule: rule.into(),
        }
    }
}
