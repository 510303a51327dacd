//! Requests in, an iterator of pictures out.

use crate::error::{Error, Result};
use crate::model::Model;
use crate::params::ImageParams;
use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use tessera_checkpoint::create_folder;
use tessera_gen_ar::{Cache, EasyThreshold, ImageRequest, SampleConfig};
use tessera_gen_dit::EasyCache;
use tessera_moe::RouterTrace;
use tessera_pictures::{Existing, Pixels, write_png};

/// Pictures drawn at once unless told otherwise.
const BATCH: usize = 64;

/// One picture to draw. It depends on this, the model and the sampling alone: not on the batch, nor on the threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The id of its class; none draws without one, as guidance does for comparison.
    pub class: Option<usize>,
    /// What all of its randomness comes from.
    pub seed: u64,
}

impl Request {
    /// A picture of a class, from a seed.
    pub fn new(class: usize, seed: u64) -> Self {
        Self {
            class: Some(class),
            seed,
        }
    }

    /// A picture of no class in particular, from a seed.
    pub fn unconditional(seed: u64) -> Self {
        Self { class: None, seed }
    }
}

/// A finished picture.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Which of the requests, from 0.
    pub index: usize,
    /// The picture.
    pub pixels: Pixels,
    /// What made it.
    pub params: ImageParams,
}

impl Picture {
    /// Writes it as a PNG with its parameters as text; the folder is made if absent, a file that is there is replaced.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save_png(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        if let Some(folder) = path.parent() {
            create_folder(folder)?;
        }
        let texts = self.params.texts(&self.pixels);
        let texts = [0, 1].map(|i| (texts[i].0, texts[i].1.as_str()));
        Ok(write_png(path, &self.pixels, &texts, Existing::Replace)?)
    }
}

/// A step of drawing a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The index of the batch's first request.
    pub first: usize,
    /// Pictures in the batch.
    pub pictures: usize,
    /// The step just done, from 1.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
}

/// What drawing comes to next.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // taken one at a time, and moved once
pub enum Event {
    /// A step of the current batch is done; [`Generation::preview`] shows it.
    Step(Step),
    /// A picture is finished.
    Picture(Picture),
}

/// Requests being drawn, batch by batch: an iterator of pictures, or of [`Event`]s by [`advance`](Self::advance).
/// Dropping it cancels.
///
/// ```
/// use tessera::{Device, Model, Request};
///
/// let model = Model::builtin(&Device::cpu())?;
/// let dress = model.class("dress")?;
/// let requests = (0..2).map(|i| Request::new(dress, 1 + i));
/// for picture in model.generate(requests, &model.sampling().steps(4)) {
///     assert_eq!(picture?.pixels.width(), 64);
/// }
/// # Ok::<(), tessera::Error>(())
/// ```
#[derive(Debug)]
pub struct Generation<'a> {
    model: &'a Model,
    requests: Requests<'a>,
    /// How many requests there are, where that is known.
    total: Option<usize>,
    sampling: SampleConfig,
    batch_size: usize,
    decodes: bool,
    /// The first request that is in no batch yet.
    next: usize,
    current: Option<Batch>,
    finished: VecDeque<Picture>,
}

/// Requests that are in no batch yet; asked for batch by batch, so that their number takes no memory.
struct Requests<'a>(Box<dyn Iterator<Item = Request> + 'a>);

impl fmt::Debug for Requests<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Requests").finish_non_exhaustive()
    }
}

/// The requests that are being drawn.
#[derive(Debug)]
struct Batch {
    first: usize,
    requests: Vec<Request>,
    drawing: Drawing,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // one per generation
enum Drawing {
    Ar(tessera_gen_ar::Drawing),
    Dit(tessera_gen_dit::Denoising),
}

impl Model {
    /// Draws requests, which are asked for batch by batch.
    pub fn generate<'a, R>(&'a self, requests: R, sampling: &SampleConfig) -> Generation<'a>
    where
        R: IntoIterator<Item = Request, IntoIter: 'a>,
    {
        let requests = requests.into_iter();
        Generation {
            model: self,
            total: requests.size_hint().1,
            requests: Requests(Box::new(requests)),
            sampling: sampling.clone(),
            batch_size: BATCH,
            decodes: true,
            next: 0,
            current: None,
            finished: VecDeque::new(),
        }
    }

    /// What the file of a picture says of how it was made.
    ///
    /// # Panics
    /// When the request is of a class that the model does not have.
    pub fn params(&self, request: Request, sampling: &SampleConfig) -> ImageParams {
        ImageParams {
            schema: ImageParams::SCHEMA.into(),
            model: self.name().into(),
            weights: self.digest().map(Into::into),
            version: env!("CARGO_PKG_VERSION").into(),
            class: request.class,
            class_name: match request.class {
                Some(class) => self.class_names()[class].clone(),
                None => "none".into(),
            },
            seed: request.seed,
            sampling: sampling.clone(),
            dtype: self.precision().to_string(),
        }
    }

    fn drawing(&self, requests: &[Request], sampling: &SampleConfig) -> Result<Drawing> {
        let request = |request: &Request| ImageRequest {
            class: request.class,
            seed: request.seed,
        };
        let requests: Vec<_> = requests.iter().map(request).collect();
        Ok(match self {
            Self::Ar(model) => Drawing::Ar(model.generator.drawing(&requests, sampling)?),
            Self::Dit(model) => {
                let SampleConfig {
                    steps, cfg_scale, ..
                } = *sampling;
                let exact = tessera_gen_dit::SampleConfig::new(steps, cfg_scale);
                let sampling = match sampling.cache {
                    None => exact,
                    Some(Cache::Easy(EasyThreshold { threshold })) => {
                        exact.easy(EasyCache { threshold })
                    }
                    Some(Cache::Lazy(_)) => {
                        return Err(tessera_gen_dit::Error::Sampling {
                            option: "cache",
                            expected: "none or easy for a diffusion transformer".into(),
                            found: "lazy".into(),
                        }
                        .into());
                    }
                };
                Drawing::Dit(model.transformer.denoising(&requests, &sampling)?)
            }
        })
    }

    /// The pictures of a drawing as it is.
    fn pictures(&self, drawing: &Drawing) -> Result<Vec<Pixels>> {
        match (self, drawing) {
            (Self::Ar(model), Drawing::Ar(drawing)) => model.decode(drawing.tokens()),
            (Self::Dit(model), Drawing::Dit(drawing)) => model.decode(drawing.latents()),
            _ => unreachable!("a model makes drawings of its kind"),
        }
    }
}

impl Drawing {
    /// Takes a step: which of how many, or none after the last.
    fn advance(&mut self) -> Result<Option<[usize; 2]>> {
        Ok(match self {
            Self::Ar(drawing) => drawing.advance()?.map(|done| [done.step, done.steps]),
            Self::Dit(drawing) => {
                let done = drawing.advance(&mut RouterTrace::off())?;
                done.map(|done| [done.step, done.steps])
            }
        })
    }
}

impl<'a> Generation<'a> {
    /// Draws so many pictures at once; at least 1. It changes the speed and the memory, never a picture.
    pub fn batch(mut self, pictures: usize) -> Self {
        self.batch_size = pictures.max(1);
        self
    }

    /// Draws along with the other ranks of a sharded model and makes no pictures: for all ranks but one.
    pub fn without_pictures(mut self) -> Self {
        self.decodes = false;
        self
    }

    /// The next picture; `step` is told of every step before it.
    ///
    /// # Errors
    /// A value that is not finite, or what `step` gives.
    pub fn next_after<E: From<Error>>(
        &mut self,
        mut step: impl FnMut(Step) -> Result<(), E>,
    ) -> Result<Option<Picture>, E> {
        while let Some(event) = self.advance() {
            match event? {
                Event::Step(at) => step(at)?,
                Event::Picture(picture) => return Ok(Some(picture)),
            }
        }
        Ok(None)
    }

    /// The next step or picture; none when all requests are drawn, or after an error.
    pub fn advance(&mut self) -> Option<Result<Event>> {
        if let Some(picture) = self.finished.pop_front() {
            return Some(Ok(Event::Picture(picture)));
        }
        let first = self.current.as_ref().map_or(self.next, |batch| batch.first);
        let event = self.work().transpose()?;
        Some(event.map_err(|error| {
            self.current = None;
            self.requests = Requests(Box::new(std::iter::empty()));
            error.during(match self.total {
                Some(total) => format!("after {first} of {total} images"),
                None => format!("after {first} images"),
            })
        }))
    }

    /// What is known of the pictures of the current batch: the decoded canvas of tokens, or latents that are still
    /// noisy. Nothing between batches.
    ///
    /// # Errors
    /// When a decoded value is not finite.
    pub fn preview(&self) -> Result<Vec<Pixels>> {
        match &self.current {
            Some(batch) => self.model.pictures(&batch.drawing),
            None => Ok(Vec::new()),
        }
    }

    fn work(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(picture) = self.finished.pop_front() {
                return Ok(Some(Event::Picture(picture)));
            }
            let Some(batch) = &mut self.current else {
                let requests: Vec<_> = self.requests.0.by_ref().take(self.batch_size).collect();
                if requests.is_empty() {
                    return Ok(None);
                }
                let drawing = self.model.drawing(&requests, &self.sampling)?;
                let first = self.next;
                self.next += requests.len();
                self.current = Some(Batch {
                    first,
                    requests,
                    drawing,
                });
                continue;
            };
            if let Some([step, steps]) = batch.drawing.advance()? {
                return Ok(Some(Event::Step(Step {
                    first: batch.first,
                    pictures: batch.requests.len(),
                    step,
                    steps,
                })));
            }
            if let Some(batch) = self.current.take() {
                self.finish(&batch)?;
            }
        }
    }

    /// Decodes a batch.
    fn finish(&mut self, batch: &Batch) -> Result<()> {
        if !self.decodes {
            return Ok(());
        }
        let pictures = self.model.pictures(&batch.drawing)?;
        for ((index, request), pixels) in (batch.first..).zip(&batch.requests).zip(pictures) {
            let params = self.model.params(*request, &self.sampling);
            self.finished.push_back(Picture {
                index,
                pixels,
                params,
            });
        }
        Ok(())
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Picture>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.advance()? {
                Ok(Event::Picture(picture)) => return Some(Ok(picture)),
                Ok(Event::Step(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
