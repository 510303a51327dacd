//! Volumes against the closed formulas of the literature, a worked table, and a count of which rank needs which row.

use super::*;
use proptest::prelude::*;

fn shape(tokens: usize, heads: usize, kv_heads: usize) -> Shape {
    Shape {
        batch: 1,
        tokens,
        heads,
        kv_heads,
        head_dim: 8,
    }
}

fn attention2d(rows: usize, cols: usize, merge: Merge, keys: Keys) -> Method {
    Method::Attention2D {
        grid: Grid { rows, cols },
        merge,
        keys,
        overlap: false,
    }
}

/// Elements that the rank with the most receives, in units of E.
fn units(method: Method, shape: Shape, ranks: usize, directions: &[Direction]) -> f64 {
    let of = |rank| -> u64 {
        let member = Member { rank, ranks };
        let elements = |&direction| volume(method, shape, member, direction).unwrap().elements();
        directions.iter().map(elements).sum()
    };
    let most = (0..ranks).map(of).max().unwrap();
    most as f64 / shape.elements() as f64
}

#[test]
fn the_worked_table_of_forward_and_backward_volumes() {
    // P, query heads per key head, volumes of the square grid (forward, backward) and of the ring (forward, both), best
    // grid and its volume (both).
    type Row = (usize, usize, [f64; 4], [usize; 2], f64);
    const TABLE: [Row; 7] = [
        (4, 1, [1.500, 2.250, 1.500, 5.000], [2, 2], 3.750),
        (16, 1, [0.875, 1.4375, 1.875, 5.750], [4, 4], 2.3125),
        (
            64,
            1,
            [0.46875, 0.796875, 1.96875, 5.9375],
            [8, 8],
            1.265625,
        ),
        (
            256,
            1,
            [0.2421875, 0.41796875, 1.9921875, 5.984375],
            [16, 16],
            0.66015625,
        ),
        (
            64,
            4,
            [0.28125, 0.4453125, 0.4921875, 1.484375],
            [16, 4],
            0.6015625,
        ),
        (
            64,
            8,
            [0.25, 0.38671875, 0.24609375, 0.7421875],
            [16, 4],
            0.41796875,
        ),
        (
            16,
            8,
            [0.4375, 0.671875, 0.234375, 0.71875],
            [8, 2],
            0.671875,
        ),
    ];
    for (ranks, per, expected, best, least) in TABLE {
        let shape = shape(1024, 8, 8 / per);
        let side = ranks.isqrt();
        let square = attention2d(side, side, Merge::AllToAll, Keys::Transposed);
        let ring = Method::Ring { zigzag: false };
        let found = [
            units(square, shape, ranks, &[Direction::Forward]),
            units(square, shape, ranks, &[Direction::Backward]),
            units(ring, shape, ranks, &[Direction::Forward]),
            units(ring, shape, ranks, Direction::TRAINING),
        ];
        assert_eq!(found, expected, "{ranks} ranks, {per} to 1");
        let both = |grid: Grid| {
            let method = attention2d(grid.rows, grid.cols, Merge::AllToAll, Keys::Transposed);
            units(method, shape, ranks, Direction::TRAINING)
        };
        let fewest = Grid::of(ranks)
            .into_iter()
            .map(both)
            .fold(f64::MAX, f64::min);
        let of_best = both(Grid {
            rows: best[0],
            cols: best[1],
        });
        assert_eq!([of_best, fewest], [least; 2], "{ranks} ranks, {per} to 1");
    }
}

proptest! {
    #[test]
    fn even_parts_follow_the_formulas(
        rows in 1_usize..6,
        cols in 1_usize..6,
        each in 1_usize..5,
        kv_heads in 1_usize..4,
        per in 1_usize..5,
        transposed in any::<bool>(),
    ) {
        let ranks = rows * cols;
        let shape = shape(ranks * each, kv_heads * per, kv_heads);
        // In units of E/P, times the heads of queries to one of keys so that g is whole.
        let part = (each * kv_heads * 8) as u64;
        let [r, c, p, per] = [rows, cols, ranks, per].map(|n| n as u64);
        let keys = if transposed { Keys::Transposed } else { Keys::AsSharded };
        let exchange = if transposed && rows > 1 && cols > 1 { 2 } else { 0 };
        let most = |method, direction| {
            let of = |member| volume(method, shape, member, direction).unwrap().elements();
            Member::all(ranks).map(of).max().unwrap()
        };
        for merge in [Merge::AllToAll, Merge::Ring, Merge::MaxSum] {
            let method = attention2d(rows, cols, merge, keys);
            let forward = 2 * (c - 1) * per + 2 * (r - 1) + exchange;
            let backward = 3 * (c - 1) * per + 4 * (r - 1) + exchange;
            prop_assert_eq!(most(method, Direction::Forward), forward * part);
            prop_assert_eq!(most(method, Direction::Backward), backward * part);
        }
        for zigzag in [false, true] {
            // A zigzag ring's parts are even when 2P divides the tokens.
            if zigzag && each % 2 == 1 {
                continue;
            }
            let ring = Method::Ring { zigzag };
            prop_assert_eq!(most(ring, Direction::Forward), 2 * (p - 1) * part);
            let backward = if p == 1 { 0 } else { 4 * p - 2 };
            prop_assert_eq!(most(ring, Direction::Backward), backward * part);
        }
        prop_assert_eq!(most(Method::GatherKv, Direction::Forward), 2 * (p - 1) * part);
        prop_assert_eq!(most(Method::GatherKv, Direction::Backward), 4 * (p - 1) * part);
        if kv_heads % ranks == 0 {
            let each = (2 * per + 2) * (p - 1) * part / p;
            prop_assert_eq!(most(Method::Ulysses, Direction::Forward), each);
            prop_assert_eq!(most(Method::Ulysses, Direction::Backward), each);
        }
    }

    #[test]
    fn every_row_reaches_whoever_needs_it(
        rows in 1_usize..5,
        cols in 1_usize..5,
        tokens in 0_usize..60,
        transposed in any::<bool>(),
    ) {
        let ranks = rows * cols;
        let shape = shape(tokens, 4, 2);
        let keys = if transposed { Keys::Transposed } else { Keys::AsSharded };
        let sum = |merge| {
            let method = attention2d(rows, cols, merge, keys);
            Member::all(ranks)
                .map(|member| volume(method, shape, member, Direction::Forward).unwrap())
                .fold(Volume::default(), Add::add)
        };
        let [all, ring, reduced] = [Merge::AllToAll, Merge::Ring, Merge::MaxSum].map(sum);
        // Every query goes to C − 1 other ranks and its partial outputs come back; every key goes to R − 1, in any
        // variant.
        let [n, r, c] = [tokens, rows, cols].map(|n| n as u64);
        prop_assert_eq!(all.wide, (c - 1) * n * 32);
        prop_assert_eq!([ring.wide, reduced.wide], [all.wide; 2]);
        prop_assert_eq!([ring.narrow, reduced.narrow], [all.narrow; 2]);
        prop_assert_eq!([all.scalars, ring.scalars], [(c - 1) * n * 4; 2]);
        // The maxima are reduced and gathered along the row.
        prop_assert_eq!(reduced.scalars - all.scalars, 2 * (c - 1) * n * 4);
        let moved: u64 = match keys {
            Keys::AsSharded => 0,
            Keys::Transposed => {
                let grid = Grid { rows, cols };
                let counts = Method::attention2d(grid).tokens_per_rank(shape, ranks);
                let moves = |&rank: &usize| grid.transposed(rank).from != rank;
                (0..ranks).filter(moves).map(|rank| counts[rank]).sum()
            }
        };
        prop_assert_eq!(all.narrow, (c - 1) * n * 32 + ((r - 1) * n + moved) * 32);
    }
}

#[test]
fn bytes_count_the_wire_dtype_and_what_is_always_f32() {
    let volume = Volume {
        narrow: 10,
        wide: 5,
        scalars: 1,
    };
    assert_eq!(
        [WireDtype::F32, WireDtype::Bf16].map(|dtype| volume.bytes(dtype)),
        [64, 44]
    );
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let refused = |method, shape, ranks, rank| {
        volume(method, shape, Member { rank, ranks }, Direction::Forward)
            .unwrap_err()
            .to_string()
    };
    let grid = Grid { rows: 2, cols: 3 };
    let shape = shape(12, 8, 2);
    for (error, words) in [
        (
            refused(Method::attention2d(grid), shape, 4, 0),
            "a grid must be of 4 ranks, found 2x3, 6",
        ),
        (
            refused(Method::Ulysses, shape, 4, 0),
            "a divisor of the 2 heads",
        ),
        (
            refused(Method::GatherKv, shape, 4, 4),
            "a rank must be below 4, found 4",
        ),
        (
            refused(Method::GatherKv, Shape { heads: 7, ..shape }, 4, 0),
            "a multiple of the 2",
        ),
    ] {
        assert!(error.contains(words), "{error}");
    }
}
