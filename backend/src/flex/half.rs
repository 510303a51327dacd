//! `z += x W` with weights in bf16 and sums in f32: half the memory, and more speed where the processor
//! multiplies bf16. `x` is rounded to bf16 as well.
//!
//! One driver for all instructions: a micro-kernel runs over the rows of `x` and a panel of weights in pairs of inputs,
//! as the instructions take them. Weights that are in [panels](crate::panels) are read where they lie; of others, each
//! block is packed first. A sum runs over the inputs in order, pair by pair, whatever the number of rows or threads.
//! Each instruction adds a pair in its own way, so results of different processors differ in rounding.
//!
//! In training both operands are f32, and rounded while they are brought into that order: so are the transposes that
//! the backward pass multiplies.
//!
//! Where no instruction multiplies bf16, the weights are widened and everything else is as in f32: see [`Kernel::best`].

use super::amx;
use super::elementwise::{self, activate};
#[cfg(target_arch = "x86_64")]
use super::half_pairs as pairs;
use super::simd::simd;
use super::{Shared, uninit};
use crate::arguments::Activation;
use crate::instructions::Instructions;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::LazyLock;

/// Columns of a panel: what a micro-kernel computes at once. Inputs come in multiples of `STEP`, zeros being appended.
pub(super) use crate::panels::{PANEL, STEP};
/// Rows come in multiples of it.
pub(super) const ROWS: usize = 16;

/// Inputs and panels per block; inputs are whole tiles of the widest instruction. Many rows share the pairs of a block
/// that fills the second-level cache. A few rows are done before it is worth keeping: wide blocks read long runs of
/// memory, and of panels whole ones.
fn block(rows: usize, w: Weights<'_>) -> [usize; 2] {
    match (rows, w) {
        (0..=ROWS, Weights::Panels(_)) => [usize::MAX, 2],
        (0..=ROWS, _) => [32, 16],
        _ => [512, 8],
    }
}

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

/// Nearest bf16, ties to even; NaN stays NaN.
#[inline(always)]
fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
    let quiet = (bits >> 16) as u16 | 0x40;
    if x.is_nan() { quiet } else { rounded }
}

#[inline(always)]
fn round_row_body(out: &mut [u16], x: &[f32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = bf16(x);
    }
}
simd!(
    /// x in bf16.
    round_row = round_row_body(out: &mut [u16], x: &[f32])
);

/// What is multiplied, `[rows, inputs]` in memory; it is rounded.
#[derive(Clone, Copy)]
pub(crate) enum Features<'a> {
    /// Row by row.
    Rows(&'a [f32]),
    /// Input by input: `[inputs, rows]`.
    Columns(&'a [f32]),
}

/// Weights of `[inputs, outputs]` in memory.
#[derive(Clone, Copy)]
pub(crate) enum Weights<'a> {
    /// `stride` values from input to input.
    Rows { values: &'a [u16], stride: usize },
    /// `[outputs / PANEL, inputs / 2, PANEL, 2]`; both sizes are whole multiples.
    Panels(&'a [u16]),
    /// To be rounded, `stride` values from input to input.
    WideRows { values: &'a [f32], stride: usize },
    /// To be rounded, `stride` values from output to output.
    WideColumns { values: &'a [f32], stride: usize },
}

impl Weights<'_> {
    fn is_of([inputs, outputs]: [usize; 2], w: Self) -> bool {
        let holds = |len: usize, stride: usize, [lines, length]: [usize; 2]| {
            stride >= length && (lines == 0 || len >= (lines - 1) * stride + length)
        };
        match w {
            Self::Rows { values, stride } => holds(values.len(), stride, [inputs, outputs]),
            Self::WideRows { values, stride } => holds(values.len(), stride, [inputs, outputs]),
            Self::WideColumns { values, stride } => holds(values.len(), stride, [outputs, inputs]),
            Self::Panels(values) => {
                let whole = inputs.is_multiple_of(STEP) && outputs.is_multiple_of(PANEL);
                whole && values.len() == inputs * outputs
            }
        }
    }
}

/// A weight in memory, as a bf16.
trait Value: Copy {
    fn half(self) -> u16;
}

impl Value for u16 {
    #[inline(always)]
    fn half(self) -> u16 {
        self
    }
}

impl Value for f32 {
    #[inline(always)]
    fn half(self) -> u16 {
        bf16(self)
    }
}

/// The panels of some inputs (first, how many, how many with zeros appended) and columns (first, how many) of weights
/// in rows: `[panels, inputs / 2, PANEL, 2]`, zeros where there is no weight.
#[inline(always)]
fn pack_rows<T: Value>(
    panels: &mut [u16],
    values: &[T],
    stride: usize,
    inputs: [usize; 3],
    columns: [usize; 2],
) {
    let [first, depth, padded] = inputs;
    let [left, width] = columns;
    for (pair, even) in (0..padded).step_by(2).enumerate() {
        for panel in 0..width.div_ceil(PANEL) {
            let out = &mut panels[panel * padded * PANEL + pair * 2 * PANEL..][..2 * PANEL];
            let here = PANEL.min(width - panel * PANEL);
            let row = |input: usize| {
                let at = (first + input) * stride + left + panel * PANEL;
                &values[at..at + here]
            };
            if even + 1 < depth && here == PANEL {
                let (even, odd) = (&row(even)[..PANEL], &row(even + 1)[..PANEL]);
                for i in 0..PANEL {
                    (out[2 * i], out[2 * i + 1]) = (even[i].half(), odd[i].half());
                }
                continue;
            }
            out.fill(0);
            for input in even..depth.min(even + 2) {
                for (out, &w) in out[input % 2..].iter_mut().step_by(2).zip(row(input)) {
                    *out = w.half();
                }
            }
        }
    }
}
#[inline(always)]
fn pack_body(
    panels: &mut [u16],
    values: &[u16],
    stride: usize,
    inputs: [usize; 3],
    columns: [usize; 2],
) {
    pack_rows(panels, values, stride, inputs, columns);
}
simd!(
    pack = pack_body(
        panels: &mut [u16], values: &[u16], stride: usize, inputs: [usize; 3], columns: [usize; 2],
    )
);

#[inline(always)]
fn pack_wide_body(
    panels: &mut [u16],
    values: &[f32],
    stride: usize,
    inputs: [usize; 3],
    columns: [usize; 2],
) {
    pack_rows(panels, values, stride, inputs, columns);
}
simd!(
    pack_wide = pack_wide_body(
        panels: &mut [u16], values: &[f32], stride: usize, inputs: [usize; 3], columns: [usize; 2],
    )
);

/// The same of weights in columns.
#[inline(always)]
fn pack_columns_body(
    panels: &mut [u16],
    values: &[f32],
    stride: usize,
    inputs: [usize; 3],
    columns: [usize; 2],
) {
    let [first, depth, padded] = inputs;
    let [left, width] = columns;
    panels[..width.div_ceil(PANEL) * padded * PANEL].fill(0);
    for column in 0..width {
        let (panel, within) = (column / PANEL, column % PANEL);
        let out = &mut panels[panel * padded * PANEL..][..padded * PANEL];
        let values = &values[(left + column) * stride + first..][..depth];
        for (input, &value) in values.iter().enumerate() {
            out[input / 2 * 2 * PANEL + 2 * within + input % 2] = bf16(value);
        }
    }
}
simd!(
    pack_columns = pack_columns_body(
        panels: &mut [u16], values: &[f32], stride: usize, inputs: [usize; 3], columns: [usize; 2],
    )
);

/// `rows` rows of bf16, `padded` values apart, from the first of those that `values` has beside each other for every
/// input, `stride` values apart.
#[inline(always)]
fn transpose_rounded_body(
    half: &mut [u16],
    values: &[f32],
    stride: usize,
    rows: usize,
    padded: usize,
) {
    let mut tile = [[0_u16; STEP]; ROWS];
    for (block, values) in values.chunks(STEP * stride).enumerate() {
        let mut depth = 0;
        for (input, values) in values.chunks(stride).enumerate() {
            for (tile, &value) in tile.iter_mut().zip(&values[..rows]) {
                tile[input] = bf16(value);
            }
            depth = input + 1;
        }
        for (half, tile) in half.chunks_mut(padded).zip(&tile).take(rows) {
            half[block * STEP..][..depth].copy_from_slice(&tile[..depth]);
        }
    }
}
simd!(
    transpose_rounded = transpose_rounded_body(
        half: &mut [u16], values: &[f32], stride: usize, rows: usize, padded: usize,
    )
);

/// What is multiplied, in bf16: `[rows, padded]`, with rows and inputs of zeros appended.
fn rounded(x: Features<'_>, [rows, inputs]: [usize; 2], padded: usize) -> Vec<u16> {
    let mut half = vec![0_u16; padded * rows.next_multiple_of(ROWS)];
    match x {
        Features::Rows(x) => half
            .par_chunks_mut(padded)
            .zip(x.par_chunks(inputs))
            .for_each(|(half, x)| round_row(&mut half[..inputs], x)),
        Features::Columns(x) => {
            half.par_chunks_mut(padded * ROWS)
                .enumerate()
                .for_each(|(block, half)| {
                    let first = block * ROWS;
                    let here = ROWS.min(rows - first);
                    transpose_rounded(half, &x[first..], rows, here, padded);
                })
        }
    }
    half
}

/// A weight `[inputs, outputs]` in panels.
pub(crate) fn packed(values: &[u16], [inputs, outputs]: [usize; 2]) -> Vec<u16> {
    let mut panels = vec![0; inputs * outputs];
    panels
        .par_chunks_mut(inputs * PANEL)
        .enumerate()
        .for_each(|(panel, out)| {
            let columns = [panel * PANEL, PANEL];
            pack(out, values, outputs, [0, inputs, inputs], columns);
        });
    panels
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
    fn rows(self) -> usize {
        match self {
            Self::Pairs => 6,
            Self::Tiles | Self::Plain => ROWS,
        }
    }

    /// Inputs between reading and writing the sums.
    fn depth(self) -> usize {
        match self {
            Self::Tiles => 512,
            Self::Pairs | Self::Plain => 512,
        }
    }

    /// `rows` rows of a block, at most [`ROWS`].
    ///
    /// # Safety
    /// The processor has the instruction; the pointers hold what [`Block`] says for `rows` rows, for [`Kernel::Tiles`]
    /// for [`ROWS`] of them, and the thread's tiles are configured.
    unsafe fn run(self, rows: usize, block: Block) {
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

/// `z[rows, outputs] = act(z + x[rows, inputs] · w[inputs, outputs])`, `x` and `w` rounded to bf16.
pub(crate) fn accumulate(
    kernel: Kernel,
    z: &mut [f32],
    x: Features<'_>,
    w: Weights<'_>,
    [rows, outputs, inputs]: [usize; 3],
    act: Activation,
) {
    let (Features::Rows(values) | Features::Columns(values)) = x;
    assert!(z.len() == rows * outputs && values.len() == rows * inputs);
    assert!(Weights::is_of([inputs, outputs], w));
    if z.is_empty() || inputs == 0 {
        return activate(z, act);
    }
    let padded = inputs.next_multiple_of(STEP);
    let half = rounded(x, [rows, inputs], padded);
    #[cfg(target_arch = "x86_64")]
    if let Weights::Rows { values, stride } = w
        && kernel == Kernel::Pairs
        && pairs::few(rows, outputs, inputs)
    {
        pairs::accumulate_few(z, &half, values, stride, [rows, outputs, inputs], padded);
        return activate(z, act);
    }
    // One block of columns per thread, or several; of few columns, which do not divide well, a block of rows each. What a
    // task has changes no sum.
    let (panels, threads) = (outputs.div_ceil(PANEL), rayon::current_num_threads());
    let [block_depth, most] = block(rows, w);
    let by_rows = panels < 16 * threads && rows >= SHARING * threads;
    let (width, height) = match by_rows {
        true => (panels.min(most) * PANEL, rows.div_ceil(threads)),
        false => (panels.div_ceil(threads).min(most) * PANEL, rows),
    };
    let across = outputs.div_ceil(width);
    let product = Product {
        kernel,
        x: &half,
        x_stride: padded,
        z: Shared(z.as_mut_ptr()),
        outputs,
        activate: elementwise::in_place(act),
    };
    (0..across * rows.div_ceil(height))
        .into_par_iter()
        .for_each_init(
            || {
                let packed = match w {
                    Weights::Panels(_) => Vec::new(),
                    _ => vec![0_u16; width * block_depth.min(padded)],
                };
                (packed, uninit(ROWS * PANEL))
            },
            |(packed, edge), task| {
                let _tiles = (kernel == Kernel::Tiles).then(amx::Tiles::configure);
                let (left, top) = (task % across * width, task / across * height);
                let (width, bottom) = (width.min(outputs - left), rows.min(top + height));
                for first in (0..inputs).step_by(block_depth) {
                    let depth = block_depth.min(inputs - first);
                    let deep = depth.next_multiple_of(STEP);
                    // Where the panels begin, and values from one to the next.
                    let (part, columns) = ([first, depth, deep], [left, width]);
                    match w {
                        Weights::Rows { values, stride } => {
                            pack(packed, values, stride, part, columns)
                        }
                        Weights::WideRows { values, stride } => {
                            pack_wide(packed, values, stride, part, columns);
                        }
                        Weights::WideColumns { values, stride } => {
                            pack_columns(packed, values, stride, part, columns);
                        }
                        Weights::Panels(_) => {}
                    }
                    let (panels, apart) = match w {
                        Weights::Panels(values) => {
                            (&values[left * inputs + first * PANEL..], inputs * PANEL)
                        }
                        _ => (&**packed, deep * PANEL),
                    };
                    let last = first + depth == inputs;
                    for start in (top..bottom).step_by(SHARING) {
                        for panel in 0..width.div_ceil(PANEL) {
                            let panel = Panel {
                                weights: &panels[panel * apart..][..deep * PANEL],
                                first,
                                column: left + panel * PANEL,
                                columns: PANEL.min(width - panel * PANEL),
                                last,
                            };
                            // SAFETY: no other task has these rows and columns.
                            unsafe {
                                product.panel(panel, start..bottom.min(start + SHARING), edge)
                            };
                        }
                    }
                }
            },
        );
}

/// Rows that a panel is multiplied by before the next one is: their inputs and sums stay in the second-level cache.
const SHARING: usize = 96;

/// What all panels have in common.
struct Product<'a> {
    kernel: Kernel,
    /// `[rows, x_stride]`
    x: &'a [u16],
    x_stride: usize,
    /// `[rows, outputs]`
    z: Shared<f32>,
    outputs: usize,
    activate: Option<fn(&mut [f32])>,
}

/// Weights of some inputs, from `first` on, and at most [`PANEL`] columns.
#[derive(Clone, Copy)]
struct Panel<'a> {
    weights: &'a [u16],
    first: usize,
    column: usize,
    columns: usize,
    /// Whether these are the last inputs.
    last: bool,
}

impl Product<'_> {
    /// Adds the product of some rows and a panel, a part of the inputs after the other: that part of the panel stays in
    /// the first-level cache while the rows pass.
    ///
    /// # Safety
    /// No other thread uses these rows and columns of `z`, and the thread's tiles are configured for [`Kernel::Tiles`].
    unsafe fn panel(&self, panel: Panel<'_>, rows: Range<usize>, edge: &mut [f32]) {
        let parts = panel.weights.chunks(self.kernel.depth() * PANEL);
        let count = parts.len();
        for (index, weights) in parts.enumerate() {
            let part = Panel {
                weights,
                first: panel.first + index * self.kernel.depth(),
                last: panel.last && index + 1 == count,
                ..panel
            };
            for row in rows.clone().step_by(self.kernel.rows()) {
                let here = row..rows.end.min(row + self.kernel.rows());
                // SAFETY: the caller's contract.
                unsafe { self.rows(part, here, edge) };
            }
        }
    }

    /// A micro-kernel's rows.
    ///
    /// # Safety
    /// As [`panel`](Self::panel).
    unsafe fn rows(&self, panel: Panel<'_>, rows: Range<usize>, edge: &mut [f32]) {
        let Panel {
            column, columns, ..
        } = panel;
        let outputs = self.outputs;
        // SAFETY: the rows and columns lie in `z`, and nobody else uses them.
        let sums = |row: usize| unsafe { self.z.part(row * outputs + column, columns) };
        let block = Block {
            x: self.x[rows.start * self.x_stride + panel.first..].as_ptr(),
            x_stride: self.x_stride,
            panel: panel.weights.as_ptr(),
            pairs: panel.weights.len() / (2 * PANEL),
            sums: self.z.0.wrapping_add(rows.start * outputs + column),
            stride: outputs,
        };
        // A kernel writes whole panels, tiles whole rows of tiles: at the edges beside the matrix.
        let whole_rows = rows.len() == ROWS || self.kernel != Kernel::Tiles;
        if columns == PANEL && whole_rows {
            // SAFETY: the caller's contract.
            unsafe { self.kernel.run(rows.len(), block) };
        } else {
            edge.fill(0.0);
            for (edge, row) in edge.chunks_exact_mut(PANEL).zip(rows.clone()) {
                edge[..columns].copy_from_slice(sums(row));
            }
            let (sums_at, stride) = (edge.as_mut_ptr(), PANEL);
            let block = Block {
                sums: sums_at,
                stride,
                ..block
            };
            // SAFETY: the edge holds `ROWS` rows of a panel.
            unsafe { self.kernel.run(rows.len(), block) };
            for (edge, row) in edge.chunks_exact(PANEL).zip(rows.clone()) {
                sums(row).copy_from_slice(&edge[..columns]);
            }
        }
        if let Some(activate) = self.activate.filter(|_| panel.last) {
            rows.for_each(|row| activate(sums(row)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wide(x: u16) -> f32 {
        f32::from_bits(u32::from(x) << 16)
    }

    /// Sizes around the widths of vectors, panels, tiles and blocks.
    fn size() -> impl Strategy<Value = usize> {
        prop_oneof![
            Just(0),
            1..20_usize,
            prop_oneof![
                Just(31),
                Just(33),
                Just(63),
                Just(64),
                Just(65),
                Just(127),
                Just(513)
            ],
        ]
    }

    fn values(seed: u64, len: usize) -> Vec<f32> {
        let mut rng = crate::Rng::new(seed, 0);
        (0..len).map(|_| rng.normal()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        /// Within 1e-5 of the sum of magnitudes; the weight being cut out of a wider one, and the sums not from zero.
        #[test]
        fn every_kernel_gives_the_product_of_the_rounded_values(
            rows in size(), inputs in size(), outputs in size(), gap in 0..3_usize, seed in any::<u64>(),
        ) {
            let (x, stride) = (values(seed, rows * inputs), outputs + gap);
            let weights: Vec<u16> = values(seed ^ 1, inputs * stride).into_iter().map(bf16).collect();
            let start = values(seed ^ 2, rows * outputs);
            for kernel in Kernel::available() {
                let mut z = start.clone();
                let w = Weights::Rows { values: &weights, stride };
                accumulate(kernel, &mut z, Features::Rows(&x), w, [rows, outputs, inputs], Activation::None);
                for (i, &found) in z.iter().enumerate() {
                    let (row, column) = (i / outputs, i % outputs);
                    let term = |input: usize| {
                        let x = wide(bf16(x[row * inputs + input]));
                        f64::from(x) * f64::from(wide(weights[input * stride + column]))
                    };
                    let exact = f64::from(start[i]) + (0..inputs).map(term).sum::<f64>();
                    let size = 1.0 + (0..inputs).map(|input| term(input).abs()).sum::<f64>();
                    prop_assert!(
                        (f64::from(found) - exact).abs() <= 1e-5 * size,
                        "{kernel:?} [{row}, {column}]: {found}, expected {exact}"
                    );
                }
            }
        }

        /// Bit for bit: a row alone, and among others.
        #[test]
        fn a_row_does_not_depend_on_the_others(
            rows in 1..40_usize, inputs in prop_oneof![1..600_usize, (1..20_usize).prop_map(|n| 16 * n)],
            outputs in prop_oneof![1..70_usize, (1..5_usize).prop_map(|n| 32 * n)], seed in any::<u64>(),
        ) {
            let x = values(seed, rows * inputs);
            let weights: Vec<u16> = values(seed ^ 1, inputs * outputs).into_iter().map(bf16).collect();
            let w = Weights::Rows { values: &weights, stride: outputs };
            for kernel in Kernel::available() {
                let mut all = vec![0.0; rows * outputs];
                accumulate(kernel, &mut all, Features::Rows(&x), w, [rows, outputs, inputs], Activation::None);
                let row = seed as usize % rows;
                let mut one = vec![0.0; outputs];
                accumulate(kernel, &mut one, Features::Rows(&x[row * inputs..][..inputs]), w, [1, outputs, inputs], Activation::None);
                prop_assert_eq!(&all[row * outputs..][..outputs], &one[..], "{:?}", kernel);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Bit for bit: weights in panels and in rows, a row alone and among others, activated at once and afterwards.
        #[test]
        fn panels_give_what_rows_give(
            rows in 1..40_usize, steps in 1..20_usize, panels in 1..12_usize, gelu in any::<bool>(), seed in any::<u64>(),
        ) {
            let (inputs, outputs) = (steps * STEP, panels * PANEL);
            let x = values(seed, rows * inputs);
            let weights: Vec<u16> = values(seed ^ 1, inputs * outputs).into_iter().map(bf16).collect();
            let panels = packed(&weights, [inputs, outputs]);
            let act = if gelu { Activation::Gelu } else { Activation::None };
            let product = |kernel, x: &[f32], w, rows, act| {
                let mut z = vec![0.5; rows * outputs];
                accumulate(kernel, &mut z, Features::Rows(x), w, [rows, outputs, inputs], act);
                z
            };
            for kernel in Kernel::available() {
                let w = Weights::Rows { values: &weights, stride: outputs };
                let mut expected = product(kernel, &x, w, rows, Activation::None);
                elementwise::activate(&mut expected, act);
                let all = product(kernel, &x, Weights::Panels(&panels), rows, act);
                prop_assert_eq!(&all, &expected, "{:?}", kernel);
                let row = seed as usize % rows;
                let one = product(kernel, &x[row * inputs..][..inputs], Weights::Panels(&panels), 1, act);
                prop_assert_eq!(&one[..], &all[row * outputs..][..outputs], "{:?}", kernel);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Bit for bit: operands rounded while they are packed, and their transposes.
        #[test]
        fn operands_in_f32_and_transposed_give_the_same(
            rows in prop_oneof![1..40_usize, 190..230_usize], inputs in 1..150_usize, outputs in 1..150_usize,
            seed in any::<u64>(),
        ) {
            let (x, weights) = (values(seed, rows * inputs), values(seed ^ 1, inputs * outputs));
            let half: Vec<u16> = weights.iter().copied().map(bf16).collect();
            let transposed = |values: &[f32], columns: usize| -> Vec<f32> {
                let lines = values.len() / columns;
                (0..values.len()).map(|i| values[i % lines * columns + i / lines]).collect()
            };
            let (columns, weight_columns) = (transposed(&x, inputs), transposed(&weights, outputs));
            for kernel in Kernel::available() {
                let product = |x, w| {
                    let mut z = vec![0.5; rows * outputs];
                    accumulate(kernel, &mut z, x, w, [rows, outputs, inputs], Activation::None);
                    z
                };
                let expected = product(Features::Rows(&x), Weights::Rows { values: &half, stride: outputs });
                for x in [Features::Rows(&x), Features::Columns(&columns)] {
                    for w in [
                        Weights::WideRows { values: &weights, stride: outputs },
                        Weights::WideColumns { values: &weight_columns, stride: inputs },
                    ] {
                        // A few rows of weights in bf16 take a path of their own, which adds in the same order.
                        prop_assert_eq!(&product(x, w), &expected, "{:?}", kernel);
                    }
                }
            }
        }
    }

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

    #[test]
    fn rounding_is_to_nearest_even_and_keeps_what_is_not_finite() {
        for (x, expected) in [
            (1.0, 0x3f80),
            (1.0 + 1.0 / 256.0, 0x3f80), // halfway, to even
            (1.0 + 3.0 / 256.0, 0x3f82), // halfway, to even
            (f32::MAX, 0x7f80),
            (f32::NEG_INFINITY, 0xff80),
            (-0.0, 0x8000),
        ] {
            assert_eq!(bf16(x), expected, "{x}");
        }
        assert!(wide(bf16(f32::from_bits(0x7f80_0001))).is_nan());
    }
}
