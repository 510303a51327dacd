//! The head that samples, with and without cached keys and values, and one training step.
//!
//! Ids carry the device and the shape: tokens at once, dimensions, width and depth of the head.

use burn::tensor::{Device, Int, Tensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::ops::ControlFlow;
use tessera_backend::Rng;
use tessera_backend::ops::{self, Sampling};
use tessera_gen_ar::{
    Decoding, Dropout, FirstPosition, GenAr, GenArConfig, ImageRequest, MaskPlan, SampleConfig,
    TransformerConfig,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SAMPLING: Sampling = Sampling {
    temperature: 1.0,
    top_k: 0,
    top_p: 1.0,
};

/// 8 by 8 tokens of 16 dimensions with 6 bits; the head is 256 wide and 3 deep.
fn config() -> GenArConfig {
    let backbone = TransformerConfig {
        width: 256,
        depth: 4,
        heads: 8,
    };
    let head = TransformerConfig {
        depth: 3,
        ..backbone
    };
    GenArConfig {
        class_num: 10,
        buffer_size: 16,
        attn_dropout: 0.0,
        proj_dropout: 0.0,
        ..GenArConfig::new([8, 8], 16, 64, backbone, head)
    }
}

fn model(device: &Device) -> GenAr {
    let config = config();
    let values: Vec<f32> = (0..config.levels)
        .map(|level| level as f32 / 8.0 - 4.0)
        .collect();
    config.init(&values, 0, device)
}

/// What the released sampler does: the whole prefix through the head for every dimension.
fn without_cache(model: &GenAr, z: Tensor<2>, uniforms: &[Tensor<1>]) -> Tensor<2, Int> {
    let ([tokens, _], dims) = (z.dims(), uniforms.len());
    let mut drawn = Tensor::<2, Int>::zeros([tokens, dims], &z.device());
    for (dim, uniforms) in uniforms.iter().enumerate() {
        let prefix = drawn.clone().narrow(1, 0, dim + 1);
        let logits = model.head_logits(
            z.clone(),
            prefix,
            FirstPosition::Released,
            &mut Dropout::off(),
        );
        let index = ops::categorical(
            logits.narrow(0, dim, 1).squeeze_dim(0),
            uniforms.clone(),
            SAMPLING,
        );
        drawn = drawn.slice_assign([0..tokens, dim..dim + 1], index.unsqueeze_dim(1));
    }
    drawn
}

fn head(criterion: &mut Criterion) {
    let device = Device::flex();
    let model = model(&device);
    let mut group = criterion.benchmark_group("head/flex");
    for tokens in [1, 16, 128] {
        let z = Rng::new(0, 0).normal_tensor::<2>([tokens, 256], &device);
        let uniforms: Vec<Tensor<1>> = (0..16)
            .map(|dim| Rng::new(1, dim).uniform_tensor([tokens], &device))
            .collect();
        group.throughput(Throughput::Elements(tokens as u64));
        group.bench_function(format!("t{tokens}_k16_c256_d3/cached"), |bench| {
            let mut choose =
                |dim: usize, logits| ops::categorical(logits, uniforms[dim].clone(), SAMPLING);
            bench.iter(|| {
                black_box(
                    model
                        .autoregress(
                            z.clone(),
                            FirstPosition::Released,
                            Decoding::Sequential,
                            &mut choose,
                        )
                        .indices
                        .into_data(),
                )
            });
        });
        group.bench_function(format!("t{tokens}_k16_c256_d3/uncached"), |bench| {
            bench.iter(|| black_box(without_cache(&model, z.clone(), &uniforms).into_data()));
        });
    }
    group.finish();
}

/// At the size of TokenBridge-L's head, 64 positions.
fn wide_head(criterion: &mut Criterion) {
    let device = Device::flex();
    let full = GenArConfig::tokenbridge_l();
    let config = GenArConfig {
        enc: TransformerConfig {
            depth: 1,
            ..full.enc
        },
        dec: TransformerConfig {
            depth: 1,
            ..full.dec
        },
        ..full
    };
    let model = config.init(&[0.0; 64], 0, &device);
    let (tokens, dims) = (64, config.token_embed_dim);
    let z = Rng::new(0, 0).normal_tensor::<2>([tokens, config.dec.width], &device);
    let uniforms: Vec<Tensor<1>> = (0..dims)
        .map(|dim| Rng::new(1, dim as u64).uniform_tensor([tokens], &device))
        .collect();
    let mut group = criterion.benchmark_group("head/flex");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(tokens as u64));
    group.bench_function("t64_k16_c1024_d4/cached", |bench| {
        let mut choose =
            |dim: usize, logits| ops::categorical(logits, uniforms[dim].clone(), SAMPLING);
        let first = FirstPosition::Released;
        bench.iter(|| {
            black_box(
                model
                    .autoregress(z.clone(), first, Decoding::Sequential, &mut choose)
                    .indices
                    .into_data(),
            )
        });
    });
    group.bench_function("t64_k16_c1024_d4/uncached", |bench| {
        bench.iter(|| black_box(without_cache(&model, z.clone(), &uniforms).into_data()));
    });
    group.finish();
}

fn images(criterion: &mut Criterion) {
    let model = model(&Device::flex());
    let config = SampleConfig {
        steps: 16,
        ..SampleConfig::default()
    };
    let mut group = criterion.benchmark_group("generate/flex");
    group.sample_size(10);
    for batch in [1, 8] {
        let requests: Vec<_> = (0..batch)
            .map(|seed| ImageRequest {
                class: Some(1),
                seed,
            })
            .collect();
        group.throughput(Throughput::Elements(batch));
        group.bench_function(format!("b{batch}_s64_k16_cfg_steps16"), |bench| {
            bench.iter(|| {
                model
                    .generate(&requests, &config, &mut |_| ControlFlow::Continue(()))
                    .map(black_box)
            });
        });
    }
    group.finish();
}

fn step(criterion: &mut Criterion) {
    let device = Device::flex().autodiff();
    let (model, config) = (model(&device), config());
    let mut group = criterion.benchmark_group("train/flex");
    group.sample_size(10);
    for batch in [8_usize, 32] {
        let labels: Vec<usize> = (0..batch).map(|image| image % 10).collect();
        let indices = Tensor::<3, Int>::zeros([batch, 64, 16], &device);
        let plan = MaskPlan::draw(&config, batch, &mut Rng::new(0, 0)).with_head_subset(0.25);
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(format!("b{batch}_s64_k16_c256_d3_head_quarter"), |bench| {
            bench.iter(|| {
                let loss = model.loss(indices.clone(), &labels, &plan, &mut Rng::new(0, 1));
                black_box(loss.total.backward())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, head, wide_head, images, step);
criterion_main!(benches);
