//! The bytes received by every rank are those predicted.

use crate::cases::dense::{Case, methods};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use tessera_attention2d::{
    Direction, Distributed, Mask, Member, Shape, WireDtype, shard, threads, volume,
};
use tessera_backend::Rng;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_rank_receives_what_was_predicted(
        ranks in 1..=16_usize, which: Index, group in select(vec![1_usize, 4]), kv_heads in 1..=4_usize,
        head_dim in 1..9_usize, tokens in 1..70_usize, causal: bool,
        wire_dtype in select(vec![WireDtype::F32, WireDtype::Bf16]),
    ) {
        let methods = methods(ranks, [group * kv_heads, kv_heads]);
        let method = *which.get(&methods);
        let shape = Shape { batch: 2, tokens, heads: group * kv_heads, kv_heads, head_dim };
        let mask = if causal { Mask::causal() } else { Mask::all() };
        let case = Case { wire_dtype, ..Case::new(method, shape, mask) };
        let measured = threads::run(ranks, |comm| {
            let mut rng = Rng::new(0, 0);
            let device = burn::tensor::Device::flex();
            let attention = Distributed::new(&comm, method)?;
            let positions = attention.positions(tokens);
            let mut draw = |heads| shard(&rng.normal_tensor([2, heads, tokens, head_dim], &device), &positions);
            let (q, k, v, d_out) = (draw(shape.heads), draw(kv_heads), draw(kv_heads), draw(shape.heads));
            comm.traffic().reset();
            let forward = attention.forward(&case.task(), [q, k, v])?;
            let forward_bytes = comm.traffic().bytes();
            attention.backward(&case.task(), forward.saved, d_out)?;
            Ok([forward_bytes, comm.traffic().bytes() - forward_bytes])
        });
        for (rank, measured) in measured.expect("no rank fails").into_iter().enumerate() {
            let predicted = [Direction::Forward, Direction::Backward].map(|direction| {
                let volume = volume(method, shape, Member { rank, ranks }, direction).expect("it fits");
                volume.bytes(wire_dtype)
            });
            prop_assert_eq!(measured, predicted, "{} on {} ranks, rank {}", method, ranks, rank);
        }
    }
}
