//! Every fused operation in f32 equals its portable body in f64 (the kernels are f32 only, so f64 takes the
//! portable body): outputs within 1e-5 and gradients within 1e-4 of the largest value.

use super::devices;
use burn::module::Param;
use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use tessera_backend::Rng;
use tessera_backend::nn::{Conv2d, GroupNorm, LayerNorm, Linear};
use tessera_backend::ops::{self, Activation, Experts, Mask, Routes};

/// Draws leaves of one precision and collects what a run computed.
struct Run {
    rng: Rng,
    dtype: FloatDType,
    device: Device,
}

impl Run {
    fn leaf<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<D> {
        self.rng
            .normal_tensor(shape, &self.device)
            .cast(self.dtype)
            .detach()
            .require_grad()
    }

    fn linear(&mut self, inputs: usize, outputs: usize) -> Linear {
        Linear {
            weight: Param::from_tensor(self.leaf([inputs, outputs])),
            bias: Some(Param::from_tensor(self.leaf([outputs]))),
        }
    }

    fn conv(&mut self, [out, input, kh, kw]: [usize; 4], stride: usize) -> Conv2d {
        Conv2d {
            weight: Param::from_tensor(self.leaf([out, input, kh, kw])),
            bias: Some(Param::from_tensor(self.leaf([out]))),
            stride: [stride; 2],
        }
    }

    fn layer_norm(&mut self, d: usize) -> LayerNorm {
        let mut norm = LayerNorm::new(d, 1e-6, &self.device);
        norm.weight = Param::from_tensor(self.leaf([d]));
        norm.bias = Param::from_tensor(self.leaf([d]));
        norm
    }

    fn group_norm(&mut self, groups: usize, channels: usize) -> GroupNorm {
        let mut norm = GroupNorm::new(groups, channels, 1e-6, &self.device);
        norm.weight = Param::from_tensor(self.leaf([channels]));
        norm.bias = Param::from_tensor(self.leaf([channels]));
        norm
    }

    /// The output and a scalar whose gradient reaches every element differently.
    fn weigh<const D: usize>(&mut self, out: Tensor<D>) -> (Vec<f64>, Tensor<1>) {
        let weights = self
            .rng
            .normal_tensor(out.dims(), &self.device)
            .cast(self.dtype);
        (host(out.clone()), (out * weights).sum())
    }
}

fn host<const D: usize>(x: Tensor<D>) -> Vec<f64> {
    x.into_data()
        .convert::<f64>()
        .try_to_vec()
        .expect("converted to f64")
}

macro_rules! grads {
    ($loss:expr, $($leaf:expr),+) => {{
        let grads = $loss.backward();
        vec![$(host($leaf.grad(&grads).expect(concat!(stringify!($leaf), " has a gradient")))),+]
    }};
}

/// Runs `f` fused and portable and compares everything it returns.
fn agree(name: &str, f: impl Fn(&mut Run) -> (Vec<f64>, Vec<Vec<f64>>)) {
    let run = |dtype, device: Device| {
        f(&mut Run {
            rng: Rng::new(5, 0),
            dtype,
            device: device.autodiff(),
        })
    };
    let portable = run(FloatDType::F64, Device::flex());
    for device in devices::with_kernels() {
        let fused = run(FloatDType::F32, devices::open(&device));
        let name = format!("{name} on {device}");
        let looser = if device == "flex" { 1.0 } else { 10.0 };
        close(
            &format!("{name}: output"),
            &fused.0,
            &portable.0,
            looser * 1e-5,
        );
        for (i, (a, b)) in fused.1.iter().zip(&portable.1).enumerate() {
            close(&format!("{name}: gradient {i}"), a, b, looser * 1e-4);
        }
    }
}

fn close(name: &str, a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len(), "{name}");
    let finite = b.iter().filter(|x| x.is_finite());
    let largest = finite.fold(1e-6_f64, |m, x| m.max(x.abs()));
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!(
            x == y || (x - y).abs() <= tolerance * largest,
            "{name}: [{i}] is {x}, expected {y} (largest {largest})"
        );
    }
}

#[test]
fn linear_agrees_with_its_portable_body() {
    for act in [
        Activation::None,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Silu,
    ] {
        for [rows, inputs, outputs] in [[1, 5, 7], [3, 16, 64], [70, 600, 33], [300, 96, 96]] {
            agree(
                &format!("linear {act:?} {rows}x{inputs}x{outputs}"),
                |run| {
                    let (x, layer) = (run.leaf([rows, inputs]), run.linear(inputs, outputs));
                    let (out, loss) = run.weigh(ops::linear(x.clone(), &layer, act));
                    let bias = layer.bias.as_ref().expect("set above").val();
                    (out, grads!(loss, x, layer.weight.val(), bias))
                },
            );
        }
    }
}

/// The first and the last of three parts, used unevenly, and the middle one or not; in f64 as slices of the output.
#[test]
fn gradients_of_the_parts_of_a_linear_map_are_those_of_slices() {
    for middle in [false, true] {
        agree("split_linear", |run| {
            let (x, layer) = (run.leaf([2, 5, 7]), run.linear(7, 3 * 4));
            let [a, b, c] = match run.dtype {
                FloatDType::F32 => ops::split_linear(x.clone(), &layer),
                _ => {
                    let y = ops::linear(x.clone(), &layer, Activation::None);
                    [0, 4, 8].map(|first| y.clone().narrow(2, first, 4))
                }
            };
            let used = a.clone() * c + a;
            let used = if middle { used * b } else { used };
            let (out, loss) = run.weigh(used);
            let bias = layer.bias.as_ref().expect("set above").val();
            (out, grads!(loss, x, layer.weight.val(), bias))
        });
    }
}

#[test]
fn activation_agrees_with_its_portable_body() {
    for act in [
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Silu,
        Activation::Relu,
    ] {
        agree("activation", |run| {
            let x = run.leaf([4, 17, 9]);
            let (out, loss) = run.weigh(ops::activation(x.clone(), act));
            (out, grads!(loss, x))
        });
    }
}

#[test]
fn gated_add_agrees_with_its_portable_body() {
    agree("gated add", |run| {
        let [x, gate, y] = [0, 1, 2].map(|_| run.leaf([3, 5, 33]));
        let (out, loss) = run.weigh(ops::gated_add(x.clone(), gate.clone(), y.clone()));
        (out, grads!(loss, x, gate, y))
    });
}

#[test]
fn residual_sum_and_reshape_agree_with_their_portable_bodies() {
    agree("residual", |run| {
        let [x, y] = [0, 1].map(|_| run.leaf([3, 5, 33]));
        // Added to what it came from as well, so that two gradients meet in it.
        let twice = ops::residual(x.clone(), ops::residual(x.clone(), y.clone()));
        let swapped = ops::reshape(twice.swap_dims(0, 2), [33 * 5, 3]);
        let (out, loss) = run.weigh(swapped);
        (out, grads!(loss, x, y))
    });
    agree("sum", |run| {
        let x = run.leaf([3, 5, 33]);
        let squares = ops::sum(x.clone() * x.clone());
        (host(squares.clone()), grads!(squares, x))
    });
    agree("repeated rows", |run| {
        let x = run.leaf([3, 33]);
        let (out, loss) = run.weigh(ops::repeat_rows(x.clone(), 5));
        (out, grads!(loss, x))
    });
    agree("sums of rows", |run| {
        let x = run.leaf([70, 4, 33]);
        let (out, loss) = run.weigh(ops::sum_rows(x.clone()));
        (out, grads!(loss, x))
    });
}

#[test]
fn layer_norm_agrees_with_its_portable_body() {
    for (rows, d) in [(1, 8), (130, 33), (65, 128)] {
        agree(&format!("layer_norm {rows}x{d}"), |run| {
            let (x, norm) = (run.leaf([rows, d]), run.layer_norm(d));
            let (out, loss) = run.weigh(ops::layer_norm(x.clone(), &norm));
            (out, grads!(loss, x, norm.weight.val(), norm.bias.val()))
        });
    }
}

#[test]
fn modulate_agrees_with_its_portable_body() {
    for (rows, d) in [(2, 8), (130, 33)] {
        agree(&format!("modulate {rows}x{d}"), |run| {
            let (x, norm) = (run.leaf([2, rows, d]), run.layer_norm(d));
            let (shift, scale) = (run.leaf([2, rows, d]), run.leaf([2, rows, d]));
            let (out, loss) = run.weigh(ops::modulate(
                x.clone(),
                Some(&norm),
                shift.clone(),
                scale.clone(),
            ));
            (
                out,
                grads!(loss, x, norm.weight.val(), norm.bias.val(), shift, scale),
            )
        });
    }
}

/// Runs of keys that begin and end anywhere, some of them empty.
fn documents(queries: u32, keys: u32) -> Mask {
    let run = |query| match query % 7 {
        3 => [query, query],
        _ => {
            let start = query * keys / queries / 2;
            [start, keys - (queries - query) / 3]
        }
    };
    Mask::Runs((0..queries).map(run).collect())
}

#[test]
fn gradients_of_parts_of_the_keys_add_up() {
    let (queries, keys, device) = (150, 640, Device::flex());
    let mut rng = Rng::new(4, 4);
    let mut draw = |heads, seq| rng.normal_tensor([2, heads, seq, 16], &device);
    let (q, k, v, g) = (
        draw(4, queries),
        draw(2, keys),
        draw(2, keys),
        draw(4, queries),
    );
    for dtype in [FloatDType::F32, FloatDType::F64] {
        let [q, k, v, g] = [&q, &k, &v, &g].map(|x| x.clone().cast(dtype));
        let (out, lse) = ops::attention_with_lse(q.clone(), k.clone(), v.clone(), Mask::All);
        let delta = (out * g.clone()).sum_dim(3).squeeze_dim::<3>(3);
        let part = |from, to| {
            let [k, v] = [&k, &v].map(|x| x.clone().narrow(2, from, to - from));
            let qkv = [q.clone(), k, v];
            ops::attention_gradients(qkv, g.clone(), lse.clone(), delta.clone(), Mask::All)
        };
        let (whole, first, second) = (part(0, keys), part(0, 500), part(500, keys));
        let dq = first[0].clone() + second[0].clone();
        close("dq", &host(whole[0].clone()), &host(dq), 1e-5);
        for i in [1, 2] {
            let parts = vec![first[i].clone(), second[i].clone()];
            let parts = host(Tensor::cat(parts, 2));
            close("dk, dv", &host(whole[i].clone()), &parts, 1e-5);
        }
    }
}

#[test]
fn attention_agrees_with_its_portable_body() {
    for ([batch, heads, kv_heads, queries, keys, head_dim], mask) in [
        ([2, 3, 3, 5, 5, 8], Mask::All),
        ([2, 3, 3, 5, 5, 8], Mask::Causal),
        ([1, 2, 2, 70, 300, 16], Mask::All),
        ([1, 2, 1, 70, 300, 16], documents(70, 300)),
        ([1, 2, 2, 130, 130, 24], Mask::Causal),
        ([2, 4, 2, 201, 530, 8], documents(201, 530)),
        ([1, 6, 1, 30, 9, 8], Mask::Causal),
        ([1, 1, 1, 1, 9, 4], Mask::Causal),
        ([1, 1, 1, 3, 9, 4], Mask::Causal),
    ] {
        agree(
            &format!("attention {batch}x{heads}/{kv_heads}x{queries}x{keys}x{head_dim} {mask:?}"),
            |run| {
                let q = run.leaf([batch, heads, queries, head_dim]);
                let (k, v) = (
                    run.leaf([batch, keys, kv_heads, head_dim]),
                    run.leaf([batch, kv_heads, keys, head_dim]),
                );
                let (out, lse) = ops::attention_with_lse(
                    q.clone(),
                    k.clone().swap_dims(1, 2),
                    v.clone(),
                    mask.clone(),
                );
                let (mut out, loss) = run.weigh(out);
                out.extend(host(lse));
                (out, grads!(loss, q, k, v))
            },
        );
    }
}

#[test]
fn attention_with_dropout_agrees_with_its_portable_body() {
    for ([batch, heads, kv_heads, queries, keys, head_dim], mask) in [
        ([2, 3, 3, 5, 5, 8], Mask::All),
        ([2, 3, 3, 70, 70, 8], Mask::Causal),
        ([1, 4, 2, 201, 530, 8], documents(201, 530)),
    ] {
        agree(
            &format!("attention with dropout {queries}x{keys} {mask:?}"),
            |run| {
                let q = run.leaf([batch, heads, queries, head_dim]);
                let k = run.leaf([batch, kv_heads, keys, head_dim]);
                let v = run.leaf([batch, kv_heads, keys, head_dim]);
                let drawn = run.leaf([batch, heads, queries, keys]).detach();
                let dropped = drawn.clone().lower_elem(-0.5);
                let keep = (drawn.zeros_like() + 1.4).mask_fill(dropped, 0.0);
                let qkv = [q.clone(), k.clone(), v.clone()];
                let out = ops::attention_with_dropout(qkv, keep, mask.clone());
                let (out, loss) = run.weigh(out);
                (out, grads!(loss, q, k, v))
            },
        );
    }
}

#[test]
fn dropped_features_agree_with_a_product() {
    agree("dropout", |run| {
        let (x, keep) = (
            run.leaf([37, 1030]),
            run.leaf([1030, 37]).detach().transpose(),
        );
        let (out, loss) = run.weigh(ops::dropped(x.clone(), keep));
        (out, grads!(loss, x))
    });
}

#[test]
fn a_query_that_sees_no_key_gives_zero() {
    let device = Device::flex();
    let mut rng = Rng::new(1, 1);
    let mut draw = |seq| rng.normal_tensor([1, 1, seq, 4], &device);
    let (q, k, v) = (draw(3), draw(2), draw(2));
    for dtype in [FloatDType::F32, FloatDType::F64] {
        let out = ops::attention(
            q.clone().cast(dtype),
            k.clone().cast(dtype),
            v.clone().cast(dtype),
            Mask::Causal,
        );
        let out = host(out);
        assert_eq!(out[..4], [0.0; 4], "{dtype:?}");
        assert!(
            out[4..].iter().all(|x| x.is_finite() && *x != 0.0),
            "{dtype:?}"
        );
    }
}

#[test]
fn group_norm_agrees_with_its_portable_body() {
    for act in [Activation::None, Activation::Gelu, Activation::Silu] {
        agree(&format!("group_norm {act:?}"), |run| {
            let (x, norm) = (run.leaf([3, 12, 5, 7]), run.group_norm(4, 12));
            let (out, loss) = run.weigh(ops::group_norm(x.clone(), &norm, act));
            (out, grads!(loss, x, norm.weight.val(), norm.bias.val()))
        });
    }
}

#[test]
fn conv2d_agrees_with_its_portable_body() {
    for (kernel, stride, padding, size) in [
        ([3, 3], 1, [1, 1, 1, 1], [9, 6]),
        ([3, 3], 2, [0, 0, 1, 1], [8, 10]),
        ([1, 1], 1, [0; 4], [4, 5]),
        ([4, 2], 2, [2, 1, 0, 3], [7, 9]),
        ([3, 3], 1, [1, 1, 1, 1], [40, 40]),
    ] {
        agree(
            &format!("conv2d {kernel:?} stride {stride} padding {padding:?} on {size:?}"),
            |run| {
                let x = run.leaf([5, 3, size[0], size[1]]);
                let conv = run.conv([4, 3, kernel[0], kernel[1]], stride);
                let (out, loss) = run.weigh(ops::conv2d(x.clone(), &conv, padding));
                let bias = conv.bias.as_ref().expect("set above").val();
                (out, grads!(loss, x, conv.weight.val(), bias))
            },
        );
    }
}

/// Where Winograd's algorithm is taken, backward as well; padding of 3 takes it forward alone.
#[test]
fn wide_conv2d_agrees_with_its_portable_body() {
    for padding in [[1, 1, 1, 1], [0, 0, 0, 0], [0, 2, 1, 2], [3, 1, 0, 1]] {
        agree(&format!("3x3 conv2d padding {padding:?}"), |run| {
            let x = run.leaf([2, 17, 35, 42]);
            let conv = run.conv([19, 17, 3, 3], 1);
            let (out, loss) = run.weigh(ops::conv2d(x.clone(), &conv, padding));
            let bias = conv.bias.as_ref().expect("set above").val();
            (out, grads!(loss, x, conv.weight.val(), bias))
        });
    }
}

#[test]
fn depthwise_agrees_with_its_portable_body() {
    for (kernel, stride, padding) in [
        ([3, 3], 1, [1, 1, 1, 1]),
        ([5, 5], 2, [1, 2, 2, 1]),
        ([2, 3], 3, [0, 2, 1, 0]),
    ] {
        agree(
            &format!("depthwise {kernel:?} stride {stride} padding {padding:?}"),
            |run| {
                let x = run.leaf([2, 3, 11, 14]);
                let conv = run.conv([3, 1, kernel[0], kernel[1]], stride);
                let bounds = [-0.7, 0.9];
                let (out, loss) =
                    run.weigh(ops::depthwise_clamped(x.clone(), &conv, padding, bounds));
                let bias = conv.bias.as_ref().expect("set above").val();
                (out, grads!(loss, x, conv.weight.val(), bias))
            },
        );
    }
}

#[test]
fn upsample_nearest_agrees_with_its_portable_body() {
    agree("upsample_nearest", |run| {
        let x = run.leaf([2, 3, 4, 5]);
        let (out, loss) = run.weigh(ops::upsample_nearest(x.clone()));
        (out, grads!(loss, x))
    });
}

/// With tokens that have no expert, and experts with none, one and many tokens.
fn agree_on_experts(mask: &[bool], [tokens, experts]: [usize; 2], [d, hidden]: [usize; 2]) {
    let routes = Routes::of_mask(mask, experts);
    for act in [
        Activation::None,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Silu,
    ] {
        let name = format!("{act:?} experts {tokens}x{experts} {d}->{hidden}");
        agree(&name, |run| {
            let (x, gates) = (run.leaf([tokens, d]), run.leaf([tokens, experts]));
            let weights = Experts {
                w1: run.leaf([experts, d, hidden]),
                b1: run.leaf([experts, hidden]),
                w2: run.leaf([experts, hidden, d]),
                b2: run.leaf([experts, d]),
            };
            let out = ops::experts(
                x.clone(),
                gates.clone(),
                weights.clone(),
                routes.clone(),
                act,
            );
            let (out, loss) = run.weigh(out);
            let Experts { w1, b1, w2, b2 } = weights;
            (out, grads!(loss, x, gates, w1, b1, w2, b2))
        });
    }
}

#[test]
fn experts_agree_with_their_portable_body() {
    for [tokens, experts, d, hidden] in [
        [1, 1, 5, 7],
        [9, 4, 8, 16],
        [130, 5, 33, 20],
        [1100, 3, 17, 9],
    ] {
        // The first expert has every second token, the last but one token 0 alone, the last none.
        let mask: Vec<bool> = (0..tokens * experts)
            .map(|i| match (i / experts, experts - i % experts) {
                (_, 1) => experts == 1,
                (token, 2) => token == 0,
                (token, _) if i % experts == 0 => token % 2 == 0,
                (token, _) => (token * 7 + i % experts * 3) % 5 < 2,
            })
            .collect();
        agree_on_experts(&mask, [tokens, experts], [d, hidden]);
        agree_on_experts(
            &vec![true; tokens * experts],
            [tokens, experts],
            [d, hidden],
        );
    }
}

/// A sum of more than a part of a product, in both maps and in the gradient of the weights.
#[test]
fn wide_experts_agree_with_their_portable_body() {
    let mask: Vec<bool> = (0..600 * 2)
        .map(|i| i % 2 == 0 || i / 2 % 40 == 3)
        .collect();
    agree_on_experts(&mask, [600, 2], [520, 530]);
}

/// No gradient is computed that nobody asked for, nor are the others changed by that.
#[test]
fn each_gradient_of_experts_can_be_had_alone() {
    let (device, routes) = (
        Device::flex().autodiff(),
        Routes::of_mask(&[true, false, true, true, false, false], 2),
    );
    let run = |asked: [bool; 6]| {
        let mut rng = Rng::new(4, 4);
        let mut leaf = |i: usize, shape: [usize; 3]| {
            let leaf: Tensor<3> = rng.normal_tensor(shape, &device);
            if asked[i] { leaf.require_grad() } else { leaf }
        };
        let (x, gates) = (leaf(0, [1, 3, 4]), leaf(1, [1, 3, 2]));
        let (w1, b1) = (leaf(2, [2, 4, 5]), leaf(3, [1, 2, 5]));
        let (w2, b2) = (leaf(4, [2, 5, 4]), leaf(5, [1, 2, 4]));
        let weights = Experts {
            w1: w1.clone(),
            b1: b1.clone().squeeze_dim(0),
            w2: w2.clone(),
            b2: b2.clone().squeeze_dim(0),
        };
        let (flat_x, flat_gates) = (x.clone().squeeze_dim(0), gates.clone().squeeze_dim(0));
        let y = ops::experts(
            flat_x,
            flat_gates,
            weights,
            routes.clone(),
            Activation::GeluTanh,
        );
        let grads = y.sum().backward();
        [x, gates, w1, b1, w2, b2].map(|leaf| leaf.grad(&grads).map(host))
    };
    let all = run([true; 6]);
    for i in 0..6 {
        let alone = run(std::array::from_fn(|j| i == j));
        for (j, (alone, all)) in alone.iter().zip(&all).enumerate() {
            assert_eq!(alone, if i == j { all } else { &None }, "{i} {j}");
        }
    }
}

#[test]
fn cross_entropy_agrees_with_its_portable_body() {
    agree("cross_entropy", |run| {
        let x = run.leaf([300, 13]);
        let targets: Vec<i32> = (0..300).map(|i| i * 7 % 13).collect();
        let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [300]), &run.device);
        let (out, loss) = run.weigh(ops::cross_entropy(x.clone(), targets));
        (out, grads!(loss, x))
    });
}

#[test]
fn adamw_agrees_with_its_portable_body() {
    let step = ops::AdamWStep {
        lr: 0.1,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.02,
        step: 3,
        grad_scale: 0.5,
    };
    let device = Device::flex();
    let run = |dtype| {
        let mut rng = Rng::new(3, 3);
        let [p, m, v, g] = std::array::from_fn(|_| rng.normal_tensor([7, 11], &device).cast(dtype));
        let (p, m, v) = ops::adamw_step(p, m, v.abs(), g, &step);
        [host(p), host(m), host(v)].concat()
    };
    close("adamw", &run(FloatDType::F32), &run(FloatDType::F64), 1e-5);
}
