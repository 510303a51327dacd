//! Attention divided between ranks: what is chosen, and what a simulation says of it.

use crate::world::{failure, json, stdout};

#[test]
fn attn_plan_chooses_a_grid_by_the_heads_of_keys() {
    let args = "attn plan --ranks 64 --tokens 131072 --heads 40 --causal \
                --network h100-1,latency=0,launch=0,flops=1e30 --json";
    for (kv_heads, expected) in [(40, "attention2d 8x8"), (5, "attention2d 16x4")] {
        let args = format!("{args} --kv-heads {kv_heads}");
        let report = json(&args, &[], "tessera.attn.plan/v1");
        let methods = report["methods"].as_array().unwrap();
        assert_eq!(methods[0]["name"], expected, "{report}");
        let seconds = methods
            .iter()
            .map(|row| row["seconds"].as_f64().unwrap() as f32);
        assert!(seconds.is_sorted());
        // Seven grids with and without overlap, two rings, and all keys gathered; 64 ranks do not divide the heads.
        assert_eq!(methods.len(), 17);
    }
    let table = stdout("attn plan --ranks 4 --tokens 4096", &[]);
    for word in ["zigzag ring", "ulysses", "attention2d 2x2", "400.0 GB/s"] {
        assert!(table.contains(word), "{word}: {table}");
    }
}

#[test]
fn attn_plan_refuses_what_cannot_be() {
    let error = failure(
        1,
        "attn plan --ranks 4 --tokens 64 --heads 6 --kv-heads 4",
        &[],
    );
    assert!(
        error.contains("a multiple of the 4 of keys and values, found 6"),
        "{error}"
    );
    let error = failure(2, "attn plan --ranks 4 --tokens 64 --network abacus", &[]);
    assert!(error.contains("one of a100, h100"), "{error}");
    let error = failure(2, "attn plan --ranks 0 --tokens 64", &[]);
    assert!(error.contains("of 1 to 65536"), "{error}");
    let error = failure(
        1,
        "attn bench --threads-as-ranks 2 --tokens 4294967296",
        &[],
    );
    assert!(error.contains("elements or fewer"), "{error}");
}

#[test]
fn attn_simulate_draws_speed_ups_that_grow_with_the_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("speed-up.svg");
    let args =
        "attn simulate --max-ranks 256 --tokens 65536 --causal --network a100 --json -q -o {}";
    let report = json(args, &[&file], "tessera.attn.simulate/v1");
    let points = report["points"].as_array().unwrap();
    let ranks: Vec<_> = points
        .iter()
        .map(|point| point["ranks"].as_u64().unwrap())
        .collect();
    assert_eq!(ranks, [4, 4, 4, 16, 16, 16, 64, 64, 64, 256, 256, 256]);
    let planned = || points.iter().skip(2).step_by(3);
    assert!(planned().all(|point| point["name"].as_str().unwrap().starts_with("attention2d")));
    let speed_ups = planned().map(|point| point["speed_up"].as_f64().unwrap());
    assert!(speed_ups.is_sorted(), "{report}");
    let svg = std::fs::read_to_string(&file).unwrap();
    for word in ["Attention2D", "zigzag Ring", "ranks", "256"] {
        assert!(svg.contains(word), "{word}");
    }
    let error = failure(1, args, &[&file]);
    assert!(error.contains("already exists"), "{error}");
}

#[test]
fn attn_simulate_holds_the_figure_of_the_paper_against_the_model() {
    let report = json(
        "attn simulate --figure a100 --json",
        &[],
        "tessera.attn.figure/v1",
    );
    assert_eq!(report["bars"].as_array().unwrap().len(), 30);
    for (name, most) in [
        ("median_error", 0.12),
        ("worst_error", 0.30),
        ("median_time_error", 0.08),
        ("worst_time_error", 0.25),
    ] {
        assert!(
            report[name].as_f64().unwrap() < most,
            "{name}: {}",
            report[name]
        );
    }
    assert!(stdout("attn simulate --figure a100", &[]).contains("| 13B | 64 | 131072 |"));
}
