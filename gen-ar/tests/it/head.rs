//! Fast paths against slow ones: the cached head, and the decoder that computes wanted positions alone.

use super::tiny;
use burn::tensor::{Device, Int, Tensor};
use proptest::prelude::*;
use tessera_backend::Rng;
use tessera_backend::ops::{self, Sampling};
use tessera_gen_ar::{
    ABSENT, Decoding, Dropout, FirstPosition, ForwardContext, GenArConfig, Positions,
    TransformerConfig,
};

fn largest<const D: usize>(x: Tensor<D>) -> f32 {
    x.abs().max().into_scalar::<f32>()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Greedy draws with cached keys and values: the head without a cache gives the same logits (to 1e-5 of the
    /// largest) and, where it is not a tie, the same indices. So it is with several dimensions to a step, and where
    /// each has a width of its own: the levels that it lacks have no chance.
    #[test]
    fn the_cached_head_equals_the_head_without_cache(
        tokens in 1usize..9,
        steps in 1usize..5,
        dims_per_step in 1usize..4,
        widths in proptest::option::of(prop::collection::vec(1u32..4, 12)),
        released in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let device = Device::flex();
        let dims = steps * dims_per_step;
        let mut channel_levels: Vec<usize> = widths.iter().flatten().take(dims).map(|bits| 1 << bits).collect();
        if let Some(first) = channel_levels.first_mut() {
            *first = 8;
        }
        let config = GenArConfig {
            token_embed_dim: dims,
            channel_order: (0..dims).rev().collect(),
            dims_per_step,
            channel_levels,
            ..tiny::config()
        };
        let first = if released { FirstPosition::Released } else { FirstPosition::AsTrained };
        let model = tiny::model_on(&config, &device);
        let z: Tensor<2> = Rng::new(seed, 0).normal_tensor([tokens, config.dec.width], &device);
        let mut logits = Vec::new();
        let drawn = model.autoregress(z.clone(), first, Decoding::Sequential, &mut |dim, row| {
            let levels = row.dims()[1];
            assert_eq!(levels, config.levels_of(config.channel_order[dim]));
            let absent = Tensor::full([tokens, config.levels - levels], ABSENT, &device);
            logits.push(Tensor::cat(vec![row.clone(), absent], 1));
            row.argmax(1).squeeze_dim(1)
        });
        let drawn = drawn.indices;
        prop_assert_eq!(drawn.dims(), [tokens, dims]);
        let cached = Tensor::stack::<3>(logits, 0);
        let full = model.head_logits(z, drawn.clone(), first, &mut Dropout::off());
        prop_assert_eq!(full.dims(), [dims, tokens, config.levels]);
        let there = full.clone().lower_elem(ABSENT / 2.0);
        prop_assert_eq!(there.clone().into_data(), cached.clone().lower_elem(ABSENT / 2.0).into_data());
        let error = largest((full.clone() - cached).mask_fill(there.clone(), 0.0));
        let error = error / largest(full.clone().mask_fill(there, 0.0));
        prop_assert!(error < 1e-5, "logits differ by {}", error);
        let greedy: Tensor<2, Int> = full.argmax(2).squeeze_dim::<2>(2).transpose();
        prop_assert_eq!(greedy.into_data(), drawn.into_data());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// All steps from a guess, until none is wrong: the tokens of one step after the other, bit for bit, in no more
    /// passes than there are steps.
    #[test]
    fn jacobi_decoding_draws_the_sequential_tokens(
        tokens in 1usize..40,
        steps in 1usize..17,
        dims_per_step in 1usize..3,
        [width, heads] in prop::sample::select(vec![[16, 1], [20, 2], [64, 4], [128, 2]]),
        levels in 2usize..65,
        (temperature, top_k, top_p) in (prop_oneof![Just(0.0_f32), 0.5..1.5_f32], 0..20_usize, 0.5..1.0_f32),
        seed in any::<u64>(),
    ) {
        let device = Device::flex();
        let dims = steps * dims_per_step;
        let config = GenArConfig {
            token_embed_dim: dims,
            levels,
            channel_order: (0..dims).collect(),
            dims_per_step,
            ch: TransformerConfig { width, heads, depth: 2 },
            ..tiny::config()
        };
        let model = tiny::model_on(&config, &device);
        let mut rng = Rng::new(seed, 0);
        let z: Tensor<2> = rng.normal_tensor([tokens, config.dec.width], &device) * 3.0;
        let uniforms: Tensor<2> = rng.uniform_tensor([dims, tokens], &device);
        let sampling = Sampling { temperature, top_k, top_p };
        let mut choose = |dim, logits: Tensor<2>| {
            let uniforms = uniforms.clone().narrow(0, dim, 1).squeeze_dim(0);
            ops::categorical(logits * 4.0, uniforms, sampling)
        };
        let [sequential, jacobi] = [Decoding::Sequential, Decoding::Jacobi]
            .map(|decoding| model.autoregress(z.clone(), FirstPosition::Released, decoding, &mut choose));
        prop_assert_eq!(sequential.indices.into_data(), jacobi.indices.into_data());
        prop_assert_eq!(sequential.steps, steps);
        prop_assert!((steps..=steps * (steps + 1) / 2).contains(&jacobi.steps));
    }
}

/// The features of some positions are those of all, to 1e-5 of the largest.
#[test]
fn the_decoder_of_some_positions_equals_the_decoder_of_all() {
    let (device, config, model) = (Device::flex(), tiny::config(), tiny::model());
    let visible = Positions::new([vec![3, 7], vec![0, 11]]);
    let wanted = Positions::new([vec![1, 2, 10], vec![4, 5, 9]]);
    let all = Positions::new(vec![(0..config.seq()).collect(); 2]);
    let values = Rng::new(2, 0).normal_tensor([4, config.token_embed_dim], &device);
    let context = &mut ForwardContext::inference();
    let encoded = model.encode(Some(values), &visible, &[Some(1), None], context);
    let some = model.decode(encoded.clone(), &visible, &wanted, context);
    let rows: Vec<i32> = wanted
        .iter()
        .map(|(image, position)| (image * 12 + position) as i32)
        .collect();
    let rows = Tensor::<1, Int>::from_data(rows.as_slice(), &device);
    let all = model
        .decode(encoded, &visible, &all, context)
        .select(0, rows);
    assert!(largest(some - all.clone()) < 1e-5 * largest(all));
}
