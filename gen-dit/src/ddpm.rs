//! Denoising diffusion with a learned variance (Nichol & Dhariwal, arXiv 2102.09672), as in DiT.

use crate::embed::per_image;
use burn::tensor::{Device, Tensor, activation};
use std::f64::consts::{LN_2, PI};

/// Number of training steps of the chain.
pub(crate) const TRAIN_STEPS: usize = 1000;
/// The variances of the first and the last step; linear in between.
const BETAS: [f64; 2] = [1e-4, 2e-2];

/// A chain of noising steps and its coefficients. A chain of fewer than 1,000 steps visits evenly spaced ones of the
/// 1,000 (respacing).
#[derive(Debug, Clone)]
pub struct Ddpm {
    /// The training step of each step.
    times: Vec<usize>,
    betas: Vec<f64>,
    alphas_cumprod: Vec<f64>,
    alphas_cumprod_prev: Vec<f64>,
}

/// A Gaussian over the latents before a step.
struct Posterior {
    mean: Tensor<4>,
    log_variance: Tensor<4>,
}

impl Ddpm {
    /// The chain of training (1,000 steps), or a respaced one for sampling (`space_timesteps` of the reference).
    ///
    /// # Panics
    /// If `steps` is not in 1..=1000.
    pub fn new(steps: usize) -> Self {
        assert!((1..=TRAIN_STEPS).contains(&steps));
        let stride = match steps {
            1 => 1.0,
            _ => (TRAIN_STEPS - 1) as f64 / (steps - 1) as f64,
        };
        // Accumulated as in the reference, which differs from the product near halves: in 278 of the 1,000 chains.
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

    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.times.len()
    }

    /// The training step of `step`: the time that the model is given.
    pub fn time(&self, step: usize) -> usize {
        self.times[step]
    }

    /// The factor of the latents in `q(x_t | x_0)`, `√ᾱ_t`.
    pub fn signal(&self, step: usize) -> f64 {
        self.alphas_cumprod[step].sqrt()
    }

    /// The factor of the noise in `q(x_t | x_0)`, `√(1 − ᾱ_t)`.
    pub fn noise(&self, step: usize) -> f64 {
        (1.0 - self.alphas_cumprod[step]).sqrt()
    }

    /// `log β̃_t`; that of step 0, which is −∞, is replaced by step 1's.
    fn log_variance_clipped(&self, step: usize) -> f64 {
        let step = step.max(1).min(self.steps() - 1);
        let variance = self.betas[step] * (1.0 - self.alphas_cumprod_prev[step])
            / (1.0 - self.alphas_cumprod[step]);
        variance.max(1e-20).ln()
    }

    /// The factor of x_0 in the mean of `q(x_{t−1} | x_t, x_0)`.
    fn posterior_factor_of_x0(&self, step: usize) -> f64 {
        let (beta, before) = (self.betas[step], self.alphas_cumprod_prev[step]);
        beta * before.sqrt() / (1.0 - self.alphas_cumprod[step])
    }

    /// The factor of x_t in the mean of `q(x_{t−1} | x_t, x_0)`.
    fn posterior_factor_of_xt(&self, step: usize) -> f64 {
        let (beta, before) = (self.betas[step], self.alphas_cumprod_prev[step]);
        (1.0 - before) * (1.0 - beta).sqrt() / (1.0 - self.alphas_cumprod[step])
    }

    /// A coefficient of every image's step, `[batch, 1, 1, 1]`.
    fn factor(
        &self,
        steps: &[usize],
        device: &Device,
        f: impl Fn(&Self, usize) -> f64,
    ) -> Tensor<4> {
        per_image(steps.iter().map(|&step| f(self, step)), device)
    }

    /// Latents with noise, `√ᾱ_t x_0 + √(1 − ᾱ_t) noise`.
    ///
    /// # Shapes
    /// - x0, noise, output: `[batch, channels, height, width]`
    /// - steps: one per image
    pub fn noised(&self, x0: Tensor<4>, noise: Tensor<4>, steps: &[usize]) -> Tensor<4> {
        let device = x0.device();
        let signal = self.factor(steps, &device, Self::signal);
        let share = self.factor(steps, &device, Self::noise);
        x0 * signal + noise * share
    }

    /// The distribution that the model's prediction describes. A predicted variance interpolates the log-variance
    /// between β̃_t (−1) and β_t (1); without one, the variance is β_t.
    fn posterior(
        &self,
        x: Tensor<4>,
        noise: Tensor<4>,
        variance: Option<Tensor<4>>,
        steps: &[usize],
    ) -> Posterior {
        let device = x.device();
        let factor = |f: &dyn Fn(&Self, usize) -> f64| self.factor(steps, &device, f);
        let x0 = x.clone() * factor(&|chain, step| 1.0 / chain.signal(step))
            - noise * factor(&|chain, step| chain.noise(step) / chain.signal(step));
        let shape = x.dims();
        let mean =
            x0 * factor(&Self::posterior_factor_of_x0) + x * factor(&Self::posterior_factor_of_xt);
        let log_variance = match variance {
            Some(variance) => {
                let (least, most) = (
                    factor(&Self::log_variance_clipped),
                    factor(&|chain, step| chain.betas[step].ln()),
                );
                let share = (variance + 1.0) * 0.5;
                share.clone() * most + (-share + 1.0) * least
            }
            // At step 0 the reference takes β̃ of step 1.
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
    /// - x, noise, variance, fresh, output: `[batch, channels, height, width]`; without `variance` it is β_t, and
    ///   step 0 adds no `fresh` noise
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

    /// The variational bound of the steps in bits per latent, which trains the variance; the mean gets no gradient.
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
        let true_mean = x0.clone() * factor(&Self::posterior_factor_of_x0)
            + x.clone() * factor(&Self::posterior_factor_of_xt);
        let true_log = factor(&Self::log_variance_clipped);
        let predicted = self.posterior(x, noise.detach(), Some(variance), steps);
        let distance = true_mean - predicted.mean.clone();
        let kl = (predicted.log_variance.clone() - true_log.clone()
            + (true_log - predicted.log_variance.clone()).exp()
            + distance.clone() * distance * (-predicted.log_variance.clone()).exp()
            - 1.0)
            * 0.5;
        let mut nats = kl;
        if steps.contains(&0) {
            let first = factor(&|_, step| f64::from(u8::from(step == 0)));
            let nll = -discretized_log_likelihood(x0, predicted);
            nats = nats * (-first.clone() + 1.0) + nll * first;
        }
        let bits = nats / LN_2;
        bits.reshape([batch as i32, -1]) // [batch, latents]
            .mean_dim(1)
            .reshape([batch]) // [batch]
    }
}

/// The log-likelihood of values in [-1, 1], in bins of width 2/255 with open outermost bins, under a Gaussian. It
/// subtracts the lower tails: subtracting two numbers near 1 would cancel in f32.
///
/// # Shapes
/// - x, output: `[batch, channels, height, width]`
fn discretized_log_likelihood(x: Tensor<4>, predicted: Posterior) -> Tensor<4> {
    let inverse_std = (-predicted.log_variance * 0.5).exp();
    let centered = x.clone() - predicted.mean;
    let up_to = |z: Tensor<4>| normal_cdf(z * inverse_std.clone());
    let near = -centered.clone().abs();
    let inside = up_to(near.clone() + 1.0 / 255.0) - up_to(near - 1.0 / 255.0);
    let lowest = up_to(centered.clone() + 1.0 / 255.0);
    let highest = up_to(-centered + 1.0 / 255.0);
    let p = inside.mask_where(x.clone().lower_elem(-0.999), lowest);
    let p = p.mask_where(x.greater_elem(0.999), highest);
    p.clamp_min(1e-12).log()
}

/// The reference's approximation of the normal distribution function, `(1 + tanh u) / 2`, as a sigmoid.
fn normal_cdf(x: Tensor<4>) -> Tensor<4> {
    let inner = x.clone() + x.clone() * x.clone() * x * 0.044715;
    activation::sigmoid(inner * (8.0 / PI).sqrt())
}
