//! Fused operations against the portable bodies, forward and backward, and the independence of rows.

mod gradients;
mod invariance;
mod kernels;
mod sampling;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
