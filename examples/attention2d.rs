//! Distributes one attention over 16 ranks, which are threads of this process, and compares it with dense attention.
//!
//! Each rank owns a shard of the tokens and receives the rest of what it needs as messages. Attention2D receives about
//! 4/√P times the size of Q per rank, Ring Attention 2× the size of Q for any number P of ranks.
//!
//! Run it with `cargo run --release -p tessera-attention2d --example attention2d`.

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Distribution, Tensor};
use tessera_attention2d::{
    Comm, Distributed, Grid, Mask, Method, Result, Task, WireDtype, shard, threads,
};

const RANKS: usize = 16;
const TOKENS: usize = 1024;
const HEADS: usize = 8;
const HEAD_DIM: usize = 32;

fn main() -> Result<()> {
    let device = Device::flex();
    device.seed(1);
    let shape = [1, HEADS, TOKENS, HEAD_DIM];
    let random = || Tensor::random(shape, Distribution::Normal(0.0, 1.0), &device);
    let qkv: [Tensor<4>; 3] = [random(), random(), random()]; // [batch, heads, tokens, head_dim]
    let dense = dense_attention(&qkv);

    println!("{RANKS} ranks, {TOKENS} tokens, {HEADS} heads of {HEAD_DIM}");
    println!("method            max difference   bytes received per rank");
    let grid = Grid { rows: 4, cols: 4 };
    for method in [Method::attention2d(grid), Method::Ring { zigzag: false }] {
        let work = |comm: Comm| distributed_attention(&comm, method, &qkv, &dense);
        let reports = threads::run(RANKS, work)?;
        let differences = reports.iter().map(|report| report.difference);
        let difference = differences.fold(0.0, f32::max);
        let bytes = reports[0].bytes_received;
        println!("{method:<16} {difference:>15.1e} {bytes:>25}");
    }
    Ok(())
}

/// What one rank reports.
struct Report {
    /// The largest difference of this rank's outputs from dense attention.
    difference: f32,
    bytes_received: u64,
}

/// The work of one rank. Here every rank cuts its shard out of whole tensors; in a model, it would compute it.
fn distributed_attention(
    comm: &Comm,
    method: Method,
    qkv: &[Tensor<4>; 3],
    dense: &Tensor<4>,
) -> Result<Report> {
    let attention = Distributed::new(comm, method)?; // forms the rows and columns of the grid
    let positions = attention.positions(TOKENS); // of this rank's tokens: on a grid every 16th
    let local = qkv.each_ref().map(|whole| shard(whole, &positions)); // [batch, heads, TOKENS / RANKS, head_dim]

    comm.traffic().reset();
    let task = Task {
        tokens: TOKENS,
        mask: Mask::all(),
        wire_dtype: WireDtype::F32,
    };
    let forward = attention.forward(&task, local)?;

    let difference = (forward.out - shard(dense, &positions)).abs().max();
    Ok(Report {
        difference: difference.into_scalar(),
        bytes_received: comm.traffic().bytes(),
    })
}

/// softmax(Q·Kᵀ / √d)·V, with all scores in memory.
fn dense_attention([q, k, v]: &[Tensor<4>; 3]) -> Tensor<4> {
    let scores = q.clone().matmul(k.clone().transpose()) / (HEAD_DIM as f32).sqrt(); // [batch, heads, tokens, tokens]
    softmax(scores, 3).matmul(v.clone())
}
