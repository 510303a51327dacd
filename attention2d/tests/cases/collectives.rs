//! Every collective, with counts that differ from rank to rank.

use super::{Case, near_threads, same_as_threads};
use bytemuck::Pod;
use half::bf16;
use tessera_attention2d::{Comm, Error, Peers, Reduce, Result};

/// All of them.
pub const CASES: &[Case] = &[
    ("gathers f32", |comm| gathers(comm, |x| x)),
    ("gathers bf16", |comm| gathers(comm, bf16::from_f32)),
    ("gathers u8", |comm| gathers(comm, |x| (64.0 * x) as u8)),
    ("gathers nothing", |comm| {
        same_as_threads(comm, |comm| {
            comm.all_gather::<f32>(&[], &vec![0; comm.size()])
        })
    }),
    ("all to all f32", |comm| to_all(comm, |x| x)),
    ("all to all bf16", |comm| to_all(comm, bf16::from_f32)),
    ("reduce-scatter in order", |comm| {
        same_as_threads(comm, |comm| {
            let (send, counts) = summands(comm);
            comm.reduce_scatter_ordered(&send, &counts)
        })
    }),
    ("reduce-scatter", |comm| {
        near_threads(comm, 1e-6, |comm| {
            let (send, counts) = summands(comm);
            comm.reduce_scatter_sum(&send, &counts)
        })
    }),
    ("reduce-scatter of equal parts", |comm| {
        near_threads(comm, 1e-6, |comm| {
            let send = values(comm.rank(), 300 * comm.size());
            comm.reduce_scatter_sum(&send, &vec![300; comm.size()])
        })
    }),
    ("mean", |comm| {
        same_as_threads(comm, |comm| {
            let mut own = values(comm.rank(), 101);
            comm.all_mean(&mut own)?;
            Ok(own)
        })
    }),
    ("sum", |comm| {
        near_threads(comm, 1e-6, |comm| reduced(comm, Reduce::Sum))
    }),
    ("largest", |comm| {
        same_as_threads(comm, |comm| reduced(comm, Reduce::Max))
    }),
    ("around the ring", ring),
    ("a message to itself", |comm| {
        same_as_threads(comm, |comm| {
            let own = values(comm.rank(), 20_000);
            let to_itself = Peers {
                to: comm.rank(),
                from: comm.rank(),
            };
            comm.send_recv(to_itself, &own, own.len())
        })
    }),
    ("computes meanwhile", meanwhile),
    ("a message within a message", nested),
    ("groups by color and key", groups),
    ("barrier", |comm| {
        same_as_threads(comm, |comm| comm.barrier().map(|()| vec![0_u8]))
    }),
    ("the check names who differs", check),
    ("texts are compared", texts),
];

/// Values that differ from rank to rank, with sums that round.
fn values(rank: usize, len: usize) -> Vec<f32> {
    (0..len)
        .map(|i| ((i * 37 + rank * 101) % 1009) as f32 / 311.0 - 0.3 * rank as f32)
        .collect()
}

/// Counts, some of them 0.
fn counts(comm: &Comm) -> Vec<usize> {
    (0..comm.size()).map(|rank| 11 * (rank * 3 % 5)).collect()
}

fn gathers<T: Pod + Send>(comm: &Comm, value: fn(f32) -> T) -> Result<()> {
    same_as_threads(comm, |comm| {
        let counts = counts(comm);
        let own: Vec<_> = values(comm.rank(), counts[comm.rank()])
            .into_iter()
            .map(value)
            .collect();
        comm.all_gather(&own, &counts)
    })
}

fn to_all<T: Pod + Send>(comm: &Comm, value: fn(f32) -> T) -> Result<()> {
    same_as_threads(comm, |comm| {
        let count = |from: usize, to: usize| 7 * ((from + 2 * to) % 4);
        let (rank, ranks) = (comm.rank(), 0..comm.size());
        let to: Vec<_> = ranks.clone().map(|to| count(rank, to)).collect();
        let from: Vec<_> = ranks.map(|from| count(from, rank)).collect();
        let own = values(rank, to.iter().sum());
        let own: Vec<_> = own.into_iter().map(value).collect();
        comm.all_to_all(&own, &to, &from)
    })
}

fn summands(comm: &Comm) -> (Vec<f32>, Vec<usize>) {
    let counts = counts(comm);
    (values(comm.rank(), counts.iter().sum()), counts)
}

fn reduced(comm: &Comm, op: Reduce) -> Result<Vec<f32>> {
    let mut own = values(comm.rank(), 1003);
    comm.all_reduce(&mut own, op)?;
    Ok(own)
}

/// Short and long messages, for which MPI has different protocols.
fn ring(comm: &Comm) -> Result<()> {
    same_as_threads(comm, |comm| {
        let (rank, peers) = (comm.rank(), comm.ring_forward());
        let mut all = Vec::new();
        for unit in [0, 3, 6000] {
            let own = values(rank, unit * (rank % 3));
            all.extend(comm.send_recv(peers, &own, unit * (peers.from % 3))?);
        }
        Ok(all)
    })
}

fn meanwhile(comm: &Comm) -> Result<()> {
    same_as_threads(comm, |comm| {
        let (rank, peers) = (comm.rank(), comm.ring_forward());
        let mut calls = 0;
        for len in [5, 40_000] {
            let own = values(rank, len);
            let (found, sum) = comm.send_recv_while(peers, &own, len, || {
                calls += 1;
                own.iter().sum::<f32>()
            })?;
            assert_eq!(sum, own.iter().sum::<f32>());
            assert_eq!(found, values(peers.from, len));
        }
        assert_eq!(calls, 2);
        Ok(vec![calls])
    })
}

fn nested(comm: &Comm) -> Result<()> {
    same_as_threads(comm, |comm| {
        let (rank, size, peers) = (comm.rank(), comm.size(), comm.ring_forward());
        let (outer, inner) = (values(rank, 30_000), values(rank + size, 30_000));
        let (mut found, within) = comm.send_recv_while(peers, &outer, 30_000, || {
            comm.send_recv(peers, &inner, 30_000)
        })?;
        found.extend(within?);
        Ok(found)
    })
}

/// Three colors, in reverse order, and each of these groups in halves.
fn groups(comm: &Comm) -> Result<()> {
    same_as_threads(comm, |comm| {
        let rank = comm.rank();
        let group = comm.split(rank % 3, comm.size() - rank)?;
        let mut all = vec![group.rank() as u64, group.size() as u64];
        all.extend(group.all_gather(&[rank as u64], &vec![1; group.size()])?);
        let half = group.split(group.rank() % 2, 0)?;
        all.extend(half.all_gather(&[rank as u64], &vec![1; half.size()])?);
        drop(group);
        half.barrier()?;
        Ok(all)
    })
}

/// The last rank comes with another count, and then with another collective.
fn check(comm: &Comm) -> Result<()> {
    comm.enable_check();
    let last = comm.size() - 1;
    let differs = comm.rank() == last;
    let results = [
        comm.all_reduce(&mut vec![0.0; 3 + usize::from(differs)], Reduce::Sum),
        match differs {
            true => comm.barrier(),
            false => comm.all_reduce(&mut [0.0; 3], Reduce::Max),
        },
    ];
    comm.disable_check();
    for result in results {
        let found = match result {
            Err(Error::Disagreement { rank, .. }) => Some(rank),
            _ => None,
        };
        assert_eq!(found, Some(last), "the rank that the check names");
    }
    Ok(())
}

fn texts(comm: &Comm) -> Result<()> {
    comm.require_same("texts", "of all")?;
    let last = comm.size() - 1;
    let own = match comm.rank() == last {
        true => "of another length",
        false => "of most",
    };
    let error = comm
        .require_same("texts", own)
        .err()
        .map(|error| error.to_string());
    let error = error.unwrap_or_default();
    assert!(
        error.contains(&format!("rank {last} has of another length")),
        "{error}"
    );
    Ok(())
}
