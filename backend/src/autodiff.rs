//! Backward passes: an operation with a fused one becomes a node of the graph; on any other backend the portable
//! body is differentiated operation by operation.

use crate::extension::Backend;
use crate::fused::{Float, Fused, Op};
use crate::ops::{Activation, Mask, Outside, Routes};
use crate::portable;
use burn::backend::autodiff::{
    NodeId,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::tensor::IntTensor;
use burn::backend::{Autodiff, TensorMetadata};
use burn::tensor::{DType, Shape};
use std::sync::Arc;

/// Whether the fused node applies: the kernels are written for f32.
fn fused<B: Fused, C: CheckpointStrategy>(op: Op, x: &Float<Autodiff<B, C>>) -> bool {
    B::fused(op) && x.dtype() == DType::F32
}

fn register<B: burn::backend::Backend, const N: usize>(
    parents: [Option<NodeId>; N],
    grads: &mut Gradients,
    values: [Option<Float<B>>; N],
) {
    for (parent, value) in parents.into_iter().zip(values) {
        if let (Some(parent), Some(value)) = (parent, value) {
            grads.register::<B>(parent, value);
        }
    }
}

/// The identities of the parents that want a gradient.
macro_rules! ids {
    ($ops:expr) => {
        $ops.parents.map(|parent| parent.map(|node| node.id))
    };
}

/// Runs a node: `$tracked` computes the output and what the backward pass keeps, `$plain` the output alone.
macro_rules! node {
    ($op:expr, [$($x:ident),+], $strategy:ty, $plain:expr, $tracked:expr) => {
        match $op.prepare::<$strategy>([$($x.node()),+]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                $(let $x = $x.primitive().clone();)+
                let (state, out) = $tracked;
                prep.finish(state, out)
            }
            OpsKind::UnTracked(prep) => {
                $(let $x = $x.into_primitive();)+
                prep.finish($plain)
            }
        }
    };
}

#[derive(Debug)]
struct ActivationOp(Activation);
impl<B: Fused> Backward<B, 1> for ActivationOp {
    type State = Float<B>;
    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = grads.consume::<B>(&ops.node);
        let parents = ids!(ops);
        register::<B, 1>(
            parents,
            grads,
            [Some(B::activation_backward(ops.state, g, self.0))],
        );
    }
}

#[derive(Debug)]
struct RepeatRowsOp;
impl<B: Fused> Backward<B, 1> for RepeatRowsOp {
    type State = ();
    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = grads.consume::<B>(&ops.node);
        let parents = ids!(ops);
        register::<B, 1>(parents, grads, [Some(B::sum_rows(g))]);
    }
}

#[derive(Debug)]
struct SumOp(Shape);
impl<B: Fused> Backward<B, 1> for SumOp {
    type State = ();
    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = grads.consume::<B>(&ops.node);
        let parents = ids!(ops);
        let one = Shape::from(vec![1; self.0.num_dims()]);
        let g = B::float_expand(B::float_reshape(g, one), self.0);
        register::<B, 1>(parents, grads, [Some(g)]);
    }
}

#[derive(Debug)]
struct ReshapeOp(Shape);
impl<B: Fused> Backward<B, 1> for ReshapeOp {
    type State = ();
    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = grads.consume::<B>(&ops.node);
        let parents = ids!(ops);
        register::<B, 1>(parents, grads, [Some(B::reshaped(g, self.0))]);
    }
}

#[derive(Debug)]
struct ResidualOp;
impl<B: Fused> Backward<B, 2> for ResidualOp {
    type State = ();
    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = grads.consume::<B>(&ops.node);
        let parents = ids!(ops);
        register::<B, 2>(parents, grads, [Some(g.clone()), Some(g)]);
    }
}

#[derive(Debug)]
struct GatedAddOp;
impl<B: Fused> Backward<B, 3> for GatedAddOp {
    type State = (Float<B>, Float<B>);
    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = grads.consume::<B>(&ops.node);
        let parents = ids!(ops);
        let (gate, y) = ops.state;
        let [d_gate, dy] = B::gated_add_backward(gate, y, g.clone());
        register::<B, 3>(parents, grads, [Some(g), Some(d_gate), Some(dy)]);
    }
}

#[derive(Debug)]
struct LinearOp(Activation);
impl<B: Fused> Backward<B, 3> for LinearOp {
    type State = (Float<B>, Float<B>, Option<Float<B>>);
    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = grads.consume::<B>(&ops.node);
        let parents = ids!(ops);
        let (x, w, z) = ops.state;
        let wanted = std::array::from_fn(|i| parents[i].is_some());
        register::<B, 3>(
            parents,
            grads,
            B::linear_backward(x, w, z, g, self.0, wanted),
        );
    }
}

#[derive(Debug)]
struct LayerNormOp(f64);
impl<B: Fused> Backward<B, 3> for LayerNormOp {
    type State = (Float<B>, [Float<B>; 2]);
    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = grads.consume::<B>(&ops.node);
        let parents = ids!(ops);
        let (x, affine) = ops.state;
        let ([dx, dw, db], _) = B::layer_norm_backward(x, affine, None, self.0, g);
        register::<B, 3>(parents, grads, [Some(dx), Some(dw), Some(db)]);
    }
}

#[derive(Debug)]
struct ModulateOp(f64);
impl<B: Fused> Backward<B, 5> for ModulateOp {
    type State = (Float<B>, [Float<B>; 2], Float<B>);
    fn backward(self, ops: Ops<Self::State, 5>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = grads.consume::<B>(&ops.node);
        let parents = ids!(ops);
        let (x, affine, scale) = ops.state;
        let ([dx, dw, db], d_scale) =
            B::layer_norm_backward(x, affine, Some(scale), self.0, g.clone());
        register::<B, 5>(
            parents,
            grads,
            [Some(dx), Some(dw), Some(db), Some(g), d_scale],
        );
    }
}

#[derive(Debug)]
struct AttentionOp(Mask);
impl<B: Fused> Backward<B, 3> for AttentionOp {
    type State = [Float<B>; 5];
    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = grads.consume::<B>(&ops.node);
        let parents = ids!(ops);
        register::<B, 3>(
            parents,
            grads,
            B::attention_backward(ops.state, g, &self.0).map(Some),
        );
    }
}

#[derive(Debug)]
struct OutsideOp<const N: usize>(Arc<dyn Outside>);
impl<B: Fused, const N: usize> Backward<B, N> for OutsideOp<N> {
    type State = Vec<Float<B>>;
    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = grads.consume::<B>(&ops.node);
        let parents = ids!(ops);
        let saved = ops.state.into_iter().map(B::into_tensor).collect();
        let values = self.0.backward(saved, B::into_tensor(g));
        let mut values = values.into_iter().map(B::from_tensor);
        register::<B, N>(parents, grads, std::array::from_fn(|_| values.next()));
    }
}

/// The node of an operation from outside.
fn outside<B: Fused, C: CheckpointStrategy, const N: usize>(
    inputs: [Float<Autodiff<B, C>>; N],
    op: Arc<dyn Outside>,
) -> Float<Autodiff<B, C>> {
    let nodes = inputs.each_ref().map(|input| input.node());
    let tensors = inputs.map(|input| B::into_tensor(input.into_primitive()));
    let (out, saved) = op.forward(tensors.into());
    let out = B::from_tensor(out);
    match OutsideOp::<N>(op)
        .prepare::<C>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish(saved.into_iter().map(B::from_tensor).collect(), out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}

#[derive(Debug)]
struct GroupNormOp(usize, f64, Activation);
impl<B: Fused> Backward<B, 3> for GroupNormOp {
    type State = (Float<B>, [Float<B>; 2]);
    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = grads.consume::<B>(&ops.node);
        let parents = ids!(ops);
        let (x, affine) = ops.state;
        let values = B::group_norm_backward(x, affine, self.0, self.1, self.2, g);
        register::<B, 3>(parents, grads, values.map(Some));
    }
}

#[derive(Debug)]
struct Conv2dOp([usize; 2], [usize; 4]);
impl<B: Fused> Backward<B, 3> for Conv2dOp {
    type State = (Float<B>, Float<B>);
    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = grads.consume::<B>(&ops.node);
        let parents = ids!(ops);
        let (x, w) = ops.state;
        let wanted = std::array::from_fn(|i| parents[i].is_some());
        register::<B, 3>(
            parents,
            grads,
            B::conv2d_backward(x, w, g, self.0, self.1, wanted),
        );
    }
}

#[derive(Debug)]
struct UpsampleOp;
impl<B: Fused> Backward<B, 1> for UpsampleOp {
    type State = ();
    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = grads.consume::<B>(&ops.node);
        let parents = ids!(ops);
        register::<B, 1>(parents, grads, [Some(B::upsample_nearest_backward(g))]);
    }
}

#[derive(Debug)]
struct GroupedExpertsOp(Routes, Activation);
impl<B: Fused> Backward<B, 6> for GroupedExpertsOp {
    type State = [Float<B>; 6];
    fn backward(self, ops: Ops<Self::State, 6>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = grads.consume::<B>(&ops.node);
        let parents = ids!(ops);
        let wanted = parents.map(|parent| parent.is_some());
        register::<B, 6>(
            parents,
            grads,
            B::grouped_experts_backward(ops.state, g, &self.0, self.1, wanted),
        );
    }
}

#[derive(Debug)]
struct CrossEntropyOp;
impl<B: Fused> Backward<B, 1> for CrossEntropyOp {
    type State = (Float<B>, IntTensor<B>);
    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = grads.consume::<B>(&ops.node);
        let parents = ids!(ops);
        let (logits, targets) = ops.state;
        register::<B, 1>(
            parents,
            grads,
            [Some(B::cross_entropy_backward(logits, targets, g))],
        );
    }
}

impl<B: Fused, C: CheckpointStrategy> Backend for Autodiff<B, C> {
    fn activation(x: Float<Self>, act: Activation) -> Float<Self> {
        if !fused::<B, C>(Op::Activation, &x) {
            return portable::activation::<Self>(x, act);
        }
        node!(
            ActivationOp(act),
            [x],
            C,
            B::activation(x, act),
            (x.clone(), B::activation(x, act))
        )
    }

    fn repeat_rows(x: Float<Self>, rows: usize) -> Float<Self> {
        node!(
            RepeatRowsOp,
            [x],
            C,
            B::repeat_rows(x, rows),
            ((), B::repeat_rows(x, rows))
        )
    }

    fn sum(x: Float<Self>) -> Float<Self> {
        node!(SumOp(x.shape()), [x], C, B::sum(x), ((), B::sum(x)))
    }

    fn reshaped(x: Float<Self>, shape: Shape) -> Float<Self> {
        node!(
            ReshapeOp(x.shape()),
            [x],
            C,
            B::reshaped(x, shape),
            ((), B::reshaped(x, shape))
        )
    }

    fn residual(x: Float<Self>, y: Float<Self>) -> Float<Self> {
        node!(
            ResidualOp,
            [x, y],
            C,
            B::residual(x, y),
            ((), B::residual(x, y))
        )
    }

    fn gated_add(x: Float<Self>, gate: Float<Self>, y: Float<Self>) -> Float<Self> {
        if !fused::<B, C>(Op::GatedAdd, &x) {
            return portable::gated_add::<Self>(x, gate, y);
        }
        node!(
            GatedAddOp,
            [x, gate, y],
            C,
            B::gated_add(x, gate, y),
            ((gate.clone(), y.clone()), B::gated_add(x, gate, y))
        )
    }

    fn linear_act(x: Float<Self>, w: Float<Self>, b: Float<Self>, act: Activation) -> Float<Self> {
        if !fused::<B, C>(Op::Linear, &x) {
            return portable::linear::<Self>(x, w, b, act);
        }
        node!(LinearOp(act), [x, w, b], C, B::linear_act(x, w, b, act), {
            let (y, z) = B::linear_keep(x.clone(), w.clone(), b, act);
            ((x, w, z), y)
        })
    }

    fn layer_norm_affine(
        x: Float<Self>,
        weight: Float<Self>,
        bias: Float<Self>,
        eps: f64,
    ) -> Float<Self> {
        if !fused::<B, C>(Op::LayerNorm, &x) {
            return portable::layer_norm::<Self>(x, weight, bias, eps);
        }
        node!(
            LayerNormOp(eps),
            [x, weight, bias],
            C,
            B::layer_norm_affine(x, weight, bias, eps),
            {
                let y = B::layer_norm_affine(x.clone(), weight.clone(), bias.clone(), eps);
                ((x, [weight, bias]), y)
            }
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
        if !fused::<B, C>(Op::LayerNorm, &x) {
            return portable::modulate::<Self>(x, weight, bias, shift, scale, eps);
        }
        node!(
            ModulateOp(eps),
            [x, weight, bias, shift, scale],
            C,
            B::modulate(x, weight, bias, shift, scale, eps),
            {
                let y = B::modulate(
                    x.clone(),
                    weight.clone(),
                    bias.clone(),
                    shift,
                    scale.clone(),
                    eps,
                );
                ((x, [weight, bias], scale), y)
            }
        )
    }

    fn attention_lse(
        q: Float<Self>,
        k: Float<Self>,
        v: Float<Self>,
        mask: Mask,
    ) -> (Float<Self>, Float<Self>) {
        if !fused::<B, C>(Op::Attention, &q) {
            return portable::attention::<Self>(q, k, v, &mask);
        }
        let kept;
        let out = node!(
            AttentionOp(mask.clone()),
            [q, k, v],
            C,
            {
                let (out, lse) = B::attention_lse(q, k, v, mask);
                kept = lse;
                out
            },
            {
                let (out, lse) = B::attention_lse(q.clone(), k.clone(), v.clone(), mask);
                kept = lse.clone();
                ([q, k, v, out.clone(), lse], out)
            }
        );
        (
            out,
            <Self as burn::backend::AutodiffBackend>::from_inner(kept),
        )
    }

    fn group_norm(
        x: Float<Self>,
        weight: Float<Self>,
        bias: Float<Self>,
        groups: usize,
        eps: f64,
        act: Activation,
    ) -> Float<Self> {
        if !fused::<B, C>(Op::GroupNorm, &x) {
            return portable::group_norm::<Self>(x, weight, bias, groups, eps, act);
        }
        node!(
            GroupNormOp(groups, eps, act),
            [x, weight, bias],
            C,
            B::group_norm(x, weight, bias, groups, eps, act),
            {
                let y = B::group_norm(x.clone(), weight.clone(), bias.clone(), groups, eps, act);
                ((x, [weight, bias]), y)
            }
        )
    }

    fn conv2d_padded(
        x: Float<Self>,
        w: Float<Self>,
        b: Float<Self>,
        stride: [usize; 2],
        padding: [usize; 4],
    ) -> Float<Self> {
        if !fused::<B, C>(Op::Conv2d, &x) {
            return portable::conv2d::<Self>(x, w, b, stride, padding);
        }
        node!(
            Conv2dOp(stride, padding),
            [x, w, b],
            C,
            B::conv2d_padded(x, w, b, stride, padding),
            {
                let y = B::conv2d_padded(x.clone(), w.clone(), b, stride, padding);
                ((x, w), y)
            }
        )
    }

    fn upsample_nearest(x: Float<Self>) -> Float<Self> {
        if !fused::<B, C>(Op::Upsample, &x) {
            return portable::upsample_nearest::<Self>(x);
        }
        node!(
            UpsampleOp,
            [x],
            C,
            B::upsample_nearest(x),
            ((), B::upsample_nearest(x))
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
        if ![&x, &gates, &w1, &b1, &w2, &b2]
            .into_iter()
            .all(|x| fused::<B, C>(Op::Experts, x))
        {
            return portable::experts::<Self>(x, gates, [w1, b1, w2, b2], &routes, act);
        }
        node!(
            GroupedExpertsOp(routes.clone(), act),
            [x, gates, w1, b1, w2, b2],
            C,
            B::grouped_experts(x, gates, w1, b1, w2, b2, routes, act),
            {
                let weights = [w1.clone(), b1, w2.clone(), b2.clone()];
                let (y, z) =
                    B::grouped_experts_keep(x.clone(), gates.clone(), weights, &routes, act);
                ([x, gates, w1, w2, b2, z], y)
            }
        )
    }

    fn cross_entropy(logits: Float<Self>, targets: IntTensor<Self>) -> Float<Self> {
        if !fused::<B, C>(Op::CrossEntropy, &logits) {
            return portable::cross_entropy::<Self>(logits, targets);
        }
        node!(
            CrossEntropyOp,
            [logits],
            C,
            B::cross_entropy(logits, targets),
            {
                let loss = B::cross_entropy(logits.clone(), targets.clone());
                ((logits, targets), loss)
            }
        )
    }

    fn outside(x: Float<Self>, op: Arc<dyn Outside>) -> Float<Self> {
        outside::<B, C, 1>([x], op)
    }

    fn outside_3(
        a: Float<Self>,
        b: Float<Self>,
        c: Float<Self>,
        op: Arc<dyn Outside>,
    ) -> Float<Self> {
        outside::<B, C, 3>([a, b, c], op)
    }

    fn categorical(
        logits: Float<Self>,
        uniforms: Float<Self>,
        sampling: crate::ops::Sampling,
    ) -> IntTensor<Self> {
        B::categorical(logits.into_primitive(), uniforms.into_primitive(), sampling)
    }
}
