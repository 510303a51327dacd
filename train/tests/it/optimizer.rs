//! AdamW against a plain reference, the clip, the average and the schedule.

use crate::toy::Toy;
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use std::collections::BTreeMap;
use tessera_backend::Rng;
use tessera_backend::init::ParamInit;
use tessera_train::{
    AdamW, AdamWConfig, Decay, Ema, Error, Grads, Schedule, TrainConfig, scaled_lr,
};
use tessera_weights::{Weight, Weights};

const CONFIG: AdamWConfig = AdamWConfig {
    betas: [0.9, 0.95],
    eps: 1e-8,
    weight_decay: 0.02,
    grad_clip: Some(1.0),
};

/// A loss whose gradient is known: the sum over all parameters of `parameter * coefficient`.
fn grads(toy: &Toy, coefficients: &Weights) -> Grads {
    let device = Device::flex().autodiff();
    let term = |name: &str, values: Tensor<1>| {
        let weight = coefficients.get(name).unwrap();
        let values_of = weight.values().unwrap().into_owned();
        let length = values_of.len();
        let data = TensorData::new(values_of, [length]);
        (values * Tensor::from_data(data, &device)).sum()
    };
    let transposed = |t: Tensor<2>| t.transpose().reshape([-1]);
    let loss = term("first.weight", transposed(toy.first.weight.val()))
        + term("first.bias", toy.first.bias.as_ref().unwrap().val())
        + term("norm.weight", toy.norm.weight.val())
        + term("norm.bias", toy.norm.bias.val())
        + term("blocks.0.weight", transposed(toy.blocks[0].weight.val()))
        + term("token", toy.token.val().reshape([-1]));
    Grads::of(toy, &mut loss.backward())
}

fn coefficients(seed: u64, scale: f32) -> Weights {
    let mut rng = Rng::new(seed, 0);
    let mut result = Weights::default();
    for (name, weight) in Weights::of(&Toy::new(&Device::flex())).iter() {
        let values = weight
            .values()
            .unwrap()
            .iter()
            .map(|_| scale * rng.normal())
            .collect();
        result.insert(name, Weight::new(weight.shape(), values));
    }
    result
}

#[test]
fn adamw_follows_a_double_precision_reference_over_twenty_steps() {
    let mut toy = Toy::new(&Device::flex().autodiff());
    let mut optimizer = AdamW::new(CONFIG, &toy);
    let doubles = |w: &Weight| {
        w.values()
            .unwrap()
            .iter()
            .map(|&v| f64::from(v))
            .collect::<Vec<_>>()
    };
    let start = Weights::of(&toy);
    let mut reference: BTreeMap<String, [Vec<f64>; 3]> = start
        .iter()
        .map(|(name, w)| {
            (
                name.to_owned(),
                [
                    doubles(w),
                    vec![0.0; w.values().unwrap().len()],
                    vec![0.0; w.values().unwrap().len()],
                ],
            )
        })
        .collect();
    for step in 1..=20 {
        // Large and small in turn, so that some steps are clipped and some are not.
        let coefficients = coefficients(step, if step % 2 == 0 { 2.0 } else { 0.02 });
        let lr = 0.01 * step as f64 / 20.0;
        let used = || {
            coefficients
                .iter()
                .filter(|(name, _)| *name != "blocks.0.bias")
        };
        let squares = used().flat_map(|(_, w)| doubles(w)).map(|g| g * g);
        let norm = squares.sum::<f64>().sqrt();
        let info;
        (toy, info) = optimizer
            .step(toy.clone(), grads(&toy, &coefficients), lr)
            .unwrap();
        assert!(
            (info.grad_norm / norm - 1.0).abs() < 1e-5,
            "{} is not {norm}",
            info.grad_norm
        );
        assert_eq!(norm > 1.0, step % 2 == 0, "the test clips every other step");
        let scale = (1.0 / (norm + 1e-6)).min(1.0);
        for (name, weight) in used() {
            let [p, m, v] = reference.get_mut(name).unwrap();
            let decay = if weight.shape().len() >= 2 { 0.02 } else { 0.0 };
            for (i, gradient) in doubles(weight).into_iter().enumerate() {
                let g = gradient * scale;
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.95 * v[i] + 0.05 * g * g;
                let m_hat = m[i] / (1.0 - 0.9_f64.powi(step as i32));
                let v_hat = v[i] / (1.0 - 0.95_f64.powi(step as i32));
                p[i] = p[i] * (1.0 - lr * decay) - lr * m_hat / (v_hat.sqrt() + 1e-8);
            }
        }
    }
    let end = Weights::of(&toy);
    let mut worst = 0.0_f64;
    for (name, [expected, ..]) in &reference {
        for (found, expected) in end
            .get(name)
            .unwrap()
            .values()
            .unwrap()
            .iter()
            .zip(expected)
        {
            worst = worst.max((f64::from(*found) - expected).abs());
        }
    }
    println!("largest difference after 20 steps: {worst:.2e}");
    assert!(worst < 2e-6, "{worst}");
    assert_eq!(
        end.get("blocks.0.bias"),
        start.get("blocks.0.bias"),
        "it had no gradient"
    );
    assert!(toy.first.weight.val().is_require_grad() && toy.first.weight.val().is_autodiff());
}

#[test]
fn biases_and_vectors_do_not_decay_and_the_rest_does() {
    let toy = Toy::new(&Device::flex().autodiff());
    let start = Weights::of(&toy);
    let config = AdamWConfig {
        weight_decay: 0.5,
        ..CONFIG
    };
    let zero = coefficients(1, 0.0);
    let gradients = grads(&toy, &zero);
    let (toy, info) = AdamW::new(config, &toy).step(toy, gradients, 0.1).unwrap();
    assert_eq!(info.grad_norm, 0.0);
    for (name, weight) in Weights::of(&toy).iter() {
        let decays = matches!(name, "first.weight" | "blocks.0.weight" | "token");
        let factor = if decays { 0.95 } else { 1.0 };
        for (after, before) in weight
            .values()
            .unwrap()
            .iter()
            .zip(start.get(name).unwrap().values().unwrap().iter())
        {
            assert!(
                (after - factor * before).abs() < 1e-6,
                "{name}: {before} became {after}"
            );
        }
    }
}

#[test]
fn a_gradient_that_is_not_finite_is_named_and_changes_nothing() {
    let toy = Toy::new(&Device::flex().autodiff());
    let before = Weights::of(&toy);
    let mut bad = coefficients(1, 1.0);
    let weight = bad.take("norm.weight").unwrap();
    let mut values = weight.values().unwrap().into_owned();
    values[3] = f32::NAN;
    bad.insert("norm.weight", Weight::new(weight.shape(), values));
    let gradients = grads(&toy, &bad);
    let error = AdamW::new(CONFIG, &toy)
        .step(toy.clone(), gradients, 0.1)
        .unwrap_err();
    match &error {
        Error::NonFinite { step: 1, what } => assert_eq!(what, "the gradient of `norm.weight`"),
        other => panic!("{other}"),
    }
    assert_eq!(Weights::of(&toy), before);
}

#[test]
fn the_average_follows_its_model_and_stays_put_when_it_is_there() {
    let device = Device::flex().autodiff();
    let toy = Toy::new(&device);
    let ema = Ema::new(&toy, 0.9999);
    assert_eq!(ema.decay_at(0), 0.1);
    assert_eq!(ema.decay_at(90), 0.91);
    assert_eq!(ema.decay_at(1_000_000), 0.9999);

    let same = ema.clone().update(&toy, 5);
    assert_eq!(Weights::of(&same.module), Weights::of(&toy));
    assert!(!same.module.first.weight.val().is_autodiff());

    let other = coefficients(3, 1.0).apply(toy.clone()).unwrap();
    let moved = Weights::of(&ema.update(&other, 0).module);
    for (name, weight) in Weights::of(&toy).iter() {
        let other = Weights::of(&other);
        let target = other.get(name).unwrap().values().unwrap();
        for ((&from, &to), &found) in weight
            .values()
            .unwrap()
            .iter()
            .zip(target.iter())
            .zip(moved.get(name).unwrap().values().unwrap().iter())
        {
            assert!((0.1 * from + 0.9 * to - found).abs() < 1e-6, "{name}");
        }
    }
    assert!(other.valid().first.weight.val().into_data().num_elements() > 0);
}

#[test]
fn the_schedule_warms_up_in_a_line_and_decays_in_half_a_cosine() {
    let schedule = Schedule {
        peak: 1.0,
        min: 0.1,
        warmup_steps: 10,
        total_steps: 110,
        decay: Decay::Cosine,
    };
    let close = |step, value: f64| {
        let found = schedule.at(step);
        assert!(
            (found - value).abs() < 1e-12,
            "step {step}: {found}, not {value}"
        );
    };
    close(0, 0.0);
    close(5, 0.5);
    close(10, 1.0);
    close(60, 0.55);
    close(35, 0.1 + 0.45 * (1.0 + std::f64::consts::FRAC_1_SQRT_2));
    close(110, 0.1);
    close(1000, 0.1);
    let constant = Schedule {
        decay: Decay::Constant,
        ..schedule
    };
    assert_eq!(
        (constant.at(5), constant.at(10), constant.at(109)),
        (0.5, 1.0, 1.0)
    );
    let without = Schedule {
        warmup_steps: 0,
        ..schedule
    };
    assert_eq!(without.at(0), 1.0);
    assert_eq!(scaled_lr(5e-5, 2048), 4e-4);
}

#[test]
fn a_configuration_without_meaning_is_refused_by_field() {
    let refused = |change: fn(&mut TrainConfig), field: &str| {
        let mut config = crate::rotation::config();
        change(&mut config);
        let error = config.plan(40).unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    };
    refused(|c| c.batch_size = 0, "batch_size");
    refused(
        |c| c.batch_size = 42,
        "batch_size = 42: must be at most the number of examples, 40",
    );
    refused(
        |c| c.grad_accum = 3,
        "grad_accum = 3: must divide batch_size, 8",
    );
    refused(|c| c.lr = f64::NAN, "lr = NaN");
    refused(|c| c.betas[1] = 1.0, "betas[1]");
    refused(|c| c.grad_clip = Some(0.0), "grad_clip");
    refused(|c| c.keep_last = 0, "keep_last");
    let plan = crate::rotation::config().plan(47).unwrap();
    assert_eq!(
        (plan.steps_per_epoch, plan.warmup_steps, plan.total_steps),
        (5, 3, 20)
    );
    let unknown = serde_json::from_str::<TrainConfig>(r#"{"learning_rate": 1}"#).unwrap_err();
    assert!(unknown.to_string().contains("learning_rate"), "{unknown}");
}

#[test]
fn the_norm_of_a_long_gradient_has_the_same_bits_every_time() {
    let device = Device::flex().autodiff();
    let layer = ParamInit::new(4, &device).linear(2048, 2600); // beyond what the backend sums on one thread
    let coefficients = Rng::new(4, 0).normal_tensor([2048, 2600], &device);
    let loss = (layer.weight.val() * coefficients).sum();
    let grads = Grads::of(&layer, &mut loss.backward());
    let norm = grads.norm().unwrap();
    let expected = (2048.0 * 2600.0_f64).sqrt();
    assert!(
        (norm / expected - 1.0).abs() < 1e-3,
        "{norm} is not near {expected}"
    );
    for _ in 0..10 {
        assert_eq!(grads.norm().unwrap().to_bits(), norm.to_bits());
    }
}
