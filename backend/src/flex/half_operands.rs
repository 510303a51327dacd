//! The operands of a product in bf16, in the order in which micro-kernels read them: what is multiplied row by row,
//! and weights in [panels](crate::panels) of pairs of inputs. Weights that are in panels are read where they lie; of
//! others, each block is packed first. In training both operands are f32, and rounded on the way: so are the transposes
//! that the backward pass multiplies.

use super::simd::simd;
use super::uninit;
pub(super) use crate::panels::{PANEL, STEP};
use rayon::prelude::*;

/// Rows come in multiples of it.
pub(super) const ROWS: usize = 16;

/// Nearest bf16, ties to even; NaN stays NaN.
#[inline(always)]
pub(super) fn bf16(x: f32) -> u16 {
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
    /// Whether the memory holds weights of these sizes.
    pub(super) fn are_of(self, [inputs, outputs]: [usize; 2]) -> bool {
        let holds = |len: usize, stride: usize, [lines, length]: [usize; 2]| {
            stride >= length && (lines == 0 || len >= (lines - 1) * stride + length)
        };
        match self {
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
simd!(
    pack = pack_rows(
        panels: &mut [u16], values: &[u16], stride: usize, inputs: [usize; 3], columns: [usize; 2],
    )
);

simd!(
    pack_wide = pack_rows(
        panels: &mut [u16], values: &[f32], stride: usize, inputs: [usize; 3], columns: [usize; 2],
    )
);

/// The same of weights in columns, through tiles that are written row by row.
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
    for column in (0..width.next_multiple_of(PANEL)).step_by(ROWS) {
        let (panel, within) = (column / PANEL, column % PANEL);
        let out = &mut panels[panel * padded * PANEL..][..padded * PANEL];
        for input in (0..padded).step_by(STEP) {
            let mut tile = [[0_u16; STEP]; ROWS];
            let here = input.min(depth)..depth.min(input + STEP);
            let columns = (column..width).take(ROWS);
            for (tile, column) in tile.iter_mut().zip(columns) {
                let values = &values[(left + column) * stride + first..][here.clone()];
                round_row_body(tile, values);
            }
            let rows = out[input * PANEL..].chunks_exact_mut(2 * PANEL);
            for (pair, row) in rows.take(STEP / 2).enumerate() {
                let row = &mut row[2 * within..][..2 * ROWS];
                for (out, tile) in row.chunks_exact_mut(2).zip(&tile) {
                    out.copy_from_slice(&tile[2 * pair..][..2]);
                }
            }
        }
    }
}
simd!(
    pack_columns = pack_columns_body(
        panels: &mut [u16], values: &[f32], stride: usize, inputs: [usize; 3], columns: [usize; 2],
    )
);

/// `rows` rows of bf16, `padded` values apart, from the first of those that `values` has beside each other for every
/// input, `stride` values apart; zeros follow up to a whole step.
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
        for (half, tile) in half.chunks_mut(padded).zip(&mut tile).take(rows) {
            tile[depth..].fill(0);
            half[block * STEP..][..STEP].copy_from_slice(tile);
        }
    }
}
simd!(
    transpose_rounded = transpose_rounded_body(
        half: &mut [u16], values: &[f32], stride: usize, rows: usize, padded: usize,
    )
);

/// What is multiplied, in bf16: `[rows, padded]`, with zeros appended to rows. Rows up to a whole tile follow that are
/// not set.
pub(super) fn rounded(x: Features<'_>, [rows, inputs]: [usize; 2], padded: usize) -> Vec<u16> {
    let mut half = uninit(padded * rows.next_multiple_of(ROWS));
    match x {
        Features::Rows(x) => half
            .par_chunks_mut(padded)
            .zip(x.par_chunks(inputs))
            .for_each(|(half, x)| {
                round_row(&mut half[..inputs], x);
                half[inputs..].fill(0);
            }),
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let nan = bf16(f32::from_bits(0x7f80_0001));
        assert!(f32::from_bits(u32::from(nan) << 16).is_nan());
    }
}
