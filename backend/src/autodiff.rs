//! Autodiff of the fused operations: one with a fused backward pass becomes a single node of the graph; without, its
//! portable body is differentiated operation by operation.

use crate::arguments::{Activation, CustomOp, Mask, PartGradients, Routes, Sampling};
use crate::backward::{
    AttentionSaved, ExpertsInputs, ExpertsSaved, GatedAddGradients, LinearInputs, LinearSaved,
    NormInputs,
};
use crate::extension::Backend;
use crate::fused::{Float, Fused};
use crate::portable;
use crate::precision::autocasting;
use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, NodeGuard, Ops, OpsKind},
};
use burn::backend::tensor::IntTensor;
use burn::backend::{Autodiff, AutodiffBackend, TensorMetadata};
use burn::tensor::{DType, Shape};
use std::fmt::{self, Debug};
use std::marker::PhantomData;
use std::sync::Arc;

/// A fused pass, if the backend has it and the tensor is f32, which the kernels are written for.
fn applying<B: Fused, C: CheckpointStrategy, T>(
    pass: Option<T>,
    x: &Float<Autodiff<B, C>>,
) -> Option<T> {
    pass.filter(|_| x.dtype() == DType::F32)
}

/// What an operation saves for its backward pass.
trait Saved: Clone + Send + Debug + 'static {}
impl<T: Clone + Send + Debug + 'static> Saved for T {}

/// A node of the graph. Its function maps what was saved, the gradient of the output and which inputs need a gradient
/// to the gradients of the inputs.
struct Node<S, F>(F, PhantomData<fn(S)>);

impl<S, F> Debug for Node<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<F>())
    }
}

impl<B, S, F, const N: usize> Backward<B, N> for Node<S, F>
where
    B: Fused,
    S: Saved,
    F: FnOnce(S, Float<B>, [bool; N]) -> [Option<Float<B>>; N] + Send + 'static,
{
    type State = S;

    fn backward(self, ops: Ops<S, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = grads.consume::<B>(&ops.node);
        let needs_grad = ops.parents.each_ref().map(Option::is_some);
        let values = (self.0)(ops.state, g, needs_grad);
        for (parent, value) in ops.parents.into_iter().zip(values) {
            if let (Some(parent), Some(value)) = (parent, value) {
                grads.register::<B>(parent.id, value);
            }
        }
    }
}

/// Runs an operation as a node: `plain` computes the output alone, `training` also what `backward` needs.
fn node<B: Fused, C: CheckpointStrategy, S: Saved, const N: usize>(
    inputs: [Float<Autodiff<B, C>>; N],
    plain: impl FnOnce([Float<B>; N]) -> Float<B>,
    training: impl FnOnce([Float<B>; N]) -> (S, Float<B>),
    backward: impl FnOnce(S, Float<B>, [bool; N]) -> [Option<Float<B>>; N] + Send + 'static,
) -> Float<Autodiff<B, C>> {
    let guards = inputs.each_ref().map(|input| input.node());
    match Node(backward, PhantomData)
        .prepare::<C>(guards)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => {
            let (saved, out) = training(inputs.map(|input| input.primitive().clone()));
            prep.finish(saved, out)
        }
        OpsKind::UnTracked(prep) => prep.finish(plain(inputs.map(|input| input.into_primitive()))),
    }
}

/// The node of an operation that has run already.
fn done<B: Fused, C: CheckpointStrategy, S: Saved, const N: usize>(
    guards: [NodeGuard; N],
    (saved, out): (S, Float<B>),
    backward: impl FnOnce(S, Float<B>, [bool; N]) -> [Option<Float<B>>; N] + Send + 'static,
) -> Float<Autodiff<B, C>> {
    match Node(backward, PhantomData)
        .prepare::<C>(guards)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish(saved, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}

/// The node of a custom operation.
fn custom<B: Fused, C: CheckpointStrategy, const N: usize>(
    inputs: [Float<Autodiff<B, C>>; N],
    op: Arc<dyn CustomOp>,
) -> Float<Autodiff<B, C>> {
    let guards = inputs.each_ref().map(|input| input.node());
    let tensors = inputs.map(|input| B::into_tensor(input.into_primitive()));
    let (out, saved) = op.forward(tensors.into());
    let saved: Vec<_> = saved.into_iter().map(B::from_tensor).collect();
    let backward = move |saved: Vec<Float<B>>, g, _| {
        let saved = saved.into_iter().map(B::into_tensor).collect();
        let gradients = op.backward(saved, B::into_tensor(g));
        let mut gradients = gradients.into_iter().map(B::from_tensor);
        std::array::from_fn(|_| gradients.next())
    };
    done::<B, C, _, N>(guards, (saved, B::from_tensor(out)), backward)
}

/// The node of an attention, and its log-sum-exp, which has no gradient.
fn attended<B: Fused, C: CheckpointStrategy>(
    inputs: [Float<Autodiff<B, C>>; 3],
    forward: impl FnOnce([Float<B>; 3]) -> (Float<B>, Float<B>),
    backward: impl FnOnce(AttentionSaved<Float<B>>, Float<B>) -> [Float<B>; 3] + Send + 'static,
) -> [Float<Autodiff<B, C>>; 2] {
    let guards = inputs.each_ref().map(|input| input.node());
    let [q, k, v] = inputs.map(|input| input.into_primitive());
    let (out, lse) = forward([q.clone(), k.clone(), v.clone()]);
    let saved = AttentionSaved {
        q,
        k,
        v,
        out: out.clone(),
        lse: lse.clone(),
        precision: autocasting(),
    };
    let backward = move |saved, g, _: [bool; 3]| backward(saved, g).map(Some);
    [
        done::<B, C, _, 3>(guards, (saved, out), backward),
        <Autodiff<B, C> as AutodiffBackend>::from_inner(lse),
    ]
}

/// The node of a tensor that is used in parts: it has no gradient of its own, but those of its parts. To add them up,
/// each filled with zeros, would take several times as long as computing them.
#[derive(Debug)]
struct Whole;

impl<B: Fused> Backward<B, 1> for Whole {
    type State = (Shape, PartGradients);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let ([Some(parent)], (shape, gradients)) = (ops.parents, ops.state) else {
            return;
        };
        let parts = gradients.take();
        let last = shape.num_dims() - 1;
        let mut of_a_part = shape.clone();
        of_a_part[last] /= parts.len();
        let known = parts.iter().flatten().next().cloned();
        let known = B::from_tensor(known.expect("a part led here"));
        let gradients = parts.into_iter().map(|part| match part {
            Some(part) => B::from_tensor(part),
            None => B::float_zeros(of_a_part.clone(), &known.device(), known.dtype().into()),
        });
        grads.register::<B>(parent.id, B::float_cat(gradients.collect(), last));
    }
}

impl<B: Fused, C: CheckpointStrategy> Backend for Autodiff<B, C> {
    fn activation(x: Float<Self>, act: Activation) -> Float<Self> {
        let Some(backward) = applying::<B, C, _>(B::ACTIVATION, &x) else {
            return portable::activation::<Self>(x, act);
        };
        node::<B, C, _, 1>(
            [x],
            |[x]| B::activation(x, act),
            |[x]| (x.clone(), B::activation(x, act)),
            move |x, g, _| [Some(backward(x, g, act))],
        )
    }

    fn whole(x: Float<Self>, gradients: PartGradients) -> Float<Self> {
        let preparation = Whole.prepare::<C>([x.node()]).compute_bound().stateful();
        let x = x.into_primitive();
        match preparation {
            OpsKind::Tracked(prep) => prep.finish((x.shape(), gradients), x),
            OpsKind::UnTracked(prep) => prep.finish(x),
        }
    }

    fn part(x: Float<Self>, part: usize, gradients: PartGradients) -> Float<Self> {
        let count = gradients.count();
        node::<B, C, _, 1>(
            [x],
            |[x]| portable::part::<B>(x, part, count),
            |[x]| ((), portable::part::<B>(x, part, count)),
            move |(), g, _| {
                gradients.put(part, B::into_tensor(g));
                [None]
            },
        )
    }

    fn repeat_rows(x: Float<Self>, rows: usize) -> Float<Self> {
        node::<B, C, _, 1>(
            [x],
            |[x]| B::repeat_rows(x, rows),
            |[x]| ((), B::repeat_rows(x, rows)),
            |(), g, _| [Some(B::sum_rows(g))],
        )
    }

    fn sum_rows(x: Float<Self>) -> Float<Self> {
        let rows = x.shape()[1];
        node::<B, C, _, 1>(
            [x],
            |[x]| B::sum_rows(x),
            |[x]| ((), B::sum_rows(x)),
            move |(), g, _| [Some(B::repeat_rows(g, rows))],
        )
    }

    fn sum(x: Float<Self>) -> Float<Self> {
        let shape = x.shape();
        let backward = move |(), g, _| {
            let one = Shape::from(vec![1; shape.num_dims()]);
            [Some(B::float_expand(B::float_reshape(g, one), shape))]
        };
        node::<B, C, _, 1>([x], |[x]| B::sum(x), |[x]| ((), B::sum(x)), backward)
    }

    fn reshaped(x: Float<Self>, shape: Shape) -> Float<Self> {
        let (before, after) = (x.shape(), shape.clone());
        node::<B, C, _, 1>(
            [x],
            |[x]| B::reshaped(x, shape),
            |[x]| ((), B::reshaped(x, after)),
            move |(), g, _| [Some(B::reshaped(g, before))],
        )
    }

    fn residual(x: Float<Self>, y: Float<Self>) -> Float<Self> {
        node::<B, C, _, 2>(
            [x, y],
            |[x, y]| B::residual(x, y),
            |[x, y]| ((), B::residual(x, y)),
            |(), g, _| [Some(g.clone()), Some(g)],
        )
    }

    fn dropped(x: Float<Self>, keep: Float<Self>) -> Float<Self> {
        let keep = keep.into_primitive();
        let kept = keep.clone();
        node::<B, C, _, 1>(
            [x],
            |[x]| B::dropped(x, kept.clone()),
            |[x]| ((), B::dropped(x, kept.clone())),
            move |(), g, _| [Some(B::dropped(g, keep))],
        )
    }

    fn gated_add(x: Float<Self>, gate: Float<Self>, y: Float<Self>) -> Float<Self> {
        let Some(backward) = applying::<B, C, _>(B::GATED_ADD, &x) else {
            return portable::gated_add::<Self>(x, gate, y);
        };
        node::<B, C, _, 3>(
            [x, gate, y],
            |[x, gate, y]| B::gated_add(x, gate, y),
            |[x, gate, y]| ((gate.clone(), y.clone()), B::gated_add(x, gate, y)),
            move |(gate, y), g, _| {
                let GatedAddGradients { gate, y } = backward(gate, y, g.clone());
                [Some(g), Some(gate), Some(y)]
            },
        )
    }

    fn linear_act(x: Float<Self>, w: Float<Self>, b: Float<Self>, act: Activation) -> Float<Self> {
        let Some(passes) = applying::<B, C, _>(B::LINEAR, &x) else {
            return portable::linear::<Self>(x, w, b, act);
        };
        node::<B, C, _, 3>(
            [x, w, b],
            |[x, w, b]| B::linear_act(x, w, b, act),
            |[x, w, b]| {
                let (y, z) = (passes.forward_with_saved)(x.clone(), w.clone(), b, act);
                let precision = autocasting();
                (LinearSaved { x, w, z, precision }, y)
            },
            move |saved, g, needs_grad| {
                let needs_grad = LinearInputs::new(needs_grad);
                (passes.backward)(saved, g, act, needs_grad).into_array()
            },
        )
    }

    fn layer_norm_affine(
        x: Float<Self>,
        weight: Float<Self>,
        bias: Float<Self>,
        eps: f64,
    ) -> Float<Self> {
        let Some(backward) = applying::<B, C, _>(B::LAYER_NORM, &x) else {
            return portable::layer_norm::<Self>(x, weight, bias, eps);
        };
        node::<B, C, _, 3>(
            [x, weight, bias],
            |[x, weight, bias]| B::layer_norm_affine(x, weight, bias, eps),
            |[x, weight, bias]| {
                let y = B::layer_norm_affine(x.clone(), weight.clone(), bias.clone(), eps);
                (NormInputs { x, weight, bias }, y)
            },
            move |saved, g, _| backward(saved, None, eps, g).0.into_array().map(Some),
        )
    }

    fn modulate(
        x: Float<Self>,
        weight: Float<Self>,
        bias: Float<Self>,
        shift: Float<Self>,
        scale: Float<Self>,
        eps: f64,
    ) -> Float<Self> {
        let Some(backward) = applying::<B, C, _>(B::LAYER_NORM, &x) else {
            return portable::modulate::<Self>(x, weight, bias, shift, scale, eps);
        };
        node::<B, C, _, 5>(
            [x, weight, bias, shift, scale],
            |[x, weight, bias, shift, scale]| B::modulate(x, weight, bias, shift, scale, eps),
            |[x, weight, bias, shift, scale]| {
                let saved = NormInputs {
                    x: x.clone(),
                    weight: weight.clone(),
                    bias: bias.clone(),
                };
                let y = B::modulate(x, weight, bias, shift, scale.clone(), eps);
                ((saved, scale), y)
            },
            move |(saved, scale), g, _| {
                let (norm, scale) = backward(saved, Some(scale), eps, g.clone());
                let [x, weight, bias] = norm.into_array().map(Some);
                [x, weight, bias, Some(g), scale]
            },
        )
    }

    fn attention_lse(
        q: Float<Self>,
        k: Float<Self>,
        v: Float<Self>,
        mask: Mask,
    ) -> (Float<Self>, Float<Self>) {
        let Some(backward) = applying::<B, C, _>(B::ATTENTION, &q) else {
            return portable::attention::<Self>(q, k, v, None, &mask);
        };
        let for_backward = mask.clone();
        attended::<B, C>(
            [q, k, v],
            |[q, k, v]| B::attention_lse(q, k, v, mask),
            move |saved, g| backward(saved, g, &for_backward),
        )
        .into()
    }

    fn attention_dropped(
        q: Float<Self>,
        k: Float<Self>,
        v: Float<Self>,
        keep: Float<Self>,
        mask: Mask,
    ) -> (Float<Self>, Float<Self>) {
        let Some(backward) = applying::<B, C, _>(B::ATTENTION_DROPPED, &q) else {
            return portable::attention::<Self>(q, k, v, Some(keep), &mask);
        };
        let (keep, for_backward) = (keep.into_primitive(), mask.clone());
        let kept = keep.clone();
        attended::<B, C>(
            [q, k, v],
            |[q, k, v]| B::attention_dropped(q, k, v, keep, mask),
            move |saved, g| backward(saved, kept, g, &for_backward),
        )
        .into()
    }

    fn group_norm(
        x: Float<Self>,
        weight: Float<Self>,
        bias: Float<Self>,
        groups: usize,
        eps: f64,
        act: Activation,
    ) -> Float<Self> {
        let Some(backward) = applying::<B, C, _>(B::GROUP_NORM, &x) else {
            return portable::group_norm::<Self>(x, weight, bias, groups, eps, act);
        };
        node::<B, C, _, 3>(
            [x, weight, bias],
            |[x, weight, bias]| B::group_norm(x, weight, bias, groups, eps, act),
            |[x, weight, bias]| {
                let y = B::group_norm(x.clone(), weight.clone(), bias.clone(), groups, eps, act);
                (NormInputs { x, weight, bias }, y)
            },
            move |saved, g, _| backward(saved, groups, eps, act, g).into_array().map(Some),
        )
    }

    fn conv2d_padded(
        x: Float<Self>,
        w: Float<Self>,
        b: Float<Self>,
        stride: [usize; 2],
        padding: [usize; 4],
    ) -> Float<Self> {
        let Some(backward) = applying::<B, C, _>(B::CONV2D, &x) else {
            return portable::conv2d::<Self>(x, w, b, stride, padding);
        };
        node::<B, C, _, 3>(
            [x, w, b],
            |[x, w, b]| B::conv2d_padded(x, w, b, stride, padding),
            |[x, w, b]| {
                let y = B::conv2d_padded(x.clone(), w.clone(), b, stride, padding);
                ((x, w), y)
            },
            move |(x, w), g, needs_grad| {
                let needs_grad = LinearInputs::new(needs_grad);
                backward(x, w, g, stride, padding, needs_grad).into_array()
            },
        )
    }

    fn upsample_nearest(x: Float<Self>) -> Float<Self> {
        let Some(backward) = applying::<B, C, _>(B::UPSAMPLE, &x) else {
            return portable::upsample_nearest::<Self>(x);
        };
        node::<B, C, _, 1>(
            [x],
            |[x]| B::upsample_nearest(x),
            |[x]| ((), B::upsample_nearest(x)),
            move |(), g, _| [Some(backward(g))],
        )
    }

    fn grouped_experts(
        x: Float<Self>,
        gates: Float<Self>,
        w1: Float<Self>,
        b1: Float<Self>,
        w2: Float<Self>,
        b2: Float<Self>,
        routes: Routes,
        act: Activation,
    ) -> Float<Self> {
        let f32s = [&x, &gates, &w1, &b1, &w2, &b2].map(|input| input.dtype() == DType::F32);
        let Some(passes) = B::EXPERTS.filter(|_| !f32s.contains(&false)) else {
            return portable::experts::<Self>(x, gates, [w1, b1, w2, b2], &routes, act);
        };
        let (forward_routes, training_routes) = (routes.clone(), routes.clone());
        node::<B, C, _, 6>(
            [x, gates, w1, b1, w2, b2],
            |[x, gates, w1, b1, w2, b2]| {
                B::grouped_experts(x, gates, w1, b1, w2, b2, forward_routes, act)
            },
            |[x, gates, w1, b1, w2, b2]| {
                let weights = [w1.clone(), b1, w2.clone(), b2.clone()];
                let (x_in, gates_in) = (x.clone(), gates.clone());
                let (y, z) =
                    (passes.forward_with_saved)(x_in, gates_in, weights, &training_routes, act);
                let saved = ExpertsSaved {
                    x,
                    gates,
                    w1,
                    w2,
                    b2,
                    z,
                };
                (saved, y)
            },
            move |saved, g, needs_grad| {
                let needs_grad = ExpertsInputs::new(needs_grad);
                (passes.backward)(saved, g, &routes, act, needs_grad).into_array()
            },
        )
    }

    fn cross_entropy(logits: Float<Self>, targets: IntTensor<Self>) -> Float<Self> {
        let Some(backward) = applying::<B, C, _>(B::CROSS_ENTROPY, &logits) else {
            return portable::cross_entropy::<Self>(logits, targets);
        };
        let saved_targets = targets.clone();
        node::<B, C, _, 1>(
            [logits],
            |[logits]| B::cross_entropy(logits, targets),
            |[logits]| {
                let loss = B::cross_entropy(logits.clone(), saved_targets.clone());
                ((logits, saved_targets), loss)
            },
            move |(logits, targets), g, _| [Some(backward(logits, targets, g))],
        )
    }

    fn custom_op(x: Float<Self>, op: Arc<dyn CustomOp>) -> Float<Self> {
        custom::<B, C, 1>([x], op)
    }

    fn custom_op_3(
        a: Float<Self>,
        b: Float<Self>,
        c: Float<Self>,
        op: Arc<dyn CustomOp>,
    ) -> Float<Self> {
        custom::<B, C, 3>([a, b, c], op)
    }

    fn categorical(
        logits: Float<Self>,
        uniforms: Float<Self>,
        sampling: Sampling,
    ) -> IntTensor<Self> {
        B::categorical(logits.into_primitive(), uniforms.into_primitive(), sampling)
    }
}
