//! Names of the pictures a command writes: one file, a folder, or a pattern.

use crate::output;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// Where picture `i` of a request goes.
#[derive(Debug)]
pub struct Names {
    folder: PathBuf,
    pattern: String,
}

impl Names {
    /// `out.png` for one picture; `out/` for `out/00000.png`, …; a pattern with `%05d` (the number), `{class}` or
    /// `{seed}`.
    ///
    /// # Errors
    /// When the names of `pictures` would clash, or the output is there already and `overwrite` is off.
    pub fn new(output: &Path, pictures: usize, overwrite: bool) -> Result<Self> {
        let text = output.to_string_lossy();
        let is_file = text.ends_with(".png");
        let numbered = text.contains("%") || text.contains("{seed}");
        if is_file && pictures > 1 && !numbered {
            bail!(
                "-o {text}: {pictures} pictures cannot have one name; give a folder, or a pattern with %05d or {{seed}}"
            );
        }
        if !is_file {
            output::folder(output, overwrite)?;
            return Ok(Self {
                folder: output.into(),
                pattern: "%05d.png".into(),
            });
        }
        let folder = output
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
            .to_owned();
        let pattern = output
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        if !numbered {
            output::file(output, overwrite)?;
        }
        tessera::checkpoint::create_folder(&folder)?;
        Ok(Self { folder, pattern })
    }

    /// The folder that grids go to.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of picture `number` (from 0).
    pub fn path(&self, number: usize, class: &str, seed: u64) -> PathBuf {
        let class: String = class
            .chars()
            .map(|c| {
                if c.is_alphanumeric() || c == '-' {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        let name = self
            .pattern
            .replace("{class}", &class)
            .replace("{seed}", &seed.to_string());
        self.folder.join(with_number(&name, number))
    }
}

/// `%d` and `%0Nd` replaced by the number.
fn with_number(name: &str, number: usize) -> String {
    let Some((before, rest)) = name.split_once('%') else {
        return name.into();
    };
    let Some((width, after)) = rest.split_once('d') else {
        return name.into();
    };
    match (width, width.parse::<usize>()) {
        ("", _) => format!("{before}{number}{after}"),
        (_, Ok(width)) => format!("{before}{number:0width$}{after}"),
        (_, Err(_)) => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_padded_as_asked() {
        assert_eq!(with_number("a%05d.png", 7), "a00007.png");
        assert_eq!(with_number("a%d.png", 12), "a12.png");
        assert_eq!(with_number("a.png", 12), "a.png");
    }

    #[test]
    fn many_pictures_in_one_file_are_refused() {
        let error = Names::new(Path::new("x.png"), 2, false)
            .unwrap_err()
            .to_string();
        assert!(error.contains("%05d"), "{error}");
    }
}
