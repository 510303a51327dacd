//! Communication between ranks: the [`Collective`](collective::Collective) trait, its two implementations ([`threads`]
//! and, with the feature `mpi`, `mpi`), and [`Comm`](communicator::Comm), which adds types, counters and an optional
//! check of arguments.

pub(crate) mod collective;
pub(crate) mod communicator;
#[cfg(feature = "mpi")]
#[allow(unsafe_code)]
pub mod mpi;
pub mod threads;
pub(crate) mod traffic;
