//! The KL-VAE: its arithmetic against the reference implementation, its files, its randomness and its training step.

use crate::devices::devices;
use crate::fixtures::shared;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use std::path::{Path, PathBuf};
use tessera_backend::Rng;
use tessera_tokenizer::vae::losses;
use tessera_tokenizer::{Error, ImageTokenizer, KlVae, KlVaeConfig, Posterior, VaeLossConfig};
use tessera_train::{AdamW, AdamWConfig, Grads};
use tessera_weights::{Weight, WeightDtype, Weights};

/// The files of the reference's outputs whose name begins so.
fn shared_io(prefix: &str) -> Vec<PathBuf> {
    let Some(any) = shared(&format!("{prefix}a_io.safetensors")) else {
        return Vec::new();
    };
    let entries = std::fs::read_dir(any.parent().unwrap()).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with(prefix) && name.ends_with("_io.safetensors")
    });
    files.sort();
    files
}

/// Two levels with attention at each of the places that can have one, on 16 px images.
fn tiny() -> KlVaeConfig {
    KlVaeConfig {
        attn_resolutions: vec![8],
        decoder_attn_resolutions: vec![16],
        ..KlVaeConfig::small(3, 16, 8, &[1, 2], 1, 4)
    }
}

fn images(seed: u64, shape: [usize; 4], device: &Device) -> Tensor<4> {
    Rng::new(seed, 0).uniform_tensor(shape, device) * 2.0 - 1.0
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec_as().unwrap()
}

fn tensor<const D: usize>(weight: &Weight, device: &Device) -> Tensor<D> {
    Tensor::from_data(
        TensorData::new(weight.values().unwrap().into_owned(), weight.shape()),
        device,
    )
}

/// Fails beyond `tolerance` times the largest expected magnitude; prints how far off the result is.
fn assert_close(name: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{name}: number of values");
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let (index, worst) = differences
        .enumerate()
        .fold((0, 0f32), |w, d| if d.1 > w.1 { d } else { w });
    let relative = worst / largest;
    println!("{name}: off by at most {worst:.3e}, {relative:.3e} of the largest {largest:.3}");
    assert!(
        relative <= tolerance,
        "{name}[{index}]: {} instead of {}",
        found[index],
        expected[index]
    );
    assert!(found.iter().all(|v| v.is_finite()), "{name} is not finite");
}

/// Every checkpoint that the reference computed with: from the authors' file, and from its conversion to safetensors.
#[test]
fn kl16_parity_with_the_reference_on_random_weights() {
    for file in shared_io("kl16_") {
        let io = Weights::read(&file).unwrap();
        let sizes: serde_json::Value = serde_json::from_str(&io.metadata()["config"]).unwrap();
        let config = KlVaeConfig {
            ch: serde_json::from_value(sizes["vch"].clone()).unwrap(),
            ch_mult: serde_json::from_value(sizes["vmult"].clone()).unwrap(),
            ..KlVaeConfig::kl16()
        };
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let stem = name.trim_end_matches("_io.safetensors");
        let released = file.with_file_name(format!("{stem}.ckpt"));
        let released = Weights::read_model(released, None).unwrap();
        assert_eq!(KlVaeConfig::infer(&released).unwrap(), config);
        let folder = tempfile::tempdir().unwrap();
        let converted = folder.path().join("model.safetensors");
        released
            .write(&converted, Default::default(), WeightDtype::F32)
            .unwrap();
        let converted = Weights::read_model(converted, None).unwrap();
        for device in devices() {
            for (format, weights) in [("ckpt", &released), ("safetensors", &converted)] {
                println!("{stem} from {format} on {device:?}");
                let vae = KlVae::from_weights(&config, weights, &device).unwrap();
                kl16_is_the_reference(&vae, &io, &device);
            }
        }
    }
}

/// Every output within 1e-4 of its largest.
fn kl16_is_the_reference(vae: &KlVae, io: &Weights, device: &Device) {
    let golden = |name: &str| io.get(name).unwrap().values().unwrap().into_owned();
    let image: Tensor<4> = tensor(io.get("image").unwrap(), device);
    let encoder_out = vae.encoder().forward(image.clone());
    let posterior = vae.encode(image);
    let reconstruction = vae.decode(posterior.mode());
    for (name, found) in [
        ("encoder_out", values(encoder_out)),
        ("moments", values(posterior.moments())),
        ("mean", values(posterior.mean.clone())),
        ("logvar", values(posterior.logvar.clone())),
        ("std", values(posterior.std())),
        ("kl", values(posterior.kl())),
        ("reconstruction", values(reconstruction)),
    ] {
        assert_close(name, &found, &golden(name), 1e-4);
    }
}

/// Name and shape of every parameter, without initializing any.
#[derive(Default)]
struct Names {
    path: Vec<String>,
    rows: Vec<(String, Vec<usize>)>,
}

impl ModuleVisitor for Names {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.rows
            .push((self.path.join("."), param.lazy_shape().to_vec()));
    }
}

fn names(vae: &KlVae) -> Vec<(String, Vec<usize>)> {
    let mut names = Names::default();
    vae.visit(&mut names);
    names.rows.sort();
    names.rows
}

#[test]
fn kl16_has_the_size_of_the_released_checkpoint() {
    let rows = names(&KlVaeConfig::kl16().init(0, &Device::flex()).unwrap());
    let size = |half: &str| -> usize {
        let rows = rows.iter().filter(|(name, _)| name.starts_with(half));
        rows.map(|(_, shape)| shape.iter().product::<usize>()).sum()
    };
    assert_eq!(rows.len(), 312);
    assert_eq!(size(""), 66_456_019);
    assert_eq!(size("encoder."), 28_265_760);
    assert_eq!(size("decoder."), 38_188_931);
}

#[test]
fn kl16_parity_of_names_and_shapes_with_the_released_checkpoint() {
    let Some(list) = shared("../papers/keys_kl16_vae.tsv") else {
        return;
    };
    let list = std::fs::read_to_string(list).unwrap();
    let row = |line: &str| {
        let mut columns = line.split('\t');
        let name = columns.next().unwrap().to_owned();
        let shape = columns
            .next()
            .unwrap()
            .split('x')
            .map(|n| n.parse().unwrap());
        (name, shape.collect::<Vec<usize>>())
    };
    let mut expected: Vec<_> = list.lines().map(row).collect();
    expected.sort();
    let found = names(&KlVaeConfig::kl16().init(0, &Device::flex()).unwrap());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn the_initial_weights_depend_on_the_seed_alone_and_have_pytorchs_bound() {
    let weights = |seed| Weights::of(&tiny().init(seed, &Device::flex()).unwrap());
    let (one, other) = (weights(1), weights(2));
    assert_eq!(one, weights(1));
    for (name, weight) in one.iter().filter(|(name, _)| name.contains("conv1")) {
        assert_ne!(Some(weight), other.get(name), "{name}");
        let fan_in: usize = one.get(&name.replace("bias", "weight")).unwrap().shape()[1..]
            .iter()
            .product();
        let bound = 1.0 / (fan_in as f32).sqrt();
        let largest = weight
            .values()
            .unwrap()
            .iter()
            .fold(0f32, |m, v| m.max(v.abs()));
        assert!(
            largest <= bound && largest > 0.5 * bound,
            "{name}: {largest} of {bound}"
        );
    }
}

#[test]
fn saving_loading_and_saving_again_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let device = Device::flex();
    let vae = tiny().init(3, &device).unwrap();
    vae.save_dir(&first, tessera_weights::WeightDtype::F32)
        .unwrap();
    let loaded = KlVae::load_dir(&first, &device).unwrap();
    loaded
        .save_dir(&second, tessera_weights::WeightDtype::F32)
        .unwrap();
    assert_eq!(loaded.config(), vae.config());
    let read = |folder: &Path, name: &str| std::fs::read(folder.join(name)).unwrap();
    let [config, weights] = ["config.json", "model.safetensors"].map(|name| {
        let bytes = read(&first, name);
        assert_eq!(bytes, read(&second, name), "{name}");
        bytes
    });
    let from_memory = KlVae::from_bytes(&config, weights, &device).unwrap();
    assert_eq!(Weights::of(&from_memory), Weights::of(&vae));
}

#[test]
fn a_folder_that_is_no_vae_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::flex();
    let load = || KlVae::load_dir(folder.path(), &device).unwrap_err();
    assert!(matches!(load(), Error::Missing { path } if path.ends_with("config.json")));

    tiny()
        .init(3, &device)
        .unwrap()
        .save_dir(folder.path(), tessera_weights::WeightDtype::F32)
        .unwrap();
    let config = folder.path().join("config.json");
    let saved = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, &saved[..saved.len() / 2]).unwrap();
    assert!(matches!(load(), Error::VaeConfigFile { path, .. } if path == config));
    std::fs::write(&config, saved.replace("\"ch\": 8", "\"ch\": 7")).unwrap();
    assert!(matches!(
        load(),
        Error::VaeConfig {
            field: "norm_groups",
            ..
        }
    ));
    std::fs::write(&config, saved.replace("\"ch\": 8", "\"ch\": 12")).unwrap();
    let message = load().to_string();
    assert!(
        message.contains("model.safetensors") && message.contains("conv_in"),
        "{message}"
    );
}

#[test]
fn images_of_any_fitting_sides_pass_and_others_are_refused() {
    let device = Device::flex();
    let config = KlVaeConfig::small(1, 16, 4, &[1, 1, 2], 1, 2);
    let vae = config.init(0, &device).unwrap();
    let posterior = vae.encode(images(0, [2, 1, 8, 20], &device));
    assert_eq!(posterior.mean.dims(), [2, 2, 2, 5]);
    assert_eq!(posterior.moments().dims(), [2, 4, 2, 5]);
    assert_eq!(vae.decode(posterior.mode()).dims(), [2, 1, 8, 20]);
    vae.check_image_size(8, 20).unwrap();
    for (height, width) in [(0, 8), (8, 10), (7, 8)] {
        let error = vae.check_image_size(height, width).unwrap_err();
        assert!(
            matches!(error, Error::ImageSize { multiple_of: 4, .. }),
            "{error}"
        );
    }
}

#[test]
fn an_images_latents_and_picture_do_not_depend_on_the_batch_around_it() {
    let device = Device::flex();
    let vae = tiny().init(5, &device).unwrap();
    let all = images(1, [3, 3, 16, 16], &device);
    let seeds = [40, 41, 42];
    let latents = vae.encode(all.clone()).sample(&seeds);
    let pictures = vae.decode(latents.clone());
    for (i, seed) in seeds.into_iter().enumerate() {
        let alone = vae.encode(all.clone().narrow(0, i, 1)).sample(&[seed]);
        assert_eq!(
            values(alone.clone()),
            values(latents.clone().narrow(0, i, 1)),
            "latents of image {i}"
        );
        assert_eq!(
            values(vae.decode(alone)),
            values(pictures.clone().narrow(0, i, 1)),
            "picture {i}"
        );
    }
}

#[test]
fn samples_repeat_for_a_seed_and_spread_as_the_posterior_says() {
    let device = Device::flex();
    let mean = Tensor::<4>::full([2, 8, 32, 32], 3.0, &device);
    let logvar = Tensor::<4>::full([2, 8, 32, 32], 0.25f32.ln(), &device);
    let posterior = Posterior::from_moments(Tensor::cat(vec![mean, logvar], 1));
    let sample = values(posterior.sample(&[1, 2]));
    assert_eq!(sample, values(posterior.sample(&[1, 2])));
    let (first, second) = sample.split_at(sample.len() / 2);
    assert_ne!(first, second);
    assert_eq!(second, values(posterior.sample(&[2, 1]).narrow(0, 0, 1)));
    // 16,384 draws: the mean's own deviation is 0.004.
    let mean = sample.iter().sum::<f32>() / sample.len() as f32;
    let deviation =
        (sample.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / sample.len() as f32).sqrt();
    assert!(
        (mean - 3.0).abs() < 0.02 && (deviation - 0.5).abs() < 0.02,
        "{mean} +- {deviation}"
    );
}

#[test]
fn the_divergence_is_that_of_the_closed_form_and_the_log_variance_is_clamped() {
    let device = Device::flex();
    let moments = |mean: f32, logvar: f32| {
        let channel = |value: f32| Tensor::<4>::full([1, 2, 3, 4], value, &device);
        Posterior::from_moments(Tensor::cat(vec![channel(mean), channel(logvar)], 1))
    };
    let kl = |mean, logvar| values(moments(mean, logvar).kl())[0];
    assert_eq!(kl(0.0, 0.0), 0.0);
    // 24 latents, each ½ (mean² + variance - 1 - log variance).
    assert_close("kl of a mean", &[kl(2.0, 0.0)], &[24.0 * 2.0], 1e-6);
    assert_close(
        "kl of a variance",
        &[kl(0.0, 4f32.ln())],
        &[12.0 * (3.0 - 4f32.ln())],
        1e-6,
    );
    assert_eq!(values(moments(0.0, 50.0).logvar)[0], 20.0);
    assert_eq!(values(moments(0.0, -50.0).logvar)[0], -30.0);
}

#[test]
fn the_loss_is_the_weighted_sum_of_means() {
    let device = Device::flex();
    let vae = tiny().init(2, &device).unwrap();
    let images = images(4, [2, 3, 16, 16], &device);
    let noise: Tensor<4> = Rng::new(4, 1).normal_tensor([2, 4, 8, 8], &device);
    let config = VaeLossConfig {
        l1_weight: 0.7,
        l2_weight: 0.3,
        kl_weight: 0.01,
    };
    let found = losses(&vae, images.clone(), noise.clone(), &config);

    let posterior = vae.encode(images.clone());
    let pairs = values(vae.decode(posterior.sample_with(noise)))
        .into_iter()
        .zip(values(images));
    let errors: Vec<f32> = pairs.map(|(a, b)| a - b).collect();
    let mean = |terms: Vec<f32>| terms.iter().sum::<f32>() / terms.len() as f32;
    let l1 = mean(errors.iter().map(|e| e.abs()).collect());
    let l2 = mean(errors.iter().map(|e| e * e).collect());
    let kl = mean(values(posterior.kl())) / (4 * 8 * 8) as f32;
    for ((name, found), (expected_name, expected)) in
        found
            .parts
            .into_iter()
            .zip([("l1", l1), ("l2", l2), ("kl", kl)])
    {
        assert_eq!(name, expected_name);
        assert_close(name, &values(found), &[expected], 1e-5);
    }
    assert_close(
        "total",
        &values(found.total),
        &[0.7 * l1 + 0.3 * l2 + 0.01 * kl],
        1e-5,
    );

    let ldm = VaeLossConfig::ldm(&KlVaeConfig::kl16());
    assert!((ldm.kl_weight - 1e-6 / 48.0).abs() < 1e-15);
}

/// Checks that every parameter has a gradient, and collects those that are 0 throughout.
struct Reached<'a> {
    names: Names,
    gradients: &'a Gradients,
    zero: Vec<String>,
}

impl ModuleVisitor for Reached<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.names.enter_module(name, container);
    }
    fn exit_module(&mut self, name: &str, container: &str) {
        self.names.exit_module(name, container);
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.names.path.join(".");
        let gradient = param.val().grad(self.gradients);
        let gradient = values(gradient.unwrap_or_else(|| panic!("no gradient reaches {name}")));
        assert!(gradient.iter().all(|g| g.is_finite()), "{name}");
        if gradient.iter().all(|g| *g == 0.0) {
            self.zero.push(name);
        }
    }
}

#[test]
fn the_losss_gradient_reaches_every_parameter() {
    let device = Device::flex().autodiff();
    let vae = tiny().init(2, &device).unwrap();
    let noise = Rng::new(4, 1).normal_tensor([2, 4, 8, 8], &device);
    let config = VaeLossConfig {
        l1_weight: 1.0,
        l2_weight: 0.0,
        kl_weight: 0.01,
    };
    let loss = losses(&vae, images(4, [2, 3, 16, 16], &device), noise, &config);
    let gradients = loss.total.backward();
    let mut reached = Reached {
        names: Names::default(),
        gradients: &gradients,
        zero: Vec::new(),
    };
    vae.visit(&mut reached);
    // A shift of all keys moves every score of a query alike, which the softmax does not see.
    reached.zero.retain(|name| !name.ends_with(".k.bias"));
    assert!(
        reached.zero.is_empty(),
        "nothing but zeros reaches {:?}",
        reached.zero
    );
}

/// Moves one parameter, the `index`th, by `step` along its gradient's direction.
struct Nudge<'a> {
    index: usize,
    step: f32,
    gradients: &'a Gradients,
    passed: usize,
    norm: f32,
}

impl ModuleMapper for Nudge<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.passed += 1;
        if self.passed != self.index + 1 {
            return param;
        }
        let gradient = param.val().grad(self.gradients).unwrap();
        self.norm = values(gradient.clone())
            .iter()
            .map(|g| g * g)
            .sum::<f32>()
            .sqrt();
        let step = Tensor::from_inner(gradient * (self.step / self.norm.max(f32::MIN_POSITIVE)));
        param.map(|value| value + step)
    }
}

#[test]
fn every_parameters_gradient_is_the_slope_of_the_loss() {
    const STEP: f32 = 1e-2;
    let device = Device::flex().autodiff();
    let vae = tiny().init(2, &device).unwrap();
    let images = images(4, [1, 3, 16, 16], &device);
    let noise: Tensor<4> = Rng::new(4, 1).normal_tensor([1, 4, 8, 8], &device);
    // The squared error alone: the absolute one has kinks, at which differences are no slopes.
    let config = VaeLossConfig {
        l1_weight: 0.0,
        l2_weight: 1.0,
        kl_weight: 0.1,
    };
    let loss = |vae: &KlVae| losses(vae, images.clone(), noise.clone(), &config).total;
    let gradients = loss(&vae).backward();
    let mut names = Names::default();
    vae.visit(&mut names);
    let (mut clear, mut worst) = (0, 0f32);
    for (index, (name, _)) in names.rows.iter().enumerate() {
        let moved = |step: f32| {
            let mut nudge = Nudge {
                index,
                step,
                gradients: &gradients,
                passed: 0,
                norm: 0.0,
            };
            let vae = vae.clone().map(&mut nudge);
            (values(loss(&vae).inner())[0], nudge.norm)
        };
        let ((ahead, norm), (behind, _)) = (moved(STEP), moved(-STEP));
        let slope = (ahead - behind) / (2.0 * STEP);
        // Rounding of the losses leaves about 1e-7 / STEP; the step's own length a percent or so.
        assert!(
            (slope - norm).abs() <= 0.02 * norm + 5e-5,
            "{name}: slope {slope}, gradient {norm}"
        );
        if norm > 1e-3 {
            clear += 1;
            worst = worst.max((slope / norm - 1.0).abs());
        }
    }
    let all = names.rows.len();
    println!("{clear} of {all} gradients are above 1e-3, their slopes within {worst:.2e}");
    assert!(
        clear > all / 2,
        "only {clear} of {all} gradients stand out of the rounding"
    );
}

#[test]
fn a_tiny_vae_learns_four_pictures_by_heart() {
    let device = Device::flex().autodiff();
    let config = KlVaeConfig::small(3, 16, 16, &[1, 2], 1, 4);
    let mut vae = config.init(7, &device).unwrap();
    // Four gradients, each in its own direction and color.
    let picture = |i: usize, c: usize, y: usize, x: usize| {
        let phase = (x * (i + 1) + y * (4 - i)) as f32 / 16.0 + c as f32;
        phase.sin()
    };
    let pixels: Vec<f32> = (0..4 * 3 * 256)
        .map(|n| picture(n / 768, n / 256 % 3, n / 16 % 16, n % 16))
        .collect();
    let pictures = Tensor::<1>::from_floats(pixels.as_slice(), &device).reshape([4, 3, 16, 16]);
    let objective = VaeLossConfig {
        l1_weight: 1.0,
        l2_weight: 0.0,
        kl_weight: 1e-4,
    };
    let constants = AdamWConfig {
        betas: [0.5, 0.9],
        eps: 1e-8,
        weight_decay: 0.0,
        grad_clip: Some(1.0),
    };
    let mut optimizer = AdamW::new(constants, &vae);
    let mut noise = Rng::new(7, 1);
    let mut history = Vec::new();
    for _ in 0..60 {
        let noise = noise.normal_tensor([4, 4, 8, 8], &device);
        let loss = losses(&vae, pictures.clone(), noise, &objective);
        history.push(values(loss.total.clone().inner())[0]);
        let gradients = Grads::of(&vae, &mut loss.total.backward());
        (vae, _) = optimizer.step(vae, gradients, 2e-3).unwrap();
    }
    let (first, last) = (history[0], history[history.len() - 1]);
    println!("loss {first:.4} -> {last:.4} in {} steps", history.len());
    assert!(last < 0.5 * first, "{history:?}");
}
