//! A row's result does not depend on the rows beside it: bit for bit.

use burn::tensor::{Device, Tensor};
use tessera_backend::init::ParamInit;
use tessera_backend::nn::GroupNorm;
use tessera_backend::ops::{self, Activation, Experts, Mask, Routes};
use tessera_backend::{ComputePrecision, Rng};

fn bits<const D: usize>(x: Tensor<D>) -> Vec<u32> {
    let values: Vec<f32> = x.into_data().try_to_vec().expect("f32");
    values.into_iter().map(f32::to_bits).collect()
}

#[test]
fn linear_rows_are_independent_of_the_batch() {
    let device = Device::flex();
    let mut rng = Rng::new(1, 0);
    for [inputs, outputs] in [
        [16, 64],
        [192, 3],
        [192, 576],
        [768, 64],
        [1000, 40],
        [1536, 128],
    ] {
        let mut layer = ParamInit::new(1, &device).linear(inputs, outputs);
        layer.weight = layer.weight.map(|w| rng.normal_tensor(w.dims(), &device));
        let x = rng.normal_tensor([200, inputs], &device);
        for precision in [ComputePrecision::F32, ComputePrecision::Bf16] {
            let layer = precision.apply(layer.clone());
            let whole = ops::linear(x.clone(), &layer, Activation::Gelu);
            for (start, len) in [
                (0, 1),
                (199, 1),
                (7, 2),
                (5, 3),
                (16, 20),
                (64, 65),
                (1, 130),
            ] {
                let part = ops::linear(x.clone().narrow(0, start, len), &layer, Activation::Gelu);
                assert_eq!(
                    bits(part),
                    bits(whole.clone().narrow(0, start, len)),
                    "{inputs}->{outputs} in {precision}: {len} rows from {start}"
                );
            }
        }
    }
}

fn through_experts(x: Tensor<2>, gates: Tensor<2>, mask: &[bool], weights: &Experts) -> Tensor<2> {
    let routes = Routes::of_mask(mask, gates.dims()[1]);
    ops::experts(x, gates, weights.clone(), routes, Activation::GeluTanh)
}

#[test]
fn tokens_of_experts_are_independent_of_the_others() {
    let device = Device::flex();
    let mut rng = Rng::new(4, 0);
    const EXPERTS: usize = 5;
    for [tokens, d, hidden] in [[700, 24, 40], [150, 192, 600], [90, 1030, 16]] {
        let weights = Experts {
            w1: rng.normal_tensor([EXPERTS, d, hidden], &device),
            b1: rng.normal_tensor([EXPERTS, hidden], &device),
            w2: rng.normal_tensor([EXPERTS, hidden, d], &device),
            b2: rng.normal_tensor([EXPERTS, d], &device),
        };
        let x = rng.normal_tensor([tokens, d], &device);
        let gates = rng.normal_tensor([tokens, EXPERTS], &device);
        // The first expert has all tokens, more than are computed at a time; the last has two.
        let mask: Vec<bool> = (0..tokens * EXPERTS)
            .map(|i| match i % EXPERTS {
                0 => true,
                expert if expert + 1 == EXPERTS => i / EXPERTS < 2,
                _ => rng.below(3) == 0,
            })
            .collect();
        let whole = through_experts(x.clone(), gates.clone(), &mask, &weights);
        for (start, len) in [(0, 1), (89, 1), (7, 2), (1, 40), (3, 80)] {
            let part = through_experts(
                x.clone().narrow(0, start, len),
                gates.clone().narrow(0, start, len),
                &mask[start * EXPERTS..(start + len) * EXPERTS],
                &weights,
            );
            let whole = whole.clone().narrow(0, start, len);
            assert_eq!(bits(part), bits(whole), "{d}->{hidden}: {len} from {start}");
        }
    }
}

#[test]
fn images_are_independent_of_the_batch() {
    let device = Device::flex();
    let mut rng = Rng::new(2, 0);
    for (channels, size) in [(8, 4), (64, 8), (24, 33)] {
        let conv = ParamInit::new(2, &device).conv2d([channels, 16], [3, 3], 1);
        let norm = GroupNorm::new(4, 16, 1e-6, &device);
        let x = rng.normal_tensor([5, channels, size, size], &device);
        let run = |x| {
            ops::upsample_nearest(ops::group_norm(
                ops::conv2d(x, &conv, [1; 4]),
                &norm,
                Activation::Silu,
            ))
        };
        let whole = run(x.clone());
        for image in 0..5 {
            assert_eq!(
                bits(run(x.clone().narrow(0, image, 1))),
                bits(whole.clone().narrow(0, image, 1))
            );
        }
    }
}

#[test]
fn heads_are_independent_of_the_batch() {
    let device = Device::flex();
    let mut rng = Rng::new(3, 0);
    for (queries, keys) in [(1, 5), (20, 20), (90, 300)] {
        let mut draw = |seq| rng.normal_tensor([6, 3, seq, 16], &device);
        let (q, k, v) = (draw(queries), draw(keys), draw(keys));
        let whole = ops::attention(q.clone(), k.clone(), v.clone(), Mask::All);
        for image in 0..6 {
            let one = |t: &Tensor<4>| t.clone().narrow(0, image, 1);
            assert_eq!(
                bits(ops::attention(one(&q), one(&k), one(&v), Mask::All)),
                bits(one(&whole))
            );
        }
    }
}
