//! Pictures as an iterator: whatever the batch, with steps and previews, until dropped.

use ndarray::Array4;
use tessera::attention2d::{Comm, threads};
use tessera::tokenizers::PixelTokenizer;
use tessera::{Device, Divided, Error, Event, Model, Picture, Request, Source};

fn model() -> Model {
    Model::builtin(&Device::cpu()).unwrap()
}

#[test]
fn a_picture_depends_on_its_request_alone() {
    let model = model();
    let sampling = model.sampling().steps(4);
    let requests = || (0..5).map(|i| Request::new(i, 10 + i as u64));
    let pictures = |batch| {
        let generation = model.generate(requests(), &sampling).batch(batch);
        generation.collect::<Result<Vec<_>, _>>().unwrap()
    };
    let (all, pairs) = (pictures(5), pictures(2));
    assert_eq!(all.len(), 5);
    for (a, b) in all.iter().zip(&pairs) {
        assert_eq!(
            (a.index, &a.pixels, &a.params),
            (b.index, &b.pixels, &b.params)
        );
    }
    assert_eq!(all[3].params.class_name, model.class_names()[3]);
    assert_eq!(all[3].params.seed, 13);
}

#[test]
fn steps_come_before_pictures_and_can_be_previewed() {
    let model = model();
    let requests = (0..3).map(|i| Request::new(7, i));
    let mut generation = model
        .generate(requests, &model.sampling().steps(3))
        .batch(2);
    let (mut seen, mut previews) = (Vec::new(), Vec::new());
    while let Some(event) = generation.advance() {
        seen.push(match event.unwrap() {
            Event::Step(at) => {
                previews.push(generation.preview().unwrap());
                format!("{}+{} {}/{}", at.first, at.pictures, at.step, at.steps)
            }
            Event::Picture(picture) => {
                if picture.index == 2 {
                    assert_eq!(
                        previews[5],
                        [picture.pixels],
                        "the last step is the picture"
                    );
                }
                format!("picture {}", picture.index)
            }
        });
    }
    let expected = [
        "0+2 1/3",
        "0+2 2/3",
        "0+2 3/3",
        "picture 0",
        "picture 1",
        "2+1 1/3",
        "2+1 2/3",
        "2+1 3/3",
        "picture 2",
    ];
    assert_eq!(seen, expected);
    assert_ne!(previews[0], previews[2]);
}

#[test]
fn after_an_error_there_is_nothing() {
    let model = model();
    let mut generation = model.generate([Request::new(0, 0)], &model.sampling().steps(0));
    let error = generation.next().unwrap().unwrap_err();
    assert!(
        error.to_string().starts_with("after 0 of 1 images"),
        "{error}"
    );
    assert!(generation.next().is_none());
}

#[test]
fn a_saved_model_draws_the_same() {
    let model = model();
    let folder = tempfile::tempdir().unwrap();
    model
        .save(folder.path(), tessera::WeightDtype::F32)
        .unwrap();
    let again = Model::open(folder.path(), model.device()).unwrap();
    let draw = |model: &Model| {
        let mut generation = model.generate([Request::new(3, 5)], &model.sampling());
        generation.next().unwrap().unwrap().pixels
    };
    assert_eq!(draw(&model), draw(&again));
    let missing = Model::open(Source::new(folder.path().join("none")), model.device());
    assert!(matches!(missing, Err(Error::NoModel { .. })));
}

#[test]
fn latents_beyond_any_tokenizers_are_an_error_and_no_flat_picture() {
    let tokenizer = PixelTokenizer::new(1, Device::cpu().burn());
    let decoded = |value: f32| {
        let mut latents = Array4::zeros([1, 1, 2, 2]);
        latents[[0, 0, 1, 1]] = value;
        Device::cpu().decode(&tokenizer, latents)
    };
    for value in [1e6, -1e6] {
        assert!(decoded(value).is_ok(), "{value}");
    }
    for value in [1.1e6, -1.1e6, 1e30, f32::INFINITY, f32::NAN] {
        let error = decoded(value).unwrap_err().to_string();
        assert!(
            error.contains("latents") && error.contains(&format!("{value:e}")),
            "{error}"
        );
    }
}

#[test]
fn ranks_draw_the_pictures_of_one_in_its_order() {
    let drawn = |ranks: &Comm, total, batch| {
        let model = Model::builtin(&Device::cpu()).expect("the built-in model");
        let sampling = model.sampling().steps(2);
        let mut pictures = Vec::new();
        let divided = Divided {
            model: &model,
            sampling: &sampling,
            total,
            request: |number| Request::new(number % 3, 5 + number as u64),
            batch,
        };
        let each = |picture: Picture| {
            pictures.push((picture.index, picture.params.seed, picture.pixels));
            Ok(())
        };
        let drawn: Result<(), Error> = divided.draw(ranks, |_| Ok(()), each);
        drawn.expect("all ranks draw");
        pictures
    };
    let one = drawn(&Comm::single(), 7, 64);
    assert_eq!(one.len(), 7);
    // One rank has less of the last round, or nothing of it.
    for (ranks, batch) in [(2, 64), (2, 2), (3, 1), (3, 64)] {
        let all = threads::run(ranks, |comm| Ok(drawn(&comm, 7, batch))).expect("no rank fails");
        assert!(all[0] == one, "{ranks} ranks, {batch} at once");
        assert!(all[1..].iter().all(Vec::is_empty));
    }
}
