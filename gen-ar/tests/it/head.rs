//! Fast paths against slow ones: the cached head, and the decoder that computes wanted positions alone.

use super::tiny;
use burn::tensor::{Device, Int, Tensor};
use proptest::prelude::*;
use tessera_backend::Rng;
use tessera_gen_ar::{ABSENT, Dropout, FirstPosition, ForwardContext, GenArConfig, Positions};

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
        let drawn = model.autoregress(z.clone(), first, &mut |dim, row| {
            let levels = row.dims()[1];
            assert_eq!(levels, config.levels_of(config.channel_order[dim]));
            let absent = Tensor::full([tokens, config.levels - levels], ABSENT, &device);
            logits.push(Tensor::cat(vec![row.clone(), absent], 1));
            row.argmax(1).squeeze_dim(1)
        });
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
