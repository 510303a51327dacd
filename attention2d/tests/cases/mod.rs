//! Cases for any transport; each runs on every rank of a job.

#![allow(dead_code)] // Each test program uses a part of it.

pub mod attention;
pub mod collectives;
pub mod dense;

use bytemuck::Pod;
use tessera_attention2d::{Comm, Result, threads};

/// A name and the work of every rank, which panics or fails if something is wrong.
pub type Case = (&'static str, fn(&Comm) -> Result<()>);

/// Runs `work` on these ranks and again on as many threads. Each rank must receive as much and return the same bits.
pub fn same_as_threads<T: Pod + Send>(
    comm: &Comm,
    work: impl Fn(&Comm) -> Result<Vec<T>> + Sync,
) -> Result<()> {
    against_threads(comm, work, |found: &[T], expected: &[T]| {
        bytemuck::cast_slice::<T, u8>(found) == bytemuck::cast_slice::<T, u8>(expected)
    })
}

/// The same, to within `tolerance` of the largest value.
pub fn near_threads(
    comm: &Comm,
    tolerance: f32,
    work: impl Fn(&Comm) -> Result<Vec<f32>> + Sync,
) -> Result<()> {
    against_threads(comm, work, |found: &[f32], expected: &[f32]| {
        let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let near = |(x, y): (&f32, &f32)| (x - y).abs() <= tolerance * largest;
        found.len() == expected.len() && found.iter().zip(expected).all(near)
    })
}

fn against_threads<T: Pod + Send>(
    comm: &Comm,
    work: impl Fn(&Comm) -> Result<Vec<T>> + Sync,
    same: impl Fn(&[T], &[T]) -> bool,
) -> Result<()> {
    let counted = |comm: &Comm| {
        let traffic = comm.traffic();
        let before = [traffic.bytes(), traffic.messages()];
        let result = work(comm)?;
        let received = [traffic.bytes() - before[0], traffic.messages() - before[1]];
        Ok((result, received))
    };
    let (found, received) = counted(comm)?;
    // One rank starts the threads; otherwise each rank would start as many.
    let size = comm.size();
    let lens = comm.all_gather(&[found.len() as u64], &vec![1; size])?;
    let lens: Vec<_> = lens.iter().map(|&len| len as usize).collect();
    let all = comm.all_gather(&found, &lens)?;
    let traffic = comm.all_gather(&received, &vec![2; size])?;
    if comm.rank() > 0 {
        return Ok(());
    }
    let mut rest = &all[..];
    let expected = threads::run(size, |comm| counted(&comm))?;
    for (rank, (expected, received)) in expected.iter().enumerate() {
        let (found, after) = rest.split_at(lens[rank]);
        rest = after;
        assert_eq!(
            traffic[2 * rank..][..2],
            *received,
            "bytes and messages received by rank {rank}"
        );
        assert!(
            same(found, expected),
            "rank {rank} is not as on threads, its values beginning {:02x?}, expected {:02x?}",
            beginning(found),
            beginning(expected)
        );
    }
    Ok(())
}

fn beginning<T: Pod>(values: &[T]) -> &[u8] {
    let bytes = bytemuck::cast_slice(values);
    &bytes[..bytes.len().min(32)]
}
