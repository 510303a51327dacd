//! Seeded counter-based randomness, the same numbers on every device: Philox4x32-10
//! (Salmon et al., SC'11), drawn on the host.

use crate::flex::simd::simd;
use crate::flex::{filled, uninit};
use crate::host::device_values;
use burn::tensor::{Device, Tensor};
use rayon::prelude::*;

/// Blocks that are computed side by side, so that a round is a few vector instructions.
const LANES: usize = 16;

/// Numbers of a block.
const BLOCK: usize = 4;

/// Numbers that a thread draws at a time.
const CHUNK: usize = 256 * LANES * BLOCK;

/// A random stream, named by `(seed, stream)`. [`streams`](crate::streams) lists the streams in use.
#[derive(Debug, Clone)]
pub struct Rng {
    key: [u32; 2],
    stream: u64,
    block: u64,
    buffer: [u32; 4],
    used: usize,
}

impl Rng {
    /// The stream named `stream` of `seed`; streams of one seed are independent of each other.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self {
            key: [seed as u32, (seed >> 32) as u32],
            stream,
            block: 0,
            buffer: [0; 4],
            used: 4,
        }
    }

    /// The next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            let counter = [
                self.block as u32,
                (self.block >> 32) as u32,
                self.stream as u32,
                (self.stream >> 32) as u32,
            ];
            self.buffer = philox4x32_10(counter, self.key);
            self.block += 1;
            self.used = 0;
        }
        self.used += 1;
        self.buffer[self.used - 1]
    }

    /// The numbers that as many calls of [`next_u32`](Self::next_u32) give, drawn by all threads.
    pub fn fill(&mut self, out: &mut [u32]) {
        let started = (BLOCK - self.used).min(out.len());
        let (begun, rest) = out.split_at_mut(started);
        begun.fill_with(|| self.next_u32());
        let whole = rest.len() / (LANES * BLOCK) * (LANES * BLOCK);
        let (whole, last) = rest.split_at_mut(whole);
        let (first, stream, key) = (self.block, self.stream, self.key);
        let chunks = whole.par_chunks_mut(CHUNK).enumerate();
        chunks.for_each(|(chunk, out)| {
            blocks(first + (chunk * CHUNK / BLOCK) as u64, stream, key, out);
        });
        self.block += (whole.len() / BLOCK) as u64;
        last.fill_with(|| self.next_u32());
    }

    /// A mask of dropout: 0 for a share `rate` of the elements, and for the others the scale that keeps the mean. An
    /// element takes 16 random bits, so the rate is rounded to a multiple of 2⁻¹⁶; the scale follows the rounded rate.
    pub fn dropout_mask(&mut self, elements: usize, rate: f32) -> Vec<f32> {
        const STEPS: u32 = 1 << 16;
        let dropped = ((rate * STEPS as f32) as u32).min(STEPS - 1);
        let scale = STEPS as f32 / (STEPS - dropped) as f32;
        let mut bits = uninit(elements.div_ceil(2));
        self.fill(&mut bits);
        filled(elements, |mask| {
            let pairs = mask.par_chunks_mut(2 * CHUNK).zip(bits.par_chunks(CHUNK));
            pairs.for_each(|(mask, bits)| kept(mask, bits, dropped, scale));
        })
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) << 32 | u64::from(self.next_u32())
    }

    /// Uniform in `[0, 1)`, a multiple of 2⁻²⁴.
    pub fn uniform(&mut self) -> f32 {
        uniform(self.next_u32())
    }

    /// Standard normal, by Box–Muller in f64.
    pub fn normal(&mut self) -> f32 {
        let radius = {
            let u = (f64::from(self.next_u32()) + 0.5) / 4_294_967_296.0;
            libm::sqrt(-2.0 * libm::log(u))
        };
        let angle = std::f64::consts::TAU * f64::from(self.next_u32()) / 4_294_967_296.0;
        (radius * libm::cos(angle)) as f32
    }

    /// Uniform in `0..bound`, without bias.
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0, "an empty range has no element to draw");
        let bound = bound as u64;
        let zone = u64::MAX - (u64::MAX % bound + 1) % bound;
        loop {
            let draw = self.next_u64();
            if draw <= zone {
                return (draw % bound) as usize;
            }
        }
    }

    /// A uniformly random order of `0..n` (Fisher–Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for last in (1..n).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }

    /// A tensor of standard normal values.
    ///
    /// # Shapes
    /// - output: `shape`
    pub fn normal_tensor<const D: usize>(
        &mut self,
        shape: [usize; D],
        device: &Device,
    ) -> Tensor<D> {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.normal()).collect();
        device_values(values, shape, device)
    }

    /// A tensor of values uniform in `[0, 1)`.
    ///
    /// # Shapes
    /// - output: `shape`
    pub fn uniform_tensor<const D: usize>(
        &mut self,
        shape: [usize; D],
        device: &Device,
    ) -> Tensor<D> {
        let mut bits = vec![0; shape.iter().product()];
        self.fill(&mut bits);
        let values: Vec<f32> = bits.into_iter().map(uniform).collect();
        device_values(values, shape, device)
    }
}

/// 32 random bits as a number in `[0, 1)`, a multiple of 2⁻²⁴.
fn uniform(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / (1 << 24) as f32)
}

const ROUNDS: usize = 10;
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

fn philox4x32_10(mut counter: [u32; BLOCK], mut key: [u32; 2]) -> [u32; BLOCK] {
    for _ in 0..ROUNDS {
        let a = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let b = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

simd! {
    /// 0 for each half of a number below `dropped`, and `scale` for the others.
    kept = kept_body(mask: &mut [f32], bits: &[u32], dropped: u32, scale: f32)
}

#[inline(always)]
fn kept_body(mask: &mut [f32], bits: &[u32], dropped: u32, scale: f32) {
    let keep = |bits: u32| if bits < dropped { 0.0 } else { scale };
    let (pairs, last) = mask.as_chunks_mut::<2>();
    for (pair, &bits) in pairs.iter_mut().zip(bits) {
        *pair = [keep(bits & 0xffff), keep(bits >> 16)];
    }
    if let ([last], Some(&bits)) = (last, bits.last()) {
        *last = keep(bits & 0xffff);
    }
}

simd! {
    /// The blocks from `first` on: `out` is a multiple of as many as are computed side by side.
    blocks = blocks_body(first: u64, stream: u64, key: [u32; 2], out: &mut [u32])
}

#[inline(always)]
fn blocks_body(first: u64, stream: u64, key: [u32; 2], out: &mut [u32]) {
    for (group, out) in out.chunks_exact_mut(LANES * BLOCK).enumerate() {
        let block = |lane| first + (group * LANES + lane) as u64;
        let mut c0: [u32; LANES] = std::array::from_fn(|lane| block(lane) as u32);
        let mut c1: [u32; LANES] = std::array::from_fn(|lane| (block(lane) >> 32) as u32);
        let mut c2 = [stream as u32; LANES];
        let mut c3 = [(stream >> 32) as u32; LANES];
        let mut key = key;
        for _ in 0..ROUNDS {
            for lane in 0..LANES {
                let a = u64::from(MULTIPLIERS[0]) * u64::from(c0[lane]);
                let b = u64::from(MULTIPLIERS[1]) * u64::from(c2[lane]);
                c0[lane] = (b >> 32) as u32 ^ c1[lane] ^ key[0];
                c1[lane] = b as u32;
                c2[lane] = (a >> 32) as u32 ^ c3[lane] ^ key[1];
                c3[lane] = a as u32;
            }
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        for (lane, out) in out.chunks_exact_mut(BLOCK).enumerate() {
            out.copy_from_slice(&[c0[lane], c1[lane], c2[lane], c3[lane]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the Random123 distribution (kat_vectors, philox4x32 with 10 rounds).
    #[test]
    fn philox_gives_the_known_answers() {
        assert_eq!(
            philox4x32_10([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32_10(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn normal_values_have_mean_0_and_variance_1() {
        let mut rng = Rng::new(1, 2);
        let n = 100_000;
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..n {
            let x = f64::from(rng.normal());
            sum += x;
            squares += x * x;
        }
        assert!((sum / f64::from(n)).abs() < 0.01);
        assert!((squares / f64::from(n) - 1.0).abs() < 0.02);
    }

    #[test]
    fn numbers_drawn_together_are_those_drawn_one_by_one() {
        for (before, count) in [
            (0, 0),
            (1, 2),
            (3, 63),
            (4, 64),
            (2, 1000),
            (5, CHUNK * 3 + 77),
        ] {
            let mut one = Rng::new(0x1234_5678_9abc, 0xfedc_ba98_7654);
            let mut all = one.clone();
            // Beyond 2³² blocks, where the counter's second word takes part.
            one.block = (1 << 32) - 100;
            all.block = one.block;
            for _ in 0..before {
                assert_eq!(one.next_u32(), all.next_u32());
            }
            let mut drawn = vec![0; count];
            all.fill(&mut drawn);
            let wanted: Vec<u32> = (0..count).map(|_| one.next_u32()).collect();
            assert!(drawn == wanted, "{count} after {before}");
            assert_eq!(one.next_u32(), all.next_u32());
        }
    }

    #[test]
    fn a_mask_drops_its_share_and_keeps_the_mean() {
        let mask = Rng::new(3, 0).dropout_mask(100_001, 0.1);
        assert_eq!(mask.len(), 100_001);
        let dropped = mask.iter().filter(|&&m| m == 0.0).count() as f64 / 1e5;
        let mean = mask.iter().map(|&m| f64::from(m)).sum::<f64>() / 1e5;
        assert!((dropped - 0.1).abs() < 0.004, "{dropped}");
        assert!((mean - 1.0).abs() < 0.005, "{mean}");
        // Two elements share a number, in this order.
        let bits = Rng::new(3, 0).next_u32();
        let kept = |bits: u32| bits >= (0.1_f32 * 65_536.0) as u32;
        assert_eq!(
            [mask[0] > 0.0, mask[1] > 0.0],
            [kept(bits & 0xffff), kept(bits >> 16)]
        );
    }

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let draw = |seed, stream| {
            let mut rng = Rng::new(seed, stream);
            (0..8).map(|_| rng.next_u32()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7, 1), draw(7, 1));
        assert_ne!(draw(7, 1), draw(7, 2));
        assert_ne!(draw(7, 1), draw(8, 1));
    }
}
