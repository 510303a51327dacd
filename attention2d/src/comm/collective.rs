//! What a transport between ranks has to provide.

use crate::error::Result;
use std::fmt;
use std::sync::Arc;

/// The operator of an all-reduce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduce {
    /// Sum.
    Sum,
    /// Maximum.
    Max,
}

/// One rank of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its number, from 0.
    pub rank: usize,
    /// P, the size of the group.
    pub ranks: usize,
}

impl Member {
    /// This member's share of `len` items that are split as evenly as possible; the first ranks have one more.
    pub(crate) fn share(self, len: usize) -> usize {
        len / self.ranks + usize::from(self.rank < len % self.ranks)
    }

    /// All members of a group, in order.
    pub(crate) fn all(ranks: usize) -> impl Iterator<Item = Self> {
        (0..ranks).map(move |rank| Self { rank, ranks })
    }
}

/// The two other ends of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peers {
    /// The rank that receives what this rank sends.
    pub to: usize,
    /// The rank that this rank receives from.
    pub from: usize,
}

/// A group of ranks, as a transport implements it: on bytes, and on `f32` where it reduces. [`Comm`](crate::Comm) adds
/// types.
///
/// Every rank of a group calls the same operations in the same order. Counts may differ between ranks; each rank passes
/// those that concern it. After an error the job is over.
pub trait Collective: fmt::Debug + Send + Sync {
    /// This rank's number in the group.
    fn rank(&self) -> usize;

    /// The number of ranks in the group.
    fn size(&self) -> usize;

    /// Splits the group: ranks of one `color` form a new group, ordered by `key`, then by rank.
    ///
    /// # Errors
    /// When a rank failed, as with all operations below.
    fn split(&self, color: usize, key: usize) -> Result<Arc<dyn Collective>>;

    /// Waits until all ranks have called it.
    ///
    /// # Errors
    /// When a rank failed.
    fn barrier(&self) -> Result<()>;

    /// Concatenates the `send` of all ranks, `counts[r]` bytes from rank `r`, into `recv` at every rank.
    ///
    /// # Errors
    /// When a rank failed.
    fn all_gather(&self, send: &[u8], recv: &mut [u8], counts: &[usize]) -> Result<()>;

    /// Sends `send_counts[r]` bytes to rank `r` and receives `recv_counts[r]` bytes from it, both ordered by rank.
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

    /// Sums all ranks' parts for this rank; `send` has `counts[r]` values for rank `r`. The order of summation is up to
    /// the implementation.
    ///
    /// # Errors
    /// When a rank failed.
    fn reduce_scatter_sum(&self, send: &[f32], recv: &mut [f32], counts: &[usize]) -> Result<()>;

    /// Reduces the values of all ranks element by element, at every rank.
    ///
    /// # Errors
    /// When a rank failed.
    fn all_reduce(&self, values: &mut [f32], op: Reduce) -> Result<()>;

    /// Sends to one rank, receives from another, and calls `meanwhile` once while the messages are in flight.
    /// `meanwhile` may itself exchange messages with the same ranks: the exchange that began first receives the message
    /// that was sent first.
    ///
    /// # Errors
    /// When a rank failed.
    fn send_recv(
        &self,
        peers: Peers,
        send: &[u8],
        recv: &mut [u8],
        meanwhile: &mut dyn FnMut(),
    ) -> Result<()>;
}

/// Splits a buffer into consecutive parts, one per rank.
pub(crate) fn parts<'a>(mut buffer: &'a mut [u8], counts: &[usize]) -> Vec<&'a mut [u8]> {
    let part = |&count| {
        let part = buffer.split_off_mut(..count);
        part.expect("the counts add up to the buffer")
    };
    counts.iter().map(part).collect()
}
