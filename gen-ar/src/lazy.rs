//! Steps that reuse features of earlier ones: LazyMAR (arXiv 2503.12450), as in its released code.
//!
//! A full step computes everything and keeps the keys and values of every block with the class, and what guidance
//! adds: the difference of a feature without the class and with it. A lazy step computes the branch with the class
//! alone. Its encoder computes the buffer and the tokens of the step before, which attend to those that are kept. Its
//! decoder computes all rows up to the block that prunes; later blocks compute the rows whose values changed most.

use crate::GenAr;
use crate::attention::KvCache;
use crate::block::Places;
use crate::cache::{kept_rows, pruning_block};
use crate::context::ForwardContext;
use crate::positions::Positions;
use crate::sampler::{StepFeatures, StepPositions};
use crate::stages::{Work, timed};
use burn::tensor::{Int, Tensor};
use tessera_backend::host_values;
use tessera_backend::ops::{self, Activation};

/// What is kept of the last full step and of the lazy steps since.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The keys and values of the encoder's blocks: the buffer's, then of tokens as they were drawn.
    encoder: Vec<KvCache>,
    /// The keys and values of the decoder's blocks, of all rows.
    decoder: Vec<KvCache>,
    /// The decoder's input, `[images * rows, dec.width]`.
    input: Tensor<2>,
    /// A row after the last block without the class, less the same with it: `[images * upcoming, dec.width]`.
    difference: Option<Tensor<2>>,
    /// The positions to draw before the next full step.
    upcoming: Positions,
}

/// A lazy step of `steps`, counted from 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LazyStep<'a> {
    pub step: usize,
    pub steps: usize,
    /// The positions that the step before drew.
    pub previous: &'a Positions,
}

impl GenAr {
    /// The features of a full step, as [`GenAr::guided_features`], and what lazy steps need of it to draw the
    /// `upcoming` positions, the wanted ones among them.
    pub(crate) fn full_features(
        &self,
        of: &StepFeatures<'_>,
        StepPositions { visible, wanted }: &StepPositions,
        upcoming: Positions,
        work: &mut Work,
    ) -> (Tensor<2>, Kept) {
        let images = of.requests.len();
        let (rows, device) = (self.config.buffer_size + self.config.seq(), self.device());
        let caches = |blocks: usize, heads: usize, head_dim: usize| -> Vec<KvCache> {
            let cache = || KvCache::new([images, heads, rows, head_dim], &device);
            (0..blocks).map(|_| cache()).collect()
        };
        let (enc, dec) = (self.config.enc, self.config.dec);
        let mut encoder = caches(enc.depth, enc.heads, enc.head_dim());
        let mut decoder = caches(dec.depth, dec.heads, dec.head_dim());

        let branches = of.branches();
        let values = of.values(self, visible);
        let encoded = timed(&mut work.spent.encoder, || {
            let places = alike(images, 0..self.config.buffer_size + visible.per_image());
            let places = places.rows(rows, 0, &device);
            let context = &mut ForwardContext::keeping(&mut encoder, images, places);
            self.encode(values, &of.repeated(visible), &of.classes(), context)
        });
        let (input, x) = timed(&mut work.spent.decoder, || {
            let x = self.decoder_input(encoded, &of.repeated(visible));
            let input = x
                .clone()
                .narrow(0, 0, images)
                .reshape([images * rows, dec.width]); // [images * rows, width]
            let every = alike(images, 0..rows).rows(rows, 0, &device);
            let context = &mut ForwardContext::keeping(&mut decoder, images, every);
            (
                input,
                self.decoder_rows(x, &of.repeated(&upcoming), context),
            )
        });
        let (visible, drawn) = (visible.per_image(), upcoming.per_image());
        work.flops.encoder += (branches * images) as f64 * self.config.encoder_flops(visible);
        work.flops.decoder +=
            (branches * images) as f64 * self.config.decoder_flops(visible, drawn);

        let branch = |index| {
            x.clone()
                .narrow(0, index * upcoming.total(), upcoming.total())
        };
        let difference = (branches == 2).then(|| branch(1) - branch(0));
        let now = wanted.rows_among(&upcoming, &x.device());
        let wanted_rows = (0..branches).map(|index| branch(index).select(0, now.clone()));
        let z = self.decoder_output(Tensor::cat(wanted_rows.collect(), 0), &of.repeated(wanted));
        let kept = Kept {
            encoder,
            decoder,
            input,
            difference,
            upcoming,
        };
        (of.guide(z), kept)
    }

    /// The features of a lazy step.
    ///
    /// # Shapes
    /// - output: `[images * wanted, dec.width]`
    pub(crate) fn lazy_features(
        &self,
        of: &StepFeatures<'_>,
        positions: &StepPositions,
        step: LazyStep<'_>,
        kept: &mut Kept,
        work: &mut Work,
    ) -> Tensor<2> {
        let (images, wanted) = (of.requests.len(), &positions.wanted);
        let (visible, new) = (positions.visible.per_image(), step.previous.per_image());
        let encoded = timed(&mut work.spent.encoder, || {
            self.encode_lazily(of, visible, step.previous, kept)
        });
        let (x, computed) = timed(&mut work.spent.decoder, || {
            self.decode_lazily(encoded, wanted, step, kept)
        });
        work.flops.encoder += images as f64 * self.config.lazy_encoder_flops(new, visible);
        let decoder = self
            .config
            .lazy_decoder_flops(new, computed, wanted.per_image());
        work.flops.decoder += images as f64 * decoder;
        let Some(difference) = &kept.difference else {
            return self.decoder_output(x, wanted);
        };
        let rows = wanted.rows_among(&kept.upcoming, &x.device());
        let without = x.clone() + difference.clone().select(0, rows);
        let both = Tensor::cat(vec![x, without], 0);
        of.guide(self.decoder_output(both, &wanted.twice()))
    }

    /// The encoder's rows of the buffer and the `new` tokens, `[images, buffer_size + new, enc.width]`.
    fn encode_lazily(
        &self,
        of: &StepFeatures<'_>,
        visible: usize,
        new: &Positions,
        kept: &mut Kept,
    ) -> Tensor<3> {
        let first = self.config.buffer_size;
        let filled = first + visible;
        let new_places = (0..first).chain(filled - new.per_image()..filled);
        let rows = alike(of.requests.len(), new_places);
        let rows = rows.rows(first + self.config.seq(), 0, &self.device());
        let places = Places {
            rows: &rows,
            filled,
        };
        let classes: Vec<_> = of.requests.iter().map(|request| request.class).collect();
        let context = &mut ForwardContext::inference();
        let values = self.visible_values(of.canvas, new);
        let mut x = self.encoder_input(values, new, &classes);
        for (block, cache) in self.encoder_blocks.iter().zip(&mut kept.encoder) {
            x = block.forward_among(x, cache, &places, context);
        }
        ops::layer_norm(x, &self.encoder_norm)
    }

    /// The wanted rows after the last block, `[images * wanted, dec.width]`, and how many rows of an image passed the
    /// block that prunes.
    fn decode_lazily(
        &self,
        encoded: Tensor<3>,
        wanted: &Positions,
        LazyStep {
            step,
            steps,
            previous,
        }: LazyStep<'_>,
        kept: &mut Kept,
    ) -> (Tensor<2>, usize) {
        let ([images, ..], device) = (encoded.dims(), encoded.device());
        let (dec, buffer) = (self.config.dec, self.config.buffer_size);
        let rows = buffer + self.config.seq();
        self.renew_input(encoded, previous, kept);
        let mut x = kept.input.clone().reshape([images, rows, dec.width]); // [images, rows, width]
        let [wanted, previous] = [wanted, previous].map(|positions| positions.shifted(buffer));
        let count = kept_rows(step, steps, wanted.per_image() + previous.per_image(), rows);
        let (context, pruning) = (&mut ForwardContext::inference(), pruning_block(dec.depth));

        // The rows that x has, and where their keys and values go.
        let mut here = alike(images, 0..rows);
        let mut places = here.rows(rows, 0, &device);
        for (index, (block, cache)) in self
            .decoder_blocks
            .iter()
            .zip(&mut kept.decoder)
            .enumerate()
        {
            let last = index + 1 == dec.depth;
            let at = Places {
                rows: &places,
                filled: rows,
            };
            if index == pruning && count < rows {
                let needed = [&wanted, &previous];
                x = block.forward_pruned(x, cache, context, &at, |similarities| {
                    here = match last {
                        true => wanted.clone(),
                        false => least_similar(similarities, needed, count),
                    };
                    here.rows(rows, 0, &device)
                });
                places = here.rows(rows, 0, &device);
            } else if last {
                let wanted = wanted.rows_among(&here, &device);
                x = block.forward_rows_among(x, wanted, cache, &at, context);
            } else {
                x = block.forward_among(x, cache, &at, context);
            }
        }
        let x = x.reshape([wanted.total(), dec.width]); // [images * wanted, width]
        (x, count)
    }

    /// Puts the encoder's new rows, `[images, buffer_size + new, enc.width]`, in the decoder's input.
    fn renew_input(&self, encoded: Tensor<3>, new: &Positions, kept: &mut Kept) {
        let ([images, short, _], device) = (encoded.dims(), encoded.device());
        let (width, buffer) = (self.config.dec.width, self.config.buffer_size);
        let rows = buffer + self.config.seq();
        let lists = new.lists().map(|positions| {
            let tokens = positions.iter().map(|position| buffer + position);
            (0..buffer).chain(tokens).collect()
        });
        let places = Positions::new(lists);
        let x = ops::linear(encoded, &self.decoder_embed, Activation::None)
            .reshape([images * short, width]); // [images * short, width]
        let positions = self.decoder_pos_embed_learned.val().squeeze_dim::<2>(0);
        let x = x + positions.select(0, places.rows(0, 0, &device));
        let places: Tensor<1, Int> = places.rows(rows, 0, &device);
        kept.input.inplace(|input| ops::put_rows(input, places, x));
    }
}

/// The same positions of every image.
fn alike(images: usize, positions: impl Iterator<Item = usize>) -> Positions {
    Positions::new(vec![positions.collect(); images])
}

/// The rows whose values changed most, `count` of each image, all that are needed among them. Of equal ones the first.
///
/// # Shapes
/// - similarities: `[images, rows]`
fn least_similar(similarities: Tensor<2>, needed: [&Positions; 2], count: usize) -> Positions {
    let [_, rows] = similarities.dims();
    let mut similarities = host_values(similarities);
    for (image, row) in needed.into_iter().flat_map(Positions::iter) {
        similarities[image * rows + row] = f32::NEG_INFINITY;
    }
    Positions::new(similarities.chunks_exact(rows).map(|similarities| {
        let mut order: Vec<usize> = (0..rows).collect();
        order.sort_by(|&a, &b| similarities[a].total_cmp(&similarities[b]));
        order.truncate(count);
        order
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::LazySchedule;
    use crate::config::TransformerConfig;
    use crate::sampler::Canvas;
    use crate::schedule::{ScheduleStep, schedule};
    use crate::{BUFFERS, GenArConfig, ImageRequest};
    use burn::tensor::Device;
    use ndarray::{Array2, Array3};
    use std::path::Path;
    use tessera_weights::Weight;

    const STEPS: usize = 64;
    const GUIDANCE: f32 = 1.5;

    /// `size` numbers in -0.5..0.5, as `tests/lazymar/features.py` makes them.
    fn uniform(name: &str, size: usize) -> Vec<f32> {
        let hash = |state: u32, byte: u8| (state ^ u32::from(byte)).wrapping_mul(16_777_619);
        let state = name.bytes().fold(2_166_136_261, hash);
        let number = |i: usize| {
            let x = state.wrapping_add((i as u32).wrapping_mul(2_654_435_761));
            let mix = |x: u32, factor: u32| (x ^ (x >> 16)).wrapping_mul(factor);
            let x = [0x7feb_352d, 0x846c_a68b].into_iter().fold(x, mix);
            (f64::from(x ^ (x >> 16)) / 2_f64.powi(32) - 0.5) as f32
        };
        (0..size).map(number).collect()
    }

    fn parameter(name: &str, shape: &[usize]) -> Vec<f32> {
        let u = uniform(name, shape.iter().product());
        let scaled = |shift: f32, scale: f32| u.iter().map(|u| shift + u * scale).collect();
        let strength = if name.contains("qkv") { 3.0 } else { 1.0 };
        let is_linear = name.ends_with("weight") && name != "class_emb.weight";
        match (is_linear, shape) {
            (true, &[_, inputs]) => scaled(0.0, strength * 2.0 * (3.0 / inputs as f32).sqrt()),
            (true, [_]) => scaled(1.0, 0.5),
            _ => scaled(0.0, 2.0),
        }
    }

    fn model() -> GenAr {
        let size = TransformerConfig {
            width: 16,
            depth: 14,
            heads: 2,
        };
        let config = GenArConfig {
            class_num: 3,
            buffer_size: 64,
            ..GenArConfig::new([16, 16], 4, 64, size, size)
        };
        let values: Vec<f32> = (0..64).map(|level| (level as f32 - 31.5) / 16.0).collect();
        let model = config.init(&values, 0, &Device::flex());
        let mut weights = model.weights();
        for (name, shape) in model.shapes() {
            if !BUFFERS.contains(&name.as_str()) {
                let values = parameter(&name, &shape);
                weights.insert(name, Weight::new(shape, values));
            }
        }
        GenAr::from_weights(&config, weights, &Device::flex()).unwrap()
    }

    /// The features of every step of two pictures whose tokens are given, with guidance: those of the authors' code, to
    /// 1e-4 of their size. From step 20 on it prunes.
    #[test]
    fn features_are_those_of_the_authors_code() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lazymar/features.f32");
        let expected = std::fs::read(file).unwrap();
        let expected = expected
            .chunks_exact(4)
            .map(|x| f32::from_le_bytes(x.try_into().unwrap()));
        let (expected, model): (Vec<f32>, _) = (expected.collect(), model());
        let seq = 256;
        let orders: Vec<Vec<usize>> = (0..2)
            .map(|image| {
                let keys = uniform(&format!("path {image}"), seq);
                let mut order: Vec<usize> = (0..seq).collect();
                order.sort_by(|&a, &b| keys[a].total_cmp(&keys[b]));
                order
            })
            .collect();
        let tokens = uniform("tokens", 2 * seq * 4);
        let tokens = tokens.iter().map(|u| ((u + 0.5) * 64.0) as u16).collect();
        let canvas = Canvas {
            tokens: Array3::from_shape_vec([2, seq, 4], tokens).unwrap(),
            known: Array2::from_elem([2, seq], true),
        };
        let requests = [1, 2].map(|class| ImageRequest {
            class: Some(class),
            seed: 0,
        });
        let (plan, lazy) = (schedule(seq, STEPS), LazySchedule::of_steps(STEPS));
        let of_steps = |from: usize, to: usize| {
            let last: &ScheduleStep = &plan[to];
            let left = last.masked - last.predicted;
            Positions::new(
                orders
                    .iter()
                    .map(|order| order[left..plan[from].masked].to_vec()),
            )
        };
        let (mut kept, mut at) = (None, 0);
        for step in 0..STEPS {
            let of = StepFeatures {
                requests: &requests,
                canvas: &canvas,
                guidance: Some(GUIDANCE),
            };
            let positions = StepPositions {
                visible: Positions::new(
                    orders
                        .iter()
                        .map(|order| order[plan[step].masked..].to_vec()),
                ),
                wanted: of_steps(step, step),
            };
            let work = &mut Work::default();
            let found = if lazy.is_full(step) {
                let next = (step + 1..STEPS).find(|&step| lazy.is_full(step));
                let upcoming = of_steps(step, next.unwrap_or(STEPS) - 1);
                let (z, new) = model.full_features(&of, &positions, upcoming, work);
                kept = Some(new);
                z
            } else {
                let previous = &of_steps(step - 1, step - 1);
                let now = LazyStep {
                    step,
                    steps: STEPS,
                    previous,
                };
                model.lazy_features(&of, &positions, now, kept.as_mut().unwrap(), work)
            };
            let found = host_values(found);
            let (with, rest) = expected[at..].split_at(found.len());
            at += 2 * found.len();
            for (i, (found, (with, without))) in found.iter().zip(with.iter().zip(rest)).enumerate()
            {
                let expected = without + (with - without) * GUIDANCE;
                assert!(
                    (found - expected).abs() < 1e-4 * (1.0 + expected.abs()),
                    "step {step}, {i}: {found}, expected {expected}"
                );
            }
        }
        assert_eq!(at, expected.len());
    }
}
