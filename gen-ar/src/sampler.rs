//! The sampler: random order, cosine schedule, guidance on features; within a token the head draws one dimension at a
//! time.

use crate::config::is_permutation;
use crate::context::ForwardContext;
use crate::head::Decoding;
use crate::lazy::{Kept, LazyStep};
use crate::positions::{Positions, int_tensor};
use crate::request::{ImageRequest, SampleConfig, SamplingProgress, SamplingStep};
use crate::schedule::ScheduleStep;
use crate::stages::{Work, timed};
use crate::{Error, GenAr, Result};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use ndarray::{Array2, Array3, ArrayView3};
use std::ops::Range;
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
            config.order.positions(self.config.grid, &mut rng)
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
        if config.lazy_schedule().is_some() {
            self.check_lazy()?;
        }
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
                false => config.order.schedule(self.config.grid, config.steps),
            },
            step: 0,
            kept: None,
        })
    }

    /// The features of the positions to generate. With guidance both branches run as one batch; guidance acts on
    /// features, so that the head runs once.
    ///
    /// # Shapes
    /// - output: `[images * wanted, dec.width]`
    fn guided_features(
        &self,
        of: &StepFeatures<'_>,
        positions: &StepPositions,
        work: &mut Work,
    ) -> Tensor<2> {
        let (values, classes) = (of.values(self, &positions.visible), of.classes());
        let [visible, wanted] =
            [&positions.visible, &positions.wanted].map(|positions| of.repeated(positions));
        let context = &mut ForwardContext::inference();
        let (encoded, computed) = timed(&mut work.spent.encoder, || match values {
            Some(values) => {
                let encoded = self.encode(Some(values), &visible, &classes, context);
                (encoded, classes.len())
            }
            None => self.encode_classes(&visible, &classes),
        });
        let z = timed(&mut work.spent.decoder, || {
            self.decode(encoded, &visible, &wanted, context)
        });
        let (visible, wanted) = (visible.per_image(), wanted.per_image());
        work.flops.encoder += computed as f64 * self.config.encoder_flops(visible);
        work.flops.decoder += classes.len() as f64 * self.config.decoder_flops(visible, wanted);
        of.guide(z)
    }

    /// Before any token is visible, all images of a class are the same to the encoder, which hence runs once per class;
    /// how often it does.
    ///
    /// # Shapes
    /// - output: `[batch, buffer_size, enc.width]`
    fn encode_classes(&self, none: &Positions, classes: &[Option<usize>]) -> (Tensor<3>, usize) {
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
        let encoded = encoded.select(0, int_tensor(rows, &self.device()));
        (encoded, distinct.len())
    }

    /// `[images * visible, dims]`: the values of the visible tokens, if there are any.
    pub(crate) fn visible_values(&self, canvas: &Canvas, visible: &Positions) -> Option<Tensor<2>> {
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

    /// Draws the wanted tokens from their features `z`: indices token by token, dimensions in the head's order, and the
    /// arithmetic operations that it took. On several ranks each draws its share.
    ///
    /// # Errors
    /// What is not finite: features or logits.
    fn draw_tokens(
        &self,
        z: Tensor<2>,
        wanted: &Positions,
        draws: &Draws,
        config: &SampleConfig,
    ) -> Result<(Vec<u16>, f64), &'static str> {
        let (dims, device) = (self.config.token_embed_dim, z.device());
        let sampling = Sampling {
            temperature: config.temperature,
            top_k: config.top_k,
            top_p: config.top_p,
        };
        // A guess is compared on the host: a GPU would wait for it.
        let decoding = match device == Device::flex() {
            true => config.head,
            false => config.head.or(Some(Decoding::Sequential)),
        };
        let share = self.sequence.part(wanted.total());
        let tokens: Vec<_> = wanted.iter().skip(share.start).take(share.len()).collect();
        let mut checks = vec![z.clone().sum()];
        let (mut drawn, mut from, mut flops) = (Vec::new(), share.start, 0.0);
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
            let tokens = chunk.len();
            let first = self.config.first_position;
            let of_chunk = self.head_times.faster(tokens, decoding, |decoding| {
                self.autoregress(z, first, decoding, &mut choose)
            });
            flops += tokens as f64 * self.config.head_flops(of_chunk.steps);
            drawn.push(of_chunk.indices);
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
        let indices = self.sequence.all_parts(indices, wanted.total(), dims);
        Ok((indices, flops))
    }

    /// Refuses to compute some rows of an image without the others where their routes depend on each other.
    fn check_lazy(&self) -> Result<()> {
        match &self.config.moe {
            Some(moe) if !moe.threshold => Err(Error::Sampling {
                option: "cache",
                expected: "none for a model whose experts have no threshold",
                found: "lazy".into(),
            }),
            _ => Ok(()),
        }
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
    /// What lazy steps reuse.
    kept: Option<Kept>,
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
        let positions = StepPositions::of(now, &self.orders);
        let scale = now.guidance(config.cfg_scale, config.cfg_schedule, model.config.seq());
        let of = StepFeatures {
            requests: &self.requests,
            canvas: &self.canvas,
            guidance: config.guides().then_some(scale),
        };
        let mut work = Work::default();
        let z = match config.lazy_schedule() {
            Some(lazy) if !lazy.is_full(step) => {
                let before = &self.plan[step - 1];
                let lazy = LazyStep {
                    step,
                    steps,
                    previous: &StepPositions::of(before, &self.orders).wanted,
                };
                let kept = self.kept.as_mut().expect("a lazy step follows a full one");
                model.lazy_features(&of, &positions, lazy, kept, &mut work)
            }
            // The last of the steps up to the next full one.
            Some(lazy) if step + 1 < steps && !lazy.is_full(step + 1) => {
                let next = (step + 1..steps).find(|&step| lazy.is_full(step));
                let last = &self.plan[next.unwrap_or(steps) - 1];
                let left = last.masked - last.predicted;
                let upcoming = positions_of(left..now.masked, &self.orders);
                // Freed first: there is no need for both.
                self.kept = None;
                let (z, kept) = model.full_features(&of, &positions, upcoming, &mut work);
                self.kept = Some(kept);
                z
            }
            _ => model.guided_features(&of, &positions, &mut work),
        };
        let indices = timed(&mut work.spent.head, || {
            model.draw_tokens(z, &positions.wanted, &self.draws, config)
        });
        let (indices, computed) = indices.map_err(|what| Error::NonFinite { step, steps, what })?;
        work.flops.head += computed;
        let order = &model.config.channel_order;
        self.canvas.fill(&positions.wanted, order, &indices);
        self.step += 1;
        Ok(Some(SamplingStep {
            step: self.step,
            steps,
            canvas: self.canvas.tokens.view(),
            known: self.canvas.known.view(),
            spent: work.spent,
            flops: work.flops,
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
pub(crate) struct StepPositions {
    /// Generated before.
    pub visible: Positions,
    /// Generated by the step.
    pub wanted: Positions,
}

impl StepPositions {
    /// The positions of a step of the schedule, in the images' orders.
    fn of(step: &ScheduleStep, orders: &[Vec<usize>]) -> Self {
        let seq = orders.first().map_or(0, Vec::len);
        Self {
            visible: positions_of(step.masked..seq, orders),
            wanted: positions_of(step.masked - step.predicted..step.masked, orders),
        }
    }
}

/// The positions at these places of the images' orders.
fn positions_of(places: Range<usize>, orders: &[Vec<usize>]) -> Positions {
    Positions::new(orders.iter().map(|order| order[places.clone()].to_vec()))
}

/// What the features of a step are computed from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepFeatures<'a> {
    pub requests: &'a [ImageRequest],
    pub canvas: &'a Canvas,
    /// The scale of this step, if guidance is on.
    pub guidance: Option<f32>,
}

impl StepFeatures<'_> {
    /// Passes of the backbone for each image, run as one batch: with its class and, with guidance, without.
    pub(crate) fn branches(&self) -> usize {
        1 + usize::from(self.guidance.is_some())
    }

    /// Those of the batch.
    pub(crate) fn classes(&self) -> Vec<Option<usize>> {
        let mut classes: Vec<_> = self.requests.iter().map(|request| request.class).collect();
        classes.resize(self.branches() * classes.len(), None);
        classes
    }

    /// Those of the batch.
    pub(crate) fn repeated(&self, positions: &Positions) -> Positions {
        match self.guidance {
            Some(_) => positions.twice(),
            None => positions.clone(),
        }
    }

    /// `[branches * images * visible, dims]`: the values of the visible tokens, if there are any.
    pub(crate) fn values(&self, model: &GenAr, visible: &Positions) -> Option<Tensor<2>> {
        let values = model.visible_values(self.canvas, visible)?;
        Some(Tensor::cat(vec![values; self.branches()], 0))
    }

    /// Guidance: of the features of the branches, `[branches * rows, dec.width]`, those to draw from,
    /// `[rows, dec.width]`.
    pub(crate) fn guide(&self, z: Tensor<2>) -> Tensor<2> {
        let Some(scale) = self.guidance else {
            return z;
        };
        let rows = z.dims()[0] / 2;
        let (cond, uncond) = (z.clone().narrow(0, 0, rows), z.narrow(0, rows, rows));
        uncond.clone() + (cond - uncond) * scale
    }
}

/// What has been generated.
#[derive(Debug)]
pub(crate) struct Canvas {
    /// `[images, seq, dims]`
    pub tokens: Array3<u16>,
    /// `[images, seq]`
    pub known: Array2<bool>,
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
