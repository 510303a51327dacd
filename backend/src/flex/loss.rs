//! Cross-entropy and sampling over the rows of a logits matrix.

use super::simd;
use super::{contiguous, dims, filled, tensor, values};
use crate::arguments::Sampling;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, TensorData};
use rayon::prelude::*;

/// Rows per task.
const ROWS: usize = 256;

/// The indices as `usize`, whatever integer type the tensor has.
pub(crate) fn indices(tensor: &FlexTensor) -> Vec<usize> {
    let tensor = tensor.to_contiguous();
    match tensor.dtype() {
        DType::I32 => tensor.storage::<i32>()[..]
            .iter()
            .map(|&i| i as usize)
            .collect(),
        DType::I64 => tensor.storage::<i64>()[..]
            .iter()
            .map(|&i| i as usize)
            .collect(),
        _ => tensor
            .into_data()
            .iter::<i64>()
            .map(|i| i as usize)
            .collect(),
    }
}

/// −log softmax(logits)[target] per row, in nats.
pub(crate) fn cross_entropy(logits: &FlexTensor, targets: &FlexTensor) -> FlexTensor {
    let [rows, classes] = dims(logits);
    let (logits, targets) = (contiguous(logits), indices(targets));
    let logits = values(&logits);
    let loss = filled(rows, |loss| {
        loss.par_chunks_mut(ROWS).enumerate().for_each_init(
            || vec![0.0; classes],
            |scratch, (block, loss)| {
                for (i, loss) in loss.iter_mut().enumerate() {
                    let row = block * ROWS + i;
                    let logits = &logits[row * classes..(row + 1) * classes];
                    let max = simd::max(logits);
                    scratch.copy_from_slice(logits);
                    *loss = simd::exp_scaled(scratch, 1.0, max).ln() + max - logits[targets[row]];
                }
            },
        );
    });
    tensor(loss, [rows])
}

/// `(softmax − one-hot) · g` per row.
pub(crate) fn cross_entropy_backward(
    logits: &FlexTensor,
    targets: &FlexTensor,
    g: &FlexTensor,
) -> FlexTensor {
    let [rows, classes] = dims(logits);
    let (logits, g, targets) = (contiguous(logits), contiguous(g), indices(targets));
    let (logits, g) = (values(&logits), values(&g));
    let grad = filled(rows * classes, |grad| {
        grad.par_chunks_mut(ROWS * classes)
            .enumerate()
            .for_each(|(block, grad)| {
                for (i, grad) in grad.chunks_exact_mut(classes).enumerate() {
                    let row = block * ROWS + i;
                    grad.copy_from_slice(&logits[row * classes..(row + 1) * classes]);
                    let max = simd::max(grad);
                    let sum = simd::exp_scaled(grad, 1.0, max);
                    simd::scale(grad, g[row] / sum);
                    grad[targets[row]] -= g[row];
                }
            });
    });
    tensor(grad, [rows, classes])
}

fn first_of_largest(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, &x) in row.iter().enumerate() {
        if x > row[best] {
            best = i;
        }
    }
    best
}

/// One class per row; see [`crate::ops::categorical`].
pub(crate) fn categorical(
    logits: &FlexTensor,
    uniforms: &FlexTensor,
    sampling: Sampling,
) -> FlexTensor {
    let [rows, classes] = dims(logits);
    let (logits, uniforms) = (contiguous(logits), contiguous(uniforms));
    let (logits, uniforms) = (values(&logits), values(&uniforms));
    let mut classes_drawn = vec![0_i32; rows];
    classes_drawn
        .par_chunks_mut(ROWS)
        .enumerate()
        .for_each_init(
            || (vec![0.0_f32; classes], Vec::new()),
            |(weights, order), (block, drawn)| {
                for (i, drawn) in drawn.iter_mut().enumerate() {
                    let row = block * ROWS + i;
                    let logits = &logits[row * classes..(row + 1) * classes];
                    *drawn = if sampling.temperature == 0.0 {
                        first_of_largest(logits) as i32
                    } else {
                        weights.copy_from_slice(logits);
                        draw(weights, order, uniforms[row], sampling) as i32
                    };
                }
            },
        );
    FlexTensor::from_data(TensorData::new(classes_drawn, [rows]))
}

/// Inverts the distribution function of the kept classes at `uniform`, in the order of the classes.
fn draw(weights: &mut [f32], order: &mut Vec<usize>, uniform: f32, sampling: Sampling) -> usize {
    let max = simd::max(weights);
    // First: a rounding error of the largest product would be e^error, which cold temperatures make everything.
    weights.iter_mut().for_each(|weight| *weight -= max);
    simd::exp_scaled(weights, sampling.inverse_temperature(), 0.0);
    keep_likeliest(weights, order, sampling);
    let total: f32 = weights.iter().sum();
    let mut left = uniform * total;
    let mut last = 0;
    for (class, &weight) in weights.iter().enumerate() {
        if weight > 0.0 {
            if left < weight {
                return class;
            }
            left -= weight;
            last = class;
        }
    }
    last
}

/// Sets the weight of every class outside `top_k` and `top_p` to zero; ties go to the lower class.
fn keep_likeliest(weights: &mut [f32], order: &mut Vec<usize>, sampling: Sampling) {
    let top_k = match sampling.top_k {
        0 => weights.len(),
        k => k.min(weights.len()),
    };
    if top_k == weights.len() && sampling.top_p >= 1.0 {
        return;
    }
    order.clear();
    order.extend(0..weights.len());
    order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
    let mut kept = top_k;
    if sampling.top_p < 1.0 {
        let total: f32 = order[..top_k].iter().map(|&i| weights[i]).sum();
        let mut mass = 0.0;
        kept = 0;
        while kept < top_k && (kept == 0 || mass < sampling.top_p * total) {
            mass += weights[order[kept]];
            kept += 1;
        }
    }
    for &class in &order[kept..] {
        weights[class] = 0.0;
    }
}
