//! Sets of positions in a batch, and the row indices that gather and scatter them.

use burn::tensor::{Device, Int, Tensor};
use tessera_backend::device_indices;

/// A set of positions for every image of a batch, all of the same size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Positions {
    per_image: usize,
    index: Vec<usize>,
}

impl Positions {
    /// One list per image, all of the same length. They need not be sorted.
    ///
    /// # Panics
    /// If the lists differ in length.
    pub fn new(lists: impl IntoIterator<Item = Vec<usize>>) -> Self {
        let mut index = Vec::new();
        let mut per_image = None;
        for mut list in lists {
            assert_eq!(
                *per_image.get_or_insert(list.len()),
                list.len(),
                "every image has as many positions"
            );
            list.sort_unstable();
            index.append(&mut list);
        }
        Self {
            per_image: per_image.unwrap_or(0),
            index,
        }
    }

    /// Number of positions per image.
    pub fn per_image(&self) -> usize {
        self.per_image
    }

    /// Number of positions of all images.
    pub fn total(&self) -> usize {
        self.index.len()
    }

    /// `(image, position)`, image by image, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let per_image = self.per_image.max(1);
        self.index
            .iter()
            .enumerate()
            .map(move |(row, &position)| (row / per_image, position))
    }

    /// The positions of the batch followed by itself.
    pub(crate) fn twice(&self) -> Self {
        Self {
            per_image: self.per_image,
            index: self.index.repeat(2),
        }
    }

    /// The positions of each image, ascending.
    pub(crate) fn lists(&self) -> impl Iterator<Item = &[usize]> {
        self.index.chunks(self.per_image.max(1))
    }

    /// The set whose positions are higher by `offset`.
    pub(crate) fn shifted(&self, offset: usize) -> Self {
        Self {
            index: self
                .index
                .iter()
                .map(|position| position + offset)
                .collect(),
            ..*self
        }
    }

    /// For each, its row in a table of the positions of `all`, which has it.
    ///
    /// # Shapes
    /// - output: `[images * per_image]`
    pub(crate) fn rows_among(&self, all: &Self, device: &Device) -> Tensor<1, Int> {
        let row = |(image, position)| {
            let first = image * all.per_image;
            let of_image = &all.index[first..first + all.per_image];
            let place = of_image.binary_search(&position);
            first + place.expect("the set has every position that is asked for")
        };
        int_tensor(self.iter().map(row), device)
    }

    /// `image * stride + offset + position` of each: its row in a table with `stride` rows per image (0: one table
    /// for all images), of which `offset` precede the first position.
    ///
    /// # Shapes
    /// - output: `[images * per_image]`
    pub(crate) fn rows(&self, stride: usize, offset: usize, device: &Device) -> Tensor<1, Int> {
        int_tensor(
            self.iter()
                .map(|(image, position)| image * stride + offset + position),
            device,
        )
    }

    /// For each row of `[images, before + seq]`, its row in `[images, before + per_image]`. Positions not in the set
    /// get the row after that table's last.
    ///
    /// # Shapes
    /// - output: `[images * (before + seq)]`
    pub(crate) fn restore(
        &self,
        images: usize,
        seq: usize,
        before: usize,
        device: &Device,
    ) -> Tensor<1, Int> {
        let (short, long) = (before + self.per_image, before + seq);
        let mut from = vec![images * short; images * long];
        for image in 0..images {
            for row in 0..before {
                from[image * long + row] = image * short + row;
            }
        }
        for (row, (image, position)) in self.iter().enumerate() {
            from[image * long + before + position] = image * short + before + row % self.per_image;
        }
        int_tensor(from, device)
    }
}

/// Row indices on the device, `[rows]`.
pub(crate) fn int_tensor(rows: impl IntoIterator<Item = usize>, device: &Device) -> Tensor<1, Int> {
    let rows: Vec<i32> = rows.into_iter().map(|row| row as i32).collect();
    let count = rows.len();
    device_indices(rows, [count], device)
}
