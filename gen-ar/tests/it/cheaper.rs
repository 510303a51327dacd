//! What makes a picture cheaper: exact where it says so, and of no picture's concern but its own.

use super::tiny;
use burn::tensor::Device;
use ndarray::{Array3, Axis};
use proptest::prelude::*;
use std::ops::ControlFlow;
use tessera_attention2d::{Grid, TokenSharding, threads};
use tessera_backend::ComputePrecision;
use tessera_gen_ar::{
    Cache, Decoding, EasyThreshold, Error, GenAr, GenArConfig, ImageRequest, LazySchedule, Order,
    SampleConfig, SamplingStep, TransformerConfig,
};
use tessera_moe::MoeConfig;

fn generate(model: &GenAr, requests: &[ImageRequest], sampling: &SampleConfig) -> Array3<u16> {
    let go = &mut |_: SamplingStep<'_>| ControlFlow::Continue(());
    model.generate(requests, sampling, go).unwrap()
}

fn orders() -> impl Strategy<Value = Order> {
    prop::sample::select(vec![Order::Random, Order::Staged, Order::Halton])
}

/// Deep and wide enough for rows to be pruned between blocks, and for a step to draw few of many positions.
fn deep() -> GenArConfig {
    let size = |depth| TransformerConfig {
        width: 32,
        depth,
        heads: 2,
    };
    GenArConfig {
        class_num: 3,
        buffer_size: 4,
        attn_dropout: 0.0,
        proj_dropout: 0.0,
        ..GenArConfig::new([6, 6], 3, 8, size(5), size(1))
    }
}

fn experts() -> GenArConfig {
    GenArConfig {
        moe: Some(MoeConfig {
            target_weight: 0.0,
            ..MoeConfig::k_in_e(2, 4)
        }),
        ..deep()
    }
}

/// Every combination that changes how a picture comes about.
fn settings(steps: usize) -> Vec<SampleConfig> {
    let mut settings = Vec::new();
    for order in [Order::Random, Order::Staged, Order::Halton] {
        for cfg_scale in [1.0, 2.5] {
            let exact = tiny::sampling(steps, cfg_scale, 1.0).order(order);
            settings.push(exact.clone());
            settings.push(exact.clone().lazy(LazySchedule::of_steps(steps)));
            settings.push(exact.lazy(LazySchedule {
                start: 0,
                refresh: steps,
            }));
        }
    }
    settings
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Bit for bit: a cache that is refreshed at every step, or that starts when all is over, is none.
    #[test]
    fn a_cache_that_reuses_nothing_changes_nothing(
        steps in 1usize..14,
        cfg_scale in prop::sample::select(vec![1.0_f32, 2.5]),
        order in orders(),
        start in 0usize..16,
        count in 1usize..4,
        small in any::<bool>(),
        bf16 in any::<bool>(),
    ) {
        let config = if small { tiny::config() } else { deep() };
        let model = tiny::model_on(&config, &Device::flex());
        let model = match bf16 {
            true => ComputePrecision::Bf16.apply(model),
            false => model,
        };
        let exact = tiny::sampling(steps, cfg_scale, 1.0).order(order);
        let requests = tiny::requests(count);
        let expected = generate(&model, &requests, &exact);
        for schedule in [
            LazySchedule { start, refresh: 1 },
            LazySchedule { start: steps, refresh: 9 },
        ] {
            prop_assert_eq!(&generate(&model, &requests, &exact.clone().lazy(schedule)), &expected);
        }
    }

    /// Whole pictures, bit for bit, with any order, cache and number of tokens at once.
    #[test]
    fn jacobi_decoding_draws_the_sequential_pictures(
        steps in 1usize..14,
        order in orders(),
        lazy in any::<bool>(),
        count in 1usize..4,
        temperature in prop::sample::select(vec![0.0_f32, 0.8, 1.0]),
        dims_per_step in prop::sample::select(vec![1usize, 3]),
    ) {
        let config = GenArConfig { dims_per_step, ..deep() };
        let model = tiny::model_on(&config, &Device::flex());
        let sampling = tiny::sampling(steps, 2.5, temperature).order(order);
        let sampling = match lazy {
            true => sampling.lazy(LazySchedule::of_steps(steps)),
            false => sampling,
        };
        let draw = |sampling: SampleConfig| generate(&model, &tiny::requests(count), &sampling);
        let expected = draw(sampling.clone().head(Decoding::Sequential));
        prop_assert_eq!(&draw(sampling.clone().head(Decoding::Jacobi)), &expected);
        prop_assert_eq!(&draw(sampling), &expected);
    }

    /// Every position once, in at most as many steps as asked, whatever the grid.
    #[test]
    fn every_order_has_each_position_once(
        grid in [1usize..9, 1usize..9],
        steps in 1usize..90,
        order in orders(),
    ) {
        let plan = order.schedule(grid, steps);
        let seq = grid[0] * grid[1];
        prop_assert_eq!(plan.len(), steps.min(seq));
        prop_assert!(plan.iter().all(|step| step.predicted > 0));
        prop_assert_eq!(plan.iter().map(|step| step.predicted).sum::<usize>(), seq);
        let size = TransformerConfig { width: 8, depth: 1, heads: 1 };
        let config = GenArConfig { class_num: 3, ..GenArConfig::new(grid, 1, 4, size, size) };
        let model = tiny::model_on(&config, &Device::flex());
        let mut counts = vec![0; seq];
        let count = &mut |step: SamplingStep<'_>| {
            for (count, &known) in counts.iter_mut().zip(step.known) {
                *count += usize::from(known);
            }
            ControlFlow::Continue(())
        };
        let sampling = tiny::sampling(steps, 1.0, 1.0).order(order);
        model.generate(&tiny::requests(1), &sampling, count).unwrap();
        // Known from the step that drew it to the last: the counts say how many positions each step drew.
        for (step, planned) in plan.iter().enumerate() {
            let drawn = counts.iter().filter(|&&count| count == plan.len() - step).count();
            prop_assert_eq!(drawn, planned.predicted);
        }
    }
}

#[test]
fn an_image_of_a_batch_equals_the_same_image_alone_with_every_setting() {
    for config in [deep(), experts()] {
        let model = tiny::model_on(&config, &Device::flex());
        for sampling in settings(9) {
            let requests = tiny::requests(4);
            let all = generate(&model, &requests, &sampling);
            for (image, request) in requests.iter().enumerate() {
                let alone = generate(&model, &[*request], &sampling);
                assert_eq!(
                    alone.index_axis(Axis(0), 0),
                    all.index_axis(Axis(0), image),
                    "{sampling:?}"
                );
            }
        }
    }
}

#[test]
fn a_grid_draws_the_tokens_of_one_rank_with_every_setting() {
    for config in [deep(), experts()] {
        let model = tiny::model_on(&config, &Device::flex());
        for sampling in settings(7) {
            let alone = generate(&model, &tiny::requests(2), &sampling);
            for grid in [Grid { rows: 2, cols: 2 }, Grid { rows: 3, cols: 1 }] {
                let ranks = threads::run(grid.ranks(), |comm| {
                    let sequence = TokenSharding::on_grid(&comm, grid).unwrap();
                    let model = model.clone().on(sequence).unwrap();
                    Ok(generate(&model, &tiny::requests(2), &sampling))
                });
                for tokens in ranks.unwrap() {
                    assert_eq!(tokens, alone, "{grid} {sampling:?}");
                }
            }
        }
    }
}

/// Lazy steps are fewer operations, and other pictures.
#[test]
fn a_cache_saves_work_and_changes_pictures() {
    let model = tiny::model_on(&deep(), &Device::flex());
    let run = |sampling: &SampleConfig| {
        let mut flops = 0.0;
        let go = &mut |step: SamplingStep<'_>| {
            flops += step.flops.encoder + step.flops.decoder;
            ControlFlow::Continue(())
        };
        let tokens = model.generate(&tiny::requests(2), sampling, go).unwrap();
        (tokens, flops)
    };
    let exact = tiny::sampling(32, 2.5, 1.0);
    let lazy = exact.clone().lazy(LazySchedule::of_steps(32));
    let ((exact, most), (lazy, least)) = (run(&exact), run(&lazy));
    assert!(least < 0.5 * most, "{least} of {most}");
    assert_ne!(exact, lazy);
}

#[test]
fn caches_are_refused_where_they_mean_nothing() {
    let refused = |config: &GenArConfig, sampling: SampleConfig| {
        let model = tiny::model_on(config, &Device::flex());
        let go = &mut |_: SamplingStep<'_>| ControlFlow::Continue(());
        match model.generate(&tiny::requests(1), &sampling, go) {
            Err(error @ Error::Sampling { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let sampling = tiny::sampling(4, 1.0, 1.0);
    let schedule = LazySchedule {
        start: 1,
        refresh: 2,
    };
    let mut racing = experts();
    racing.moe.as_mut().unwrap().threshold = false;
    assert_eq!(
        refused(&racing, sampling.clone().lazy(schedule)),
        "sampling option `cache` must be none for a model whose experts have no threshold, found lazy"
    );
    assert_eq!(
        refused(
            &deep(),
            sampling.clone().lazy(LazySchedule {
                refresh: 0,
                ..schedule
            })
        ),
        "sampling option `refresh` must be at least 1, found 0"
    );
    let easy = Some(Cache::Easy(EasyThreshold { threshold: 0.2 }));
    assert_eq!(
        refused(
            &deep(),
            SampleConfig {
                cache: easy,
                ..sampling
            }
        ),
        "sampling option `cache` must be none or lazy for an autoregressive model, found easy"
    );
}
