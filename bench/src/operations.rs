//! The operations and blocks one by one, at the models' shapes. `benches/peer/peer.py` has the same names, so that the
//! two can be run side by side.

use crate::models;
use crate::timing::{Median, median};
use burn::tensor::{Device, Tensor};
use std::hint::black_box;
use tessera::attention2d::TokenSharding;
use tessera::backend::host_indices;
use tessera::backend::init::ParamInit;
use tessera::backend::nn::{Conv2d, GroupNorm, LayerNorm, Linear};
use tessera::backend::ops::{self, Activation, Experts, Mask, Routes, Sampling};
use tessera::backend::{ComputePrecision, streams};
use tessera::gen_ar::{
    Block, Decoding, FirstPosition, ForwardContext, GenArConfig, TransformerConfig,
};
use tessera::tokenizers::{Error, KlVaeConfig};

/// A median, unless a tokenizer of that size cannot be.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// What is measured under one name.
pub struct Case {
    /// What `peer.py` calls it, too.
    pub name: &'static str,
    /// Arithmetic operations of its matrix products; 0 where memory is what counts.
    pub(crate) flops: f64,
    pub(crate) measure: fn(&Device, f64) -> Result<Median>,
}

impl Case {
    /// Measures it on a device for about so many seconds.
    ///
    /// # Errors
    /// A size that no tokenizer has.
    pub fn measure(&self, device: &Device, seconds: f64) -> Result<Median> {
        (self.measure)(device, seconds)
    }

    /// What a median of it comes to in GFLOP/s; none where memory is what counts.
    pub fn gflops(&self, median: Median) -> Option<f64> {
        (self.flops > 0.0).then(|| self.flops / median.ms / 1e6)
    }
}

/// No case has a name that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such name: {}; there are {}", names.join(", "), known.join(", "))]
pub struct NoSuchCase {
    /// What was asked for.
    pub names: Vec<String>,
    /// The names there are.
    pub known: Vec<&'static str>,
}

/// The cases whose names contain one of these. Without names, all but the steps of whole models, which take long.
///
/// # Errors
/// When there is none.
pub fn cases(names: &[String]) -> Result<Vec<&'static Case>, NoSuchCase> {
    if names.is_empty() {
        return Ok(CASES.iter().collect());
    }
    let known = || CASES.iter().chain(models::CASES);
    let asked = |case: &&Case| names.iter().any(|name| case.name.contains(name.as_str()));
    let cases: Vec<_> = known().filter(asked).collect();
    match cases.is_empty() {
        false => Ok(cases),
        true => Err(NoSuchCase {
            names: names.to_vec(),
            known: known().map(|case| case.name).collect(),
        }),
    }
}

const WIDTH: usize = 1024;
const HEADS: usize = 16;
const IMAGE: [usize; 4] = [1, 128, 256, 256];
const TOKENS: [usize; 3] = [8, 320, WIDTH];
const HIDDEN: [usize; 2] = [2560, 4 * WIDTH];

/// Of the backbone's block over [`TOKENS`]: four products of the width's square and one of fourfold width twice, and
/// attention.
const BLOCK_FLOPS: f64 = 2.0 * 2560.0 * 12.0 * 1024.0 * 1024.0 + 4.0 * 8.0 * 320.0 * 320.0 * 1024.0;
/// Of an MLP of fourfold width over [`ROUTED`] tokens; four experts of a token, each as wide as the token, have as
/// many.
const MLP_FLOPS: f64 = 2.0 * 2.0 * 4096.0 * 1024.0 * 4096.0;
const ROUTED: usize = 4096;
const EXPERTS: usize = 32;
/// A map of EfficientNet-Lite0, as wide as any.
const MAPS: [usize; 4] = [8, 96, 112, 112];
const DEPTHWISE_FLOPS: f64 = 18.0 * (8 * 96 * 112 * 112) as f64;
const CONV_FLOPS: f64 = 18.0 * 128.0 * 128.0 * 65536.0;

const CASES: &[Case] = &[
    Case {
        name: "matmul-1024",
        flops: 2.0 * 1024.0 * 1024.0 * 1024.0,
        measure: |device, seconds| matmul([1024; 3], device, seconds),
    },
    Case {
        name: "matmul-4096x1024x4096",
        flops: 2.0 * 4096.0 * 1024.0 * 4096.0,
        measure: |device, seconds| matmul([4096, 1024, 4096], device, seconds),
    },
    Case {
        name: "linear+gelu-2560x1024x4096",
        flops: 2.0 * 2560.0 * 1024.0 * 4096.0,
        measure: |device, seconds| {
            linear(
                2560,
                Activation::Gelu,
                ComputePrecision::F32,
                device,
                seconds,
            )
        },
    },
    Case {
        name: "linear-4x1024x4096",
        flops: 2.0 * 4.0 * 1024.0 * 4096.0,
        measure: |device, seconds| {
            linear(4, Activation::None, ComputePrecision::F32, device, seconds)
        },
    },
    Case {
        name: "linear-bf16-2560x1024x4096",
        flops: 2.0 * 2560.0 * 1024.0 * 4096.0,
        measure: |device, seconds| {
            linear(
                2560,
                Activation::None,
                ComputePrecision::Bf16,
                device,
                seconds,
            )
        },
    },
    Case {
        name: "linear-bf16-4x1024x4096",
        flops: 2.0 * 4.0 * 1024.0 * 4096.0,
        measure: |device, seconds| {
            linear(4, Activation::None, ComputePrecision::Bf16, device, seconds)
        },
    },
    Case {
        name: "block-forward",
        flops: BLOCK_FLOPS,
        measure: |device, seconds| {
            let block = ComputePrecision::F32.apply(block(device));
            let x = draw(TOKENS, device);
            Ok(median(seconds, || {
                block.forward(
                    x.clone(),
                    TokenSharding::Local.of(TOKENS[1]),
                    &mut ForwardContext::inference(),
                )
            }))
        },
    },
    Case {
        name: "block-forward+backward",
        flops: 3.0 * BLOCK_FLOPS,
        measure: |device, seconds| {
            let device = device.clone().autodiff();
            let (block, x) = (block(&device), draw(TOKENS, &device).require_grad());
            Ok(median(seconds, || {
                let y = block.forward(
                    x.clone(),
                    TokenSharding::Local.of(TOKENS[1]),
                    &mut ForwardContext::inference(),
                );
                ops::sum(y).backward()
            }))
        },
    },
    Case {
        name: "experts-4in32-forward",
        flops: MLP_FLOPS,
        measure: |device, seconds| experts(device, seconds, false),
    },
    Case {
        name: "experts-4in32-forward+backward",
        flops: 3.0 * MLP_FLOPS,
        measure: |device, seconds| experts(&device.clone().autodiff(), seconds, true),
    },
    Case {
        name: "mlp-4096x1024x4096-forward",
        flops: MLP_FLOPS,
        measure: |device, seconds| mlp(device, seconds, false),
    },
    Case {
        name: "mlp-4096x1024x4096-forward+backward",
        flops: 3.0 * MLP_FLOPS,
        measure: |device, seconds| mlp(&device.clone().autodiff(), seconds, true),
    },
    Case {
        name: "attention-16x1024x64",
        flops: 4.0 * 16.0 * 1024.0 * 1024.0 * 64.0,
        measure: |device, seconds| attention([1, HEADS, 1024, 64], device, seconds),
    },
    Case {
        name: "attention-8x16x320x64",
        flops: 4.0 * 128.0 * 320.0 * 320.0 * 64.0,
        measure: |device, seconds| attention([8, HEADS, 320, 64], device, seconds),
    },
    Case {
        name: "gelu-2560x4096",
        flops: 0.0,
        measure: |device, seconds| activation(HIDDEN, Activation::Gelu, device, seconds),
    },
    Case {
        name: "silu-128x256x256",
        flops: 0.0,
        measure: |device, seconds| activation(IMAGE, Activation::Silu, device, seconds),
    },
    Case {
        name: "layer-norm-2560x1024",
        flops: 0.0,
        measure: |device, seconds| {
            let (norm, x) = (
                LayerNorm::new(WIDTH, 1e-6, device),
                draw([2560, WIDTH], device),
            );
            Ok(median(seconds, || ops::layer_norm(x.clone(), &norm)))
        },
    },
    Case {
        name: "group-norm+silu-128x256x256",
        flops: 0.0,
        measure: |device, seconds| {
            let (norm, x) = (group_norm(device), draw(IMAGE, device));
            Ok(median(seconds, || {
                ops::group_norm(x.clone(), &norm, Activation::Silu)
            }))
        },
    },
    Case {
        name: "conv-128x256x256",
        flops: CONV_FLOPS,
        measure: |device, seconds| {
            let (conv, x) = (conv(device), draw(IMAGE, device));
            Ok(median(seconds, || ops::conv2d(x.clone(), &conv, [1; 4])))
        },
    },
    Case {
        name: "group-norm+silu+conv-128x256x256",
        flops: CONV_FLOPS,
        measure: |device, seconds| {
            let (norm, conv, x) = (group_norm(device), conv(device), draw(IMAGE, device));
            Ok(median(seconds, || {
                let y = ops::group_norm(x.clone(), &norm, Activation::Silu);
                ops::conv2d(y, &conv, [1; 4])
            }))
        },
    },
    Case {
        name: "conv-forward+backward",
        flops: 3.0 * CONV_FLOPS,
        measure: |device, seconds| {
            let device = device.clone().autodiff();
            let (conv, x) = (conv(&device), draw(IMAGE, &device).require_grad());
            Ok(median(seconds, || {
                ops::sum(ops::conv2d(x.clone(), &conv, [1; 4])).backward()
            }))
        },
    },
    Case {
        name: "depthwise-8x96x112x112",
        flops: DEPTHWISE_FLOPS,
        measure: |device, seconds| {
            let x = draw(MAPS, device);
            let conv = ParamInit::new(0, device).conv2d([1, MAPS[1]], [3, 3], 1);
            Ok(median(seconds, || {
                ops::depthwise_clamped(x.clone(), &conv, [1; 4], [0.0, 6.0])
            }))
        },
    },
    Case {
        name: "head-4-tokens",
        flops: 0.0,
        measure: |device, seconds| head(4, device, seconds),
    },
    Case {
        name: "head-64-tokens",
        flops: 0.0,
        measure: |device, seconds| head(64, device, seconds),
    },
    Case {
        name: "kl16-encode",
        flops: 0.0,
        measure: |device, seconds| {
            let (vae, x) = (
                KlVaeConfig::kl16().init(0, device)?,
                draw([1, 3, 256, 256], device),
            );
            Ok(median(seconds, || vae.encode(x.clone())))
        },
    },
    Case {
        name: "kl16-decode",
        flops: 0.0,
        measure: |device, seconds| {
            let (vae, x) = (
                KlVaeConfig::kl16().init(0, device)?,
                draw([1, 16, 16, 16], device),
            );
            Ok(median(seconds, || vae.decode(x.clone())))
        },
    },
];

pub(crate) fn draw<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let stream = shape.iter().product::<usize>() as u64;
    streams::MEASUREMENT
        .of(0, stream)
        .normal_tensor(shape, device)
}

pub(crate) fn block(device: &Device) -> Block {
    Block::new(
        TransformerConfig {
            width: WIDTH,
            depth: 1,
            heads: HEADS,
        },
        4,
        0,
        device,
    )
}

fn conv(device: &Device) -> Conv2d {
    ParamInit::new(0, device).conv2d([128, 128], [3, 3], 1)
}

fn group_norm(device: &Device) -> GroupNorm {
    GroupNorm::new(32, 128, 1e-6, device)
}

fn matmul([m, k, n]: [usize; 3], device: &Device, seconds: f64) -> Result<Median> {
    let layer = Linear {
        bias: None,
        ..ParamInit::new(0, device).linear(k, n)
    };
    let x = draw([m, k], device);
    Ok(median(seconds, || {
        ops::linear(x.clone(), &layer, Activation::None)
    }))
}

fn linear(
    rows: usize,
    act: Activation,
    precision: ComputePrecision,
    device: &Device,
    seconds: f64,
) -> Result<Median> {
    let layer: Linear = precision.apply(ParamInit::new(0, device).linear(WIDTH, 4 * WIDTH));
    let x = draw([rows, WIDTH], device);
    Ok(median(seconds, || ops::linear(x.clone(), &layer, act)))
}

/// Four experts of each token, unevenly loaded: from 2771 tokens to 257. `peer.py` has the same rule.
fn routes() -> Routes {
    let mut mask = vec![false; ROUTED * EXPERTS];
    for (token, row) in mask.chunks_exact_mut(EXPERTS).enumerate() {
        for choice in 0..4 {
            let draw = ((4 * token + choice) as u32).wrapping_mul(0x9e37_79b9) >> 16;
            let mut expert = ((EXPERTS as u64 * u64::from(draw).pow(2)) >> 32) as usize;
            while row[expert] {
                expert = (expert + 1) % EXPERTS;
            }
            row[expert] = true;
        }
    }
    Routes::of_mask(&mask, EXPERTS)
}

/// The median of `f`, or of `f` and the gradients of all it is made of.
fn passes(seconds: f64, backward: bool, f: impl Fn() -> Tensor<2>) -> Median {
    match backward {
        true => median(seconds, || ops::sum(f()).backward()),
        false => median(seconds, f),
    }
}

fn experts(device: &Device, seconds: f64, backward: bool) -> Result<Median> {
    fn leaf<const D: usize>(shape: [usize; D], device: &Device, backward: bool) -> Tensor<D> {
        let x = draw(shape, device);
        if backward { x.require_grad() } else { x }
    }
    let weights = Experts {
        w1: leaf([EXPERTS, WIDTH, WIDTH], device, backward),
        b1: leaf([EXPERTS, WIDTH], device, backward),
        w2: leaf([EXPERTS, WIDTH, WIDTH], device, backward),
        b2: leaf([EXPERTS, WIDTH], device, backward),
    };
    let x = leaf([ROUTED, WIDTH], device, backward);
    let gates = leaf([ROUTED, EXPERTS], device, backward);
    let routes = routes();
    Ok(passes(seconds, backward, || {
        let (weights, routes) = (weights.clone(), routes.clone());
        ops::experts(
            x.clone(),
            gates.clone(),
            weights,
            routes,
            Activation::GeluTanh,
        )
    }))
}

fn mlp(device: &Device, seconds: f64, backward: bool) -> Result<Median> {
    let mut init = ParamInit::new(0, device);
    let up = init.linear(WIDTH, 4 * WIDTH);
    let down = init.linear(4 * WIDTH, WIDTH);
    let x = draw([ROUTED, WIDTH], device);
    let x = if backward { x.require_grad() } else { x };
    Ok(passes(seconds, backward, || {
        let hidden = ops::linear(x.clone(), &up, Activation::GeluTanh);
        ops::linear(hidden, &down, Activation::None)
    }))
}

fn attention(shape: [usize; 4], device: &Device, seconds: f64) -> Result<Median> {
    let [q, k, v] = [0, 1, 2].map(|stream| {
        streams::MEASUREMENT
            .of(0, stream)
            .normal_tensor(shape, device)
    });
    Ok(median(seconds, || {
        ops::attention(q.clone(), k.clone(), v.clone(), Mask::All)
    }))
}

fn activation<const D: usize>(
    shape: [usize; D],
    act: Activation,
    device: &Device,
    seconds: f64,
) -> Result<Median> {
    let x = draw(shape, device);
    Ok(median(seconds, || ops::activation(x.clone(), act)))
}

/// All dimensions of some tokens through TokenBridge-L's head; the backbone beside it is never computed.
fn head(tokens: usize, device: &Device, seconds: f64) -> Result<Median> {
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
    let model = ComputePrecision::F32.apply(config.unfilled(device));
    let z = draw([tokens, config.dec.width], device);
    let uniforms: Tensor<2> = streams::MEASUREMENT
        .of(1, 0)
        .uniform_tensor([config.token_embed_dim, tokens], device);
    let mut choose = |dim, logits| {
        let uniforms = uniforms.clone().narrow(0, dim, 1).squeeze_dim(0);
        ops::categorical(logits, uniforms, Sampling::default())
    };
    Ok(median(seconds, || {
        let drawn = model.autoregress(
            z.clone(),
            FirstPosition::Released,
            Decoding::Sequential,
            &mut choose,
        );
        black_box(host_indices(drawn.indices))
    }))
}
