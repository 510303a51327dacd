//! The tiny autoencoders: their arithmetic against the reference implementation, the names and folders they are read
//! from, and what they share with the KL-VAE.

use crate::devices::devices;
use crate::fixtures::shared;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use safetensors::SafeTensors;
use std::path::Path;
use tessera_backend::Rng;
use tessera_tokenizer::{
    Error, ImageTokenizer, KlVaeConfig, TinyAutoencoder, TinyAutoencoderConfig, load_tokenizer,
};
use tessera_weights::{WeightDtype, Weights};

/// The weights of TAEF2, as upstream publishes them.
pub(crate) fn taef2() -> Option<Weights> {
    let half = |half: &str| {
        let path = shared(&format!("../data/taef2/taef2_{half}.safetensors"))?;
        Some(Weights::read(path).unwrap())
    };
    Some(TinyAutoencoder::merge(half("encoder")?, half("decoder")?))
}

/// A tensor of a file of single precision.
pub(crate) fn golden(file: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(file).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(name).unwrap();
    assert_eq!(tensor.dtype(), safetensors::Dtype::F32, "{name}");
    let (values, _) = tensor.data().as_chunks();
    (
        tensor.shape().to_vec(),
        values
            .iter()
            .map(|&value| f32::from_le_bytes(value))
            .collect(),
    )
}

pub(crate) fn values(tensor: Tensor<4>) -> Vec<f32> {
    tensor.into_data().try_into_vec_as().unwrap()
}

fn images(seed: u64, shape: [usize; 4], device: &Device) -> Tensor<4> {
    Rng::new(seed, 0).uniform_tensor(shape, device) * 2.0 - 1.0
}

/// Fails where a value is off by more than `tolerance`; prints how far off the worst is.
fn assert_close(name: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{name}: number of values");
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let (index, worst) =
        differences.enumerate().fold(
            (0, 0f32),
            |w, d| if d.1 > w.1 || d.1.is_nan() { d } else { w },
        );
    println!("{name}: off by at most {worst:.3e}");
    assert!(
        worst <= tolerance,
        "{name}[{index}]: {} instead of {}",
        found[index],
        expected[index]
    );
}

/// Latents and reconstructions of photographs in `[0, 1]`, within 1e-3.
fn assert_taef2_parity(device: &Device) {
    let (Some(weights), Some(io)) = (taef2(), shared("taef2_io.safetensors")) else {
        return;
    };
    let tokenizer = TinyAutoencoder::from_weights(weights, device).unwrap();
    assert_eq!(tokenizer.config(), &TinyAutoencoderConfig::taef2());
    for photo in ["astronaut", "coffee"] {
        let golden = |what: &str| golden(&io, &format!("{photo}.{what}"));
        let (shape, image) = golden("image");
        let image: Tensor<4> = Tensor::from_data(TensorData::new(image, shape), device);
        let latents = tokenizer.encode(image * 2.0 - 1.0);
        let reconstruction = (tokenizer.decode(latents.clone()) + 1.0) * 0.5;
        for (what, found) in [("latent", latents), ("reconstruction", reconstruction)] {
            let name = format!("{photo}.{what}");
            assert_close(&name, &values(found), &golden(what).1, 1e-3);
        }
    }
}

#[test]
fn taef2_parity_with_the_reference_on_photographs() {
    for device in devices() {
        assert_taef2_parity(&device);
    }
}

#[test]
fn the_presets_have_the_sizes_of_the_released_checkpoints() {
    let halves = |config: TinyAutoencoderConfig| {
        let weights = Weights::of(&config.init(0, &Device::flex()).unwrap());
        ["encoder.", "decoder."].map(|half| {
            let rows = weights.iter().filter(|(name, _)| name.starts_with(half));
            let sizes = rows.map(|(_, weight)| weight.shape().iter().product::<usize>());
            sizes.fold((0, 0), |(tensors, size), more| (tensors + 1, size + more))
        })
    };
    let taesd = halves(TinyAutoencoderConfig::taesd());
    assert_eq!(taesd, [(67, 1_222_532), (67, 1_222_531)]);
    let taesd3 = halves(TinyAutoencoderConfig::taesd3());
    assert_eq!(taesd3, [(67, 1_229_456), (67, 1_229_443)]);
    let taef2 = halves(TinyAutoencoderConfig::taef2());
    assert_eq!(taef2, [(79, 1_338_528), (79, 1_338_499)]);
}

#[test]
fn a_network_is_printed_with_the_layers_that_have_no_weights() {
    let tokenizer = TinyAutoencoderConfig::taef2().init(0, &Device::flex());
    let printed = tokenizer.unwrap().to_string();
    for layer in ["Conv2d", "GroupNorm", "Block", "Relu", "Clamp", "Upsample"] {
        assert!(printed.contains(layer), "{layer} is not in {printed}");
    }
}

#[test]
fn the_initial_weights_depend_on_the_seed_alone() {
    let first_latents = |seed| {
        let tokenizer = TinyAutoencoderConfig::taef2()
            .init(seed, &Device::flex())
            .unwrap();
        values(tokenizer.encode(images(1, [1, 3, 16, 16], &Device::flex())))
    };
    assert_eq!(first_latents(1), first_latents(1));
    assert_ne!(first_latents(1), first_latents(2));
}

/// The two files of a folder.
fn files(folder: &Path) -> [Vec<u8>; 2] {
    ["config.json", "model.safetensors"].map(|name| std::fs::read(folder.join(name)).unwrap())
}

/// What a folder holds once the tokenizer is saved in it.
fn saved(tokenizer: &TinyAutoencoder, dtype: WeightDtype) -> [Vec<u8>; 2] {
    let folder = tempfile::tempdir().unwrap();
    tokenizer.save_dir(folder.path(), dtype).unwrap();
    files(folder.path())
}

#[test]
fn saving_loading_and_saving_again_gives_the_same_bytes() {
    let device = Device::flex();
    for config in [
        TinyAutoencoderConfig::taesd(),
        TinyAutoencoderConfig::taef2(),
    ] {
        for dtype in [WeightDtype::F32, WeightDtype::F16] {
            let folder = tempfile::tempdir().unwrap();
            let tokenizer = config.init(3, &device).unwrap();
            tokenizer.save_dir(folder.path(), dtype).unwrap();
            let loaded = TinyAutoencoder::load_dir(folder.path(), &device).unwrap();
            assert_eq!(loaded.config(), &config);
            assert!(saved(&loaded, dtype) == files(folder.path()), "{config:?}");
        }
    }
}

/// The names that diffusers gives the same tensors.
fn as_diffusers(mut weights: Weights) -> Weights {
    let mut renamed = Weights::default();
    renamed.insert_prefixed("encoder.layers.", weights.take_prefix("encoder."));
    for place in 1..20 {
        let layer = weights.take_prefix(&format!("decoder.{place}."));
        renamed.insert_prefixed(&format!("decoder.layers.{}.", place - 1), layer);
    }
    assert!(weights.is_empty());
    renamed
}

#[test]
fn one_file_two_files_and_the_names_of_diffusers_give_the_same_model() {
    let device = Device::flex();
    for config in [
        TinyAutoencoderConfig::taesd(),
        TinyAutoencoderConfig::taef2(),
    ] {
        let tokenizer = config.init(4, &device).unwrap();
        let expected = saved(&tokenizer, WeightDtype::F32);
        let one = Weights::of(&tokenizer);
        let mut halves = one.clone();
        let encoder = halves.take_prefix("encoder.");
        let decoder = halves.take_prefix("decoder.");
        assert!(encoder.get("0.weight").is_some() && decoder.get("1.weight").is_some());
        for (layout, weights) in [
            ("one file", one.clone()),
            ("two files", TinyAutoencoder::merge(encoder, decoder)),
            ("diffusers", as_diffusers(one)),
        ] {
            let loaded = TinyAutoencoder::from_weights(weights, &device).unwrap();
            assert_eq!(loaded.config(), &config, "{layout}");
            assert!(saved(&loaded, WeightDtype::F32) == expected, "{layout}");
        }
    }
}

/// The message for weights that were changed; whole ones make a model.
fn refusal(change: impl Fn(&mut Weights)) -> String {
    let device = Device::flex();
    let tokenizer = TinyAutoencoderConfig::taef2().init(0, &device).unwrap();
    let mut weights = Weights::of(&tokenizer);
    change(&mut weights);
    let error = TinyAutoencoder::from_weights(weights, &device).unwrap_err();
    assert!(matches!(error, Error::Weights(_)), "{error}");
    error.to_string()
}

#[test]
fn a_tensor_that_is_missing_misnamed_or_misshapen_is_named() {
    let rename = |weights: &mut Weights, from: &str, to: &str| {
        let weight = weights.take(from).unwrap();
        weights.insert(to, weight);
    };
    let message = refusal(|weights| {
        weights.take("encoder.11.pool.1.bias").unwrap();
    });
    assert!(
        message.contains("1 missing (`encoder.11.pool.1.bias`"),
        "{message}"
    );

    let message = refusal(|w| rename(w, "decoder.8.conv.2.weight", "decoder.8.conv2.weight"));
    assert!(
        message.contains("1 missing (`decoder.8.conv.2.weight`, nearest `decoder.8.conv2.weight`)"),
        "{message}"
    );
    let message = refusal(|w| rename(w, "encoder.14.bias", "decoder.14.bias"));
    assert!(
        message.contains("1 missing (`encoder.14.bias`"),
        "{message}"
    );

    // The decoder reads 32 latents, the encoder then gives 64.
    let message = refusal(|w| rename(w, "encoder.0.bias", "encoder.14.bias"));
    assert!(
        message.contains("`encoder.14.bias` has shape [64], expected [32]"),
        "{message}"
    );
    let message = refusal(|weights| *weights = Weights::default());
    assert!(message.contains("134 missing"), "{message}");

    // Diffusers' names are told as upstream's, but for one that is neither's.
    let message = refusal(|weights| {
        *weights = as_diffusers(weights.clone());
        weights.take("decoder.layers.0.bias").unwrap();
        rename(weights, "decoder.layers.18.bias", "decoder.layers.19.bias");
    });
    assert!(
        message.contains("2 missing (`decoder.1.bias`")
            && message.contains("1 unexpected (`decoder.layers.19.bias`"),
        "{message}"
    );
    // Of a mixture nothing is lost.
    let message = refusal(|weights| {
        let diffusers = as_diffusers(weights.clone());
        weights.insert_prefixed("", diffusers);
    });
    assert!(message.contains("158 unexpected"), "{message}");
}

#[test]
fn latent_channels_that_no_network_has_are_refused() {
    for latent_channels in [0, usize::MAX] {
        let config = TinyAutoencoderConfig {
            latent_channels,
            pooled: false,
        };
        let error = config.init(0, &Device::flex()).unwrap_err();
        assert!(
            matches!(
                &error,
                Error::TinyConfig {
                    field: "latent_channels",
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn a_folder_tells_which_tokenizer_is_in_it() {
    let device = Device::flex();
    let tokenizers: [Box<dyn ImageTokenizer>; 2] = [
        Box::new(
            KlVaeConfig::small(3, 16, 8, &[1, 2], 1, 4)
                .init(0, &device)
                .unwrap(),
        ),
        Box::new(TinyAutoencoderConfig::taef2().init(0, &device).unwrap()),
    ];
    for (tokenizer, sizes) in tokenizers.into_iter().zip([[4, 2], [32, 8]]) {
        let folder = tempfile::tempdir().unwrap();
        tokenizer.save_dir(folder.path(), WeightDtype::F32).unwrap();
        let loaded = load_tokenizer(folder.path(), &device).unwrap();
        assert_eq!(loaded.architecture(), tokenizer.architecture());
        assert_eq!([loaded.latent_channels(), loaded.downsampling()], sizes);
        assert_eq!(loaded.device(), device);
        let images = images(0, [1, 3, 16, 24], &device);
        let latents = loaded.encode(images.clone());
        assert_eq!(values(latents.clone()), values(tokenizer.encode(images)));
        assert_eq!(loaded.decode(latents).dims(), [1, 3, 16, 24]);
        assert!(loaded.check_image_size(16, 0).is_err());
        assert!(loaded.check_image_size(16, 25).is_err());
    }
}

#[test]
fn a_folder_of_another_kind_is_refused_by_name() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let load = || load_tokenizer(folder.path(), &device).unwrap_err();
    assert!(matches!(load(), Error::Missing { path } if path.ends_with("config.json")));

    let tokenizer = TinyAutoencoderConfig::taesd().init(0, &device).unwrap();
    tokenizer.save_dir(folder.path(), WeightDtype::F32).unwrap();
    let config = folder.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let rewrite = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        std::fs::write(&config, text.replace(from, to)).unwrap();
    };
    rewrite(TinyAutoencoder::KIND, "vq-gan");
    assert!(matches!(load(), Error::TokenizerKind { found, .. } if found == "vq-gan"));
    rewrite("}", "");
    assert!(matches!(load(), Error::TokenizerConfigFile { path, .. } if path == config));
    rewrite("latent_channels", "channels");
    assert!(matches!(load(), Error::TokenizerConfigFile { path, .. } if path == config));
    rewrite("\"latent_channels\": 4", "\"latent_channels\": 16");
    let message = load().to_string();
    assert!(
        message.contains("model.safetensors") && message.contains("`decoder.1.weight`"),
        "{message}"
    );
}

#[test]
fn an_images_latents_and_picture_do_not_depend_on_the_batch_around_it() {
    let device = Device::flex();
    let tokenizer = TinyAutoencoderConfig::taef2().init(5, &device).unwrap();
    let all = images(1, [3, 3, 16, 24], &device);
    let latents = tokenizer.encode(all.clone());
    let pictures = tokenizer.decode(latents.clone());
    for i in 0..3 {
        let alone = tokenizer.encode(all.clone().narrow(0, i, 1));
        let among = latents.clone().narrow(0, i, 1);
        assert_eq!(values(alone.clone()), values(among), "latents of image {i}");
        let among = pictures.clone().narrow(0, i, 1);
        assert_eq!(
            values(tokenizer.decode(alone)),
            values(among),
            "picture {i}"
        );
    }
}

/// Counts the parameters, each of which must have a gradient that is not 0.
struct Reached<'a> {
    gradients: &'a Gradients,
    count: usize,
}

impl ModuleVisitor for Reached<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = param.val().grad(self.gradients).unwrap();
        let gradient: Vec<f32> = gradient.into_data().try_into_vec_as().unwrap();
        assert!(gradient.iter().all(|g| g.is_finite()));
        assert!(gradient.iter().any(|g| *g != 0.0));
        self.count += 1;
    }
}

#[test]
fn the_gradient_of_the_reconstruction_reaches_every_parameter() {
    let device = Device::flex().autodiff();
    let tokenizer = TinyAutoencoderConfig::taef2().init(2, &device).unwrap();
    let images = images(4, [1, 3, 32, 32], &device);
    let error = tokenizer.decode(tokenizer.encode(images.clone())) - images;
    let gradients = (error.clone() * error).mean().backward();
    let mut reached = Reached {
        gradients: &gradients,
        count: 0,
    };
    tokenizer.visit(&mut reached);
    assert_eq!(reached.count, 158);
}
