//! Many ranks that train one model.

use crate::error::{Error, Result};
use crate::losses::LossValues;
use crate::optim::Grads;
use crate::run_folder::{RunEntry, RunFolder, Start};
use burn::module::Module;
use serde::Serialize;
use std::ops::Range;
use std::path::Path;
use tessera_attention2d::{Comm, Reduce};

/// The ranks that train one model. All have the same weights, hold the same batch in mind and take the same step; each
/// computes its share of the batch, or of the tokens, and the gradients are the mean of all ranks'.
#[derive(Debug, Clone)]
pub struct Ranks {
    world: Comm,
    /// Neighboring ranks that have one share of the batch between them, with its tokens dealt.
    sequence: usize,
}

/// A rank's share of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Which, from 0.
    pub index: usize,
    /// Of how many.
    pub of: usize,
}

impl Share {
    /// The whole batch.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// Which of `len` things, a multiple of the number of shares, are in this one.
    pub fn range(self, len: usize) -> Range<usize> {
        self.index * len / self.of..(self.index + 1) * len / self.of
    }
}

impl Ranks {
    /// One rank by itself.
    pub fn alone() -> Self {
        Self {
            world: Comm::single(),
            sequence: 1,
        }
    }

    /// All ranks of a communicator, `sequence` at a time sharing the tokens of their examples.
    ///
    /// # Errors
    /// [`Error::Config`] when `sequence` does not divide the ranks.
    pub fn new(world: Comm, sequence: usize) -> Result<Self> {
        match sequence > 0 && world.size().is_multiple_of(sequence) {
            true => Ok(Self { world, sequence }),
            false => Err(Error::Config {
                field: "the ranks of a grid",
                found: sequence.to_string(),
                expected: format!("must divide the number of ranks, {}", world.size()),
            }),
        }
    }

    /// The ranks that share the tokens of this rank's examples; all ranks call it.
    ///
    /// # Errors
    /// When a rank failed.
    pub fn sequence(&self) -> Result<Comm> {
        let group = self.world.rank() / self.sequence;
        Ok(self.world.split(group, self.world.rank())?)
    }

    /// This rank's share of every batch.
    pub fn share(&self) -> Share {
        Share {
            index: self.world.rank() / self.sequence,
            of: self.world.size() / self.sequence,
        }
    }

    /// Whether this is the rank that writes.
    pub fn first(&self) -> bool {
        self.world.rank() == 0
    }

    /// [Enters](RunEntry::of) the folder of the run, which the first rank alone locks and changes.
    ///
    /// # Errors
    /// As `RunEntry::of`, at the first rank.
    pub fn enter(&self, root: &Path, start: Start) -> Result<RunEntry> {
        match self.first() {
            true => RunEntry::of(root, start),
            false => Ok(RunEntry::of_other(root, start)),
        }
    }

    /// [Opens](RunEntry::open) a folder that all ranks have entered: the first rank, then the others.
    ///
    /// # Errors
    /// As `RunEntry::open`.
    pub fn open(&self, entry: RunEntry, config: &impl Serialize) -> Result<RunFolder> {
        if self.first() {
            let run = entry.open(config)?;
            self.meet()?;
            return Ok(run);
        }
        self.meet()?;
        entry.open(config)
    }

    /// Returns when all ranks are here.
    pub(crate) fn meet(&self) -> Result<()> {
        Ok(self.world.barrier()?)
    }

    /// Of each flag, whether any rank says so.
    pub(crate) fn any<const N: usize>(&self, flags: [bool; N]) -> Result<[bool; N]> {
        let mut values = flags.map(|flag| f32::from(u8::from(flag)));
        if self.world.size() > 1 {
            self.world.all_reduce(&mut values, Reduce::Max)?;
        }
        Ok(values.map(|value| value > 0.0))
    }

    /// Losses and gradients as one rank has them of the whole batch.
    pub(crate) fn mean<M: Module>(
        &self,
        module: &M,
        mut losses: LossValues,
        grads: Grads,
    ) -> Result<(LossValues, Grads)> {
        if self.world.size() == 1 {
            return Ok((losses, grads));
        }
        let mut values = losses.values();
        self.world.all_mean(&mut values)?;
        losses.set(&values);
        Ok((losses, grads.mean(module, &self.world)?))
    }
}
