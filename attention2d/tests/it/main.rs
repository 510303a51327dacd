//! Attention on ranks that are threads, held against dense attention; and what ranks say to each other.
#[path = "../cases/mod.rs"]
mod cases;
mod collectives;
mod exact;
mod failure;
mod layout;
mod volume;
