//! The order in which the positions of a picture are drawn, and how many of them each step draws.

use crate::schedule::{ScheduleStep, schedule, steps_of};
use serde::{Deserialize, Serialize};
use tessera_backend::Rng;

/// In which order the positions of a picture are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// At random, by MAR's cosine schedule.
    #[default]
    Random,
    /// Generation, then reconstruction (GtR, arXiv 2510.17171): every fourth position first, a few a step; then those
    /// diagonally between them; last, every other position of the grid, many a step, as their neighbors are there. At
    /// random within a stage.
    Staged,
    /// Spread evenly at every step, by Halton's sequence of bases 2 and 3 (arXiv 2503.17076), by MAR's cosine schedule.
    /// The same for every picture.
    Halton,
}

/// Stages of [`Order::Staged`].
const STAGES: usize = 3;

impl Order {
    /// The positions of a picture. As in the released sampler, the last is generated first.
    pub(crate) fn positions(self, grid: [usize; 2], rng: &mut Rng) -> Vec<usize> {
        let seq = grid[0] * grid[1];
        match self {
            Self::Random => rng.permutation(seq),
            Self::Staged => {
                let mut order = rng.permutation(seq);
                // Stable, so it stays random within a stage.
                order.sort_by_key(|&position| std::cmp::Reverse(stage(position, grid)));
                order
            }
            Self::Halton => {
                let mut order = halton_order(grid);
                order.reverse();
                order
            }
        }
    }

    /// The steps for a grid of positions: at most `steps`, each of which generates at least one position.
    ///
    /// # Panics
    /// If there are no steps or no positions.
    pub fn schedule(self, grid: [usize; 2], steps: usize) -> Vec<ScheduleStep> {
        let seq = grid[0] * grid[1];
        match self {
            Self::Random | Self::Halton => schedule(seq, steps),
            Self::Staged => {
                let mut sizes = [0; STAGES];
                (0..seq).for_each(|position| sizes[stage(position, grid)] += 1);
                steps_of(&staged(sizes, steps))
            }
        }
    }
}

/// The stage that generates a position: the last, if its row and column add up to an odd number, and the first two in
/// turn on the diagonals of the others.
fn stage(position: usize, [_, columns]: [usize; 2]) -> usize {
    match (position / columns + position % columns) % 4 {
        0 => 0,
        2 => 1,
        _ => 2,
    }
}

/// Positions of each step, from those of each stage. Of 32 steps the stages have 24, 6 and 2, as in the paper, each
/// step of a stage as many positions as the others; a stage with fewer positions leaves its steps to the next.
fn staged(sizes: [usize; STAGES], steps: usize) -> Vec<usize> {
    assert!(steps > 0, "there is a step to generate positions in");
    // Fewer steps than stages: the first stages are one.
    let mut sizes = sizes.to_vec();
    while sizes.len() > steps {
        sizes[1] += sizes[0];
        sizes.remove(0);
    }
    sizes.retain(|&size| size > 0);
    let steps = steps.min(sizes.iter().sum());
    let share = |of_32: usize| ((steps * of_32 + 16) / 32).max(1);
    let mut each = match sizes.len() {
        1 => vec![steps],
        2 => vec![steps - share(2), share(2)],
        _ => vec![steps - share(6) - share(2), share(6), share(2)],
    };
    for stage in 0..each.len() {
        let over = each[stage].saturating_sub(sizes[stage]);
        each[stage] -= over;
        if let Some(next) = each.get_mut(stage + 1) {
            *next += over;
        }
    }
    let evenly = |(&size, &steps): (&usize, &usize)| {
        (0..steps).map(move |step| (step + 1) * size / steps - step * size / steps)
    };
    sizes.iter().zip(&each).flat_map(evenly).collect()
}

/// The positions in the order in which Halton's points first fall on them.
fn halton_order([rows, columns]: [usize; 2]) -> Vec<usize> {
    let (mut order, mut seen) = (Vec::new(), vec![false; rows * columns]);
    for index in 1.. {
        let cell = |base, cells: usize| (halton(index, base) * cells as f64) as usize;
        let position = cell(2, rows) * columns + cell(3, columns);
        if !std::mem::replace(&mut seen[position], true) {
            order.push(position);
        }
        if order.len() == seen.len() {
            break;
        }
    }
    order
}

/// The digits of `index` in `base`, mirrored at the point: in 0..1.
fn halton(mut index: u64, base: u64) -> f64 {
    let (mut value, mut digit) = (0.0, 1.0);
    while index > 0 {
        digit /= base as f64;
        value += digit * (index % base) as f64;
        index /= base;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_of_a_picture_of_256_are_those_of_the_paper() {
        let plan = Order::Staged.schedule([16, 16], 32);
        let predicted: Vec<_> = plan.iter().map(|step| step.predicted).collect();
        assert_eq!(predicted.len(), 32);
        assert_eq!(predicted[..24].iter().sum::<usize>(), 64);
        assert!(predicted[..24].iter().all(|&n| n == 2 || n == 3));
        assert_eq!(predicted[24..30].iter().sum::<usize>(), 64);
        assert!(predicted[24..30].iter().all(|&n| n == 10 || n == 11));
        assert_eq!(predicted[30..], [64, 64]);
    }

    #[test]
    fn the_first_points_of_halton_are_those_of_the_definition() {
        let points: Vec<_> = (1..5).map(|i| [halton(i, 2), halton(i, 3)]).collect();
        let third = 1.0 / 3.0;
        let expected = [
            [0.5, third],
            [0.25, 2.0 * third],
            [0.75, third / 3.0],
            [0.125, third + third / 3.0],
        ];
        for (found, expected) in points.iter().flatten().zip(expected.iter().flatten()) {
            assert!((found - expected).abs() < 1e-15, "{points:?}");
        }
        // Rows by base 2, columns by base 3.
        assert_eq!(halton_order([2, 3]), [4, 2, 3, 1, 5, 0]);
    }

    #[test]
    fn later_stages_lie_between_earlier_ones() {
        let grid = [4, 6];
        let mut order = Order::Staged.positions(grid, &mut Rng::new(1, 0));
        order.reverse();
        let stages: Vec<_> = order
            .iter()
            .map(|&position| stage(position, grid))
            .collect();
        assert!(stages.is_sorted());
        assert_eq!(stages.iter().filter(|&&stage| stage == 2).count(), 12);
    }
}
