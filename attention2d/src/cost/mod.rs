//! What a method costs, without running it: [`volume`](volume::volume) counts what every rank receives, [`schedule`]
//! lists the rounds of a pass, [`plan`] adds up their times on a [`network`], [`simulate`] plays them out rank by
//! rank, and [`report`] has both as tables.

pub(crate) mod network;
pub(crate) mod plan;
pub(crate) mod report;
pub(crate) mod schedule;
mod scores;
pub(crate) mod simulate;
pub(crate) mod volume;
