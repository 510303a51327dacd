//! Fused operations against the portable bodies, forward and backward, and the independence of rows.

#[path = "../devices/mod.rs"]
#[allow(dead_code)]
mod devices;
mod gradients;
mod invariance;
mod kernels;
mod precision;
mod sampling;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
