//! Models on disk, under DiT's names.

use super::tiny;
use burn::tensor::Device;
use std::collections::BTreeMap;
use tessera_gen_dit::{Dit, DitConfig, Error, WEIGHTS_FILE};
use tessera_weights::{Weight, WeightDtype, Weights};

/// The names and shapes of a state dict of DiT-S/2, L/2, … as released: latents of 4 × 32 × 32, 1,000 classes and none.
fn of_dit([width, depth, patch]: [usize; 3]) -> BTreeMap<String, Vec<usize>> {
    let mut rows: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut linear = |name: &str, [inputs, outputs]: [usize; 2]| {
        rows.insert(format!("{name}.weight"), vec![outputs, inputs]);
        rows.insert(format!("{name}.bias"), vec![outputs]);
    };
    linear("t_embedder.mlp.0", [256, width]);
    linear("t_embedder.mlp.2", [width, width]);
    for i in 0..depth {
        linear(&format!("blocks.{i}.attn.qkv"), [width, 3 * width]);
        linear(&format!("blocks.{i}.attn.proj"), [width, width]);
        linear(&format!("blocks.{i}.mlp.fc1"), [width, 4 * width]);
        linear(&format!("blocks.{i}.mlp.fc2"), [4 * width, width]);
        linear(
            &format!("blocks.{i}.adaLN_modulation.1"),
            [width, 6 * width],
        );
    }
    linear("final_layer.linear", [width, patch * patch * 8]);
    linear("final_layer.adaLN_modulation.1", [width, 2 * width]);
    let side = 32 / patch;
    for (name, shape) in [
        ("x_embedder.proj.weight", vec![width, 4, patch, patch]),
        ("x_embedder.proj.bias", vec![width]),
        ("y_embedder.embedding_table.weight", vec![1001, width]),
        ("pos_embed", vec![1, side * side, width]),
    ] {
        rows.insert(name.into(), shape);
    }
    rows
}

const S_2: [usize; 3] = [384, 12, 2];
const XL_2: [usize; 3] = [1152, 28, 2];

#[test]
fn names_and_shapes_are_those_of_dits_checkpoints() {
    for (name, sizes) in [
        ("dit-s/2", S_2),
        ("dit-b/4", [768, 12, 4]),
        ("dit-xl/2", XL_2),
    ] {
        let config: DitConfig = name.parse().unwrap();
        let expected = of_dit(sizes);
        assert_eq!(config.init(0, &Device::flex()).shapes(), expected, "{name}");
    }
    let s = of_dit(S_2);
    assert_eq!(s.len(), 12 * 10 + 12);
    let known = [
        ("pos_embed", vec![1, 256, 384]),
        ("final_layer.linear.weight", vec![32, 384]),
        ("x_embedder.proj.weight", vec![384, 4, 2, 2]),
        ("y_embedder.embedding_table.weight", vec![1001, 384]),
        ("t_embedder.mlp.0.weight", vec![384, 256]),
    ];
    for (name, shape) in known {
        assert_eq!(s[name], shape, "{name}");
    }
    // DiT's table 1 has 33 million for S and 675 for XL.
    let millions = |sizes| {
        let shapes = of_dit(sizes).into_values();
        let count: usize = shapes.map(|shape| shape.iter().product::<usize>()).sum();
        (count as f64 / 1e6).round()
    };
    assert_eq!([millions(S_2), millions(XL_2)], [33.0, 675.0]);
}

#[test]
fn experts_have_names_of_their_own() {
    let config = tiny::race(tiny::config(), true);
    let shapes = config.init(0, &Device::flex()).shapes();
    for (name, shape) in [
        ("blocks.1.moe.router.fc1.weight", vec![24, 24]),
        ("blocks.1.moe.router.gate.weight", vec![6, 24]),
        ("blocks.1.moe.router.target.weight", vec![12, 24]),
        ("blocks.1.moe.router.threshold", vec![1]),
    ] {
        assert_eq!(shapes.get(name), Some(&shape), "{name}");
    }
    assert!(!shapes.keys().any(|name| name.contains(".mlp.fc")));
    let used = tiny::model(&config).without_targets();
    let names: Vec<_> = used.shapes().into_keys().collect();
    assert!(!names.iter().any(|name| name.contains("target")));
    assert_eq!(names.len() + 4, shapes.len());
}

#[test]
fn a_model_that_was_saved_loads_and_saves_to_the_same_bytes() {
    let device = Device::flex();
    let mut configs: Vec<DitConfig> = tiny::all().into_iter().map(|(_, config)| config).collect();
    configs.push(DitConfig {
        depth: 1,
        .."dit-s/2".parse().unwrap()
    });
    for config in configs {
        let [one, two] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let model = config.init(5, &device);
        model.save_dir(one.path(), WeightDtype::F32).unwrap();
        let loaded = Dit::load_dir(one.path(), &device).unwrap();
        assert_eq!(loaded.config(), model.config());
        loaded.save_dir(two.path(), WeightDtype::F32).unwrap();
        for file in [WEIGHTS_FILE, "config.json"] {
            let [a, b] = [&one, &two].map(|dir| std::fs::read(dir.path().join(file)).unwrap());
            assert!(a == b, "{file} of {config:?}");
        }
    }
}

/// A model without its target heads is another model, whose config says so.
#[test]
fn a_model_without_target_heads_loads_as_it_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny::model(&tiny::race(tiny::config(), true)).without_targets();
    model.save_dir(folder.path(), WeightDtype::F32).unwrap();
    let loaded = Dit::load_dir(folder.path(), &Device::flex()).unwrap();
    assert_eq!(loaded.config(), model.config());
    assert!(loaded.weights().iter().eq(model.weights().iter()));
}

/// Weights of these shapes whose values nobody reads.
fn zeros(shapes: BTreeMap<String, Vec<usize>>) -> Weights {
    let mut weights = Weights::default();
    for (name, shape) in shapes {
        let values = vec![0.0; shape.iter().product()];
        weights.insert(name, Weight::new(shape, values));
    }
    weights
}

/// The tensors that tell, and one of each block.
fn telling(sizes: [usize; 3]) -> BTreeMap<String, Vec<usize>> {
    let mut shapes = of_dit(sizes);
    shapes.retain(|name, _| {
        !name.starts_with("blocks.") || name.contains("attn.qkv.bias") || {
            name.starts_with("blocks.0.") || name.ends_with("attn.qkv.weight")
        }
    });
    shapes
}

#[test]
fn a_config_is_inferred_from_released_weights() {
    let s: DitConfig = "dit-s/2".parse().unwrap();
    let weights = zeros(of_dit(S_2));
    assert!(DitConfig::fits(&weights));
    assert_eq!(DitConfig::infer(&weights).unwrap(), s);
    let xl = DitConfig::infer(&zeros(telling(XL_2))).unwrap();
    assert_eq!(xl, "dit-xl/2".parse().unwrap());
    let patch_8 = DitConfig::infer(&zeros(telling([1024, 24, 8]))).unwrap();
    assert_eq!(patch_8, "dit-l/8".parse().unwrap());

    let refused = |change: &dyn Fn(&mut Weights), named: &str, says: &str| {
        let mut weights = zeros(telling([384, 2, 2]));
        change(&mut weights);
        let error = DitConfig::infer(&weights).unwrap_err().to_string();
        assert!(error.contains(named) && error.contains(says), "{error}");
    };
    refused(
        &|weights| drop(weights.take("pos_embed")),
        "`pos_embed`",
        "absent",
    );
    let odd = |weights: &mut Weights| {
        weights.insert("pos_embed", Weight::new([1, 2, 384], vec![0.0; 768]));
    };
    refused(&odd, "`pos_embed`", "square");
    let narrow = |weights: &mut Weights| {
        let weight = Weight::new([400, 4, 2, 2], vec![0.0; 6400]);
        weights.insert("x_embedder.proj.weight", weight);
    };
    refused(&narrow, "`x_embedder.proj.weight`", "400");
    let no_classes = |weights: &mut Weights| {
        let weight = Weight::new([1, 384], vec![0.0; 384]);
        weights.insert("y_embedder.embedding_table.weight", weight);
    };
    refused(&no_classes, "`y_embedder.embedding_table.weight`", "1");
    let outputs = |weights: &mut Weights| {
        weights.insert(
            "final_layer.linear.weight",
            Weight::new([20, 384], vec![0.0; 7680]),
        );
    };
    refused(&outputs, "`final_layer.linear.weight`", "20");
}

#[test]
fn weights_of_another_depth_or_width_are_refused_by_name() {
    let device = Device::flex();
    let load = |config: &DitConfig, weights: Weights| {
        let loaded = Dit::from_weights(config, weights, &device, &mut |_| ());
        let error = loaded.unwrap_err();
        assert!(matches!(error, Error::Weights(_)), "{error:?}");
        println!("{error}");
        error.to_string()
    };
    let config = tiny::config();
    let deeper = DitConfig {
        depth: 12,
        ..config.clone()
    };
    let weights = tiny::model(&deeper).weights();
    let shallow = DitConfig {
        depth: 13,
        ..config.clone()
    };
    let error = load(&shallow, weights.clone());
    assert!(error.contains("10 missing (`blocks.12."), "{error}");
    let error = load(
        &DitConfig {
            depth: 11,
            ..config.clone()
        },
        weights,
    );
    assert!(error.contains("10 unexpected (`blocks.11."), "{error}");

    let wider = DitConfig {
        hidden_size: 36,
        ..config.clone()
    };
    let error = load(&config, tiny::model(&wider).weights());
    assert!(
        error.contains("`blocks.0.adaLN_modulation.1.bias` has shape [216], expected [144]"),
        "{error}"
    );
    let error = load(
        &tiny::race(config.clone(), true),
        tiny::model(&config).weights(),
    );
    assert!(error.contains("blocks.0.moe."), "{error}");
}

#[test]
fn a_broken_config_names_its_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), "{}").unwrap();
    let error = Dit::load_dir(folder.path(), &Device::flex()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Checkpoint(tessera_checkpoint::Error::Json { .. })
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains("config.json"), "{error}");
    let error = Dit::load_dir(folder.path().join("absent"), &Device::flex()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Checkpoint(tessera_checkpoint::Error::Io { .. })
        ),
        "{error:?}"
    );
}
