//! The data of the demo: Fashion-MNIST, or generated shapes.

use crate::recipe::fashion::{self, Fashion, Images};
use crate::{synthetic, workspace};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use xshell::{Shell, cmd};

/// Where Debian's package puts it.
const PACKAGED: &str = "/usr/share/datasets/fashion-mnist";

/// The four files of MNIST and its relatives, the training half first; `.gz` may follow.
const FILES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

/// Data that a pipeline trains on.
pub struct Data {
    /// The folder.
    pub folder: PathBuf,
    /// The names of its classes.
    pub classes: Vec<String>,
    /// What it is, for the report.
    pub description: String,
}

/// Finds what `recipe` asks for: in `given`, else where Debian's package puts it. A recipe that takes a part of the
/// data gets it in `out/data`, of simple shapes if there is no data at all.
///
/// # Errors
/// If there is no data and the recipe wants all of it; when `given` lacks a file.
pub fn prepare(sh: &Shell, recipe: &Fashion, given: Option<&Path>, out: &Path) -> Result<Data> {
    let found = match given {
        Some(folder) => Some(files(folder)?),
        None => files(Path::new(PACKAGED)).ok(),
    };
    let folder = out.join("data");
    match (found, recipe.images) {
        (Some(files), None) => Ok(Data {
            folder: files[0].parent().expect("a file lies in a folder").into(),
            classes: names(fashion::CLASSES),
            description: "Fashion-MNIST".into(),
        }),
        (Some(files), Some(images)) => {
            part(sh, &files, images, &folder)?;
            Ok(Data {
                folder,
                classes: names(fashion::CLASSES),
                description: format!("the first {} of Fashion-MNIST", sizes(images)),
            })
        }
        (None, Some(images)) => {
            write_shapes(images, &folder)?;
            Ok(Data {
                folder,
                classes: names(synthetic::CLASSES),
                description: format!(
                    "{} of generated discs and squares, as Fashion-MNIST was not found",
                    sizes(images)
                ),
            })
        }
        (None, None) => bail!(
            "Fashion-MNIST is not in {PACKAGED}\n  hint: `apt-get install dataset-fashion-mnist`, or --data with a \
             folder of {}, plain or .gz; --quick works without",
            FILES.join(", ")
        ),
    }
}

fn names(classes: [&str; 10]) -> Vec<String> {
    classes.map(str::to_owned).to_vec()
}

/// The pictures of a folder with a training, a validation and a test part, each with a folder for every class; the
/// validation part takes the test part's place in the second of the two.
///
/// # Errors
/// If there is no such folder, or the copy of two parts in `out/validation` cannot be written.
pub fn photographs(sh: &Shell, folder: &Path, out: &Path) -> Result<(Data, PathBuf)> {
    let part = |name: &str| folder.join(name);
    for name in ["train", "validation", "test"] {
        if workspace::list(&part(name)).is_empty() {
            bail!(
                "{}: expected train/, validation/ and test/ with pictures, found no {name}/",
                folder.display()
            );
        }
    }
    let classes = workspace::list(&part("train"));
    let classes: Vec<String> = classes
        .iter()
        .filter(|class| class.is_dir())
        .filter_map(|class| Some(class.file_name()?.to_str()?.to_owned()))
        .collect();
    let validation = out.join("validation");
    for (from, to) in [("train", "train"), ("validation", "test")] {
        for class in &classes {
            let to = validation.join(to).join(class);
            workspace::create_folder(&to)?;
            for picture in workspace::list(&part(from).join(class)) {
                sh.copy_file(picture, &to)?;
            }
        }
    }
    let data = Data {
        folder: folder.into(),
        description: format!("photographs of {} classes", classes.len()),
        classes,
    };
    Ok((data, validation))
}

fn sizes(images: Images) -> String {
    format!("{} training and {} test images", images.train, images.test)
}

fn files(folder: &Path) -> Result<[PathBuf; 4]> {
    let mut found = FILES.map(|name| folder.join(name));
    for file in &mut found {
        if !file.is_file() {
            let packed = file.with_added_extension("gz");
            if !packed.is_file() {
                bail!("{}: no such file, nor with .gz", file.display());
            }
            *file = packed;
        }
    }
    Ok(found)
}

/// Writes the first images of each half.
fn part(sh: &Shell, files: &[PathBuf; 4], images: Images, folder: &Path) -> Result<()> {
    let counts = [images.train, images.train, images.test, images.test];
    for ((file, name), count) in files.iter().zip(FILES).zip(counts) {
        let unpacked = match file.extension().is_some_and(|extension| extension == "gz") {
            true => cmd!(sh, "gzip -dc {file}").quiet().output()?.stdout,
            false => sh.read_binary_file(file)?,
        };
        let part =
            synthetic::first(&unpacked, count).with_context(|| file.display().to_string())?;
        workspace::create_folder(folder)?;
        workspace::write(&folder.join(name), &part)?;
    }
    Ok(())
}

/// Writes generated images of simple shapes.
///
/// # Errors
/// If a file cannot be written.
pub fn write_shapes(images: Images, folder: &Path) -> Result<()> {
    const SEED: u64 = 1;
    let (train, train_labels) = synthetic::images(images.train, SEED);
    let (test, test_labels) = synthetic::images(images.test, SEED + 1);
    workspace::create_folder(folder)?;
    let contents = [train, train_labels, test, test_labels];
    FILES
        .iter()
        .zip(contents)
        .try_for_each(|(name, bytes)| workspace::write(&folder.join(name), &bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const FEW: Images = Images {
        train: 20,
        test: 10,
    };

    #[test]
    fn made_up_data_is_found_again_and_a_part_of_it_taken() {
        let sh = Shell::new().unwrap();
        let temporary = sh.create_temp_dir().unwrap();
        let (whole, out) = (temporary.path().join("whole"), temporary.path().join("out"));
        assert!(files(&whole).is_err());
        write_shapes(FEW, &whole).unwrap();
        let recipe = Fashion {
            images: Some(Images { train: 10, test: 5 }),
            ..Fashion::quick()
        };
        let data = prepare(&sh, &recipe, Some(&whole), &out).unwrap();
        let labels = fs::read(data.folder.join(FILES[1])).unwrap();
        assert_eq!(
            labels,
            synthetic::idx(&[10], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
        );
        assert_eq!(data.folder, out.join("data"));
    }

    #[test]
    fn a_given_folder_without_data_is_an_error_whatever_else_there_is() {
        let sh = Shell::new().unwrap();
        let folder = sh.create_temp_dir().unwrap();
        for recipe in [Fashion::full(), Fashion::quick()] {
            assert!(prepare(&sh, &recipe, Some(folder.path()), folder.path()).is_err());
        }
    }
}
