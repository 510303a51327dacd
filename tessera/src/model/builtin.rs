//! The model that is built in, trained here on photographs of clothes: its files, by their paths in the folder.

// Statics, of which there is one copy each; constants would be copied to where they are used.
macro_rules! file {
    ($path:literal) => {
        include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../models/clothing/",
            $path
        ))
    };
}

pub(crate) static CARD: &[u8] = file!("model.json");
pub(crate) static CONFIG: &[u8] = file!("config.json");
pub(crate) static WEIGHTS: &[u8] = file!("model.safetensors");
pub(crate) static VAE_WEIGHTS: &[u8] = file!("vae/model.safetensors");
pub(crate) static CALIBRATION: &[u8] = file!("calibration.json");
pub(crate) static CLASSIFIER_CONFIG: &[u8] = file!("judge/config.json");
pub(crate) static CLASSIFIER_WEIGHTS: &[u8] = file!("judge/model.safetensors");
