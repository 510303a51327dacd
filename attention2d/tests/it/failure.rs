//! A rank that fails ends all ranks, and the error names it.

use tessera_attention2d::{Comm, Error, Reduce, Result, threads};

fn message(work: impl Fn(Comm) -> Result<()> + Sync) -> String {
    let error = threads::run(4, work).expect_err("a rank failed");
    error.to_string()
}

#[test]
fn a_rank_that_panics_ends_the_others_waiting() {
    let text = message(|comm| {
        assert!(comm.rank() != 2, "no more");
        comm.barrier()
    });
    assert_eq!(text, "rank 2 failed: no more");
}

#[test]
fn a_rank_that_gives_up_ends_the_others_waiting() {
    let text = message(|comm| {
        let line = comm.split(comm.rank() / 2, 0)?;
        if comm.rank() == 3 {
            return Err(Error::Rank {
                rank: 3,
                cause: "no disk".into(),
            });
        }
        line.all_reduce(&mut [1.0], Reduce::Sum)
    });
    assert_eq!(text, "rank 3 failed: no disk");
}

#[test]
fn with_the_check_a_shape_that_differs_is_reported_before_any_message() {
    let text = message(|comm| {
        comm.enable_check();
        let length = if comm.rank() == 1 { 3 } else { 2 };
        comm.all_reduce(&mut vec![0.0; length], Reduce::Sum)
    });
    assert_eq!(
        text,
        "collectives differ: rank 1 has all_reduce[3, 0], rank 0 has all_reduce[2, 0]"
    );
    let text = message(|comm| {
        comm.enable_check();
        let column = comm.split(comm.rank() % 2, comm.rank())?;
        match comm.rank() {
            3 => column.all_gather(&[1_u8], &[1, 1]).map(|_| ()),
            _ => column.barrier(),
        }
    });
    assert!(
        text.contains("rank 3 has all_gather[1, 1], rank 1 has barrier[]"),
        "{text}"
    );
    let text = message(|comm| {
        comm.enable_check();
        let sent = vec![0_u8; if comm.rank() == 0 { 5 } else { 4 }];
        comm.send_recv(comm.ring_forward(), &sent, 4).map(|_| ())
    });
    assert!(
        text.contains("rank 1 has 4 values expected from it, rank 0 has 5 values to send"),
        "{text}"
    );
}

#[test]
fn without_the_check_a_length_that_differs_does_not_hang() {
    let text = message(|comm| {
        let counts = if comm.rank() == 1 {
            [1, 1, 1, 2]
        } else {
            [1; 4]
        };
        let own = [1_u8; 2];
        comm.all_gather(&own[..counts[comm.rank()]], &counts)
            .map(|_| ())
    });
    assert!(
        text.starts_with(
            "rank 1 failed: a message of 1 bytes came where 2 were expected; turn on the check"
        ),
        "{text}"
    );
}
