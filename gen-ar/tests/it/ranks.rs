//! On a grid of ranks the model draws and learns what it does on one.

use super::{loss::tokens, tiny};
use burn::tensor::Device;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use tessera_attention2d::{Comm, Grid, TokenSharding, threads};
use tessera_backend::{Rng, host_values};
use tessera_gen_ar::{GenAr, GenArConfig, MaskPlan};
use tessera_moe::MoeConfig;
use tessera_train::Grads;

const GRIDS: [Grid; 4] = [
    Grid { rows: 2, cols: 2 },
    Grid { rows: 1, cols: 3 },
    Grid { rows: 3, cols: 2 },
    Grid { rows: 4, cols: 1 },
];

fn on(model: &GenAr, comm: &Comm, grid: Grid) -> GenAr {
    let sequence = TokenSharding::on_grid(comm, grid).unwrap();
    model.clone().on(sequence).unwrap()
}

#[test]
fn a_grid_draws_the_tokens_of_one_rank() {
    let experts = GenArConfig {
        moe: Some(MoeConfig {
            target_weight: 0.0,
            ..MoeConfig::k_in_e(2, 4)
        }),
        ..tiny::config()
    };
    for config in [tiny::config(), experts] {
        let model = tiny::model_on(&config, &Device::flex());
        let draw = |model: &GenAr| {
            let config = tiny::sampling(5, 2.5, 1.0);
            let go_on = &mut |_: tessera_gen_ar::SamplingStep<'_>| ControlFlow::Continue(());
            model.generate(&tiny::requests(3), &config, go_on).unwrap()
        };
        let alone = draw(&model);
        for grid in GRIDS {
            let ranks = threads::run(grid.ranks(), |comm| Ok(draw(&on(&model, &comm, grid))));
            for tokens in ranks.unwrap() {
                assert_eq!(tokens, alone, "{grid}");
            }
        }
    }
}

/// Losses and gradients as means over the ranks, to 1e-5 of the largest.
#[test]
fn a_grid_learns_what_one_rank_learns() {
    let (config, device) = (tiny::config(), Device::flex().autodiff());
    let model = tiny::model_on(&config, &device);
    let step = |model: &GenAr| {
        let plan = MaskPlan::draw(&config, 3, &mut Rng::new(4, 0));
        let indices = tokens(&config, 3, &device);
        let loss = model.loss(indices, &[0, 2, 1], &plan, &mut Rng::new(0, 1));
        let grads = Grads::of(model, &mut loss.total.clone().backward());
        (host_values(loss.total.inner())[0], grads)
    };
    let values = |grads: &Grads| -> BTreeMap<String, Vec<f32>> {
        let named = grads.iter();
        named
            .map(|(name, grad)| (name.to_owned(), host_values(grad.clone())))
            .collect()
    };
    let (loss, grads) = step(&model);
    let grads = values(&grads);
    for grid in GRIDS {
        let ranks = threads::run(grid.ranks(), |comm| {
            let model = on(&model, &comm, grid);
            let (loss, grads) = step(&model);
            let mut loss = [loss];
            comm.all_mean(&mut loss)?;
            Ok((loss[0], values(&grads.mean(&model, &comm).unwrap())))
        });
        for (of_grid, found) in ranks.unwrap() {
            assert!(
                (of_grid / loss - 1.0).abs() < 1e-5,
                "{grid}: {of_grid} {loss}"
            );
            assert!(found.keys().eq(grads.keys()), "{grid}");
            for (name, expected) in &grads {
                let largest = expected.iter().fold(1e-4_f32, |max, x| max.max(x.abs()));
                for (found, expected) in found[name].iter().zip(expected) {
                    let error = (found - expected).abs();
                    assert!(error < 1e-5 * largest, "{grid}: {name}: {found} {expected}");
                }
            }
        }
    }
}

#[test]
fn what_depends_on_which_tokens_are_together_is_refused() {
    let refused = |config: GenArConfig, device: Device| {
        let model = tiny::model_on(&config, &device);
        let texts = threads::run(2, |comm| {
            let sequence = TokenSharding::on_grid(&comm, Grid { rows: 2, cols: 1 })?;
            Ok(model.clone().on(sequence).unwrap_err().to_string())
        });
        texts.unwrap().remove(0)
    };
    let experts = |threshold| GenArConfig {
        moe: Some(MoeConfig {
            threshold,
            target_weight: 0.0,
            ..MoeConfig::k_in_e(2, 4)
        }),
        ..tiny::config()
    };
    let text = refused(experts(false), Device::flex());
    assert!(text.ends_with("with experts without a threshold"), "{text}");
    let text = refused(experts(true), Device::flex().autodiff());
    assert!(text.contains("experts, which race"), "{text}");
    let dropout = GenArConfig {
        proj_dropout: 0.1,
        ..tiny::config()
    };
    let text = refused(dropout, Device::flex().autodiff());
    assert!(text.ends_with("with dropout"), "{text}");
}
