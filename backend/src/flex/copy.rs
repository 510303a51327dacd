//! Copies of strided tensors into row-major order, by all threads: whole rows where they are contiguous, and block by
//! block where they are transposed, so that both sides stay in the cache.

use super::elementwise::CHUNK;
use super::{Shared, filled};
use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::Shape;
use rayon::prelude::*;

/// The side of a transposed block.
const BLOCK: usize = 32;

/// An axis and its strides.
#[derive(Clone, Copy)]
struct Axis {
    size: usize,
    /// In the source; 0 where one value stands for all, negative where the axis is reversed.
    source: isize,
    /// In the row-major copy.
    target: usize,
}

/// The axes of more than one value, neighbors joined where the source has them in row-major order.
fn axes(shape: &[usize], strides: &[isize]) -> Vec<Axis> {
    let mut axes: Vec<Axis> = Vec::with_capacity(shape.len());
    let mut target = 1;
    for (&size, &source) in shape.iter().zip(strides).rev() {
        match axes.last_mut() {
            _ if size == 1 => {}
            Some(inner) if source == inner.source * inner.size as isize => inner.size *= size,
            _ => axes.push(Axis {
                size,
                source,
                target,
            }),
        }
        target *= size;
    }
    axes.reverse();
    axes
}

/// Where the `index`-th of all combinations of `axes` lies in the source and in the copy.
fn place(axes: &[Axis], mut index: usize) -> (isize, usize) {
    let (mut source, mut target) = (0, 0);
    for axis in axes.iter().rev() {
        let at = index % axis.size;
        index /= axis.size;
        source += at as isize * axis.source;
        target += at * axis.target;
    }
    (source, target)
}

/// The layout of a tensor in another shape, if no value has to move.
pub(crate) fn view(layout: &Layout, shape: &Shape) -> Option<Layout> {
    let mut axes = axes(layout.shape(), layout.strides());
    let mut strides = Vec::with_capacity(shape.num_dims());
    for &size in shape.iter().rev() {
        // An axis of one value has any stride; one of none is no view of anything.
        let stride = match (size, axes.last_mut()) {
            (0, _) => return None,
            (1, _) | (_, None) => 1,
            (size, Some(axis)) if axis.size.is_multiple_of(size) => {
                let stride = axis.source;
                axis.size /= size;
                axis.source *= size as isize;
                stride
            }
            _ => return None,
        };
        axes.pop_if(|axis| axis.size == 1);
        strides.push(stride);
    }
    strides.reverse();
    axes.is_empty()
        .then(|| Layout::new(shape.clone(), strides, layout.start_offset()))
}

/// The values of an f32 tensor in row-major order.
pub(crate) fn row_major(tensor: &FlexTensor) -> Vec<f32> {
    let layout = tensor.layout();
    let len = layout.num_elements();
    if len == 0 {
        return Vec::new();
    }
    let first = tensor
        .storage::<f32>()
        .as_ptr()
        .wrapping_add(layout.start_offset());
    let mut axes = axes(layout.shape(), layout.strides());
    let last = axes.pop().unwrap_or(Axis {
        size: 1,
        source: 1,
        target: 1,
    });
    let copy = Copy { first, last };
    filled(len, |out| {
        let out = Shared(out.as_mut_ptr());
        let nearest = (0..axes.len()).min_by_key(|&axis| axes[axis].source.unsigned_abs());
        match nearest {
            Some(nearest) if !matches!(last.source, 0 | 1) => {
                let across = axes.remove(nearest);
                copy.transposed(out, across, &axes);
            }
            _ => copy.rows(out, &axes),
        }
    })
}

/// The source: the tensor's first value and its last axis.
#[derive(Clone, Copy)]
struct Copy {
    first: *const f32,
    last: Axis,
}

// SAFETY: the source is only read, while its tensor is borrowed.
unsafe impl Send for Copy {}
// SAFETY: as above.
unsafe impl Sync for Copy {}

impl Copy {
    /// The value `at` so far from the first.
    ///
    /// # Safety
    /// There is one.
    unsafe fn value(self, at: isize) -> f32 {
        // SAFETY: the caller's contract.
        unsafe { *self.first.offset(at) }
    }

    /// `len` neighbors.
    ///
    /// # Safety
    /// As [`value`](Self::value), of all of them.
    unsafe fn run<'a>(self, at: isize, len: usize) -> &'a [f32] {
        // SAFETY: the caller's contract.
        unsafe { std::slice::from_raw_parts(self.first.offset(at), len) }
    }

    /// Values along the last axis into `row`.
    ///
    /// # Safety
    /// As [`value`](Self::value), of all of them.
    unsafe fn spread(self, at: isize, row: &mut [f32]) {
        for (index, out) in row.iter_mut().enumerate() {
            // SAFETY: the caller's contract.
            *out = unsafe { self.value(at + index as isize * self.last.source) };
        }
    }

    /// Row by row, long rows in parts.
    fn rows(self, out: Shared<f32>, axes: &[Axis]) {
        let Axis { size, source, .. } = self.last;
        let rows: usize = axes.iter().map(|axis| axis.size).product();
        let parts = size.div_ceil(CHUNK);
        (0..rows * parts)
            .into_par_iter()
            .with_min_len(CHUNK / size + 1)
            .for_each(|task| {
                let (from, to) = place(axes, task / parts);
                let start = task % parts * CHUNK;
                let len = CHUNK.min(size - start);
                let from = from + start as isize * source;
                // SAFETY: each task has its own part of a row.
                let row = unsafe { { out }.part(to + start, len) };
                // SAFETY: the strides lead to values of the tensor.
                unsafe {
                    match source {
                        1 => row.copy_from_slice(self.run(from, len)),
                        0 => row.fill(self.value(from)),
                        _ => self.spread(from, row),
                    }
                }
            });
    }

    /// Block by block of the last axis and `across`, whose values lie nearest to each other; `axes` are the others.
    fn transposed(self, out: Shared<f32>, across: Axis, axes: &[Axis]) {
        let last = self.last;
        let blocks = across.size.div_ceil(BLOCK);
        let others: usize = axes.iter().map(|axis| axis.size).product();
        (0..others * blocks)
            .into_par_iter()
            .with_min_len(CHUNK / (BLOCK * last.size) + 1)
            .for_each(|task| {
                let (from, to) = place(axes, task / blocks);
                let start = task % blocks * BLOCK;
                let rows = start..across.size.min(start + BLOCK);
                for column in (0..last.size).step_by(BLOCK) {
                    let columns = BLOCK.min(last.size - column);
                    for row in rows.clone() {
                        let from =
                            from + row as isize * across.source + column as isize * last.source;
                        // SAFETY: each task has its own rows.
                        let out =
                            unsafe { { out }.part(to + row * across.target + column, columns) };
                        // SAFETY: the strides lead to values of the tensor.
                        unsafe { self.spread(from, out) };
                    }
                }
            });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;
    use burn::backend::ops::FloatTensorOps;
    use burn::tensor::TensorData;
    use proptest::prelude::*;

    /// The reference: value by value, by the tensor's own layout.
    fn one_by_one(tensor: &FlexTensor) -> Vec<f32> {
        let layout = tensor.layout();
        let (shape, strides) = (layout.shape().to_vec(), layout.strides().to_vec());
        let values = tensor.storage::<f32>();
        (0..layout.num_elements())
            .map(|mut index| {
                let mut at = layout.start_offset() as isize;
                for (&size, &stride) in shape.iter().zip(&strides).rev() {
                    at += (index % size) as isize * stride;
                    index /= size;
                }
                values[at as usize]
            })
            .collect()
    }

    fn size() -> impl Strategy<Value = usize> {
        prop_oneof![Just(0), 1..5_usize, Just(31), Just(33), Just(70)]
    }

    fn halves(size: usize) -> [usize; 2] {
        match size.is_multiple_of(2) {
            true => [2, size / 2],
            false => [1, size],
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_view_is_copied_as_value_by_value(
            shape in (size(), size(), 1..5_usize, size()),
            order in Just(vec![0_usize, 1, 2, 3]).prop_shuffle(),
            cut in 0..3_usize,
            one_for_all in prop::option::of(0..4_usize),
        ) {
            let shape: [usize; 4] = shape.into();
            let len: usize = shape.iter().product();
            let values: Vec<f32> = (0..len).map(|value| value as f32).collect();
            let whole = FlexTensor::from_data(TensorData::new(values, Shape::from(shape)));
            let mut view = whole.permute(&order);
            let wide = view.layout().shape()[2];
            view = view.narrow(2, cut.min(wide), wide.saturating_sub(cut));
            if let Some(axis) = one_for_all && view.layout().shape()[axis] > 0 {
                let mut shape = view.layout().shape().to_vec();
                view = view.narrow(axis, 0, 1);
                shape[axis] = 37;
                view = Flex::float_expand(view, shape.into());
            }
            prop_assert_eq!(row_major(&view), one_by_one(&view));
            // In every shape that halves and joins its axes, it has the same values where it can stay.
            let [a, b, c, d]: [usize; 4] = view.layout().shape().dims();
            let [[a1, a2], [c1, c2]] = [halves(a), halves(c)];
            let joined = [vec![a * b, c, d], vec![a, b * c * d], vec![a * b, c * d, 1]];
            for shape in joined.into_iter().chain([vec![a1, a2 * b, 1, c1, c2, d]]) {
                let shape = Shape::from(shape);
                if let Some(layout) = super::view(view.layout(), &shape) {
                    prop_assert_eq!(one_by_one(&view.clone().with_layout(layout)), one_by_one(&view));
                } else {
                    prop_assert!(!view.is_contiguous() || a * b * c * d == 0, "{:?} as {:?}", view, shape);
                }
            }
        }
    }
}
