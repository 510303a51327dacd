//! Models on disk.

use super::tiny;
use burn::tensor::Device;
use std::ops::ControlFlow;
use tessera_gen_ar::{BUFFERS, Error, GenAr};
use tessera_weights::Weight;

/// A folder of this process that is removed in the end.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("tessera-gen-ar-{}-{name}", std::process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_saved_model_loads_as_it_was() {
    let (folder, device, model) = (Folder::new("save"), Device::flex(), tiny::model());
    model
        .save_dir(&folder.0, tessera_weights::WeightDtype::F32)
        .unwrap();
    let loaded = GenAr::load_dir(&folder.0, &device).unwrap();
    assert_eq!(loaded.config(), model.config());
    assert_eq!(
        loaded.weights().iter().collect::<Vec<_>>(),
        model.weights().iter().collect::<Vec<_>>()
    );
    let read = |name| std::fs::read(folder.0.join(name)).unwrap();
    let bytes =
        GenAr::from_bytes(&read("config.json"), read("model.safetensors"), &device).unwrap();
    let image = |model: &GenAr| {
        let go = &mut |_: tessera_gen_ar::SamplingStep<'_>| ControlFlow::Continue(());
        model
            .generate(&tiny::requests(1), &tiny::sampling(3, 2.0, 1.0), go)
            .unwrap()
    };
    assert_eq!(image(&bytes), image(&model));
    let before = read("model.safetensors");
    loaded
        .save_dir(&folder.0, tessera_weights::WeightDtype::F32)
        .unwrap();
    assert_eq!(read("model.safetensors"), before);
}

#[test]
fn a_model_whose_dimensions_differ_loads_as_it_was() {
    let device = Device::flex();
    for (number, config) in (0..).zip(tiny::configs()) {
        let folder = Folder::new(&format!("widths-{number}"));
        let model = tiny::model_on(&config, &device);
        model
            .save_dir(&folder.0, tessera_weights::WeightDtype::F32)
            .unwrap();
        let loaded = GenAr::load_dir(&folder.0, &device).unwrap();
        assert_eq!(loaded.config(), &config);
        assert_eq!(
            loaded.weights().iter().collect::<Vec<_>>(),
            model.weights().iter().collect::<Vec<_>>()
        );
        let shapes: std::collections::BTreeMap<_, _> = model
            .weights()
            .iter()
            .map(|(name, weight)| (name.to_owned(), weight.shape().to_vec()))
            .collect();
        assert_eq!(model.shapes(), shapes);
    }
}

#[test]
fn a_checkpoint_is_used_whole_or_refused() {
    let (device, config, model) = (Device::flex(), tiny::config(), tiny::model());
    let mut missing = model.weights();
    missing.take("channel_blocks.1.attn.q_norm.weight");
    let error = GenAr::from_weights(&config, missing, &device).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("channel_blocks.1.attn.q_norm.weight"),
        "{error}"
    );
    let mut other = config.clone();
    other.ch.width = 24;
    let error = GenAr::from_weights(&other, model.weights(), &device).unwrap_err();
    assert!(matches!(error, Error::Weights(_)), "{error}");
}

#[test]
fn the_state_dict_has_the_buffers_of_the_authors_module() {
    let (device, config, model) = (Device::flex(), tiny::config(), tiny::model());
    let weights = model.weights();
    let buffer = |name: &str| weights.get(name).unwrap().values().unwrap().into_owned();
    let shapes = BUFFERS.map(|name| weights.get(name).unwrap().shape().to_vec());
    assert_eq!(shapes, [vec![8], vec![9], vec![5, 5]]);
    let normalized: Vec<f32> = model.token_values().into_data().iter().collect();
    for (gamma, value) in buffer("reconstruction_values").iter().zip(normalized) {
        assert_eq!((gamma + 3.0) / 6.0 * 10.0 - 5.0, value);
    }
    let mask = buffer("channel_mask");
    for (row, column) in (0..5).flat_map(|row| (0..5).map(move |column| (row, column))) {
        let masked = mask[row * 5 + column] == f32::NEG_INFINITY;
        assert_eq!(masked, column > row, "{row}, {column}");
    }
    // Those that follow from the config may be absent; the values may not.
    for (name, needed) in BUFFERS.into_iter().zip([true, false, false]) {
        let mut without = weights.clone();
        without.take(name);
        let loaded = GenAr::from_weights(&config, without, &device);
        assert_eq!(loaded.is_err(), needed, "{name}");
    }
    let mut short = weights.clone();
    short.insert(BUFFERS[0], Weight::new([4], vec![0.0, 1.0, 2.0, 3.0]));
    let error = GenAr::from_weights(&config, short, &device).unwrap_err();
    assert!(
        matches!(error, Error::Values { expected: 8, .. }),
        "{error}"
    );
}

#[test]
fn halving_the_precision_leaves_the_table_exact() {
    let (folder, model) = (Folder::new("half"), tiny::model());
    model
        .save_dir(&folder.0, tessera_weights::WeightDtype::F16)
        .unwrap();
    let loaded = GenAr::load_dir(&folder.0, &Device::flex()).unwrap();
    for name in BUFFERS {
        assert_eq!(
            loaded.weights().get(name),
            model.weights().get(name),
            "{name}"
        );
    }
    assert_ne!(
        loaded.weights().get("z_proj.weight"),
        model.weights().get("z_proj.weight")
    );
}

#[test]
fn a_broken_config_names_its_file() {
    let folder = Folder::new("broken");
    std::fs::create_dir_all(&folder.0).unwrap();
    std::fs::write(folder.0.join("config.json"), "{}").unwrap();
    let error = GenAr::load_dir(&folder.0, &Device::flex()).unwrap_err();
    assert!(error.to_string().contains("config.json"), "{error}");
    let error = GenAr::load_dir(folder.0.join("absent"), &Device::flex()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Checkpoint(tessera_checkpoint::Error::Io { .. })
        ),
        "{error}"
    );
}
