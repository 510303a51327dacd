//! The chosen grid where the answer is known.

use super::*;
use crate::methods::shape::Shape;
use crate::methods::wire::WireDtype;

fn setting(ranks: usize, heads: usize, kv_heads: usize) -> Setting {
    Setting {
        shape: Shape {
            batch: 1,
            tokens: 1 << 17,
            heads,
            kv_heads,
            head_dim: 128,
        },
        ranks,
        causal: true,
        wire_dtype: WireDtype::Bf16,
        partial_dtype: WireDtype::F32,
    }
}

/// A network on which only volume counts: no latency, no launches, one rank per node, free arithmetic.
fn volume_bound() -> Network {
    "h100-1,latency=0,launch=0,flops=1e30".parse().unwrap()
}

fn grid(setting: &Setting, network: &Network, directions: &[Direction]) -> String {
    let plan = Plan::new(setting, network, directions).unwrap();
    match plan.attention2d().unwrap().method {
        Method::Attention2D { grid, .. } => grid.to_string(),
        other => other.to_string(),
    }
}

#[test]
fn the_grid_is_square_only_without_grouped_heads() {
    // Heads that 64 ranks do not divide, so that Ulysses is no candidate.
    for wire_dtype in [WireDtype::F32, WireDtype::Bf16] {
        for (ranks, heads, kv_heads, expected) in [
            (64, 40, 40, "8x8"),
            (64, 32, 8, "16x4"),
            (64, 40, 5, "16x4"),
            (16, 40, 5, "8x2"),
        ] {
            let setting = Setting {
                wire_dtype,
                ..setting(ranks, heads, kv_heads)
            };
            let found = grid(&setting, &volume_bound(), Direction::TRAINING);
            assert_eq!(
                found, expected,
                "{ranks} ranks, {heads} to {kv_heads} heads"
            );
        }
    }
}

#[test]
fn ulysses_only_where_ranks_divide_the_heads_of_keys() {
    let methods = |ranks, kv_heads| -> Vec<Method> {
        let plan = Plan::new(
            &setting(ranks, 32, kv_heads),
            &volume_bound(),
            Direction::INFERENCE,
        )
        .unwrap();
        plan.predictions
            .iter()
            .map(|prediction| prediction.method)
            .collect()
    };
    assert!(methods(8, 8).contains(&Method::Ulysses));
    assert!(!methods(16, 8).contains(&Method::Ulysses));
    // With 4E/P it has the least volume.
    assert_eq!(methods(32, 32)[0], Method::Ulysses);
}

#[test]
fn one_rank_computes_and_receives_nothing() {
    let plan = Plan::new(&setting(1, 8, 8), &volume_bound(), Direction::TRAINING).unwrap();
    for prediction in &plan.predictions {
        let nothing = (Volume::default(), 0);
        assert_eq!(
            (prediction.volume, prediction.messages),
            nothing,
            "{}",
            prediction.method
        );
    }
}

#[test]
fn a_plain_ring_takes_twice_the_arithmetic_of_a_zigzag() {
    let setting = setting(64, 40, 40);
    let computing = |method| {
        let network = "h100-1,launch=0".parse().unwrap();
        predict(&setting, &network, method, Direction::INFERENCE)
            .unwrap()
            .computing_s
    };
    let ratio =
        computing(Method::Ring { zigzag: false }) / computing(Method::Ring { zigzag: true });
    assert!((ratio - 127.0 / 64.0).abs() < 0.01, "{ratio}");
}

#[test]
fn columns_lie_in_nodes() {
    // Four ranks to a node: a column of four gathers keys without the network.
    let setting = setting(16, 40, 40);
    let network: Network =
        "a100,latency=0,inside-latency=0,launch=0,flops=1e30,inside-bandwidth=1e30"
            .parse()
            .unwrap();
    let seconds = |rows, cols| {
        let method = Method::attention2d(Grid { rows, cols });
        predict(&setting, &network, method, Direction::INFERENCE)
            .unwrap()
            .seconds
    };
    // Three hops of bf16 queries and f32 outputs, of all ranks of a node at once, and nothing else; in bytes per E/P.
    let part = (setting.shape.elements() / 16) as f64;
    let each = network.node_bytes_per_s / 4.0;
    let states = 1.0 + 4.0 / (4.0 * 128.0);
    let expected = 3.0 * part * (2.0 + 4.0 * states) / each.min(network.inter_node.bytes_per_s);
    assert!(
        (seconds(4, 4) / expected - 1.0).abs() < 1e-9,
        "{} {expected}",
        seconds(4, 4)
    );
    assert!(seconds(4, 4) < seconds(2, 8));
}
