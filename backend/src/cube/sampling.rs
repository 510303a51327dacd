//! Drawing classes.

use super::{cubes, dims, elem, empty, units};
use crate::arguments::Sampling;
use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

/// Maximum number of classes whose weights, sorted and unsorted, fit shared memory.
pub(crate) const MOST_CLASSES: usize = 1024;

/// One cube per row. Sums run in the order of the CPU kernel.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn categorical_kernel<F: Float>(
    logits: &Tensor<F>,
    uniforms: &Tensor<f32>,
    drawn: &mut Tensor<i32>,
    inverse_temperature: f32,
    top_k: u32,
    top_p: f32,
    #[comptime] classes: usize,
    #[comptime] greedy: bool,
    #[comptime] limited: bool,
    #[define(F)] _dtype: ElemType,
) {
    let mut weights = Shared::<[f32]>::new_slice(classes);
    let row = CUBE_POS;
    if row >= drawn.len() {
        terminate!();
    }
    let (unit, step) = (UNIT_POS as usize, CUBE_DIM as usize);
    let mut class = unit;
    while class < classes {
        weights[class] = f32::cast_from(logits[row * classes + class]);
        class += step;
    }
    sync_cube();

    let mut likeliest = 0usize;
    let mut most = weights[0];
    for class in 1..classes {
        if weights[class] > most {
            most = weights[class];
            likeliest = class;
        }
    }
    if greedy {
        if UNIT_POS == 0 {
            drawn[row] = likeliest as i32;
        }
    } else {
        sync_cube();
        let mut class = unit;
        while class < classes {
            weights[class] = ((weights[class] - most) * inverse_temperature).exp();
            class += step;
        }
        sync_cube();
        if limited {
            // The rank of each class, ties in their order, is its place when sorted.
            let mut sorted = Shared::<[f32]>::new_slice(classes);
            let mut place = Shared::<[u32]>::new_slice(classes);
            let mut kept = Shared::<[u32]>::new_slice(1usize);
            let mut class = unit;
            while class < classes {
                let own = weights[class];
                let mut before = 0u32;
                for other in 0..classes {
                    if weights[other] > own || (weights[other] == own && other < class) {
                        before += 1;
                    }
                }
                place[class] = before;
                sorted[before as usize] = own;
                class += step;
            }
            sync_cube();
            if UNIT_POS == 0 {
                let mut count = top_k;
                if top_p < 1.0f32 {
                    let mut total = 0.0f32;
                    for i in 0..top_k as usize {
                        total += sorted[i];
                    }
                    let mut mass = 0.0f32;
                    count = 0u32;
                    while count < top_k && (count == 0 || mass < top_p * total) {
                        mass += sorted[count as usize];
                        count += 1;
                    }
                }
                kept[0] = count;
            }
            sync_cube();
            let mut class = unit;
            while class < classes {
                if place[class] >= kept[0] {
                    weights[class] = 0.0f32;
                }
                class += step;
            }
            sync_cube();
        }
        if UNIT_POS == 0 {
            let mut total = 0.0f32;
            for class in 0..classes {
                total += weights[class];
            }
            let mut left = uniforms[row] * total;
            let mut chosen = 0usize;
            let mut found = false;
            for class in 0..classes {
                let weight = weights[class];
                if !found && weight > 0.0f32 {
                    chosen = class;
                    if left < weight {
                        found = true;
                    } else {
                        left -= weight;
                    }
                }
            }
            drawn[row] = chosen as i32;
        }
    }
}

/// See [`crate::Backend::categorical`].
pub(crate) fn categorical(
    logits: CubeTensor,
    uniforms: CubeTensor,
    sampling: Sampling,
) -> CubeTensor {
    let [logits, uniforms] = [logits, uniforms].map(into_contiguous);
    let [rows, classes] = dims(&logits);
    let drawn = empty(&logits, [rows], DType::I32);
    let top_k = match sampling.top_k {
        0 => classes,
        k => k.min(classes),
    };
    let greedy = sampling.temperature == 0.0;
    let (client, dtype) = (logits.client.clone(), elem(&logits));
    let (cubes, units) = (cubes(&logits, rows), units(&logits, classes));
    categorical_kernel::launch(
        &client,
        cubes,
        CubeDim::new_1d(units),
        logits.into_tensor_arg(),
        uniforms.into_tensor_arg(),
        drawn.clone().into_tensor_arg(),
        if greedy {
            1.0
        } else {
            sampling.inverse_temperature()
        },
        top_k as u32,
        sampling.top_p,
        classes,
        greedy,
        top_k < classes || sampling.top_p < 1.0,
        dtype,
    );
    drawn
}
