//! Linear maps with weights of 16 bits, whichever instructions multiply them and in whichever order they are stored.

use burn::tensor::{Device, Tensor};
use proptest::prelude::*;
use tessera_backend::init::ParamInit;
use tessera_backend::nn::Linear;
use tessera_backend::ops::{self, Activation, Mask};
use tessera_backend::{ComputePrecision, Instructions, Rng, autocast, host_values};

/// Sizes of panels and steps, whole and not.
fn sizes() -> impl Strategy<Value = [usize; 2]> {
    let whole = (1..9_usize, 1..7_usize).prop_map(|(steps, panels)| [32 * steps, 64 * panels]);
    prop_oneof![whole, (1..90_usize, 1..150_usize).prop_map(|(i, o)| [i, o])]
}

/// A linear map with weights that bf16 has, and the same in f32.
fn layers(sizes: [usize; 2], bias: bool, rng: &mut Rng) -> [Linear; 2] {
    let device = Device::flex();
    let mut layer = ParamInit::new(1, &device).linear(sizes[0], sizes[1]);
    layer.weight = layer.weight.map(|w| {
        let values: Tensor<2> = rng.normal_tensor(w.dims(), &device);
        let dtype = ComputePrecision::Bf16.dtype();
        values.cast(dtype).cast(w.dtype())
    });
    layer.bias = layer.bias.filter(|_| bias);
    [ComputePrecision::Bf16.apply(layer.clone()), layer]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Within 2^-8 of the sum of magnitudes: `x` may be rounded, the weights are not.
    #[test]
    fn products_in_bf16_are_those_in_f32_but_for_the_rounding_of_x(
        rows in 1..70_usize, sizes in sizes(), bias in any::<bool>(), seed in any::<u64>(),
    ) {
        let (device, mut rng) = (Device::flex(), Rng::new(seed, 0));
        let [half, exact] = layers(sizes, bias, &mut rng);
        let x: Tensor<2> = rng.normal_tensor([rows, sizes[0]], &device);
        let found = host_values(ops::linear(x.clone(), &half, Activation::None));
        let expected = host_values(ops::linear(x.clone(), &exact, Activation::None));
        let magnitudes = host_values(x.abs().matmul(exact.weight.val().abs()));
        for ((found, expected), size) in found.iter().zip(&expected).zip(&magnitudes) {
            prop_assert!((found - expected).abs() <= size / 256.0 + 1e-6, "{found} for {expected}");
        }
    }

    /// Bit for bit: parts of a map, which may be blocks of what is stored, and the parts of its output.
    #[test]
    fn blocks_of_columns_give_the_columns(
        rows in 1..40_usize, inputs in 1..80_usize, whole in any::<bool>(),
        width in prop_oneof![Just(1), 1..70_usize], seed in any::<u64>(),
    ) {
        let [inputs, width] = if whole { [inputs.next_multiple_of(32), 64] } else { [inputs, width] };
        let (device, mut rng) = (Device::flex(), Rng::new(seed, 0));
        let [half, exact] = layers([inputs, 3 * width], true, &mut rng);
        let x: Tensor<2> = rng.normal_tensor([rows, inputs], &device);
        for layer in [half, ComputePrecision::F32.apply(exact)] {
            let all = host_values(ops::linear(x.clone(), &layer, Activation::Silu));
            let weight = host_values(ops::weight_of(&layer, inputs).cast(x.dtype()));
            for (part, layer) in ops::columns::<3>(&layer, inputs).iter().enumerate() {
                let found = host_values(ops::linear(x.clone(), layer, Activation::Silu));
                for (row, found) in found.chunks(width).enumerate() {
                    prop_assert_eq!(found, &all[(3 * row + part) * width..][..width]);
                }
                let block = host_values(ops::weight_of(layer, inputs).cast(x.dtype()));
                for (row, block) in block.chunks(width).enumerate() {
                    prop_assert_eq!(block, &weight[(3 * row + part) * width..][..width]);
                }
            }
        }
    }

    /// Bit for bit: weights in the order for inference, which are the same weights.
    #[test]
    fn the_order_for_inference_changes_no_result(
        rows in prop_oneof![0..20_usize, 90..110_usize, Just(300)], sizes in sizes(), whole in any::<bool>(),
        bias in any::<bool>(), seed in any::<u64>(),
    ) {
        let sizes = if whole { sizes.map(|size| size.next_multiple_of(64)) } else { sizes };
        let (device, mut rng) = (Device::flex(), Rng::new(seed, 0));
        let [_, layer] = layers(sizes, bias, &mut rng);
        let ready = ComputePrecision::F32.apply(layer.clone());
        if whole && Instructions::used() >= Instructions::Avx512 {
            prop_assert_ne!(ready.weight.val().dims()[0], sizes[0], "it is in panels");
        }
        let x: Tensor<2> = rng.normal_tensor([rows, sizes[0]], &device);
        let [found, expected] = [&ready, &layer]
            .map(|layer| host_values(ops::linear(x.clone(), layer, Activation::Gelu)));
        prop_assert_eq!(found, expected);
        let [found, expected] = [&ready, &layer].map(|layer| host_values(ops::weight_of(layer, sizes[0])));
        prop_assert_eq!(found, expected);
    }
}

/// What a linear map gives, and its gradients, computed in `precision`.
fn passes(
    precision: ComputePrecision,
    layer: &Linear,
    x: &Tensor<2>,
    act: Activation,
) -> [Vec<f32>; 4] {
    let device = Device::flex().autodiff();
    let leaf = |x: Tensor<2>| Tensor::<2>::from_data(x.into_data(), &device).require_grad();
    let x = leaf(x.clone());
    let mut layer = layer.clone();
    layer.weight = burn::module::Param::from_tensor(leaf(layer.weight.val()));
    let bias = layer.bias.take().expect("it has one").val();
    let bias = Tensor::<1>::from_data(bias.into_data(), &device).require_grad();
    layer.bias = Some(burn::module::Param::from_tensor(bias));
    let y = autocast(precision, || ops::linear(x.clone(), &layer, act));
    // Outside of the scope: what was computed there decides.
    let gradients = (y.clone() * y.clone().detach()).sum().backward();
    let w = layer.weight.val().grad(&gradients).expect("a gradient");
    let b = layer.bias.as_ref().expect("set above").val();
    let b = b.grad(&gradients).expect("a gradient");
    [
        host_values(y.inner()),
        host_values(x.grad(&gradients).expect("a gradient")),
        host_values(w),
        host_values(b),
    ]
}

/// Within 2^-6 of the largest value: both operands of three products are rounded to 8 bits. Rows do not depend on the
/// others, and outside of the scope nothing is rounded.
#[test]
fn mixed_precision_gives_nearly_the_same_output_and_gradients() {
    let (device, mut rng) = (Device::flex(), Rng::new(3, 0));
    for [rows, inputs, outputs] in [[5, 7, 3], [70, 33, 65], [300, 96, 192], [64, 192, 64]] {
        for act in [Activation::None, Activation::Gelu] {
            let mut layer = ParamInit::new(1, &device).linear(inputs, outputs);
            layer.weight = layer.weight.map(|w| rng.normal_tensor(w.dims(), &device));
            let x: Tensor<2> = rng.normal_tensor([rows, inputs], &device);
            let exact = passes(ComputePrecision::F32, &layer, &x, act);
            let mixed = passes(ComputePrecision::Bf16, &layer, &x, act);
            for (name, (exact, mixed)) in
                ["y", "dx", "dw", "db"].iter().zip(exact.iter().zip(&mixed))
            {
                let largest = exact.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
                for (exact, mixed) in exact.iter().zip(mixed) {
                    assert!(
                        (exact - mixed).abs() <= largest / 64.0,
                        "{name} of {rows}x{inputs}x{outputs}: {mixed} for {exact}"
                    );
                }
            }
            let native = ComputePrecision::Bf16.is_native_on_cpu();
            assert_eq!(
                exact[0] != mixed[0],
                native,
                "computed in bf16 where that is native"
            );
            let one = passes(
                ComputePrecision::Bf16,
                &layer,
                &x.clone().narrow(0, rows - 1, 1),
                act,
            );
            assert_eq!(one[0], mixed[0][(rows - 1) * outputs..]);
            assert_eq!(exact, passes(ComputePrecision::F32, &layer, &x, act));
        }
    }
}

/// Output and gradients of attention within 2^-6 of the largest value. A head does not depend on the batch.
#[test]
fn attention_in_mixed_precision_is_nearly_the_same() {
    let (device, mut rng) = (Device::flex(), Rng::new(3, 0));
    let [q, k, v] = [130, 200, 200].map(|seq| rng.normal_tensor([3, 2, seq, 64], &device));
    let passes = |precision, batch: std::ops::Range<usize>| {
        let qkv = [&q, &k, &v].map(|x: &Tensor<4>| {
            let part = x.clone().slice([batch.clone()]);
            Tensor::<4>::from_data(part.into_data(), &device.clone().autodiff()).require_grad()
        });
        let y = autocast(precision, || {
            let [q, k, v] = qkv.clone();
            ops::attention(q, k, v, Mask::All)
        });
        let gradients = (y.clone() * y.clone().detach()).sum().backward();
        let [dq, dk, dv] = qkv.map(|x| host_values(x.grad(&gradients).expect("a gradient")));
        [host_values(y.inner()), dq, dk, dv]
    };
    let exact = passes(ComputePrecision::F32, 0..3);
    let mixed = passes(ComputePrecision::Bf16, 0..3);
    for (exact, mixed) in exact.iter().zip(&mixed) {
        let largest = exact.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        for (exact, mixed) in exact.iter().zip(mixed) {
            assert!(
                (exact - mixed).abs() <= largest / 64.0,
                "{mixed} for {exact}"
            );
        }
    }
    let native = ComputePrecision::Bf16.is_native_on_cpu();
    assert_eq!(
        exact != mixed,
        native,
        "computed in bf16 where that is native"
    );
    let alone = passes(ComputePrecision::Bf16, 1..2);
    for (alone, mixed) in alone.iter().zip(&mixed) {
        assert_eq!(alone, &mixed[alone.len()..2 * alone.len()]);
    }
}
