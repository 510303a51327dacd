//! The cases that test MPI pass on threads.

use crate::cases::{Case, attention, collectives};
use tessera_attention2d::threads;

/// Not on one rank, which has no other to disagree with.
#[test]
fn every_collective_on_threads() {
    on(&[2, 5], collectives::CASES);
}

#[test]
fn every_method_on_threads() {
    on(&[1, 2, 5], attention::CASES);
}

fn on(ranks: &[usize], cases: &[Case]) {
    for &ranks in ranks {
        for (name, case) in cases {
            let done = threads::run(ranks, |comm| case(&comm));
            done.unwrap_or_else(|error| panic!("{name} on {ranks} ranks: {error}"));
        }
    }
}
