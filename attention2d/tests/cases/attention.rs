//! Every method against dense attention.

use super::Case;
use super::dense::{self, documents, methods};
use tessera_attention2d::{Comm, Mask, Result, Shape};

/// The allowed difference of f32 from f64, relative to the largest value.
const TOLERANCE: f64 = 1e-5;

/// With a number of tokens that no number of ranks divides, with fewer tokens than ranks, and with one to eight query
/// heads per key head.
pub const CASES: &[Case] = &[
    ("attention of all", |comm| all(comm, 61, 2, 1, Mask::all())),
    ("causal attention", |comm| {
        all(comm, 61, 2, 1, Mask::causal())
    }),
    ("causal attention of fewer tokens than ranks", |comm| {
        all(comm, 3, 1, 2, Mask::causal())
    }),
    ("attention with 4 query heads per key head", |comm| {
        all(comm, 40, 2, 4, Mask::causal())
    }),
    ("attention with 8 query heads per key head", |comm| {
        all(comm, 33, 1, 8, Mask::all())
    }),
    ("checked attention", |comm| {
        comm.enable_check();
        let done = all(comm, 13, 1, 2, Mask::causal());
        comm.disable_check();
        done
    }),
    ("attention in documents", |comm| {
        all(comm, 50, 1, 2, documents(50))
    }),
];

fn all(comm: &Comm, tokens: usize, kv_heads: usize, group: usize, mask: Mask) -> Result<()> {
    let shape = Shape {
        batch: 2,
        tokens,
        heads: kv_heads * group,
        kv_heads,
        head_dim: 8,
    };
    for method in methods(comm.size(), [shape.heads, kv_heads]) {
        let case = dense::Case::new(method, shape, mask.clone());
        let error = case.error(comm, &case.reference(7))?;
        assert!(error < TOLERANCE, "{method}: {error}");
    }
    Ok(())
}
