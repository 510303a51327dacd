//! The sampler: random order, cosine schedule, guidance on features; within a token the head draws one dimension at a
//! time.

use crate::config::is_permutation;
use crate::context::ForwardContext;
use crate::positions::{Positions, int_tensor};
use crate::request::{ImageRequest, SampleConfig, SamplingProgress, SamplingStep};
use crate::schedule::{ScheduleStep, schedule};
use crate::stages::{StageBreakdown, timed};
use crate::{Error, GenAr, Result};
use burn::module::Module;
use burn::tensor::Tensor;
use ndarray::{Array2, Array3, ArrayView3};
use std::ops::Range;
use std::time::Duration;
use tessera_backend::ops::{self, Sampling};
use tessera_backend::{device_values, host_indices, host_values, streams};

/// Tokens that the head draws at once: for one of them, adaLN computes `6 · dims · width · depth` numbers in advance.
const HEAD_TOKENS: usize = 256;

impl GenAr {
    /// Draws the images of `requests` as one batch.
    ///
    /// # Shapes
    /// - output: `[images, seq, dims]`, indices in `0..levels`
    ///
    /// # Errors
    /// An option out of range, an unknown class, features or logits that are not finite, or a stop by `progress`.
    pub fn generate(
        &self,
        requests: &[ImageRequest],
        config: &SampleConfig,
        progress: SamplingProgress<'_>,
    ) -> Result<Array3<u16>> {
        self.drawing(requests, config)?.run(progress)
    }

    /// [`generate`](Self::generate) with a given order for each image. As in the released sampler, the last position of
    /// an order is generated first.
    ///
    /// # Shapes
    /// - output: `[images, seq, dims]`
    ///
    /// # Errors
    /// As `generate`, and orders that are not one permutation of the positions per image.
    pub fn generate_with_orders(
        &self,
        requests: &[ImageRequest],
        orders: &[Vec<usize>],
        config: &SampleConfig,
        progress: SamplingProgress<'_>,
    ) -> Result<Array3<u16>> {
        let drawing = self.drawing_with_orders(requests, orders.to_vec(), config)?;
        drawing.run(progress)
    }

    /// [`generate`](Self::generate) step by step: to cancel, stop asking.
    ///
    /// # Errors
    /// An option out of range, an unknown class.
    pub fn drawing(&self, requests: &[ImageRequest], config: &SampleConfig) -> Result<Drawing> {
        let order = |request: &ImageRequest| {
            let mut rng = streams::PICTURE_ORDER.of(request.seed);
            rng.permutation(self.config.seq())
        };
        let orders = requests.iter().map(order).collect();
        self.drawing_with_orders(requests, orders, config)
    }

    fn drawing_with_orders(
        &self,
        requests: &[ImageRequest],
        orders: Vec<Vec<usize>>,
        config: &SampleConfig,
    ) -> Result<Drawing> {
        config.validate()?;
        ImageRequest::check_classes(requests, self.config.class_num)?;
        self.check_orders(requests, &orders)?;
        let [seq, dims] = [self.config.seq(), self.config.token_embed_dim];
        Ok(Drawing {
            // On an autodiff device every step would be recorded; `valid` takes the parameters off it.
            model: self.valid(),
            requests: requests.to_vec(),
            orders,
            config: config.clone(),
            canvas: Canvas {
                tokens: Array3::zeros([requests.len(), seq, dims]),
                known: Array2::from_elem([requests.len(), seq], false),
            },
            draws: Draws::new(requests, seq * dims),
            plan: match requests.is_empty() {
                true => Vec::new(),
                false => schedule(seq, config.steps),
            },
            step: 0,
        })
    }

    /// The features of the positions to generate. With guidance both branches run as one batch; guidance acts on
    /// features, so that the head runs once.
    ///
    /// # Shapes
    /// - output: `[images * wanted, dec.width]`
    fn guided_features(
        &self,
        requests: &[ImageRequest],
        canvas: &Canvas,
        positions: &StepPositions,
        guidance: Option<f32>,
        spent: &mut StageBreakdown<Duration>,
    ) -> Tensor<2> {
        let classes: Vec<_> = requests.iter().map(|request| request.class).collect();
        let values = self.visible_values(canvas, &positions.visible);
        let Some(scale) = guidance else {
            return self.features(values, positions, &classes, spent);
        };
        let both = [classes, vec![None; requests.len()]].concat();
        let values = values.map(|values| Tensor::cat(vec![values.clone(), values], 0));
        let z = self.features(values, &positions.twice(), &both, spent);
        let rows = positions.wanted.total();
        let (cond, uncond) = (z.clone().narrow(0, 0, rows), z.narrow(0, rows, rows));
        uncond.clone() + (cond - uncond) * scale
    }

    /// One forward pass of the backbone over a batch of `classes`.
    ///
    /// # Shapes
    /// - values: `[batch * visible, dims]`
    /// - output: `[batch * wanted, dec.width]`
    fn features(
        &self,
        values: Option<Tensor<2>>,
        StepPositions { visible, wanted }: &StepPositions,
        classes: &[Option<usize>],
        spent: &mut StageBreakdown<Duration>,
    ) -> Tensor<2> {
        let context = &mut ForwardContext::inference();
        let encoded = timed(&mut spent.encoder, || match values {
            Some(values) => self.encode(Some(values), visible, classes, context),
            None => self.encode_classes(visible, classes),
        });
        timed(&mut spent.decoder, || {
            self.decode(encoded, visible, wanted, context)
        })
    }

    /// Before any token is visible, all images of a class are the same to the encoder, which hence runs once per class.
    ///
    /// # Shapes
    /// - output: `[batch, buffer_size, enc.width]`
    fn encode_classes(&self, none: &Positions, classes: &[Option<usize>]) -> Tensor<3> {
        let mut distinct: Vec<Option<usize>> = Vec::new();
        let rows = classes.iter().map(|class| {
            let known = distinct.iter().position(|other| other == class);
            known.unwrap_or_else(|| {
                distinct.push(*class);
                distinct.len() - 1
            })
        });
        let rows: Vec<_> = rows.collect();
        let encoded = self.encode(None, none, &distinct, &mut ForwardContext::inference());
        encoded.select(0, int_tensor(rows, &self.device()))
    }

    /// `[images * visible, dims]`: the values of the visible tokens, if there are any.
    fn visible_values(&self, canvas: &Canvas, visible: &Positions) -> Option<Tensor<2>> {
        let dims = self.config.token_embed_dim;
        let token = |(image, position)| {
            (0..dims).map(move |dim| usize::from(canvas.tokens[[image, position, dim]]))
        };
        if visible.total() == 0 {
            return None;
        }
        let indices = int_tensor(visible.iter().flat_map(token), &self.device());
        let indices = indices.reshape([visible.total(), dims]); // [images * visible, dims]
        Some(self.dequantize(indices))
    }

    /// Draws the wanted tokens from their features `z`: indices token by token, dimensions in the head's order. On
    /// several ranks each draws its share.
    ///
    /// # Errors
    /// What is not finite: features or logits.
    fn draw_tokens(
        &self,
        z: Tensor<2>,
        wanted: &Positions,
        draws: &Draws,
        config: &SampleConfig,
    ) -> Result<Vec<u16>, &'static str> {
        let (dims, device) = (self.config.token_embed_dim, z.device());
        let sampling = Sampling {
            temperature: config.temperature,
            top_k: config.top_k,
            top_p: config.top_p,
        };
        let share = self.sequence.part(wanted.total());
        let tokens: Vec<_> = wanted.iter().skip(share.start).take(share.len()).collect();
        let mut checks = vec![z.clone().sum()];
        let (mut drawn, mut from) = (Vec::new(), share.start);
        for chunk in tokens.chunks(HEAD_TOKENS) {
            let uniforms = draws.uniforms(chunk, dims);
            let uniforms = device_values(uniforms, [dims, chunk.len()], &device);
            let z = z.clone().narrow(0, from, chunk.len());
            from += chunk.len();
            let mut choose = |dim, logits: Tensor<2>| {
                checks.push(logits.clone().sum());
                let uniforms = uniforms.clone().narrow(0, dim, 1).squeeze_dim(0); // [tokens]
                ops::categorical(logits, uniforms, sampling)
            };
            drawn.push(self.autoregress(z, self.config.first_position, &mut choose));
        }
        // A sum is finite only if all its terms are; one read for the whole step.
        let checks = host_values(Tensor::cat(checks, 0));
        match checks.iter().position(|check| !check.is_finite()) {
            Some(0) => return Err("features"),
            Some(_) => return Err("logits"),
            None => {}
        }
        let mut indices = Vec::with_capacity(share.len() * dims);
        for drawn in drawn {
            indices.extend(host_indices(drawn).into_iter().map(|index| index as u16));
        }
        Ok(self.sequence.all_parts(indices, wanted.total(), dims))
    }

    fn check_orders(&self, requests: &[ImageRequest], orders: &[Vec<usize>]) -> Result<()> {
        let seq = self.config.seq();
        let fault = |found| Error::Orders {
            expected: format!("{} permutations of 0..{seq}", requests.len()),
            found,
        };
        if orders.len() != requests.len() {
            return Err(fault(format!("{} orders", orders.len())));
        }
        match orders.iter().position(|order| !is_permutation(order, seq)) {
            Some(image) => Err(fault(format!("another thing for image {image}"))),
            None => Ok(()),
        }
    }
}

/// Images on their way from no tokens to all tokens, made by [`GenAr::drawing`].
#[derive(Debug)]
pub struct Drawing {
    model: GenAr,
    requests: Vec<ImageRequest>,
    orders: Vec<Vec<usize>>,
    config: SampleConfig,
    canvas: Canvas,
    draws: Draws,
    plan: Vec<ScheduleStep>,
    /// Steps taken.
    step: usize,
}

impl Drawing {
    /// Takes the next step; `None` after the last.
    ///
    /// # Errors
    /// Features or logits that are not finite.
    pub fn advance(&mut self) -> Result<Option<SamplingStep<'_>>> {
        let (step, steps) = (self.step, self.plan.len());
        let Some(now) = self.plan.get(step) else {
            return Ok(None);
        };
        let (model, config) = (&self.model, &self.config);
        let seq = model.config.seq();
        let positions = StepPositions::of(now, &self.orders);
        let scale = now.guidance(config.cfg_scale, config.cfg_schedule, seq);
        let guidance = config.guides().then_some(scale);
        let mut spent = StageBreakdown::default();
        let z = model.guided_features(
            &self.requests,
            &self.canvas,
            &positions,
            guidance,
            &mut spent,
        );
        let indices = timed(&mut spent.head, || {
            model.draw_tokens(z, &positions.wanted, &self.draws, config)
        });
        let indices = indices.map_err(|what| Error::NonFinite { step, steps, what })?;
        let order = &model.config.channel_order;
        self.canvas.fill(&positions.wanted, order, &indices);
        self.step += 1;
        Ok(Some(SamplingStep {
            step: self.step,
            steps,
            canvas: self.canvas.tokens.view(),
            known: self.canvas.known.view(),
            spent,
        }))
    }

    /// Takes all steps.
    fn run(mut self, progress: SamplingProgress<'_>) -> Result<Array3<u16>> {
        while let Some(done) = self.advance()? {
            let (step, steps) = (done.step, done.steps);
            if progress(done).is_break() {
                return Err(Error::Cancelled { step, steps });
            }
        }
        Ok(self.into_tokens())
    }

    /// The indices so far, `[images, seq, dims]`; 0 at positions not generated yet.
    pub fn tokens(&self) -> ArrayView3<'_, u16> {
        self.canvas.tokens.view()
    }

    /// The indices, `[images, seq, dims]`.
    pub fn into_tokens(self) -> Array3<u16> {
        self.canvas.tokens
    }
}

/// The positions of one step.
struct StepPositions {
    /// Generated before.
    visible: Positions,
    /// Generated by the step.
    wanted: Positions,
}

impl StepPositions {
    /// The positions of a step of the schedule, in the images' orders.
    fn of(step: &ScheduleStep, orders: &[Vec<usize>]) -> Self {
        let part = |range: Range<usize>| {
            Positions::new(orders.iter().map(|order| order[range.clone()].to_vec()))
        };
        let seq = orders.first().map_or(0, Vec::len);
        Self {
            visible: part(step.masked..seq),
            wanted: part(step.masked - step.predicted..step.masked),
        }
    }

    /// The positions of the batch followed by itself.
    fn twice(&self) -> Self {
        Self {
            visible: self.visible.twice(),
            wanted: self.wanted.twice(),
        }
    }
}

/// What has been generated.
#[derive(Debug)]
struct Canvas {
    /// `[images, seq, dims]`
    tokens: Array3<u16>,
    /// `[images, seq]`
    known: Array2<bool>,
}

impl Canvas {
    /// Writes `indices`, whose dimensions are in the head's `order`, to the positions.
    fn fill(&mut self, positions: &Positions, order: &[usize], indices: &[u16]) {
        for ((image, position), token) in positions.iter().zip(indices.chunks_exact(order.len())) {
            for (&dim, &index) in order.iter().zip(token) {
                self.tokens[[image, position, dim]] = index;
            }
            self.known[[image, position]] = true;
        }
    }
}

/// The uniform numbers that decide each image's tokens: one per position and dimension, so that a token depends
/// neither on the step it is generated in nor on the other images.
#[derive(Debug)]
struct Draws(Vec<Vec<f32>>);

impl Draws {
    fn new(requests: &[ImageRequest], per_image: usize) -> Self {
        let draw = |request: &ImageRequest| {
            let mut rng = streams::PICTURE_TOKENS.of(request.seed);
            (0..per_image).map(|_| rng.uniform()).collect()
        };
        Self(requests.iter().map(draw).collect())
    }

    /// `[dims, tokens]`, of tokens named by image and position.
    fn uniforms(&self, tokens: &[(usize, usize)], dims: usize) -> Vec<f32> {
        let of = |dim| {
            tokens
                .iter()
                .map(move |&(image, position)| self.0[image][position * dims + dim])
        };
        (0..dims).flat_map(of).collect()
    }
}
