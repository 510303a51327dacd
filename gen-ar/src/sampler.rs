//! The sampler: random order, cosine schedule, guidance on features, one token of the head's dimensions at a time.

use crate::config::is_permutation;
use crate::parts::{Parts, timed};
use crate::pass::Pass;
use crate::positions::{Positions, int_tensor};
use crate::schedule::{ScheduleStep, schedule};
use crate::{Error, GenAr, Result};
use burn::module::Module;
use burn::tensor::Tensor;
use ndarray::{Array2, Array3, ArrayView2, ArrayView3};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::time::Duration;
use tessera_backend::ops::{self, Sampling};
use tessera_backend::{device_values, host_indices, host_values, streams};

/// Tokens the head takes at once: what adaLN computes beforehand for one is `6 · dims · width · depth` numbers.
const HEAD_TOKENS: usize = 256;

/// How guidance grows over the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CfgSchedule {
    /// From 1 to the scale, with the share of positions generated.
    #[default]
    Linear,
    /// The scale at every step.
    Constant,
}

/// How images are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SampleConfig {
    /// Steps; more than there are positions count as one per position.
    pub steps: usize,
    /// Guidance scale; 1 is none, and half the backbone's work.
    pub cfg_scale: f32,
    /// How guidance grows.
    pub cfg_schedule: CfgSchedule,
    /// Logits are divided by it; 0 is greedy.
    pub temperature: f32,
    /// Keep the `top_k` likeliest levels; 0 keeps all.
    pub top_k: usize,
    /// Keep the fewest likeliest levels whose probabilities reach `top_p`; 1 keeps all.
    pub top_p: f32,
}

impl Default for SampleConfig {
    fn default() -> Self {
        let cfg_schedule = CfgSchedule::Linear;
        Self {
            steps: 64,
            cfg_scale: 3.0,
            cfg_schedule,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
        }
    }
}

impl SampleConfig {
    /// The same with so many steps.
    pub fn steps(self, steps: usize) -> Self {
        Self { steps, ..self }
    }

    /// The same with this guidance scale.
    pub fn guidance(self, cfg_scale: f32) -> Self {
        Self { cfg_scale, ..self }
    }

    /// The same with this temperature.
    pub fn temperature(self, temperature: f32) -> Self {
        Self {
            temperature,
            ..self
        }
    }

    /// Refuses what cannot be sampled with.
    ///
    /// # Errors
    /// [`Error::Sampling`] names the option.
    pub fn validate(&self) -> Result<()> {
        let check = |option, ok: bool, expected, found: String| match ok {
            true => Ok(()),
            false => Err(Error::Sampling {
                option,
                expected,
                found,
            }),
        };
        let Self {
            steps,
            cfg_scale,
            temperature,
            top_p,
            ..
        } = *self;
        check("steps", steps > 0, "at least 1", steps.to_string())?;
        check(
            "cfg_scale",
            cfg_scale.is_finite(),
            "finite",
            cfg_scale.to_string(),
        )?;
        let warm = temperature.is_finite() && temperature >= 0.0;
        check(
            "temperature",
            warm,
            "finite and at least 0",
            temperature.to_string(),
        )?;
        check(
            "top_p",
            top_p > 0.0 && top_p <= 1.0,
            "above 0 and at most 1",
            top_p.to_string(),
        )
    }
}

/// One image to draw: it depends on this and the [`SampleConfig`] alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageRequest {
    /// Its class; `None` is any.
    pub class: Option<usize>,
    /// Seed of its order and its draws.
    pub seed: u64,
}

/// What the progress function is told after each step.
#[derive(Debug)]
pub struct StepInfo<'a> {
    /// The step just done, from 1.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// Indices so far, `[images, seq, dims]`; 0 where nothing is generated yet.
    pub canvas: ArrayView3<'a, u16>,
    /// Which positions are generated, `[images, seq]`.
    pub known: ArrayView2<'a, bool>,
    /// The time this step took. On a device that queues its work, it falls to the part that waits for it.
    pub spent: Parts<Duration>,
}

/// What is asked after each step: go on, or stop with [`Error::Cancelled`].
pub type Progress<'a> = &'a mut dyn FnMut(StepInfo<'_>) -> ControlFlow<()>;

impl GenAr {
    /// Draws the images of `requests` as one batch: indices `[images, seq, dims]`.
    ///
    /// # Errors
    /// An option out of range, an unknown class, features or logits that are not finite, or a stop by `progress`.
    pub fn generate(
        &self,
        requests: &[ImageRequest],
        config: &SampleConfig,
        progress: Progress<'_>,
    ) -> Result<Array3<u16>> {
        let orders = self.orders(requests);
        self.generate_with_orders(requests, &orders, config, progress)
    }

    /// As [`generate`](Self::generate), with each image's order given as the released sampler has it: the position
    /// that an order names last is generated first.
    ///
    /// # Errors
    /// As `generate`, and orders that are not one permutation of the positions per image.
    pub fn generate_with_orders(
        &self,
        requests: &[ImageRequest],
        orders: &[Vec<usize>],
        config: &SampleConfig,
        progress: Progress<'_>,
    ) -> Result<Array3<u16>> {
        let mut drawing = self.drawing_with_orders(requests, orders, config)?;
        while let Some(info) = drawing.advance()? {
            let (step, steps) = (info.step, info.steps);
            if progress(info).is_break() {
                return Err(Error::Cancelled { step, steps });
            }
        }
        Ok(drawing.into_tokens())
    }

    /// [`generate`](Self::generate) step by step: a caller that stops asking cancels.
    ///
    /// # Errors
    /// An option out of range, an unknown class.
    pub fn drawing(&self, requests: &[ImageRequest], config: &SampleConfig) -> Result<Drawing> {
        let orders = self.orders(requests);
        self.drawing_with_orders(requests, &orders, config)
    }

    fn drawing_with_orders(
        &self,
        requests: &[ImageRequest],
        orders: &[Vec<usize>],
        config: &SampleConfig,
    ) -> Result<Drawing> {
        config.validate()?;
        self.check_requests(requests, orders)?;
        let [seq, dims] = [self.config.seq(), self.config.token_embed_dim];
        Ok(Drawing {
            // On an autodiff device every step would be recorded; `valid` takes the parameters off it.
            model: self.valid(),
            requests: requests.to_vec(),
            orders: orders.to_vec(),
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

    /// The order of every image's positions, from its seed.
    fn orders(&self, requests: &[ImageRequest]) -> Vec<Vec<usize>> {
        let order = |request: &ImageRequest| {
            streams::PICTURE_ORDER
                .of(request.seed)
                .permutation(self.config.seq())
        };
        requests.iter().map(order).collect()
    }

    /// `[images * wanted, dec.width]`: the features of the positions to generate, both branches of `guidance` run as
    /// one batch. Guidance acts on features, so that the head runs once.
    fn guided_features(
        &self,
        requests: &[ImageRequest],
        canvas: &Canvas,
        visible: &Positions,
        wanted: &Positions,
        guidance: Option<f32>,
        spent: &mut Parts<Duration>,
    ) -> Tensor<2> {
        let classes: Vec<_> = requests.iter().map(|request| request.class).collect();
        let values = self.visible_values(canvas, visible);
        let Some(scale) = guidance else {
            return self.features(values, visible, wanted, &classes, spent);
        };
        let both = [classes, vec![None; requests.len()]].concat();
        let values = values.map(|values| Tensor::cat(vec![values.clone(), values], 0));
        let z = self.features(values, &visible.twice(), &wanted.twice(), &both, spent);
        let rows = wanted.total();
        let (cond, uncond) = (z.clone().narrow(0, 0, rows), z.narrow(0, rows, rows));
        uncond.clone() + (cond - uncond) * scale
    }

    /// `[images * wanted, dec.width]`, an image being what has a class here.
    fn features(
        &self,
        values: Option<Tensor<2>>,
        visible: &Positions,
        wanted: &Positions,
        classes: &[Option<usize>],
        spent: &mut Parts<Duration>,
    ) -> Tensor<2> {
        let pass = &mut Pass::inference();
        let encoded = timed(&mut spent.encoder, || match values {
            Some(values) => self.encode(Some(values), visible, classes, pass),
            None => self.encode_classes(visible, classes),
        });
        timed(&mut spent.decoder, || {
            self.decode(encoded, visible, wanted, pass)
        })
    }

    /// Before anything is visible images of one class are the same to the encoder: it sees each class once.
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
        let encoded = self.encode(None, none, &distinct, &mut Pass::inference());
        encoded.select(0, int_tensor(rows, &self.device()))
    }

    fn visible_values(&self, canvas: &Canvas, visible: &Positions) -> Option<Tensor<2>> {
        let dims = self.config.token_embed_dim;
        let token = |(image, position)| {
            (0..dims).map(move |dim| usize::from(canvas.tokens[[image, position, dim]]))
        };
        let indices = || int_tensor(visible.iter().flat_map(token), &self.device());
        (visible.total() > 0).then(|| self.dequantize(indices().reshape([visible.total(), dims])))
    }

    /// The indices of the wanted tokens, token by token, dimensions in the head's order.
    fn draw_tokens(
        &self,
        z: Tensor<2>,
        wanted: &Positions,
        draws: &Draws,
        config: &SampleConfig,
        non_finite: impl Fn(&'static str) -> Error,
    ) -> Result<Vec<u16>> {
        let (dims, width, device) = (
            self.config.token_embed_dim,
            self.config.dec.width,
            z.device(),
        );
        let sampling = Sampling {
            temperature: config.temperature,
            top_k: config.top_k,
            top_p: config.top_p,
        };
        let mut checks = vec![z.clone().sum()];
        let (mut drawn, mut from) = (Vec::new(), self.sequence.part(wanted.total()).start);
        let part = self.sequence.part(wanted.total());
        let tokens: Vec<_> = wanted.iter().skip(part.start).take(part.len()).collect();
        for chunk in tokens.chunks(HEAD_TOKENS) {
            let uniforms = draws.uniforms(chunk, dims);
            let uniforms = device_values(uniforms, [dims, chunk.len()], &device);
            let z = z.clone().slice([from..from + chunk.len(), 0..width]);
            from += chunk.len();
            drawn.push(
                self.autoregress(z, self.config.first_position, &mut |dim, logits| {
                    checks.push(logits.clone().sum());
                    ops::categorical(
                        logits,
                        uniforms.clone().narrow(0, dim, 1).squeeze_dim(0),
                        sampling,
                    )
                }),
            );
        }
        // A sum is finite only if all it adds is; one read for the whole step.
        let checks = host_values(Tensor::cat(checks, 0));
        match checks.iter().position(|check| !check.is_finite()) {
            Some(0) => return Err(non_finite("features")),
            Some(_) => return Err(non_finite("logits")),
            None => {}
        }
        let mut indices = Vec::with_capacity(part.len() * dims);
        for drawn in drawn {
            indices.extend(host_indices(drawn).into_iter().map(|index| index as u16));
        }
        Ok(self.sequence.all_parts(indices, wanted.total(), dims))
    }

    fn check_requests(&self, requests: &[ImageRequest], orders: &[Vec<usize>]) -> Result<()> {
        let (seq, class_num) = (self.config.seq(), self.config.class_num);
        for (image, request) in requests.iter().enumerate() {
            if let Some(found) = request.class.filter(|&class| class >= class_num) {
                return Err(Error::UnknownClass {
                    image,
                    found,
                    class_num,
                });
            }
        }
        let orders_error = |found| Error::Orders {
            expected: format!("{} permutations of 0..{seq}", requests.len()),
            found,
        };
        if orders.len() != requests.len() {
            return Err(orders_error(format!("{} orders", orders.len())));
        }
        match orders.iter().position(|order| !is_permutation(order, seq)) {
            Some(image) => Err(orders_error(format!("another thing for image {image}"))),
            None => Ok(()),
        }
    }
}

/// Images on their way from nothing to all tokens; made by [`GenAr::drawing`].
#[derive(Debug)]
pub struct Drawing {
    model: GenAr,
    requests: Vec<ImageRequest>,
    orders: Vec<Vec<usize>>,
    config: SampleConfig,
    canvas: Canvas,
    draws: Draws,
    plan: Vec<ScheduleStep>,
    step: usize,
}

impl Drawing {
    /// Takes the next step, or none after the last.
    ///
    /// # Errors
    /// Features or logits that are not finite.
    pub fn advance(&mut self) -> Result<Option<StepInfo<'_>>> {
        let (step, steps) = (self.step, self.plan.len());
        let Some(now) = self.plan.get(step) else {
            return Ok(None);
        };
        let (model, config) = (&self.model, &self.config);
        let seq = model.config.seq();
        let part = |from: usize, to: usize| {
            Positions::new(self.orders.iter().map(|order| order[from..to].to_vec()))
        };
        let (visible, wanted) = (
            part(now.masked, seq),
            part(now.masked - now.predicted, now.masked),
        );
        let mut spent = Parts::default();
        let scale = now.guidance(config.cfg_scale, config.cfg_schedule, seq);
        let guidance = (config.cfg_scale != 1.0).then_some(scale);
        let z = model.guided_features(
            &self.requests,
            &self.canvas,
            &visible,
            &wanted,
            guidance,
            &mut spent,
        );
        let indices = timed(&mut spent.head, || {
            model.draw_tokens(z, &wanted, &self.draws, config, |what| Error::NonFinite {
                step,
                steps,
                what,
            })
        })?;
        self.canvas
            .fill(&wanted, &model.config.channel_order, &indices);
        self.step += 1;
        Ok(Some(StepInfo {
            step: self.step,
            steps,
            canvas: self.canvas.tokens.view(),
            known: self.canvas.known.view(),
            spent,
        }))
    }

    /// The tokens so far, `[images, seq, dims]`; 0 where nothing is generated yet.
    pub fn tokens(&self) -> ArrayView3<'_, u16> {
        self.canvas.tokens.view()
    }

    /// The tokens, handed over.
    pub fn into_tokens(self) -> Array3<u16> {
        self.canvas.tokens
    }
}

/// What has been generated.
#[derive(Debug)]
struct Canvas {
    tokens: Array3<u16>,
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

/// The uniform numbers that decide each image's tokens: one per position and dimension, so that a token's luck does
/// not depend on when it is generated or beside which images.
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

    /// `[dims, tokens]`.
    fn uniforms(&self, tokens: &[(usize, usize)], dims: usize) -> Vec<f32> {
        let of = |dim| {
            tokens
                .iter()
                .map(move |&(image, position)| self.0[image][position * dims + dim])
        };
        (0..dims).flat_map(of).collect()
    }
}
