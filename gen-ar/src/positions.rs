//! Choices of positions in a batch, and the row numbers that gather and scatter them.

use burn::tensor::{Device, Int, Tensor};
use tessera_backend::device_indices;

/// The same number of positions in every image of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Positions {
    per_image: usize,
    index: Vec<usize>,
}

impl Positions {
    /// One list per image, all of the same length; they are sorted.
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

    /// Positions of one image.
    pub fn per_image(&self) -> usize {
        self.per_image
    }

    /// Positions of all images, image by image.
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

    /// The same positions for the batch followed by itself.
    pub(crate) fn twice(&self) -> Self {
        Self {
            per_image: self.per_image,
            index: self.index.repeat(2),
        }
    }

    /// `image * stride + offset + position` of each: its row in a table of `stride` rows per image (0: one table
    /// for all), of which `offset` come before the first position.
    pub(crate) fn rows(&self, stride: usize, offset: usize, device: &Device) -> Tensor<1, Int> {
        int_tensor(
            self.iter()
                .map(|(image, position)| image * stride + offset + position),
            device,
        )
    }

    /// Where each row of `[images, before + seq]` comes from in `[images, before + per_image]`; the positions that
    /// are not here come from the row behind that table's last.
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

/// Row numbers on the device.
pub(crate) fn int_tensor(rows: impl IntoIterator<Item = usize>, device: &Device) -> Tensor<1, Int> {
    let rows: Vec<i32> = rows.into_iter().map(|row| row as i32).collect();
    let count = rows.len();
    device_indices(rows, [count], device)
}
