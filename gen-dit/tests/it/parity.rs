//! Against PyTorch on a small random checkpoint.

use super::devices::devices;
use super::reference::{Arrays, fixture, gradients};
use burn::tensor::{Device, Tensor};
use tessera_gen_dit::{Ddpm, Dit};
use tessera_moe::RouterTrace;
use tessera_weights::{Weights, Which};

/// Forward passes to 1e-4 of the largest value, gradients to 1e-3.
const FORWARD: f32 = 1e-4;
const GRADIENT: f32 = 1e-3;

fn check_gradients(arrays: &Arrays, prefix: &str, model: &Dit, loss: Tensor<1>) {
    let gradients = gradients(model, loss);
    assert!(!gradients.contains_key("pos_embed"), "it is not trained");
    let names = arrays.names(prefix);
    assert!(names.len() >= 3);
    for name in names {
        arrays.check_values(&format!("{prefix}{name}"), &gradients[&name], GRADIENT);
    }
}

#[test]
fn parity_of_an_evaluation_and_its_gradients() {
    for device in devices().map(Device::autodiff) {
        let arrays = Arrays::read();
        let model = arrays.model(&device);
        let (x, times) = (
            arrays.tensor("forward.x", &device),
            arrays.floats("forward.t"),
        );
        let labels = arrays.labels("forward.labels", 10);
        assert_eq!(labels[2], None);
        let output = model.forward(x, &times, &labels, &mut RouterTrace::off());
        arrays.check("forward.output", output.clone(), FORWARD);
        let loss = (output * arrays.tensor("forward.r", &device)).sum();
        check_gradients(&arrays, "forward.grad.", &model, loss);
    }
}

#[test]
fn parity_of_the_position_table() {
    let arrays = Arrays::read();
    let model = arrays.config("config").init(3, &Device::flex());
    let weights = model.weights();
    let table = weights.get("pos_embed").unwrap().values().unwrap();
    arrays.check_values("model.pos_embed", &table, 0.0);
}

/// Noise, mean squared error and bound per image, at the first step (which has another bound), the second and later
/// ones; gradients of both losses, which meet in the last layer but for the bound's of the noise.
#[test]
fn parity_of_the_losses_of_a_training_step() {
    for device in devices().map(Device::autodiff) {
        let arrays = Arrays::read();
        let model = arrays.model(&device);
        let chain = Ddpm::new(1000);
        let steps = arrays.ints("loss.steps");
        assert_eq!(steps[..3], [0, 0, 1]);
        let times: Vec<_> = steps.iter().map(|&step| step as f32).collect();
        let labels = arrays.labels("loss.labels", 10);
        let [x0, noise] = ["loss.x0", "loss.noise"].map(|name| arrays.tensor::<4>(name, &device));
        let x = chain.noised(x0.clone(), noise.clone(), &steps);
        arrays.check("loss.noised", x.clone(), 1e-6);

        let said = model.forward(x.clone(), &times, &labels, &mut RouterTrace::off());
        let [guess, variance] = [0, 4].map(|first| said.clone().narrow(1, first, 4));
        let error = (guess.clone() - noise).powi_scalar(2);
        let mse: Tensor<1> = error.flatten::<2>(1, 3).mean_dim(1).squeeze_dim(1);
        arrays.check("loss.mse", mse.clone(), FORWARD);
        let bound = chain.bound(x0, x, guess, variance, &steps);
        arrays.check("loss.vb", bound.clone(), FORWARD);
        check_gradients(&arrays, "loss.grad.", &model, (mse + bound).mean());
    }
}

#[test]
fn parity_of_a_short_chain_from_noise_to_latents() {
    for device in devices() {
        let arrays = Arrays::read();
        let model = arrays.model(&device);
        let chain = Ddpm::new(10);
        let times: Vec<_> = (0..10).map(|step| chain.time(step)).collect();
        assert_eq!(times, arrays.ints("chain.times"));
        let parts: Vec<_> = (0..10)
            .flat_map(|step| [chain.signal(step), chain.noise(step)])
            .map(|x| x as f32)
            .collect();
        arrays.check_values("chain.signal_and_noise", &parts, 1e-6);

        let labels = arrays.labels("chain.labels", 10);
        let start = arrays.tensor::<4>("chain.x", &device);
        let fresh = arrays.tensor::<5>("chain.fresh", &device);
        let fresh = |step: usize| {
            let at = 9_usize.checked_sub(step).filter(|&at| at < 9)?;
            Some(fresh.clone().narrow(0, at, 1).squeeze_dim::<4>(0))
        };
        let ask = |x: &Tensor<4>, step: usize, labels: &[Option<usize>]| {
            let time = chain.time(step) as f32;
            let said = model.forward(x.clone(), &[time; 2], labels, &mut RouterTrace::off());
            [0, 4].map(|first| said.clone().narrow(1, first, 4))
        };
        let mut x = start.clone();
        for step in (0..10).rev() {
            let [noise, variance] = ask(&x, step, &labels);
            x = chain.step(x, noise, Some(variance), fresh(step), step);
            if step == 9 {
                arrays.check("chain.first", x.clone(), FORWARD);
            }
        }
        arrays.check("chain.last", x, FORWARD);

        let [with, variance] = ask(&start, 9, &labels);
        let [without, _] = ask(&start, 9, &[None, None]);
        let scale: f32 = arrays.metadata("guidance").parse().unwrap();
        let guided = without.clone() + (with.clone() - without) * scale;
        arrays.check("chain.guided", guided.clone(), FORWARD);
        let first = chain.step(start.clone(), guided, Some(variance), fresh(9), 9);
        arrays.check("chain.guided_first", first, FORWARD);
        for step in [0, 1, 5] {
            let next = chain.step(start.clone(), with.clone(), None, fresh(9), step);
            arrays.check(&format!("chain.fixed.{step}"), next, FORWARD);
        }
    }
}

/// What DiT's training writes: the model, its average (which is taken unless told otherwise), an optimizer and
/// arguments.
#[test]
fn parity_with_a_training_checkpoint_of_pytorch() {
    let (arrays, device) = (Arrays::read(), Device::flex());
    let config = arrays.config("pt_config");
    for (name, which) in [
        ("ema", None),
        ("ema", Some(Which::Ema)),
        ("model", Some(Which::Raw)),
    ] {
        let weights = Weights::read_model(fixture("dit.pt"), which).unwrap();
        let model = Dit::from_weights(&config, weights, &device, &mut |_| ()).unwrap();
        let x = arrays.tensor("pt.x", &device);
        let output = model.forward(x, &[77.0], &[Some(2)], &mut RouterTrace::off());
        arrays.check(&format!("pt.{name}"), output, FORWARD);
    }
}
