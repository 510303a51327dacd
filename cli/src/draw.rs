//! Drawing requests before a person's eyes: with a bar, until Ctrl-C, and divided between ranks.

use crate::interrupt;
use crate::progress::Progress;
use anyhow::{Result, bail, ensure};
use std::ops::Range;
use tessera::attention2d::Comm;
use tessera::pictures::Pixels;
use tessera::{Event, Generation, Model, Picture, Request, Sampling, Step};

/// Draws `total` requests and hands over every picture as it is finished.
///
/// # Errors
/// A value that is not finite, Ctrl-C, or what `each` gives.
pub fn draw(
    mut generation: Generation<'_>,
    total: usize,
    quiet: bool,
    mut each: impl FnMut(Picture) -> Result<()>,
) -> Result<()> {
    let mut progress = Progress::new("generate", "images", total as u64, quiet);
    while let Some(picture) = next(&mut generation, |at| said(&mut progress, at, total))? {
        each(picture)?;
    }
    progress.finish();
    Ok(())
}

/// The next picture; `step` is told of every step before it.
fn next(
    generation: &mut Generation<'_>,
    mut step: impl FnMut(Step) -> Result<()>,
) -> Result<Option<Picture>> {
    while let Some(event) = generation.advance() {
        match event? {
            Event::Step(at) => step(at)?,
            Event::Picture(picture) => return Ok(Some(picture)),
        }
    }
    Ok(None)
}

/// Shows a step, `at.first` counting all pictures; fails after Ctrl-C.
fn said(progress: &mut Progress, at: Step, total: usize) -> Result<()> {
    let done = at.first + at.pictures * at.step / at.steps;
    progress.set(done as u64, format!("step {}/{}", at.step, at.steps));
    if interrupt::requested() {
        bail!(
            "after {} of {total} images: stopped at step {} of {}",
            at.first,
            at.step,
            at.steps
        );
    }
    Ok(())
}

/// Pictures that ranks draw, each its share of every round. A picture depends on its request alone, so that the files
/// are those of one rank.
pub struct Divided<'a, R> {
    /// What draws them; the same at all ranks.
    pub model: &'a Model,
    /// How.
    pub sampling: &'a Sampling,
    /// Pictures in all.
    pub total: usize,
    /// What a number is drawn as.
    pub request: R,
    /// Pictures that a rank draws at once.
    pub batch: usize,
    /// Shows no progress.
    pub quiet: bool,
}

impl<R: Fn(usize) -> Request> Divided<'_, R> {
    /// Draws this rank's share; `each` gets all pictures at the first rank, in order, and none elsewhere.
    ///
    /// # Errors
    /// A value that is not finite, Ctrl-C, a rank that failed, or what `each` gives.
    pub fn draw(&self, ranks: &Comm, mut each: impl FnMut(Picture) -> Result<()>) -> Result<()> {
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
        let mut progress = Progress::new("generate", "images", total as u64, self.quiet);
        for round in rounds().map(round) {
            let own = share(round.clone(), ranks.rank(), size).len();
            let mut pictures = Vec::with_capacity(own);
            while pictures.len() < own {
                let picture = next(&mut generation, |at| {
                    // The others are as far as this one.
                    let of_all = Step {
                        first: round.start,
                        pictures: round.len(),
                        ..at
                    };
                    said(&mut progress, of_all, total)
                })?;
                match picture {
                    Some(picture) => pictures.push(picture.pixels),
                    None => bail!("{} pictures of {own} were drawn", pictures.len()),
                }
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
        progress.finish();
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
        ensure!(
            picture.data().len() == bytes,
            "pictures of one model are of several sizes"
        );
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
    use tessera::Device;
    use tessera::attention2d::threads;

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

    #[test]
    fn ranks_draw_the_pictures_of_one_in_its_order() {
        let drawn = |ranks: &Comm, total, batch| {
            let model = Model::builtin(&Device::cpu()).expect("the built-in model");
            let sampling = model.sampling().steps(2);
            let mut pictures = Vec::new();
            let divided = Divided {
                model: &model,
                sampling: &sampling,
                total,
                request: |number| Request::new(number % 3, 5 + number as u64),
                batch,
                quiet: true,
            };
            let result = divided.draw(ranks, |picture| {
                pictures.push((picture.index, picture.params.seed, picture.pixels));
                Ok(())
            });
            result.expect("all ranks draw");
            pictures
        };
        let one = drawn(&Comm::single(), 7, 64);
        assert_eq!(one.len(), 7);
        // One rank has less of the last round, or nothing of it.
        for (ranks, batch) in [(2, 64), (2, 2), (3, 1), (3, 64)] {
            let all =
                threads::run(ranks, |comm| Ok(drawn(&comm, 7, batch))).expect("no rank fails");
            assert!(all[0] == one, "{ranks} ranks, {batch} at once");
            assert!(all[1..].iter().all(Vec::is_empty));
        }
    }
}
