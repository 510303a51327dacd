//! On a grid of ranks the model draws and learns what it does on one.

use super::tiny;
use burn::tensor::{Device, Tensor};
use std::ops::ControlFlow;
use tessera_attention2d::{Grid, TokenSharding, threads};
use tessera_backend::{Rng, host_values};
use tessera_gen_dit::Dit;
use tessera_train::{Grads, Share};

const GRIDS: [Grid; 3] = [
    Grid { rows: 2, cols: 2 },
    Grid { rows: 1, cols: 3 },
    Grid { rows: 5, cols: 1 },
];

/// To 1e-4 of the largest, dense and with experts by threshold.
#[test]
fn a_grid_draws_the_latents_of_one_rank() {
    for config in [tiny::config(), tiny::race(tiny::flow(tiny::config()), true)] {
        let model = tiny::model(&config);
        let draw = |model: &Dit| {
            let mut go_on = |_: tessera_gen_dit::DenoisingStep| ControlFlow::Continue(());
            let drawn = model.generate(&tiny::requests(2), &tiny::sampling(4, 2.0), &mut go_on);
            drawn.unwrap().into_iter().collect::<Vec<f32>>()
        };
        let alone = draw(&model);
        let largest = alone.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
        for grid in GRIDS {
            let ranks = threads::run(grid.ranks(), |comm| {
                let sequence = TokenSharding::on_grid(&comm, grid)?;
                Ok(draw(&model.clone().on(sequence).unwrap()))
            });
            for drawn in ranks.unwrap() {
                for (found, expected) in drawn.iter().zip(&alone) {
                    assert!(
                        (found - expected).abs() < 1e-4 * largest,
                        "{grid}: {found} {expected}"
                    );
                }
            }
        }
    }
}

/// Every gradient as the mean over the ranks, to 1e-4 of its largest.
#[test]
fn a_grid_learns_what_one_rank_learns() {
    let (config, device) = (tiny::config(), Device::flex().autodiff());
    let model = tiny::model_on(&config, &device);
    let latents: Tensor<4> = Rng::new(8, 8).normal_tensor([4, 3, 8, 8], &device);
    let step = |model: &Dit| {
        let mut rng = Rng::new(1, 3);
        let losses = model.loss(latents.clone(), &[0, 4, 2, 2], Share::WHOLE, &mut rng);
        Grads::of(model, &mut losses.total.backward())
    };
    let values = |grads: &Grads| -> Vec<(String, Vec<f32>)> {
        let named = grads.iter();
        named
            .map(|(name, grad)| (name.to_owned(), host_values(grad.clone())))
            .collect()
    };
    let expected = values(&step(&model));
    for grid in GRIDS {
        let ranks = threads::run(grid.ranks(), |comm| {
            let model = model
                .clone()
                .on(TokenSharding::on_grid(&comm, grid)?)
                .unwrap();
            Ok(values(&step(&model).mean(&model, &comm).unwrap()))
        });
        for found in ranks.unwrap() {
            assert_eq!(found.len(), expected.len());
            for ((name, found), (_, expected)) in found.iter().zip(&expected) {
                let largest = expected.iter().fold(1e-4_f32, |max, x| max.max(x.abs()));
                for (found, expected) in found.iter().zip(expected) {
                    let error = (found - expected).abs();
                    assert!(error < 1e-4 * largest, "{grid}: {name}: {found} {expected}");
                }
            }
        }
    }
}
