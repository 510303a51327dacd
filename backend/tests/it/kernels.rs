//! Every kernel in f32 against its portable body in f64 over odd shapes, in memory that is not contiguous, and with
//! what is not finite: within 2e-5 of the largest value (1e-4 on a GPU), NaN where the reference has NaN, infinities
//! where it has them.

use super::devices;
use burn::module::Param;
use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use proptest::prelude::*;
use tessera_backend::Rng;
use tessera_backend::init::ParamInit;
use tessera_backend::nn::{Conv2d, GroupNorm, LayerNorm, Linear};
use tessera_backend::ops::{self, Activation, Experts, Mask, Routes};

/// How a tensor lies in memory.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Layout {
    Plain,
    /// The last two axes swapped.
    Transposed,
    /// Cut out of a wider one.
    Cut,
}

/// What both runs of a case have in common.
#[derive(Debug, Clone, Copy)]
struct Case {
    seed: u64,
    layout: Layout,
    /// Put somewhere into the first tensor drawn.
    special: Option<f32>,
    act: Activation,
}

fn case() -> impl Strategy<Value = Case> {
    let layout = prop_oneof![
        Just(Layout::Plain),
        Just(Layout::Transposed),
        Just(Layout::Cut)
    ];
    let special = prop_oneof![
        4 => Just(None),
        1 => Just(Some(f32::NAN)),
        1 => Just(Some(f32::INFINITY)),
        1 => Just(Some(f32::NEG_INFINITY)),
    ];
    let act = prop_oneof![
        Just(Activation::None),
        Just(Activation::Gelu),
        Just(Activation::GeluTanh),
        Just(Activation::Silu),
        Just(Activation::Relu)
    ];
    (any::<u64>(), layout, special, act).prop_map(|(seed, layout, special, act)| Case {
        seed,
        layout,
        special,
        act,
    })
}

/// 1, primes, and what is beside the widths of vectors and blocks.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        1..8_usize,
        prop_oneof![
            Just(13),
            Just(16),
            Just(17),
            Just(31),
            Just(37),
            Just(64),
            Just(67)
        ],
    ]
}

struct Draw {
    case: Case,
    drawn: u64,
    dtype: FloatDType,
    device: Device,
}

impl Draw {
    fn tensor<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<D> {
        let mut rng = Rng::new(self.case.seed, self.drawn);
        self.drawn += 1;
        let mut values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal()).collect();
        if let (1, Some(special), false) = (self.drawn, self.case.special, values.is_empty()) {
            let at = rng.below(values.len());
            values[at] = special;
        }
        let plain: Tensor<D> = Tensor::from_data(TensorData::new(values, shape), &self.device);
        let plain = plain.cast(self.dtype);
        match self.case.layout {
            Layout::Transposed if D >= 2 => {
                // Through the host, so that the memory is in the other order.
                let other = plain.swap_dims(D - 2, D - 1).into_data();
                let other: Tensor<D> = Tensor::from_data(other, &self.device);
                other.cast(self.dtype).swap_dims(D - 2, D - 1)
            }
            Layout::Cut => {
                let wide = Tensor::cat(vec![plain.clone(), plain.clone(), plain], D - 1);
                wide.narrow(D - 1, shape[D - 1], shape[D - 1])
            }
            _ => plain,
        }
    }
}

fn host<const D: usize>(x: Tensor<D>) -> Vec<f64> {
    x.into_data()
        .convert::<f64>()
        .try_to_vec()
        .expect("converted to f64")
}

/// Runs `f` on the kernels and on their portable bodies.
fn agree(case: Case, f: impl Fn(&mut Draw) -> Vec<f64>) -> Result<(), TestCaseError> {
    for name in devices::with_kernels() {
        // Whether a GPU keeps what is not finite is up to its driver.
        let special = case.special.filter(|_| name == "flex");
        let case = Case { special, ..case };
        let run = |dtype, device| {
            f(&mut Draw {
                case,
                drawn: 0,
                dtype,
                device,
            })
        };
        let fast = run(FloatDType::F32, devices::open(&name));
        let slow = run(FloatDType::F64, Device::flex());
        alike(&fast, &slow, if name == "flex" { 2e-5 } else { 1e-4 })?;
    }
    Ok(())
}

/// On a GPU every case compiles kernels for its shapes, and where the GPU is made of software that is all the time.
fn cases() -> u32 {
    let on_gpu = |name: &String| name != "flex" && name != "ndarray";
    match devices::names().iter().any(on_gpu) {
        true => 24,
        false => 64,
    }
}

fn alike(fast: &[f64], slow: &[f64], tolerance: f64) -> Result<(), TestCaseError> {
    prop_assert_eq!(fast.len(), slow.len());
    let largest = slow
        .iter()
        .filter(|x| x.is_finite())
        .fold(1.0_f64, |most, x| most.max(x.abs()));
    for (i, (&x, &y)) in fast.iter().zip(slow).enumerate() {
        let alike = match y.is_finite() {
            true => (x - y).abs() <= tolerance * largest,
            false => x == y || (x.is_nan() && y.is_nan()),
        };
        prop_assert!(alike, "[{i}] is {x}, expected {y} (largest {largest})");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn activation(case in case(), a in size(), b in size()) {
        agree(case, |draw| host(ops::activation(draw.tensor([a, b]), case.act)))?;
    }

    #[test]
    fn gated_add(case in case(), a in size(), b in size()) {
        agree(case, |draw| {
            let [x, gate, y] = [0, 1, 2].map(|_| draw.tensor([a, b]));
            host(ops::gated_add(x, gate, y))
        })?;
    }

    #[test]
    fn residual_and_blend(case in case(), a in size(), b in size(), share in 0.0..1.0) {
        agree(case, |draw| {
            let (x, y): (Tensor<2>, Tensor<2>) = (draw.tensor([a, b]), draw.tensor([a, b]));
            let alone = ops::residual(x.clone() * 2.0, y.clone());
            let shared = ops::residual(x.clone(), y.clone());
            [alone, shared, ops::blend(x, y, share)].map(host).concat()
        })?;
    }

    #[test]
    fn put_rows(
        case in case(), n in 1..40_usize, d in size(), share in 0.0..1.0, seed in any::<u64>(),
        strided in any::<bool>(),
    ) {
        agree(case, |draw| {
            let mut rows = tessera_backend::Rng::new(seed, 0).permutation(n);
            rows.truncate((share * n as f64) as usize);
            let (table, values): (Tensor<2>, Tensor<2>) =
                (draw.tensor([n, d]), draw.tensor([rows.len(), 3 * d]));
            let values = match strided {
                true => values.narrow(1, d, d),
                false => values.narrow(1, d, d) * 1.0,
            };
            let rows: Vec<i32> = rows.into_iter().map(|row| row as i32).collect();
            let count = rows.len();
            let rows = tessera_backend::device_indices::<1>(rows, [count], &table.device());
            let shared = ops::put_rows(table.clone(), rows.clone(), values.clone());
            let alone = ops::put_rows(table.clone() * 1.0, rows, values);
            [table, shared, alone].map(host).concat()
        })?;
    }

    #[test]
    fn sums(case in case(), batch in 1..4_usize, rows in size(), d in size()) {
        agree(case, |draw| {
            let x: Tensor<3> = draw.tensor([batch, rows, d]);
            let mean = |sum: Tensor<1>| host(sum / (batch * rows * d) as f64);
            [mean(ops::sum(x.clone())), mean(ops::sum_of_squares(x))].concat()
        })?;
    }

    #[test]
    fn reshape(case in case(), a in size(), b in size(), c in size()) {
        agree(case, |draw| {
            let x: Tensor<3> = draw.tensor([a, b, c]);
            let swapped = ops::reshape(x.clone().swap_dims(0, 1), [b, a * c]);
            let rows = ops::repeat_rows(ops::reshape(x, [a, b * c]), 3);
            [host(swapped), host(rows)].concat()
        })?;
    }

    #[test]
    fn linear(case in case(), rows in size(), inputs in prop_oneof![size(), Just(600)], outputs in size()) {
        agree(case, |draw| {
            let x = draw.tensor([rows, inputs]);
            let layer = Linear {
                weight: Param::from_tensor(draw.tensor([inputs, outputs])),
                bias: Some(Param::from_tensor(draw.tensor([outputs]))),
            };
            host(ops::linear(x, &layer, case.act))
        })?;
    }

    #[test]
    fn layer_norm(case in case(), rows in size(), d in prop_oneof![size(), Just(200)]) {
        // Of one value nothing is left but rounding, divided by the root of eps.
        prop_assume!(d > 1);
        agree(case, |draw| {
            let x = draw.tensor([rows, d]);
            let mut norm = LayerNorm::new(d, 1e-6, &draw.device);
            norm.weight = Param::from_tensor(draw.tensor([d]));
            norm.bias = Param::from_tensor(draw.tensor([d]));
            let (shift, scale) = (draw.tensor([rows, d]), draw.tensor([rows, d]));
            let plain = host(ops::layer_norm(x.clone(), &norm));
            [plain, host(ops::modulate(x, Some(&norm), shift, scale))].concat()
        })?;
    }

    #[test]
    fn attention(
        case in case(), kv_heads in 1..4_usize, group in 1..4_usize, queries in size(),
        keys in prop_oneof![size(), Just(530)],
        head_dim in size(), hidden in 0..3, seed in 0..1000_u32,
    ) {
        let runs = (0..queries as u32).map(|query| {
            let start = query * seed % (keys as u32 + 1);
            [start, start + seed % (keys as u32 + 3)]
        });
        let mask = match hidden {
            0 => Mask::All,
            1 => Mask::Causal,
            _ => Mask::Runs(runs.collect()),
        };
        // A hidden score is not computed; the reference adds −∞ to it, which is NaN if it was not finite.
        let special = case.special.filter(|_| mask == Mask::All);
        agree(Case { special, ..case }, |draw| {
            let q = draw.tensor([2, kv_heads * group, queries, head_dim]);
            let [k, v] = [0, 1].map(|_| draw.tensor([2, kv_heads, keys, head_dim]));
            let (out, lse) = ops::attention_with_lse(q, k, v, mask.clone());
            match special {
                None => [host(out), host(lse)].concat(),
                Some(_) => host(out),
            }
        })?;
    }

    #[test]
    fn group_norm(
        case in case(), batch in 1..3_usize, groups in 1..4_usize, per in 1..4_usize, [h, w] in [size(), size()],
    ) {
        prop_assume!(per * h * w > 1);
        agree(case, |draw| {
            let channels = groups * per;
            let x = draw.tensor([batch, channels, h, w]);
            let mut norm = GroupNorm::new(groups, channels, 1e-6, &draw.device);
            norm.weight = Param::from_tensor(draw.tensor([channels]));
            norm.bias = Param::from_tensor(draw.tensor([channels]));
            host(ops::group_norm(x, &norm, case.act))
        })?;
    }

    #[test]
    fn conv2d(
        case in case(), batch in 1..3_usize, [inputs, outputs] in [size(), size()], [h, w] in [3..40_usize, 3..40],
        kernel in prop_oneof![Just([1, 1]), Just([3, 3]), Just([2, 5])], stride in 1..3_usize,
        padding in [0..3_usize, 0..3, 0..3, 0..3],
    ) {
        prop_assume!(w + padding[1] + padding[3] >= kernel[1]);
        convolution(case, [batch, inputs, outputs], [h, w], kernel, stride, padding)?;
    }

    /// Where Winograd's algorithm is taken.
    #[test]
    fn winograd(
        case in case(), batch in 1..3_usize, [inputs, outputs] in [16..40_usize, 16..40],
        [h, w] in [30..70_usize, 36..70],
        padding in [0..3_usize, 0..3, 0..3, 0..3],
    ) {
        convolution(case, [batch, inputs, outputs], [h, w], [3, 3], 1, padding)?;
    }

    #[test]
    fn depthwise(
        case in case(), batch in 1..3_usize, channels in size(), [h, w] in [3..40_usize, 3..40],
        kernel in prop_oneof![Just([1, 1]), Just([3, 3]), Just([5, 5]), Just([2, 5])], stride in 1..4_usize,
        padding in [0..3_usize, 0..3, 0..3, 0..3],
    ) {
        prop_assume!(w + padding[1] + padding[3] >= kernel[1] && h + padding[0] + padding[2] >= kernel[0]);
        agree(case, |draw| {
            let x = draw.tensor([batch, channels, h, w]);
            let conv = Conv2d {
                weight: Param::from_tensor(draw.tensor([channels, 1, kernel[0], kernel[1]])),
                bias: Some(Param::from_tensor(draw.tensor([channels]))),
                stride: [stride; 2],
            };
            host(ops::depthwise_clamped(x, &conv, padding, [-1.0, 1.5]))
        })?;
    }

    #[test]
    fn upsample(case in case(), channels in size(), [h, w] in [size(), size()]) {
        agree(case, |draw| host(ops::upsample_nearest(draw.tensor([2, channels, h, w]))))?;
    }

    #[test]
    fn experts(
        case in case(), tokens in size(), experts in prop_oneof![1..6_usize, Just(13)], d in size(), hidden in size(),
        routed in prop_oneof![Just(0), Just(1), Just(50), Just(100_u64)],
    ) {
        let mut rng = Rng::new(case.seed, 1 << 32);
        let mask: Vec<bool> = (0..tokens * experts).map(|_| rng.below(100) < routed as usize).collect();
        // What is not finite goes into a gate, where every expert of its token is, and where none is.
        agree(case, |draw| {
            let gates = draw.tensor([tokens, experts]);
            let x = draw.tensor([tokens, d]);
            let (w1, b1) = (draw.tensor([experts, d, hidden]), draw.tensor([experts, hidden]));
            let (w2, b2) = (draw.tensor([experts, hidden, d]), draw.tensor([experts, d]));
            let weights = Experts { w1, b1, w2, b2 };
            host(ops::experts(x, gates, weights, Routes::of_mask(&mask, experts), case.act))
        })?;
    }

    #[test]
    fn experts_above(
        case in case(), tokens in size(), experts in prop_oneof![1..6_usize, Just(13)], d in size(), hidden in size(),
        threshold in prop_oneof![Just(f32::INFINITY), Just(1.5), Just(0.0), Just(-9.0)],
    ) {
        threshold_agrees(case, [tokens, experts, d, hidden], threshold)?;
    }

    #[test]
    fn cross_entropy(case in case(), rows in size(), classes in size()) {
        agree(case, |draw| {
            let logits = draw.tensor([rows, classes]);
            let targets: Vec<i32> = (0..rows).map(|row| (row * 7 % classes) as i32).collect();
            let targets = Tensor::<1, Int>::from_data(targets.as_slice(), &draw.device);
            host(ops::cross_entropy(logits, targets))
        })?;
    }
}

fn threshold_agrees(
    case: Case,
    [tokens, experts, d, hidden]: [usize; 4],
    threshold: f32,
) -> Result<(), TestCaseError> {
    agree(case, |draw| {
        let gates = draw.tensor([tokens, experts]);
        let x = draw.tensor([tokens, d]);
        let (w1, b1) = (
            draw.tensor([experts, d, hidden]),
            draw.tensor([experts, hidden]),
        );
        let (w2, b2) = (draw.tensor([experts, hidden, d]), draw.tensor([experts, d]));
        let weights = Experts { w1, b1, w2, b2 };
        let threshold: Tensor<1> = Tensor::full([1], threshold, &draw.device);
        let threshold = threshold.cast(draw.dtype);
        host(ops::experts_above(x, gates, threshold, weights, case.act))
    })
}

/// Every token goes everywhere, which is more than a GPU has room for at once.
#[test]
fn experts_of_more_rounds_than_one() {
    let case = Case {
        seed: 1,
        layout: Layout::Plain,
        special: None,
        act: Activation::GeluTanh,
    };
    for experts in [7, 12, 23] {
        threshold_agrees(case, [150, experts, 9, 11], -9.0).unwrap();
        threshold_agrees(case, [150, experts, 9, 11], 0.5).unwrap();
    }
}

fn convolution(
    case: Case,
    [batch, inputs, outputs]: [usize; 3],
    [h, w]: [usize; 2],
    kernel: [usize; 2],
    stride: usize,
    padding: [usize; 4],
) -> Result<(), TestCaseError> {
    agree(case, |draw| {
        let x = draw.tensor([batch, inputs, h, w]);
        let conv = Conv2d {
            weight: Param::from_tensor(draw.tensor([outputs, inputs, kernel[0], kernel[1]])),
            bias: Some(Param::from_tensor(draw.tensor([outputs]))),
            stride: [stride; 2],
        };
        host(ops::conv2d(x, &conv, padding))
    })
}

#[test]
fn nothing_in_is_nothing_out() {
    for name in devices::with_kernels() {
        nothing_comes_of_nothing(&devices::open(&name));
    }
}

fn nothing_comes_of_nothing(device: &Device) {
    let layer = ParamInit::new(0, device).linear(5, 7);
    let norm = LayerNorm::new(5, 1e-6, device);
    let none = Tensor::<2>::zeros([0, 5], device);
    assert_eq!(
        ops::linear(none.clone(), &layer, Activation::Gelu).dims(),
        [0, 7]
    );
    assert_eq!(ops::layer_norm(none.clone(), &norm).dims(), [0, 5]);
    assert_eq!(ops::residual(none.clone(), none.clone()).dims(), [0, 5]);
    assert_eq!(ops::reshape(none.clone(), [5, 0, 2]).dims(), [5, 0, 2]);
    assert_eq!(host(ops::sum(none.clone())), [0.0]);
    assert_eq!(
        ops::activation(none.clone(), Activation::Silu).dims(),
        [0, 5]
    );
    let modulated = ops::modulate(none.clone(), Some(&norm), none.clone(), none);
    assert_eq!(modulated.dims(), [0, 5]);
    let weights = Experts {
        w1: Tensor::ones([2, 5, 3], device),
        b1: Tensor::ones([2, 3], device),
        w2: Tensor::ones([2, 3, 5], device),
        b2: Tensor::ones([2, 5], device),
    };
    let (x, gates) = (Tensor::zeros([0, 5], device), Tensor::zeros([0, 2], device));
    let (routes, act) = (Routes::of_mask(&[], 2), Activation::Gelu);
    let out = ops::experts(x.clone(), gates.clone(), weights.clone(), routes, act);
    assert_eq!(out.dims(), [0, 5]);
    let out = ops::experts_above(x, gates, Tensor::zeros([1], device), weights, act);
    assert_eq!(out.dims(), [0, 5]);

    let queries = Tensor::<4>::zeros([2, 3, 0, 8], device);
    let keys = Tensor::<4>::ones([2, 3, 4, 8], device);
    let out = ops::attention(queries, keys.clone(), keys.clone(), Mask::All);
    assert_eq!(out.dims(), [2, 3, 0, 8]);
    let no_keys = Tensor::<4>::zeros([2, 3, 0, 8], device);
    let none = || no_keys.clone();
    let (out, lse) = ops::attention_with_lse(keys.clone(), none(), none(), Mask::All);
    assert!(host(out).iter().all(|&x| x == 0.0), "of no keys comes zero");
    assert!(host(lse.clone()).iter().all(|&x| x == f64::NEG_INFINITY));
    let qkv = [keys.clone(), none(), none()];
    let [dq, dk, dv] =
        ops::attention_gradients(qkv, keys, lse, Tensor::zeros([2, 3, 4], device), Mask::All);
    assert!(host(dq).iter().all(|&x| x == 0.0), "nor does a gradient");
    assert_eq!([dk.dims(), dv.dims()], [[2, 3, 0, 8]; 2]);

    let none = Tensor::<4>::zeros([0, 4, 6, 6], device);
    let conv = ParamInit::new(0, device).conv2d([4, 3], [3, 3], 1);
    assert_eq!(
        ops::conv2d(none.clone(), &conv, [1; 4]).dims(),
        [0, 3, 6, 6]
    );
    assert_eq!(ops::upsample_nearest(none.clone()).dims(), [0, 4, 12, 12]);
    let norm = GroupNorm::new(2, 4, 1e-6, device);
    assert_eq!(
        ops::group_norm(none, &norm, Activation::Silu).dims(),
        [0, 4, 6, 6]
    );
}
