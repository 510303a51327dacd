//! `cargo xtask demo --install`: the trained model becomes the repository's, and that of clothing the built-in one.

use crate::{recipe, workspace};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;

/// The files of such a model.
const FILES: [&str; 8] = [
    "model.json",
    "config.json",
    "model.safetensors",
    "vae/config.json",
    "vae/model.safetensors",
    "calibration.json",
    "judge/config.json",
    "judge/model.safetensors",
];

/// The built-in model is in every clone and every binary, so it must stay small.
const LIMIT_BYTES: u64 = 12_000_000;

/// Copies the classifier to the model, where `tessera eval` finds it.
///
/// # Errors
/// If a file cannot be copied.
pub fn add_judge(out: &Path) -> Result<()> {
    let judge = recipe::model(out).join("judge");
    for name in ["config.json", "model.safetensors"] {
        copy(&recipe::judge_model(out).join(name), &judge.join(name))?;
    }
    Ok(())
}

/// Copies the model to `models/NAME` of the workspace.
///
/// # Errors
/// If a file is missing or the model is too large to be built in.
pub fn install(out: &Path, name: &str) -> Result<()> {
    install_to(out, &workspace::root().join("models").join(name))
}

fn install_to(out: &Path, target: &Path) -> Result<()> {
    let model = recipe::model(out);
    let size = |name: &str| {
        let file = model.join(name);
        let metadata = fs::metadata(&file)
            .with_context(|| format!("cannot install without {}", file.display()));
        metadata.map(|metadata| metadata.len())
    };
    let bytes = FILES.into_iter().map(size).sum::<Result<u64>>()?;
    if bytes > LIMIT_BYTES {
        bail!(
            "{} has {bytes} bytes; the built-in model may have at most {LIMIT_BYTES}",
            model.display()
        );
    }
    for name in FILES {
        copy(&model.join(name), &target.join(name))?;
    }
    eprintln!("installed {bytes} bytes in {}", target.display());
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let contents = workspace::read(from)?;
    workspace::create_folder(to.parent().expect("a file is in a folder"))?;
    workspace::write(to, &contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use xshell::Shell;

    #[test]
    fn a_whole_model_is_installed_and_nothing_else() {
        let sh = Shell::new().unwrap();
        let temporary = sh.create_temp_dir().unwrap();
        let (out, target) = (
            temporary.path().join("out"),
            temporary.path().join("target"),
        );
        for name in FILES.iter().filter(|name| !name.starts_with("judge/")) {
            sh.write_file(recipe::model(&out).join(name), name).unwrap();
        }
        assert!(install_to(&out, &target).is_err(), "no judge yet");
        assert!(!target.exists());
        for name in ["config.json", "model.safetensors"] {
            sh.write_file(recipe::judge_model(&out).join(name), name)
                .unwrap();
        }
        add_judge(&out).unwrap();
        sh.write_file(recipe::model(&out).join("notes.txt"), "x")
            .unwrap();
        install_to(&out, &target).unwrap();
        assert!(FILES.iter().all(|name| target.join(name).is_file()));
        assert!(!target.join("notes.txt").exists());
    }

    #[test]
    fn a_model_that_is_too_large_is_refused() {
        let sh = Shell::new().unwrap();
        let temporary = sh.create_temp_dir().unwrap();
        for name in FILES {
            sh.write_file(recipe::model(temporary.path()).join(name), name)
                .unwrap();
        }
        let weights = fs::File::create(recipe::model(temporary.path()).join(FILES[2])).unwrap();
        weights.set_len(LIMIT_BYTES).unwrap();
        let error = install_to(temporary.path(), &temporary.path().join("target")).unwrap_err();
        assert!(error.to_string().contains("at most 12000000"), "{error}");
    }
}
