//! Timing: medians of repeated work, and what this machine can do at best.

use serde::Serialize;
use std::hint::black_box;
use std::time::{Duration, Instant};
use tessera::backend::init::ParamInit;
use tessera::backend::nn::Linear;
use tessera::backend::ops::{self, Activation};
use tessera::backend::streams;

/// The median of some runs.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Median {
    /// Milliseconds.
    pub ms: f64,
    /// How many runs were measured.
    pub runs: usize,
    /// The most memory that the process held meanwhile, in MiB; known on Linux alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mib: Option<u64>,
}

/// Runs `work` once unmeasured, then for about `seconds`, at least three times.
pub fn median<T>(seconds: f64, mut work: impl FnMut() -> T) -> Median {
    black_box(work());
    tessera::forget_peak_memory();
    let (mut times, started) = (Vec::new(), Instant::now());
    while times.len() < 3 || started.elapsed().as_secs_f64() < seconds {
        let before = Instant::now();
        let result = black_box(work());
        times.push(before.elapsed());
        drop(result);
    }
    times.sort_unstable();
    Median {
        ms: 1e3 * times[times.len() / 2].as_secs_f64(),
        runs: times.len(),
        mib: tessera::peak_memory_mib(),
    }
}

/// The best rate of this machine's matrix product in GFLOP/s: what every share of the peak refers to.
pub fn matmul_peak(device: &burn::tensor::Device) -> f64 {
    const SIZE: usize = 1536;
    let x = streams::MEASUREMENT
        .of(0, 0)
        .uniform_tensor::<2>([SIZE, SIZE], device);
    let layer = Linear {
        bias: None,
        ..ParamInit::new(0, device).linear(SIZE, SIZE)
    };
    let mut best = Duration::MAX;
    for _ in 0..12 {
        let started = Instant::now();
        black_box(ops::linear(x.clone(), &layer, Activation::None));
        best = best.min(started.elapsed());
    }
    2.0 * (SIZE as f64).powi(3) / best.as_secs_f64() / 1e9
}
