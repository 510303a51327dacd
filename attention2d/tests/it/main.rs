//! Attention on threads against dense attention, and the communication of ranks.
#[path = "../cases/mod.rs"]
mod cases;
mod collectives;
mod exact;
mod failure;
mod layout;
mod volume;
