//! What each collective says of itself holds on threads as it does over MPI.

use crate::cases::collectives::CASES;
use tessera_attention2d::threads;

#[test]
fn every_collective_on_threads() {
    for ranks in [1, 2, 5] {
        for (name, case) in CASES {
            let done = threads::run(ranks, 1, |comm| case(&comm));
            done.unwrap_or_else(|error| panic!("{name} on {ranks} ranks: {error}"));
        }
    }
}
