//! Latents that were encoded before: written, read, sampled.

use ndarray::{Array4, s};
use std::fs;
use tessera_backend::Rng;
use tessera_train::{LatentCache, LatentKind, LatentPrecision};

fn cache() -> LatentCache {
    let mut rng = Rng::new(3, 0);
    let mut moments = || Array4::from_shape_simple_fn((3, 4, 2, 2), || rng.normal());
    LatentCache {
        kind: LatentKind::Posterior,
        moments: moments(),
        moments_flip: Some(moments()),
        labels: vec![1, 0, 1],
        class_names: vec!["a".into(), "b \"c\"".into()],
        provenance: serde_json::json!({"vae": "x", "size": 32}),
    }
}

#[test]
fn a_latent_cache_comes_back_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latents.safetensors");
    let mut cache = cache();
    cache.write(&path, LatentPrecision::F32).unwrap();
    assert_eq!(LatentCache::read(&path).unwrap(), cache);
    let bytes = fs::read(&path).unwrap();
    cache.write(&path, LatentPrecision::F32).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);

    cache.moments_flip = None;
    cache.write(&path, LatentPrecision::F16).unwrap();
    let half = LatentCache::read(&path).unwrap();
    let worst = (&half.moments - &cache.moments)
        .mapv(f32::abs)
        .fold(0.0_f32, |a, &b| a.max(b));
    assert!(worst < 2e-3 && half.moments_flip.is_none(), "{worst}");
}

#[test]
fn sampling_a_cached_posterior_has_its_mean_and_deviation() {
    let mut cache = cache();
    cache.moments.slice_mut(s![0, 0..2, .., ..]).fill(3.0);
    cache
        .moments
        .slice_mut(s![0, 2..4, .., ..])
        .fill(2.0 * 0.5_f32.ln()); // deviation 0.5
    assert_eq!(cache.latent_shape(), [2, 2, 2]);
    let mut rng = Rng::new(1, 1);
    let draws: Vec<f32> = (0..2000)
        .flat_map(|_| cache.sample(0, false, &mut rng))
        .collect();
    let mean = draws.iter().sum::<f32>() / draws.len() as f32;
    let variance = draws.iter().map(|d| (d - mean).powi(2)).sum::<f32>() / draws.len() as f32;
    assert!(
        (mean - 3.0).abs() < 0.02 && (variance.sqrt() - 0.5).abs() < 0.02,
        "{mean} {variance}"
    );
    let flipped = cache.moments_flip.as_ref().unwrap();
    assert_eq!(
        cache.posterior(1, true).0,
        flipped.slice(s![1, 0..2, .., ..])
    );
}

#[test]
fn latents_that_are_no_distributions_come_back_and_are_drawn_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latents.safetensors");
    let points = LatentCache {
        kind: LatentKind::Point,
        ..cache()
    };
    assert_eq!(points.latent_shape(), [4, 2, 2]);
    points.write(&path, LatentPrecision::F32).unwrap();
    let found = LatentCache::read(&path).unwrap();
    assert_eq!(found, points);
    let mut rng = Rng::new(1, 1);
    assert_eq!(
        found.sample(1, false, &mut rng),
        points.moments.slice(s![1, .., .., ..])
    );
    assert!(found.posterior(1, true).1.is_none());
}

#[test]
fn parts_of_a_latent_cache_that_disagree_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("l");
    let refused = |change: fn(&mut LatentCache), expected: &str| {
        let mut cache = cache();
        change(&mut cache);
        let error = cache
            .write(&path, LatentPrecision::F32)
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!path.exists(), "nothing is left behind");
    };
    refused(
        |c| c.labels.truncate(2),
        "the number of labels is 2, expected 3",
    );
    refused(
        |c| c.labels[0] = 2,
        "a label is 2, expected less than the number of classes, 2",
    );
    refused(
        |c| c.moments = Array4::zeros((3, 3, 2, 2)),
        "the number of channels is 3",
    );
    refused(
        |c| c.moments_flip = Some(Array4::zeros((1, 4, 2, 2))),
        "`moments_flip`",
    );

    let weights = tessera_weights::Weights::default();
    weights
        .write(&path, Default::default(), Default::default())
        .unwrap();
    let error = LatentCache::read(&path).unwrap_err().to_string();
    assert!(error.contains("a field `schema`"), "{error}");
}
