//! The thresholds that inference routes by, of a model that was trained for a moment.

use super::tiny;
use burn::tensor::{Device, Tensor, TensorData};
use tessera_backend::Rng;
use tessera_gen_dit::{Dit, DitConfig};
use tessera_moe::Usage;
use tessera_train::{
    BoxError, Losses, Objective, Observer, RunFolder, Share, Start, StepReport, TrainConfig, train,
};

/// Enough to learn from.
const STEPS: usize = 200;
const BATCH: usize = 16;

/// Latents of a class: its own wave over the square, a random sign and brightness, a little noise.
struct Waves {
    device: Device,
}

fn waves(labels: &[usize], rng: &mut Rng, device: &Device) -> Tensor<4> {
    let mut values = Vec::new();
    for &label in labels {
        let (lift, sign) = (
            rng.normal() * 0.3,
            if rng.below(2) == 0 { 1.0 } else { -1.0 },
        );
        for channel in 0..3 {
            for place in 0..64 {
                let (y, x) = ((place / 8) as f32, (place % 8) as f32);
                let phase = (label + 1) as f32 * (x + channel as f32 * y) * 0.4;
                values.push(sign * phase.sin() + lift + 0.1 * rng.normal());
            }
        }
    }
    Tensor::from_data(TensorData::new(values, [labels.len(), 3, 8, 8]), device)
}

impl Objective<Dit> for Waves {
    type Batch = Vec<usize>;

    fn examples(&self) -> usize {
        8 * BATCH
    }

    fn batch(&self, indices: &[usize], _: Rng) -> Result<Self::Batch, BoxError> {
        Ok(indices.iter().map(|index| index % 5).collect())
    }

    fn losses(
        &self,
        model: &Dit,
        labels: Vec<usize>,
        share: Share,
        mut rng: Rng,
    ) -> Result<Losses, BoxError> {
        let x = waves(&labels, &mut rng, &self.device);
        Ok(model.loss(x, &labels, share, &mut rng))
    }
}

struct Record(Vec<f32>);

impl<M> Observer<M> for Record {
    fn on_step(&mut self, report: &StepReport) -> std::ops::ControlFlow<()> {
        let mse = report.parts.iter().find(|part| part.0 == "mse").unwrap();
        self.0.push(mse.1);
        std::ops::ControlFlow::Continue(())
    }
}

/// The mean number of active experts of each layer on latents nobody trained on, at times spread evenly.
fn active(model: &Dit) -> Vec<f64> {
    let mut usage = vec![Usage::new(6); 2];
    let times = 40;
    for i in 0..times {
        let labels: Vec<_> = (0..16).map(|image| image % 5).collect();
        let x = waves(&labels, &mut Rng::new(900, i), &model.device());
        let labels: Vec<_> = labels.into_iter().map(Some).collect();
        let time = (i as f32 + 0.5) / times as f32 * 1000.0;
        let trace = model.route(x, &labels, time, 5000 + 16 * i).unwrap();
        for (usage, layer) in usage.iter_mut().zip(&trace.layers) {
            usage.add(&layer.mask);
        }
    }
    usage.iter().map(Usage::mean_active).collect()
}

#[test]
fn calibrated_thresholds_keep_as_many_experts_busy_as_the_config_says() {
    for config in [tiny::flow(tiny::config()), tiny::config()] {
        let config: DitConfig = tiny::race(config, true);
        let folder = tempfile::tempdir().unwrap();
        let device = Device::flex().autodiff();
        let settings = TrainConfig {
            batch_size: BATCH,
            epochs: 1000,
            max_steps: Some(STEPS as u64),
            lr: 2e-3,
            warmup_epochs: 2.0,
            weight_decay: 0.0,
            ema_decay: 0.99,
            save_every: STEPS as u64,
            ..TrainConfig::default()
        };
        let run = RunFolder::open(folder.path(), &settings, Start::New).unwrap();
        let mut record = Record(Vec::new());
        let objective = Waves {
            device: device.clone(),
        };
        let trained = train(
            config.init(3, &device),
            &objective,
            &settings,
            run,
            &mut record,
        )
        .unwrap();
        let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
        let [first, last] = [mean(&record.0[..20]), mean(&record.0[STEPS - 20..])];
        println!(
            "{:?}: error {first} at first, {last} at last",
            config.process
        );
        assert!(last < 0.8 * first);

        let learned = active(&trained.ema);
        let device = Device::flex();
        let batches: Vec<_> = (0..8)
            .map(|i| {
                let labels: Vec<_> = (0..32).map(|image| image % 5).collect();
                (waves(&labels, &mut Rng::new(77, i), &device), labels)
            })
            .collect();
        let calibrated = trained.ema.clone().calibrated(&batches, 1).unwrap();
        let measured = active(&calibrated);
        println!("experts active of k = 2: {learned:?} as learned, {measured:?} as calibrated");
        let [k_learned, k] = [&learned, &measured].map(|layers| layers.iter().sum::<f64>() / 2.0);
        println!("mean {k_learned} as learned, {k} as calibrated");
        assert!((k / 2.0 - 1.0).abs() < 0.05, "{measured:?}");

        // Only the thresholds are others, and one seed gives one.
        let again = trained.ema.clone().calibrated(&batches, 1).unwrap();
        assert!(again.weights().iter().eq(calibrated.weights().iter()));
        for ((name, before), (_, after)) in trained.ema.weights().iter().zip(again.weights().iter())
        {
            assert_eq!(before != after, name.ends_with("threshold"), "{name}");
        }
    }
}

#[test]
fn calibrating_with_nothing_changes_nothing() {
    let model = tiny::model(&tiny::race(tiny::config(), true));
    let same = model.clone().calibrated(&[], 0).unwrap();
    assert!(same.weights().iter().eq(model.weights().iter()));
    let x = Tensor::<4>::zeros([2, 3, 8, 8], &model.device());
    let other = model.clone().calibrated(&[(x, vec![0, 1])], 0).unwrap();
    let threshold = |model: &Dit| {
        let weights = model.weights();
        let weight = weights.get("blocks.0.moe.router.threshold").unwrap();
        weight.values().unwrap()[0]
    };
    assert_ne!(threshold(&other), threshold(&model));
    assert!(threshold(&other).is_finite());
}
