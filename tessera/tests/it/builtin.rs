//! The built-in model, and a smaller one on every device: the same tokens, and no more crossings than there must be.

use crate::devices;
use burn::tensor::{DType, Int, Tensor};
use ndarray::Array3;
use std::ops::ControlFlow;
use std::path::Path;
use tessera::backend::{device_indices, host_indices, transfers};
use tessera::gen_ar::{
    Decoding, FirstPosition, ForwardContext, GenAr, ImageRequest, Positions, SampleConfig,
};
use tessera::{ArModel, ComputePrecision, Device, Model, ModelCard, WeightDtype};

/// A model of `models/`, which takes a tenth of the built-in one's time: a GPU made of software is slow.
fn small(device: &Device) -> ArModel {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/fashion");
    match Model::open(folder.as_path(), device).expect("it is in the repository") {
        Model::Ar(model) => model,
        Model::Dit(_) => unreachable!("it is of the other kind"),
    }
}

/// The likeliest level of each dimension of every second token of `pictures`, given all before it, and the other
/// tokens: what one choice is does not depend on the choices before, as it would in a picture drawn by each.
fn likeliest(generator: &GenAr, pictures: &Array3<u16>, classes: &[Option<usize>]) -> Vec<i64> {
    let (images, seq, dims) = pictures.dim();
    let device = generator.device();
    let half =
        |parity: usize| Positions::new((0..images).map(|_| (parity..seq).step_by(2).collect()));
    let (visible, wanted) = (half(0), half(1));
    let indices = |positions: &Positions, order: &[usize]| {
        let token = |(image, position)| {
            order
                .iter()
                .map(move |&dim| pictures[[image, position, dim]])
        };
        let values: Vec<i32> = positions.iter().flat_map(token).map(i32::from).collect();
        let shape = [values.len() / dims, dims];
        let indices: Tensor<2, Int> = device_indices(values, shape, &device);
        indices
    };
    let natural: Vec<usize> = (0..dims).collect();
    let context = &mut ForwardContext::inference();
    let encoded = generator.encode(
        Some(generator.dequantize(indices(&visible, &natural))),
        &visible,
        classes,
        context,
    );
    let z = generator.decode(encoded, &visible, &wanted, context);
    let logits = generator.head_logits(
        z,
        indices(&wanted, &generator.config().channel_order),
        FirstPosition::Released,
        &mut context.dropout,
    );
    host_indices(logits.argmax(2))
}

/// Steps of drawing: half of the model's own, as a GPU made of software takes seconds for one.
const STEPS: usize = 8;

/// Pictures of the first classes.
fn drawn(model: &ArModel, classes: usize) -> Array3<u16> {
    let request = |class| ImageRequest {
        class: Some(class),
        seed: 1,
    };
    let requests: Vec<_> = (0..classes).map(request).collect();
    let mut go_on = |_: tessera_gen_ar::SamplingStep<'_>| ControlFlow::Continue(());
    let sampling = SampleConfig {
        steps: STEPS,
        // On a CPU, where reading costs nothing, the head may guess, and reads what it drew.
        head: Some(Decoding::Sequential),
        ..model.card.sampling.clone()
    };
    let drawn = model.generator.generate(&requests, &sampling, &mut go_on);
    drawn.expect("the built-in model draws")
}

/// How many of a hundred agree, rounded down.
fn percent<T: PartialEq>(found: &[T], expected: &[T]) -> usize {
    assert_eq!(found.len(), expected.len());
    let agree = found.iter().zip(expected).filter(|(a, b)| a == b).count();
    println!("{agree} of {} agree", expected.len());
    agree * 100 / expected.len()
}

#[test]
fn weights_for_generating_change_no_picture_in_f32_and_are_saved_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let cpu = Device::cpu();
    let (f32, bf16) = (ComputePrecision::F32, ComputePrecision::Bf16);
    let ready = small(&cpu).in_precision(f32).unwrap();
    assert_eq!(drawn(&ready, 2), drawn(&small(&cpu), 2));
    small(&cpu).save(&at("model"), WeightDtype::F32).unwrap();
    ready.save(&at("ready"), WeightDtype::F32).unwrap();
    let bytes = |name: &str| std::fs::read(at(name).join("model.safetensors")).unwrap();
    assert!(bytes("ready") == bytes("model"));
    // Whatever it was before.
    let half = small(&cpu).in_precision(bf16).unwrap();
    let expected = drawn(&half, 2);
    let again = half.in_precision(f32).unwrap().in_precision(f32).unwrap();
    assert_eq!(drawn(&ready.in_precision(bf16).unwrap(), 2), expected);
    assert_eq!(drawn(&again.in_precision(bf16).unwrap(), 2), expected);
}

#[test]
fn the_likeliest_tokens_in_bf16_are_those_in_f32() {
    let device = Device::cpu();
    let exact = ArModel::builtin(&device).expect("built in");
    let half = ArModel::builtin(&device).expect("built in");
    let half = half
        .in_precision(ComputePrecision::Bf16)
        .expect("flex knows it");
    let classes: Vec<_> = (0..10).map(Some).collect();
    let pictures = drawn(&exact, 10);
    let choices = |model: &ArModel| likeliest(&model.generator, &pictures, &classes);
    let (exact, half) = (choices(&exact), choices(&half));
    assert!(percent(&half, &exact) >= 98);
    assert_ne!(half, exact, "bf16 was not computed in");
}

#[test]
fn parity_of_the_likeliest_tokens_and_of_those_drawn() {
    let cpu = small(&Device::cpu());
    let classes: Vec<_> = (0..10).map(Some).collect();
    let pictures = drawn(&cpu, 10);
    let choices = |model: &ArModel| likeliest(&model.generator, &pictures, &classes);
    let expected = choices(&cpu);
    for device in devices::devices() {
        let model = small(&device.clone().into());
        assert!(percent(&choices(&model), &expected) >= 99);
        let first = drawn(&model, 10);
        let [found, expected] =
            [&first, &pictures].map(|tokens| tokens.iter().copied().collect::<Vec<_>>());
        assert!(percent(&found, &expected) >= 99);
        if device.supports_dtype(DType::F16) {
            let half = model
                .in_precision(ComputePrecision::F16)
                .expect("it is known");
            assert!(percent(&choices(&half), &choices(&cpu)) >= 98);
        }
    }
}

/// A GPU waits whenever something is read from it: a step reads what it has drawn, and whether it was finite, and no
/// more.
#[test]
fn parity_of_what_crosses_between_host_and_device() {
    for device in devices::devices() {
        let model = small(&device.clone().into());
        let tokens = drawn(&model, 2);
        let before = transfers();
        let again = drawn(&model, 2);
        let after = transfers();
        assert_eq!(again, tokens, "the same again on {device:?}");
        let steps = STEPS as u64;
        assert_eq!(
            after.to_host - before.to_host,
            2 * steps,
            "reads of {steps} steps"
        );
        let decode = || model.decode(tokens.view());
        let before = transfers();
        decode().expect("what was drawn is decoded");
        let after = transfers();
        assert_eq!(
            [
                after.to_device - before.to_device,
                after.to_host - before.to_host
            ],
            [1, 1]
        );
    }
}

#[test]
fn a_model_is_saved_as_one_folder_in_which_a_judge_stays() {
    let device = Device::parse("flex").unwrap();
    let model = ArModel::builtin(&device).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join("model").join(name);
    model.describe(&at(""), WeightDtype::F32).unwrap();
    assert!(at("model.json").is_file() && !at("model.safetensors").exists());
    let parts = || match ModelCard::read(&at("")).unwrap() {
        ModelCard::Ar(card) => card.parts.into_keys().collect::<Vec<_>>(),
        ModelCard::Dit(_) => unreachable!("it is written by the other kind"),
    };
    assert_eq!(
        parts(),
        ["vae"],
        "the generator's weights are still to come"
    );
    std::fs::create_dir(at("judge")).unwrap();
    std::fs::write(at("judge/config.json"), "mine").unwrap();
    for _ in 0..2 {
        model.save(&at(""), WeightDtype::Int8).unwrap();
        assert_eq!(parts(), ["generator", "vae"]);
        assert_eq!(
            std::fs::read_to_string(at("judge/config.json")).unwrap(),
            "mine"
        );
    }
    std::fs::remove_dir_all(at("judge")).unwrap();
    let opened = Model::open(at("").as_path(), &device).unwrap();
    assert_eq!(opened.digest(), model.digest.as_deref());
    let names = std::fs::read_dir(folder.path()).unwrap();
    assert_eq!(names.count(), 1, "nothing is left beside it");
}

#[test]
fn a_picture_larger_than_the_image_it_is_the_center_of_is_refused() {
    let device = Device::parse("flex").unwrap();
    let model = ArModel::builtin(&device).unwrap();
    let folder = tempfile::tempdir().unwrap();
    model.save(folder.path(), WeightDtype::F32).unwrap();
    let mut card = model.card.clone();
    for picture_size in [0, card.img_size + 1] {
        card.picture_size = picture_size;
        card.save(folder.path()).unwrap();
        let error = Model::open(folder.path(), &device).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        let expected = format!(
            "picture_size of the model: expected 1 to its img_size, {}, found {picture_size}",
            card.img_size
        );
        assert_eq!(source, expected);
    }
}
