//! What ranks say to each other: the trait that threads and MPI implement, and the typed, counted communicator over it.

use crate::{Error, Result};
use bytemuck::Pod;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How values are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduce {
    /// Their sum.
    Sum,
    /// The largest.
    Max,
}

/// A group of ranks that talk to each other. Every rank of the group calls the same operations in the same order; counts may
/// differ from rank to rank, and all ranks know those that concern them. Errors mean that the job is over.
///
/// Methods move bytes, or add up f32; [`Comm`] gives them types.
pub trait Collective: fmt::Debug + Send + Sync {
    /// This rank in the group.
    fn rank(&self) -> usize;

    /// Ranks in the group.
    fn size(&self) -> usize;

    /// Ranks of one colour become a group, in the order of their keys, then of their ranks.
    ///
    /// # Errors
    /// When a rank failed; so with all the others.
    fn split(&self, color: usize, key: usize) -> Result<Arc<dyn Collective>>;

    /// Returns when all ranks have called it.
    ///
    /// # Errors
    /// When a rank failed.
    fn barrier(&self) -> Result<()>;

    /// Everyone's `send`, one after the other; `counts[r]` bytes of rank `r`.
    ///
    /// # Errors
    /// When a rank failed.
    fn all_gather(&self, send: &[u8], recv: &mut [u8], counts: &[usize]) -> Result<()>;

    /// `send_counts[r]` bytes to rank `r`, `recv_counts[r]` bytes from it, each in the order of the ranks.
    ///
    /// # Errors
    /// When a rank failed.
    fn all_to_all(
        &self,
        send: &[u8],
        send_counts: &[usize],
        recv: &mut [u8],
        recv_counts: &[usize],
    ) -> Result<()>;

    /// The sum of everyone's part for this rank; `send` has `counts[r]` values for rank `r`. In which order is the
    /// implementation's choice.
    ///
    /// # Errors
    /// When a rank failed.
    fn reduce_scatter_sum(&self, send: &[f32], recv: &mut [f32], counts: &[usize]) -> Result<()>;

    /// Everyone's values put together, at every rank.
    ///
    /// # Errors
    /// When a rank failed.
    fn all_reduce(&self, values: &mut [f32], op: Reduce) -> Result<()>;

    /// Sends to one rank and receives from another, and calls `meanwhile` while the bytes are on their way. Another exchange may begin
    /// and end in there, with the same ranks too: what begins first receives what was sent first.
    ///
    /// # Errors
    /// When a rank failed.
    fn send_recv(
        &self,
        to: usize,
        send: &[u8],
        from: usize,
        recv: &mut [u8],
        meanwhile: &mut dyn FnMut(),
    ) -> Result<()>;
}

/// What a rank received, in all groups made of one job.
#[derive(Debug, Default)]
pub struct Traffic {
    bytes: AtomicU64,
    messages: AtomicU64,
    waiting: AtomicU64,
}

impl Traffic {
    fn add(&self, bytes: usize, messages: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.messages.fetch_add(messages as u64, Ordering::Relaxed);
    }

    /// Bytes received from other ranks. A reduction counts what its ring would bring: the others' parts of a
    /// reduce-scatter, and a reduce-scatter and a gather for an all-reduce.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Parts received from other ranks.
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// Time spent inside of collectives, less what was computed there meanwhile.
    pub fn waiting(&self) -> Duration {
        Duration::from_nanos(self.waiting.load(Ordering::Relaxed))
    }

    /// Begins to count anew.
    pub fn reset(&self) {
        for counter in [&self.bytes, &self.messages, &self.waiting] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

/// A group of ranks, with types, counts of what was received and, on demand, a check that ranks agree.
#[derive(Debug, Clone)]
pub struct Comm {
    group: Arc<dyn Collective>,
    /// The ranks of the group in the whole job, for messages.
    names: Arc<[usize]>,
    traffic: Arc<Traffic>,
    check: Arc<AtomicBool>,
}

impl Comm {
    /// Over all ranks of a job.
    pub fn world(group: Arc<dyn Collective>) -> Self {
        Self {
            names: (0..group.size()).collect(),
            group,
            traffic: Arc::default(),
            check: Arc::default(),
        }
    }

    /// One rank by itself, whose collectives copy.
    pub fn alone() -> Self {
        Self::world(crate::threads::alone())
    }

    /// This rank in the group.
    pub fn rank(&self) -> usize {
        self.group.rank()
    }

    /// Ranks in the group.
    pub fn size(&self) -> usize {
        self.group.size()
    }

    /// What this rank received, in this group and all others of the job.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Whether every collective of the job first compares the ranks' arguments, at the cost of a small one more.
    pub fn set_check(&self, check: bool) {
        self.check.store(check, Ordering::Relaxed);
    }

    /// Ranks of one colour become a group, in the order of their keys.
    ///
    /// # Errors
    /// When a rank failed.
    pub fn split(&self, color: usize, key: usize) -> Result<Self> {
        self.agree("split", &[])?;
        let mine = [color as u64, key as u64, self.names[self.rank()] as u64];
        let all = self.exchange_small(&mine)?;
        let mut members: Vec<_> = all
            .chunks_exact(3)
            .enumerate()
            .filter(|(_, of)| of[0] == mine[0])
            .map(|(rank, of)| (of[1], rank, of[2] as usize))
            .collect();
        members.sort_unstable();
        Ok(Self {
            group: self.group.split(color, key)?,
            names: members.iter().map(|member| member.2).collect(),
            traffic: self.traffic.clone(),
            check: self.check.clone(),
        })
    }

    /// Returns when all ranks have called it.
    ///
    /// # Errors
    /// When a rank failed.
    pub fn barrier(&self) -> Result<()> {
        self.agree("barrier", &[])?;
        self.timed(|| self.group.barrier())
    }

    /// Everyone's values, one rank after the other; `counts[r]` of rank `r`.
    ///
    /// # Errors
    /// When a rank failed, or with the check, when ranks disagree.
    pub fn all_gather<T: Pod>(&self, send: &[T], counts: &[usize]) -> Result<Vec<T>> {
        debug_assert_eq!(send.len(), counts[self.rank()]);
        self.agree("all_gather", &wide(counts))?;
        let mut recv = vec![T::zeroed(); counts.iter().sum()];
        let (bytes, counts) = (bytemuck::cast_slice_mut(&mut recv), in_bytes::<T>(counts));
        self.timed(|| {
            self.group
                .all_gather(bytemuck::cast_slice(send), bytes, &counts)
        })?;
        self.count(&counts);
        Ok(recv)
    }

    /// `send_counts[r]` values to rank `r`, `recv_counts[r]` from it.
    ///
    /// # Errors
    /// When a rank failed, or with the check, when ranks disagree.
    pub fn all_to_all<T: Pod>(
        &self,
        send: &[T],
        send_counts: &[usize],
        recv_counts: &[usize],
    ) -> Result<Vec<T>> {
        debug_assert_eq!(send.len(), send_counts.iter().sum::<usize>());
        self.agree_pairs("all_to_all", send_counts, recv_counts)?;
        let mut recv = vec![T::zeroed(); recv_counts.iter().sum()];
        let bytes = bytemuck::cast_slice_mut(&mut recv);
        let (to, from) = (in_bytes::<T>(send_counts), in_bytes::<T>(recv_counts));
        self.timed(|| {
            self.group
                .all_to_all(bytemuck::cast_slice(send), &to, bytes, &from)
        })?;
        self.count(&from);
        Ok(recv)
    }

    /// The sum of everyone's part for this rank, added in the order of the ranks whatever carries them: the same bits on threads
    /// and over MPI.
    ///
    /// # Errors
    /// When a rank failed, or with the check, when ranks disagree.
    pub fn reduce_scatter_ordered(&self, send: &[f32], counts: &[usize]) -> Result<Vec<f32>> {
        let own = counts[self.rank()];
        let parts = self.all_to_all(send, counts, &vec![own; self.size()])?;
        let mut sum = parts[..own].to_vec();
        for part in parts[own..].chunks_exact(own.max(1)) {
            for (sum, &value) in sum.iter_mut().zip(part) {
                *sum += value;
            }
        }
        Ok(sum)
    }

    /// [`reduce_scatter_ordered`](Self::reduce_scatter_ordered) with the carrier's own reduction, in whatever order it adds.
    ///
    /// # Errors
    /// When a rank failed, or with the check, when ranks disagree.
    pub fn reduce_scatter_sum(&self, send: &[f32], counts: &[usize]) -> Result<Vec<f32>> {
        self.agree("reduce_scatter_sum", &wide(counts))?;
        let own = counts[self.rank()];
        let mut recv = vec![0.0; own];
        self.timed(|| self.group.reduce_scatter_sum(send, &mut recv, counts))?;
        self.traffic
            .add((self.size() - 1) * own * size_of::<f32>(), self.size() - 1);
        Ok(recv)
    }

    /// Everyone's values put together, at every rank.
    ///
    /// # Errors
    /// When a rank failed, or with the check, when ranks disagree.
    pub fn all_reduce(&self, values: &mut [f32], op: Reduce) -> Result<()> {
        self.agree("all_reduce", &[values.len() as u64, op as u64])?;
        self.timed(|| self.group.all_reduce(values, op))?;
        let (ranks, len) = (self.size(), values.len());
        let own = share(len, ranks, self.rank());
        let elements = (ranks - 1) * own + len - own;
        self.traffic
            .add(elements * size_of::<f32>(), 2 * (ranks - 1));
        Ok(())
    }

    /// The mean of everyone's values, the same bits at every rank and on every carrier.
    ///
    /// # Errors
    /// When a rank failed, or with the check, when ranks disagree.
    pub fn all_mean(&self, values: &mut [f32]) -> Result<()> {
        let counts: Vec<_> = (0..self.size())
            .map(|rank| share(values.len(), self.size(), rank))
            .collect();
        let mut own = self.reduce_scatter_ordered(values, &counts)?;
        let scale = 1.0 / self.size() as f32;
        own.iter_mut().for_each(|value| *value *= scale);
        values.copy_from_slice(&self.all_gather(&own, &counts)?);
        Ok(())
    }

    /// Sends to one rank and receives `count` values from another.
    ///
    /// # Errors
    /// When a rank failed, or with the check, when ranks disagree.
    pub fn send_recv<T: Pod>(
        &self,
        to: usize,
        send: &[T],
        from: usize,
        count: usize,
    ) -> Result<Vec<T>> {
        Ok(self.send_recv_while(to, send, from, count, || ())?.0)
    }

    /// [`send_recv`](Self::send_recv), and what `meanwhile` gives, which runs while the values are on their way.
    ///
    /// # Errors
    /// When a rank failed, or with the check, when ranks disagree.
    pub fn send_recv_while<T: Pod, R>(
        &self,
        to: usize,
        send: &[T],
        from: usize,
        count: usize,
        meanwhile: impl FnOnce() -> R,
    ) -> Result<(Vec<T>, R)> {
        let mut counts = [vec![0; self.size()], vec![0; self.size()]];
        counts[0][to] = send.len();
        counts[1][from] = count;
        self.agree_pairs("send_recv", &counts[0], &counts[1])?;
        let mut recv = vec![T::zeroed(); count];
        let (mut meanwhile, mut result) = (Some(meanwhile), None);
        let mut computing = Duration::ZERO;
        let started = Instant::now();
        self.group.send_recv(
            to,
            bytemuck::cast_slice(send),
            from,
            bytemuck::cast_slice_mut(&mut recv),
            &mut || {
                let started = Instant::now();
                result = meanwhile.take().map(|compute| compute());
                computing = started.elapsed();
            },
        )?;
        self.waited(started.elapsed().saturating_sub(computing));
        if from != self.rank() {
            self.traffic.add(count * size_of::<T>(), 1);
        }
        let result = result.expect("a carrier computes meanwhile");
        Ok((recv, result))
    }

    /// Refuses to go on unless all ranks have the same text, such as their arguments.
    ///
    /// # Errors
    /// [`Error::Disagreement`] names the first rank that differs.
    pub fn require_same(&self, what: &str, text: &str) -> Result<()> {
        let lengths = self.exchange_small(&[text.len() as u64])?;
        let lengths: Vec<_> = lengths.iter().map(|&length| length as usize).collect();
        let mut all = vec![0; lengths.iter().sum()];
        self.group.all_gather(text.as_bytes(), &mut all, &lengths)?;
        let mut texts = Vec::new();
        for &length in &lengths {
            let rest = all.split_off(length);
            texts.push(String::from_utf8_lossy(&all).into_owned());
            all = rest;
        }
        self.compare(what, &texts)
    }

    /// With the check on: all ranks of the group must be here with these arguments.
    fn agree(&self, operation: &str, arguments: &[u64]) -> Result<()> {
        if !self.check.load(Ordering::Relaxed) {
            return Ok(());
        }
        let text = format!("{operation}{arguments:?}");
        self.require_same("collectives differ", &text)
    }

    /// With the check on: what a rank sends must be what the other expects.
    fn agree_pairs(&self, operation: &str, send: &[usize], recv: &[usize]) -> Result<()> {
        if !self.check.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.require_same("collectives differ", operation)?;
        let both = [wide(send), wide(recv)].concat();
        let all = self.exchange_small(&both)?;
        let (size, rank) = (self.size(), self.rank());
        for other in 0..size {
            let sent = all[other * 2 * size + rank] as usize;
            if sent != recv[other] {
                return Err(Error::Disagreement {
                    operation: format!("{operation}: counts differ"),
                    rank: self.names[rank],
                    found: format!("{} values expected from it", recv[other]),
                    of: self.names[other],
                    expected: format!("{sent} values to send"),
                });
            }
        }
        Ok(())
    }

    fn compare(&self, what: &str, texts: &[String]) -> Result<()> {
        match texts.iter().position(|text| *text != texts[0]) {
            None => Ok(()),
            Some(rank) => Err(Error::Disagreement {
                operation: what.into(),
                rank: self.names[rank],
                found: texts[rank].clone(),
                of: self.names[0],
                expected: texts[0].clone(),
            }),
        }
    }

    /// Everyone's few numbers, as many of each; not counted as traffic.
    fn exchange_small(&self, mine: &[u64]) -> Result<Vec<u64>> {
        let mut all = vec![0_u64; mine.len() * self.size()];
        let counts = vec![size_of_val(mine); self.size()];
        let bytes = bytemuck::cast_slice_mut(&mut all);
        self.group
            .all_gather(bytemuck::cast_slice(mine), bytes, &counts)?;
        Ok(all)
    }

    /// Counts what came from the others, `counts` being bytes by rank.
    fn count(&self, counts: &[usize]) {
        let others = counts
            .iter()
            .enumerate()
            .filter(|(rank, _)| *rank != self.rank());
        self.traffic
            .add(others.map(|(_, bytes)| bytes).sum(), self.size() - 1);
    }

    fn timed<R>(&self, call: impl FnOnce() -> R) -> R {
        let started = Instant::now();
        let result = call();
        self.waited(started.elapsed());
        result
    }

    fn waited(&self, time: Duration) {
        self.traffic
            .waiting
            .fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }
}

/// How many of `len` things the rank has when they are dealt out as evenly as can be.
pub(crate) fn share(len: usize, ranks: usize, rank: usize) -> usize {
    len / ranks + usize::from(rank < len % ranks)
}

/// A buffer by ranks.
pub(crate) fn parts<'a>(mut buffer: &'a mut [u8], counts: &[usize]) -> Vec<&'a mut [u8]> {
    let part = |&count| {
        let part = buffer.split_off_mut(..count);
        part.expect("counts are of the buffer")
    };
    counts.iter().map(part).collect()
}

fn wide(counts: &[usize]) -> Vec<u64> {
    counts.iter().map(|&count| count as u64).collect()
}

fn in_bytes<T>(counts: &[usize]) -> Vec<usize> {
    counts.iter().map(|&count| count * size_of::<T>()).collect()
}
