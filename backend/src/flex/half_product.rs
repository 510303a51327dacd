//! A product in bf16: blocks of weights stay in the cache while rows pass, and tasks have blocks of columns or of rows.

use super::elementwise::{self, activate};
use super::half::{Block, Kernel};
use super::half_operands::{
    Features, PANEL, ROWS, STEP, Weights, pack, pack_columns, pack_wide, rounded,
};
#[cfg(target_arch = "x86_64")]
use super::half_pairs as pairs;
use super::{Shared, amx, uninit};
use crate::arguments::Activation;
use rayon::prelude::*;
use std::ops::Range;

/// Inputs and panels per block; inputs are whole tiles of the widest instruction. Many rows share the pairs of a block
/// that fills the second-level cache. A few rows are done before it is worth keeping: wide blocks read long runs of
/// memory, and of panels whole ones.
fn block(rows: usize, w: Weights<'_>) -> [usize; 2] {
    match (rows, w) {
        (0..=ROWS, Weights::Panels(_)) => [usize::MAX, 2],
        (_, Weights::Panels(_)) => [usize::MAX, 8],
        (0..=ROWS, _) => [32, 16],
        _ => [DEPTH, 8],
    }
}

/// `z[rows, outputs] = act(x[rows, inputs] · w[inputs, outputs] + bias)`, `x` and `w` rounded to bf16; no bias is zero.
/// `z` may be uninitialized.
pub(crate) fn multiply(
    kernel: Kernel,
    z: &mut [f32],
    x: Features<'_>,
    w: Weights<'_>,
    [rows, outputs, inputs]: [usize; 3],
    bias: Option<&[f32]>,
    act: Activation,
) {
    let (Features::Rows(values) | Features::Columns(values)) = x;
    assert!(z.len() == rows * outputs && values.len() == rows * inputs);
    assert!(w.are_of([inputs, outputs]) && bias.is_none_or(|bias| bias.len() == outputs));
    let begin = |z: &mut [f32], columns: Range<usize>| match bias {
        Some(bias) => z.copy_from_slice(&bias[columns]),
        None => z.fill(0.0),
    };
    if z.is_empty() {
        return;
    }
    if inputs == 0 {
        z.chunks_exact_mut(outputs)
            .for_each(|z| begin(z, 0..outputs));
        return activate(z, act);
    }
    let padded = inputs.next_multiple_of(STEP);
    let half = rounded(x, [rows, inputs], padded);
    #[cfg(target_arch = "x86_64")]
    if let Weights::Rows { values, stride } = w
        && kernel == Kernel::Pairs
        && pairs::few(rows, outputs, inputs)
    {
        z.chunks_exact_mut(outputs)
            .for_each(|z| begin(z, 0..outputs));
        pairs::accumulate_few(z, &half, values, stride, [rows, outputs, inputs], padded);
        return activate(z, act);
    }
    // One block of columns per thread, or several; of few columns, which do not divide well, a block of rows each. What
    // a task has changes no sum.
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
                (packed, uninit(SHARING * PANEL))
            },
            |(packed, sums), task| {
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
                        let rows = start..bottom.min(start + SHARING);
                        if let Weights::Panels(_) = w {
                            for column in (0..width).step_by(PANEL) {
                                let panel = &panels[column * inputs..][..inputs * PANEL];
                                let begin = |z: &mut [f32]| {
                                    let column = left + column;
                                    begin(z, column..column + PANEL);
                                };
                                // SAFETY: no other task has these rows and columns.
                                unsafe {
                                    product.whole_panel(
                                        panel,
                                        left + column,
                                        rows.clone(),
                                        begin,
                                        sums,
                                    )
                                };
                            }
                            continue;
                        }
                        if first == 0 {
                            for row in rows.clone() {
                                // SAFETY: no other task has these rows and columns.
                                let z = unsafe { product.z.part(row * outputs + left, width) };
                                begin(z, left..left + width);
                            }
                        }
                        for panel in 0..width.div_ceil(PANEL) {
                            let panel = Panel {
                                weights: &panels[panel * apart..][..deep * PANEL],
                                first,
                                column: left + panel * PANEL,
                                columns: PANEL.min(width - panel * PANEL),
                                last,
                            };
                            // SAFETY: no other task has these rows and columns.
                            let edge = &mut sums[..ROWS * PANEL];
                            unsafe { product.panel(panel, rows.clone(), edge) };
                        }
                    }
                }
            },
        );
}

/// Inputs between reading and writing the sums.
const DEPTH: usize = 512;

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
    /// The product of some rows and a panel of all inputs. Its sums stay in the first-level cache: rows of `z` lie so
    /// far apart that it has few places for them.
    ///
    /// # Safety
    /// As [`panel`](Self::panel).
    unsafe fn whole_panel(
        &self,
        panel: &[u16],
        column: usize,
        rows: Range<usize>,
        begin: impl Fn(&mut [f32]),
        sums: &mut [f32],
    ) {
        let blocks = || (0..rows.len()).step_by(self.kernel.rows());
        let sums = &mut sums[..rows.len().next_multiple_of(ROWS) * PANEL];
        sums.chunks_exact_mut(PANEL).for_each(begin);
        for (part, weights) in panel.chunks(self.kernel.depth() * PANEL).enumerate() {
            for first in blocks() {
                let input = part * self.kernel.depth();
                let block = Block {
                    x: self.x[(rows.start + first) * self.x_stride + input..].as_ptr(),
                    x_stride: self.x_stride,
                    panel: weights.as_ptr(),
                    pairs: weights.len() / (2 * PANEL),
                    sums: sums[first * PANEL..].as_mut_ptr(),
                    stride: PANEL,
                };
                let here = self.kernel.rows().min(rows.len() - first);
                // SAFETY: x has whole tiles of rows, as the sums do; the caller's contract.
                unsafe { self.kernel.run(here, block) };
            }
        }
        for (row, sums) in rows.zip(sums.chunks_exact_mut(PANEL)) {
            if let Some(activate) = self.activate {
                activate(sums);
            }
            // SAFETY: the caller's contract.
            unsafe { self.z.part(row * self.outputs + column, PANEL) }.copy_from_slice(sums);
        }
    }

    /// Adds the product of some rows and a panel, a part of the inputs after the other: that part of the panel stays in
    /// the second-level cache while the rows pass.
    ///
    /// # Safety
    /// No other thread uses these rows and columns of `z`, and the thread's tiles are configured for [`Kernel::Tiles`].
    unsafe fn panel(&self, panel: Panel<'_>, rows: Range<usize>, edge: &mut [f32]) {
        let parts = panel.weights.chunks(DEPTH * PANEL);
        let count = parts.len();
        for (index, weights) in parts.enumerate() {
            let part = Panel {
                weights,
                first: panel.first + index * DEPTH,
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
    use crate::flex::half_operands::{bf16, packed};
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

        /// Within 1e-5 of the sum of magnitudes; the weight being cut out of a wider one, with a bias.
        #[test]
        fn every_kernel_gives_the_product_of_the_rounded_values(
            rows in size(), inputs in size(), outputs in size(), gap in 0..3_usize, seed in any::<u64>(),
        ) {
            let (x, stride) = (values(seed, rows * inputs), outputs + gap);
            let weights: Vec<u16> = values(seed ^ 1, inputs * stride).into_iter().map(bf16).collect();
            let bias = values(seed ^ 2, outputs);
            for kernel in Kernel::available() {
                let mut z = vec![f32::NAN; rows * outputs];
                let (x_rows, w) = (Features::Rows(&x), Weights::Rows { values: &weights, stride });
                multiply(kernel, &mut z, x_rows, w, [rows, outputs, inputs], Some(&bias), Activation::None);
                for (i, &found) in z.iter().enumerate() {
                    let (row, column) = (i / outputs, i % outputs);
                    let term = |input: usize| {
                        let x = wide(bf16(x[row * inputs + input]));
                        f64::from(x) * f64::from(wide(weights[input * stride + column]))
                    };
                    let exact = f64::from(bias[column]) + (0..inputs).map(term).sum::<f64>();
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
                let mut all = vec![f32::NAN; rows * outputs];
                multiply(kernel, &mut all, Features::Rows(&x), w, [rows, outputs, inputs], None, Activation::None);
                let row = seed as usize % rows;
                let mut one = vec![f32::NAN; outputs];
                let alone = Features::Rows(&x[row * inputs..][..inputs]);
                multiply(kernel, &mut one, alone, w, [1, outputs, inputs], None, Activation::None);
                prop_assert_eq!(&all[row * outputs..][..outputs], &one[..], "{:?}", kernel);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Bit for bit: weights in panels and in rows, a row alone and among others, activated at once and afterwards.
        #[test]
        fn panels_give_what_rows_give(
            rows in 1..40_usize, steps in 1..20_usize, panels in 1..12_usize, gelu in any::<bool>(),
            seed in any::<u64>(),
        ) {
            let (inputs, outputs) = (steps * STEP, panels * PANEL);
            let x = values(seed, rows * inputs);
            let weights: Vec<u16> = values(seed ^ 1, inputs * outputs).into_iter().map(bf16).collect();
            let panels = packed(&weights, [inputs, outputs]);
            let act = if gelu { Activation::Gelu } else { Activation::None };
            let product = |kernel, x: &[f32], w, rows, act| {
                let (mut z, bias) = (vec![f32::NAN; rows * outputs], vec![0.5; outputs]);
                multiply(kernel, &mut z, Features::Rows(x), w, [rows, outputs, inputs], Some(&bias), act);
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
                    let mut z = vec![f32::NAN; rows * outputs];
                    multiply(kernel, &mut z, x, w, [rows, outputs, inputs], None, Activation::None);
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
}
