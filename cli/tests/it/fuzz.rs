//! Random argument lists: whatever is asked, the program answers in words, in time and with a code that it documents.
//!
//! The suite tries some; `cargo xtask fuzz` as many as it is told. The commands and options are those of
//! docs/commands.md, so a new one is tried without being named here.
#![cfg(target_os = "linux")]

use crate::world::{WORLD, stdout};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tessera_backend::Rng;

/// Lists that the suite tries.
const LISTS: u64 = 200;

/// What a shell bounds a run by: memory, the size of a file (an error, not a signal), and time: after 1 s it is asked
/// to stop, as by Ctrl-C, after 2 more again, and after 11 more it has failed.
const BOUNDS: &str = "ulimit -v 4000000; ulimit -c 0; ulimit -f 100000; trap '' XFSZ; \
                      exec timeout --preserve-status -s KILL 14 timeout --preserve-status -s TERM 3 \
                      timeout --preserve-status -s INT 1 \"$0\" \"$@\"";

/// A code that `timeout` ends with when it had to kill.
const KILLED: i32 = 137;

/// Arguments of a run that does something small; `{}` names are files of [`Files`].
const BASES: [(&str, &str); 23] = [
    ("generate", "-c 3 --steps 1 -o out"),
    ("eval", "-m {model} -n 1 --steps 1"),
    ("reconstruct", "-i {png} -m {model}"),
    ("tokenize", "-i {png} -m {model} -o out"),
    ("decode", "-i {tokens} -o out"),
    ("calibrate", "--vae {vae} --data {data} -o c.json"),
    ("route", "-m {model}"),
    ("inspect", "{model}"),
    ("convert", "{weights} -o out"),
    ("init", "--arch taesd -o out"),
    ("classes", "-m {model}"),
    ("bench generate", "-m {model} --steps 1"),
    ("bench ops", "linear-4x1024x4096 --seconds 0"),
    (
        "attn bench",
        "--threads-as-ranks 2 --tokens 64 --heads 2 --head-dim 8",
    ),
    ("attn plan", "--ranks 4 --tokens 64"),
    ("attn simulate", "--max-ranks 8 --tokens 1024"),
    (
        "train vae",
        "--data {data} --img-size 16 --ch 8 --ch-mult 1,2 --z-channels 4 --batch-size 3 --max-steps 1 -o run",
    ),
    (
        "train ar",
        "--data {data} --img-size 16 --vae {vae} --bits 4 --enc 16,1,2 --dec 16,1,2 --head 16,1,2 --buffer-size 2 \
         --batch-size 3 --max-steps 1 -o run",
    ),
    (
        "train dit",
        "--data {data} --img-size 16 --vae {vae} --size 16,1,2 --batch-size 3 --steps 1 --max-steps 1 -o run",
    ),
    (
        "train judge",
        "--data {data} --img-size 16 --max-steps 1 -o run",
    ),
    ("completions", "bash"),
    ("doctor", ""),
    ("man", "-o out"),
];

/// What any option may be given.
const VALUES: [&str; 46] = [
    "",
    " ",
    "0",
    "-0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "255",
    "256",
    "65535",
    "65536",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999999",
    "0.5",
    "1e-38",
    "1e-300",
    "1e30",
    "1e308",
    "1e400",
    "NaN",
    "-NaN",
    "inf",
    "-inf",
    "0x10",
    "1_000",
    "1,2",
    "1,,2",
    "2x2",
    "99999999999x99999999999",
    "0x0",
    "2-in-4",
    "9999999-in-99999999999",
    "é猫\u{202e}",
    "a\nerror: forged",
    "\u{1b}]0;x\u{7}",
    "all",
    "--",
    "-",
    "%99999d.png",
    "{class}/%d.png",
];

/// Files of every kind, and of none.
struct Files(tempfile::TempDir);

impl Files {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tokens = folder.path().join("tokens");
        stdout(
            "tokenize -i {} -m {} -o {}",
            &[&WORLD.disc(), &WORLD.model(), &tokens],
        );
        for (name, bytes) in [
            ("empty", &b""[..]),
            ("notes.txt", b"words"),
            ("\u{1b}odd\nname", b"{}"),
        ] {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        std::fs::create_dir(folder.path().join("nothing")).unwrap();
        Self(folder)
    }

    fn all(&self) -> Vec<(&'static str, String)> {
        let own = |name: &str| self.0.path().join(name);
        let all = [
            ("{model}", WORLD.model()),
            ("{run}", WORLD.run()),
            ("{vae}", WORLD.vae()),
            ("{data}", WORLD.pictures()),
            ("{png}", WORLD.disc()),
            ("{weights}", WORLD.model().join("model.safetensors")),
            ("{card}", WORLD.model().join("model.json")),
            ("{tokens}", own("tokens")),
            ("{empty}", own("empty")),
            ("{notes}", own("notes.txt")),
            ("{odd}", own("\u{1b}odd\nname")),
            ("{nothing}", own("nothing")),
            ("{absent}", own("absent/x.png")),
            ("{device}", "/dev/null".into()),
        ];
        all.into_iter()
            .map(|(name, path)| (name, path.display().to_string()))
            .collect()
    }
}

/// An option or argument of a command.
#[derive(Debug, Clone)]
struct Argument {
    /// `--steps`; nothing of an argument without a name.
    option: Option<String>,
    takes_value: bool,
    choices: Vec<String>,
}

/// The arguments of every command, from docs/commands.md.
fn commands() -> Vec<(String, Vec<Argument>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/commands.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut commands: Vec<(String, Vec<Argument>)> = Vec::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("## tessera") {
            commands.push((command.trim().to_owned(), Vec::new()));
        } else if let (Some((names, rest)), Some((_, arguments))) = (
            line.strip_prefix("- `")
                .and_then(|line| line.split_once('`')),
            commands.last_mut(),
        ) {
            let option = names.split([' ', ',']).find(|name| name.starts_with("--"));
            let quoted = rest.split('`').skip(1).step_by(2);
            arguments.push(Argument {
                option: option.map(str::to_owned),
                takes_value: names.contains(['<', '[']),
                choices: quoted.map(str::to_owned).collect(),
            });
        } else if let Some(last) = commands.last_mut().and_then(|(_, all)| all.last_mut()) {
            let continued = line.starts_with("  ");
            let quoted = line.split('`').skip(1).step_by(2).filter(|_| continued);
            last.choices.extend(quoted.map(str::to_owned));
        }
    }
    commands
}

fn one_of<'a, T>(rng: &mut Rng, of: &'a [T]) -> &'a T {
    &of[rng.below(of.len())]
}

fn value(rng: &mut Rng, argument: &Argument, files: &[(&str, String)]) -> String {
    match rng.below(12) {
        8.. => (*one_of(rng, &["1", "2", "16", "0.5"])).to_owned(),
        0..2 => one_of(rng, files).1.clone(),
        2..4 if !argument.choices.is_empty() => one_of(rng, &argument.choices).clone(),
        4 => format!("{}{}", one_of(rng, &VALUES), one_of(rng, &VALUES)),
        _ => (*one_of(rng, &VALUES)).to_owned(),
    }
}

/// A list of arguments: a command, most often one that would work, and anything.
fn list(
    seed: u64,
    commands: &[(String, Vec<Argument>)],
    files: &[(&str, String)],
) -> [Vec<String>; 2] {
    let mut rng = Rng::new(seed, 0);
    let (mut command, mut arguments) = one_of(&mut rng, commands).clone();
    // Groups of commands do nothing.
    while !BASES.iter().any(|(name, _)| *name == command) && rng.below(20) > 0 {
        (command, arguments) = one_of(&mut rng, commands).clone();
    }
    let global = &commands[0].1;
    let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    let mut list = Vec::new();
    let base = BASES
        .iter()
        .find(|(name, _)| *name == command)
        .map_or("", |base| base.1);
    if rng.below(4) > 0 {
        for word in base.split_whitespace() {
            let named = files.iter().find(|(name, _)| *name == word);
            match rng.below(40) {
                0 => {}
                1 => list.push((*one_of(&mut rng, &VALUES)).to_owned()),
                _ => list.push(named.map_or(word, |file| &file.1).to_owned()),
            }
        }
    }
    for _ in 0..rng.below(4) {
        let known = if rng.below(6) == 0 || arguments.is_empty() {
            global
        } else {
            &arguments
        };
        let argument = one_of(&mut rng, known).clone();
        list.extend(argument.option.clone());
        if argument.takes_value != (rng.below(20) == 0) {
            list.push(value(&mut rng, &argument, files));
        }
    }
    [words, list]
}

/// What is wrong with what a run came to, if anything is.
fn fault(code: Option<i32>, stdout: &str, stderr: &str) -> Option<&'static str> {
    let said = |word: &str| stderr.contains(word) || stdout.contains(word);
    let failed = stderr.lines().any(|line| line.starts_with("error:"));
    match code {
        Some(KILLED) => Some("it did not stop"),
        None => Some("it was ended by a signal"),
        Some(code) if ![0, 1, 2, 130].contains(&code) => {
            Some("an exit code that is not documented")
        }
        _ if said("panicked") || said("assertion `") || said(".rs:") => Some("words of a panic"),
        _ if stderr.contains(['\u{1b}', '\u{7}', '\u{202e}']) => Some("what a terminal obeys"),
        Some(0) if failed => Some("an error with exit code 0"),
        Some(1 | 2) if stderr.trim().is_empty() && stdout.trim().is_empty() => Some("no word"),
        _ => None,
    }
}

#[test]
fn any_list_of_arguments_is_answered_in_words_and_in_time() {
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    let lists = number("TESSERA_FUZZ_LISTS").unwrap_or(LISTS);
    let first = number("TESSERA_FUZZ_SEED").unwrap_or(0);
    let (commands, files) = (commands(), Files::make());
    assert!(commands.len() > 25, "{commands:?}");
    let named = files.all();
    let next = AtomicU64::new(first);
    let codes = Mutex::new(BTreeMap::<(String, i32), usize>::new());
    let faults = Mutex::new(String::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + lists {
                break;
            }
            let [words, list] = list(seed, &commands, &named);
            let folder = tempfile::tempdir().unwrap();
            let mut run = Command::new("sh");
            let run = run.args(["-c", BOUNDS, env!("CARGO_BIN_EXE_tessera")]);
            let run = run.args(&words).args(["-t", "1"]).args(&list);
            let run = run.current_dir(folder.path()).stdin(Stdio::null());
            let output = run.env("RUST_BACKTRACE", "0").output().unwrap();
            let [out, err] =
                [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
            let code = output.status.code();
            let key = (words.join(" "), code.unwrap_or(-1));
            *codes.lock().unwrap().entry(key).or_default() += 1;
            // What a completion says is the shell's.
            let out = if words == ["completions"] {
                "".into()
            } else {
                out
            };
            if let Some(fault) = fault(code, &out, &err) {
                let told = &err[..err.floor_char_boundary(600)];
                let mut faults = faults.lock().unwrap();
                writeln!(
                    faults,
                    "{seed}: {fault} ({code:?}): tessera {words:?} {list:?}\n{told}\n"
                )
                .unwrap();
            }
        }
    };
    // Some wait until they are stopped.
    let threads = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let codes = codes.into_inner().unwrap();
    for ((command, code), count) in &codes {
        println!("{command:<16} {code:>4} {count:>6}");
    }
    let faults = faults.into_inner().unwrap();
    assert!(faults.is_empty(), "{faults}");
}
