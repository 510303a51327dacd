//! Steps of whole models: what a picture and its training are made of, and how they grow. `benches/peer/peer.py` has
//! the same names.

use crate::operations::{Case, Result, block, draw};
use crate::timing::{Median, median};
use burn::tensor::{Device, Int, Tensor};
use std::hint::black_box;
use tessera::attention2d::TokenSharding;
use tessera::backend::ops::{self, Sampling};
use tessera::backend::{ComputePrecision, autocast, device_indices, host_indices, streams};
use tessera::gen_ar::{
    Decoding, FirstPosition, ForwardContext, GenAr, GenArConfig, MaskPlan, TransformerConfig,
};
use tessera::train::{AdamW, Ema, Grads, TrainConfig};

/// Measured only if they are asked for: they take seconds and gigabytes.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "picture-step",
        flops: 0.0,
        measure: |device, seconds| picture_step(ComputePrecision::F32, device, seconds),
    },
    Case {
        name: "picture-step-bf16",
        flops: 0.0,
        measure: |device, seconds| picture_step(ComputePrecision::Bf16, device, seconds),
    },
    Case {
        name: "train-step-demo",
        flops: 0.0,
        measure: |device, seconds| train_step(DEMO, ComputePrecision::F32, device, seconds),
    },
    Case {
        name: "train-step-demo-bf16",
        flops: 0.0,
        measure: |device, seconds| train_step(DEMO, ComputePrecision::Bf16, device, seconds),
    },
    Case {
        name: "train-step-1024",
        flops: 0.0,
        measure: |device, seconds| train_step(WIDE, ComputePrecision::F32, device, seconds),
    },
    Case {
        name: "train-step-1024-bf16",
        flops: 0.0,
        measure: |device, seconds| train_step(WIDE, ComputePrecision::Bf16, device, seconds),
    },
    Case {
        name: "blocks-batch-1",
        flops: 0.0,
        measure: |device, seconds| blocks([1, 320], device, seconds),
    },
    Case {
        name: "blocks-batch-2",
        flops: 0.0,
        measure: |device, seconds| blocks([2, 320], device, seconds),
    },
    Case {
        name: "blocks-batch-4",
        flops: 0.0,
        measure: |device, seconds| blocks([4, 320], device, seconds),
    },
    Case {
        name: "blocks-batch-8",
        flops: 0.0,
        measure: |device, seconds| blocks([8, 320], device, seconds),
    },
    Case {
        name: "blocks-tokens-64",
        flops: 0.0,
        measure: |device, seconds| blocks([1, 64], device, seconds),
    },
    Case {
        name: "blocks-tokens-256",
        flops: 0.0,
        measure: |device, seconds| blocks([1, 256], device, seconds),
    },
    Case {
        name: "blocks-tokens-1024",
        flops: 0.0,
        measure: |device, seconds| blocks([1, 1024], device, seconds),
    },
];

/// Of [`blocks`]: enough that weights do not stay in a cache.
const DEPTH: usize = 4;

/// Some blocks of TokenBridge-L over `[batch, tokens]`.
fn blocks([batch, tokens]: [usize; 2], device: &Device, seconds: f64) -> Result<Median> {
    let blocks = (0..DEPTH).map(|_| ComputePrecision::F32.apply(block(device)));
    let blocks: Vec<_> = blocks.collect();
    let x = draw([batch, tokens, 1024], device);
    Ok(median(seconds, || {
        let sharding = TokenSharding::Local.of(tokens);
        let forward = |x, block: &tessera::gen_ar::Block| {
            block.forward(x, sharding, &mut ForwardContext::inference())
        };
        blocks.iter().fold(x.clone(), forward)
    }))
}

/// The mean of the 64 steps of a picture of TokenBridge-L with guidance: 93 of 256 tokens are known, 4 are drawn.
fn picture_step(dtype: ComputePrecision, device: &Device, seconds: f64) -> Result<Median> {
    const KNOWN: usize = 93;
    const DRAWN: usize = 4;
    let config = GenArConfig::tokenbridge_l();
    let seq = config.seq();
    let model = dtype.apply(config.init(&vec![0.0; config.levels], 0, device));
    let order: Vec<usize> = (0..seq).collect();
    let plan = MaskPlan::from_orders(vec![order; 2], seq - KNOWN)
        .with_head_subset(DRAWN as f32 / (seq - KNOWN) as f32 - 1e-4);
    let values = draw([2 * KNOWN, config.token_embed_dim], device);
    let uniforms: Tensor<2> = streams::MEASUREMENT
        .of(1, 0)
        .uniform_tensor([config.token_embed_dim, DRAWN], device);
    let mut choose = |dim, logits| {
        let uniforms = uniforms.clone().narrow(0, dim, 1).squeeze_dim(0);
        ops::categorical(logits, uniforms, Sampling::default())
    };
    let context = &mut ForwardContext::inference();
    let (visible, drawn) = (plan.visible(), plan.predicted());
    Ok(median(seconds, || {
        let encoded = model.encode(Some(values.clone()), &visible, &[Some(1), None], context);
        let z = model.decode(encoded, &visible, &drawn, context); // [2 * drawn, width]
        let (with, without) = (z.clone().narrow(0, 0, DRAWN), z.narrow(0, DRAWN, DRAWN));
        let z = without.clone() + (with - without) * 3.1;
        let drawn = model.autoregress(
            z,
            FirstPosition::Released,
            Decoding::Sequential,
            &mut choose,
        );
        black_box(host_indices(drawn.indices))
    }))
}

/// A generator to train: sizes as those of [`GenArConfig`].
#[derive(Clone, Copy)]
struct Size {
    side: usize,
    buffer: usize,
    dims: usize,
    levels: usize,
    dims_per_step: usize,
    /// Width, depth, heads.
    enc: [usize; 3],
    dec: [usize; 3],
    ch: [usize; 3],
    batch: usize,
}

/// That of the built-in model.
const DEMO: Size = Size {
    side: 8,
    buffer: 8,
    dims: 32,
    levels: 16,
    dims_per_step: 4,
    enc: [192, 4, 6],
    dec: [192, 6, 6],
    ch: [128, 3, 4],
    batch: 32,
};

/// TokenBridge-L at half its depth.
const WIDE: Size = Size {
    side: 16,
    buffer: 64,
    dims: 16,
    levels: 64,
    dims_per_step: 1,
    enc: [1024, 8, 16],
    dec: [1024, 8, 16],
    ch: [1024, 2, 16],
    batch: 4,
};

/// A step of training with dropout: three quarters of the tokens are masked, the loss is on a quarter of those; AdamW
/// and averaged weights.
fn train_step(
    size: Size,
    precision: ComputePrecision,
    device: &Device,
    seconds: f64,
) -> Result<Median> {
    let device = device.clone().autodiff();
    let of = |[width, depth, heads]: [usize; 3]| TransformerConfig {
        width,
        depth,
        heads,
    };
    let grid = [size.side; 2];
    let config = GenArConfig {
        enc: of(size.enc),
        buffer_size: size.buffer,
        dims_per_step: size.dims_per_step,
        ..GenArConfig::new(grid, size.dims, size.levels, of(size.dec), of(size.ch))
    };
    let seq = config.seq();
    let model: GenAr = config.init(&vec![0.0; config.levels], 0, &device);
    let order: Vec<usize> = (0..seq).collect();
    let plan = MaskPlan::from_orders(vec![order; size.batch], seq * 3 / 4).with_head_subset(0.25);
    let tokens = (0..size.batch * seq * size.dims).map(|i| i * 7 % size.levels);
    let tokens: Tensor<3, Int> = device_indices(
        tokens.map(|token| token as i32).collect(),
        [size.batch, seq, size.dims],
        &device,
    );
    let labels: Vec<usize> = (0..size.batch).collect();
    let settings = TrainConfig::default();
    let mut optimizer = AdamW::new(settings.adamw(), &model);
    let mut rng = streams::MEASUREMENT.of(2, 0);
    let mut state = Some((Ema::new(&model, 0.999), model));
    Ok(median(seconds, || {
        let (ema, model) = state.take().expect("every step puts it back");
        let losses = autocast(precision, || {
            model.loss(tokens.clone(), &labels, &plan, &mut rng)
        });
        let mut gradients = losses.total.backward();
        let grads = Grads::of(&model, &mut gradients);
        let (model, done) = optimizer
            .step(model, grads, 1e-4)
            .expect("losses of such values are finite");
        state = Some((ema.update(&model, 0), model));
        done.grad_norm
    }))
}
