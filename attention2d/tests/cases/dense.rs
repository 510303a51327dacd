//! Distributed attention against dense attention in f64.

use burn::tensor::{Device, FloatDType, Tensor};
use tessera_attention2d::{
    Comm, Distributed, Grid, Keys, Mask, Merge, Method, Result, Shape, Task, WireDtype, shard,
};
use tessera_backend::{Rng, ops};

/// One attention and the method that distributes it.
#[derive(Debug, Clone)]
pub struct Case {
    pub method: Method,
    pub shape: Shape,
    pub mask: Mask,
    pub wire_dtype: WireDtype,
}

/// Inputs, and the results of dense attention in f64.
pub struct Reference {
    qkv: [Tensor<4>; 3],
    d_out: Tensor<4>,
    out: Tensor<4>,
    gradients: [Tensor<4>; 3],
}

impl Case {
    pub fn new(method: Method, shape: Shape, mask: Mask) -> Self {
        Self {
            method,
            shape,
            mask,
            wire_dtype: WireDtype::F32,
        }
    }

    pub fn task(&self) -> Task {
        Task {
            tokens: self.shape.tokens,
            mask: self.mask.clone(),
            wire_dtype: self.wire_dtype,
        }
    }

    pub fn reference(&self, seed: u64) -> Reference {
        let Shape {
            batch,
            tokens,
            heads,
            kv_heads,
            head_dim,
        } = self.shape;
        let (device, mut rng) = (Device::flex(), Rng::new(seed, 0));
        let mut draw = |heads| rng.normal_tensor::<4>([batch, heads, tokens, head_dim], &device);
        let (q, k, v, d_out) = (draw(heads), draw(kv_heads), draw(kv_heads), draw(heads));
        let wide = |x: &Tensor<4>| x.clone().cast(FloatDType::F64);
        let all: Vec<_> = (0..tokens).collect();
        let mask = self.mask.between(&all, &all);
        let dense = [wide(&q), wide(&k), wide(&v)];
        let [q64, k64, v64] = dense.clone();
        let (out, lse) = ops::attention_with_lse(q64, k64, v64, mask.clone());
        let delta = (out.clone() * wide(&d_out)).sum_dim(3).squeeze_dim::<3>(3);
        let gradients = ops::attention_gradients(dense, wide(&d_out), lse, delta, mask);
        Reference {
            qkv: [q, k, v],
            d_out,
            out,
            gradients,
        }
    }

    /// The largest difference of this rank's outputs and gradients from the reference, relative to the largest value.
    pub fn error(&self, comm: &Comm, reference: &Reference) -> Result<f64> {
        let attention = Distributed::new(comm, self.method)?;
        let positions = attention.positions(self.shape.tokens);
        let task = self.task();
        let qkv = reference.qkv.each_ref().map(|x| shard(x, &positions));
        let forward = attention.forward(&task, qkv)?;
        let d_out = shard(&reference.d_out, &positions);
        let gradients = attention.backward(&task, forward.saved, d_out)?;
        let mut error = difference(
            &forward.out,
            &reference.out,
            &positions,
            largest(&[&reference.out]),
        );
        // With one token the gradients of q and k are rounding errors: all three are compared to the largest of them.
        let scale = largest(&reference.gradients.each_ref());
        for (found, expected) in gradients.iter().zip(&reference.gradients) {
            error = error.max(difference(found, expected, &positions, scale));
        }
        Ok(error)
    }
}

fn values(x: &Tensor<4>) -> Vec<f64> {
    x.clone().into_data().iter::<f64>().collect()
}

fn largest(tensors: &[&Tensor<4>]) -> f64 {
    let all = tensors.iter().flat_map(|x| values(x));
    all.fold(1e-6_f64, |max, x| max.max(x.abs()))
}

fn difference(found: &Tensor<4>, expected: &Tensor<4>, positions: &[usize], scale: f64) -> f64 {
    let expected = shard(expected, positions);
    assert_eq!(found.dims(), expected.dims());
    let pairs = values(found).into_iter().zip(values(&expected));
    pairs
        .map(|(found, expected)| match (found - expected).abs() {
            error if error.is_nan() => f64::INFINITY,
            error => error / scale,
        })
        .fold(0.0, f64::max)
}

/// Every variant of every method that this number of ranks can compute with these heads.
pub fn methods(ranks: usize, [heads, kv_heads]: [usize; 2]) -> Vec<Method> {
    let mut methods = vec![
        Method::Ring { zigzag: false },
        Method::Ring { zigzag: true },
        Method::GatherKv,
    ];
    if heads.is_multiple_of(ranks) && kv_heads.is_multiple_of(ranks) {
        methods.push(Method::Ulysses);
    }
    for grid in Grid::of(ranks) {
        for keys in [Keys::AsSharded, Keys::Transposed] {
            for merge in [Merge::AllToAll, Merge::Ring, Merge::MaxSum] {
                methods.push(Method::Attention2D {
                    grid,
                    merge,
                    keys,
                    overlap: false,
                });
            }
            methods.push(Method::Attention2D {
                grid,
                merge: Merge::AllToAll,
                keys,
                overlap: true,
            });
        }
    }
    methods
}

/// Documents that begin at 0, at a third and at a half of the tokens.
pub fn documents(tokens: usize) -> Mask {
    let mut starts = vec![0, tokens / 3, tokens / 2];
    starts.dedup();
    Mask {
        causal: true,
        documents: Some(starts.into()),
    }
}
