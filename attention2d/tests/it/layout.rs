//! Which rank owns which token, and which tokens see which.

use proptest::prelude::*;
use tessera_attention2d::{Grid, Layout, Mask, Member, Peers, Place};
use tessera_backend::ops;

proptest! {
    #[test]
    fn every_token_has_one_owner(ranks in 1..20_usize, tokens in 0..100_usize) {
        for layout in [Layout::Cyclic, Layout::Contiguous, Layout::Zigzag] {
            let lists: Vec<_> = (0..ranks).map(|rank| layout.positions(Member { rank, ranks }, tokens)).collect();
            prop_assert!(lists.iter().all(|list| list.is_sorted()));
            for (rank, list) in lists.iter().enumerate() {
                prop_assert_eq!(layout.count(Member { rank, ranks }, tokens), list.len());
            }
            let mut all = lists.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..tokens).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_mask_between_shares_is_the_mask(
        tokens in 1..60_usize, [q, k] in [1..5_usize, 1..5], causal: bool,
        starts in proptest::collection::btree_set(1..60_usize, 0..5),
    ) {
        let starts = std::iter::once(0).chain(starts.into_iter().filter(|&start| start < tokens));
        let mask = Mask { causal, documents: Some(starts.collect()) };
        let queries: Vec<_> = (q - 1..tokens).step_by(q).collect();
        let keys: Vec<_> = (0..tokens).step_by(k).collect();
        let between = mask.between(&queries, &keys);
        for (i, &query) in queries.iter().enumerate() {
            let seen = between.run(i, [queries.len(), keys.len()]);
            for (j, key) in keys.iter().enumerate() {
                prop_assert_eq!(seen.contains(&j), mask.seen(query).contains(key));
            }
        }
    }

    #[test]
    fn transposing_is_a_permutation_and_its_inverse(rows in 1..7_usize, cols in 1..7_usize) {
        let grid = Grid { rows, cols };
        for rank in 0..grid.ranks() {
            let Peers { to, from } = grid.transposed(rank);
            prop_assert_eq!(grid.transposed(to).from, rank);
            prop_assert_eq!(grid.transposed(from).to, rank);
        }
    }

    /// After the transpose (algorithm 1, line 1) a rank's mask is causal if c ≤ r, else strictly causal.
    #[test]
    fn on_a_square_grid_a_causal_mask_stays_causal_or_becomes_strict(side in 1..5_usize, per_rank in 1..6_usize) {
        let (grid, tokens) = (Grid { rows: side, cols: side }, side * side * per_rank);
        for rank in 0..grid.ranks() {
            let Place { row, col } = grid.place(rank);
            let gathered = |ranks: Vec<usize>| {
                let of = |&rank| Layout::Cyclic.positions(Member { rank, ranks: grid.ranks() }, tokens);
                let mut all: Vec<_> = ranks.iter().flat_map(of).collect();
                all.sort_unstable();
                all
            };
            let queries = gathered((0..side).map(|col| grid.rank(Place { row, col })).collect());
            let keys = gathered((0..side).map(|row| grid.transposed(grid.rank(Place { row, col })).from).collect());
            prop_assert!(keys.iter().all(|key| key % side == col));
            let sizes = [queries.len(), keys.len()];
            let mask = Mask::causal().between(&queries, &keys);
            for query in 0..queries.len() {
                let expected = match col <= row {
                    true => ops::Mask::Causal.run(query, sizes),
                    false => 0..query,
                };
                prop_assert_eq!(mask.run(query, sizes), expected);
            }
        }
    }
}
