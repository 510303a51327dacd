//! Against the authors' code on a small random checkpoint of theirs.

use super::devices::devices;
use super::reference::{Arrays, fixtures, gradients, relative_error};
use burn::tensor::{Device, Int, Tensor, TensorData};
use ndarray::Array4;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use tessera_backend::Rng;
use tessera_gen_ar::{
    BUFFERS, CfgSchedule, Dropout, FirstPosition, ForwardContext, GenAr, GenArConfig, ImageRequest,
    MaskPlan, Positions, SampleConfig,
};
use tessera_quantize::{Quantizer, QuantizerConfig, Table};
use tessera_weights::Weights;

struct Case {
    name: String,
    io: Arrays,
    config: GenArConfig,
    model: GenAr,
}

/// Every checkpoint that the reference computed with, on `device` and without dropout: read from the authors' file, and
/// again from its conversion to safetensors.
fn cases(device: &Device) -> Vec<Case> {
    let mut cases = Vec::new();
    for file in fixtures("tokenbridge_", "_io.safetensors") {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let stem = name.trim_end_matches("_io.safetensors");
        let pth = file.with_file_name(format!("{stem}.pth"));
        let config = GenArConfig {
            attn_dropout: 0.0,
            proj_dropout: 0.0,
            ..Arrays::read(&file).generator()
        };
        let folder = tempfile::tempdir().unwrap();
        let released = Weights::read_model(&pth, None).unwrap();
        config.save(folder.path()).unwrap();
        released
            .write_shards(folder.path(), &BTreeMap::new(), None, 1 << 20, || ())
            .unwrap();
        for (format, model) in [
            ("pth", GenAr::from_weights(&config, released, device)),
            ("safetensors", GenAr::load_dir(folder.path(), device)),
        ] {
            let name = format!("{stem} from {format} on {device:?}");
            println!("{name}");
            cases.push(Case {
                name,
                io: Arrays::read(&file),
                config: config.clone(),
                model: model.unwrap(),
            });
        }
    }
    cases
}

impl Case {
    fn indices(&self, device: &Device) -> Tensor<3, Int> {
        let indices: Vec<i32> = self.io.ints("indices").iter().map(|&i| i as i32).collect();
        Tensor::from_data(TensorData::new(indices, self.io.shape("indices")), device)
    }

    fn orders(&self) -> Vec<Vec<usize>> {
        self.io
            .ints("orders")
            .chunks_exact(self.config.seq())
            .map(Vec::from)
            .collect()
    }

    fn masked(&self) -> usize {
        self.io.floats("mask")[..self.config.seq()]
            .iter()
            .filter(|&&m| m == 1.0)
            .count()
    }

    /// The fixture's mask, as orders that begin with the masked positions.
    fn plan(&self) -> MaskPlan {
        let order = |mask: &[f32]| {
            let mut order: Vec<usize> = (0..mask.len()).collect();
            order.sort_by_key(|&position| mask[position] == 0.0);
            order
        };
        let mask = self.io.floats("mask");
        MaskPlan::from_orders(
            mask.chunks_exact(self.config.seq()).map(order).collect(),
            self.masked(),
        )
    }
}

fn host<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

#[test]
fn parity_of_the_quantizer_and_the_values_that_are_embedded() {
    for device in devices() {
        for case in cases(&device) {
            let shape: [usize; 4] = case.io.shape("latents").try_into().unwrap();
            let latents = Array4::from_shape_vec(shape, case.io.floats("latents")).unwrap();
            let weights = case.model.weights();
            let table = weights.get("reconstruction_values").unwrap().values();
            let table = Table::from_values(table.unwrap().into_owned()).unwrap();
            let config = QuantizerConfig {
                bits: table.bits(),
                ..Default::default()
            };
            let quantizer = Quantizer::with_table(config, table).unwrap();
            let indices: Vec<usize> = quantizer
                .quantize(latents.view())
                .unwrap()
                .iter()
                .map(|&i| usize::from(i))
                .collect();
            assert_eq!(indices, case.io.ints("indices"), "{}", case.name);
            let rows = indices.len() / case.config.token_embed_dim;
            let values = case.model.dequantize(
                case.indices(&device)
                    .reshape([rows, case.config.token_embed_dim]),
            );
            assert!(relative_error("values", &host(values), &case.io.floats("values")) < 1e-6);
        }
    }
}

/// Encoder, decoder and logits to 1e-4 of their largest.
#[test]
fn parity_of_the_forward_pass() {
    for device in devices() {
        for case in cases(&device) {
            let (config, plan, model) = (&case.config, case.plan(), &case.model);
            let (seq, dims) = (config.seq(), config.token_embed_dim);
            let rows = case.indices(&device).reshape([plan.batch() * seq, dims]);
            let of = |positions: &Positions| -> Tensor<1, Int> {
                let rows: Vec<i32> = positions
                    .iter()
                    .map(|(image, position)| (image * seq + position) as i32)
                    .collect();
                Tensor::from_data(TensorData::from(rows.as_slice()), &device)
            };
            let (visible, masked) = (plan.visible(), plan.predicted());
            let classes: Vec<_> = case.io.ints("labels").into_iter().map(Some).collect();
            let values = model.dequantize(rows.clone().select(0, of(&visible)));
            let encoded = model.encode(
                Some(values),
                &visible,
                &classes,
                &mut ForwardContext::inference(),
            );
            assert_eq!(encoded.dims().to_vec(), case.io.shape("encoder_out"));
            assert!(
                relative_error(
                    "encoder_out",
                    &host(encoded.clone()),
                    &case.io.floats("encoder_out")
                ) < 1e-4
            );

            let all = Positions::new(vec![(0..seq).collect(); plan.batch()]);
            let decoded = model.decode(
                encoded.clone(),
                &visible,
                &all,
                &mut ForwardContext::inference(),
            );
            assert!(
                relative_error(
                    "decoder_out",
                    &host(decoded),
                    &case.io.floats("decoder_out")
                ) < 1e-4
            );

            let z = model.decode(encoded, &visible, &masked, &mut ForwardContext::inference());
            let order: Vec<i32> = config.channel_order.iter().map(|&dim| dim as i32).collect();
            let targets = rows.select(0, of(&masked)).select(
                1,
                Tensor::from_data(TensorData::from(order.as_slice()), &device),
            );
            let logits = model
                .head_logits(z, targets, FirstPosition::AsTrained, &mut Dropout::off())
                .swap_dims(0, 1);
            assert_eq!(logits.dims().to_vec(), case.io.shape("logits"));
            assert!(relative_error("logits", &host(logits), &case.io.floats("logits")) < 1e-4);
        }
    }
}

/// The loss to 1e-5, every gradient that the fixture has to 1e-3 of its largest.
#[test]
fn parity_of_the_loss_and_its_gradients() {
    for device in devices().map(Device::autodiff) {
        for case in cases(&device) {
            let labels = case.io.ints("labels");
            let (tokens, plan) = (case.indices(&device), case.plan());
            let losses = case.model.loss(tokens, &labels, &plan, &mut Rng::new(0, 0));
            let loss = losses.total;
            assert!(relative_error("loss", &host(loss.clone()), &case.io.floats("loss")) < 1e-5);
            let gradients = gradients(&case.model, loss);
            let names = case.io.names();
            let names: Vec<_> = names
                .iter()
                .filter_map(|name| name.strip_prefix("grad."))
                .collect();
            assert!(names.len() >= 10);
            for name in names {
                let expected = case.io.floats(&format!("grad.{name}"));
                assert!(
                    relative_error(name, &gradients[name], &expected) < 1e-3,
                    "{name}"
                );
            }
        }
    }
}

/// Greedy images with the fixture's orders: every index equal.
#[test]
fn parity_of_the_released_sampler() {
    for device in devices() {
        for case in cases(&device) {
            let labels = case.io.ints("labels");
            let requests: Vec<_> = labels
                .into_iter()
                .map(|class| ImageRequest {
                    class: Some(class),
                    seed: 0,
                })
                .collect();
            let steps = case.io.config["iters"].as_u64().unwrap() as usize;
            let scale = case.io.config["cfg"].as_f64().unwrap() as f32;
            for (name, cfg_scale, cfg_schedule) in [
                ("greedy_cfg1", 1.0, CfgSchedule::Linear),
                ("greedy_cfg_linear", scale, CfgSchedule::Linear),
                ("greedy_cfg_constant", scale, CfgSchedule::Constant),
            ] {
                let config = SampleConfig {
                    steps,
                    cfg_scale,
                    cfg_schedule,
                    temperature: 0.0,
                    ..Default::default()
                };
                let go = &mut |_: tessera_gen_ar::SamplingStep<'_>| ControlFlow::Continue(());
                let images = case
                    .model
                    .generate_with_orders(&requests, &case.orders(), &config, go)
                    .unwrap();
                let images: Vec<usize> = images.iter().map(|&index| usize::from(index)).collect();
                let expected = case.io.ints(&format!("{name}.indices"));
                let wrong = images.iter().zip(&expected).filter(|(a, b)| a != b).count();
                println!("{name}: {wrong} of {} indices differ", expected.len());
                assert_eq!(wrong, 0, "{name}");
            }
        }
    }
}

/// Every name and shape of the authors' three state dicts, and no other; the parameters add up to theirs.
#[test]
fn parity_of_names_and_shapes_with_the_released_checkpoints() {
    for (name, config, parameters) in [
        ("base", GenArConfig::tokenbridge_b(), 218_024_704),
        ("large", GenArConfig::tokenbridge_l(), 486_889_472),
        ("huge", GenArConfig::tokenbridge_h(), 910_040_576),
    ] {
        let file = format!("keys_tokenbridge_{name}.tsv");
        let Some(list) = fixtures("tokenbridge_", "_io.safetensors")
            .first()
            .map(|any| any.with_file_name("../papers").join(&file))
        else {
            return;
        };
        if !list.is_file() {
            println!("skipped: there is no {}", list.display());
            continue;
        }
        let list = std::fs::read_to_string(list).unwrap();
        let row = |line: &str| {
            let [name, shape, kind] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
            let shape: Vec<usize> = shape.split('x').map(|n| n.parse().unwrap()).collect();
            assert_eq!(kind == "buffer", BUFFERS.contains(&name), "{name}");
            (name.to_owned(), shape)
        };
        let expected: BTreeMap<String, Vec<usize>> = list.lines().map(row).collect();
        let model = config.init(&vec![0.0; config.levels], 0, &Device::flex());
        let found = model.shapes();
        for (name, shape) in &expected {
            assert_eq!(found.get(name), Some(shape), "{name}");
        }
        assert_eq!(found.len(), expected.len(), "{file}");
        let is_parameter = |(name, _): &(&String, &Vec<usize>)| !BUFFERS.contains(&name.as_str());
        let rows = expected.iter().filter(is_parameter);
        assert_eq!(
            rows.map(|(_, shape)| shape.iter().product::<usize>())
                .sum::<usize>(),
            parameters
        );
        println!(
            "{file}: {} names and shapes equal, {parameters} parameters",
            expected.len()
        );
    }
}
