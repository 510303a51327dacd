//! What `tessera route` says of the tiny diffusion transformer with experts.

use crate::dit::RUN;
use crate::world::{WORLD, failure, json, stdout};
use serde_json::Value;

/// Figures that must hold whatever was routed: `tokens` in a picture, experts between them as they are counted
/// anywhere.
fn check(report: &Value, pictures: usize, times: usize) {
    let number = |value: &Value| value.as_f64().unwrap();
    let list = |value: &Value| value.as_array().unwrap().clone();
    assert_eq!(report["experts"], 4);
    assert_eq!(report["k"], 2.0);
    assert_eq!(report["tokens_per_picture"], 16);
    assert_eq!(list(&report["pictures"]).len(), pictures);
    assert_eq!(list(&report["times"]).len(), times);
    let layers = list(&report["layers"]);
    assert_eq!(layers.len(), 2);
    for layer in &layers {
        let load: f64 = list(&layer["load"]).iter().map(number).sum();
        assert!((load - 1.0).abs() < 1e-9, "{layer}");
        assert!(layer["threshold"].is_f64(), "{layer}");
        for share in ["without", "combination_usage"] {
            assert!((0.0..=1.0).contains(&number(&layer[share])), "{layer}");
        }
        assert!((0.0..=3.0).contains(&number(&layer["max_vio"])), "{layer}");
    }
    let mean = number(&report["mean"]["mean_active"]);
    assert!(mean > 0.0 && mean <= 4.0, "{report}");
    for by in ["times", "pictures"] {
        let of: Vec<f64> = list(&report[by])
            .iter()
            .map(|one| number(&one["mean_active"]))
            .collect();
        let over = of.iter().sum::<f64>() / of.len() as f64;
        assert!((over - mean).abs() < 1e-9, "{by}: {over}, {mean} over all");
    }
    let at: Vec<f64> = list(&report["times"])
        .iter()
        .map(|time| number(&time["time"]))
        .collect();
    assert!(
        at.is_sorted() && at[0] >= 0.0 && at[times - 1] <= 1000.0,
        "{at:?}"
    );
}

#[test]
fn routes_of_drawn_pictures_add_up_and_do_not_depend_on_the_batch() {
    let (run, folder) = (&RUN.1, tempfile::tempdir().unwrap());
    let out = folder.path().join("out");
    let args = "route -m {} -n 2 --seed 3 --steps 5 --json";
    let report = json(&format!("{args} -o {{}}"), &[run, &out], "tessera.route/v1");
    check(&report, 4, 5);
    assert_eq!(report["source"]["from"], "drawn");
    assert_eq!(report["classes"][1]["name"], "square");
    for name in ["heatmap.png", "active-by-time.svg", "load.svg"] {
        assert!(out.join(name).metadata().unwrap().len() > 500, "{name}");
    }
    let alone = json(
        &format!("{args} --batch-size 1"),
        &[&run.join("model")],
        "tessera.route/v1",
    );
    assert_eq!(report, alone);
    let error = failure(1, "route -m {} --steps 2 -o {}", &[run, &out]);
    assert!(error.contains("--overwrite"), "{error}");
    // More pictures than the sheet has room for, at one time.
    let many = "route -m {} -n 6 --steps 1 -o {}";
    stdout(many, &[run, &folder.path().join("many")]);
    let table = stdout("route -m {} -c disc --steps 12", &[run]);
    assert!(
        table.contains("MaxVio") && table.contains("900-1000"),
        "{table}"
    );
}

#[test]
fn routes_of_given_pictures_add_up() {
    let (run, folder) = (&RUN.1, tempfile::tempdir().unwrap());
    let out = folder.path().join("out");
    let args = "route -m {} -i {} -c disc --times 3 --json -o {}";
    let report = json(
        args,
        &[run, &WORLD.pictures().join("disc"), &out],
        "tessera.route/v1",
    );
    check(&report, 3, 3);
    assert_eq!(report["source"]["from"], "pictures");
    assert_eq!(report["pictures"][0]["name"], "disc0");
    assert!(out.join("heatmap.png").is_file());
    let args = "route -m {} -i {} -c disc,square";
    let error = failure(1, args, &[run, &WORLD.disc()]);
    assert!(error.contains("of one class"), "{error}");
    failure(2, "route -m {} -i {} --steps 3", &[run, &WORLD.disc()]);
    failure(2, "route -m {} --times 3", &[run]);
}

#[test]
fn a_model_without_experts_is_refused_by_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let dense = folder.path().join("dense");
    let train = "train dit --data {} --img-size 16 --patch 4 --size 16,1,2 --batch-size 3 --max-steps 1 \
                 --steps 1 -o {}";
    stdout(train, &[&WORLD.pictures(), &dense]);
    let error = failure(1, "route -m {}", &[&dense]);
    assert!(error.contains("the dense one `tessera-dit`"), "{error}");
    let error = failure(1, "route -m {}", &[&WORLD.run()]);
    assert!(error.contains("the autoregressive model"), "{error}");
    let error = failure(1, "route -m {}", &[&folder.path().join("nothing")]);
    assert!(error.contains("nothing"), "{error}");
}
