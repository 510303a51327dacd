//! [`Comm`]: a group of ranks with typed operations, traffic counters and, on demand, a check that ranks agree.

use crate::comm::collective::{Collective, Member, Peers, Reduce};
use crate::comm::traffic::Traffic;
use crate::error::{Error, Result};
use bytemuck::Pod;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A group of ranks. Every rank of the group calls the same operations in the same order.
#[derive(Debug, Clone)]
pub struct Comm {
    group: Arc<dyn Collective>,
    /// The ranks of this group by their number in the whole job, for error messages.
    world_ranks: Arc<[usize]>,
    traffic: Arc<Traffic>,
    check: Arc<AtomicBool>,
}

impl Comm {
    /// The group of all ranks of a job.
    pub fn world(group: Arc<dyn Collective>) -> Self {
        Self {
            world_ranks: (0..group.size()).collect(),
            group,
            traffic: Arc::default(),
            check: Arc::default(),
        }
    }

    /// This rank's number in the group.
    pub fn rank(&self) -> usize {
        self.group.rank()
    }

    /// The number of ranks in the group.
    pub fn size(&self) -> usize {
        self.group.size()
    }

    /// This rank of the group.
    pub fn member(&self) -> Member {
        Member {
            rank: self.rank(),
            ranks: self.size(),
        }
    }

    /// The neighbors on the ring of all ranks: messages go to the next rank and come from the previous one.
    pub fn ring_forward(&self) -> Peers {
        let (rank, size) = (self.rank(), self.size());
        Peers {
            to: (rank + 1) % size,
            from: (rank + size - 1) % size,
        }
    }

    /// The neighbors on the ring in the other direction: messages go to the previous rank and come from the next one.
    pub fn ring_backward(&self) -> Peers {
        let Peers { to, from } = self.ring_forward();
        Peers { to: from, from: to }
    }

    /// What this rank received, in this and all other groups of the job.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// From here on every collective of the job first compares the ranks' arguments, at the cost of one more small
    /// collective.
    pub fn enable_check(&self) {
        self.check.store(true, Ordering::Relaxed);
    }

    /// Undoes [`enable_check`](Self::enable_check).
    pub fn disable_check(&self) {
        self.check.store(false, Ordering::Relaxed);
    }

    /// Splits the group: ranks of one `color` form a new group, ordered by `key`, then by rank.
    ///
    /// # Errors
    /// When a rank failed.
    pub fn split(&self, color: usize, key: usize) -> Result<Self> {
        self.agree("split", &[])?;
        let mine = [
            color as u64,
            key as u64,
            self.world_ranks[self.rank()] as u64,
        ];
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
            world_ranks: members.iter().map(|member| member.2).collect(),
            traffic: self.traffic.clone(),
            check: self.check.clone(),
        })
    }

    /// Waits until all ranks have called it.
    ///
    /// # Errors
    /// When a rank failed.
    pub fn barrier(&self) -> Result<()> {
        self.agree("barrier", &[])?;
        self.timed(|| self.group.barrier())
    }

    /// Concatenates the values of all ranks, `counts[r]` of rank `r`.
    ///
    /// # Errors
    /// When a rank failed or, with the check, when ranks disagree.
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

    /// Sends `send_counts[r]` values to rank `r` and receives `recv_counts[r]` from it.
    ///
    /// # Errors
    /// When a rank failed or, with the check, when ranks disagree.
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

    /// Sums all ranks' parts for this rank in rank order, whatever the transport: the same bits on threads and over
    /// MPI.
    ///
    /// # Errors
    /// When a rank failed or, with the check, when ranks disagree.
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

    /// [`reduce_scatter_ordered`](Self::reduce_scatter_ordered) with the transport's own reduction, in whatever order
    /// it adds.
    ///
    /// # Errors
    /// When a rank failed or, with the check, when ranks disagree.
    pub fn reduce_scatter_sum(&self, send: &[f32], counts: &[usize]) -> Result<Vec<f32>> {
        self.agree("reduce_scatter_sum", &wide(counts))?;
        let own = counts[self.rank()];
        let mut recv = vec![0.0; own];
        self.timed(|| self.group.reduce_scatter_sum(send, &mut recv, counts))?;
        self.traffic
            .add((self.size() - 1) * own * size_of::<f32>(), self.size() - 1);
        Ok(recv)
    }

    /// Reduces the values of all ranks element by element, at every rank.
    ///
    /// # Errors
    /// When a rank failed or, with the check, when ranks disagree.
    pub fn all_reduce(&self, values: &mut [f32], op: Reduce) -> Result<()> {
        self.agree("all_reduce", &[values.len() as u64, op as u64])?;
        self.timed(|| self.group.all_reduce(values, op))?;
        let (ranks, len) = (self.size(), values.len());
        let own = self.member().share(len);
        let elements = (ranks - 1) * own + len - own;
        self.traffic
            .add(elements * size_of::<f32>(), 2 * (ranks - 1));
        Ok(())
    }

    /// The mean of all ranks' values, with the same bits at every rank and on every transport.
    ///
    /// # Errors
    /// When a rank failed or, with the check, when ranks disagree.
    pub fn all_mean(&self, values: &mut [f32]) -> Result<()> {
        let shares = Member::all(self.size()).map(|member| member.share(values.len()));
        let counts: Vec<_> = shares.collect();
        let mut own = self.reduce_scatter_ordered(values, &counts)?;
        let scale = 1.0 / self.size() as f32;
        own.iter_mut().for_each(|value| *value *= scale);
        values.copy_from_slice(&self.all_gather(&own, &counts)?);
        Ok(())
    }

    /// Sends `send` to one rank and receives `count` values from another.
    ///
    /// # Errors
    /// When a rank failed or, with the check, when ranks disagree.
    pub fn send_recv<T: Pod>(&self, peers: Peers, send: &[T], count: usize) -> Result<Vec<T>> {
        Ok(self.send_recv_while(peers, send, count, || ())?.0)
    }

    /// [`send_recv`](Self::send_recv), calling `meanwhile` while the messages are in flight. Returns what arrived and
    /// its result.
    ///
    /// # Errors
    /// When a rank failed or, with the check, when ranks disagree.
    pub fn send_recv_while<T: Pod, R>(
        &self,
        peers: Peers,
        send: &[T],
        count: usize,
        meanwhile: impl FnOnce() -> R,
    ) -> Result<(Vec<T>, R)> {
        let mut send_counts = vec![0; self.size()];
        let mut recv_counts = vec![0; self.size()];
        send_counts[peers.to] = send.len();
        recv_counts[peers.from] = count;
        self.agree_pairs("send_recv", &send_counts, &recv_counts)?;
        let mut recv = vec![T::zeroed(); count];
        let (mut meanwhile, mut result) = (Some(meanwhile), None);
        let mut computing = Duration::ZERO;
        let started = Instant::now();
        self.group.send_recv(
            peers,
            bytemuck::cast_slice(send),
            bytemuck::cast_slice_mut(&mut recv),
            &mut || {
                let started = Instant::now();
                result = meanwhile.take().map(|compute| compute());
                computing = started.elapsed();
            },
        )?;
        self.traffic
            .add_waiting(started.elapsed().saturating_sub(computing));
        if peers.from != self.rank() {
            self.traffic.add(count * size_of::<T>(), 1);
        }
        let result = result.expect("a transport calls `meanwhile` once");
        Ok((recv, result))
    }

    /// Fails unless all ranks pass the same text, such as their arguments.
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

    /// With the check on: all ranks of the group call this operation with these arguments.
    fn agree(&self, operation: &str, arguments: &[u64]) -> Result<()> {
        if !self.check.load(Ordering::Relaxed) {
            return Ok(());
        }
        let text = format!("{operation}{arguments:?}");
        self.require_same("collectives differ", &text)
    }

    /// With the check on: each rank sends as much as its receiver expects.
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
                    rank: self.world_ranks[rank],
                    found: format!("{} values expected from it", recv[other]),
                    of: self.world_ranks[other],
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
                rank: self.world_ranks[rank],
                found: texts[rank].clone(),
                of: self.world_ranks[0],
                expected: texts[0].clone(),
            }),
        }
    }

    /// Gathers a few numbers, as many from every rank. Not counted as traffic.
    fn exchange_small(&self, mine: &[u64]) -> Result<Vec<u64>> {
        let mut all = vec![0_u64; mine.len() * self.size()];
        let counts = vec![size_of_val(mine); self.size()];
        let bytes = bytemuck::cast_slice_mut(&mut all);
        self.group
            .all_gather(bytemuck::cast_slice(mine), bytes, &counts)?;
        Ok(all)
    }

    /// Counts what other ranks sent, given the bytes by rank.
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
        self.traffic.add_waiting(started.elapsed());
        result
    }
}

fn wide(counts: &[usize]) -> Vec<u64> {
    counts.iter().map(|&count| count as u64).collect()
}

fn in_bytes<T>(counts: &[usize]) -> Vec<usize> {
    counts.iter().map(|&count| count * size_of::<T>()).collect()
}
