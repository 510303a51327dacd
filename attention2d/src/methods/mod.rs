//! The methods that distribute attention over ranks, from the bottom up: what a method is ([`Method`](method::Method),
//! [`Grid`](grid::Grid), [`Layout`](layout::Layout), [`Mask`](mask::Mask)), what all of them share ([`task`], [`rows`],
//! [`state`], [`ring_pass`]), one file per method, [`Distributed`](distributed::Distributed) over them, and
//! [`TokenSharding`](sharding::TokenSharding) for models.

pub(crate) mod distributed;
pub(crate) mod gather;
pub(crate) mod grid;
pub(crate) mod grid_attention;
pub(crate) mod layout;
pub(crate) mod mask;
pub(crate) mod method;
pub(crate) mod overlap;
pub(crate) mod reduce_scatter;
pub(crate) mod ring;
pub(crate) mod ring_pass;
pub(crate) mod rows;
pub(crate) mod shape;
pub(crate) mod sharding;
pub(crate) mod state;
pub(crate) mod task;
pub(crate) mod ulysses;
pub(crate) mod wire;
