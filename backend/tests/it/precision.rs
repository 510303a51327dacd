//! Linear maps with weights of 16 bits, whichever instructions multiply them and in whichever order they are stored.

use burn::tensor::{Device, Tensor};
use proptest::prelude::*;
use tessera_backend::init::ParamInit;
use tessera_backend::nn::Linear;
use tessera_backend::ops::{self, Activation};
use tessera_backend::{ComputePrecision, Rng, host_values};

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
        rows in 1..40_usize, inputs in 1..80_usize, whole in any::<bool>(), width in 1..70_usize, seed in any::<u64>(),
    ) {
        let [inputs, width] = if whole { [inputs.next_multiple_of(32), 64] } else { [inputs, width] };
        let (device, mut rng) = (Device::flex(), Rng::new(seed, 0));
        let [half, _] = layers([inputs, 3 * width], true, &mut rng);
        let x: Tensor<2> = rng.normal_tensor([rows, inputs], &device);
        let all = host_values(ops::linear(x.clone(), &half, Activation::Silu));
        let weight = host_values(ops::weight_of(&half, inputs).cast(x.dtype()));
        for (part, layer) in ops::columns::<3>(&half, inputs).iter().enumerate() {
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
