//! One run of `tessera`: its arguments, its output, and how it continues after an interruption.

use crate::workspace;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::time::Instant;
use xshell::Shell;

/// One run of `tessera`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The command, with its flags.
    pub args: Vec<String>,
    /// The file that the command writes last; the step is done if it exists.
    pub product: PathBuf,
    /// The output folder, which the command wants to be empty.
    pub folder: Option<PathBuf>,
    /// The file for what the command prints.
    pub printed: Option<PathBuf>,
}

impl Step {
    /// A command, such as `train vae` or `eval`, and the file that it writes last.
    pub fn new(command: &str, product: PathBuf) -> Self {
        let (folder, printed) = (None, None);
        Self {
            args: Vec::new(),
            product,
            folder,
            printed,
        }
        .words(command)
    }

    /// Adds arguments, separated by spaces.
    pub fn words(mut self, words: &str) -> Self {
        self.args.extend(words.split_whitespace().map(Into::into));
        self
    }

    /// Adds an option whose value may contain spaces.
    pub fn flag(mut self, name: &str, value: impl AsRef<Path>) -> Self {
        self.args.push(name.into());
        self.args
            .push(value.as_ref().to_string_lossy().into_owned());
        self
    }

    /// Adds `-o` with a folder for this step only.
    pub fn in_folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.into());
        self.flag("-o", folder)
    }

    /// Writes what the command prints to a file.
    pub fn printing_to(mut self, file: PathBuf) -> Self {
        self.printed = Some(file);
        self
    }

    /// The options that continue or replace an interrupted run.
    pub fn restart_options(&self) -> &'static [&'static str] {
        let holds = |folder: PathBuf| !workspace::list(&folder).is_empty();
        match &self.folder {
            Some(folder) if holds(folder.join("checkpoint")) => &["--resume", "latest"],
            Some(folder) if holds(folder.clone()) => &["--overwrite"],
            _ => &[],
        }
    }

    /// The command as a reader types it, with `OUT` for the output folder.
    pub fn line(&self, out: &Path) -> String {
        let out = out.to_string_lossy();
        let words = self.args.iter().map(|arg| {
            let arg = arg.replace(&*out, "OUT");
            match arg.contains(' ') {
                true => format!("\"{arg}\""),
                false => arg,
            }
        });
        format!("tessera {}", words.collect::<Vec<_>>().join(" "))
    }
}

/// A step that is done.
pub struct Done {
    /// The step.
    pub step: Step,
    /// Its duration; `None` if it was done before.
    pub seconds: Option<f64>,
}

/// Runs a step unless its product exists.
///
/// # Errors
/// If it fails or does not write its product.
pub fn run(sh: &Shell, program: &Path, step: Step, out: &Path) -> Result<Done> {
    let line = step.line(out);
    if step.product.exists() {
        eprintln!("done before: {line}");
        return Ok(Done {
            step,
            seconds: None,
        });
    }
    eprintln!("$ {line}");
    let started = Instant::now();
    let command = sh
        .cmd(program)
        .args(&step.args)
        .args(step.restart_options())
        .quiet();
    match &step.printed {
        Some(file) => workspace::write(file, format!("{}\n", command.read()?).as_bytes())?,
        // The report names its files.
        None => command.ignore_stdout().run()?,
    }
    if !step.product.exists() {
        bail!(
            "`{line}` succeeded without writing {}",
            step.product.display()
        );
    }
    let seconds = started.elapsed().as_secs_f64();
    eprintln!("  {seconds:.1} s");
    Ok(Done {
        step,
        seconds: Some(seconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(folder: &Path) -> Step {
        let product = folder.join("product");
        Step {
            args: vec![
                "-c".into(),
                format!("echo told > {0}; echo told", product.display()),
            ],
            printed: Some(folder.join("printed")),
            folder: None,
            product,
        }
    }

    #[test]
    fn a_step_runs_once_and_what_it_prints_is_kept() {
        let sh = Shell::new().unwrap();
        let folder = sh.create_temp_dir().unwrap();
        let shell = Path::new("sh");
        let first = run(&sh, shell, step(folder.path()), folder.path()).unwrap();
        assert!(first.seconds.is_some());
        assert_eq!(
            sh.read_file(folder.path().join("printed")).unwrap(),
            "told\n"
        );
        let second = run(&sh, shell, step(folder.path()), folder.path()).unwrap();
        assert!(second.seconds.is_none());
    }

    #[test]
    fn a_command_that_fails_or_leaves_nothing_stops_the_pipeline() {
        let sh = Shell::new().unwrap();
        let folder = sh.create_temp_dir().unwrap();
        for script in ["exit 3", "true"] {
            let args = vec!["-c".into(), script.into()];
            let broken = Step {
                args,
                ..step(folder.path())
            };
            assert!(
                run(&sh, Path::new("sh"), broken, folder.path()).is_err(),
                "{script}"
            );
        }
    }

    #[test]
    fn a_step_that_was_cut_short_is_resumed_or_begun_anew() {
        let sh = xshell::Shell::new().unwrap();
        let folder = sh.create_temp_dir().unwrap();
        let step = Step::new("train vae", "x".into()).in_folder(folder.path());
        assert!(step.restart_options().is_empty());
        sh.write_file(folder.path().join("config.json"), "{}")
            .unwrap();
        assert_eq!(step.restart_options(), ["--overwrite"]);
        sh.write_file(folder.path().join("checkpoint/step-75.safetensors"), "")
            .unwrap();
        assert_eq!(step.restart_options(), ["--resume", "latest"]);
    }
}
