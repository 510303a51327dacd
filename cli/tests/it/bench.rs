//! What the program measures of itself.

use crate::world::{failure, json, stdout};
use serde_json::Value;

#[test]
fn bench_generate_tells_the_parts_apart() {
    for dtype in ["f32", "bf16"] {
        let args = format!("bench generate --steps 2 --batch-size 3 --dtype {dtype} --json -q");
        let report = json(&args, &[], "tessera.bench.generate/v1");
        let parts = report["parts"].as_array().unwrap();
        let names: Vec<_> = parts
            .iter()
            .map(|part| part["part"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["encoder", "decoder", "head", "VAE"]);
        let seconds = |value: &Value| value["seconds"].as_f64().unwrap();
        let sum: f64 = parts.iter().map(seconds).sum();
        assert!((sum - seconds(&report)).abs() < 1e-9, "{report}");
        assert!(
            parts[..3]
                .iter()
                .all(|part| part["gflop"].as_f64().unwrap() > 0.0),
            "{report}"
        );
        assert!((report["images_per_second"].as_f64().unwrap() * sum - 3.0).abs() < 1e-9);
        assert_eq!(
            (&report["threads"], &report["dtype"]),
            (&1.into(), &dtype.into())
        );
    }
}

#[test]
fn bench_ops_prints_a_line_per_name_and_refuses_others() {
    let lines = stdout(
        "bench ops layer-norm attention-16x --seconds 0.01 --json",
        &[],
    );
    let names: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let names: Vec<_> = names
        .iter()
        .map(|line| line["case"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["attention-16x1024x64", "layer-norm-2560x1024"]);

    let error = failure(1, "bench ops tomography", &[]);
    assert!(
        error.contains("no such name: tomography; there are matmul-1024"),
        "{error}"
    );
    let error = failure(2, "bench generate --repeats 0", &[]);
    assert!(
        error.contains("'0' for '--repeats <N>': expected a whole number of 1"),
        "{error}"
    );
}

/// The peer has the same names, so that every ratio is printed.
#[test]
fn the_peer_measures_the_same_cases() {
    let peer = include_str!("../../../benches/peer/peer.py");
    let error = failure(1, "bench ops tomography", &[]);
    let known = error.split("there are ").nth(1).unwrap().trim();
    for name in known.split(", ") {
        assert!(
            peer.contains(&format!("\"{name}\"")),
            "{name} is not in peer.py"
        );
    }
}
