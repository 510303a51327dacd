//! Schedules against counted volumes, brute-force scores and the closed prediction.

use super::*;
use crate::comm::collective::Member;
use crate::cost::plan::predict;
use crate::cost::schedule::{Axis, Tile};
use crate::cost::volume::{messages, volume};
use crate::methods::grid::Grid;
use crate::methods::method::{Keys, Merge};
use crate::methods::shape::Shape;
use crate::methods::wire::WireDtype;
use proptest::prelude::*;

fn setting(ranks: usize, tokens: usize, causal: bool) -> Setting {
    Setting {
        shape: Shape {
            batch: 2,
            tokens,
            heads: 12,
            kv_heads: 6,
            head_dim: 4,
        },
        ranks,
        causal,
        wire_dtype: WireDtype::Bf16,
        partial_dtype: WireDtype::F32,
    }
}

fn network() -> Network {
    "a100,node=3,node-bandwidth=15e9".parse().unwrap()
}

/// All methods that the ranks of a grid can compute.
fn methods(grid: Grid) -> Vec<Method> {
    let mut methods = vec![Method::GatherKv];
    methods.extend([false, true].map(|zigzag| Method::Ring { zigzag }));
    if 6_usize.is_multiple_of(grid.ranks()) {
        methods.push(Method::Ulysses);
    }
    for keys in [Keys::AsSharded, Keys::Transposed] {
        let made = |merge, overlap| Method::Attention2D {
            grid,
            merge,
            keys,
            overlap,
        };
        methods
            .extend([Merge::AllToAll, Merge::Ring, Merge::MaxSum].map(|merge| made(merge, false)));
        methods.push(made(Merge::AllToAll, true));
    }
    methods
}

/// The positions that a rank owns.
fn positions(method: Method, tokens: usize, ranks: usize, rank: usize) -> Vec<usize> {
    let contiguous = |parts: usize, part: usize| -> Vec<usize> {
        let size = |part| tokens / parts + usize::from(part < tokens % parts);
        let first = (0..part).map(size).sum();
        (first..first + size(part)).collect()
    };
    match method {
        Method::Ring { zigzag: true } => [
            contiguous(2 * ranks, rank),
            contiguous(2 * ranks, 2 * ranks - 1 - rank),
        ]
        .concat(),
        Method::Ring { .. } | Method::Ulysses => contiguous(ranks, rank),
        _ => (rank..tokens).step_by(ranks).collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_rank_receives_its_volume(
        rows in 1_usize..6,
        cols in 1_usize..5,
        tokens in 0_usize..90,
        causal in any::<bool>(),
    ) {
        let grid = Grid { rows, cols };
        let ranks = grid.ranks();
        let setting = setting(ranks, tokens, causal);
        for method in methods(grid) {
            for &direction in Direction::TRAINING {
                let played = simulate(&setting, &network(), method, direction).unwrap();
                for rank in 0..ranks {
                    let counted = volume(method, setting.shape, Member { rank, ranks }, direction).unwrap();
                    prop_assert_eq!(
                        played.received[rank], counted.bytes(WireDtype::Bf16),
                        "{} {:?}, rank {} of {}", method, direction, rank, ranks
                    );
                }
                let most = ranks as u64 * messages(method, ranks, direction);
                let exchanged = match method {
                    Method::Attention2D { keys: Keys::Transposed, .. } =>
                        (0..ranks).filter(|&rank| grid.transposed(rank).from == rank).count() as u64,
                    _ => 0,
                };
                let exchanged = if rows > 1 && cols > 1 { exchanged } else { 0 };
                prop_assert_eq!(played.messages, most - exchanged, "{} {:?}", method, direction);
                prop_assert!(played.computing.max_s <= played.seconds * (1.0 + 1e-12));
            }
        }
    }

    #[test]
    fn scores_are_those_that_the_mask_leaves(
        rows in 1_usize..5,
        cols in 1_usize..5,
        tokens in 0_usize..70,
        causal in any::<bool>(),
    ) {
        let grid = Grid { rows, cols };
        let ranks = grid.ranks();
        let setting = setting(ranks, tokens, causal);
        for method in methods(grid) {
            let counts = method.tokens_per_rank(setting.shape, ranks);
            for (rank, &rows) in counts.iter().enumerate() {
                prop_assert_eq!(positions(method, tokens, ranks, rank).len() as u64, rows);
            }
            let schedule = Schedule::new(&setting, &network(), method, Direction::Forward).unwrap();
            let between = |queries: &[usize], keys: &[usize]| -> u64 {
                let seen = |&query| keys.iter().filter(|&&key| !causal || key <= query).count() as u64;
                queries.iter().map(seen).sum()
            };
            let of = |rank| positions(method, tokens, ranks, rank);
            let given = |rank| match method {
                Method::Attention2D { keys: Keys::Transposed, .. } => of(grid.transposed(rank).from),
                _ => of(rank),
            };
            let mut all = 0;
            for rank in 0..ranks {
                for tile in schedule.rounds.iter().filter_map(|round| round.tile) {
                    let column = || -> Vec<usize> {
                        let side = schedule.along(Axis::Column);
                        (0..side)
                            .flat_map(|place| given(schedule.member(rank, Axis::Column, place)))
                            .collect()
                    };
                    let row = |place| of(schedule.member(rank, Axis::Row, place));
                    let down = |place| given(schedule.member(rank, Axis::Column, place));
                    let whole: Vec<usize> = (0..tokens).collect();
                    let expected = match tile {
                        Tile::Heads => between(&whole, &whole),
                        Tile::Ring(place) | Tile::Column(place) => between(&of(rank), &down(place)),
                        Tile::Row(place) => between(&row(place), &column()),
                        Tile::Grid => {
                            let side = schedule.along(Axis::Row);
                            (0..side).map(|place| between(&row(place), &column())).sum()
                        }
                    };
                    let scores = schedule.scores(rank, tile);
                    prop_assert_eq!(scores, expected, "{} {:?} rank {}", method, tile, rank);
                    all += scores;
                }
            }
            let n = tokens as u64;
            let copies = if method == Method::Ulysses { ranks as u64 } else { 1 };
            prop_assert_eq!(all, copies * if causal { n * (n + 1) / 2 } else { n * n });
        }
    }

    #[test]
    fn ranks_that_keep_step_take_as_long_as_predicted(
        rows in 1_usize..7,
        cols in 1_usize..7,
        each in 1_usize..5,
        node in 0_usize..3,
    ) {
        // Without a mask, with even parts, and with whole groups per node or whole nodes per group, no rank waits
        // longer than a message takes. To 1e-9 for the order of summation.
        let grid = Grid { rows, cols };
        let setting = setting(grid.ranks(), 2 * each * grid.ranks(), false);
        let mut network = network();
        network.ranks_per_node = [1, rows, grid.ranks()][node];
        for method in methods(grid) {
            if matches!(method, Method::Attention2D { keys: Keys::Transposed, .. }) {
                continue;
            }
            for &direction in Direction::TRAINING {
                let played = simulate(&setting, &network, method, direction).unwrap().seconds;
                let predicted = predict(&setting, &network, method, &[direction]).unwrap().seconds;
                // Where pairs of ranks are partly in one node, the slowest rank differs from round to round.
                let of_rows = matches!(method, Method::Attention2D { .. } | Method::Ring { .. });
                let even = network.ranks_per_node != rows || of_rows;
                let least = if even { 1.0 - 1e-9 } else { 0.5 };
                prop_assert!(
                    (least..=1.0 + 1e-9).contains(&(played / predicted)) || played == predicted,
                    "{} {:?} node {}: {} {}", method, direction, network.ranks_per_node, played, predicted
                );
            }
        }
    }
}

#[test]
fn the_fast_ring_is_the_plain_one() {
    for (ranks, tokens) in [(2, 7), (5, 64), (12, 61), (12, 7), (67, 300), (2100, 9000)] {
        for causal in [false, true] {
            for zigzag in [false, true] {
                for &direction in Direction::TRAINING {
                    let setting = setting(ranks, tokens, causal);
                    let method = Method::Ring { zigzag };
                    let schedule = Schedule::new(&setting, &network(), method, direction).unwrap();
                    let mut plain = Ranks::new(ranks);
                    for round in &schedule.rounds {
                        let links = Links::new(&schedule, &network(), round.source);
                        plain.round(&schedule, &links, round);
                    }
                    let plain = plain.end();
                    let fast = simulate(&setting, &network(), method, direction).unwrap();
                    assert_eq!(
                        (fast.messages, &fast.received),
                        (plain.messages, &plain.received)
                    );
                    // Another order of summation: to 1e-11 of the total.
                    let near = 1e-11 * plain.seconds;
                    for (fast, plain) in [
                        (fast.seconds, plain.seconds),
                        (fast.computing.max_s, plain.computing.max_s),
                        (fast.waiting.mean_s, plain.waiting.mean_s),
                    ] {
                        assert!((fast - plain).abs() <= near, "{fast} {plain}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_plain_ring_waits_for_its_last_rank_under_a_causal_mask() {
    // No latency, no launches, infinite bandwidth: only arithmetic is left. The last rank has a full part in every
    // round.
    let network: Network =
        "shared,latency=0,inside-latency=0,launch=0,inside-bandwidth=1e30,flops=1e9"
            .parse()
            .unwrap();
    let setting = setting(16, 16 * 64, true);
    let time = |method| {
        simulate(&setting, &network, method, Direction::Forward)
            .unwrap()
            .seconds
    };
    let plain = time(Method::Ring { zigzag: false });
    let zigzag = time(Method::Ring { zigzag: true });
    let square = time(Method::attention2d(Grid { rows: 4, cols: 4 }));
    // (P − 1/2) n² against (P/2) n², up to the diagonals.
    assert!(
        (plain / zigzag - 31.0 / 16.0).abs() < 0.01,
        "{}",
        plain / zigzag
    );
    assert!((square / zigzag - 1.0).abs() < 0.02, "{}", square / zigzag);
}
