//! The post-training, dimension-wise quantizer (section 3.1): latents to indices and back.

use ndarray::{Array3, Array4, ArrayView3, ArrayView4, Axis};

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
    table: Table,
    values: Vec<f32>,
}

impl Quantizer {
    /// A quantizer with the Gaussian table of its bits, [`Table::gaussian`].
    ///
    /// # Errors
    /// Those of [`QuantizerConfig::validate`] and [`Table::gaussian`].
    pub fn new(config: QuantizerConfig) -> Result<Self> {
        let table = Table::gaussian(config.bits, config.std_range)?;
        Self::with_table(config, table)
    }

    /// A quantizer with a given table, such as a checkpoint's ([`Table::from_values`]).
    ///
    /// # Errors
    /// Those of [`QuantizerConfig::validate`], and [`Error::TableBits`] if the table does not have 2^`bits` levels.
    pub fn with_table(config: QuantizerConfig, table: Table) -> Result<Self> {
        config.validate()?;
        if table.bits() != config.bits {
            return Err(Error::TableBits {
                bits: config.bits,
                found: table.levels(),
            });
        }
        let QuantizerConfig {
            range, std_range, ..
        } = config;
        let value = |&level: &f32| (level + std_range) / (2.0 * std_range) * (2.0 * range) - range;
        let values = table.values().iter().map(value).collect();
        Ok(Self {
            config,
            table,
            values,
        })
    }

    /// The config of the quantizer.
    pub fn config(&self) -> &QuantizerConfig {
        &self.config
    }

    /// The table, in table units.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The value of every index in normalized units, increasing: what a generator embeds.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Number of levels of a dimension.
    pub fn levels(&self) -> usize {
        self.values.len()
    }

    /// Bits per dimension.
    pub fn bits(&self) -> u8 {
        self.config.bits
    }

    /// Whether the normalized scalar `x` lies outside ± `range`.
    #[inline]
    pub fn clips(&self, x: f32) -> bool {
        x.abs() > self.config.range
    }

    /// The index of the normalized scalar `x`; NaN gives 0.
    #[inline]
    pub fn index_of(&self, x: f32) -> u16 {
        let QuantizerConfig {
            range, std_range, ..
        } = self.config;
        let x_table = (x + range) / (2.0 * range) * (2.0 * std_range) - std_range;
        self.table.index_of(x_table.clamp(-std_range, std_range))
    }

    /// Quantizes latents (section 3.1). Token `row · width + column` of the result is that position of the latent map.
    ///
    /// # Shapes
    /// - `latents`: `[batch, channels, height, width]`, as a tokenizer encodes them
    /// - output: `[batch, height * width, channels]`, each less than [`levels`](Self::levels)
    ///
    /// # Errors
    /// [`Error::NonFinite`] for the first NaN or infinity; [`Error::Shape`] if `mean` or `scale` have another number
    /// of channels.
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
                for (&latent, index) in map.iter().zip(column) {
                    *index = self.index_of(affine.normalize(latent));
                }
            }
        }
        Ok(indices)
    }

    /// The latents of indices.
    ///
    /// # Shapes
    /// - `indices`: `[batch, height * width, channels]`
    /// - output: `[batch, channels, height, width]`
    ///
    /// # Errors
    /// [`Error::Index`] for the first index that is not a level; [`Error::Shape`] if there are not `height * width`
    /// tokens, or `mean` or `scale` have another number of channels.
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
                for (&index, latent) in column.iter().zip(&mut map) {
                    *latent = affine.restore(self.values[usize::from(index)]);
                }
            }
        }
        Ok(latents)
    }

    fn ensure_levels(&self, indices: ArrayView3<u16>) -> Result<()> {
        let levels = self.levels();
        let outside = |index: u16| usize::from(index) >= levels;
        if !indices.iter().any(|&index| outside(index)) {
            return Ok(());
        }
        match indices.indexed_iter().find(|&(_, &index)| outside(index)) {
            Some(((batch, token, channel), &found)) => Err(Error::Index {
                batch,
                token,
                channel,
                found,
                levels,
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
