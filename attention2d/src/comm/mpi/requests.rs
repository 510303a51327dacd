//! Non-blocking messages and their buffers.

use super::{Group, check, error_text};
use crate::error::{Error, Result};
use ::mpi::ffi;
use std::ffi::c_int;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// One tag for all messages: ranks make the same calls in the same order, and messages between two ranks do not
/// overtake each other.
const TAG: c_int = 0;

/// How often the thread that makes messages progress calls the library.
const POLL: Duration = Duration::from_micros(200);

/// How long messages of a call that failed may take to complete before the last resort.
const DRAIN: Duration = Duration::from_secs(2);

/// A message that is to be received.
struct Expected {
    /// The sender, in the group.
    from: usize,
    bytes: usize,
}

/// Messages in flight, whose buffers stay borrowed until the library has let go of them.
pub(super) struct Requests<'a> {
    group: &'a Group,
    handles: Vec<ffi::MPI_Request>,
    /// What each request waits for; `None` for a message that is sent.
    expected: Vec<Option<Expected>>,
    statuses: Vec<ffi::MPI_Status>,
    /// Whether the library has let go of all buffers.
    done: bool,
    buffers: PhantomData<&'a mut [u8]>,
}

// SAFETY: handles as those of a group; another thread calls the library only where it allows calls from any thread.
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

    fn add(&mut self, handle: ffi::MPI_Request, expected: Option<Expected>) {
        self.handles.push(handle);
        self.expected.push(expected);
        // SAFETY: a status consists of numbers, all of which may be 0.
        self.statuses
            .push(unsafe { MaybeUninit::zeroed().assume_init() });
        self.done = false;
    }

    /// Receives into `buffer`, as at least one message: an empty one tells a rank that sends nothing from one that does
    /// not take part.
    pub(super) fn receive(&mut self, from: usize, buffer: &'a mut [u8]) -> Result<()> {
        let mut rest = buffer;
        loop {
            let (piece, after) = rest.split_at_mut(rest.len().min(self.group.piece));
            // SAFETY: a constant of the library.
            let mut handle = unsafe { ffi::RSMPI_REQUEST_NULL };
            // SAFETY: the buffer is borrowed as long as `self`, which is not dropped before the library lets go of it.
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
            self.add(
                handle,
                Some(Expected {
                    from,
                    bytes: piece.len(),
                }),
            );
            rest = after;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Sends `buffer`, in as many pieces as [`receive`](Self::receive) expects.
    pub(super) fn send(&mut self, to: usize, buffer: &'a [u8]) -> Result<()> {
        let mut rest = buffer;
        loop {
            let (piece, after) = rest.split_at(rest.len().min(self.group.piece));
            // SAFETY: a constant of the library.
            let mut handle = unsafe { ffi::RSMPI_REQUEST_NULL };
            // SAFETY: the buffer is borrowed as long as `self`, which is not dropped before the library lets go of it.
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

    /// Makes the messages progress. Returns whether all are complete.
    fn test(&mut self) -> Result<bool> {
        let mut all = 0;
        // SAFETY: as many handles as statuses; the handles are the library's, or null once complete.
        let code = unsafe {
            ffi::MPI_Testall(
                self.handles.len() as c_int,
                self.handles.as_mut_ptr(),
                &mut all,
                self.statuses.as_mut_ptr(),
            )
        };
        self.done = all != 0 || self.all_null();
        self.examine(code)?;
        Ok(self.done)
    }

    /// Whether the library has completed every request, with or without an error.
    fn all_null(&self) -> bool {
        // SAFETY: a constant of the library.
        let null = unsafe { ffi::RSMPI_REQUEST_NULL };
        self.handles.iter().all(|&handle| handle == null)
    }

    /// Turns the code of a call on all requests, or the first status that has one, into an error.
    fn examine(&self, code: c_int) -> Result<()> {
        if code as u32 != ffi::MPI_ERR_IN_STATUS {
            return check(code, "MPI_Testall");
        }
        let codes = self.statuses.iter().map(|status| status.MPI_ERROR);
        let failed = codes
            .zip(&self.expected)
            .find(|(code, _)| ![ffi::MPI_SUCCESS, ffi::MPI_ERR_PENDING].contains(&(*code as u32)));
        let Some((code, expected)) = failed else {
            return Ok(());
        };
        let message = match expected {
            Some(Expected { from, bytes }) => {
                format!("{bytes} bytes from rank {from} of its group")
            }
            None => "a message sent".into(),
        };
        Err(self.mismatch(format!("{message}: {}", error_text(code))))
    }

    fn mismatch(&self, cause: String) -> Error {
        Error::Mismatch {
            rank: self.group.world_rank,
            cause,
        }
    }

    /// Calls `meanwhile` while another thread makes the messages progress, which the library does only during calls.
    pub(super) fn advance_while(&mut self, meanwhile: &mut dyn FnMut()) {
        /// Ends the other thread, also when `meanwhile` panics.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let progress = || {
                // `finish` reports errors.
                while !over.load(Ordering::Relaxed) && matches!(self.test(), Ok(false)) {
                    thread::park_timeout(POLL);
                }
            };
            let thread = scope.spawn(progress);
            {
                let _over = Over(&over);
                meanwhile();
            }
            thread.thread().unpark();
        });
    }

    /// Waits for all messages and checks their sizes.
    pub(super) fn finish(mut self) -> Result<()> {
        if !self.done {
            // SAFETY: as many handles as statuses; the handles are the library's, or null once complete.
            let code = unsafe {
                ffi::MPI_Waitall(
                    self.handles.len() as c_int,
                    self.handles.as_mut_ptr(),
                    self.statuses.as_mut_ptr(),
                )
            };
            self.done = code as u32 == ffi::MPI_SUCCESS || self.all_null();
            self.examine(code)?;
        }
        for (status, expected) in self.statuses.iter().zip(&self.expected) {
            let Some(Expected { from, bytes }) = expected else {
                continue;
            };
            let mut found = 0;
            // SAFETY: the library has filled in the status.
            let code = unsafe { ffi::MPI_Get_count(status, ffi::RSMPI_UINT8_T, &mut found) };
            check(code, "MPI_Get_count")?;
            if found as usize != *bytes {
                return Err(self.mismatch(format!(
                    "a message of {found} bytes came from rank {from} of its group where {bytes} were expected"
                )));
            }
        }
        Ok(())
    }
}

/// Ends the process when a panic unwinds past it.
struct AbortOnDrop;

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        std::process::abort();
    }
}

impl Drop for Requests<'_> {
    /// Waits until the library no longer uses the buffers, which are about to be freed.
    fn drop(&mut self) {
        let started = Instant::now();
        while !self.done {
            if started.elapsed() > DRAIN {
                // Unwinding out of here would free the buffers.
                let _no_return = AbortOnDrop;
                (self.group.last_resort)(Error::Rank {
                    rank: self.group.world_rank,
                    cause: "it failed while its messages were in flight".into(),
                });
            }
            // An earlier error led here.
            let _ = self.test();
            thread::yield_now();
        }
    }
}
