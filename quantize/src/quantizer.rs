//! The post-training, dimension-wise quantizer (section 3.1): latents to indices and back.

use ndarray::{Array3, Array4, ArrayView1, ArrayView3, ArrayView4, Axis};

use serde::{Deserialize, Serialize};

use crate::{Error, QuantizerConfig, Result, Table};

/// Maps each dimension of each latent, independently, to one of 2^bits levels and back.
///
/// ```text
/// x       = (z - mean) · scale                                           unit variance
/// x_table = clip((x + range) / (2 range) · 2 std_range - std_range)      ± std_range, table units
/// index   = argmin_i |γ_i - x_table|                                     the first at equal distance
/// value   = (γ_index + std_range) / (2 std_range) · 2 range - range      normalized units again
/// z'      = value / scale + mean
/// ```
///
/// Every step is rounded to f32 in this order, as in the reference, so that indices agree even in ties. The outermost
/// values lie within ± `range` (± 4.062 of ± 5 at six bits), because a level is the mean of its bin.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantizer {
    config: QuantizerConfig,
    /// Of each dimension, or one for all.
    levels: Vec<Levels>,
}

/// The levels of a dimension.
#[derive(Debug, Clone, PartialEq)]
struct Levels {
    table: Table,
    /// In normalized units.
    values: Vec<f32>,
}

/// How the level of a latent is chosen that a tokenizer gives as a distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LevelRule {
    /// The nearest, as in the paper: to its mean, or to a draw from it in training.
    #[default]
    Nearest,
    /// By mean and standard deviation, as [`Quantizer::quantize_posterior`] does.
    Posterior,
}

impl Levels {
    fn new(table: Table, config: &QuantizerConfig) -> Self {
        let &QuantizerConfig {
            range, std_range, ..
        } = config;
        let value = |&level: &f32| (level + std_range) / (2.0 * std_range) * (2.0 * range) - range;
        let values = table.values().iter().map(value).collect();
        Self { table, values }
    }
}

impl Quantizer {
    /// A quantizer with the Gaussian tables of its bits, [`Table::gaussian`].
    ///
    /// # Errors
    /// Those of [`QuantizerConfig::validate`] and [`Table::gaussian`].
    pub fn new(config: QuantizerConfig) -> Result<Self> {
        config.validate()?;
        let one = [config.bits];
        let bits = match &config.channel_bits[..] {
            [] => &one[..],
            each => each,
        };
        let tables = bits
            .iter()
            .map(|&bits| Table::gaussian(bits, config.std_range));
        let tables = tables.collect::<Result<Vec<_>>>()?;
        Self::with_tables(config, tables)
    }

    /// A quantizer with given tables, such as a checkpoint's ([`Table::from_values`]): one for each dimension if the
    /// config's `channel_bits` give each its width, else one for all.
    ///
    /// # Errors
    /// Those of [`QuantizerConfig::validate`], [`Error::Shape`] for another number of tables, and
    /// [`Error::TableBits`] if a table does not have the 2^bits levels of its dimension.
    pub fn with_tables(config: QuantizerConfig, tables: Vec<Table>) -> Result<Self> {
        config.validate()?;
        let expected = config.channel_bits.len().max(1);
        if tables.len() != expected {
            return Err(Error::Shape {
                what: "tables of a quantizer",
                expected: vec![expected],
                found: vec![tables.len()],
            });
        }
        for (channel, table) in tables.iter().enumerate() {
            let bits = config.bits_of(channel);
            if table.bits() != bits {
                return Err(Error::TableBits {
                    bits,
                    found: table.levels(),
                });
            }
        }
        let levels = tables.into_iter().map(|table| Levels::new(table, &config));
        Ok(Self {
            levels: levels.collect(),
            config,
        })
    }

    /// [`with_tables`](Self::with_tables) of one table for all dimensions.
    ///
    /// # Errors
    /// As `with_tables`.
    pub fn with_table(config: QuantizerConfig, table: Table) -> Result<Self> {
        Self::with_tables(config, vec![table])
    }

    /// The config of the quantizer.
    pub fn config(&self) -> &QuantizerConfig {
        &self.config
    }

    fn of(&self, channel: usize) -> &Levels {
        match &self.levels[..] {
            [shared] => shared,
            each => &each[channel],
        }
    }

    /// The table of a dimension, in table units.
    pub fn table_of(&self, channel: usize) -> &Table {
        &self.of(channel).table
    }

    /// The value of every index of a dimension in normalized units, increasing: what a generator embeds.
    pub fn values_of(&self, channel: usize) -> &[f32] {
        &self.of(channel).values
    }

    /// The values of all dimensions, one dimension after the other where widths differ, else those that all share.
    pub fn values(&self) -> Vec<f32> {
        let values = self.levels.iter().flat_map(|levels| &levels.values);
        values.copied().collect()
    }

    /// Number of levels of a dimension.
    pub fn levels_of(&self, channel: usize) -> usize {
        self.of(channel).values.len()
    }

    /// Number of levels of the widest dimension.
    pub fn levels(&self) -> usize {
        1 << self.config.bits
    }

    /// Number of levels of each dimension where they differ; empty where all have as many.
    pub fn channel_levels(&self) -> Vec<usize> {
        let bits = self.config.channel_bits.iter();
        bits.map(|&bits| 1 << bits).collect()
    }

    /// Bits of the widest dimension.
    pub fn bits(&self) -> u8 {
        self.config.bits
    }

    /// Whether the normalized scalar `x` lies outside ± `range`.
    #[inline]
    pub fn clips(&self, x: f32) -> bool {
        x.abs() > self.config.range
    }

    /// The index of the normalized scalar `x` of a dimension; NaN gives 0.
    #[inline]
    pub fn index_of(&self, channel: usize, x: f32) -> u16 {
        self.config.index_in(self.table_of(channel), x)
    }

    /// Quantizes latents (section 3.1). Token `row · width + column` of the result is that position of the latent map.
    ///
    /// # Shapes
    /// - `latents`: `[batch, channels, height, width]`, as a tokenizer encodes them
    /// - output: `[batch, height * width, channels]`, each less than its dimension's [`levels_of`](Self::levels_of)
    ///
    /// # Errors
    /// [`Error::NonFinite`] for the first NaN or infinity; [`Error::Shape`] if `mean`, `scale` or `channel_bits` have
    /// another number of channels.
    pub fn quantize(&self, latents: ArrayView4<f32>) -> Result<Array3<u16>> {
        let (batch, channels, height, width) = latents.dim();
        self.config.check_channels(channels)?;
        ensure_finite(latents)?;
        let mut indices = Array3::zeros((batch, height * width, channels));
        for (image, mut tokens) in latents.outer_iter().zip(indices.outer_iter_mut()) {
            for (channel, (map, column)) in image
                .outer_iter()
                .zip(tokens.axis_iter_mut(Axis(1)))
                .enumerate()
            {
                let affine = self.config.channel(channel);
                let table = self.table_of(channel);
                for (&latent, index) in map.iter().zip(column) {
                    *index = self.config.index_in(table, affine.normalize(latent));
                }
            }
        }
        Ok(indices)
    }

    /// Quantizes latents that are distributions by how well a level accounts for them: Gaussian Quant (arXiv
    /// 2512.06609), with one dimension to a token and β = 1.
    ///
    /// ```text
    /// index = argmax_i log N(v_i; μ, σ²) - log N(v_i; 0, 1)        v_i, μ, σ in normalized units
    ///       = the level nearest to μ / (1 - σ²)                    where σ < 1, the outermost on μ's side elsewhere
    /// ```
    ///
    /// So a latent that is hardly known is drawn outward, to where levels are rare. With small σ this is
    /// [`quantize`](Self::quantize).
    ///
    /// # Shapes
    /// - `mean`, `std`: `[batch, channels, height, width]`, of the latents' distributions
    /// - output: `[batch, height * width, channels]`
    ///
    /// # Errors
    /// As `quantize`, for either; [`Error::Shape`] if they are not of one size.
    pub fn quantize_posterior(
        &self,
        mean: ArrayView4<f32>,
        std: ArrayView4<f32>,
    ) -> Result<Array3<u16>> {
        if mean.dim() != std.dim() {
            return Err(Error::Shape {
                what: "means and standard deviations",
                expected: mean.shape().to_vec(),
                found: std.shape().to_vec(),
            });
        }
        ensure_finite(mean)?;
        ensure_finite(std)?;
        self.config.check_channels(mean.dim().1)?;
        let mut drawn = mean.to_owned();
        for (channel, (mut maps, stds)) in drawn
            .axis_iter_mut(Axis(1))
            .zip(std.axis_iter(Axis(1)))
            .enumerate()
        {
            let affine = self.config.channel(channel);
            let unit = self.config.unit_of(channel);
            maps.zip_mut_with(&stds, |latent, &std| {
                let x = affine.normalize(*latent);
                let rest = 1.0 - (std / unit).powi(2);
                let far = self.config.range;
                let x = match rest > 0.0 {
                    true => (x / rest).clamp(-far, far),
                    false => far.copysign(x),
                };
                *latent = affine.restore(x);
            });
        }
        self.quantize(drawn.view())
    }

    /// The latents of indices.
    ///
    /// # Shapes
    /// - `indices`: `[batch, height * width, channels]`
    /// - output: `[batch, channels, height, width]`
    ///
    /// # Errors
    /// [`Error::Index`] for the first index that is not a level; [`Error::Shape`] if there are not `height * width`
    /// tokens, or `mean`, `scale` or `channel_bits` have another number of channels.
    pub fn dequantize(
        &self,
        indices: ArrayView3<u16>,
        height: usize,
        width: usize,
    ) -> Result<Array4<f32>> {
        let (batch, tokens, channels) = indices.dim();
        if tokens != height * width {
            return Err(Error::Shape {
                what: "tokens per image",
                expected: vec![height * width],
                found: vec![tokens],
            });
        }
        self.config.check_channels(channels)?;
        self.ensure_levels(indices)?;
        let mut latents = Array4::zeros((batch, channels, height, width));
        for (tokens, mut image) in indices.outer_iter().zip(latents.outer_iter_mut()) {
            for (channel, (column, mut map)) in tokens
                .axis_iter(Axis(1))
                .zip(image.outer_iter_mut())
                .enumerate()
            {
                let affine = self.config.channel(channel);
                let values = self.values_of(channel);
                for (&index, latent) in column.iter().zip(&mut map) {
                    *latent = affine.restore(values[usize::from(index)]);
                }
            }
        }
        Ok(latents)
    }

    fn ensure_levels(&self, indices: ArrayView3<u16>) -> Result<()> {
        let levels: Vec<usize> = (0..indices.dim().2)
            .map(|channel| self.levels_of(channel))
            .collect();
        let inside = |token: ArrayView1<u16>| {
            let mut each = token.iter().zip(&levels);
            each.all(|(&index, &levels)| usize::from(index) < levels)
        };
        if indices.lanes(Axis(2)).into_iter().all(inside) {
            return Ok(());
        }
        let outside = |&((.., channel), &found): &((usize, usize, usize), &u16)| {
            usize::from(found) >= levels[channel]
        };
        match indices.indexed_iter().find(outside) {
            Some(((batch, token, channel), &found)) => Err(Error::Index {
                batch,
                token,
                channel,
                found,
                levels: levels[channel],
            }),
            None => Ok(()),
        }
    }
}

/// Refuses latents that are not finite. The scan for the position is slow, so it runs only if there is one.
pub(crate) fn ensure_finite(latents: ArrayView4<f32>) -> Result<()> {
    if latents.iter().all(|latent| latent.is_finite()) {
        return Ok(());
    }
    match latents
        .indexed_iter()
        .find(|(_, latent)| !latent.is_finite())
    {
        Some(((batch, channel, row, column), &found)) => Err(Error::NonFinite {
            batch,
            channel,
            row,
            column,
            found,
        }),
        None => Ok(()),
    }
}

/// Indices as bytes, for files; `None` if an index needs more than eight bits.
///
/// # Shapes
/// - `indices`, output: `[batch, tokens, channels]`
pub fn narrow_u8(indices: ArrayView3<u16>) -> Option<Array3<u8>> {
    let fits = indices.iter().all(|&index| index <= u16::from(u8::MAX));
    fits.then(|| indices.mapv(|index| index as u8))
}

/// Indices from bytes, the inverse of [`narrow_u8`].
///
/// # Shapes
/// - `indices`, output: `[batch, tokens, channels]`
pub fn widen_u8(indices: ArrayView3<u8>) -> Array3<u16> {
    indices.mapv(u16::from)
}
