//! Random argument lists: whatever is asked, the program answers in words, in time and with a code that it documents.
//!
//! The suite tries some; `cargo xtask fuzz` as many as it is told. The commands and options are those of
//! docs/commands.md, so a new one is tried without being named here.
#![cfg(target_os = "linux")]

use crate::dit::RUN;
use crate::world::{WORLD, stdout};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tessera_backend::Rng;

/// Lists that the suite tries.
const LISTS: u64 = 200;

/// Lists between two lines that say how far it is.
const BLOCK: u64 = 1000;

/// What a shell bounds a run by: memory, the size of a file (an error, not a signal), and time: after 1 s it is asked
/// to stop, as by Ctrl-C, after 2 more again, and after $PATIENCE it has failed.
const BOUNDS: &str = "ulimit -v 4000000; ulimit -c 0; ulimit -f 100000; trap '' XFSZ; \
                      exec timeout --preserve-status -s KILL $PATIENCE timeout --preserve-status -s TERM 3 \
                      timeout --preserve-status -s INT 1 \"$0\" \"$@\"";

/// Seconds that a run has to end, and those that it has when it is tried again alone: other work on the machine is no
/// fault of the program.
const PATIENCE: [u32; 2] = [14, 120];

/// A code that `timeout` ends with when it had to kill.
const KILLED: i32 = 137;

/// Arguments of a run that does something small; `{}` names are files of [`Files`].
const BASES: [(&str, &str); 23] = [
    ("generate", "-c 3 --steps 1 -o out"),
    ("eval", "--data {data} --reconstruction -m {model}"),
    ("reconstruct", "-i {png} -m {model}"),
    ("tokenize", "-i {png} -m {model} -o out"),
    ("decode", "-i {tokens} -m {model} -o out"),
    ("calibrate", "--vae {vae} --data {data} -o c.json"),
    ("route", "-m {dit} -c 0 --steps 1"),
    ("inspect", "{model}"),
    ("convert", "{weights} -o out"),
    ("init", "--arch taesd -o out"),
    ("classes", "-m {model}"),
    ("bench generate", "-m {model} --steps 1"),
    ("bench ops", "linear-4x1024x4096 --seconds 0.01"),
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
            ("{dit}", RUN.1.clone()),
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

/// How a run with one list ended.
struct Answer {
    command: String,
    code: Option<i32>,
    /// What is wrong with it, with the list and what was said.
    fault: Option<String>,
}

/// The lists and what they are tried with.
struct Trial {
    program: OsString,
    commands: Vec<(String, Vec<Argument>)>,
    files: Vec<(&'static str, String)>,
}

impl Trial {
    fn run(&self, seed: u64, patience: u32) -> Answer {
        let [words, list] = list(seed, &self.commands, &self.files);
        let folder = tempfile::tempdir().unwrap();
        let mut run = Command::new("sh");
        let run = run.args(["-c", BOUNDS]).arg(&self.program);
        let run = run.args(&words).args(["-t", "1"]).args(&list);
        let run = run.current_dir(folder.path()).stdin(Stdio::null());
        let run = run.env("PATIENCE", patience.to_string());
        let output = run.env("RUST_BACKTRACE", "0").output().unwrap();
        let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        let code = output.status.code();
        // What a completion says is the shell's.
        let out = if words == ["completions"] {
            "".into()
        } else {
            out
        };
        let told = &err[..err.floor_char_boundary(600)];
        let fault = fault(code, &out, &err).map(|fault| {
            format!("{seed}: {fault} ({code:?}): tessera {words:?} {list:?}\n{told}\n")
        });
        Answer {
            command: words.join(" "),
            code,
            fault,
        }
    }

    /// Runs these lists, so many at once; those that did not end in time again, each alone.
    fn block(&self, lists: Range<u64>, jobs: usize) -> Vec<Answer> {
        let next = AtomicU64::new(lists.start);
        let answers = Mutex::new((Vec::new(), Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if !lists.contains(&seed) {
                            break;
                        }
                        let answer = self.run(seed, PATIENCE[0]);
                        let mut answers = answers.lock().unwrap();
                        match answer.code {
                            Some(KILLED) => answers.1.push(seed),
                            _ => {
                                tell(&answer);
                                answers.0.push(answer);
                            }
                        }
                    }
                });
            }
        });
        let (mut answers, slow) = answers.into_inner().unwrap();
        for seed in slow {
            let answer = self.run(seed, PATIENCE[1]);
            tell(&answer);
            answers.push(answer);
        }
        answers
    }
}

/// Prints a fault as soon as it is found: who tries many lists does not wait for the last.
fn tell(answer: &Answer) {
    if let Some(fault) = &answer.fault {
        println!("{fault}");
    }
}

#[test]
fn any_list_of_arguments_is_answered_in_words_and_in_time() {
    let number = |name: &str| -> Option<u64> { std::env::var(name).ok()?.parse().ok() };
    let lists = number("TESSERA_FUZZ_LISTS").unwrap_or(LISTS);
    let first = number("TESSERA_FUZZ_SEED").unwrap_or(0);
    // Some wait until they are stopped.
    let twice = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = number("TESSERA_FUZZ_JOBS").map_or(twice, |jobs| jobs.max(1) as usize);
    let files = Files::make();
    let trial = Trial {
        program: std::env::var_os("TESSERA_FUZZ_PROGRAM")
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_tessera").into()),
        commands: commands(),
        files: files.all(),
    };
    assert!(trial.commands.len() > 25, "{:?}", trial.commands);
    let mut codes = BTreeMap::<(String, i32), usize>::new();
    let mut faults = Vec::new();
    let end = first + lists;
    let mut begin = first;
    while begin < end {
        let (block, started) = (begin..end.min(begin + BLOCK), Instant::now());
        begin = block.end;
        let mut of_block = BTreeMap::<i32, usize>::new();
        for answer in trial.block(block.clone(), jobs) {
            let code = answer.code.unwrap_or(-1);
            *of_block.entry(code).or_default() += 1;
            *codes.entry((answer.command, code)).or_default() += 1;
            faults.extend(answer.fault);
        }
        println!(
            "lists {} to {}: exit codes {of_block:?}, {} faults so far, {:.0} s",
            block.start,
            block.end - 1,
            faults.len(),
            started.elapsed().as_secs_f64()
        );
    }
    for ((command, code), count) in &codes {
        println!("{command:<16} {code:>4} {count:>6}");
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
