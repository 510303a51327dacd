//! `z += x W` with both operands in bf16 and sums in f32: half the memory for weights, and more speed where the
//! processor multiplies bf16. Here are the micro-kernels; [`half_operands`](super::half_operands) has what they take,
//! and [`half_product`](super::half_product) runs them over a product.
//!
//! A sum runs over the inputs in order, pair by pair, whatever the number of rows or threads. Each instruction adds a
//! pair in its own way, so results of different processors differ in rounding.

use super::amx;
use super::half_operands::{PANEL, ROWS, STEP, bf16, pack};
#[cfg(target_arch = "x86_64")]
use super::half_pairs as pairs;
use super::simd::simd;
use crate::instructions::Instructions;
use crate::precision::ComputePrecision;
use std::sync::LazyLock;

/// Which instruction multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// Tiles of 16 by 16 (AMX).
    Tiles,
    /// Vectors of pairs (AVX-512 BF16).
    Pairs,
    /// f32 arithmetic on the values: the reference of the others.
    Plain,
}

impl Kernel {
    /// All kernels of the instructions that are used, fastest first.
    pub(crate) fn available() -> Vec<Self> {
        let mut kernels = vec![Self::Plain];
        #[cfg(target_arch = "x86_64")]
        {
            let used = Instructions::used();
            if used >= Instructions::Avx512Bf16 {
                kernels.insert(0, Self::Pairs);
            }
            if used >= Instructions::Amx {
                kernels.insert(0, Self::Tiles);
            }
        }
        kernels
    }

    /// The fastest kernel of this processor whose results match plain arithmetic, tested once. `None` where no
    /// instruction multiplies bf16: f32 is faster then.
    pub(crate) fn best() -> Option<Self> {
        static BEST: LazyLock<Option<Kernel>> = LazyLock::new(|| {
            let kernels = Kernel::available().into_iter();
            let mut fast = kernels.filter(|&kernel| kernel != Kernel::Plain);
            fast.find(|kernel| kernel.sound())
        });
        *BEST
    }

    /// The kernel of products of f32 tensors in a precision; `None` for f32, and where nothing multiplies bf16.
    pub(crate) fn of(precision: ComputePrecision) -> Option<Self> {
        match precision {
            ComputePrecision::Bf16 => Self::best(),
            ComputePrecision::F32 | ComputePrecision::F16 => None,
        }
    }

    /// Whether a block of small integers, whose sums no rounding changes, comes out as by plain arithmetic. Uses no
    /// other thread, so that it may run within a task.
    fn sound(self) -> bool {
        let integers = |len: usize, period: usize| -> Vec<u16> {
            (0..len).map(|i| bf16((i % period) as f32 - 3.0)).collect()
        };
        let (x, values) = (integers(ROWS * STEP, 7), integers(STEP * PANEL, 11));
        let mut panel = vec![0; STEP * PANEL];
        pack(&mut panel, &values, PANEL, [0, STEP, STEP], [0, PANEL]);
        let sums = |kernel: Self| {
            let mut sums = vec![1.0; ROWS * PANEL];
            let block = Block {
                x: x.as_ptr(),
                x_stride: STEP,
                panel: panel.as_ptr(),
                pairs: STEP / 2,
                sums: sums.as_mut_ptr(),
                stride: PANEL,
            };
            let _tiles = (kernel == Self::Tiles).then(amx::Tiles::configure);
            // SAFETY: the processor has the instruction, and the block is whole.
            unsafe { kernel.run(ROWS, block) };
            sums
        };
        sums(self) == sums(Self::Plain)
    }
}
/// A block of rows times a panel: `sums[rows, PANEL] += x panel`. `x` holds `pairs` pairs per row, `x_stride` values
/// from row to row; `sums` are `stride` values apart.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    pub x: *const u16,
    pub x_stride: usize,
    pub panel: *const u16,
    pub pairs: usize,
    pub sums: *mut f32,
    pub stride: usize,
}

/// The plain micro-kernel, one row.
///
/// # Safety
/// The pointers of the block hold what [`Block`] says for one row.
#[inline(always)]
unsafe fn plain_row_body(block: Block) {
    // SAFETY: the caller's contract.
    let (x, panel, sums) = unsafe {
        (
            std::slice::from_raw_parts(block.x.cast::<[u16; 2]>(), block.pairs),
            std::slice::from_raw_parts(block.panel.cast::<[[u16; 2]; PANEL]>(), block.pairs),
            &mut *block.sums.cast::<[f32; PANEL]>(),
        )
    };
    let wide = |x: u16| f32::from_bits(u32::from(x) << 16);
    for (x, pairs) in x.iter().zip(panel) {
        let x = x.map(wide);
        for (sum, pair) in sums.iter_mut().zip(pairs) {
            *sum = wide(pair[1]).mul_add(x[1], wide(pair[0]).mul_add(x[0], *sum));
        }
    }
}

#[inline(always)]
fn plain_row_checked_body(block: Block) {
    // SAFETY: `run` is the only caller; its contract is that of the body.
    unsafe { plain_row_body(block) }
}
simd!(plain_row = plain_row_checked_body(block: Block));

impl Kernel {
    /// Rows that a micro-kernel takes at once.
    pub(super) fn rows(self) -> usize {
        match self {
            Self::Pairs => 6,
            Self::Tiles | Self::Plain => ROWS,
        }
    }

    /// Inputs of a panel that stay in the first-level cache while rows pass; of pairs, which read a panel in order, in
    /// the second-level cache.
    pub(super) fn depth(self) -> usize {
        match self {
            Self::Pairs | Self::Plain => 512,
            Self::Tiles => 256,
        }
    }

    /// `rows` rows of a block, at most [`ROWS`].
    ///
    /// # Safety
    /// The processor has the instruction; the pointers hold what [`Block`] says for `rows` rows, for [`Kernel::Tiles`]
    /// for [`ROWS`] of them, and the thread's tiles are configured.
    pub(super) unsafe fn run(self, rows: usize, block: Block) {
        let from = |row: usize| Block {
            x: block.x.wrapping_add(row * block.x_stride),
            sums: block.sums.wrapping_add(row * block.stride),
            ..block
        };
        match self {
            Self::Plain => (0..rows).for_each(|row| plain_row(from(row))),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the caller's contract, for parts of the rows.
            Self::Pairs => unsafe {
                for row in (0..rows).step_by(6) {
                    match rows - row {
                        1 => pairs::rows::<1>(from(row)),
                        2 => pairs::rows::<2>(from(row)),
                        3 => pairs::rows::<3>(from(row)),
                        4 => pairs::rows::<4>(from(row)),
                        5 => pairs::rows::<5>(from(row)),
                        _ => pairs::rows::<6>(from(row)),
                    }
                }
            },
            // SAFETY: the caller's contract.
            Self::Tiles => unsafe { amx::block(block) },
            #[cfg(not(target_arch = "x86_64"))]
            Self::Pairs => unreachable!("only found on x86-64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_of_this_processor_is_taken() {
        for kernel in Kernel::available() {
            assert!(kernel.sound(), "{kernel:?}");
        }
        let fastest = Some(Kernel::available()[0]);
        assert_eq!(
            Kernel::best(),
            fastest.filter(|&kernel| kernel != Kernel::Plain)
        );
    }
}
