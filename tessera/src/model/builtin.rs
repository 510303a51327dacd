//! The model that is built in, which was trained here on Fashion-MNIST: its files, by their paths in the folder.

macro_rules! file {
    ($path:literal) => {
        include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../models/fashion/",
            $path
        ))
    };
}

pub(crate) const CARD: &[u8] = file!("model.json");
pub(crate) const CONFIG: &[u8] = file!("config.json");
pub(crate) const WEIGHTS: &[u8] = file!("model.safetensors");
pub(crate) const VAE_CONFIG: &[u8] = file!("vae/config.json");
pub(crate) const VAE_WEIGHTS: &[u8] = file!("vae/model.safetensors");
pub(crate) const CALIBRATION: &[u8] = file!("calibration.json");
pub(crate) const CLASSIFIER_CONFIG: &[u8] = file!("judge/config.json");
pub(crate) const CLASSIFIER_WEIGHTS: &[u8] = file!("judge/model.safetensors");
