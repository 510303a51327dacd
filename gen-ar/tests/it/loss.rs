//! The training loss and what a step hides.

use super::tiny;
use burn::tensor::{Device, Int, Tensor, TensorData};
use proptest::prelude::*;
use tessera_backend::Rng;
use tessera_gen_ar::{BUFFERS, GenArConfig, MaskPlan};

pub fn tokens(config: &GenArConfig, batch: usize, device: &Device) -> Tensor<3, Int> {
    let shape = [batch, config.seq(), config.token_embed_dim];
    let mut rng = Rng::new(1, 5);
    let indices: Vec<i32> = (0..shape.iter().product())
        .map(|i| rng.below(config.levels_of(i % config.token_embed_dim)) as i32)
        .collect();
    Tensor::from_data(TensorData::new(indices, shape), device)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_plan_cuts_every_image_in_visible_and_masked(min in 0f32..=1.0, batch in 1usize..5, seed in any::<u64>()) {
        let config = GenArConfig { mask_ratio_min: min, ..tiny::config() };
        let plan = MaskPlan::draw(&config, batch, &mut Rng::new(seed, 0));
        let (visible, masked) = (plan.visible(), plan.predicted());
        prop_assert_eq!(visible.per_image() + masked.per_image(), config.seq());
        prop_assert!(masked.per_image() as f32 >= min * config.seq() as f32);
        let mut all: Vec<_> = visible.iter().chain(masked.iter()).collect();
        all.sort_unstable();
        let expected: Vec<_> = (0..batch).flat_map(|image| (0..config.seq()).map(move |p| (image, p))).collect();
        prop_assert_eq!(all, expected);
    }
}

#[test]
fn an_untrained_model_is_about_as_good_as_a_guess() {
    let (config, device) = (tiny::config(), Device::flex());
    let model = config.init(&tiny::values(config.levels), 0, &device);
    let plan = MaskPlan::draw(&config, 6, &mut Rng::new(0, 0));
    let loss = model.loss(
        tokens(&config, 6, &device),
        &[0, 1, 2, 0, 1, 2],
        &plan,
        &mut Rng::new(0, 1),
    );
    let loss = loss.total.into_scalar::<f32>();
    // ln 8 = 2.08, and the variance that Xavier's heads give the logits.
    assert!((2.08..3.6).contains(&loss), "{loss}");
}

/// The mean of the loss over disjoint subsets is the loss over all masked positions, to 1e-5.
#[test]
fn the_head_on_a_subset_is_unbiased() {
    let (config, device) = (tiny::config(), Device::flex());
    let (model, indices) = (tiny::model(), tokens(&config, 2, &device));
    let loss = |plan: MaskPlan| {
        model
            .loss(indices.clone(), &[0, 2], &plan, &mut Rng::new(0, 1))
            .total
            .into_scalar::<f32>()
    };
    let mut rng = Rng::new(8, 0);
    let orders: Vec<_> = (0..2).map(|_| rng.permutation(12)).collect();
    let rotated = |by: usize| {
        orders.iter().map(move |o| {
            (0..12)
                .map(|i| if i < 8 { o[(i + by) % 8] } else { o[i] })
                .collect()
        })
    };
    let whole = loss(MaskPlan::from_orders(orders.clone(), 8));
    let parts: f32 = (0..4)
        .map(|i| loss(MaskPlan::from_orders(rotated(2 * i).collect(), 8).with_head_subset(0.25)))
        .sum();
    assert!((whole - parts / 4.0).abs() < 1e-5, "{whole} {parts}");
}

/// Every trained parameter gets a gradient, with dropout on and off; the dropped loss repeats for one stream.
#[test]
fn every_parameter_is_trained() {
    let rates = [0.0, 0.2].into_iter();
    for (rate, config) in rates.flat_map(|rate| tiny::configs().map(|config| (rate, config))) {
        let config = GenArConfig {
            attn_dropout: rate,
            proj_dropout: rate,
            ..config
        };
        let parallel = config.head_steps() == 1;
        let device = Device::flex().autodiff();
        let model = tiny::model_on(&config, &device);
        let plan = MaskPlan::from_orders(vec![(0..12).collect(), (0..12).rev().collect()], 9);
        let loss = || {
            let tokens = tokens(&config, 2, &device);
            let losses = model.loss(tokens, &[1, 2], &plan, &mut Rng::new(3, 3));
            assert!(losses.parts.is_empty() && losses.buffers.is_empty());
            losses.total
        };
        assert_eq!(loss().into_scalar::<f32>(), loss().into_scalar::<f32>());
        let gradients = super::reference::gradients(&model, loss());
        for (name, weight) in model.weights().iter() {
            // Nothing was dropped, so no image had the embedding that stands for any class.
            if name == "fake_latent" || BUFFERS.contains(&name) {
                continue;
            }
            // A single step has no other to attend to.
            if parallel && (name.contains("_norm") || name.contains("qkv")) {
                continue;
            }
            let gradient = gradients
                .get(name)
                .unwrap_or_else(|| panic!("{name} has no gradient"));
            assert_eq!(gradient.len(), weight.values().unwrap().len());
            assert!(gradient.iter().all(|g| g.is_finite()), "{name}");
            // A key's bias shifts all scores of a query alike, but q/k norm has none such in the head.
            assert!(
                gradient.iter().any(|&g| g != 0.0),
                "{name} has a zero gradient"
            );
        }
    }
}
