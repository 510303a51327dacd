//! The fused operations beside the same work in Burn's own operations, at the shapes of the built-in model and of
//! TokenBridge-L. Run with `cargo bench -p tessera-benches --bench ops`.

use burn::tensor::module::{self as burns, attention as burn_attention};
use burn::tensor::ops::{AttentionModuleOptions, ConvOptions};
use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, activation};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use tessera_backend::init::ParamInit;
use tessera_backend::nn::{Conv2d, GroupNorm, LayerNorm, Linear};
use tessera_backend::ops::{self, Activation, Experts, Mask, Routes};
use tessera_backend::{ComputePrecision, Rng};

// Page faults of fresh buffers would drown the arithmetic.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn draw<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Rng::new(1, shape.iter().product::<usize>() as u64).normal_tensor(shape, device)
}

fn linear_layer(inputs: usize, outputs: usize, device: &Device) -> Linear {
    ParamInit::new(1, device).linear(inputs, outputs)
}

fn burns_linear(x: Tensor<2>, layer: &Linear) -> Tensor<2> {
    burns::linear(x, layer.weight.val(), layer.bias.as_ref().map(|b| b.val()))
}

/// Of a kernel of 3 x 3, to maps of the same size.
fn burns_conv2d(x: Tensor<4>, layer: &Conv2d) -> Tensor<4> {
    let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
    let bias = layer.bias.as_ref().map(|b| b.val());
    burns::conv2d(x, layer.weight.val(), bias, options)
}

fn burns_group_norm(x: Tensor<4>, norm: &GroupNorm) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    let each = channels / norm.groups * height * width;
    let x = x.reshape([batch, norm.groups, each]);
    let mean = x.clone().mean_dim(2);
    let x = x - mean;
    let variance = x.clone().square().mean_dim(2);
    let x = x / (variance + norm.eps).sqrt();
    let per_channel = |p: Tensor<1>| p.reshape([1, channels, 1, 1]);
    x.reshape([batch, channels, height, width]) * per_channel(norm.weight.val())
        + per_channel(norm.bias.val())
}

fn linear_gelu(c: &mut Criterion) {
    let device = Device::flex();
    let mut group = c.benchmark_group("linear+gelu");
    for [rows, inputs, outputs] in [[1280, 160, 640], [2560, 1024, 4096]] {
        let layer = linear_layer(inputs, outputs, &device);
        let x = draw([rows, inputs], &device);
        group.throughput(Throughput::Elements((2 * rows * inputs * outputs) as u64));
        let name = format!("r{rows}_i{inputs}_o{outputs}");
        group.bench_function(format!("fused/{name}"), |b| {
            b.iter(|| black_box(ops::linear(x.clone(), &layer, Activation::Gelu)))
        });
        group.bench_function(format!("burn/{name}"), |b| {
            b.iter(|| black_box(activation::gelu(burns_linear(x.clone(), &layer))))
        });
    }
    group.finish();
}

/// A token of each of a few images: what there is to do is reading the weights.
fn few_rows(c: &mut Criterion) {
    let device = Device::flex();
    let mut group = c.benchmark_group("linear_few_rows");
    // More weights than a cache holds, one after the other, as a model has them.
    let layers: Vec<_> = (0..8).map(|_| linear_layer(1024, 4096, &device)).collect();
    let half: Vec<_> = layers
        .iter()
        .map(|layer| ComputePrecision::Bf16.apply(layer.clone()))
        .collect();
    for rows in [1, 4, 16] {
        let x = draw([rows, 1024], &device);
        group.throughput(Throughput::Bytes(8 * 4 * 1024 * 4096));
        let name = format!("r{rows}_i1024_o4096_x8");
        let run = |layers: &[Linear]| {
            for layer in layers {
                black_box(ops::linear(x.clone(), layer, Activation::None));
            }
        };
        group.bench_function(format!("fused/{name}"), |b| b.iter(|| run(&layers)));
        group.bench_function(format!("bf16/{name}"), |b| b.iter(|| run(&half)));
        group.bench_function(format!("burn/{name}"), |b| {
            b.iter(|| {
                layers
                    .iter()
                    .for_each(|layer| drop(black_box(burns_linear(x.clone(), layer))))
            })
        });
    }
    group.finish();
}

fn activations(c: &mut Criterion) {
    let device = Device::flex();
    let mut group = c.benchmark_group("activation");
    let x = draw([2560, 4096], &device);
    group.throughput(Throughput::Elements(2560 * 4096));
    for act in [Activation::Gelu, Activation::Silu] {
        group.bench_function(format!("fused/{act:?}/r2560_d4096"), |b| {
            b.iter(|| black_box(ops::activation(x.clone(), act)))
        });
        group.bench_function(format!("burn/{act:?}/r2560_d4096"), |b| {
            b.iter(|| match act {
                Activation::Gelu => black_box(activation::gelu(x.clone())),
                _ => black_box(activation::silu(x.clone())),
            })
        });
    }
    group.finish();
}

/// Forward and backward, through the loss's gradient of every parameter and the input.
fn backward(c: &mut Criterion) {
    let device = Device::flex().autodiff();
    let mut group = c.benchmark_group("forward+backward");
    let layer = linear_layer(1024, 4096, &device);
    let x = draw([1280, 1024], &device).require_grad();
    group.bench_function("fused/linear+gelu/r1280_i1024_o4096", |b| {
        b.iter(|| {
            black_box(
                ops::linear(x.clone(), &layer, Activation::Gelu)
                    .sum()
                    .backward(),
            )
        })
    });
    group.bench_function("burn/linear+gelu/r1280_i1024_o4096", |b| {
        b.iter(|| {
            black_box(
                activation::gelu(burns_linear(x.clone(), &layer))
                    .sum()
                    .backward(),
            )
        })
    });
    let x = draw([4, 16, 320, 64], &device).require_grad();
    group.bench_function("fused/attention/b4_h16_s320_d64", |b| {
        b.iter(|| {
            black_box(
                ops::attention(x.clone(), x.clone(), x.clone(), Mask::All)
                    .sum()
                    .backward(),
            )
        })
    });
    group.bench_function("burn/attention/b4_h16_s320_d64", |b| {
        let options = AttentionModuleOptions::default();
        b.iter(|| {
            let y = burn_attention(x.clone(), x.clone(), x.clone(), None, None, options);
            black_box(y.sum().backward())
        })
    });
    let conv = ParamInit::new(1, &device).conv2d([128, 128], [3, 3], 1);
    let x = draw([1, 128, 64, 64], &device).require_grad();
    group.bench_function("fused/conv2d_3x3/b1_c128_s64", |b| {
        b.iter(|| black_box(ops::conv2d(x.clone(), &conv, [1; 4]).sum().backward()))
    });
    group.bench_function("burn/conv2d_3x3/b1_c128_s64", |b| {
        b.iter(|| black_box(burns_conv2d(x.clone(), &conv).sum().backward()))
    });
    group.finish();
}

/// Some experts of each token, the first ones of all eight times as often as the last.
fn uneven(tokens: usize, experts: usize, each: usize) -> Routes {
    let mut mask = vec![false; tokens * experts];
    for (token, row) in mask.chunks_exact_mut(experts).enumerate() {
        for choice in 0..each {
            let draw = ((token * each + choice) as u32).wrapping_mul(0x9e37_79b9) as u64 >> 16;
            let mut expert = ((experts as u64 * draw * draw) >> 32) as usize;
            while row[expert] {
                expert = (expert + 1) % experts;
            }
            row[expert] = true;
        }
    }
    Routes::of_mask(&mask, experts)
}

/// A mixture of 32 experts of which a token has 4, the same expert by expert in Burn's operations, and an MLP as wide
/// as what a token passes through.
fn experts(c: &mut Criterion) {
    const TOKENS: usize = 4096;
    const EXPERTS: usize = 32;
    const WIDTH: usize = 1024;
    let naive = |x: &Tensor<2>, gates: &Tensor<2>, weights: &Experts, routes: &Routes| {
        let mut y = Tensor::zeros_like(x);
        for expert in 0..EXPERTS {
            let tokens: Vec<i32> = routes.tokens_of(expert).iter().map(|&t| t as i32).collect();
            let indices = Tensor::<1, Int>::from_data(tokens.as_slice(), &x.device());
            let [w1, w2] = [&weights.w1, &weights.w2]
                .map(|w| w.clone().narrow(0, expert, 1).squeeze_dim::<2>(0));
            let [b1, b2] = [&weights.b1, &weights.b2].map(|b| b.clone().narrow(0, expert, 1));
            let z = x.clone().select(0, indices.clone()).matmul(w1) + b1;
            let out = activation::gelu_approximate(z).matmul(w2) + b2;
            let gate = gates.clone().narrow(1, expert, 1);
            let out = out * gate.select(0, indices.clone());
            y = y.select_assign(0, indices, out, IndexingUpdateOp::Add);
        }
        y
    };
    let mut group = c.benchmark_group("experts");
    group.throughput(Throughput::Elements((16 * TOKENS * WIDTH * WIDTH) as u64));
    let routes = uneven(TOKENS, EXPERTS, 4);
    for backward in [false, true] {
        let device = Device::flex();
        let device = if backward { device.autodiff() } else { device };
        let leaf = |x: Tensor<2>| if backward { x.require_grad() } else { x };
        let x = leaf(draw([TOKENS, WIDTH], &device));
        let gates = leaf(draw([TOKENS, EXPERTS], &device));
        let weight = || {
            let w: Tensor<3> = draw([EXPERTS, WIDTH, WIDTH], &device) * 0.03;
            if backward { w.require_grad() } else { w }
        };
        let weights = Experts {
            w1: weight(),
            b1: leaf(draw([EXPERTS, WIDTH], &device)),
            w2: weight(),
            b2: leaf(draw([EXPERTS, WIDTH], &device)),
        };
        let [up, down] = [[WIDTH, 4 * WIDTH], [4 * WIDTH, WIDTH]]
            .map(|[inputs, outputs]| linear_layer(inputs, outputs, &device));
        let finish = |y: Tensor<2>| {
            if backward {
                drop(black_box(y.sum().backward()));
            } else {
                black_box(y);
            }
        };
        let pass = if backward {
            "forward+backward"
        } else {
            "forward"
        };
        let act = Activation::GeluTanh;
        group.bench_function(format!("fused/{pass}/4in32_t4096_d1024_h1024"), |b| {
            b.iter(|| {
                let (weights, routes) = (weights.clone(), routes.clone());
                finish(ops::experts(x.clone(), gates.clone(), weights, routes, act))
            })
        });
        group.bench_function(format!("naive/{pass}/4in32_t4096_d1024_h1024"), |b| {
            b.iter(|| finish(naive(&x, &gates, &weights, &routes)))
        });
        group.bench_function(format!("mlp/{pass}/t4096_d1024_h4096"), |b| {
            b.iter(|| {
                let hidden = ops::linear(x.clone(), &up, act);
                finish(ops::linear(hidden, &down, Activation::None))
            })
        });
    }
    group.finish();
}

fn layer_norm(c: &mut Criterion) {
    let device = Device::flex();
    let mut group = c.benchmark_group("layer_norm");
    for [rows, d] in [[1280, 160], [2560, 1024]] {
        let norm = LayerNorm::new(d, 1e-6, &device);
        let x = draw([rows, d], &device);
        group.throughput(Throughput::Elements((rows * d) as u64));
        group.bench_function(format!("fused/r{rows}_d{d}"), |b| {
            b.iter(|| black_box(ops::layer_norm(x.clone(), &norm)))
        });
        group.bench_function(format!("burn/r{rows}_d{d}"), |b| {
            b.iter(|| {
                let (scale, shift) = (norm.weight.val(), norm.bias.val());
                black_box(burns::layer_norm(x.clone(), scale, Some(shift), norm.eps))
            })
        });
    }
    group.finish();
}

fn attention(c: &mut Criterion) {
    let device = Device::flex();
    let mut group = c.benchmark_group("attention");
    for [batch, heads, seq, head_dim] in [[64, 4, 24, 40], [8, 16, 320, 64], [1, 16, 1024, 64]] {
        let x = draw([batch, heads, seq, head_dim], &device);
        group.throughput(Throughput::Elements(
            (4 * batch * heads * seq * seq * head_dim) as u64,
        ));
        let name = format!("b{batch}_h{heads}_s{seq}_d{head_dim}");
        group.bench_function(format!("fused/{name}"), |b| {
            b.iter(|| black_box(ops::attention(x.clone(), x.clone(), x.clone(), Mask::All)))
        });
        group.bench_function(format!("burn/{name}"), |b| {
            let options = AttentionModuleOptions::default();
            b.iter(|| {
                black_box(burn_attention(
                    x.clone(),
                    x.clone(),
                    x.clone(),
                    None,
                    None,
                    options,
                ))
            })
        });
    }
    group.finish();
}

fn images(c: &mut Criterion) {
    let device = Device::flex();
    for [batch, channels, size] in [[32, 16, 32], [32, 64, 8], [1, 128, 256]] {
        let name = format!("b{batch}_c{channels}_s{size}");
        let x = draw([batch, channels, size, size], &device);
        let conv = ParamInit::new(1, &device).conv2d([channels, channels], [3, 3], 1);
        let mut group = c.benchmark_group("conv2d_3x3");
        group.throughput(Throughput::Elements(
            (18 * batch * channels * channels * size * size) as u64,
        ));
        group.bench_function(format!("fused/{name}"), |b| {
            b.iter(|| black_box(ops::conv2d(x.clone(), &conv, [1; 4])))
        });
        group.bench_function(format!("burn/{name}"), |b| {
            b.iter(|| black_box(burns_conv2d(x.clone(), &conv)))
        });
        group.finish();

        let norm = GroupNorm::new(4, channels, 1e-6, &device);
        let mut group = c.benchmark_group("group_norm+silu");
        group.throughput(Throughput::Elements(
            (batch * channels * size * size) as u64,
        ));
        group.bench_function(format!("fused/{name}"), |b| {
            b.iter(|| black_box(ops::group_norm(x.clone(), &norm, Activation::Silu)))
        });
        group.bench_function(format!("burn/{name}"), |b| {
            b.iter(|| black_box(activation::silu(burns_group_norm(x.clone(), &norm))))
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(15).measurement_time(std::time::Duration::from_secs(2));
    targets = linear_gelu, few_rows, activations, layer_norm, attention, images, backward, experts
}
criterion_main!(benches);
