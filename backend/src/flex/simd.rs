//! Vectorized scalar functions and row kernels: each body is compiled for AVX-512, AVX2 and the baseline (which on
//! aarch64 has NEON), and the widest one of the instructions that are used is chosen at run time.

use crate::instructions::Instructions;

/// Compiles `$body` for several instruction sets and dispatches at run time.
macro_rules! simd {
    ($(#[$doc:meta])* $name:ident = $body:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?) => {
        $(#[$doc])*
        #[inline]
        #[allow(clippy::too_many_arguments)]
        pub(crate) fn $name($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,fma")]
                #[allow(clippy::too_many_arguments)]
                fn v4($($arg: $ty),*) $(-> $ret)? { $body($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn v3($($arg: $ty),*) $(-> $ret)? { $body($($arg),*) }
                let used = $crate::Instructions::used();
                if used >= $crate::Instructions::Avx512 {
                    // SAFETY: the processor has what is used.
                    return unsafe { v4($($arg),*) };
                }
                if used >= $crate::Instructions::Avx2 {
                    // SAFETY: as above.
                    return unsafe { v3($($arg),*) };
                }
            }
            $body($($arg),*)
        }
    };
}
pub(crate) use simd;

/// Whether `mul_add` is a single instruction for the vectors that the kernels use.
pub(crate) fn fused() -> bool {
    #[cfg(target_arch = "x86_64")]
    return Instructions::used() >= Instructions::Avx2;
    #[cfg(not(target_arch = "x86_64"))]
    cfg!(target_arch = "aarch64")
}

/// Independent partial sums: a reduction over f32 only vectorizes when the order of additions is ours, and only runs at
/// the speed of memory when several vectors of sums hide the latency of an addition.
pub(crate) const LANES: usize = 64;

/// The sum of partial sums, by halves.
#[inline(always)]
pub(crate) fn total(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// e^x with a relative error below 2e-7 (Cephes' polynomial) on [-87.33, 88.37]; 0 below and ∞ above, so that
/// infinities map as by the exact function; NaN maps to NaN.
/// The integer part is read from the bits of a shifted float: a saturating cast would keep the loop scalar.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23
    const LOWEST: f32 = -87.33; // e^x is not normal below
    const HIGHEST: f32 = 88.37; // 2^128 would be its factor above
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let p = 1.987_569_1e-4_f32;
    let p = p.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 0.5);
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    let y = ((p * r).mul_add(r, r) + 1.0) * scale;
    let y = if x < LOWEST { 0.0 } else { y };
    if x > HIGHEST { f32::INFINITY } else { y }
}

/// Logistic function.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// SiLU.
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

/// The normal distribution function Φ with an absolute error below 1.5e-7: ½ + x·P(x²), P a polynomial fitted (minimax,
/// weighted for GELU) on |x| ≤ 5.2 and continued beyond by its last value, where the clamp makes Φ exactly 0 or 1. No
/// exponential and no division, which would take most of the time of GELU.
#[inline(always)]
pub(crate) fn normal_cdf(x: f32) -> f32 {
    let t = (x * x).mul_add(0.073_964_5, -1.0); // 2 x² / 5.2² − 1
    let t = if t < 1.0 { t } else { 1.0 };
    let p = 1.652_159_1e-4_f32;
    let p = p.mul_add(t, -5.300_982e-4);
    let p = p.mul_add(t, 7.085_271e-4);
    let p = p.mul_add(t, -1.069_125e-3);
    let p = p.mul_add(t, 2.542_273e-3);
    let p = p.mul_add(t, -4.970_405_3e-3);
    let p = p.mul_add(t, 8.074_782e-3);
    let p = p.mul_add(t, -1.240_249_35e-2);
    let p = p.mul_add(t, 1.811_666_2e-2);
    let p = p.mul_add(t, -2.475_154e-2);
    let p = p.mul_add(t, 3.196_441_4e-2);
    let p = p.mul_add(t, -3.992_661e-2);
    let p = p.mul_add(t, 5.002_602e-2);
    let p = p.mul_add(t, -6.774_377e-2);
    let p = p.mul_add(t, 1.359_499_8e-1);
    let cdf = p.mul_add(x, 0.5);
    let cdf = if cdf > 0.0 { cdf } else { 0.0 };
    if cdf < 1.0 { cdf } else { 1.0 }
}

/// GELU with erf.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    x * normal_cdf(x)
}

/// Derivative of [`gelu`].
#[inline(always)]
pub(crate) fn gelu_slope(x: f32) -> f32 {
    const INV_SQRT_TAU: f32 = 0.398_942_3;
    (x * INV_SQRT_TAU).mul_add(exp(-0.5 * x * x), normal_cdf(x))
}

/// √(8 / π).
const SQRT_8_OVER_PI: f32 = 1.595_769_2;

/// The argument of the sigmoid in [`gelu_tanh`]: ½ (1 + tanh(u)) = sigmoid(2 u).
#[inline(always)]
fn gelu_tanh_argument(x: f32) -> f32 {
    x * SQRT_8_OVER_PI * (x * x).mul_add(0.044_715, 1.0)
}

/// GELU by its approximation with tanh.
#[inline(always)]
pub(crate) fn gelu_tanh(x: f32) -> f32 {
    x * sigmoid(gelu_tanh_argument(x))
}

/// Derivative of [`gelu_tanh`].
#[inline(always)]
pub(crate) fn gelu_tanh_slope(x: f32) -> f32 {
    const LARGE: f32 = 1e30; // e^-u where the slope is 0
    let e = exp(-gelu_tanh_argument(x));
    let e = if e < LARGE { e } else { LARGE };
    let s = 1.0 / (1.0 + e);
    let inner = x * SQRT_8_OVER_PI * (x * x).mul_add(0.134_145, 1.0); // x times the argument's derivative
    s * (e * s).mul_add(inner, 1.0) // e s is 1 - s without its cancellation
}

/// The rectifier; NaN maps to NaN.
#[inline(always)]
pub(crate) fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// Derivative of [`relu`].
#[inline(always)]
pub(crate) fn relu_slope(x: f32) -> f32 {
    if x > 0.0 { 1.0 } else { 0.0 }
}

/// Derivative of SiLU.
#[inline(always)]
pub(crate) fn silu_slope(x: f32) -> f32 {
    let s = sigmoid(x);
    s * (1.0 - s).mul_add(x, 1.0)
}

#[inline(always)]
fn sum_and_squares_body(x: &[f32]) -> (f32, f32) {
    let (mut sum, mut squares) = ([0.0; LANES], [0.0; LANES]);
    let chunks = x.chunks_exact(LANES);
    for (i, &x) in chunks.remainder().iter().enumerate() {
        sum[i] += x;
        squares[i] = x.mul_add(x, squares[i]);
    }
    for c in chunks {
        for i in 0..LANES {
            sum[i] += c[i];
            squares[i] = c[i].mul_add(c[i], squares[i]);
        }
    }
    (total(sum), total(squares))
}
simd!(
    /// Sum and sum of squares.
    sum_and_squares = sum_and_squares_body(x: &[f32]) -> (f32, f32)
);

#[inline(always)]
fn squared_distance_body(x: &[f32], mean: f32) -> f32 {
    let mut sum = [0.0_f32; LANES];
    let chunks = x.chunks_exact(LANES);
    for (i, &x) in chunks.remainder().iter().enumerate() {
        let d = x - mean;
        sum[i] = d.mul_add(d, sum[i]);
    }
    for c in chunks {
        for i in 0..LANES {
            let d = c[i] - mean;
            sum[i] = d.mul_add(d, sum[i]);
        }
    }
    total(sum)
}
simd!(
    /// Σ (x − mean)².
    squared_distance = squared_distance_body(x: &[f32], mean: f32) -> f32
);

#[inline(always)]
fn max_body(x: &[f32]) -> f32 {
    let mut max = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    for (i, &x) in chunks.remainder().iter().enumerate() {
        max[i] = if x > max[i] { x } else { max[i] };
    }
    for c in chunks {
        for i in 0..LANES {
            max[i] = if c[i] > max[i] { c[i] } else { max[i] };
        }
    }
    max.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b))
}
simd!(
    /// The maximum: −∞ if empty; NaN is skipped.
    max = max_body(x: &[f32]) -> f32
);

#[inline(always)]
fn exp_scaled_body(x: &mut [f32], scale: f32, offset: f32) -> f32 {
    let mut sum = [0.0_f32; LANES];
    let mut chunks = x.chunks_exact_mut(LANES);
    for c in &mut chunks {
        for i in 0..LANES {
            c[i] = exp(c[i].mul_add(scale, -offset));
            sum[i] += c[i];
        }
    }
    for (i, x) in chunks.into_remainder().iter_mut().enumerate() {
        *x = exp(x.mul_add(scale, -offset));
        sum[i] += *x;
    }
    total(sum)
}
simd!(
    /// x ← e^(scale·x − offset); returns the sum.
    exp_scaled = exp_scaled_body(x: &mut [f32], scale: f32, offset: f32) -> f32
);

#[inline(always)]
fn all_finite_body(x: &[f32]) -> bool {
    // The exponent of an infinity or NaN is all ones: no branch, so that the loop vectorizes.
    let exponent = x
        .iter()
        .fold(0_u32, |most, x| most.max(x.to_bits() & 0x7f80_0000));
    exponent < 0x7f80_0000
}
simd!(
    /// Whether there is neither an infinity nor a NaN.
    all_finite = all_finite_body(x: &[f32]) -> bool
);

#[inline(always)]
fn dot_body(a: &[f32], b: &[f32]) -> f32 {
    let mut sum = [0.0_f32; LANES];
    let (ca, cb) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    for (i, (&a, &b)) in ca.remainder().iter().zip(cb.remainder()).enumerate() {
        sum[i] = a.mul_add(b, sum[i]);
    }
    for (a, b) in ca.zip(cb) {
        for i in 0..LANES {
            sum[i] = a[i].mul_add(b[i], sum[i]);
        }
    }
    total(sum)
}
simd!(
    /// Inner product.
    dot = dot_body(a: &[f32], b: &[f32]) -> f32
);

#[inline(always)]
fn mul_assign_body(out: &mut [f32], x: &[f32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out *= x;
    }
}
simd!(
    /// out ← out · x.
    mul_assign = mul_assign_body(out: &mut [f32], x: &[f32])
);

#[inline(always)]
fn add_assign_body(out: &mut [f32], x: &[f32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out += x;
    }
}
simd!(
    /// out ← out + x.
    add_assign = add_assign_body(out: &mut [f32], x: &[f32])
);

#[inline(always)]
fn add_scaled_body(out: &mut [f32], x: &[f32], factor: f32) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = x.mul_add(factor, *out);
    }
}
simd!(
    /// out ← out + factor·x.
    add_scaled = add_scaled_body(out: &mut [f32], x: &[f32], factor: f32)
);

#[inline(always)]
fn scale_body(x: &mut [f32], factor: f32) {
    for x in x {
        *x *= factor;
    }
}
simd!(
    /// x ← factor·x.
    scale = scale_body(x: &mut [f32], factor: f32)
);

#[cfg(test)]
mod tests {
    use super::*;

    fn relative_error(f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, lo: f32, hi: f32) -> f64 {
        (0..=20_000)
            .map(|i| lo + (hi - lo) * i as f32 / 20_000.0)
            .map(|x| {
                let want = exact(f64::from(x));
                ((f64::from(f(x)) - want) / want.abs().max(1e-30)).abs()
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn exp_is_within_its_stated_error() {
        let error = relative_error(exp, f64::exp, -87.0, 88.0);
        assert!(error < 2e-7, "{error:e}");
    }

    #[test]
    fn gelu_and_its_slope_are_within_1e_6_of_f64() {
        let cdf = |x: f64| 0.5 * (1.0 + libm::erf(x / std::f64::consts::SQRT_2));
        let density = |x: f64| (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
        for i in -8000..=8000 {
            let x = i as f32 / 1000.0;
            let wide = f64::from(x);
            assert!((f64::from(gelu(x)) - wide * cdf(wide)).abs() < 1e-6, "{x}");
            let slope = cdf(wide) + wide * density(wide);
            assert!((f64::from(gelu_slope(x)) - slope).abs() < 1e-6, "{x}");
        }
    }

    #[test]
    fn gelu_tanh_and_its_slope_are_within_1e_6_of_f64() {
        let factor = (2.0 / std::f64::consts::PI).sqrt();
        for i in -8000..=8000 {
            let x = i as f32 / 1000.0;
            let wide = f64::from(x);
            let tanh = (factor * (wide + 0.044715 * wide.powi(3))).tanh();
            let value = 0.5 * wide * (1.0 + tanh);
            assert!((f64::from(gelu_tanh(x)) - value).abs() < 1e-6, "{x}");
            let inner = factor * (1.0 + 3.0 * 0.044715 * wide * wide);
            let slope = 0.5 * (1.0 + tanh) + 0.5 * wide * (1.0 - tanh * tanh) * inner;
            assert!((f64::from(gelu_tanh_slope(x)) - slope).abs() < 1e-6, "{x}");
        }
    }
}
