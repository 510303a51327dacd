//! Denoising diffusion with a learned variance (Nichol & Dhariwal, arXiv 2102.09672), as DiT trains and samples with it.

use crate::embed::per_image;
use burn::tensor::{Device, Tensor, activation};
use std::f64::consts::{LN_2, PI};

/// Steps of training.
pub(crate) const TRAIN_STEPS: usize = 1000;
/// The variances of the first and of the last of them, linear between.
const BETAS: [f64; 2] = [1e-4, 2e-2];

/// The variances of a chain of noising steps, and what follows from them. Of fewer than 1,000 steps, it is the chain over
/// evenly spaced ones of the 1,000.
#[derive(Debug, Clone)]
pub struct Ddpm {
    /// The step of training that each is.
    times: Vec<usize>,
    betas: Vec<f64>,
    alphas_cumprod: Vec<f64>,
    alphas_cumprod_prev: Vec<f64>,
}

/// What the model says of a step, as a distribution of the latents before it.
struct Posterior {
    mean: Tensor<4>,
    log_variance: Tensor<4>,
}

impl Ddpm {
    /// The chain of training, or one of `steps` to sample by (`space_timesteps` of the reference).
    ///
    /// # Panics
    /// If `steps` is not in 1..=1000.
    pub fn new(steps: usize) -> Self {
        assert!((1..=TRAIN_STEPS).contains(&steps));
        let stride = match steps {
            1 => 1.0,
            _ => (TRAIN_STEPS - 1) as f64 / (steps - 1) as f64,
        };
        // Added up as the reference does, which is not the product where that ends in a half: 278 of the 1,000 chains differ.
        let places = std::iter::successors(Some(0.0), |at| Some(at + stride));
        let times: Vec<_> = places
            .take(steps)
            .map(|at: f64| at.round_ties_even() as usize)
            .collect();
        let beta =
            |i: usize| BETAS[0] + (BETAS[1] - BETAS[0]) * i as f64 / (TRAIN_STEPS - 1) as f64;
        let mut product = 1.0;
        let all: Vec<f64> = (0..TRAIN_STEPS)
            .map(|i| {
                product *= 1.0 - beta(i);
                product
            })
            .collect();
        let alphas_cumprod: Vec<f64> = times.iter().map(|&time| all[time]).collect();
        let before = std::iter::once(1.0).chain(alphas_cumprod.iter().copied());
        let alphas_cumprod_prev: Vec<f64> = before.take(steps).collect();
        let now = alphas_cumprod.iter().zip(&alphas_cumprod_prev);
        Self {
            betas: now.map(|(now, before)| 1.0 - now / before).collect(),
            times,
            alphas_cumprod,
            alphas_cumprod_prev,
        }
    }

    /// Steps of the chain.
    pub fn steps(&self) -> usize {
        self.times.len()
    }

    /// The step of training that `step` is, which the model is told.
    pub fn time(&self, step: usize) -> usize {
        self.times[step]
    }

    /// `q(x_t | x_0)`: what is left of the latents and how much noise is added, `√ᾱ_t` and `√(1 − ᾱ_t)`.
    pub fn signal_and_noise(&self, step: usize) -> [f64; 2] {
        let kept = self.alphas_cumprod[step];
        [kept.sqrt(), (1.0 - kept).sqrt()]
    }

    /// `log β̃_t`, where the first, which is −∞, is the second's.
    fn log_variance_clipped(&self, step: usize) -> f64 {
        let step = step.max(1).min(self.steps() - 1);
        let variance = self.betas[step] * (1.0 - self.alphas_cumprod_prev[step])
            / (1.0 - self.alphas_cumprod[step]);
        variance.max(1e-20).ln()
    }

    /// `q(x_{t−1} | x_t, x_0)`'s mean: the factors of x_0 and of x_t.
    fn posterior_factors(&self, step: usize) -> [f64; 2] {
        let (beta, before) = (self.betas[step], self.alphas_cumprod_prev[step]);
        let noise = 1.0 - self.alphas_cumprod[step];
        [
            beta * before.sqrt() / noise,
            (1.0 - before) * (1.0 - beta).sqrt() / noise,
        ]
    }

    /// A number of every image's step, on the device.
    fn factor(
        &self,
        steps: &[usize],
        device: &Device,
        f: impl Fn(&Self, usize) -> f64,
    ) -> Tensor<4> {
        per_image(steps.iter().map(|&step| f(self, step)), device)
    }

    /// Noisy latents.
    ///
    /// # Shapes
    /// - x0, noise, output: `[batch, channels, height, width]`
    /// - steps: one an image
    pub fn noised(&self, x0: Tensor<4>, noise: Tensor<4>, steps: &[usize]) -> Tensor<4> {
        let device = x0.device();
        let signal = self.factor(steps, &device, |chain, step| {
            chain.signal_and_noise(step)[0]
        });
        let share = self.factor(steps, &device, |chain, step| {
            chain.signal_and_noise(step)[1]
        });
        x0 * signal + noise * share
    }

    /// The distribution that the model's noise and, if it says one, variance stand for. A variance is said as a number of
    /// −1 (β̃_t) to 1 (β_t); without, it is β_t.
    fn posterior(
        &self,
        x: Tensor<4>,
        noise: Tensor<4>,
        variance: Option<Tensor<4>>,
        steps: &[usize],
    ) -> Posterior {
        let device = x.device();
        let factor = |f: &dyn Fn(&Self, usize) -> f64| self.factor(steps, &device, f);
        let x0 = x.clone() * factor(&|chain, step| 1.0 / chain.signal_and_noise(step)[0])
            - noise
                * factor(&|chain, step| {
                    let [signal, share] = chain.signal_and_noise(step);
                    share / signal
                });
        let shape = x.dims();
        let mean = x0 * factor(&|chain, step| chain.posterior_factors(step)[0])
            + x * factor(&|chain, step| chain.posterior_factors(step)[1]);
        let log_variance = match variance {
            Some(variance) => {
                let (least, most) = (
                    factor(&Self::log_variance_clipped),
                    factor(&|chain, step| chain.betas[step].ln()),
                );
                let share = (variance + 1.0) * 0.5;
                share.clone() * most + (-share + 1.0) * least
            }
            // The first step's is β̃ of the second, as the reference has it.
            None => factor(&|chain, step| match step {
                0 => chain.log_variance_clipped(0),
                _ => chain.betas[step].ln(),
            })
            .expand(shape),
        };
        Posterior { mean, log_variance }
    }

    /// One step of ancestral sampling: `x_{t−1}` from the model's output at `x_t`.
    ///
    /// # Shapes
    /// - x, noise, variance, fresh, output: `[batch, channels, height, width]`; without a `variance` it is the process's, and
    ///   `fresh` noise is not read at the last step, 0
    pub fn step(
        &self,
        x: Tensor<4>,
        noise: Tensor<4>,
        variance: Option<Tensor<4>>,
        fresh: Option<Tensor<4>>,
        step: usize,
    ) -> Tensor<4> {
        let steps = vec![step; x.dims()[0]];
        let posterior = self.posterior(x, noise, variance, &steps);
        match fresh {
            Some(fresh) if step > 0 => {
                posterior.mean + (posterior.log_variance * 0.5).exp() * fresh
            }
            _ => posterior.mean,
        }
    }

    /// The variational bound of the steps in bits per latent, by which the variance is trained; the mean gets no gradient.
    ///
    /// # Shapes
    /// - x0, x, noise, variance: `[batch, channels, height, width]`
    /// - output: `[batch]`
    pub fn bound(
        &self,
        x0: Tensor<4>,
        x: Tensor<4>,
        noise: Tensor<4>,
        variance: Tensor<4>,
        steps: &[usize],
    ) -> Tensor<1> {
        let (device, [batch, ..]) = (x.device(), x.dims());
        let factor = |f: &dyn Fn(&Self, usize) -> f64| self.factor(steps, &device, f);
        let true_mean = x0.clone() * factor(&|chain, step| chain.posterior_factors(step)[0])
            + x.clone() * factor(&|chain, step| chain.posterior_factors(step)[1]);
        let true_log = factor(&Self::log_variance_clipped);
        let said = self.posterior(x, noise.detach(), Some(variance), steps);
        let distance = true_mean - said.mean.clone();
        let kl = (said.log_variance.clone() - true_log.clone()
            + (true_log - said.log_variance.clone()).exp()
            + distance.clone() * distance * (-said.log_variance.clone()).exp()
            - 1.0)
            * 0.5;
        let mut nats = kl;
        if steps.contains(&0) {
            let first = factor(&|_, step| f64::from(u8::from(step == 0)));
            let nll = -discretised_log_likelihood(x0, said);
            nats = nats * (-first.clone() + 1.0) + nll * first;
        }
        let bits = nats / LN_2;
        bits.reshape([batch as i32, -1])
            .mean_dim(1)
            .reshape([batch])
    }
}

/// Log-likelihood of values that are multiples of 1/255 in [-1, 1] under a Gaussian, the bins beyond open. What is subtracted
/// are the small ends of the distribution: of two numbers next to 1, f32 would leave nothing.
fn discretised_log_likelihood(x: Tensor<4>, said: Posterior) -> Tensor<4> {
    let inverse_std = (-said.log_variance * 0.5).exp();
    let centred = x.clone() - said.mean;
    let up_to = |z: Tensor<4>| normal_cdf(z * inverse_std.clone());
    let near = -centred.clone().abs();
    let inside = up_to(near.clone() + 1.0 / 255.0) - up_to(near - 1.0 / 255.0);
    let lowest = up_to(centred.clone() + 1.0 / 255.0);
    let highest = up_to(-centred + 1.0 / 255.0);
    let p = inside.mask_where(x.clone().lower_elem(-0.999), lowest);
    let p = p.mask_where(x.greater_elem(0.999), highest);
    p.clamp_min(1e-12).log()
}

/// The reference's approximation of the normal distribution function, `(1 + tanh u) / 2`, which is a sigmoid.
fn normal_cdf(x: Tensor<4>) -> Tensor<4> {
    let inner = x.clone() + x.clone() * x.clone() * x * 0.044715;
    activation::sigmoid(inner * (8.0 / PI).sqrt())
}
