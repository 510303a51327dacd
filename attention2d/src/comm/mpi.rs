//! Ranks as processes over the system's MPI.

mod requests;

use self::requests::Requests;
use crate::comm::collective::{Collective, Peers, Reduce, parts};
use crate::comm::communicator::Comm;
use crate::error::{Error, Result};
use ::mpi::environment::{self, Threading, Universe};
use ::mpi::ffi;
use std::ffi::c_int;
use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The most bytes or values in one message: MPI's counts and offsets have 31 bits.
const PIECE: usize = 1 << 30;

/// Messages up to this size are sent eagerly and need no thread that makes them progress.
const EAGER: usize = 1 << 16;

/// How long `mpirun` gets to forward the last output of a rank.
const FORWARDED: Duration = Duration::from_millis(200);

/// What the program does with an error that cannot be returned: report it and end the process, for instance by
/// [`abort`].
///
/// A rank that fails while messages are in flight cannot return before the library lets go of their buffers. When it
/// does not do so within two seconds, because another rank never takes part in the exchange, the error is handed to
/// this function.
pub type LastResort = fn(Error) -> !;

/// MPI in this process. Only [`finish`](Self::finish) finalizes it. Dropping does not: finalizing waits for the other
/// ranks, and after a failure those may be waiting for this one.
pub struct Mpi {
    universe: ManuallyDrop<Universe>,
    concurrent_calls: bool,
    last_resort: LastResort,
}

/// Joins the job that `mpirun` started, or makes one of a single rank; once per process.
///
/// # Errors
/// [`Error::Mpi`] when the process has joined before, or the library allows calls from a single thread only.
pub fn init(last_resort: LastResort) -> Result<Mpi> {
    let (universe, granted) = environment::initialize_with_threading(Threading::Multiple)
        .ok_or_else(|| Error::Mpi("this process has joined before".into()))?;
    let universe = ManuallyDrop::new(universe);
    if granted < Threading::Serialized {
        return Err(Error::Mpi(format!(
            "{} grants threads as {granted:?}, expected Serialized or Multiple",
            version()
        )));
    }
    // SAFETY: MPI is initialized; both are constants of the library.
    let code =
        unsafe { ffi::MPI_Comm_set_errhandler(ffi::RSMPI_COMM_WORLD, ffi::RSMPI_ERRORS_RETURN) };
    check(code, "MPI_Comm_set_errhandler")?;
    Ok(Mpi {
        universe,
        concurrent_calls: granted == Threading::Multiple,
        last_resort,
    })
}

impl Mpi {
    /// The group of all ranks of the job.
    pub fn world(&self) -> Comm {
        self.world_in_pieces(PIECE)
    }

    /// The group of all ranks of the job, whose messages are split into pieces of at most `piece` bytes, or values
    /// where they are reduced.
    pub fn world_in_pieces(&self, piece: usize) -> Comm {
        let world = self.universe.world();
        use ::mpi::topology::Communicator;
        Comm::world(Arc::new(Group {
            // SAFETY: a constant of the library.
            comm: unsafe { ffi::RSMPI_COMM_WORLD },
            world: true,
            rank: world.rank() as usize,
            size: world.size() as usize,
            world_rank: world.rank() as usize,
            piece: piece.clamp(1, PIECE),
            concurrent_calls: self.concurrent_calls,
            last_resort: self.last_resort,
            turn: Arc::default(),
        }))
    }

    /// Finalizes MPI; returns when all ranks have called it.
    pub fn finish(self) {
        ManuallyDrop::into_inner(self.universe);
    }
}

impl fmt::Debug for Mpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mpi").finish_non_exhaustive()
    }
}

/// Ends all ranks of the job, with `code` as the exit code of `mpirun`. May be called from any thread at any time.
pub fn abort(code: i32) -> ! {
    // `mpirun` reads this rank's output from a pipe, but the abort reaches it on another path: output that it has not
    // read by then is lost.
    thread::sleep(FORWARDED);
    if environment::is_initialized() && !environment::is_finalized() {
        // SAFETY: MPI is initialized; the standard allows this call at any time.
        unsafe { ffi::MPI_Abort(ffi::RSMPI_COMM_WORLD, code) };
    }
    std::process::exit(code)
}

/// Name and version of the library.
pub fn version() -> String {
    let text = environment::library_version().unwrap_or_default();
    let first = text.split([',', '\n', '\0']).next().unwrap_or_default();
    first.trim().to_owned()
}

/// A communicator of MPI.
struct Group {
    comm: ffi::MPI_Comm,
    /// Whether it is the library's own communicator, which is never freed.
    world: bool,
    rank: usize,
    size: usize,
    /// This rank's number in the whole job.
    world_rank: usize,
    piece: usize,
    /// Whether several threads may call the library at the same time.
    concurrent_calls: bool,
    last_resort: LastResort,
    /// Held during calls. All ranks must call a group's operations in the same order, whatever their threads do; where
    /// the library takes one thread at a time, all groups share one lock.
    turn: Arc<Mutex<()>>,
}

// SAFETY: a handle is a number or an address that the library looks up, valid on any thread at the level of threading
// that `init` requires. Below Multiple, `turn` serializes all calls.
unsafe impl Send for Group {}
// SAFETY: as above; and no two threads call operations on one communicator at once, as `turn` is held.
unsafe impl Sync for Group {}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("rank", &self.rank)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Freeing is collective, and no other rank joins a rank that unwinds.
        if self.world || thread::panicking() || environment::is_finalized() {
            return;
        }
        let _turn = self.turn();
        // SAFETY: MPI_Comm_split made it, and nothing uses the handle after this.
        unsafe { ffi::MPI_Comm_free(&mut { self.comm }) };
    }
}

impl Group {
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends each rank its bytes and receives this rank's bytes from it, as point-to-point messages.
    fn exchange<'a>(&'a self, sends: &[&'a [u8]], recvs: Vec<&'a mut [u8]>) -> Result<()> {
        let _turn = self.turn();
        let mut requests = Requests::new(self);
        for (from, part) in recvs.into_iter().enumerate() {
            match from == self.rank {
                true => part.copy_from_slice(sends[from]),
                false => requests.receive(from, part)?,
            }
        }
        // Start with the next rank, so that not all ranks send to rank 0 first.
        for to in (1..self.size).map(|step| (self.rank + step) % self.size) {
            requests.send(to, sends[to])?;
        }
        requests.finish()
    }

    fn reduce_scatter(&self, send: &[f32], recv: &mut [f32], counts: &[usize]) -> Result<()> {
        let (counts, _) = narrow(counts);
        // SAFETY: `send` has the sum of the counts, `recv` this rank's count, both of f32, and they do not overlap; no
        // count overflows, as their sum is at most a piece, or each is at most 1.
        let code = unsafe {
            ffi::MPI_Reduce_scatter(
                send.as_ptr().cast(),
                recv.as_mut_ptr().cast(),
                counts.as_ptr(),
                ffi::RSMPI_FLOAT,
                ffi::RSMPI_SUM,
                self.comm,
            )
        };
        check(code, "MPI_Reduce_scatter")
    }
}

impl Collective for Group {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn split(&self, color: usize, key: usize) -> Result<Arc<dyn Collective>> {
        let number = |what, value: usize| {
            c_int::try_from(value).map_err(|_| Error::config(what, "below 2^31", value))
        };
        let (color, key) = (
            number("the color of a group", color)?,
            number("the key of a rank", key)?,
        );
        let (mut comm, mut rank, mut size) = (self.comm, 0, 0);
        let _turn = self.turn();
        // SAFETY: the communicator lives as long as this group; the rest are numbers and outputs.
        let code = unsafe { ffi::MPI_Comm_split(self.comm, color, key, &mut comm) };
        check(code, "MPI_Comm_split")?;
        // SAFETY: the call above made the communicator.
        let codes = unsafe {
            [
                ffi::MPI_Comm_rank(comm, &mut rank),
                ffi::MPI_Comm_size(comm, &mut size),
            ]
        };
        let group = Self {
            comm,
            world: false,
            rank: rank as usize,
            size: size as usize,
            turn: match self.concurrent_calls {
                true => Arc::default(),
                false => self.turn.clone(),
            },
            ..*self
        };
        check(codes[0], "MPI_Comm_rank")?;
        check(codes[1], "MPI_Comm_size")?;
        Ok(Arc::new(group))
    }

    fn barrier(&self) -> Result<()> {
        let _turn = self.turn();
        // SAFETY: the communicator lives as long as this group.
        check(unsafe { ffi::MPI_Barrier(self.comm) }, "MPI_Barrier")
    }

    fn all_gather(&self, send: &[u8], recv: &mut [u8], counts: &[usize]) -> Result<()> {
        assert_eq!(counts.len(), self.size, "a count for each rank");
        assert_eq!(counts[self.rank], send.len(), "this rank's count");
        assert_eq!(counts.iter().sum::<usize>(), recv.len(), "all counts");
        if recv.len() > self.piece {
            return self.exchange(&vec![send; self.size], parts(recv, counts));
        }
        let (counts, starts) = narrow(counts);
        let _turn = self.turn();
        // SAFETY: the counts match the buffers, as asserted, which hold bytes and do not overlap; nothing overflows, as
        // the sum of the counts is at most a piece.
        let code = unsafe {
            ffi::MPI_Allgatherv(
                send.as_ptr().cast(),
                counts[self.rank],
                ffi::RSMPI_UINT8_T,
                recv.as_mut_ptr().cast(),
                counts.as_ptr(),
                starts.as_ptr(),
                ffi::RSMPI_UINT8_T,
                self.comm,
            )
        };
        check(code, "MPI_Allgatherv")
    }

    // Point to point: ranks do not know whether another rank's messages fit into one piece, and MPI_Alltoallv would
    // need all ranks to decide alike.
    fn all_to_all(
        &self,
        send: &[u8],
        send_counts: &[usize],
        recv: &mut [u8],
        recv_counts: &[usize],
    ) -> Result<()> {
        assert_eq!(send_counts.len(), self.size, "a count for each rank");
        assert_eq!(recv_counts.len(), self.size, "a count for each rank");
        let mut rest = send;
        let sends: Vec<_> = send_counts
            .iter()
            .map(|&count| rest.split_off(..count).expect("counts are of the buffer"))
            .collect();
        self.exchange(&sends, parts(recv, recv_counts))
    }

    fn reduce_scatter_sum(&self, send: &[f32], recv: &mut [f32], counts: &[usize]) -> Result<()> {
        assert_eq!(counts.len(), self.size, "a count for each rank");
        assert_eq!(counts[self.rank], recv.len(), "this rank's count");
        assert_eq!(counts.iter().sum::<usize>(), send.len(), "all counts");
        let _turn = self.turn();
        if send.len() <= self.piece {
            return self.reduce_scatter(send, recv, counts);
        }
        // One stretch of every rank's part at a time.
        let (most, longest) = (self.piece / self.size, counts.iter().max());
        let most = most.max(1);
        let mut stretch = Vec::new();
        for at in (0..longest.copied().unwrap_or(0)).step_by(most) {
            stretch.clear();
            let (mut lens, mut start) = (Vec::new(), 0);
            for &count in counts {
                let len = count.saturating_sub(at).min(most);
                stretch.extend_from_slice(&send[start + at.min(count)..][..len]);
                lens.push(len);
                start += count;
            }
            let own = at.min(recv.len());
            self.reduce_scatter(&stretch, &mut recv[own..][..lens[self.rank]], &lens)?;
        }
        Ok(())
    }

    fn all_reduce(&self, values: &mut [f32], op: Reduce) -> Result<()> {
        let _turn = self.turn();
        for piece in values.chunks_mut(self.piece) {
            let own = piece.to_vec();
            // SAFETY: constants of the library; both buffers have this many f32 and do not overlap.
            let code = unsafe {
                let op = match op {
                    Reduce::Sum => ffi::RSMPI_SUM,
                    Reduce::Max => ffi::RSMPI_MAX,
                };
                ffi::MPI_Allreduce(
                    own.as_ptr().cast(),
                    piece.as_mut_ptr().cast(),
                    own.len() as c_int,
                    ffi::RSMPI_FLOAT,
                    op,
                    self.comm,
                )
            };
            check(code, "MPI_Allreduce")?;
        }
        Ok(())
    }

    fn send_recv(
        &self,
        peers: Peers,
        send: &[u8],
        recv: &mut [u8],
        meanwhile: &mut dyn FnMut(),
    ) -> Result<()> {
        let large = send.len().max(recv.len()) > EAGER;
        let mut requests = Requests::new(self);
        {
            let _turn = self.turn();
            requests.receive(peers.from, recv)?;
            requests.send(peers.to, send)?;
        }
        match large && self.concurrent_calls {
            true => requests.advance_while(meanwhile),
            false => meanwhile(),
        }
        let _turn = self.turn();
        requests.finish()
    }
}

fn check(code: c_int, call: &str) -> Result<()> {
    match code as u32 == ffi::MPI_SUCCESS {
        true => Ok(()),
        false => Err(Error::Mpi(format!("{call}: {}", error_text(code)))),
    }
}

/// The library's text for an error code.
fn error_text(code: c_int) -> String {
    let mut text = [0_u8; ffi::MPI_MAX_ERROR_STRING as usize];
    let mut len = 0;
    // SAFETY: the buffer has the size that the standard asks for.
    unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr().cast(), &mut len) };
    String::from_utf8_lossy(&text[..len as usize]).into_owned()
}

/// Counts and offsets as MPI takes them; the caller ensures that they fit.
fn narrow(counts: &[usize]) -> (Vec<c_int>, Vec<c_int>) {
    let mut start = 0;
    let pair = |&count: &usize| {
        let begin = start;
        start += count;
        (count as c_int, begin as c_int)
    };
    counts.iter().map(pair).unzip()
}
