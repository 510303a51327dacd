//! Every method equals dense attention.

use crate::cases::dense::{Case, documents, methods};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use tessera_attention2d::threads::{self, Team};
use tessera_attention2d::{Distributed, Grid, Mask, Method, Shape, WireDtype, shard};

/// The allowed difference of f32 from f64, relative to the largest value.
const TOLERANCE: f64 = 1e-5;

fn error(case: &Case, ranks: usize) -> f64 {
    let reference = case.reference(7);
    let errors = threads::run(ranks, |comm| case.error(&comm, &reference));
    let errors = errors.expect("no rank fails");
    errors.into_iter().fold(0.0, f64::max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn any_method_of_any_shape(
        ranks in 1..=16_usize, which: Index, group in select(vec![1_usize, 4, 8]), kv_heads in 1..=4_usize,
        head_dim in 1..24_usize, batch in 1..3_usize, tokens in 1..90_usize, hidden in 0..4,
    ) {
        let heads = [group * kv_heads, kv_heads];
        let methods = methods(ranks, heads);
        let method = *which.get(&methods);
        let mask = match hidden {
            0 => Mask::all(),
            1 => Mask::causal(),
            2 => documents(tokens),
            _ => Mask { causal: false, ..documents(tokens) },
        };
        let shape = Shape { batch, tokens, heads: heads[0], kv_heads, head_dim };
        let error = error(&Case::new(method, shape, mask), ranks);
        prop_assert!(error < TOLERANCE, "{method} on {ranks} ranks: {error}");
    }
}

#[test]
fn every_grid_up_to_sixteen_ranks() {
    let shape = Shape {
        batch: 1,
        tokens: 37,
        heads: 4,
        kv_heads: 1,
        head_dim: 8,
    };
    for ranks in 1..=16 {
        for method in methods(ranks, [4, 1]) {
            for mask in [Mask::all(), Mask::causal()] {
                let error = error(&Case::new(method, shape, mask), ranks);
                assert!(error < TOLERANCE, "{method} on {ranks} ranks: {error}");
            }
        }
    }
}

#[test]
fn sixteen_bits_on_the_wire_cost_their_rounding() {
    let shape = Shape {
        batch: 2,
        tokens: 64,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
    };
    for (wire_dtype, tolerance) in [(WireDtype::F16, 4e-3), (WireDtype::Bf16, 3e-2)] {
        for method in methods(4, [4, 2]) {
            let case = Case {
                wire_dtype,
                ..Case::new(method, shape, Mask::causal())
            };
            let error = error(&case, 4);
            assert!(error < tolerance, "{method} in {wire_dtype}: {error}");
        }
    }
}

#[test]
fn the_ordered_merge_gives_the_same_bits_in_every_run_and_on_any_number_of_threads() {
    let shape = Shape {
        batch: 1,
        tokens: 257,
        heads: 4,
        kv_heads: 2,
        head_dim: 32,
    };
    let method = Method::attention2d(Grid { rows: 2, cols: 3 });
    let case = Case::new(method, shape, Mask::causal());
    let bits = |threads_per_rank| {
        let mut rng = tessera_backend::Rng::new(3, 0);
        let device = burn::tensor::Device::flex();
        let mut draw = |heads| rng.normal_tensor::<4>([1, heads, 257, 32], &device);
        let (q, k, v, d_out) = (draw(4), draw(2), draw(2), draw(4));
        let team = Team {
            ranks: 6,
            threads_per_rank,
        };
        let ranks = team.run(|comm| {
            let attention = Distributed::new(&comm, method)?;
            let positions = attention.positions(257);
            let qkv = [&q, &k, &v].map(|x| shard(x, &positions));
            let forward = attention.forward(&case.task(), qkv)?;
            let d_out = shard(&d_out, &positions);
            let gradients = attention.backward(&case.task(), forward.saved, d_out)?;
            let tensors = std::iter::once(forward.out).chain(gradients);
            let values = tensors.flat_map(tessera_backend::host_values);
            Ok(values.map(f32::to_bits).collect::<Vec<_>>())
        });
        ranks.expect("no rank fails")
    };
    let once = bits(1);
    assert_eq!(once, bits(1));
    assert_eq!(once, bits(3));
}

#[test]
fn a_method_that_does_not_fit_is_refused() {
    let refused = |method| {
        let error = threads::run(4, |comm| Distributed::new(&comm, method).map(|_| ()));
        error.expect_err("refused").to_string()
    };
    let grid = Method::attention2d(Grid { rows: 3, cols: 2 });
    let text = refused(grid);
    assert!(
        text.contains("a grid must be of 4 ranks, found 3x2, 6"),
        "{text}"
    );
    let shape = Shape {
        batch: 1,
        tokens: 8,
        heads: 6,
        kv_heads: 6,
        head_dim: 4,
    };
    let case = Case::new(Method::Ulysses, shape, Mask::all());
    let reference = case.reference(0);
    let error = threads::run(4, |comm| case.error(&comm, &reference));
    let text = error.expect_err("refused").to_string();
    assert!(
        text.contains("a divisor of the 6 heads of keys and values, found 4"),
        "{text}"
    );
}
