//! The loss of a training step.

use super::{reference::host, tiny};
use burn::tensor::{Device, Tensor};
use tessera_backend::Rng;
use tessera_gen_dit::{Ddpm, Dit, DitConfig};
use tessera_moe::RouterTrace;
use tessera_train::{Losses, Share};

fn parts(losses: &Losses) -> Vec<&'static str> {
    losses.parts.iter().map(|(name, _)| *name).collect()
}

fn value(losses: &Losses, name: &str) -> f32 {
    let part = losses.parts.iter().find(|part| part.0 == name);
    host(part.unwrap().1.clone())[0]
}

fn latents(config: &DitConfig, batch: usize, device: &Device) -> Tensor<4> {
    let side = config.input_size;
    let shape = [batch, config.in_channels, side, side];
    Rng::new(8, 8).normal_tensor(shape, device) * 0.5
}

fn loss(model: &Dit, seed: u64) -> Losses {
    let x = latents(model.config(), 4, &model.device());
    model.loss(x, &[0, 4, 2, 2], Share::WHOLE, &mut Rng::new(seed, 3))
}

/// The noise and the steps are drawn from the generator given, in this order.
#[test]
fn the_loss_of_ddpm_is_the_error_of_the_noise_and_the_bound() {
    let model = tiny::model(&tiny::config());
    let losses = loss(&model, 1);
    assert_eq!(parts(&losses), ["mse", "bound"]);
    let x0 = latents(model.config(), 4, &model.device());
    let mut rng = Rng::new(1, 3);
    let noise = rng.normal_tensor(x0.dims(), &model.device());
    let steps: Vec<_> = (0..4).map(|_| rng.below(1000)).collect();
    let times: Vec<_> = steps.iter().map(|&step| step as f32).collect();
    let chain = Ddpm::new(1000);
    let x = chain.noised(x0.clone(), noise.clone(), &steps);
    let labels = [0, 4, 2, 2].map(Some);
    let said = model.forward(x.clone(), &times, &labels, &mut RouterTrace::off());
    let [guess, variance] = [0, 3].map(|first| said.clone().narrow(1, first, 3));
    let mse = host((guess.clone() - noise).powi_scalar(2).mean())[0];
    let bound = host(chain.bound(x0, x, guess, variance, &steps).mean())[0];
    assert!((value(&losses, "mse") / mse - 1.0).abs() < 1e-5);
    assert!((value(&losses, "bound") / bound - 1.0).abs() < 1e-5);
    let total = host(losses.total)[0];
    assert!((total / (mse + bound) - 1.0).abs() < 1e-5);
}

/// A model that says nothing errs by the velocity itself, whose mean square is that of noise and of latents together.
#[test]
fn the_loss_of_flow_is_the_error_of_the_velocity() {
    let config = tiny::flow(tiny::config());
    let model = config.init(0, &Device::flex());
    let x0 = latents(&config, 4, &model.device());
    let losses = loss(&model, 1);
    assert_eq!(parts(&losses), ["mse"]);
    let noise = Rng::new(1, 3).normal_tensor(x0.dims(), &model.device());
    let expected = host((noise - x0).powi_scalar(2).mean())[0];
    assert!((value(&losses, "mse") / expected - 1.0).abs() < 1e-5);
}

#[test]
fn experts_race_in_training_alone_and_hand_their_thresholds_to_the_loop() {
    for config in [tiny::config(), tiny::flow(tiny::config())] {
        let config = tiny::race(config, true);
        let device = Device::flex().autodiff();
        let losses = loss(&tiny::model_on(&config, &device), 2);
        println!("{:?}", parts(&losses));
        for name in ["mse", "similarity", "target"] {
            assert!(value(&losses, name).is_finite(), "{name}");
        }
        let names: Vec<_> = losses
            .buffers
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(
            names,
            [
                "blocks.0.moe.router.threshold",
                "blocks.1.moe.router.threshold"
            ]
        );
        assert!(losses.buffers.iter().all(|(_, value)| *value != 0.0));
        let held_out = loss(&tiny::model(&config), 2);
        assert!(held_out.buffers.is_empty(), "nothing raced");
    }
}

/// Every trained parameter has a gradient that is not zero everywhere; the table of positions and the thresholds have
/// none.
#[test]
fn every_weight_is_trained() {
    for (name, config) in tiny::all() {
        let model = tiny::model_on(&config, &Device::flex().autodiff());
        let total = loss(&model, 3).total;
        let gradients = super::reference::gradients(&model, total);
        for weight in model.shapes().into_keys() {
            let trained = weight != "pos_embed" && !weight.ends_with("threshold");
            let found = gradients.get(&weight);
            assert_eq!(found.is_some(), trained, "{name}: {weight}");
            let some = found.is_none_or(|values| values.iter().any(|&value| value != 0.0));
            assert!(some, "{name}: {weight}");
        }
    }
}

#[test]
fn one_seed_gives_one_loss() {
    for (name, config) in tiny::all() {
        let device = Device::flex().autodiff();
        let total = |seed| host(loss(&tiny::model_on(&config, &device), seed).total);
        assert_eq!(total(4), total(4), "{name}");
        assert_ne!(total(4), total(5), "{name}");
    }
}
