//! The distribution of an image's latents.

use burn::tensor::Tensor;
use tessera_backend::{device_values, streams};

/// Bounds of the log-variance: beyond them its exponential is 0 or infinite in single precision.
const LOGVAR_RANGE: (f32, f32) = (-30.0, 20.0);

/// A Gaussian with independent components for each image: `N(mean, exp(logvar))`.
#[derive(Debug, Clone)]
pub struct Posterior {
    /// `[batch, z_channels, height, width]`
    pub mean: Tensor<4>,
    /// `[batch, z_channels, height, width]`, in -30 to 20
    pub logvar: Tensor<4>,
}

impl Posterior {
    /// Splits moments into the mean and the log-variance, which is clamped.
    ///
    /// # Shapes
    /// - `moments`: `[batch, 2 z_channels, height, width]`, the means first
    ///
    /// # Panics
    /// If the number of channels is odd.
    pub fn from_moments(moments: Tensor<4>) -> Self {
        let [_, channels, _, _] = moments.dims();
        assert!(
            channels.is_multiple_of(2),
            "moments are means and log-variances, not {channels} channels"
        );
        let (low, high) = LOGVAR_RANGE;
        Self {
            mean: moments.clone().narrow(1, 0, channels / 2),
            logvar: moments
                .narrow(1, channels / 2, channels / 2)
                .clamp(low, high),
        }
    }

    /// The means and the (clamped) log-variances side by side: what a cache of an image keeps.
    ///
    /// # Shapes
    /// - returns `[batch, 2 z_channels, height, width]`
    pub fn moments(&self) -> Tensor<4> {
        Tensor::cat(vec![self.mean.clone(), self.logvar.clone()], 1)
    }

    /// The standard deviation.
    ///
    /// # Shapes
    /// - returns `[batch, z_channels, height, width]`
    pub fn std(&self) -> Tensor<4> {
        (self.logvar.clone() * 0.5).exp()
    }

    /// The likeliest latents: the mean.
    ///
    /// # Shapes
    /// - returns `[batch, z_channels, height, width]`
    pub fn mode(&self) -> Tensor<4> {
        self.mean.clone()
    }

    /// Draws latents. Image `i` depends on `seeds[i]` alone, not on the images around it.
    ///
    /// # Shapes
    /// - `seeds`: `batch` of them
    /// - returns `[batch, z_channels, height, width]`
    ///
    /// # Panics
    /// If there is not one seed to an image.
    pub fn sample(&self, seeds: &[u64]) -> Tensor<4> {
        let [batch, channels, height, width] = self.mean.dims();
        assert_eq!(seeds.len(), batch, "one seed to an image");
        let mut noise = Vec::with_capacity(batch * channels * height * width);
        for &seed in seeds {
            let mut rng = streams::POSTERIOR.of(seed);
            noise.extend((0..channels * height * width).map(|_| rng.normal()));
        }
        let shape = [batch, channels, height, width];
        self.sample_with(device_values(noise, shape, &self.mean.device()))
    }

    /// `mean + std * noise`: the reparameterisation, through which gradients reach both moments.
    ///
    /// # Shapes
    /// - `noise`: `[batch, z_channels, height, width]`, standard normal
    /// - returns `[batch, z_channels, height, width]`
    pub fn sample_with(&self, noise: Tensor<4>) -> Tensor<4> {
        self.mean.clone() + self.std() * noise
    }

    /// Divergence from the standard normal in nats, summed over an image's latents:
    /// `½ Σ (mean² + exp(logvar) - 1 - logvar)`.
    ///
    /// # Shapes
    /// - returns `[batch]`
    pub fn kl(&self) -> Tensor<1> {
        let (mean, logvar) = (self.mean.clone(), self.logvar.clone());
        let twice = mean.clone() * mean + logvar.clone().exp() - logvar - 1.0;
        let per_image: Tensor<2> = twice.flatten::<2>(1, 3).sum_dim(1);
        per_image.squeeze_dim::<1>(1) * 0.5
    }
}
