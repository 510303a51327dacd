//! The volumes against the closed formulas of the literature, a worked table, and a count of who needs what.

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

/// Elements, in units of E, that the rank with the most receives.
fn units(method: Method, shape: Shape, ranks: usize, passes: &[Pass]) -> f64 {
    let of = |rank| -> u64 {
        let pass = |&pass| volume(method, shape, ranks, rank, pass).unwrap().elements();
        passes.iter().map(pass).sum()
    };
    let most = (0..ranks).map(of).max().unwrap();
    most as f64 / shape.elements() as f64
}

#[test]
fn the_worked_table_of_forward_and_backward_volumes() {
    // P, heads of queries per head of keys: square grid forward and backward, ring forward and both, best grid and both.
    // Printed to three decimals; the ring with GQA 4:1 on 64 ranks exchanges 0.4921875.
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
            units(square, shape, ranks, &[Pass::Forward]),
            units(square, shape, ranks, &[Pass::Backward]),
            units(ring, shape, ranks, &[Pass::Forward]),
            units(ring, shape, ranks, Pass::TRAINING),
        ];
        assert_eq!(found, expected, "{ranks} ranks, {per} to 1");
        let both = |grid: Grid| {
            let method = attention2d(grid.rows, grid.cols, Merge::AllToAll, Keys::Transposed);
            units(method, shape, ranks, Pass::TRAINING)
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
        let keys = if transposed { Keys::Transposed } else { Keys::AsDealt };
        let exchange = if transposed && rows > 1 && cols > 1 { 2 } else { 0 };
        let most = |method, pass| {
            let of = |rank| volume(method, shape, ranks, rank, pass).unwrap().elements();
            (0..ranks).map(of).max().unwrap()
        };
        for merge in [Merge::AllToAll, Merge::Ring, Merge::MaxSum] {
            let method = attention2d(rows, cols, merge, keys);
            let forward = 2 * (c - 1) * per + 2 * (r - 1) + exchange;
            let backward = 3 * (c - 1) * per + 4 * (r - 1) + exchange;
            prop_assert_eq!(most(method, Pass::Forward), forward * part);
            prop_assert_eq!(most(method, Pass::Backward), backward * part);
        }
        for zigzag in [false, true] {
            // A zigzag ring's parts are even when 2P divides the tokens.
            if zigzag && each % 2 == 1 {
                continue;
            }
            let ring = Method::Ring { zigzag };
            prop_assert_eq!(most(ring, Pass::Forward), 2 * (p - 1) * part);
            let backward = if p == 1 { 0 } else { 4 * p - 2 };
            prop_assert_eq!(most(ring, Pass::Backward), backward * part);
        }
        prop_assert_eq!(most(Method::GatherKv, Pass::Forward), 2 * (p - 1) * part);
        prop_assert_eq!(most(Method::GatherKv, Pass::Backward), 4 * (p - 1) * part);
        if kv_heads % ranks == 0 {
            let each = (2 * per + 2) * (p - 1) * part / p;
            prop_assert_eq!(most(Method::Ulysses, Pass::Forward), each);
            prop_assert_eq!(most(Method::Ulysses, Pass::Backward), each);
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
        let keys = if transposed { Keys::Transposed } else { Keys::AsDealt };
        let sum = |merge| {
            let method = attention2d(rows, cols, merge, keys);
            (0..ranks)
                .map(|rank| volume(method, shape, ranks, rank, Pass::Forward).unwrap())
                .fold(Volume::default(), Add::add)
        };
        let [all, ring, reduced] = [Merge::AllToAll, Merge::Ring, Merge::MaxSum].map(sum);
        // Every query goes to C − 1 others and its partial outputs come back; every key to R − 1, whatever way.
        let [n, r, c] = [tokens, rows, cols].map(|n| n as u64);
        prop_assert_eq!(all.wide, (c - 1) * n * 32);
        prop_assert_eq!([ring.wide, reduced.wide], [all.wide; 2]);
        prop_assert_eq!([ring.narrow, reduced.narrow], [all.narrow; 2]);
        prop_assert_eq!([all.scalars, ring.scalars], [(c - 1) * n * 4; 2]);
        // The maxima of a row: reduced and gathered, over the row.
        prop_assert_eq!(reduced.scalars - all.scalars, 2 * (c - 1) * n * 4);
        let moved: u64 = match keys {
            Keys::AsDealt => 0,
            Keys::Transposed => {
                let grid = Grid { rows, cols };
                let dealt = dealt(Method::attention2d(grid), tokens, ranks);
                let moves = |&rank: &usize| grid.transposed(rank)[1] != rank;
                (0..ranks).filter(moves).map(|rank| dealt[rank]).sum()
            }
        };
        prop_assert_eq!(all.narrow, (c - 1) * n * 32 + ((r - 1) * n + moved) * 32);
    }
}

#[test]
fn bytes_count_the_payload_and_what_is_always_f32() {
    let volume = Volume {
        narrow: 10,
        wide: 5,
        scalars: 1,
    };
    assert_eq!(
        [Payload::F32, Payload::Bf16].map(|payload| volume.bytes(payload)),
        [64, 44]
    );
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let refused = |method, shape, ranks, rank| {
        volume(method, shape, ranks, rank, Pass::Forward)
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
