//! A regression small enough to train in a blink: two linear maps that learn a rotation with noise.

use crate::toy::Toy;
use burn::tensor::{Device, Tensor, TensorData};
use tessera_backend::Rng;
use tessera_backend::ops::{Activation, linear};
use tessera_train::{BoxError, Losses, Objective, Share, TrainConfig};

impl Toy {
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let [batch, _] = x.dims();
        let hidden = linear(x, &self.first, Activation::Silu);
        let hidden = tessera_backend::ops::layer_norm(hidden, &self.norm);
        let token = self.token.val().reshape([1, 2]).expand([batch, 2]);
        linear(hidden, &self.blocks[0], Activation::None) + token
    }
}

/// The examples are angles; the loss perturbs the input by random noise.
pub struct Rotation {
    pub device: Device,
    pub examples: usize,
    /// How much of the randomness reaches inputs and loss.
    pub noise: f32,
    /// Makes every loss infinite.
    pub explodes: bool,
}

impl Rotation {
    pub fn on(device: &Device) -> Self {
        Self {
            device: device.clone(),
            examples: 40,
            noise: 1.0,
            explodes: false,
        }
    }
}

impl Objective<Toy> for Rotation {
    type Batch = Vec<[f32; 3]>;

    fn examples(&self) -> usize {
        self.examples
    }

    fn batch(&self, indices: &[usize], mut rng: Rng) -> Result<Self::Batch, BoxError> {
        let example = |&index: &usize| {
            let angle = index as f32 * 0.17;
            [angle.cos(), angle.sin(), 0.1 * self.noise * rng.normal()]
        };
        Ok(indices.iter().map(example).collect())
    }

    fn losses(
        &self,
        model: &Toy,
        batch: Self::Batch,
        share: Share,
        mut rng: Rng,
    ) -> Result<Losses, BoxError> {
        let rows = batch.len();
        let values = batch.into_iter().flatten().collect::<Vec<_>>();
        let x = Tensor::<2>::from_data(TensorData::new(values, [rows, 3]), &self.device);
        let noise = rng.normal_tensor([rows, 3], &self.device) * (0.01 * self.noise);
        let target = x.clone().slice([0..rows, 0..2]);
        let part = share.range(rows);
        let own = |x: Tensor<2>| x.narrow(0, part.start, part.len());
        let error = model.forward(own(x + noise)) - own(target);
        let mse = error.powf_scalar(2.0).mean();
        let size = model.token.val().powf_scalar(2.0).sum();
        let total = mse.clone() + size.clone() * 0.01;
        let total = if self.explodes { total / 0.0 } else { total };
        Ok(Losses {
            parts: vec![("mse", mse), ("token", size)],
            ..Losses::new(total)
        })
    }
}

pub fn config() -> TrainConfig {
    TrainConfig {
        batch_size: 8,
        grad_accum: 2,
        epochs: 4,
        lr: 5e-2,
        warmup_epochs: 0.5,
        ema_decay: 0.9,
        save_every: 3,
        keep_last: 2,
        log_every: 1,
        seed: 5,
        ..TrainConfig::default()
    }
}
