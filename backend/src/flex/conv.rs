//! 2-D convolution as a matrix product over gathered patches (im2col), block by block of output rows so that a block
//! stays in cache; and nearest-neighbor upsampling.

use super::elementwise::CHUNK;
use super::matmul::{Matrix, Product, Threads};
use super::simd::{self, simd};
use super::{Shared, contiguous, dims, filled, tensor, values, winograd};
use crate::backward::LinearInputs;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

/// Sizes of one convolution.
#[derive(Clone, Copy)]
struct Geometry {
    input: [usize; 3],
    output: [usize; 3],
    kernel: [usize; 2],
    stride: [usize; 2],
    /// Zeros above and to the left.
    pad: [usize; 2],
}

impl Geometry {
    fn new(
        x: [usize; 4],
        w: [usize; 4],
        stride: [usize; 2],
        [top, left, bottom, right]: [usize; 4],
    ) -> Self {
        let [_, channels, height, width] = x;
        let [out_channels, _, kh, kw] = w;
        Self {
            input: [channels, height, width],
            output: [
                out_channels,
                (height + top + bottom - kh) / stride[0] + 1,
                (width + left + right - kw) / stride[1] + 1,
            ],
            kernel: [kh, kw],
            stride,
            pad: [top, left],
        }
    }

    /// Length of a patch.
    fn depth(&self) -> usize {
        self.input[0] * self.kernel[0] * self.kernel[1]
    }

    fn input_len(&self) -> usize {
        self.input.iter().product()
    }

    fn output_len(&self) -> usize {
        self.output.iter().product()
    }

    /// Output rows per block: about 512 columns, or the half of a small picture, whatever the batch.
    fn block_rows(&self) -> usize {
        let [_, height, width] = self.output;
        let columns = (height * width / 2).clamp(64, 512);
        (columns / width).clamp(1, height)
    }

    /// Whether the patches are the input itself.
    fn pointwise(&self) -> bool {
        self.kernel == [1, 1]
            && self.stride == [1, 1]
            && self.pad == [0, 0]
            && self.input[1..] == self.output[1..]
    }

    /// Calls `visit(patch row, output row within the block, input row, first output column, first input column,
    /// columns)` for every run of patch values that lies inside the picture.
    fn runs(
        &self,
        rows: std::ops::Range<usize>,
        mut visit: impl FnMut(usize, usize, usize, usize, usize, usize),
    ) {
        let ([channels, height, width], [_, _, out_width]) = (self.input, self.output);
        let ([kh, kw], [sy, sx], [top, left]) = (self.kernel, self.stride, self.pad);
        for channel in 0..channels {
            for ky in 0..kh {
                for kx in 0..kw {
                    let patch = (channel * kh + ky) * kw + kx;
                    // Columns x with 0 ≤ x·sx + kx − left < width.
                    let from = left.saturating_sub(kx).div_ceil(sx);
                    let to = if width + left > kx {
                        ((width + left - kx - 1) / sx + 1).min(out_width)
                    } else {
                        0
                    };
                    if from >= to {
                        continue;
                    }
                    for (local, oy) in rows.clone().enumerate() {
                        let iy = oy * sy + ky;
                        if iy < top || iy - top >= height {
                            continue;
                        }
                        visit(
                            patch,
                            local,
                            channel * height + iy - top,
                            from,
                            from * sx + kx - left,
                            to - from,
                        );
                    }
                }
            }
        }
    }

    /// Patches of the output rows `rows` as a `[depth, rows · out_width]` matrix.
    fn gather(&self, x: &[f32], rows: std::ops::Range<usize>, patches: &mut [f32]) {
        let ([_, _, width], [_, _, out_width], sx) = (self.input, self.output, self.stride[1]);
        let columns = rows.len() * out_width;
        patches[..self.depth() * columns].fill(0.0);
        self.runs(rows, |patch, local, row, to, from, len| {
            let out = &mut patches[patch * columns + local * out_width + to..][..len];
            let x = &x[row * width + from..(row + 1) * width];
            if sx == 1 {
                out.copy_from_slice(&x[..len]);
            } else {
                for (out, x) in out.iter_mut().zip(x.iter().step_by(sx)) {
                    *out = *x;
                }
            }
        });
    }

    /// The transpose of [`gather`](Self::gather): adds every patch value to its pixel.
    fn scatter(&self, patches: &[f32], rows: std::ops::Range<usize>, x: &mut [f32]) {
        let ([_, _, width], [_, _, out_width], sx) = (self.input, self.output, self.stride[1]);
        let columns = rows.len() * out_width;
        self.runs(rows, |patch, local, row, to, from, len| {
            let patch = &patches[patch * columns + local * out_width + to..][..len];
            let x = &mut x[row * width + from..(row + 1) * width];
            if sx == 1 {
                simd::add_assign(&mut x[..len], patch);
            } else {
                for (x, patch) in x.iter_mut().step_by(sx).zip(patch) {
                    *x += *patch;
                }
            }
        });
    }

    /// The sizes for Winograd's algorithm, if it applies and pays. Inputs must be finite: its sums and differences of
    /// pixels would spread an infinity or turn it into NaN where the sum over the patch does not.
    fn winograd(&self, x: &[f32], w: &[f32]) -> Option<winograd::Sizes> {
        let finite = |x: &[f32]| x.par_chunks(CHUNK).all(simd::all_finite);
        let sizes = winograd::Sizes {
            inputs: self.input[0],
            outputs: self.output[0],
            input: [self.input[1], self.input[2]],
            output: [self.output[1], self.output[2]],
            pad: self.pad,
        };
        let applies = self.kernel == [3, 3] && self.stride == [1, 1] && sizes.pay();
        (applies && finite(x) && finite(w)).then_some(sizes)
    }

    fn blocks(&self) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let (step, height) = (self.block_rows(), self.output[1]);
        (0..height)
            .step_by(step)
            .map(move |first| first..height.min(first + step))
    }
}

/// `[batch, in, h, w]`, `[out, in, kh, kw]`, `[out]`; zero padding `[top, left, bottom, right]`.
pub(crate) fn conv2d(
    x: &FlexTensor,
    w: &FlexTensor,
    b: &FlexTensor,
    stride: [usize; 2],
    pad: [usize; 4],
) -> FlexTensor {
    let geometry = Geometry::new(dims(x), dims(w), stride, pad);
    let (batch, [out_channels, out_height, out_width]) = (dims::<4>(x)[0], geometry.output);
    let (x, w, b) = (contiguous(x), contiguous(w), contiguous(b));
    let (x, w, b) = (values(&x), values(&w), values(&b));
    if let Some(sizes) = geometry.winograd(x, w) {
        let kernel = |output, input| taps(w, output * sizes.inputs + input);
        let y = winograd::conv2d(x, sizes, kernel, b);
        return tensor(y, [batch, out_channels, out_height, out_width]);
    }
    let (plane, depth) = (out_height * out_width, geometry.depth());
    let blocks: Vec<_> = geometry.blocks().collect();
    let y = filled(batch * geometry.output_len(), |y| {
        let y = Shared(y.as_mut_ptr());
        (0..batch * blocks.len())
            .into_par_iter()
            .for_each_init(Vec::new, |patches, job| {
                let (image, rows) = (job / blocks.len(), blocks[job % blocks.len()].clone());
                let columns = rows.len() * out_width;
                let x = &x[image * geometry.input_len()..][..geometry.input_len()];
                let first = image * geometry.output_len() + rows.start * out_width;
                for (channel, &bias) in b.iter().enumerate() {
                    // SAFETY: each job has its own rows of every channel.
                    unsafe { { y }.part(first + channel * plane, columns) }.fill(bias);
                }
                let input = if geometry.pointwise() {
                    Matrix::rows(x, plane).at(0, rows.start * out_width)
                } else {
                    patches.resize(depth * columns, 0.0);
                    geometry.gather(x, rows, patches);
                    Matrix::rows(patches, columns)
                };
                // SAFETY: as above; the rows were just filled with the bias.
                unsafe {
                    Product {
                        sizes: [out_channels, columns, depth],
                        a: Matrix::rows(w, depth),
                        b: input,
                        threads: Threads::One,
                    }
                    .accumulate({ y }.0.add(first), plane)
                };
            });
    });
    tensor(y, [batch, out_channels, out_height, out_width])
}

/// The nine taps of the 3×3 kernel number `index`.
fn taps(w: &[f32], index: usize) -> [f32; 9] {
    std::array::from_fn(|tap| w[9 * index + tap])
}

/// The gradients of those inputs that need one.
pub(crate) fn conv2d_backward(
    x: &FlexTensor,
    w: &FlexTensor,
    g: &FlexTensor,
    stride: [usize; 2],
    pad: [usize; 4],
    needs_grad: LinearInputs<bool>,
) -> LinearInputs<Option<FlexTensor>> {
    let (x_dims, w_dims) = (dims::<4>(x), dims::<4>(w));
    let geometry = Geometry::new(x_dims, w_dims, stride, pad);
    let (x, w, g) = (contiguous(x), contiguous(w), contiguous(g));
    let (x, w, g) = (values(&x), values(&w), values(&g));
    LinearInputs {
        x: needs_grad
            .x
            .then(|| tensor(input_gradient(&geometry, w, g), x_dims)),
        w: needs_grad
            .w
            .then(|| tensor(weight_gradient(&geometry, x, g), w_dims)),
        b: needs_grad
            .b
            .then(|| tensor(bias_gradient(&geometry, g), [w_dims[0]])),
    }
}

/// The convolution of the gradient with the flipped kernels: by Winograd's algorithm where that pays, else as products
/// scattered into overlapping patches.
fn input_gradient(geometry: &Geometry, w: &[f32], g: &[f32]) -> Vec<f32> {
    let [out_channels, _, out_width] = geometry.output;
    // With flipped kernels, `2 − zeros` are above and to the left.
    let turns = geometry.pad.iter().all(|&zeros| zeros <= 2);
    if let Some(forward) = geometry.winograd(g, w).filter(|_| turns) {
        let backward = winograd::Sizes {
            inputs: forward.outputs,
            outputs: forward.inputs,
            input: forward.output,
            output: forward.input,
            pad: forward.pad.map(|zeros| 2 - zeros),
        };
        let kernel = |output, input| {
            let mut taps = taps(w, input * forward.inputs + output);
            taps.reverse();
            taps
        };
        return winograd::conv2d(g, backward, kernel, &vec![0.0; forward.inputs]);
    }
    let (plane, depth) = (geometry.output[1] * out_width, geometry.depth());
    let images = g.len() / geometry.output_len();
    let mut dx = vec![0.0; images * geometry.input_len()];
    dx.par_chunks_mut(geometry.input_len())
        .zip(g.par_chunks(geometry.output_len()))
        .for_each_init(Vec::new, |patches, (dx, g)| {
            for rows in geometry.blocks() {
                let columns = rows.len() * out_width;
                patches.resize(depth * columns, 0.0);
                // SAFETY: scratch memory of just this size.
                unsafe {
                    Product {
                        sizes: [depth, columns, out_channels],
                        a: Matrix::rows(w, depth).t(),
                        b: Matrix::rows(g, plane).at(0, rows.start * out_width),
                        threads: Threads::One,
                    }
                    .assign(patches.as_mut_ptr(), columns)
                };
                geometry.scatter(patches, rows, dx);
            }
        });
    dx
}

/// The gradient times the patches, summed over all blocks of all images in `GROUPS` groups, whose sums are added in
/// order for any number of threads.
fn weight_gradient(geometry: &Geometry, x: &[f32], g: &[f32]) -> Vec<f32> {
    const GROUPS: usize = 8;
    let [out_channels, _, out_width] = geometry.output;
    let (plane, depth) = (geometry.output[1] * out_width, geometry.depth());
    let blocks: Vec<_> = geometry.blocks().collect();
    let jobs = g.len() / geometry.output_len() * blocks.len();
    let (groups, len) = (GROUPS.min(jobs).max(1), out_channels * depth);
    let mut sums = vec![0.0_f32; groups * len];
    sums.par_chunks_mut(len)
        .enumerate()
        .for_each_init(Vec::new, |patches, (group, sums)| {
            for job in jobs * group / groups..jobs * (group + 1) / groups {
                let (image, rows) = (job / blocks.len(), blocks[job % blocks.len()].clone());
                let columns = rows.len() * out_width;
                let x = &x[image * geometry.input_len()..][..geometry.input_len()];
                let g = &g[image * geometry.output_len()..][..geometry.output_len()];
                let grad = Matrix::rows(g, plane).at(0, rows.start * out_width);
                let input = if geometry.pointwise() {
                    Matrix::rows(x, plane).at(0, rows.start * out_width)
                } else {
                    patches.resize(depth * columns, 0.0);
                    geometry.gather(x, rows, patches);
                    Matrix::rows(patches, columns)
                };
                // SAFETY: the sums are this group's own and start at zero.
                unsafe {
                    Product {
                        sizes: [out_channels, depth, columns],
                        a: grad,
                        b: input.t(),
                        threads: Threads::One,
                    }
                    .accumulate(sums.as_mut_ptr(), depth)
                };
            }
        });
    let (first, rest) = sums.split_at_mut(len);
    rest.chunks_exact(len)
        .for_each(|part| simd::add_assign(first, part));
    sums.truncate(len);
    sums
}

fn bias_gradient(geometry: &Geometry, g: &[f32]) -> Vec<f32> {
    let [out_channels, height, width] = geometry.output;
    let planes: Vec<f32> = g
        .par_chunks(height * width)
        .map(|plane| simd::sum_and_squares(plane).0)
        .collect();
    let mut sums = vec![0.0; out_channels];
    for image in planes.chunks_exact(out_channels) {
        simd::add_assign(&mut sums, image);
    }
    sums
}

/// Every pixel becomes a 2×2 square.
pub(crate) fn upsample_nearest(x: &FlexTensor) -> FlexTensor {
    let [batch, channels, height, width] = dims(x);
    let x = contiguous(x);
    let y = filled(4 * batch * channels * height * width, |y| {
        y.par_chunks_mut(4 * height * width)
            .zip(values(&x).par_chunks(height * width))
            .for_each(|(y, x)| {
                for (y, x) in y.chunks_exact_mut(4 * width).zip(x.chunks_exact(width)) {
                    let (upper, lower) = y.split_at_mut(2 * width);
                    for (pair, &x) in upper.chunks_exact_mut(2).zip(x) {
                        pair.fill(x);
                    }
                    lower.copy_from_slice(upper);
                }
            });
    });
    tensor(y, [batch, channels, 2 * height, 2 * width])
}

#[inline(always)]
fn pair_sums_body(out: &mut [f32], upper: &[f32], lower: &[f32]) {
    for ((out, u), l) in out
        .iter_mut()
        .zip(upper.chunks_exact(2))
        .zip(lower.chunks_exact(2))
    {
        *out = (u[0] + u[1]) + (l[0] + l[1]);
    }
}
simd!(pair_sums = pair_sums_body(out: &mut [f32], upper: &[f32], lower: &[f32]));

/// Gradient of [`upsample_nearest`]: the sum over each square.
pub(crate) fn upsample_nearest_backward(g: &FlexTensor) -> FlexTensor {
    let [batch, channels, height, width] = dims(g);
    let g = contiguous(g);
    let (height, width) = (height / 2, width / 2);
    let dx = filled(batch * channels * height * width, |dx| {
        dx.par_chunks_mut(height * width)
            .zip(values(&g).par_chunks(4 * height * width))
            .for_each(|(dx, g)| {
                for (dx, g) in dx.chunks_exact_mut(width).zip(g.chunks_exact(4 * width)) {
                    let (upper, lower) = g.split_at(2 * width);
                    pair_sums(dx, upper, lower);
                }
            });
    });
    tensor(dx, [batch, channels, height, width])
}
