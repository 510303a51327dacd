//! Nearest neighbors in features, block by block: no matrix of all pairs is held.

use crate::error::{Error, Result};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};

/// Rows whose distances to all others are in memory at once.
const BLOCK: usize = 64;
/// Squared distances below this share of the squared lengths are computed anew: of a difference of large numbers
/// nothing would be left, and pictures that are there twice must be 0 apart.
const NEAR: f64 = 1e-6;

fn squared_length(row: ArrayView1<f64>) -> f64 {
    row.iter().map(|x| x * x).sum()
}

/// Gives every row of `queries`, with its number, its squared distances to all of `rows`.
fn each(queries: ArrayView2<f64>, rows: ArrayView2<f64>, visit: &mut dyn FnMut(usize, Vec<f64>)) {
    let lengths: Array1<f64> = rows.outer_iter().map(squared_length).collect();
    for (block, queries) in queries.axis_chunks_iter(Axis(0), BLOCK).enumerate() {
        let products = queries.dot(&rows.t());
        for (index, (query, products)) in
            queries.outer_iter().zip(products.outer_iter()).enumerate()
        {
            let length = squared_length(query);
            let pairs = products.iter().zip(&lengths).zip(rows.outer_iter());
            let distances = pairs.map(|((product, other), row)| {
                let distance = length + other - 2.0 * product;
                match distance > NEAR * (length + other) {
                    true => distance,
                    false => query.iter().zip(row).map(|(a, b)| (a - b) * (a - b)).sum(),
                }
            });
            visit(block * BLOCK + index, distances.collect());
        }
    }
}

/// The squared distance of every row, `[rows, features]`, to its `k`-th nearest other row: the balls whose union stands
/// for what the rows are drawn from (Kynkäänniemi et al., arXiv 1904.06991, eq. 1).
///
/// # Errors
/// [`Error::Mismatch`] when there are not more than `k` rows, or `k` is 0.
pub fn radii(rows: ArrayView2<f64>, k: usize) -> Result<Vec<f64>> {
    if k == 0 || rows.nrows() <= k {
        return Err(Error::Mismatch {
            what: "the number of pictures",
            expected: format!("more than the {k} nearest neighbors of each"),
            found: rows.nrows().to_string(),
        });
    }
    let mut radii = Vec::with_capacity(rows.nrows());
    each(rows, rows, &mut |index, mut distances| {
        distances.swap_remove(index);
        let (_, radius, _) = distances.select_nth_unstable_by(k - 1, f64::total_cmp);
        radii.push(*radius);
    });
    Ok(radii)
}

/// The share of `queries` that lie in a ball around any of `rows`: precision, where these are real and those generated,
/// and recall the other way around.
pub fn share_within(queries: ArrayView2<f64>, rows: ArrayView2<f64>, radii: &[f64]) -> f64 {
    let mut within = 0;
    each(queries, rows, &mut |_, distances| {
        within += usize::from(distances.iter().zip(radii).any(|(d, radius)| d <= radius));
    });
    within as f64 / queries.nrows() as f64
}

/// The nearest `count` rows of every query, `[queries, count]` with the nearest first, and the distance of the nearest.
///
/// # Panics
/// If there are fewer rows, or `count` is 0.
pub fn nearest(
    queries: ArrayView2<f64>,
    rows: ArrayView2<f64>,
    count: usize,
) -> (Array2<usize>, Array1<f64>) {
    let mut indices = Array2::zeros((queries.nrows(), count));
    let mut nearest = Array1::zeros(queries.nrows());
    each(queries, rows, &mut |query, distances| {
        let mut order: Vec<usize> = (0..distances.len()).collect();
        order.sort_by(|&a, &b| distances[a].total_cmp(&distances[b]));
        nearest[query] = distances[order[0]].sqrt();
        for (to, from) in indices.row_mut(query).iter_mut().zip(&order[..count]) {
            *to = *from;
        }
    });
    (indices, nearest)
}
