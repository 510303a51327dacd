//! Tokens on disk: there and back, and never read by another model.

use crate::world::{WORLD, failure, json, stdout};
use tessera::pictures::read;

#[test]
fn decoded_tokens_are_the_quantized_reconstructions() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    stdout(
        "tokenize --data {} -m {} -o {} --shard-size 4",
        &[&WORLD.pictures(), &WORLD.model(), &at("tokens")],
    );
    let found = json("inspect {} --json", &[&at("tokens")], "tessera.inspect/v1");
    assert_eq!(found["kind"], "tokens");
    assert_eq!(
        found["manifest"]["class_names"],
        serde_json::json!(["disc", "square"])
    );
    assert_eq!(found["manifest"]["shards"].as_array().unwrap().len(), 2);
    stdout(
        "decode -i {} -m {} -o {} --grid",
        &[&at("tokens"), &WORLD.model(), &at("decoded")],
    );
    stdout(
        "reconstruct --data {} -m {} --bits 4 -o {}",
        &[&WORLD.pictures(), &WORLD.model(), &at("direct")],
    );
    for i in 0..6 {
        let decoded = read(at("decoded").join(format!("{i:05}.png")), None).unwrap();
        let direct = read(at("direct").join(format!("{i:05}-4bit.png")), None).unwrap();
        assert_eq!(decoded, direct, "picture {i}");
    }
    assert!(at("decoded/grid.png").is_file());
}

#[test]
fn tokens_of_single_files_have_no_labels() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    stdout(
        "tokenize -i {} {} -m {} -o {}",
        &[&WORLD.disc(), &WORLD.disc(), &WORLD.model(), &tokens],
    );
    let found = json(
        "inspect {} --json",
        &[&tokens.join("tokens-00000.safetensors")],
        "tessera.inspect/v1",
    );
    let tensors = serde_json::json!([{ "name": "ids", "dtype": "U8", "shape": [2, 64, 4] }]);
    assert_eq!(
        (&found["tensors"], &found["architecture"]),
        (&tensors, &"tokens".into())
    );
}

#[test]
fn tokens_of_another_vae_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    stdout(
        "tokenize -i {} -m {} -o {}",
        &[&WORLD.disc(), &WORLD.model(), &tokens],
    );
    let manifest = tokens.join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["vae_sha256"] = "0".repeat(64).into();
    std::fs::write(&manifest, value.to_string()).unwrap();
    let out = folder.path().join("out");
    let error = failure(
        1,
        "decode -i {} -m {} -o {}",
        &[&tokens, &WORLD.model(), &out],
    );
    assert!(
        error.contains("another VAE") && error.contains("vae_sha256"),
        "{error}"
    );
    value = serde_json::from_str(&text).unwrap();
    value["quantizer"]["bits"] = 5.into();
    std::fs::write(&manifest, value.to_string()).unwrap();
    let error = failure(
        1,
        "decode -i {} -m {} -o {}",
        &[&tokens, &WORLD.model(), &out],
    );
    assert!(error.contains("quantizer"), "{error}");
    value = serde_json::from_str(&text).unwrap();
    value["img_size"] = 65536.into();
    std::fs::write(&manifest, value.to_string()).unwrap();
    let error = failure(
        1,
        "decode -i {} -m {} -o {}",
        &[&tokens, &WORLD.model(), &out],
    );
    assert!(
        error.contains("manifest.json: img_size: expected"),
        "{error}"
    );
    value = serde_json::from_str(&text).unwrap();
    value["pictures"][0] = "../escaped".into();
    std::fs::write(&manifest, value.to_string()).unwrap();
    let error = failure(
        1,
        "decode -i {} -m {} -o {}",
        &[&tokens, &WORLD.model(), &out],
    );
    assert!(error.contains("../escaped"), "{error}");
}
