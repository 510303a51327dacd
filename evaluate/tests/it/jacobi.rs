//! The slow reference of eigenvalues: Jacobi's cyclic rotations (Golub & Van Loan, Matrix Computations, §8.5).

use ndarray::{Array1, Array2, ArrayView2, Axis};

/// Off-diagonal weight, relative to the whole, at which a matrix counts as diagonal.
const NEGLIGIBLE: f64 = 1e-15;
/// Convergence is quadratic: a finite matrix needs about ten sweeps.
const MAX_SWEEPS: usize = 64;

/// `matrix = vectors · diag(values) · vectorsᵀ`.
pub(crate) struct Eigen {
    /// The eigenvalues, in no order.
    pub(crate) values: Array1<f64>,
    /// The orthonormal eigenvectors, one per column.
    pub(crate) vectors: Array2<f64>,
}

/// The eigendecomposition of a symmetric matrix.
pub(crate) fn symmetric_eigen(matrix: ArrayView2<f64>) -> Eigen {
    let n = matrix.nrows();
    let mut a = (&matrix + &matrix.t()) * 0.5;
    // Rows of `v` are the eigenvectors: rotating two rows is two contiguous passes.
    let mut v = Array2::<f64>::eye(n);
    let whole = a.iter().map(|x| x * x).sum::<f64>().sqrt();
    for _ in 0..MAX_SWEEPS {
        let off_diagonal = (0..n).flat_map(|p| (p + 1..n).map(move |q| (p, q)));
        let weight: f64 = off_diagonal.clone().map(|at| a[at] * a[at]).sum();
        if (2.0 * weight).sqrt() <= NEGLIGIBLE * whole {
            break;
        }
        for (p, q) in off_diagonal {
            if let Some((c, s)) = rotation(a[[p, p]], a[[p, q]], a[[q, q]]) {
                rotate_rows(&mut a, p, q, c, s);
                rotate_rows(&mut v, p, q, c, s);
                for k in 0..n {
                    let (x, y) = (a[[k, p]], a[[k, q]]);
                    a[[k, p]] = c * x - s * y;
                    a[[k, q]] = s * x + c * y;
                }
                a[[p, q]] = 0.0;
                a[[q, p]] = 0.0;
            }
        }
    }
    Eigen {
        values: a.diag().to_owned(),
        vectors: v.reversed_axes(),
    }
}

/// Cosine and sine of the smaller angle that zeroes the off-diagonal of `[[pp, pq], [pq, qq]]`.
fn rotation(pp: f64, pq: f64, qq: f64) -> Option<(f64, f64)> {
    if pq == 0.0 {
        return None;
    }
    let theta = (qq - pp) / (2.0 * pq);
    // Beyond 1e150 the square would overflow, and the tangent is 1 / (2θ) exactly.
    let tangent = if theta.abs() > 1e150 {
        0.5 / theta
    } else {
        theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt())
    };
    let cosine = 1.0 / (tangent * tangent + 1.0).sqrt();
    Some((cosine, tangent * cosine))
}

/// Rows `p < q` become `c p - s q` and `s p + c q`.
fn rotate_rows(matrix: &mut Array2<f64>, p: usize, q: usize, c: f64, s: f64) {
    let (mut above, mut below) = matrix.view_mut().split_at(Axis(0), q);
    for (x, y) in above.row_mut(p).iter_mut().zip(below.row_mut(0)) {
        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
    }
}
