//! What is held against MPI holds on threads.

use crate::cases::{attention, collectives};
use tessera_attention2d::threads;

#[test]
fn every_collective_and_attention_on_threads() {
    for ranks in [1, 2, 5] {
        for (name, case) in collectives::CASES.iter().chain(attention::CASES) {
            let done = threads::run(ranks, 1, |comm| case(&comm));
            done.unwrap_or_else(|error| panic!("{name} on {ranks} ranks: {error}"));
        }
    }
}
