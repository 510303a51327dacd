//! The nearest level in a sorted table, by exact decision thresholds that a uniform grid of cells indexes.

/// Cells of the grid per level. At the center of the Gaussian table, levels are 2.4 times as dense as on average, so
/// with four cells per level a cell holds at most one threshold.
const CELLS_PER_LEVEL: usize = 4;

/// Finds the nearest of the sorted values in a constant number of steps.
#[derive(Debug, Clone)]
pub(crate) struct Search {
    /// `thresholds[i]` is the smallest number nearer to level `i + 1` than to level `i`; the last is NaN, which no
    /// number reaches.
    thresholds: Vec<f32>,
    /// The lowest level of the numbers in each cell.
    cells: Vec<u16>,
    /// The start of the first cell.
    origin: f32,
    cells_per_unit: f32,
}

impl Search {
    /// A search over `values`: strictly increasing, at most 65536.
    pub(crate) fn new(values: &[f32]) -> Self {
        let (origin, end) = (values[0], values[values.len() - 1]);
        let count = CELLS_PER_LEVEL * values.len();
        let mut search = Self {
            thresholds: values
                .windows(2)
                .map(|pair| first_nearer(pair[0], pair[1]))
                .collect(),
            cells: Vec::with_capacity(count),
            origin,
            cells_per_unit: count as f32 / (end - origin),
        };
        search.cells.resize(count, 0);
        // A number is above every threshold in the cells before its own: `cell` is monotone, including its rounding.
        let mut level = 0;
        for cell in 0..count {
            while level < search.thresholds.len() && search.cell(search.thresholds[level]) < cell {
                level += 1;
            }
            search.cells[cell] = level as u16;
        }
        search.thresholds.push(f32::NAN);
        search
    }

    /// The level nearest to `x`, the lower one at equal distance.
    #[inline]
    pub(crate) fn nearest(&self, x: f32) -> u16 {
        let mut level = self.cells[self.cell(x)];
        // The first step is arithmetic, because a branch here would be mispredicted half of the time.
        level += u16::from(x >= self.thresholds[usize::from(level)]);
        while x >= self.thresholds[usize::from(level)] {
            level += 1;
        }
        level
    }

    /// The cell of `x`. A float-to-integer cast saturates, so numbers outside the grid fall into the outermost cells.
    #[inline]
    fn cell(&self, x: f32) -> usize {
        (((x - self.origin) * self.cells_per_unit) as usize).min(self.cells.len() - 1)
    }
}

/// The smallest f32 whose rounded distance to `high` is less than its rounded distance to `low`.
///
/// The midpoint is not exact enough: near zero, the distances to ±γ round to the same f32 for every |x| below half an
/// ulp of γ, and an argmin takes the first. Bisection over the f32 numbers finds the exact threshold.
fn first_nearer(low: f32, high: f32) -> f32 {
    let (mut below, mut above) = (rank(low), rank(high));
    while above - below > 1 {
        let middle = below + (above - below) / 2;
        let x = from_rank(middle);
        if (x - high).abs() < (x - low).abs() {
            above = middle;
        } else {
            below = middle;
        }
    }
    from_rank(above)
}

/// The position of a float among all floats in ascending order.
fn rank(x: f32) -> i64 {
    let magnitude = i64::from(x.to_bits() & 0x7fff_ffff);
    if x.is_sign_negative() {
        -magnitude
    } else {
        magnitude
    }
}

/// Inverse of [`rank`].
fn from_rank(rank: i64) -> f32 {
    let magnitude = f32::from_bits(rank.unsigned_abs() as u32);
    if rank < 0 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_follow_the_floats() {
        for x in [-3.0_f32, -1e-40, 0.0, 1e-40, 2.5, f32::MAX] {
            assert_eq!(from_rank(rank(x)), x);
            assert_eq!(from_rank(rank(x) + 1), x.next_up());
        }
    }

    #[test]
    fn the_threshold_is_where_the_rounded_distances_flip() {
        for (low, high) in [
            (-0.0195866_f32, 0.0195866),
            (-2.4, -1.9),
            (0.1, 0.1_f32.next_up()),
        ] {
            let threshold = first_nearer(low, high);
            let nearer = |x: f32| (x - high).abs() < (x - low).abs();
            assert!(
                nearer(threshold) && !nearer(threshold.next_down()),
                "{low} {high}"
            );
        }
    }
}
