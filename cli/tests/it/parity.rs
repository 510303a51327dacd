//! The same training on every device: what comes of many steps forward, backward and of the optimizer.

use crate::devices;
use crate::world::{WORLD, losses, pictures, stdout};
use std::path::Path;

/// What must be printed on another device, relative to the CPU: rounding, over all steps.
const TOLERANCE: f64 = 1e-3;

/// Trains on the CPU and on each device of the suite, as `args` have it: 10 steps of four pictures.
fn assert_trained_alike(args: &str, inputs: &[&Path]) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    pictures(&data, 40);
    let train = |device: &str| {
        let run = folder.path().join(device);
        let args = format!(
            "{args} --data {{}} --batch-size 4 --device {device} --max-steps 10 --sample-every 0 --seed 3 -q -o {{}}"
        );
        stdout(&args, &[inputs, &[&data, &run]].concat());
        losses(&run)
    };
    let expected = train("flex");
    assert!(!expected.is_empty());
    for device in devices::names().into_iter().filter(|name| name != "flex") {
        let found = train(&device);
        assert_eq!(found.len(), expected.len());
        for ((step, found), (_, expected)) in found.iter().zip(&expected) {
            let off = (found / expected - 1.0).abs();
            println!("step {step} on {device}: {found}, on the CPU {expected}: off by {off:.1e}");
            assert!(off <= TOLERANCE);
        }
    }
}

/// The architecture of the built-in model's VAE, on small pictures.
#[test]
fn parity_of_training_a_vae() {
    assert_trained_alike(
        "train vae --img-size 16 --ch 16 --ch-mult 1,2,4,4 --z-channels 8 --l2-weight 1.0 --kl-weight 0.003",
        &[],
    );
}

/// A generator as the built-in model's is, narrower.
#[test]
fn parity_of_training_a_generator() {
    assert_trained_alike(
        "train ar --img-size 16 --vae {} --bits 4 --enc 32,2,4 --dec 32,2,4 --head 32,2,4 --buffer-size 8 \
         --head-subset 0.5",
        &[&WORLD.vae()],
    );
}

/// A diffusion transformer with experts that race.
#[test]
fn parity_of_training_a_diffusion_transformer() {
    assert_trained_alike(
        "train dit --img-size 16 --vae {} --size 32,2,4 --patch 1 --experts 2-in-4",
        &[&WORLD.vae()],
    );
}
