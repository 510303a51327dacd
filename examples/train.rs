//! A training loop of your own: a small VAE learns to draw disks, without run folder, checkpoints or flags.

use tessera::backend::{Rng, upload};
use tessera::tokenizers::vae::losses;
use tessera::tokenizers::{KlVaeConfig, VaeLossConfig};
use tessera::train::{AdamW, Grads, TrainConfig};
use tessera::{Device, Result};

fn main() -> Result<()> {
    let device = Device::cpu().burn().clone().autodiff();
    let config = KlVaeConfig::small(1, 16, 8, &[1, 2], 1, 4);
    let (mut vae, weights) = (config.init(0, &device)?, VaeLossConfig::ldm(&config));
    let mut optimizer = AdamW::new(TrainConfig::default().adamw(), &vae);
    let mut rng = Rng::new(0, 1);
    for step in 1..=60 {
        let images = upload(disks(&mut rng), &device); // [16, 1, 16, 16]
        let noise = rng.normal_tensor([16, 4, 8, 8], &device);
        let loss = losses(&vae, images, noise, &weights).total;
        let grads = Grads::of(&vae, &mut loss.backward());
        (vae, _) = optimizer.step(vae, grads, 2e-3)?;
        if step % 20 == 0 {
            println!(
                "step {step}: loss {:.4}",
                tessera::backend::host_values(loss)[0]
            );
        }
    }
    Ok(())
}

/// Sixteen disks, `[16, 1, 16, 16]` in `[-1, 1]`.
fn disks(rng: &mut Rng) -> ndarray::Array4<f32> {
    let disks: Vec<[f32; 3]> = (0..16)
        .map(|_| [0, 1, 2].map(|_| 4.0 + 8.0 * rng.uniform()))
        .collect();
    ndarray::Array4::from_shape_fn((16, 1, 16, 16), |(image, _, y, x)| {
        let [top, left, radius] = disks[image];
        let distance = (y as f32 - top).hypot(x as f32 - left);
        if distance < radius / 2.0 { 1.0 } else { -1.0 }
    })
}
