//! `z += x W` in f32 for some dozens of rows of `x`, on x86-64, as when a token of each of many images is drawn. A
//! block of weights is copied into panels, which stay in the second-level cache while the rows pass; meanwhile the next
//! block is prefetched. A general product would read the weights where they lie, mostly a power of two apart, for which
//! a cache has few places. Of weights that are kept in panels nothing is copied, and all numbers of rows come here.
//!
//! An element's order of summation is that of [`Product`](super::matmul::Product) and of [`few_rows`](super::few_rows):
//! fused multiply-adds within [`DEPTH`] inputs, then the parts in order.

use super::few_rows::{Weights, widen};
use super::matmul::{DEPTH, Rows, Threads};
use super::{Shared, simd, uninit};
use crate::instructions::Instructions;
use crate::panels::PANEL;
use rayon::prelude::*;
use std::arch::x86_64::{
    _MM_HINT_T0, _MM_HINT_T1, _mm_prefetch, _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps, _mm512_add_ps, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};
use std::ops::Range;

/// The most rows that packing f32 weights pays for: with more, a general product is as fast.
pub(crate) const MOST: usize = 256;

/// Rows that a micro-kernel takes at once.
const ROWS: usize = 6;
/// Panels of a task: with what [`SHARING`] rows take, they fill half of a second-level cache of 1 MB.
const PANELS: usize = 2;
/// Rows that a panel is multiplied by before the next one is.
const SHARING: usize = 96;
/// The same of weights in panels, of which nothing but the panels must stay in the cache.
const GROUP: usize = 48;
/// Inputs that a micro-kernel multiplies between one test of its loop and the next.
const UNROLL: usize = 4;
/// Tasks per thread, of weights in panels, that leave no thread idle for long.
const TASKS: usize = 4;

/// Some rows times a panel: `sums[rows, PANEL] += x panel`.
#[derive(Clone, Copy)]
struct Block {
    /// `depth` values per row, `x_stride` from row to row.
    x: *const f32,
    x_stride: usize,
    depth: usize,
    /// `[depth, PANEL]`
    panel: *const f32,
    /// `stride` values from row to row.
    sums: *mut f32,
    stride: usize,
    next: Prefetch,
}

/// Rows of weights to prefetch during a micro-kernel.
#[derive(Clone, Copy)]
struct Prefetch {
    first: *const u8,
    /// Bytes from row to row.
    stride: usize,
    /// Cache lines of a row.
    lines: usize,
    /// Inputs that are multiplied between a row and the next.
    interval: usize,
}

impl Prefetch {
    const LINE: usize = 64;

    const NOTHING: Self = Self {
        first: std::ptr::null(),
        stride: 0,
        lines: 0,
        interval: usize::MAX / 2,
    };

    /// All of a part of a panel, within so many micro-kernels of `depth` inputs each.
    fn of_panel(panel: &[f32], depth: usize, calls: usize) -> Self {
        let row = PANEL * size_of::<f32>();
        Self {
            first: panel.as_ptr().cast(),
            stride: row,
            lines: row / Self::LINE,
            interval: (depth / (panel.len() / PANEL).div_ceil(calls)).max(1),
        }
    }

    /// The rows that follow those of `depth` inputs.
    fn after(self, depth: usize) -> Self {
        let rows = depth.div_ceil(self.interval);
        Self {
            first: self.first.wrapping_add(rows * self.stride),
            ..self
        }
    }
}

/// A micro-kernel: `N` rows and, one after the other, as many columns as leave all sums in registers.
macro_rules! micro_kernel {
    ($name:ident: $features:literal, $lanes:literal x $vectors:literal, $zero:ident $load:ident $splat:ident
     $fma:ident $add:ident $store:ident) => {
        /// # Safety
        /// The processor has the instructions, and the pointers hold what [`Block`] says for `N` rows.
        #[target_feature(enable = $features)]
        unsafe fn $name<const N: usize>(block: Block) {
            let Block {
                x,
                x_stride,
                depth,
                panel,
                sums,
                stride,
                mut next,
            } = block;
            for first in (0..PANEL).step_by($lanes * $vectors) {
                let column = |vector: usize| first + $lanes * vector;
                for row in 0..N {
                    for vector in 0..$vectors {
                        let sums = sums.wrapping_add(row * stride + column(vector));
                        _mm_prefetch::<_MM_HINT_T0>(sums.cast());
                    }
                }
                let mut acc = [[$zero(); $vectors]; N];
                let mut multiply = |input: usize| {
                    // SAFETY: the caller's contract, here and below.
                    let weights: [_; $vectors] = std::array::from_fn(|vector| unsafe {
                        $load(panel.add(input * PANEL + column(vector)))
                    });
                    for (row, acc) in acc.iter_mut().enumerate() {
                        // SAFETY: as above.
                        let x = $splat(unsafe { *x.add(row * x_stride + input) });
                        for (acc, weights) in acc.iter_mut().zip(weights) {
                            *acc = $fma(weights, x, *acc);
                        }
                    }
                };
                let mut start = 0;
                while start < depth {
                    for line in 0..next.lines {
                        let line = next.first.wrapping_add(Prefetch::LINE * line);
                        _mm_prefetch::<_MM_HINT_T1>(line.cast());
                    }
                    let end = depth.min(start + next.interval);
                    let whole = end - (end - start) % UNROLL;
                    for input in (start..whole).step_by(UNROLL) {
                        (0..UNROLL).for_each(|i| multiply(input + i));
                    }
                    (whole..end).for_each(&mut multiply);
                    next.first = next.first.wrapping_add(next.stride);
                    start = end;
                }
                for (row, acc) in acc.into_iter().enumerate() {
                    for (vector, acc) in acc.into_iter().enumerate() {
                        // SAFETY: as above.
                        unsafe {
                            let at = sums.add(row * stride + column(vector));
                            $store(at, $add($load(at), acc));
                        }
                    }
                }
                // Once per block.
                next = Prefetch::NOTHING;
            }
        }
    };
}
micro_kernel!(avx512: "avx512f", 16 x 4, _mm512_setzero_ps _mm512_loadu_ps _mm512_set1_ps _mm512_fmadd_ps
    _mm512_add_ps _mm512_storeu_ps);
micro_kernel!(avx2: "avx2,fma", 8 x 2, _mm256_setzero_ps _mm256_loadu_ps _mm256_set1_ps _mm256_fmadd_ps
    _mm256_add_ps _mm256_storeu_ps);

impl Block {
    /// # Safety
    /// [`simd::fused`]; the pointers hold what the block says for `rows` rows, at most [`ROWS`].
    unsafe fn run(self, rows: usize) {
        // SAFETY: the caller's contract.
        unsafe {
            match (Instructions::used() >= Instructions::Avx512, rows) {
                (true, 1) => avx512::<1>(self),
                (true, 2) => avx512::<2>(self),
                (true, 3) => avx512::<3>(self),
                (true, 4) => avx512::<4>(self),
                (true, 5) => avx512::<5>(self),
                (true, _) => avx512::<ROWS>(self),
                (false, 1) => avx2::<1>(self),
                (false, 2) => avx2::<2>(self),
                (false, 3) => avx2::<3>(self),
                (false, 4) => avx2::<4>(self),
                (false, 5) => avx2::<5>(self),
                (false, _) => avx2::<ROWS>(self),
            }
        }
    }
}

/// A weight in memory.
trait Value: Copy + Sync {
    fn widen(out: &mut [f32], values: &[Self]);
}

impl Value for f32 {
    fn widen(out: &mut [f32], values: &[Self]) {
        out.copy_from_slice(values);
    }
}

/// A bf16.
impl Value for u16 {
    fn widen(out: &mut [f32], values: &[Self]) {
        widen(out, values);
    }
}

/// Weights `[inputs, outputs]` in memory, `stride` values from input to input.
#[derive(Clone, Copy)]
struct Matrix<'a, T> {
    values: &'a [T],
    stride: usize,
}

impl<T: Value> Matrix<'_, T> {
    fn at(self, input: usize, column: usize) -> *const T {
        self.values[input * self.stride + column..].as_ptr()
    }

    /// Some inputs and columns as `[panels, depth, PANEL]`, with zeros where there are no columns.
    fn pack(self, panels: &mut [f32], inputs: Range<usize>, columns: Range<usize>) {
        let panels = panels.chunks_exact_mut(inputs.len() * PANEL);
        for (panel, first) in panels.zip(columns.clone().step_by(PANEL)) {
            let width = PANEL.min(columns.end - first);
            for (panel, input) in panel.chunks_exact_mut(PANEL).zip(inputs.clone()) {
                let values = &self.values[input * self.stride + first..][..width];
                T::widen(&mut panel[..width], values);
                panel[width..].fill(0.0);
            }
        }
    }
}

/// A weight `[inputs, outputs]` in [panels](crate::panels).
pub(crate) fn packed(values: &[f32], [inputs, outputs]: [usize; 2]) -> Vec<f32> {
    let w = Matrix {
        values,
        stride: outputs,
    };
    let mut panels = uninit(inputs * outputs);
    panels
        .par_chunks_mut(inputs * PANEL)
        .enumerate()
        .for_each(|(panel, out)| w.pack(out, 0..inputs, panel * PANEL..(panel + 1) * PANEL));
    panels
}

/// `z[rows, outputs] += x[rows, inputs] · w[inputs, outputs]`.
///
/// # Panics
/// If the processor has no fused multiply-add: see [`simd::fused`].
pub(crate) fn accumulate(
    z: &mut [f32],
    x: &[f32],
    w: Weights<'_>,
    sizes: [usize; 3],
    threads: Threads,
) {
    match w {
        Weights::F32(Rows { values, stride }) => {
            accumulate_values(z, x, Matrix { values, stride }, sizes, threads);
        }
        Weights::Bf16 { values, stride } => {
            accumulate_values(z, x, Matrix { values, stride }, sizes, threads);
        }
    }
}

fn accumulate_values<T: Value>(
    z: &mut [f32],
    x: &[f32],
    w: Matrix<'_, T>,
    [rows, outputs, inputs]: [usize; 3],
    threads: Threads,
) {
    assert!(simd::fused());
    assert!(z.len() == rows * outputs && x.len() == rows * inputs);
    assert!(inputs == 0 || w.values.len() >= (inputs - 1) * w.stride + outputs);
    if z.is_empty() || inputs == 0 {
        return;
    }
    let workers = threads.count();
    // Blocks of columns; of few columns, which do not divide well, a block of rows each. What a task has changes no
    // sum.
    let panels = outputs.div_ceil(PANEL);
    let by_rows = panels < 8 * workers && rows >= SHARING * workers;
    let (width, height) = match by_rows {
        true => (panels.min(PANELS) * PANEL, rows.div_ceil(workers)),
        false => (panels.div_ceil(workers).min(PANELS) * PANEL, rows),
    };
    let across = outputs.div_ceil(width);
    let product = Product {
        x,
        inputs,
        z: Shared(z.as_mut_ptr()),
        outputs,
    };
    let scratch = || (uninit(width * DEPTH.min(inputs)), [0.0; ROWS * PANEL]);
    let run = |(panels, edge): &mut (Vec<f32>, [f32; ROWS * PANEL]), task: usize| {
        let (left, top) = (task % across * width, task / across * height);
        let (columns, rows) = (left..outputs.min(left + width), top..rows.min(top + height));
        for first in (0..inputs).step_by(DEPTH) {
            let part = first..inputs.min(first + DEPTH);
            w.pack(panels, part.clone(), columns.clone());
            // Next are more inputs, or else most often the columns beside these.
            let (input, column) = match part.end < inputs {
                true => (part.end, left),
                false => (0, columns.end),
            };
            let calls = rows.len().div_ceil(ROWS) * columns.len().div_ceil(PANEL);
            let following = DEPTH.min(inputs - input);
            let mut next = Prefetch {
                stride: w.stride * size_of::<T>(),
                lines: width * size_of::<T>() / Prefetch::LINE,
                interval: (part.len() / following.div_ceil(calls)).max(1),
                ..Prefetch::NOTHING
            };
            match column < outputs {
                true => next.first = w.at(input, column).cast(),
                false => next = Prefetch::NOTHING,
            }
            for start in rows.clone().step_by(SHARING) {
                let rows = start..rows.end.min(start + SHARING);
                let panels = panels.chunks_exact(part.len() * PANEL);
                for (panel, column) in panels.zip(columns.clone().step_by(PANEL)) {
                    let columns = column..columns.end.min(column + PANEL);
                    for first in rows.clone().step_by(ROWS) {
                        let rows = first..rows.end.min(first + ROWS);
                        let operands = (panel, part.clone(), next);
                        // SAFETY: no other task has these rows and columns.
                        unsafe { product.block(operands, rows, columns.clone(), edge) };
                        next = next.after(part.len());
                    }
                }
            }
        }
    };
    let tasks = 0..across * rows.div_ceil(height);
    match threads {
        Threads::One => {
            let mut scratch = scratch();
            tasks.for_each(|task| run(&mut scratch, task));
        }
        Threads::All => tasks.into_par_iter().for_each_init(scratch, run),
    }
}

/// The same of weights in [panels](crate::panels), `[outputs / 64, inputs, 64]`: nothing is copied, so it pays for any
/// number of rows.
///
/// # Panics
/// As [`accumulate`].
pub(crate) fn accumulate_packed(
    z: &mut [f32],
    x: &[f32],
    panels: &[f32],
    [rows, outputs, inputs]: [usize; 3],
    threads: Threads,
) {
    assert!(simd::fused());
    assert!(z.len() == rows * outputs && x.len() == rows * inputs);
    assert!(outputs.is_multiple_of(PANEL) && panels.len() == inputs * outputs);
    if z.is_empty() || inputs == 0 {
        return;
    }
    let (workers, count) = (threads.count(), outputs / PANEL);
    let most = match rows > GROUP {
        true => 2 * PANELS,
        false => PANELS,
    };
    // Panels of a task; of few, a task has some of the rows.
    let width = count.div_ceil(workers).min(most);
    let across = count.div_ceil(width);
    let down = (TASKS * workers).div_ceil(across);
    let down = down.min(rows.div_ceil(GROUP / 2));
    let height = rows.div_ceil(down).next_multiple_of(ROWS);
    let part = |start: usize| start..inputs.min(start + DEPTH);
    let panel = |index: usize, part: Range<usize>| {
        &panels[index * inputs * PANEL..][part.start * PANEL..part.end * PANEL]
    };
    let product = Product {
        x,
        inputs,
        z: Shared(z.as_mut_ptr()),
        outputs,
    };
    let run = |task: usize| {
        let (left, top) = (task % across * width, task / across * height);
        let (right, bottom) = (count.min(left + width), rows.min(top + height));
        for start in (0..inputs).step_by(DEPTH) {
            for first in (top..bottom).step_by(GROUP) {
                let last = bottom.min(first + GROUP);
                for index in left..right {
                    // Next is the panel beside this one, which later rows find where it is, or else more inputs, or
                    // the next task's first panel.
                    let following = match index + 1 < right {
                        true if first == top => Some((index + 1, start)),
                        true => None,
                        false if last < bottom => None,
                        false if start + DEPTH < inputs => Some((left, start + DEPTH)),
                        false => (right < count).then_some((right, 0)),
                    };
                    let calls = (last - first).div_ceil(ROWS);
                    let mut next = following.map_or(Prefetch::NOTHING, |(index, first)| {
                        Prefetch::of_panel(panel(index, part(first)), part(start).len(), calls)
                    });
                    for row in (first..last).step_by(ROWS) {
                        let operands = (panel(index, part(start)), part(start), next);
                        let columns = index * PANEL..(index + 1) * PANEL;
                        // SAFETY: no other task has these rows and columns.
                        unsafe {
                            product.block(operands, row..last.min(row + ROWS), columns, &mut []);
                        }
                        next = next.after(part(start).len());
                    }
                }
            }
        }
    };
    let tasks = 0..across * rows.div_ceil(height);
    match threads {
        Threads::One => tasks.for_each(run),
        Threads::All => tasks.into_par_iter().for_each(run),
    }
}

/// What all blocks have in common.
struct Product<'a> {
    /// `[rows, inputs]`
    x: &'a [f32],
    inputs: usize,
    /// `[rows, outputs]`
    z: Shared<f32>,
    outputs: usize,
}

impl Product<'_> {
    /// Adds the product of a micro-kernel's rows and a panel of some inputs.
    ///
    /// # Safety
    /// No other thread uses these rows and columns of `z`.
    unsafe fn block(
        &self,
        (panel, inputs, next): (&[f32], Range<usize>, Prefetch),
        rows: Range<usize>,
        columns: Range<usize>,
        edge: &mut [f32],
    ) {
        let block = Block {
            x: self.x[rows.start * self.inputs + inputs.start..].as_ptr(),
            x_stride: self.inputs,
            depth: inputs.len(),
            panel: panel.as_ptr(),
            sums: { self.z }
                .0
                .wrapping_add(rows.start * self.outputs + columns.start),
            stride: self.outputs,
            next,
        };
        if columns.len() == PANEL {
            // SAFETY: the slices hold what the block says.
            return unsafe { block.run(rows.len()) };
        }
        // A kernel writes whole panels: at the edge beside the matrix.
        // SAFETY: the rows and columns lie in `z`, and nobody else uses them.
        let sums = |row| unsafe {
            self.z
                .part(row * self.outputs + columns.start, columns.len())
        };
        for (edge, row) in edge.chunks_exact_mut(PANEL).zip(rows.clone()) {
            edge[..columns.len()].copy_from_slice(sums(row));
        }
        let (at, stride) = (edge.as_mut_ptr(), PANEL);
        let block = Block {
            sums: at,
            stride,
            ..block
        };
        // SAFETY: the edge holds the rows of a panel.
        unsafe { block.run(rows.len()) };
        for (edge, row) in edge.chunks_exact(PANEL).zip(rows) {
            sums(row).copy_from_slice(&edge[..columns.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flex::few_rows;
    use crate::flex::half_operands::bf16;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        /// Bit for bit, whatever the rows, the threads and the type of the weights, which are cut out of wider ones.
        #[test]
        fn sums_are_those_of_a_few_rows(
            rows in prop_oneof![1..20_usize, 90..110_usize, Just(200)],
            inputs in prop_oneof![0..70_usize, Just(511), Just(513), Just(1100)],
            outputs in prop_oneof![0..140_usize, Just(256), Just(1030)],
            gap in 0..3_usize, seed in any::<u64>(),
        ) {
            let values = |seed: u64, len: usize| -> Vec<f32> {
                let mut rng = crate::Rng::new(seed, 0);
                (0..len).map(|_| rng.normal()).collect()
            };
            let (x, stride) = (values(seed, rows * inputs), outputs + gap);
            let weights = values(seed ^ 1, inputs * stride);
            let half: Vec<u16> = weights.iter().copied().map(bf16).collect();
            let start = values(seed ^ 2, rows * outputs);
            if !simd::fused() {
                return Ok(());
            }
            for w in [
                Weights::F32(Rows { values: &weights, stride }),
                Weights::Bf16 { values: &half, stride },
            ] {
                let mut expected = start.clone();
                let each = expected.chunks_mut((4 * outputs).max(1)).zip(x.chunks((4 * inputs).max(1)));
                for (z, x) in each {
                    few_rows::accumulate(z, x, w, [z.len() / outputs, outputs, inputs]);
                }
                for threads in [Threads::One, Threads::All] {
                    let mut found = start.clone();
                    accumulate(&mut found, &x, w, [rows, outputs, inputs], threads);
                    prop_assert_eq!(&found, &expected, "{:?}", threads);
                }
            }
            // In panels: as many columns as fill some.
            let outputs = outputs / PANEL * PANEL;
            let mut expected = vec![0.0; rows * outputs];
            let w = Weights::F32(Rows { values: &weights, stride });
            accumulate(&mut expected, &x, w, [rows, outputs, inputs], Threads::One);
            let panel = |panel: usize| (0..inputs).map(move |input| input * stride + panel * PANEL);
            let panels = (0..outputs / PANEL).flat_map(panel);
            let panels: Vec<f32> = panels.flat_map(|at| &weights[at..at + PANEL]).copied().collect();
            for threads in [Threads::One, Threads::All] {
                let mut found = vec![0.0; rows * outputs];
                accumulate_packed(&mut found, &x, &panels, [rows, outputs, inputs], threads);
                prop_assert_eq!(&found, &expected, "in panels, {:?}", threads);
            }
        }
    }
}
