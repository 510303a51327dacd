//! Some of the pictures whose routes are counted, kept to be shown with the experts of their tokens.

use super::{Routing, Subject, TokenMaps};
use tessera_pictures::Pixels;

/// Pictures that are shown at most.
const SHOWN: usize = 8;

/// What is counted, and the pictures that are shown of it.
pub struct Shown {
    /// What is counted.
    pub routing: Routing,
    /// Evenly spread among all pictures.
    chosen: Vec<usize>,
    pictures: Vec<Pixels>,
}

impl Shown {
    /// Nothing counted yet of so many pictures.
    pub fn new(routing: Routing, pictures: usize) -> Self {
        let shown = pictures.min(SHOWN);
        Self {
            routing,
            chosen: (0..shown).map(|i| i * pictures / shown).collect(),
            pictures: Vec::new(),
        }
    }

    /// The next pictures, with maps for those that are shown.
    pub fn mapped(&self, subjects: &[Subject]) -> Vec<Subject> {
        let mut subjects = subjects.to_vec();
        for (subject, index) in subjects.iter_mut().zip(self.routing.pictures()..) {
            if self.chosen.contains(&index) {
                subject.maps = TokenMaps::Counted;
            }
        }
        subjects
    }

    /// Keeps what is shown of finished pictures, from `first` on.
    pub fn show(&mut self, first: usize, pictures: Vec<Pixels>) {
        let indexed = (first..).zip(pictures);
        let shown = indexed.filter(|(index, _)| self.chosen.contains(index));
        self.pictures.extend(shown.map(|(_, picture)| picture));
    }

    /// The pictures that are shown, each with its index among all.
    pub fn pictures(&self) -> impl Iterator<Item = (usize, &Pixels)> {
        self.chosen.iter().copied().zip(&self.pictures)
    }
}
