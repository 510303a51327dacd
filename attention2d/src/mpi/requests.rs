//! Messages on their way.

use super::{Group, abort, check, said};
use crate::{Error, Result};
use ::mpi::ffi;
use std::ffi::c_int;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Messages that other calls cannot be mistaken for: ranks make the same calls in the same order, and messages of one pair of
/// ranks do not overtake each other.
const TAG: c_int = 0;

/// How often that thread looks.
const LOOK: Duration = Duration::from_micros(200);

/// How long messages whose call has failed may still take before the job ends.
const DRAIN: Duration = Duration::from_secs(2);

/// Messages on their way, whose buffers are borrowed as long.
pub(super) struct Requests<'a> {
    group: &'a Group,
    handles: Vec<ffi::MPI_Request>,
    /// Of each that receives: from whom, and how many bytes.
    expected: Vec<Option<(usize, usize)>>,
    statuses: Vec<ffi::MPI_Status>,
    /// The library has let go of all of them.
    done: bool,
    buffers: PhantomData<&'a mut [u8]>,
}

// SAFETY: handles, as a group's; the thread that this one is lent to calls only where the library takes calls of any thread.
unsafe impl Send for Requests<'_> {}

impl<'a> Requests<'a> {
    pub(super) fn new(group: &'a Group) -> Self {
        Self {
            group,
            handles: Vec::new(),
            expected: Vec::new(),
            statuses: Vec::new(),
            done: true,
            buffers: PhantomData,
        }
    }

    fn add(&mut self, handle: ffi::MPI_Request, expected: Option<(usize, usize)>) {
        self.handles.push(handle);
        self.expected.push(expected);
        // SAFETY: a status is numbers, all of which may be 0.
        self.statuses
            .push(unsafe { MaybeUninit::zeroed().assume_init() });
        self.done = false;
    }

    /// One message at least, so that a rank that expects none is told apart from one that expects some.
    pub(super) fn receive(&mut self, from: usize, buffer: &'a mut [u8]) -> Result<()> {
        let mut rest = buffer;
        loop {
            let (piece, after) = rest.split_at_mut(rest.len().min(self.group.piece));
            // SAFETY: the library's constant.
            let mut handle = unsafe { ffi::RSMPI_REQUEST_NULL };
            // SAFETY: the buffer is borrowed for as long as `self`, which is not dropped before the library lets go of it.
            let code = unsafe {
                ffi::MPI_Irecv(
                    piece.as_mut_ptr().cast(),
                    piece.len() as c_int,
                    ffi::RSMPI_UINT8_T,
                    from as c_int,
                    TAG,
                    self.group.comm,
                    &mut handle,
                )
            };
            check(code, "MPI_Irecv")?;
            self.add(handle, Some((from, piece.len())));
            rest = after;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    pub(super) fn send(&mut self, to: usize, buffer: &'a [u8]) -> Result<()> {
        let mut rest = buffer;
        loop {
            let (piece, after) = rest.split_at(rest.len().min(self.group.piece));
            // SAFETY: the library's constant.
            let mut handle = unsafe { ffi::RSMPI_REQUEST_NULL };
            // SAFETY: the buffer is borrowed for as long as `self`, which is not dropped before the library lets go of it.
            let code = unsafe {
                ffi::MPI_Isend(
                    piece.as_ptr().cast(),
                    piece.len() as c_int,
                    ffi::RSMPI_UINT8_T,
                    to as c_int,
                    TAG,
                    self.group.comm,
                    &mut handle,
                )
            };
            check(code, "MPI_Isend")?;
            self.add(handle, None);
            rest = after;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Whether all have arrived; moves them on.
    fn test(&mut self) -> Result<bool> {
        let mut all = 0;
        // SAFETY: as many handles as statuses, and the handles are the library's, or were and are null.
        let code = unsafe {
            ffi::MPI_Testall(
                self.handles.len() as c_int,
                self.handles.as_mut_ptr(),
                &mut all,
                self.statuses.as_mut_ptr(),
            )
        };
        self.examine(code, all != 0)
    }

    /// Takes note of what the library said of the requests.
    fn examine(&mut self, code: c_int, all: bool) -> Result<bool> {
        // SAFETY: the library's constant.
        let null = unsafe { ffi::RSMPI_REQUEST_NULL };
        self.done = all || self.handles.iter().all(|&handle| handle == null);
        if code as u32 != ffi::MPI_ERR_IN_STATUS {
            check(code, "MPI_Testall")?;
            return Ok(self.done);
        }
        let codes = self.statuses.iter().map(|status| status.MPI_ERROR);
        let failed = codes
            .zip(&self.expected)
            .find(|(code, _)| ![ffi::MPI_SUCCESS, ffi::MPI_ERR_PENDING].contains(&(*code as u32)));
        let Some((code, expected)) = failed else {
            return Ok(self.done);
        };
        let message = match expected {
            Some((from, len)) => format!("{len} bytes from rank {from} of its group"),
            None => "a message sent".into(),
        };
        Err(self.failed(format!("{message}: {}", said(code))))
    }

    fn failed(&self, cause: String) -> Error {
        Error::Rank {
            rank: self.group.name,
            cause: format!("{cause}; --check tells which collective differs"),
        }
    }

    /// Calls `meanwhile` and moves the messages on as well, which the library does only when called.
    pub(super) fn advance_while(&mut self, meanwhile: &mut dyn FnMut()) {
        /// Also when `meanwhile` panics.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let looking = || {
                // What is wrong with a message, `finish` says.
                while !over.load(Ordering::Relaxed) && matches!(self.test(), Ok(false)) {
                    thread::park_timeout(LOOK);
                }
            };
            let thread = scope.spawn(looking);
            {
                let _over = Over(&over);
                meanwhile();
            }
            thread.thread().unpark();
        });
    }

    /// Waits for all of them.
    pub(super) fn finish(mut self) -> Result<()> {
        if !self.done {
            // SAFETY: as many handles as statuses, and the handles are the library's, or were and are null.
            let code = unsafe {
                ffi::MPI_Waitall(
                    self.handles.len() as c_int,
                    self.handles.as_mut_ptr(),
                    self.statuses.as_mut_ptr(),
                )
            };
            self.examine(code, code as u32 == ffi::MPI_SUCCESS)?;
        }
        for (status, expected) in self.statuses.iter().zip(&self.expected) {
            let Some((from, expected)) = expected else {
                continue;
            };
            let mut found = 0;
            // SAFETY: the library has filled the status.
            let code = unsafe { ffi::MPI_Get_count(status, ffi::RSMPI_UINT8_T, &mut found) };
            check(code, "MPI_Get_count")?;
            if found as usize != *expected {
                return Err(self.failed(format!(
                    "a message of {found} bytes came from rank {from} of its group where {expected} were expected"
                )));
            }
        }
        Ok(())
    }
}

impl Drop for Requests<'_> {
    /// The buffers are about to go, and the library must not write into them any more.
    fn drop(&mut self) {
        let started = Instant::now();
        while !self.done {
            if started.elapsed() > DRAIN {
                eprintln!(
                    "error: rank {}: failed while its messages were on their way",
                    self.group.name
                );
                abort(1);
            }
            // A failure is what led here.
            let _ = self.test();
            thread::yield_now();
        }
    }
}
