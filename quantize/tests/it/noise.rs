//! White Gaussian noise for tests, a function of (seed, position) alone.

use ndarray::Array4;

/// N(0, 1) at every place of an array `[batch, channels, height, width]`.
pub fn normal(seed: u64, shape: (usize, usize, usize, usize)) -> Array4<f32> {
    let mut position = seed << 40;
    Array4::from_shape_simple_fn(shape, || {
        position += 1;
        let radius = (-2.0 * uniform(2 * position).ln()).sqrt();
        (radius * (std::f64::consts::TAU * uniform(2 * position + 1)).cos()) as f32
    })
}

/// Uniform in (0, 1]: the finaliser of SplitMix64.
fn uniform(position: u64) -> f64 {
    let mut bits = position.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (((bits ^ (bits >> 31)) >> 11) + 1) as f64 / (1_u64 << 53) as f64
}
