//! What a method costs, without running it: [`volume`](volume::volume) counts what every rank receives, [`schedule`]
//! lists the rounds of a pass, [`plan`] adds up their times on a [`network`], and [`simulate`] plays them out rank by
//! rank.

pub(crate) mod network;
pub(crate) mod plan;
pub(crate) mod schedule;
mod scores;
pub(crate) mod simulate;
pub(crate) mod volume;
