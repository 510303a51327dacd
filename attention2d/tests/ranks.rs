//! Ranks over MPI. Started without `mpirun`, this program starts itself under it, on several numbers of ranks, and
//! counts the passed cases.

#![allow(clippy::unwrap_used)] // allowed in tests, but clippy does not see that this is one

mod cases;
mod mpirun;

use cases::{Case, attention, collectives};
use mpirun::{Job, mpirun};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;
use tessera_attention2d::{Comm, Error, Peers, mpi, panic_message};

/// Cases, the numbers of ranks they run on, and those they also run on with messages in tiny pieces, thousands of which
/// are slow where many ranks share processors.
const TABLES: &[(&[Case], &[usize], &[usize])] = &[
    (collectives::CASES, &[2, 4, 6, 9, 16], &[2, 4, 6]),
    (attention::CASES, &[1, 2, 4, 6, 9, 16], &[]),
];

/// Messages of the tests are longer than this.
const TINY: usize = 61;

/// What ends the job, on how many ranks, and the message on stderr.
const FAULTS: &[(&str, usize, &str)] = &[
    ("panics", 4, "rank 2: a rank that panics"),
    ("fails", 4, "rank 1: rank 1 failed: a rank that fails"),
    ("killed", 4, "rank 3"),
    (
        "panics-meanwhile",
        4,
        "rank 2: a rank that panics meanwhile",
    ),
    (
        "stuck",
        2,
        "last resort: rank 0 failed: it failed while its messages were in flight",
    ),
    (
        "short",
        2,
        "rank 1: rank 1 failed: a message of 8 bytes came from rank 0 of its group where 12 were expected; turn on the \
         check of collectives",
    ),
    (
        "long",
        2,
        "rank 1: rank 1 failed: 4 bytes from rank 0 of its group: ",
    ),
];

/// The time limit of a job whose ranks all pass.
const LIMIT: Duration = Duration::from_secs(180);

/// The time limits from a rank's end to that of all, and for a job to get so far, which depends on the load of the
/// machine.
const END: Duration = Duration::from_secs(10);
const START: Duration = Duration::from_secs(60);

/// The environment variable with a rank's job.
const JOB: &str = "TESSERA_TEST_JOB";

/// The environment variable with the file that a rank makes when it is about to fail.
const FAILING: &str = "TESSERA_TEST_FAILING";

fn main() -> ExitCode {
    if let Ok(job) = std::env::var(JOB) {
        return rank(&job);
    }
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    launch(&filter.unwrap_or_default())
}

/// Starts the jobs.
fn launch(filter: &str) -> ExitCode {
    let (mut outcomes, mut failed) = (Vec::new(), Vec::new());
    let mut sizes: Vec<_> = TABLES.iter().flat_map(|table| table.1).collect();
    sizes.sort_unstable();
    sizes.dedup();
    for &size in sizes {
        let names = wanted(size, filter);
        if names.is_empty() {
            continue;
        }
        let job = start(size, &format!("cases {filter}"), LIMIT, Path::new(""));
        println!("{size} ranks: {:.1} s", job.took.as_secs_f64());
        let passed: Vec<_> = job.stdout.lines().collect();
        let mut all = job.code == Some(0);
        for name in names {
            let ok = passed.contains(&format!("passed {name}").as_str());
            all &= ok;
            outcomes.push((format!("{name}, {size} ranks"), ok));
        }
        if !all {
            let name = format!("{size} ranks to the end");
            failed.push(format!("{name}: {}", shown(&job)));
            outcomes.push((name, false));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    for &(name, size, message) in FAULTS.iter().filter(|fault| fault.0.contains(filter)) {
        let failing = folder.path().join(name);
        let job = start(size, name, START, &failing);
        let since = fs::metadata(&failing).and_then(|file| file.modified());
        let took = since.map_or(START, |since| since.elapsed().unwrap_or_default());
        let seconds = took.as_secs_f64();
        println!("{name}: all {size} ranks gone after {seconds:.1} s");
        let ok = !job.late && took < END && job.code != Some(0) && job.stderr.contains(message);
        let name = format!("{name} ends all ranks");
        if !ok {
            failed.push(format!(
                "{name}: after {seconds:.1} s, expected on stderr: {message}\n{}",
                shown(&job)
            ));
        }
        outcomes.push((name, ok));
    }
    for (name, ok) in &outcomes {
        println!("test {name} ... {}", if *ok { "ok" } else { "FAILED" });
    }
    for failure in &failed {
        println!("\n{failure}");
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.1).count();
    println!(
        "\ntest result: {}. {} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out\n",
        if failed == 0 { "ok" } else { "FAILED" },
        outcomes.len() - failed
    );
    ExitCode::from(u8::from(failed > 0))
}

/// The names of the cases on this number of ranks.
fn wanted(size: usize, filter: &str) -> Vec<String> {
    of(size)
        .map(|(case, tiny)| named(case, tiny))
        .filter(|name| name.contains(filter))
        .collect()
}

fn named(case: Case, tiny: bool) -> String {
    let pieces = if tiny { " in tiny pieces" } else { "" };
    format!("{}{pieces}", case.0)
}

fn of(size: usize) -> impl Iterator<Item = (Case, bool)> {
    let tables = TABLES.iter().filter(move |table| table.1.contains(&size));
    tables.flat_map(move |&(cases, _, tiny)| {
        let pieces = [false]
            .into_iter()
            .chain(tiny.contains(&size).then_some(true));
        pieces.flat_map(move |tiny| cases.iter().map(move |&case| (case, tiny)))
    })
}

fn start(size: usize, job: &str, limit: Duration, failing: &Path) -> Job {
    let program = std::env::current_exe().unwrap();
    let arguments = [
        "-n".into(),
        size.to_string().into(),
        program.into_os_string(),
    ];
    let failing = failing.to_str().unwrap();
    mpirun(arguments, &[(JOB, job), (FAILING, failing)], limit)
}

fn shown(job: &Job) -> String {
    let Job {
        code,
        late,
        stdout,
        stderr,
        took,
    } = job;
    format!("exit code {code:?} after {took:?}, late: {late}\n{stdout}\n{stderr}")
}

/// One of the ranks.
fn rank(job: &str) -> ExitCode {
    let mpi = match mpi::init(last_resort) {
        Ok(mpi) => mpi,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let world = mpi.world();
    match job.strip_prefix("cases ") {
        Some(filter) => {
            let tiny_world = mpi.world_in_pieces(TINY);
            for (case, tiny) in of(world.size()) {
                let name = named(case, tiny);
                if name.contains(filter) {
                    let comm = if tiny { &tiny_world } else { &world };
                    guarded(comm, || case.1(comm).and_then(|()| comm.barrier()));
                    if world.rank() == 0 {
                        println!("passed {name}");
                    }
                }
            }
        }
        None => guarded(&world, || fault(&world, job)),
    }
    drop(world);
    mpi.finish();
    ExitCode::SUCCESS
}

/// Ends all ranks unless `work` succeeds.
fn guarded(comm: &Comm, work: impl FnOnce() -> tessera_attention2d::Result<()>) {
    let cause = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic_message(&*panic),
    };
    eprintln!("error: rank {}: {cause}", comm.rank());
    mpi::abort(1);
}

/// Reports an error that the library cannot return.
fn last_resort(error: Error) -> ! {
    eprintln!("error: last resort: {error}");
    mpi::abort(1);
}

/// One rank fails while the others wait for it.
fn fault(comm: &Comm, name: &str) -> tessera_attention2d::Result<()> {
    let rank = comm.rank();
    let peers = comm.ring_forward();
    let other = Peers {
        to: 1 - rank.min(1),
        from: 1 - rank.min(1),
    };
    let long = vec![0_u8; 1 << 20];
    // All ranks have started before one of them ends.
    comm.barrier()?;
    if rank == 0 {
        fs::write(std::env::var(FAILING).unwrap(), "").unwrap();
    }
    comm.barrier()?;
    match (name, rank) {
        ("panics", 2) => panic!("a rank that panics"),
        ("fails", 1) => {
            return Err(tessera_attention2d::Error::Rank {
                rank,
                cause: "a rank that fails".into(),
            });
        }
        ("killed", 3) => {
            let id = std::process::id().to_string();
            Command::new("kill").args(["-KILL", &id]).status().unwrap();
        }
        ("panics-meanwhile", _) => {
            comm.send_recv_while(peers, &long, long.len(), || {
                assert!(rank != 2, "a rank that panics meanwhile");
            })?;
        }
        // The other rank waits at the barrier, so this rank's messages never complete.
        ("stuck", 0) => {
            comm.send_recv_while(other, &long, long.len(), || {
                assert!(rank != 0, "a rank that panics with messages in flight");
            })?;
        }
        ("short" | "long", 0) => {
            comm.send_recv(other, &[0_u32; 2], 1)?;
        }
        ("short", _) => {
            comm.send_recv(other, &[0_u32], 3)?;
        }
        ("long", _) => {
            comm.send_recv(other, &[0_u32], 1)?;
        }
        _ => (),
    }
    comm.barrier()
}
