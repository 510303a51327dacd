//! A model small enough for a test, none of whose sizes are equal by chance.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor};
use tessera_backend::Rng;
use tessera_gen_dit::{Dit, DitConfig, ImageRequest, Process, SampleConfig};
use tessera_moe::MoeConfig;

/// Width 24, 2 blocks, 3 heads; 16 tokens of 3 channels, 5 classes.
pub fn config() -> DitConfig {
    DitConfig {
        input_size: 8,
        in_channels: 3,
        num_classes: 5,
        hidden_size: 24,
        depth: 2,
        num_heads: 3,
        ..DitConfig::xl_2()
    }
}

pub fn flow(config: DitConfig) -> DitConfig {
    DitConfig {
        process: Process::Flow,
        learn_sigma: false,
        ..config
    }
}

/// 2-in-6, by threshold at inference or image by image.
pub fn race(config: DitConfig, threshold: bool) -> DitConfig {
    DitConfig {
        moe: Some(MoeConfig {
            threshold,
            ..MoeConfig::k_in_e(2, 6)
        }),
        ..config
    }
}

/// What is tested with every kind of layer and process: dense, by threshold, without; DDPM and flow.
pub fn all() -> Vec<(&'static str, DitConfig)> {
    let config = config();
    vec![
        ("dense, DDPM", config.clone()),
        ("threshold, DDPM", race(config.clone(), true)),
        ("no threshold, DDPM", race(config.clone(), false)),
        ("dense, flow", flow(config.clone())),
        ("threshold, flow", flow(race(config.clone(), true))),
        ("no threshold, flow", flow(race(config, false))),
    ]
}

/// adaLN and the last layer start at zero, which would hide the rest: every weight gets noise.
pub fn model_on(config: &DitConfig, device: &Device) -> Dit {
    struct Noise(Rng);
    impl ModuleMapper for Noise {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let shape: [usize; D] = param.lazy_shape().dims();
            if shape.iter().all(|&n| n == 1) {
                return param; // a threshold
            }
            let noise = self.0.normal_tensor(shape, &param.lazy_device()) * 0.05;
            param.map(|value| match value.is_require_grad() {
                true => (value.detach() + noise).detach().require_grad(),
                false => value + noise,
            })
        }
    }
    config.init(7, device).map(&mut Noise(Rng::new(7, 99)))
}

pub fn model(config: &DitConfig) -> Dit {
    model_on(config, &Device::flex())
}

pub fn requests(n: usize) -> Vec<ImageRequest> {
    (0..n)
        .map(|i| ImageRequest {
            class: (i % 4 < 3).then_some(i % 5),
            seed: 40 + i as u64,
        })
        .collect()
}

pub fn sampling(steps: usize, cfg_scale: f32) -> SampleConfig {
    SampleConfig::new(steps, cfg_scale)
}
