//! Models on disk.

use super::tiny;
use burn::tensor::Device;
use std::ops::ControlFlow;
use tessera_gen_ar::{Error, GenAr};
use tessera_train::Weight;

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
        .save_dir(&folder.0, tessera_train::WeightDtype::F32)
        .unwrap();
    let loaded = GenAr::load_dir(&folder.0, &device).unwrap();
    assert_eq!(loaded.config(), model.config());
    assert_eq!(
        loaded.weights().iter().collect::<Vec<_>>(),
        model.weights().iter().collect::<Vec<_>>()
    );
    let read = |name| std::fs::read(folder.0.join(name)).unwrap();
    let bytes =
        GenAr::from_bytes(&read("config.json"), &read("model.safetensors"), &device).unwrap();
    let image = |model: &GenAr| {
        let go = &mut |_: tessera_gen_ar::StepInfo<'_>| ControlFlow::Continue(());
        model
            .generate(&tiny::requests(1), &tiny::sampling(3, 2.0, 1.0), go)
            .unwrap()
    };
    assert_eq!(image(&bytes), image(&model));
    let before = read("model.safetensors");
    loaded
        .save_dir(&folder.0, tessera_train::WeightDtype::F32)
        .unwrap();
    assert_eq!(read("model.safetensors"), before);
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
fn buffers_of_released_checkpoints_are_understood() {
    let (device, config) = (Device::flex(), tiny::config());
    let table = tessera_quantize::Table::gaussian(3, 3.0)
        .unwrap()
        .values()
        .to_vec();
    let quantizer = tessera_quantize::Quantizer::new(tessera_quantize::QuantizerConfig {
        bits: 3,
        ..Default::default()
    });
    let mut weights = tiny::model().weights();
    weights.take("token_values");
    weights.insert("reconstruction_values", Weight::new([8], table));
    weights.insert("boundaries", Weight::new([9], vec![0.0; 9]));
    weights.insert("channel_mask", Weight::new([5, 5], vec![0.0; 25]));
    let model = GenAr::from_weights(&config, weights.clone(), &device).unwrap();
    assert_eq!(
        model.weights().get("token_values").unwrap().data,
        quantizer.unwrap().values()
    );
    weights.insert(
        "reconstruction_values",
        Weight::new([4], vec![0.0, 1.0, 2.0, 3.0]),
    );
    let error = GenAr::from_weights(&config, weights, &device).unwrap_err();
    assert!(
        matches!(error, Error::Values { expected: 8, .. }),
        "{error}"
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
    assert!(matches!(error, Error::Io { .. }), "{error}");
}
