//! The portable bodies: every fused operation in Burn's own tensor operations. They are the reference of the kernels
//! and the default of a new backend, and they are differentiable, so a backend without fused backward passes trains
//! too.

use crate::arguments::{Activation, AdamWStep, Mask, Routes, Sampling, reaches};
use crate::host::{count_upload, host_floats};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{
    BoolDType, IndexingUpdateOp, IntDType, Shape, Slice, TensorData, ops::ConvOptions,
};

fn dims<B: Backend, const D: usize>(x: &FloatTensor<B>) -> [usize; D] {
    x.shape().dims()
}

fn reshape<B: Backend, const D: usize>(x: FloatTensor<B>, shape: [usize; D]) -> FloatTensor<B> {
    B::float_reshape(x, Shape::from(shape))
}

/// See [`crate::Backend::activation`].
pub(crate) fn activation<B: Backend>(x: FloatTensor<B>, act: Activation) -> FloatTensor<B> {
    match act {
        Activation::None => x,
        Activation::Gelu => {
            let cdf = B::float_erf(B::float_mul_scalar(
                x.clone(),
                std::f32::consts::FRAC_1_SQRT_2.into(),
            ));
            B::float_mul_scalar(
                B::float_mul(x, B::float_add_scalar(cdf, 1.0.into())),
                0.5.into(),
            )
        }
        Activation::GeluTanh => {
            let cubic = B::float_mul(B::float_mul(x.clone(), x.clone()), x.clone());
            let inner = B::float_add(x.clone(), B::float_mul_scalar(cubic, 0.044715.into()));
            let scaled = B::float_mul_scalar(inner, (8.0 / std::f64::consts::PI).sqrt().into());
            B::float_mul(B::sigmoid(scaled), x)
        }
        Activation::Silu => B::float_mul(B::sigmoid(x.clone()), x),
        Activation::Relu => B::relu(x),
    }
}

/// See [`crate::Backend::sum_rows`].
pub(crate) fn sum_rows<B: Backend>(g: FloatTensor<B>) -> FloatTensor<B> {
    let [batch, _, d] = dims::<B, 3>(&g);
    reshape::<B, 2>(B::float_sum_dim(g, 1), [batch, d])
}

/// See [`crate::Backend::sum_of_squares`].
pub(crate) fn sum_of_squares<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_sum(B::float_mul(x.clone(), x))
}

/// See [`crate::Backend::blend`].
pub(crate) fn blend<B: Backend>(
    average: FloatTensor<B>,
    value: FloatTensor<B>,
    share: f64,
) -> FloatTensor<B> {
    let change = B::float_mul_scalar(B::float_sub(value, average.clone()), share.into());
    B::float_add(average, change)
}

/// See [`crate::Backend::put_rows`].
pub(crate) fn put_rows<B: Backend>(
    table: FloatTensor<B>,
    rows: IntTensor<B>,
    values: FloatTensor<B>,
) -> FloatTensor<B> {
    B::float_select_assign(table, 0, rows, values, IndexingUpdateOp::Assign)
}

/// See [`crate::Backend::residual`].
pub(crate) fn residual<B: Backend>(x: FloatTensor<B>, y: FloatTensor<B>) -> FloatTensor<B> {
    B::float_add(x, y)
}

/// See [`crate::Backend::gated_add`].
pub(crate) fn gated_add<B: Backend>(
    x: FloatTensor<B>,
    gate: FloatTensor<B>,
    y: FloatTensor<B>,
) -> FloatTensor<B> {
    B::float_add(x, B::float_mul(gate, y))
}

/// See [`crate::Backend::linear_act`].
pub(crate) fn linear<B: Backend>(
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    b: FloatTensor<B>,
    act: Activation,
) -> FloatTensor<B> {
    let [outputs] = dims::<B, 1>(&b);
    let w = match w.dtype() == x.dtype() {
        true => w,
        false => B::float_cast(w, x.dtype().into()),
    };
    let z = B::float_add(B::float_matmul(x, w), reshape::<B, 2>(b, [1, outputs]));
    activation::<B>(z, act)
}

/// See [`crate::Backend::grouped_experts`]: for each expert, gathers its tokens and adds its outputs to theirs.
pub(crate) fn experts<B: Backend>(
    x: FloatTensor<B>,
    gates: FloatTensor<B>,
    weights: [FloatTensor<B>; 4],
    routes: &Routes,
    act: Activation,
) -> FloatTensor<B> {
    let ([tokens, d], device) = (dims::<B, 2>(&x), x.device());
    let mut y = B::float_zeros(Shape::from([tokens, d]), &device, x.dtype().into());
    for expert in 0..routes.experts() {
        let of_expert = routes.tokens_of(expert);
        if of_expert.is_empty() {
            continue;
        }
        let indices: Vec<i32> = of_expert.iter().map(|&token| token as i32).collect();
        let count = indices.len();
        count_upload();
        let indices = B::int_from_data(TensorData::new(indices, [count]), &device);
        let [w1, b1, w2, b2] = weights.each_ref().map(|weight| {
            let shape = weight.shape();
            let one = B::float_slice(weight.clone(), &[Slice::from(expert..expert + 1)]);
            B::float_reshape(one, Shape::from(shape[1..].to_vec())) // without the axis of experts
        });
        let rows = B::float_select(x.clone(), 0, indices.clone());
        let out = linear::<B>(linear::<B>(rows, w1, b1, act), w2, b2, Activation::None);
        let column = [Slice::from(0..tokens), Slice::from(expert..expert + 1)];
        let gate = B::float_slice(gates.clone(), &column);
        let gate = B::float_select(gate, 0, indices.clone());
        let out = B::float_mul(out, gate);
        y = B::float_select_assign(y, 0, indices, out, IndexingUpdateOp::Add);
    }
    y
}

/// See [`crate::Backend::experts_above`]: the host reads the gates and sorts the tokens.
pub(crate) fn experts_above<B: crate::Backend>(
    x: FloatTensor<B>,
    gates: FloatTensor<B>,
    threshold: FloatTensor<B>,
    weights: [FloatTensor<B>; 4],
    act: Activation,
) -> FloatTensor<B> {
    let [_, experts] = dims::<B, 2>(&gates);
    let threshold = host_floats::<B>(threshold)[0];
    let mask: Vec<bool> = host_floats::<B>(gates.clone())
        .into_iter()
        .map(|score| reaches(score, threshold))
        .collect();
    let routes = Routes::of_mask(&mask, experts);
    let [w1, b1, w2, b2] = weights;
    B::grouped_experts(x, gates, w1, b1, w2, b2, routes, act)
}

/// `(x − mean) / √(variance + eps)` over the last axis of a matrix.
fn normalize<B: Backend>(x: FloatTensor<B>, eps: f64) -> FloatTensor<B> {
    let centered = B::float_sub(x.clone(), B::float_mean_dim(x, 1));
    let variance = B::float_mean_dim(B::float_mul(centered.clone(), centered.clone()), 1);
    B::float_div(
        centered,
        B::float_sqrt(B::float_add_scalar(variance, eps.into())),
    )
}

/// See [`crate::Backend::layer_norm_affine`].
pub(crate) fn layer_norm<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    eps: f64,
) -> FloatTensor<B> {
    let [d] = dims::<B, 1>(&weight);
    let y = B::float_mul(normalize::<B>(x, eps), reshape::<B, 2>(weight, [1, d]));
    B::float_add(y, reshape::<B, 2>(bias, [1, d]))
}

/// See [`crate::Backend::modulate`].
pub(crate) fn modulate<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    shift: FloatTensor<B>,
    scale: FloatTensor<B>,
    eps: f64,
) -> FloatTensor<B> {
    let y = layer_norm::<B>(x, weight, bias, eps);
    B::float_add(
        B::float_mul(y, B::float_add_scalar(scale, 1.0.into())),
        shift,
    )
}

/// See [`crate::Backend::part`].
pub(crate) fn part<B: Backend>(x: FloatTensor<B>, part: usize, parts: usize) -> FloatTensor<B> {
    let shape = x.shape();
    let mut slices: Vec<_> = shape.iter().map(|&size| Slice::from(0..size)).collect();
    let last = slices.last_mut().expect("a tensor with parts has an axis");
    let width = shape[shape.num_dims() - 1] / parts;
    *last = Slice::from(part * width..(part + 1) * width);
    B::float_slice(x, &slices)
}

/// See [`crate::Backend::attention_lse`] and, with dropout, [`crate::Backend::attention_dropped`].
pub(crate) fn attention<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    keep: Option<FloatTensor<B>>,
    mask: &Mask,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [batch, heads, queries, head_dim] = dims::<B, 4>(&q);
    if dims::<B, 4>(&k)[2] == 0 {
        let zeros = |shape| B::float_zeros(shape, &q.device(), q.dtype().into());
        let lse = zeros(Shape::from([batch, heads, queries]));
        let lse = B::float_add_scalar(lse, f32::NEG_INFINITY.into());
        return (zeros(Shape::from([batch, heads, queries, head_dim])), lse);
    }
    let v = over_heads::<B>(v, heads);
    let scores = scores::<B>(q, over_heads::<B>(k, heads), mask);
    // The maximum of a query that sees no key is −∞: clamped, so that every weight is 0 and not NaN.
    let max = B::float_clamp_min(
        B::float_max_dim(B::float_detach(scores.clone()), 3),
        f32::MIN.into(),
    );
    let weights = B::float_exp(B::float_sub(scores, max.clone()));
    let sum = B::float_sum_dim(weights.clone(), 3);
    let weights = match keep {
        Some(keep) => B::float_mul(weights, keep),
        None => weights,
    };
    // The sum is 0 or at least 1, the largest weight; a smaller bound would underflow when the backward pass squares
    // it.
    let out = B::float_div(
        B::float_matmul(weights, v),
        B::float_clamp_min(sum.clone(), 0.5.into()),
    );
    let lse = B::float_add(B::float_log(sum), max);
    (out, reshape::<B, 3>(lse, [batch, heads, queries]))
}

/// See [`crate::Backend::attention_gradients`].
pub(crate) fn attention_gradients<B: Backend>(
    [q, k, v]: [FloatTensor<B>; 3],
    g: FloatTensor<B>,
    lse: FloatTensor<B>,
    delta: FloatTensor<B>,
    mask: &Mask,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let ([batch, heads, queries, head_dim], kv_heads) = (dims::<B, 4>(&q), dims::<B, 4>(&k)[1]);
    if dims::<B, 4>(&k)[2] == 0 {
        let zeros = |x: &FloatTensor<B>| B::float_zeros(x.shape(), &x.device(), x.dtype().into());
        return (zeros(&q), zeros(&k), zeros(&v));
    }
    let scale = (head_dim as f32).powf(-0.5);
    let (k, v) = (over_heads::<B>(k, heads), over_heads::<B>(v, heads));
    let column = |x| reshape::<B, 4>(x, [batch, heads, queries, 1]);
    // −∞ of a query that sees no key, so that its weights are 0 and not NaN.
    let lse = B::float_clamp_min(column(lse), f32::MIN.into());
    let weights = B::float_exp(B::float_sub(scores::<B>(q.clone(), k.clone(), mask), lse));
    let v = B::float_swap_dims(v, 2, 3); // [batch, heads, head_dim, keys]
    let d_weights = B::float_matmul(g.clone(), v);
    let d_scores = B::float_mul(weights.clone(), B::float_sub(d_weights, column(delta)));
    let d_scores = B::float_mul_scalar(d_scores, scale.into());
    let weights = B::float_swap_dims(weights, 2, 3); // [batch, heads, keys, queries]
    let dv = B::float_matmul(weights, g);
    let transposed = B::float_swap_dims(d_scores.clone(), 2, 3); // [batch, heads, keys, queries]
    let dk = B::float_matmul(transposed, q);
    let shared = |x: FloatTensor<B>| {
        let keys = dims::<B, 4>(&x)[2];
        let x = reshape::<B, 5>(x, [batch, kv_heads, heads / kv_heads, keys, head_dim]);
        reshape::<B, 4>(B::float_sum_dim(x, 2), [batch, kv_heads, keys, head_dim])
    };
    (B::float_matmul(d_scores, k), shared(dk), shared(dv))
}

/// Scaled scores, −∞ where the mask hides a key.
fn scores<B: Backend>(q: FloatTensor<B>, k: FloatTensor<B>, mask: &Mask) -> FloatTensor<B> {
    let ([_, _, queries, head_dim], keys) = (dims::<B, 4>(&q), dims::<B, 4>(&k)[2]);
    let k = B::float_swap_dims(k, 2, 3); // [batch, heads, head_dim, keys]
    let scores = B::float_matmul(q, k);
    let scores = B::float_mul_scalar(scores, (head_dim as f32).powf(-0.5).into());
    if *mask == Mask::All {
        return scores;
    }
    let hidden = (0..queries).flat_map(|query| {
        let seen = mask.run(query, [queries, keys]);
        (0..keys).map(move |key| match seen.contains(&key) {
            true => 0.0,
            false => f32::NEG_INFINITY,
        })
    });
    let hidden = TensorData::new(hidden.collect::<Vec<f32>>(), [1, 1, queries, keys]);
    let hidden = hidden.convert_dtype(scores.dtype());
    count_upload();
    let hidden = B::float_from_data(hidden, &scores.device());
    B::float_add(scores, hidden)
}

/// Repeats keys or values for every query head.
fn over_heads<B: Backend>(x: FloatTensor<B>, heads: usize) -> FloatTensor<B> {
    let [batch, kv_heads, keys, head_dim] = dims::<B, 4>(&x);
    if kv_heads == heads {
        return x;
    }
    let x = reshape::<B, 5>(x, [batch, kv_heads, 1, keys, head_dim]);
    let x = B::float_expand(
        x,
        [batch, kv_heads, heads / kv_heads, keys, head_dim].into(),
    );
    reshape::<B, 4>(x, [batch, heads, keys, head_dim])
}

/// See [`crate::Backend::group_norm`].
pub(crate) fn group_norm<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    groups: usize,
    eps: f64,
    act: Activation,
) -> FloatTensor<B> {
    let [batch, channels, height, width] = dims::<B, 4>(&x);
    let rows = reshape::<B, 2>(x, [batch * groups, channels / groups * height * width]);
    let y = reshape::<B, 4>(normalize::<B>(rows, eps), [batch, channels, height, width]);
    let y = B::float_mul(y, reshape::<B, 4>(weight, [1, channels, 1, 1]));
    activation::<B>(
        B::float_add(y, reshape::<B, 4>(bias, [1, channels, 1, 1])),
        act,
    )
}

/// See [`crate::Backend::conv2d_padded`].
pub(crate) fn conv2d<B: Backend>(
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    b: FloatTensor<B>,
    stride: [usize; 2],
    [top, left, bottom, right]: [usize; 4],
) -> FloatTensor<B> {
    let mut options = ConvOptions::new(stride, [0, 0], [1, 1], 1);
    options.padding = [(top, bottom), (left, right)];
    B::conv2d(x, w, Some(b), options)
}

/// See [`crate::Backend::depthwise_clamped`].
pub(crate) fn depthwise<B: Backend>(
    [x, w, b]: [FloatTensor<B>; 3],
    stride: [usize; 2],
    [top, left, bottom, right]: [usize; 4],
    [low, high]: [f32; 2],
) -> FloatTensor<B> {
    let [_, channels, _, _] = dims::<B, 4>(&x);
    let mut options = ConvOptions::new(stride, [0, 0], [1, 1], channels);
    options.padding = [(top, bottom), (left, right)];
    let x = B::float_clamp(x, low.into(), high.into());
    B::float_clamp(B::conv2d(x, w, Some(b), options), low.into(), high.into())
}

/// See [`crate::Backend::upsample_nearest`].
pub(crate) fn upsample_nearest<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let [batch, channels, height, width] = dims::<B, 4>(&x);
    let x = reshape::<B, 6>(x, [batch, channels, height, 1, width, 1]);
    let x = B::float_expand(x, Shape::from([batch, channels, height, 2, width, 2]));
    reshape::<B, 4>(x, [batch, channels, 2 * height, 2 * width])
}

/// See [`crate::Backend::cross_entropy`].
pub(crate) fn cross_entropy<B: Backend>(
    logits: FloatTensor<B>,
    targets: IntTensor<B>,
) -> FloatTensor<B> {
    let [rows, _] = dims::<B, 2>(&logits);
    let targets = B::int_reshape(targets, Shape::from([rows, 1]));
    let picked = B::float_gather(1, B::log_softmax(logits, 1), targets);
    reshape::<B, 1>(B::float_neg(picked), [rows])
}

/// See [`crate::Backend::categorical`]. Classes whose weight equals that of the last one kept are kept too.
pub(crate) fn categorical<B: Backend>(
    logits: FloatTensor<B>,
    uniforms: FloatTensor<B>,
    sampling: Sampling,
) -> IntTensor<B> {
    let [rows, classes] = dims::<B, 2>(&logits);
    let flat = |drawn| B::int_reshape(drawn, Shape::from([rows]));
    if sampling.temperature == 0.0 {
        return flat(B::float_argmax(logits, 1, IntDType::I32));
    }
    let most = B::float_expand(
        B::float_max_dim(logits.clone(), 1),
        Shape::from([rows, classes]),
    );
    let below = B::float_sub(logits, most); // [rows, classes], 0 where likeliest
    let mut weights = B::softmax(
        B::float_mul_scalar(below, sampling.inverse_temperature().into()),
        1,
    );
    if let Some(threshold) = threshold::<B>(weights.clone(), sampling) {
        let dropped = B::float_lower(weights.clone(), threshold, BoolDType::Native);
        weights = B::float_mask_fill(weights, dropped, 0.0.into());
    }
    let below = B::float_cumsum(weights.clone(), 1);
    let target = B::float_mul(
        B::float_sum_dim(weights, 1),
        reshape::<B, 2>(uniforms, [rows, 1]),
    );
    let target = B::float_expand(target, Shape::from([rows, classes]));
    let passed = B::bool_into_int(
        B::float_lower_equal(below, target, BoolDType::Native),
        IntDType::I32,
    );
    flat(B::int_clamp(
        B::int_sum_dim(passed, 1),
        0.into(),
        (classes as i64 - 1).into(),
    ))
}

/// The smallest weight kept by `top_k` and `top_p`, `[rows, 1]`.
fn threshold<B: Backend>(weights: FloatTensor<B>, sampling: Sampling) -> Option<FloatTensor<B>> {
    let [rows, classes] = dims::<B, 2>(&weights);
    let top_k = if sampling.top_k == 0 {
        classes
    } else {
        sampling.top_k.min(classes)
    };
    if top_k == classes && sampling.top_p >= 1.0 {
        return None;
    }
    let likeliest = B::float_topk(weights, 1, top_k);
    let mass_before = B::float_sub(B::float_cumsum(likeliest.clone(), 1), likeliest.clone());
    let limit = B::float_mul_scalar(
        B::float_sum_dim(likeliest.clone(), 1),
        sampling.top_p.into(),
    );
    let limit = B::float_expand(limit, Shape::from([rows, top_k]));
    let mut dropped = B::float_greater_equal(mass_before, limit, BoolDType::Native);
    if sampling.top_p >= 1.0 {
        // Rounding in the running sum must not drop a class that top_k keeps.
        dropped = B::float_lower_elem(likeliest.clone(), 0.0.into(), BoolDType::Native);
    }
    Some(B::float_min_dim(
        B::float_mask_fill(likeliest, dropped, 1.0.into()),
        1,
    ))
}

/// See [`crate::Backend::adamw`].
pub(crate) fn adamw<B: Backend>(
    p: FloatTensor<B>,
    m: FloatTensor<B>,
    v: FloatTensor<B>,
    g: FloatTensor<B>,
    step: AdamWStep,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let g = B::float_mul_scalar(g, step.grad_scale.into());
    let blend = |old, new, beta: f64| {
        B::float_add(
            B::float_mul_scalar(old, beta.into()),
            B::float_mul_scalar(new, (1.0 - beta).into()),
        )
    };
    let m = blend(m, g.clone(), step.beta1);
    let v = blend(v, B::float_mul(g.clone(), g), step.beta2);
    let root = B::float_mul_scalar(
        B::float_sqrt(v.clone()),
        (1.0 / step.correction2().sqrt()).into(),
    );
    let update = B::float_div(m.clone(), B::float_add_scalar(root, step.eps.into()));
    let p = B::float_mul_scalar(p, (1.0 - step.lr * step.weight_decay).into());
    let p = B::float_sub(
        p,
        B::float_mul_scalar(update, (step.lr / step.correction1()).into()),
    );
    (p, m, v)
}
