//! A generator small enough for a test, none of whose sizes are equal by chance.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor};
use tessera_backend::Rng;
use tessera_gen_ar::{
    FirstPosition, GenAr, GenArConfig, ImageRequest, SampleConfig, TransformerConfig,
};

pub fn config() -> GenArConfig {
    let enc = TransformerConfig {
        width: 24,
        depth: 2,
        heads: 3,
    };
    let dec = TransformerConfig {
        width: 32,
        depth: 2,
        heads: 4,
    };
    let head = TransformerConfig {
        width: 20,
        depth: 2,
        heads: 2,
    };
    GenArConfig {
        class_num: 3,
        buffer_size: 2,
        mlp_ratio: 2,
        channel_order: vec![2, 0, 4, 1, 3],
        first_position: FirstPosition::Released,
        attn_dropout: 0.0,
        proj_dropout: 0.0,
        dec,
        ..GenArConfig::new([3, 4], 5, 8, enc, head)
    }
}

pub fn values(levels: usize) -> Vec<f32> {
    (0..levels)
        .map(|i| (i as f32 + 0.5) / levels as f32 * 4.0 - 2.0)
        .collect()
}

/// The values of a config's levels, of one dimension after the other where widths differ.
pub fn values_of(config: &GenArConfig) -> Vec<f32> {
    match &config.channel_levels[..] {
        [] => values(config.levels),
        each => each.iter().flat_map(|&levels| values(levels)).collect(),
    }
}

/// [`config`] with another number of levels in each dimension.
pub fn mixed_config() -> GenArConfig {
    GenArConfig {
        channel_levels: vec![4, 8, 2, 8, 4],
        ..config()
    }
}

/// [`config`], and what its head may be instead: with a width for each dimension, with several dimensions to a step.
pub fn configs() -> [GenArConfig; 3] {
    let parallel = GenArConfig {
        dims_per_step: 5,
        ..mixed_config()
    };
    [config(), mixed_config(), parallel]
}

/// adaLN starts at zero, which would hide half of the head: every weight gets noise.
pub fn model_on(config: &GenArConfig, device: &Device) -> GenAr {
    struct Noise(Rng);
    impl ModuleMapper for Noise {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let shape: [usize; D] = param.lazy_shape().dims();
            let noise = self.0.normal_tensor(shape, &param.lazy_device()) * 0.05;
            param.map(|value| match value.is_require_grad() {
                true => (value.detach() + noise).detach().require_grad(),
                false => value + noise,
            })
        }
    }
    config
        .init(&values_of(config), 7, device)
        .map(&mut Noise(Rng::new(7, 99)))
}

pub fn model() -> GenAr {
    model_on(&config(), &Device::flex())
}

pub fn requests(n: usize) -> Vec<ImageRequest> {
    (0..n)
        .map(|i| ImageRequest {
            class: (i % 4 < 3).then_some(i % 3),
            seed: 40 + i as u64,
        })
        .collect()
}

pub fn sampling(steps: usize, cfg_scale: f32, temperature: f32) -> SampleConfig {
    SampleConfig {
        steps,
        cfg_scale,
        temperature,
        ..SampleConfig::default()
    }
}
