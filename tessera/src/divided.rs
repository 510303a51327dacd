//! Pictures divided between ranks: each draws its share, and the first has them all.

use crate::error::{Error, Result};
use crate::generate::{Picture, Request, Step};
use crate::model::Model;
use std::ops::Range;
use tessera_attention2d::Comm;
use tessera_gen_ar::SampleConfig;
use tessera_pictures::Pixels;

/// Pictures that ranks draw, each its share of every round. A picture depends on its request alone, so that the files
/// are those of one rank.
pub struct Divided<'a, R> {
    /// What draws them; the same at all ranks.
    pub model: &'a Model,
    /// How.
    pub sampling: &'a SampleConfig,
    /// Pictures in all.
    pub total: usize,
    /// What a number is drawn as.
    pub request: R,
    /// Pictures that a rank draws at once.
    pub batch: usize,
}

impl<R: Fn(usize) -> Request> Divided<'_, R> {
    /// Draws this rank's share; `each` gets all pictures at the first rank, in order, and none elsewhere. `step` is
    /// told of every step of all ranks' batches, as if the others were as far as this one.
    ///
    /// # Errors
    /// A value that is not finite, a rank that failed, or what `step` or `each` gives.
    pub fn draw<E: From<Error>>(
        &self,
        ranks: &Comm,
        mut step: impl FnMut(Step) -> Result<(), E>,
        mut each: impl FnMut(Picture) -> Result<(), E>,
    ) -> Result<(), E> {
        let (total, size) = (self.total, ranks.size());
        let rounds = || (0..total).step_by(self.batch.saturating_mul(size).max(1));
        let round =
            |start: usize| start..total.min(start.saturating_add(self.batch.saturating_mul(size)));
        let own = rounds().flat_map(|start| share(round(start), ranks.rank(), size));
        let requests = own.map(|number| (self.request)(number));
        let mut generation = self
            .model
            .generate(requests, self.sampling)
            .batch(self.batch);
        for round in rounds().map(round) {
            let own = share(round.clone(), ranks.rank(), size).len();
            let mut pictures = Vec::with_capacity(own);
            while pictures.len() < own {
                let picture = generation.next_after(|at| {
                    step(Step {
                        first: round.start,
                        pictures: round.len(),
                        ..at
                    })
                })?;
                let Some(picture) = picture else {
                    let drawn = pictures.len();
                    return Err(Error::Undrawn { drawn, of: own }.into());
                };
                pictures.push(picture.pixels);
            }
            let all = at_first(ranks, &round, &pictures)?;
            for (index, pixels) in round.zip(all) {
                let params = self.model.params((self.request)(index), self.sampling);
                each(Picture {
                    index,
                    pixels,
                    params,
                })?;
            }
        }
        Ok(())
    }
}

/// A rank's part of a round; the first has the most.
fn share(round: Range<usize>, rank: usize, ranks: usize) -> Range<usize> {
    let (each, more) = (round.len() / ranks, round.len() % ranks);
    let start = round.start + rank * each + rank.min(more);
    start..start + each + usize::from(rank < more)
}

/// The pictures of all ranks' shares of a round, at the first rank; nothing at the others.
fn at_first(ranks: &Comm, round: &Range<usize>, own: &[Pixels]) -> Result<Vec<Pixels>> {
    let size = ranks.size();
    if size == 1 {
        return Ok(own.to_vec());
    }
    let bytes = own.first().map_or(0, |picture| picture.data().len());
    let mut send = Vec::with_capacity(bytes * own.len());
    for picture in own {
        if picture.data().len() != bytes {
            return Err(Error::SeveralSizes);
        }
        send.extend_from_slice(picture.data());
    }
    let (mut to, mut from) = (vec![0; size], vec![0; size]);
    to[0] = send.len();
    if ranks.rank() == 0 {
        for (rank, from) in from.iter_mut().enumerate() {
            *from = bytes * share(round.clone(), rank, size).len();
        }
    }
    let all = ranks.all_to_all(&send, &to, &from)?;
    let Some(like) = own.first().filter(|_| ranks.rank() == 0) else {
        return Ok(Vec::new());
    };
    let (height, width, channels) = (like.height(), like.width(), like.channels());
    let pictures = all.chunks_exact(bytes);
    let pictures = pictures.map(|data| Pixels::new(height, width, channels, data.to_vec()));
    Ok(pictures.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_a_round_in_order_and_the_first_has_the_most() {
        for (pictures, ranks) in [(1, 4), (7, 3), (8, 2), (5, 5), (3, 1)] {
            let shares: Vec<_> = (0..ranks)
                .map(|rank| share(10..10 + pictures, rank, ranks))
                .collect();
            let all: Vec<_> = shares.iter().cloned().flatten().collect();
            assert_eq!(all, (10..10 + pictures).collect::<Vec<_>>());
            assert!(shares.is_sorted_by(|left, right| left.len() >= right.len()));
        }
    }
}
