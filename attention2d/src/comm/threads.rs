//! Ranks as threads of one process: the transport without MPI, and the reference that MPI is tested against.

use crate::comm::collective::{Collective, Member, Peers, Reduce, parts};
use crate::comm::communicator::Comm;
use crate::error::{Error, Result};
use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a waiting rank checks whether another has failed.
const POLL: Duration = Duration::from_millis(20);

/// Runs `work` on `ranks` threads that compute with one thread each; see [`Team::run`].
///
/// # Errors
/// [`Error::Rank`] names the rank that failed first and the cause.
pub fn run<R: Send>(ranks: usize, work: impl Fn(Comm) -> Result<R> + Sync) -> Result<Vec<R>> {
    let team = Team {
        ranks,
        threads_per_rank: 1,
    };
    team.run(work)
}

/// Ranks that are threads of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Team {
    /// The number of ranks.
    pub ranks: usize,
    /// Worker threads of each rank, in a pool of its own.
    pub threads_per_rank: usize,
}

impl Team {
    /// Runs `work` on every rank and returns the results in rank order. When a rank fails or panics, the others stop
    /// waiting for it.
    ///
    /// # Errors
    /// [`Error::Rank`] names the rank that failed first and the cause.
    pub fn run<R: Send>(self, work: impl Fn(Comm) -> Result<R> + Sync) -> Result<Vec<R>> {
        let failure = Arc::new(Failure::default());
        let hub = Hub::new(self.ranks, failure.clone());
        let (work, hub, failure_of_any) = (&work, &hub, &failure);
        let results: Vec<Result<R>> = std::thread::scope(|scope| {
            let start = |rank| {
                scope.spawn(move || {
                    let comm = Comm::world(Endpoint::join(hub.clone(), rank));
                    let result = caught(rank, || self.in_pool(rank, || work(comm)));
                    result.inspect_err(|error| failure_of_any.set(rank, error))
                })
            };
            let ranks: Vec<_> = (0..self.ranks).map(start).collect();
            ranks
                .into_iter()
                .map(|rank| rank.join().expect("panics were caught"))
                .collect()
        });
        match failure.get() {
            Some(error) => Err(error),
            None => results.into_iter().collect(),
        }
    }

    /// Runs in a pool of the rank's own: a rank that waits must not hold a worker that another rank needs.
    fn in_pool<R: Send>(self, rank: usize, work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(self.threads_per_rank.max(1))
            .thread_name(move |thread| format!("rank {rank}, thread {thread}"))
            .build();
        let pool = pool.map_err(|error| Error::Rank {
            rank,
            cause: format!("cannot start threads: {error}"),
        })?;
        pool.install(work)
    }
}

impl Comm {
    /// The group of a single rank, whose collectives copy.
    pub fn single() -> Self {
        Self::world(Endpoint::join(Hub::new(1, Arc::default()), 0))
    }
}

/// Turns a panic of `work` into an error.
fn caught<R>(rank: usize, work: impl FnOnce() -> Result<R>) -> Result<R> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(match panic.downcast::<Error>() {
            Ok(error) => *error,
            Err(panic) => Error::Rank {
                rank,
                cause: panic_message(&*panic),
            },
        })
    })
}

/// The message of a panic's payload: its text, or that of an [`Error`] that models unwind with.
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    if let Some(error) = panic.downcast_ref::<Error>() {
        return error.to_string();
    }
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".into())
}

/// The first failure of a job.
#[derive(Debug, Default)]
struct Failure(Mutex<Option<Error>>);

impl Failure {
    fn set(&self, rank: usize, error: &Error) {
        let error = match error {
            Error::Rank { .. } | Error::Mismatch { .. } | Error::Disagreement { .. } => {
                error.clone()
            }
            other => Error::Rank {
                rank,
                cause: other.to_string(),
            },
        };
        lock(&self.0).get_or_insert(error);
    }

    fn get(&self) -> Option<Error> {
        lock(&self.0).clone()
    }
}

/// Locks even if another rank panicked meanwhile: that panic is reported as its own error.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Message = Arc<Vec<u8>>;

/// Messages that arrived at one rank, by sender.
#[derive(Debug, Default)]
struct Inbox {
    from: Mutex<Vec<Lane>>,
    arrived: Condvar,
}

/// Messages from one sender to one receiver. Receives are numbered when they begin, so the first receive gets the first
/// message even if a second exchange begins and ends while the first is in flight.
#[derive(Debug, Default)]
struct Lane {
    sent: u64,
    requested: u64,
    arrived: BTreeMap<u64, Message>,
}

/// A group being formed, and how many of its ranks are still missing.
type Split = (Arc<Hub>, usize);

/// The state that the ranks of a group share.
#[derive(Debug)]
struct Hub {
    inboxes: Vec<Inbox>,
    failure: Arc<Failure>,
    /// Groups being formed, by the number of the split and the color.
    splits: Mutex<HashMap<(usize, usize), Split>>,
}

impl Hub {
    fn new(ranks: usize, failure: Arc<Failure>) -> Arc<Self> {
        let inbox = || Inbox {
            from: Mutex::new((0..ranks).map(|_| Lane::default()).collect()),
            ..Inbox::default()
        };
        Arc::new(Self {
            inboxes: (0..ranks).map(|_| inbox()).collect(),
            failure,
            splits: Mutex::default(),
        })
    }
}

/// One rank's end of a group.
#[derive(Debug)]
struct Endpoint {
    hub: Arc<Hub>,
    rank: usize,
    /// The number of splits that this rank took part in.
    splits: AtomicUsize,
}

impl Endpoint {
    /// This rank's end of the group that `hub` connects.
    fn join(hub: Arc<Hub>, rank: usize) -> Arc<dyn Collective> {
        Arc::new(Self {
            hub,
            rank,
            splits: AtomicUsize::new(0),
        })
    }

    fn send(&self, to: usize, message: Message) {
        let inbox = &self.hub.inboxes[to];
        let lane = &mut lock(&inbox.from)[self.rank];
        lane.arrived.insert(lane.sent, message);
        lane.sent += 1;
        inbox.arrived.notify_all();
    }

    /// Reserves the next message from a rank and returns its number.
    fn reserve(&self, from: usize) -> u64 {
        let lane = &mut lock(&self.hub.inboxes[self.rank].from)[from];
        lane.requested += 1;
        lane.requested - 1
    }

    fn receive(&self, from: usize, number: u64) -> Result<Message> {
        let inbox = &self.hub.inboxes[self.rank];
        let mut lanes = lock(&inbox.from);
        loop {
            if let Some(message) = lanes[from].arrived.remove(&number) {
                return Ok(message);
            }
            if let Some(error) = self.hub.failure.get() {
                return Err(error);
            }
            let woken = inbox.arrived.wait_timeout(lanes, POLL);
            lanes = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Receives into a part of a buffer, which the message must fill.
    fn receive_into(&self, from: usize, number: u64, recv: &mut [u8]) -> Result<()> {
        let message = self.receive(from, number)?;
        if message.len() != recv.len() {
            return Err(Error::Mismatch {
                rank: self.rank,
                cause: format!(
                    "a message of {} bytes came where {} were expected",
                    message.len(),
                    recv.len()
                ),
            });
        }
        recv.copy_from_slice(&message);
        Ok(())
    }
}

impl Collective for Endpoint {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.hub.inboxes.len()
    }

    fn split(&self, color: usize, key: usize) -> Result<Arc<dyn Collective>> {
        let mut all = vec![0; 16 * self.size()];
        let mine = [(color as u64).to_le_bytes(), (key as u64).to_le_bytes()].concat();
        self.all_gather(&mine, &mut all, &vec![16; self.size()])?;
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes")) as usize;
        let mut members: Vec<_> = all
            .chunks_exact(16)
            .enumerate()
            .filter(|(_, of)| number(&of[..8]) == color)
            .map(|(rank, of)| (number(&of[8..]), rank))
            .collect();
        members.sort_unstable();
        let place = members.iter().position(|member| member.1 == self.rank);
        let place = place.expect("a rank has its own color");
        let split = (self.splits.fetch_add(1, Ordering::Relaxed), color);
        let mut splits = lock(&self.hub.splits);
        let (hub, missing) = splits.entry(split).or_insert_with(|| {
            (
                Hub::new(members.len(), self.hub.failure.clone()),
                members.len(),
            )
        });
        let hub = hub.clone();
        *missing -= 1;
        if *missing == 0 {
            splits.remove(&split);
        }
        Ok(Self::join(hub, place))
    }

    fn barrier(&self) -> Result<()> {
        self.all_gather(&[], &mut [], &vec![0; self.size()])
    }

    fn all_gather(&self, send: &[u8], recv: &mut [u8], counts: &[usize]) -> Result<()> {
        let message = Arc::new(send.to_vec());
        for to in (0..self.size()).filter(|&to| to != self.rank) {
            self.send(to, message.clone());
        }
        for (from, part) in parts(recv, counts).into_iter().enumerate() {
            match from == self.rank {
                true => part.copy_from_slice(send),
                false => self.receive_into(from, self.reserve(from), part)?,
            }
        }
        Ok(())
    }

    fn all_to_all(
        &self,
        send: &[u8],
        send_counts: &[usize],
        recv: &mut [u8],
        recv_counts: &[usize],
    ) -> Result<()> {
        let mut own = &send[..0];
        let mut rest = send;
        for (to, &count) in send_counts.iter().enumerate() {
            let (part, after) = rest.split_at(count);
            match to == self.rank {
                true => own = part,
                false => self.send(to, Arc::new(part.to_vec())),
            }
            rest = after;
        }
        for (from, part) in parts(recv, recv_counts).into_iter().enumerate() {
            match from == self.rank {
                true => part.copy_from_slice(own),
                false => self.receive_into(from, self.reserve(from), part)?,
            }
        }
        Ok(())
    }

    fn reduce_scatter_sum(&self, send: &[f32], recv: &mut [f32], counts: &[usize]) -> Result<()> {
        reduce_scatter(self, send, recv, counts, Reduce::Sum)
    }

    fn all_reduce(&self, values: &mut [f32], op: Reduce) -> Result<()> {
        let shares = Member::all(self.size()).map(|member| member.share(values.len()));
        let counts: Vec<_> = shares.collect();
        let mut own = vec![0.0; counts[self.rank]];
        reduce_scatter(self, values, &mut own, &counts, op)?;
        let counts: Vec<_> = counts
            .iter()
            .map(|count| count * size_of::<f32>())
            .collect();
        self.all_gather(
            bytemuck::cast_slice(&own),
            bytemuck::cast_slice_mut(values),
            &counts,
        )
    }

    fn send_recv(
        &self,
        peers: Peers,
        send: &[u8],
        recv: &mut [u8],
        meanwhile: &mut dyn FnMut(),
    ) -> Result<()> {
        self.send(peers.to, Arc::new(send.to_vec()));
        let number = self.reserve(peers.from);
        meanwhile();
        self.receive_into(peers.from, number, recv)
    }
}

/// Reduces all ranks' parts for this rank, in rank order.
fn reduce_scatter(
    group: &Endpoint,
    send: &[f32],
    recv: &mut [f32],
    counts: &[usize],
    op: Reduce,
) -> Result<()> {
    let bytes: Vec<_> = counts
        .iter()
        .map(|count| count * size_of::<f32>())
        .collect();
    let own = recv.len();
    let mut all = vec![0.0_f32; own * group.size()];
    group.all_to_all(
        bytemuck::cast_slice(send),
        &bytes,
        bytemuck::cast_slice_mut(&mut all),
        &vec![bytes[group.rank]; group.size()],
    )?;
    recv.copy_from_slice(&all[..own]);
    for part in all[own..].chunks_exact(own.max(1)) {
        for (value, &more) in recv.iter_mut().zip(part) {
            *value = match op {
                Reduce::Sum => *value + more,
                Reduce::Max => value.max(more),
            };
        }
    }
    Ok(())
}
