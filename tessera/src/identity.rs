//! What two things are the same by: digests of models and of data sets.

use crate::device::Device;
use crate::digest::{hexadecimal, sha256_of_files};
use crate::error::Result;
use crate::hub;
use crate::model::model_folder;
use crate::vae::open_vae;
use sha2::{Digest, Sha256};
use std::path::Path;
use tessera_checkpoint::weights_in;
use tessera_pictures::dataset::{Dataset, spaced};
use tessera_tokenizer::ImageTokenizer;
use tessera_weights::Weights;

/// SHA-256 of the weights of a model's tokenizer: of `vae`, or of the one in the model's folder, if there is one.
///
/// # Errors
/// When they cannot be read.
pub fn sha256_of_tokenizer(model: &Path, vae: Option<&Path>, device: &Device) -> Result<String> {
    let files = match vae {
        Some(vae) => open_vae(vae, None, device)?.files,
        None => {
            let path = hub::locate(model)?;
            let folder = model_folder(&path).unwrap_or(path);
            weights_in(&folder.join("vae")).into_iter().collect()
        }
    };
    sha256_of_files(&files)
}

/// Elements of the largest tensor that a digest of weights reads whole.
const READ: usize = 1 << 20;
/// Elements that it reads of a larger one, so that opening a model of gigabytes reads little twice.
const SPACED: usize = 1 << 12;

/// What a model's weights are known by in the pictures that it drew: 16 digits of SHA-256 over names, shapes and
/// values, whatever file or type they are stored in. Of large tensors evenly spaced values are read.
///
/// # Errors
/// When a tensor cannot be read.
pub(crate) fn digest_of(weights: &Weights) -> Result<String> {
    let mut hasher = Sha256::new();
    for (name, weight) in weights.iter() {
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name);
        hasher.update((weight.shape().len() as u64).to_le_bytes());
        for &side in weight.shape() {
            hasher.update((side as u64).to_le_bytes());
        }
        let values = match weight.shape().iter().product::<usize>() <= READ {
            true => weight.values()?,
            false => weight.spaced_values(SPACED)?.into(),
        };
        for values in values.chunks(1 << 10) {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes());
            hasher.update(bytes.collect::<Vec<u8>>());
        }
    }
    Ok(hexadecimal(&hasher.finalize()[..8]))
}

/// What a tokenizer's weights are known by in a calibration, whatever file, names or type they are stored in: 16 digits
/// of SHA-256, as of a model's.
///
/// # Errors
/// None of a tokenizer in memory.
pub fn digest_of_tokenizer(tokenizer: &dyn ImageTokenizer) -> Result<String> {
    digest_of(&tokenizer.weights())
}

/// Values of images that a digest of a data set reads, so that it takes a second at most where reading is decoding.
const DIGESTED: usize = 1 << 26;

/// SHA-256 of a data set: the names of its classes, its labels, and its images, each value rounded to 8 bits. Of images
/// with more values than 2^26 together as many are read, evenly spaced.
///
/// # Errors
/// When an image cannot be read.
pub fn sha256_of_data(data: &dyn Dataset) -> Result<String> {
    let mut hasher = Sha256::new();
    for name in data.class_names() {
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name);
    }
    hasher.update((data.len() as u64).to_le_bytes());
    for index in 0..data.len() {
        hasher.update((data.label(index) as u64).to_le_bytes());
    }
    if !data.is_empty() {
        let values = data.image(0)?.len().max(1);
        for index in spaced(data.len(), (DIGESTED / values).max(1)) {
            let image = data.image(index)?;
            let (channels, height, width) = image.dim();
            for side in [channels, height, width] {
                hasher.update((side as u64).to_le_bytes());
            }
            let levels = image
                .iter()
                .map(|value| (value * 127.5 + 127.5).round() as u8);
            hasher.update(levels.collect::<Vec<u8>>());
        }
    }
    Ok(hexadecimal(&hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;
    use tessera_weights::Weight;

    struct Gray {
        names: Vec<String>,
        labels: Vec<usize>,
        values: Vec<f32>,
    }

    impl Dataset for Gray {
        fn name(&self) -> &str {
            "gray"
        }

        fn len(&self) -> usize {
            self.labels.len()
        }

        fn label(&self, index: usize) -> usize {
            self.labels[index]
        }

        fn class_names(&self) -> &[String] {
            &self.names
        }

        fn image(&self, index: usize) -> tessera_pictures::Result<Array3<f32>> {
            Ok(Array3::from_elem((1, 2, 2), self.values[index]))
        }
    }

    #[test]
    fn weights_are_known_by_every_tensor_large_ones_too() {
        let digest = |large: Vec<f32>, small: f32| {
            let mut weights = Weights::default();
            weights.insert("large", Weight::new([large.len()], large));
            weights.insert("small", Weight::new([1], vec![small]));
            digest_of(&weights).unwrap()
        };
        let large = |value: f32| vec![value; READ + 3];
        let same = digest(large(0.5), 1.0);
        assert_eq!(same, digest(large(0.5), 1.0));
        assert_ne!(same, digest(large(0.25), 1.0));
        assert_ne!(same, digest(large(0.5), 2.0));
        let mut ends = large(0.5);
        *ends.last_mut().unwrap() = 0.0;
        assert_ne!(same, digest(ends, 1.0));
        // As it always was: pictures say it of the models that drew them.
        assert_eq!(digest(vec![0.5, 0.25], 1.0), "01c05d70489488db");
    }

    #[test]
    fn a_data_set_is_known_by_names_labels_and_content() {
        let data = |names: [&str; 2], labels: &[usize], values: &[f32]| Gray {
            names: names.map(String::from).into(),
            labels: labels.to_vec(),
            values: values.to_vec(),
        };
        let of = |data: &Gray| sha256_of_data(data).unwrap();
        let same = of(&data(["a", "b"], &[0, 1], &[0.0, 0.5]));
        assert_eq!(same, of(&data(["a", "b"], &[0, 1], &[0.0, 0.5])));
        for other in [
            data(["a", "c"], &[0, 1], &[0.0, 0.5]),
            data(["a", "b"], &[1, 0], &[0.0, 0.5]),
            data(["a", "b"], &[0, 1], &[0.0, 0.6]),
            data(["a", "b"], &[0], &[0.0]),
        ] {
            assert_ne!(same, of(&other));
        }
    }
}
