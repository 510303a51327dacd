//! What the program tells of its commands: completions, manual pages, the reference. None needs a device, nor a model.

use crate::world::{failure, stdout};
use std::fs;
use std::path::Path;

/// The commands that `tessera --help` lists.
fn commands() -> Vec<String> {
    let help = stdout("--help", &[]);
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed.map_while(|line| line.strip_prefix("  ")?.split(' ').next());
    let names = names.filter(|name| !name.is_empty() && *name != "help");
    names.map(str::to_owned).collect()
}

#[test]
fn every_shell_is_told_of_every_command() {
    let commands = commands();
    assert!(commands.len() > 15, "{commands:?}");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = stdout(&format!("completions {shell} --device cuda:7"), &[]);
        for name in &commands {
            assert!(script.contains(name.as_str()), "{name} of {shell}");
        }
    }
    let error = failure(2, "completions tcsh", &[]);
    assert!(error.contains("tcsh") && error.contains("zsh"), "{error}");
}

#[cfg(unix)]
#[test]
fn bash_completes_commands_options_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("tessera.bash");
    fs::write(&script, stdout("completions bash", &[])).unwrap();
    let complete = |words: &str| {
        let code = "source \"$0\"; COMP_WORDS=(tessera $1); COMP_CWORD=${#COMP_WORDS[@]}-1; \
                    _tessera tessera \"${COMP_WORDS[-1]}\" \"${COMP_WORDS[-2]}\"; echo ${COMPREPLY[@]}";
        let mut bash = std::process::Command::new("bash");
        let bash = bash.args(["--norc", "-c", code]).arg(&script).arg(words);
        let output = bash.output().ok()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.is_empty(), "{said}");
        Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    };
    let Some(found) = complete("gener") else {
        eprintln!("skipped: there is no bash");
        return;
    };
    assert_eq!(found, "generate");
    assert_eq!(complete("train ju").unwrap(), "judge");
    assert_eq!(
        complete("generate --cfg-sc").unwrap(),
        "--cfg-scale --cfg-schedule"
    );
    assert_eq!(complete("completions z").unwrap(), "zsh");
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    let said = stdout("man -o {} --device cuda:7", &[&pages]);
    let written = fs::read_dir(&pages).unwrap().count();
    assert_eq!(
        said.split(' ').next(),
        Some(&*written.to_string()),
        "{said}"
    );
    let page = |name: &str| fs::read_to_string(pages.join(format!("{name}.1"))).unwrap();
    for command in commands() {
        let text = page(&format!("tessera-{command}"));
        assert!(
            text.contains(&format!(".TH tessera-{command} 1 ")),
            "{text}"
        );
    }
    assert!(page("tessera-train-vae").contains("tessera train vae"));
    assert!(page("tessera-generate").contains("\\-\\-class"));
    assert_eq!(page("tessera").trim_end(), stdout("man", &[]).trim_end());
}

#[test]
fn manual_pages_do_not_replace_files_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let mine = folder.path().join("tessera.1");
    fs::write(&mine, "mine").unwrap();
    let at: &[&Path] = &[folder.path()];
    let error = failure(1, "man -o {}", at);
    assert!(error.contains("tessera.1"), "{error}");
    assert_eq!(fs::read_to_string(&mine).unwrap(), "mine");
    stdout("man -o {} --overwrite", at);
    assert_ne!(fs::read_to_string(&mine).unwrap(), "mine");
}

#[test]
fn the_committed_reference_is_that_of_the_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/commands.md");
    let committed = fs::read_to_string(&path).unwrap().replace("\r\n", "\n");
    let said = stdout("reference", &[]);
    let differs = committed
        .lines()
        .zip(said.lines())
        .find(|(committed, said)| committed != said);
    assert!(
        committed.trim_end() == said.trim_end(),
        "docs/commands.md is out of date: run `cargo xtask docs`; first difference: {differs:?}"
    );
    for command in commands() {
        assert!(
            said.contains(&format!("\n## tessera {command}\n")),
            "{command}"
        );
    }
}
