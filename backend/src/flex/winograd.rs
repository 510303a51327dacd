//! 3×3 convolution at stride 1 by Winograd's F(4×4, 3×3) (Lavin & Gray, 2016, section 4.3): tiles of 6×6 values and the
//! kernels are transformed to 36 points, multiplied there (36 matrix products over the channels), and transformed back
//! to 4×4 outputs: a quarter of the multiplications of the sum over patches.
//!
//! The points are 0, ±√½, ±√2 and ∞ rather than the usual 0, ±1, ±2, ∞: with them the largest error is that of a plain
//! f32 sum over the patch (1.0e-5 against 0.9e-5 of the outputs' standard deviation at 256 channels; the usual points:
//! 3.6e-5).

use super::matmul::{Matrix, Product, Threads};
use super::simd::simd;
use super::{Shared, filled, uninit};
use rayon::prelude::*;

/// Outputs of a tile, in each direction.
const TILE: usize = 4;
/// Values of a tile, in each direction: the outputs and what the kernel reaches.
const SIDE: usize = 6;
/// The points at which products are computed.
const POINTS: usize = SIDE * SIDE;
/// Approximate number of tiles per task.
const BLOCK: usize = 64;

const A: f32 = std::f32::consts::FRAC_1_SQRT_2;
const B: f32 = std::f32::consts::SQRT_2;

/// Sizes of one convolution: pictures of `[inputs, height, width]` to `[outputs, out_height, out_width]`, zeros above
/// and to the left.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub inputs: usize,
    pub outputs: usize,
    pub input: [usize; 2],
    pub output: [usize; 2],
    pub pad: [usize; 2],
}

impl Sizes {
    /// Whether there are enough pixels for the transforms of kernels and tiles to pay.
    pub fn pay(&self) -> bool {
        self.inputs.min(self.outputs) >= 16 && self.output[0] * self.output[1] >= 1024
    }

    fn tiles(&self) -> [usize; 2] {
        self.output.map(|side| side.div_ceil(TILE))
    }

    /// Rows of tiles per task, whatever the batch.
    fn block_rows(&self) -> usize {
        let [rows, columns] = self.tiles();
        (BLOCK / columns).clamp(1, rows)
    }
}

/// One direction of `G g Gᵀ`: three taps to six points.
fn kernel_points([g0, g1, g2]: [f32; 3]) -> [f32; SIDE] {
    let (near, near_odd) = ((g0 + 0.5 * g2) / -1.5, A * g1 / -1.5);
    let (far, far_odd) = ((g0 + 2.0 * g2) / 6.0, B * g1 / 6.0);
    [
        g0,
        near + near_odd,
        near - near_odd,
        far + far_odd,
        far - far_odd,
        g2,
    ]
}

/// [`kernel_points`] of three rows of taps, one value per kernel.
#[inline(always)]
fn taps_to_points_body(points: [&mut [f32]; SIDE], taps: [&[f32]; 3], kernels: usize) {
    let [p0, p1, p2, p3, p4, p5] = points.map(|p| &mut p[..kernels]);
    let g = taps.map(|taps| &taps[..kernels]);
    for k in 0..kernels {
        let p = kernel_points([g[0][k], g[1][k], g[2][k]]);
        (p0[k], p1[k], p2[k], p3[k], p4[k], p5[k]) = (p[0], p[1], p[2], p[3], p[4], p[5]);
    }
}
simd!(taps_to_points = taps_to_points_body(points: [&mut [f32]; SIDE], taps: [&[f32]; 3], kernels: usize));

/// The kernels at the points, `[POINTS, outputs, inputs]`; `kernel(output, input)` are nine taps.
fn kernels(sizes: Sizes, kernel: impl Fn(usize, usize) -> [f32; 9] + Sync) -> Vec<f32> {
    let (outputs, inputs) = (sizes.outputs, sizes.inputs);
    filled(POINTS * outputs * inputs, |points| {
        let points = Shared(points.as_mut_ptr());
        // The rows of an output are far apart, and at the same distance, for which a cache has few places: they are
        // written one after the other.
        let scratch = || [9, 3 * SIDE, SIDE].map(|rows| uninit(rows * inputs));
        (0..outputs)
            .into_par_iter()
            .for_each_init(scratch, |[taps, columns, rows], output| {
                for input in 0..inputs {
                    for (tap, value) in kernel(output, input).into_iter().enumerate() {
                        taps[tap * inputs + input] = value;
                    }
                }
                let tap = |i: usize, j: usize| &taps[(3 * i + j) * inputs..][..inputs];
                for (j, columns) in columns.chunks_exact_mut(SIDE * inputs).enumerate() {
                    let down = [tap(0, j), tap(1, j), tap(2, j)];
                    taps_to_points(each_row(columns, inputs), down, inputs);
                }
                let column = |i: usize, j: usize| &columns[(j * SIDE + i) * inputs..][..inputs];
                for i in 0..SIDE {
                    let along = [column(i, 0), column(i, 1), column(i, 2)];
                    taps_to_points(each_row(rows, inputs), along, inputs);
                    for (j, row) in rows.chunks_exact(inputs).enumerate() {
                        let at = ((i * SIDE + j) * outputs + output) * inputs;
                        // SAFETY: each output has its own rows of every point.
                        unsafe { { points }.part(at, inputs) }.copy_from_slice(row);
                    }
                }
            });
    })
}

/// Six rows of `len` values.
fn each_row(values: &mut [f32], len: usize) -> [&mut [f32]; SIDE] {
    let mut rows = values.chunks_exact_mut(len);
    std::array::from_fn(|_| rows.next().expect("there are six rows"))
}

/// One direction of `Bᵀ d B`: six values to six points.
#[inline(always)]
fn input_points(d: [f32; SIDE]) -> [f32; SIDE] {
    let (near, near_odd) = (
        (-2.0_f32).mul_add(d[2], d[4]),
        A * (-2.0_f32).mul_add(d[1], d[3]),
    );
    let (far, far_odd) = (
        (-0.5_f32).mul_add(d[2], d[4]),
        B * (-0.5_f32).mul_add(d[1], d[3]),
    );
    [
        (-2.5_f32).mul_add(d[2], d[0] + d[4]),
        near + near_odd,
        near - near_odd,
        far + far_odd,
        far - far_odd,
        (-2.5_f32).mul_add(d[3], d[1] + d[5]),
    ]
}

/// Down the columns: six rows of `len` values to six rows of points.
#[inline(always)]
fn columns_to_points_body(points: &mut [f32], rows: &[f32], len: usize) {
    let row = |i: usize| &rows[i * len..(i + 1) * len];
    let d = [row(0), row(1), row(2), row(3), row(4), row(5)];
    let (p0, rest) = points.split_at_mut(len);
    let (p1, rest) = rest.split_at_mut(len);
    let (p2, rest) = rest.split_at_mut(len);
    let (p3, rest) = rest.split_at_mut(len);
    let (p4, p5) = rest.split_at_mut(len);
    let p5 = &mut p5[..len];
    for x in 0..len {
        let p = input_points([d[0][x], d[1][x], d[2][x], d[3][x], d[4][x], d[5][x]]);
        (p0[x], p1[x], p2[x], p3[x], p4[x], p5[x]) = (p[0], p[1], p[2], p[3], p[4], p[5]);
    }
}
simd!(columns_to_points = columns_to_points_body(points: &mut [f32], rows: &[f32], len: usize));

/// Every fourth value of a row, four times: values `4 t + phase` of the tiles `t`.
#[inline(always)]
fn split_phases_body(phases: &mut [f32], row: &[f32], tiles: usize) {
    let (p0, rest) = phases.split_at_mut(tiles);
    let (p1, rest) = rest.split_at_mut(tiles);
    let (p2, p3) = rest.split_at_mut(tiles);
    for (t, four) in row.chunks_exact(TILE).take(tiles).enumerate() {
        (p0[t], p1[t], p2[t], p3[t]) = (four[0], four[1], four[2], four[3]);
    }
}
simd!(split_phases = split_phases_body(phases: &mut [f32], row: &[f32], tiles: usize));

/// Along a row: the values of all its tiles to six rows of points, one value per tile.
#[inline(always)]
fn rows_to_points_body(points: [&mut [f32]; SIDE], phases: &[f32], tiles: usize) {
    let [p0, p1, p2, p3, p4, p5] = points.map(|p| &mut p[..tiles]);
    let phase = |i: usize, from: usize| &phases[i * (tiles + 1) + from..][..tiles];
    // The last two values of a tile are the first two of the next one.
    let d = [
        phase(0, 0),
        phase(1, 0),
        phase(2, 0),
        phase(3, 0),
        phase(0, 1),
        phase(1, 1),
    ];
    for t in 0..tiles {
        let p = input_points([d[0][t], d[1][t], d[2][t], d[3][t], d[4][t], d[5][t]]);
        (p0[t], p1[t], p2[t], p3[t], p4[t], p5[t]) = (p[0], p[1], p[2], p[3], p[4], p[5]);
    }
}
simd!(rows_to_points = rows_to_points_body(points: [&mut [f32]; SIDE], phases: &[f32], tiles: usize));

/// One direction of `Aᵀ m A`: six points to four outputs.
#[inline(always)]
fn outputs_of(m: [f32; SIDE]) -> [f32; TILE] {
    let (near, near_odd) = (m[1] + m[2], A * (m[1] - m[2]));
    let (far, far_odd) = (m[3] + m[4], B * (m[3] - m[4]));
    [
        m[0] + near + far,
        near_odd + far_odd,
        0.5_f32.mul_add(near, 2.0 * far),
        0.5_f32.mul_add(near_odd, 2.0_f32.mul_add(far_odd, m[5])),
    ]
}

/// Down the columns: six points of `tiles` tiles to their four rows of outputs.
#[inline(always)]
fn points_to_columns_body(outputs: [&mut [f32]; TILE], points: [&[f32]; SIDE], tiles: usize) {
    let [o0, o1, o2, o3] = outputs.map(|o| &mut o[..tiles]);
    let m = points.map(|p| &p[..tiles]);
    for t in 0..tiles {
        let o = outputs_of([m[0][t], m[1][t], m[2][t], m[3][t], m[4][t], m[5][t]]);
        (o0[t], o1[t], o2[t], o3[t]) = (o[0], o[1], o[2], o[3]);
    }
}
simd!(points_to_columns = points_to_columns_body(outputs: [&mut [f32]; TILE], points: [&[f32]; SIDE], tiles: usize));

/// Along a row: six points of `tiles` tiles to the row of their outputs, `bias` added.
#[inline(always)]
fn points_to_row_body(row: &mut [f32], points: &[f32], tiles: usize, bias: f32) {
    let point = |i: usize| &points[i * tiles..(i + 1) * tiles];
    let m = [point(0), point(1), point(2), point(3), point(4), point(5)];
    for (t, four) in row.chunks_exact_mut(TILE).take(tiles).enumerate() {
        let o = outputs_of([m[0][t], m[1][t], m[2][t], m[3][t], m[4][t], m[5][t]]);
        (four[0], four[1], four[2], four[3]) = (o[0] + bias, o[1] + bias, o[2] + bias, o[3] + bias);
    }
}
simd!(points_to_row = points_to_row_body(row: &mut [f32], points: &[f32], tiles: usize, bias: f32));

/// Scratch memory of one thread.
#[derive(Default)]
struct Scratch {
    /// The tiles at the points, `[POINTS, inputs, tiles]`.
    tiles: Vec<f32>,
    /// The products, `[POINTS, outputs, tiles]`.
    products: Vec<f32>,
    rows: Vec<f32>,
    row_points: Vec<f32>,
    phases: Vec<f32>,
    line: Vec<f32>,
}

/// Memory of `len` values that are all written before they are read.
fn room(memory: &mut Vec<f32>, len: usize) {
    if memory.len() < len {
        *memory = uninit(len);
    }
}

/// Rows of tiles of one picture.
#[derive(Clone, Copy)]
struct Block {
    sizes: Sizes,
    /// Its first row of tiles.
    first: usize,
    /// Rows of tiles.
    rows: usize,
}

impl Block {
    fn columns(self) -> usize {
        self.sizes.tiles()[1]
    }

    fn tiles(self) -> usize {
        self.rows * self.columns()
    }

    /// Transforms the tiles of one channel to the points.
    fn channel_to_points(self, x: &[f32], channel: usize, scratch: &mut Scratch) {
        let Sizes {
            inputs,
            input: [height, width],
            pad: [top, left],
            ..
        } = self.sizes;
        let (columns, tiles) = (self.columns(), self.tiles());
        let len = TILE * (columns + 1);
        room(&mut scratch.rows, SIDE * len);
        room(&mut scratch.row_points, SIDE * len);
        room(&mut scratch.phases, TILE * (columns + 1));
        for tile_row in 0..self.rows {
            for (i, row) in scratch.rows[..SIDE * len].chunks_exact_mut(len).enumerate() {
                row.fill(0.0);
                let y = (self.first + tile_row) * TILE + i;
                if y >= top && y - top < height && left < len {
                    let seen = width.min(len - left);
                    let from = (channel * height + y - top) * width;
                    row[left..left + seen].copy_from_slice(&x[from..from + seen]);
                }
            }
            columns_to_points(&mut scratch.row_points, &scratch.rows, len);
            let at = channel * tiles + tile_row * columns;
            let by_row = scratch.tiles.chunks_exact_mut(SIDE * inputs * tiles);
            for (points, row) in by_row.zip(scratch.row_points.chunks_exact(len)) {
                split_phases(&mut scratch.phases, row, columns + 1);
                let mut by_point = points.chunks_exact_mut(inputs * tiles);
                let points = std::array::from_fn(|_| {
                    let point = by_point.next().expect("a row has six points");
                    &mut point[at..at + columns]
                });
                rows_to_points(points, &scratch.phases, columns);
            }
        }
    }

    /// Transforms the products of one channel back to pixels.
    fn points_to_channel(
        self,
        y: Shared<f32>,
        plane: usize,
        channel: usize,
        bias: f32,
        scratch: &mut Scratch,
    ) {
        let Sizes {
            outputs,
            output: [height, width],
            ..
        } = self.sizes;
        let (columns, tiles) = (self.columns(), self.tiles());
        room(&mut scratch.row_points, TILE * SIDE * columns);
        room(&mut scratch.line, TILE * columns);
        for tile_row in 0..self.rows {
            let at = channel * tiles + tile_row * columns;
            let mut rows = scratch.row_points.chunks_exact_mut(SIDE * columns);
            let mut rows: [&mut [f32]; TILE] =
                std::array::from_fn(|_| rows.next().expect("a tile has four rows"));
            for j in 0..SIDE {
                let point = |i: usize| {
                    &scratch.products[(i * SIDE + j) * outputs * tiles + at..][..columns]
                };
                points_to_columns(
                    rows.each_mut()
                        .map(|row| &mut row[j * columns..(j + 1) * columns]),
                    [point(0), point(1), point(2), point(3), point(4), point(5)],
                    columns,
                );
            }
            let first = (self.first + tile_row) * TILE;
            for (row, points) in (first..height.min(first + TILE)).zip(rows) {
                points_to_row(&mut scratch.line, points, columns, bias);
                // SAFETY: each task has its own rows of every channel.
                unsafe { y.part(plane + row * width, width) }
                    .copy_from_slice(&scratch.line[..width]);
            }
        }
    }
}

/// `[batch, inputs, …]` to `[batch, outputs, …]`; `kernel(output, input)` are nine taps, `bias` one value per output.
pub(super) fn conv2d(
    x: &[f32],
    sizes: Sizes,
    kernel: impl Fn(usize, usize) -> [f32; 9] + Sync,
    bias: &[f32],
) -> Vec<f32> {
    let Sizes {
        inputs, outputs, ..
    } = sizes;
    let (in_plane, out_plane): (usize, usize) =
        (sizes.input.iter().product(), sizes.output.iter().product());
    let batch = x.len() / (inputs * in_plane);
    let kernels = kernels(sizes, kernel);
    let (step, tile_rows) = (sizes.block_rows(), sizes.tiles()[0]);
    let blocks = tile_rows.div_ceil(step);
    filled(batch * outputs * out_plane, |y| {
        let y = Shared(y.as_mut_ptr());
        (0..batch * blocks)
            .into_par_iter()
            .for_each_init(Scratch::default, |scratch, job| {
                let (image, first) = (job / blocks, job % blocks * step);
                let block = Block {
                    sizes,
                    first,
                    rows: step.min(tile_rows - first),
                };
                let tiles = block.tiles();
                scratch.tiles.resize(POINTS * inputs * tiles, 0.0);
                scratch.products.resize(POINTS * outputs * tiles, 0.0);
                let x = &x[image * inputs * in_plane..][..inputs * in_plane];
                for channel in 0..inputs {
                    block.channel_to_points(x, channel, scratch);
                }
                let multiply = |(point, products): (usize, &mut [f32])| {
                    let kernels = &kernels[point * outputs * inputs..][..outputs * inputs];
                    let values = &scratch.tiles[point * inputs * tiles..][..inputs * tiles];
                    // SAFETY: the sizes are those of the slices.
                    unsafe {
                        Product {
                            sizes: [outputs, tiles, inputs],
                            a: Matrix::rows(kernels, inputs),
                            b: Matrix::rows(values, tiles),
                            threads: Threads::One,
                        }
                        .assign(products.as_mut_ptr(), tiles);
                    }
                };
                let products = &mut scratch.products[..POINTS * outputs * tiles];
                match batch * blocks < rayon::current_num_threads() {
                    true => {
                        let products = products.par_chunks_exact_mut(outputs * tiles);
                        products.enumerate().for_each(multiply);
                    }
                    false => {
                        let products = products.chunks_exact_mut(outputs * tiles);
                        products.enumerate().for_each(multiply);
                    }
                }
                for (channel, &bias) in bias.iter().enumerate() {
                    let plane = (image * outputs + channel) * out_plane;
                    block.points_to_channel(y, plane, channel, bias, scratch);
                }
            });
    })
}
