//! What a Fréchet distance needs of symmetric matrices of a thousand rows and more: their eigenvalues, and a factor of
//! no more rows than their rank.

use crate::error::{Error, Result};
use ndarray::{Array1, Array2, ArrayView2, Axis};

/// Steps of the iteration for one eigenvalue; a finite matrix needs two or three.
const MAX_STEPS: usize = 64;
/// What counts as 0 beside the whole: below rounding.
const NEGLIGIBLE: f64 = 1e-15;

fn require_symmetric(matrix: ArrayView2<f64>) -> Result<()> {
    match matrix.is_square() && matrix.iter().all(|x| x.is_finite()) {
        true => Ok(()),
        false => Err(Error::Mismatch {
            what: "a symmetric matrix",
            expected: "square and finite".into(),
            found: format!("{:?}, or a value that is not finite", matrix.shape()),
        }),
    }
}

/// The eigenvalues of a symmetric matrix, in no order: Householder's reflections to three diagonals, then implicit QL
/// steps (Golub & Van Loan, Matrix Computations, §8.3).
///
/// # Errors
/// When the matrix is not square or not finite.
pub fn symmetric_eigenvalues(matrix: ArrayView2<f64>) -> Result<Array1<f64>> {
    require_symmetric(matrix)?;
    let largest = matrix.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    if largest == 0.0 {
        return Ok(Array1::zeros(matrix.nrows()));
    }
    // Halves first: the sum of the largest numbers would overflow.
    let half = |at| matrix[at] / (2.0 * largest);
    let mut a = Array2::from_shape_fn(matrix.dim(), |(i, j)| half((i, j)) + half((j, i)));
    let (mut diagonal, mut beside) = three_diagonals(&mut a);
    ql(&mut diagonal, &mut beside);
    Ok(Array1::from(diagonal) * largest)
}

/// The diagonal of the similar matrix, and what is beside it, with a 0 at the end.
fn three_diagonals(a: &mut Array2<f64>) -> (Vec<f64>, Vec<f64>) {
    let n = a.nrows();
    let mut beside = vec![0.0; n];
    for (k, beside) in beside.iter_mut().enumerate().take(n.saturating_sub(1)) {
        let (done, mut rest) = a.view_mut().split_at(Axis(0), k + 1);
        let mut v = done
            .row(k)
            .iter()
            .skip(k + 1)
            .copied()
            .collect::<Vec<f64>>();
        let length = dot(&v, &v).sqrt();
        let far = v[1..].iter().any(|&x| x != 0.0);
        *beside = if v[0] > 0.0 { -length } else { length };
        if !far {
            *beside = v[0];
            continue;
        }
        v[0] -= *beside;
        let factor = 2.0 / dot(&v, &v);
        let rows = || rest.outer_iter();
        let row = |row: ndarray::ArrayView1<f64>| {
            factor * dot(&row.to_slice().expect("rows are contiguous")[k + 1..], &v)
        };
        let mut p: Vec<f64> = rows().map(row).collect();
        let along = 0.5 * factor * dot(&p, &v);
        p.iter_mut().zip(&v).for_each(|(p, v)| *p -= along * v);
        for (index, row) in rest.outer_iter_mut().enumerate() {
            let row = &mut row.into_slice().expect("rows are contiguous")[k + 1..];
            let (vi, pi) = (v[index], p[index]);
            for ((x, v), p) in row.iter_mut().zip(&v).zip(&p) {
                *x -= vi * p + pi * v;
            }
        }
    }
    (a.diag().to_vec(), beside)
}

/// Four sums, since each addition waits for the one before.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    let mut sums = [0.0; 4];
    for (a, b) in a.0.iter().zip(b.0) {
        for lane in 0..4 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a.1.iter().zip(b.1).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

/// The eigenvalues take the place of the diagonal.
fn ql(d: &mut [f64], e: &mut [f64]) {
    let n = d.len();
    for l in 0..n {
        for _ in 0..MAX_STEPS {
            // Beside a diagonal of numbers below rounding, too, something must count as 0.
            let negligible = |m: usize| {
                e[m].abs() <= f64::EPSILON * (d[m].abs() + d[m + 1].abs()) + NEGLIGIBLE * 1e-3
            };
            let m = (l..n - 1).find(|&m| negligible(m)).unwrap_or(n - 1);
            if m == l {
                break;
            }
            let mut g = (d[l + 1] - d[l]) / (2.0 * e[l]);
            let r = g.hypot(1.0);
            g = d[m] - d[l] + e[l] / (g + r.copysign(g));
            let (mut s, mut c, mut p) = (1.0, 1.0, 0.0);
            let mut whole = true;
            for i in (l..m).rev() {
                let (f, b) = (s * e[i], c * e[i]);
                let r = f.hypot(g);
                e[i + 1] = r;
                if r == 0.0 {
                    d[i + 1] -= p;
                    e[m] = 0.0;
                    whole = false;
                    break;
                }
                (s, c) = (f / r, g / r);
                g = d[i + 1] - p;
                let r = (d[i] - g) * s + 2.0 * c * b;
                p = s * r;
                d[i + 1] = g + p;
                g = c * r - b;
            }
            if whole {
                d[l] -= p;
                e[l] = g;
                e[m] = 0.0;
            }
        }
    }
}

/// `L` of `[rank, n]` with `Lᵀ L` the matrix, which is symmetric and has no eigenvalue below 0 but by rounding:
/// Cholesky's factor, the largest of what is left of the diagonal first (Golub & Van Loan, §4.2.8). What is left at the
/// end is below rounding.
///
/// # Errors
/// When the matrix is not square or not finite.
pub fn factor(matrix: ArrayView2<f64>) -> Result<Array2<f64>> {
    require_symmetric(matrix)?;
    let n = matrix.nrows();
    let mut left = matrix.diag().to_vec();
    let least = NEGLIGIBLE * left.iter().map(|x| x.max(0.0)).sum::<f64>();
    let mut rows: Vec<Vec<f64>> = Vec::new();
    while rows.len() < n {
        let largest = (0..n).max_by(|&a, &b| left[a].total_cmp(&left[b]));
        let Some(pivot) = largest.filter(|&at| left[at] > least) else {
            break;
        };
        let mut row = matrix.row(pivot).to_vec();
        for above in &rows {
            let share = above[pivot];
            row.iter_mut().zip(above).for_each(|(x, y)| *x -= share * y);
        }
        let root = left[pivot].sqrt();
        for (x, left) in row.iter_mut().zip(&mut left) {
            *x /= root;
            *left -= *x * *x;
        }
        left[pivot] = 0.0;
        rows.push(row);
    }
    let shape = (rows.len(), n);
    Ok(Array2::from_shape_vec(shape, rows.concat()).expect("rows of one length"))
}
