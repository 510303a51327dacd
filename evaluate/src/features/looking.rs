//! Many pictures looked at block by block, as they come.

use super::network::EffLite0;
use super::report::FeatureFigures;
use crate::error::{Error, Result};
use ndarray::{Array2, ArrayView2};
use serde::Serialize;
use tessera_pictures::dataset::spaced;
use tessera_pictures::{Channels, Filter, Pixels, resize};

/// Pictures that are in memory at once.
const BLOCK: usize = 32;
/// Side of a picture in a grid of neighbors, in px.
const CELL: usize = 128;
/// Nearest pictures in a row of that grid.
const NEAREST: usize = 5;

/// Pictures of one kind that were looked at.
#[derive(Debug, Default)]
pub struct Seen {
    features: Vec<f64>,
    /// Their numbers among those that were asked for.
    pub indices: Vec<usize>,
    /// Whether any is gray.
    pub gray: bool,
    /// Height and width of the first.
    pub size: Option<[usize; 2]>,
}

impl Seen {
    /// `[pictures, 1280]`.
    pub fn features(&self) -> ArrayView2<'_, f64> {
        let shape = (self.indices.len(), EffLite0::FEATURES);
        ArrayView2::from_shape(shape, &self.features).expect("a row for every picture")
    }

    /// What sets pictures apart from these before their content does, in notes.
    pub fn unlike(&self, other: &Self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.gray || other.gray {
            notes
                .push("note: gray pictures are looked at as RGB, with three equal channels".into());
        }
        if let (Some([height, width]), Some([their_height, their_width])) = (self.size, other.size)
            && [height, width] != [their_height, their_width]
        {
            notes.push(format!(
                "note: the first picture of one folder is {width}x{height} px and of the other \
                {their_width}x{their_height} px; sharpness alone sets them apart"
            ));
        }
        notes
    }
}

/// Pictures in one version or several, such as originals and what reconstructions make of them.
#[derive(Debug, Default)]
pub struct Looked {
    /// One for every version, all of the same pictures.
    pub versions: Vec<Seen>,
    apart: Vec<f64>,
}

impl Looked {
    /// Adds pictures by their numbers, each in all versions.
    ///
    /// # Errors
    /// Features that are not finite.
    pub fn add(&mut self, network: &EffLite0, pictures: &[(usize, Vec<Pixels>)]) -> Result<()> {
        let count = pictures.first().map_or(0, |(_, versions)| versions.len());
        self.versions
            .resize_with(count.max(self.versions.len()), Seen::default);
        self.apart.resize(self.versions.len(), 0.0);
        let mut first = None;
        for version in 0..count {
            let of_version: Vec<Pixels> = pictures
                .iter()
                .map(|(_, versions)| versions[version].clone())
                .collect();
            let view = network.view(&of_version)?;
            let seen = &mut self.versions[version];
            seen.features.extend(&view.features);
            for ((index, _), picture) in pictures.iter().zip(&of_version) {
                seen.indices.push(*index);
                seen.gray |= picture.channels() == Channels::Gray;
                seen.size.get_or_insert([picture.height(), picture.width()]);
            }
            match &first {
                None => first = Some(view),
                Some(first) => self.apart[version] += first.distances(&view).iter().sum::<f64>(),
            }
        }
        Ok(())
    }

    /// The features of a version, `[pictures, 1280]`.
    pub fn features(&self, version: usize) -> ArrayView2<'_, f64> {
        match self.versions.get(version) {
            Some(seen) => seen.features(),
            None => ArrayView2::from_shape((0, EffLite0::FEATURES), &[]).expect("no rows"),
        }
    }

    /// A version beside the first.
    ///
    /// # Errors
    /// As [`FeatureFigures::of`].
    pub fn figures(&self, version: usize, neighbors: usize) -> Result<FeatureFigures> {
        FeatureFigures::of(self.features(version), self.features(0), neighbors)
    }

    /// The mean perceptual distance of a version from the first.
    pub fn apart(&self, version: usize) -> f64 {
        let pictures = self.features(version).nrows().max(1);
        self.apart
            .get(version)
            .map_or(0.0, |sum| sum / pictures as f64)
    }
}

/// Looks at pictures `0..count`; `picture` gives all versions of one, or none where it is to be left out.
///
/// # Errors
/// What `picture` gives, and features that are not finite.
pub fn look<E: From<Error>>(
    network: &EffLite0,
    count: usize,
    mut picture: impl FnMut(usize) -> Result<Vec<Pixels>, E>,
) -> Result<Looked, E> {
    let (mut looked, mut block) = (Looked::default(), Vec::with_capacity(BLOCK));
    for index in 0..count {
        let versions = picture(index)?;
        if !versions.is_empty() {
            block.push((index, versions));
        }
        if block.len() == BLOCK || index + 1 == count {
            looked.add(network, &block)?;
            block.clear();
        }
    }
    Ok(looked)
}

/// How far the nearest training pictures are, as medians: a generator that learned them by heart draws nearer ones than
/// real pictures are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Nearest {
    /// Of the pictures.
    pub pictures: f64,
    /// Of real pictures that were not trained on, where there are any.
    pub real: Option<f64>,
}

impl Nearest {
    /// With the nearest training pictures of each picture, `[pictures, 5]`; all are features, `[pictures, features]`,
    /// of one picture or more.
    pub fn of(
        pictures: ArrayView2<f64>,
        training: ArrayView2<f64>,
        real: Option<ArrayView2<f64>>,
    ) -> (Self, Array2<usize>) {
        let median = |values: ndarray::Array1<f64>| {
            let mut values = values.to_vec();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let nearest = |rows, count| super::neighbors::nearest(rows, training, count);
        let (indices, distances) = nearest(pictures, NEAREST.min(training.nrows()));
        let nearest = Self {
            pictures: median(distances),
            real: real.map(|real| median(nearest(real, 1).1)),
        };
        (nearest, indices)
    }
}

/// Cells of a grid, in rows: `wanted` pictures in even steps, each before its `nearest`.
///
/// # Errors
/// What the pictures give, which are asked for by number.
pub fn neighbor_cells<E: From<Error>>(
    nearest: &Array2<usize>,
    wanted: usize,
    picture: impl Fn(usize) -> Result<Pixels, E>,
    trained: impl Fn(usize) -> Result<Pixels, E>,
) -> Result<Vec<Pixels>, E> {
    let cell = |picture: Pixels| {
        resize(&picture, CELL, CELL, Filter::Bicubic).map_err(|error| E::from(error.into()))
    };
    let mut cells = Vec::new();
    for row in spaced(nearest.nrows(), wanted) {
        cells.push(cell(picture(row)?)?);
        for &index in nearest.row(row) {
            cells.push(cell(trained(index)?)?);
        }
    }
    Ok(cells)
}
