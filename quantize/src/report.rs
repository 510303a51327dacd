//! A calibration in words.

use std::fmt;

use crate::{Calibration, Dimension, QuantizerConfig};

/// The widths whose entropies are printed.
const PRINTED_BITS: [u8; 4] = [3, 4, 5, 6];

impl fmt::Display for Calibration {
    /// A table, a row for each dimension.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            images,
            channels,
            height,
            width,
            latent_mean,
            latent_std,
            latent_scale,
            quantizer,
            patch_size,
            ..
        } = self;
        write!(
            f,
            "{images} pictures, latents of {channels} x {height} x {width}"
        )?;
        if *patch_size > 1 {
            write!(f, ", patches of {patch_size} x {patch_size} latents")?;
        }
        writeln!(
            f,
            "\nlatent scale {latent_scale:.4} (mean {latent_mean:.4}, std {latent_std:.4})"
        )?;
        let (bits, range, clipped) = (
            quantizer.bits_in_words(),
            quantizer.range,
            100.0 * self.clip_rate,
        );
        writeln!(
            f,
            "{bits} bits per dimension over ±{range}, clip rate {clipped:.4} %"
        )?;
        writeln!(
            f,
            "entropy {:.3} bits per dimension, mse {:.6}",
            self.entropy_bits, self.mse
        )?;
        let titles = [
            "mean",
            "std",
            "min",
            "max",
            "clip %",
            "bits",
            "entropy",
            "codes %",
            "posterior",
            "decoder",
        ];
        let [
            mean,
            std,
            min,
            max,
            clip,
            bits,
            entropy,
            codes,
            posterior,
            decoder,
        ] = titles;
        write!(
            f,
            "dimension {mean:>8} {std:>8} {min:>8} {max:>8} {clip:>8} {bits:>4} {entropy:>8} "
        )?;
        writeln!(
            f,
            "{codes:>7} {posterior:>9} {decoder:>7}  entropy at {PRINTED_BITS:?} bits"
        )?;
        for (channel, dimension) in self.dimensions.iter().enumerate() {
            self.write_row(f, channel, dimension)?;
        }
        writeln!(f, "order {:?}", self.order)
    }
}

impl Calibration {
    fn write_row(
        &self,
        f: &mut fmt::Formatter<'_>,
        channel: usize,
        dimension: &Dimension,
    ) -> fmt::Result {
        let Dimension {
            mean,
            std,
            clip_rate,
            entropy_bits,
            code_usage,
            ..
        } = dimension;
        let (clipped, used) = (100.0 * clip_rate, 100.0 * code_usage);
        let bits = self.quantizer.bits_of(channel);
        let or_none =
            |figure: Option<f32>| figure.map_or("-".into(), |figure| format!("{figure:.2}"));
        let [min, max] = [dimension.min, dimension.max].map(or_none);
        let [posterior, decoder] =
            [dimension.posterior_bits, dimension.decoder_bits()].map(or_none);
        write!(
            f,
            "{channel:>9} {mean:>8.4} {std:>8.4} {min:>8} {max:>8} {clipped:>8.4} {bits:>4} "
        )?;
        write!(
            f,
            "{entropy_bits:>8.3} {used:>7.1} {posterior:>9} {decoder:>7} "
        )?;
        for bits in PRINTED_BITS {
            write!(f, " {:>5}", or_none(dimension.entropy_at(bits)))?;
        }
        writeln!(f)
    }
}

impl Dimension {
    /// The entropy in bits of the indices with another number of bits; none where it was not measured.
    pub fn entropy_at(&self, bits: u8) -> Option<f32> {
        let width = self.widths.iter().find(|width| width.bits == bits);
        width.map(|width| width.entropy_bits)
    }
}

impl QuantizerConfig {
    /// How many bits the dimensions have, or have on average where they differ.
    pub fn bits_in_words(&self) -> String {
        match self.channel_bits.is_empty() {
            true => self.bits.to_string(),
            false => format!("{:.3}", self.mean_bits()),
        }
    }
}
