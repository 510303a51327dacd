//! The Fréchet distance between two Gaussians (Dowson & Landau, 1982), which Heusel et al. (arXiv 1706.08500, eq. 6)
//! measure generated pictures with.

use crate::eigen::{factor, symmetric_eigenvalues};
use crate::error::{Error, Result};
use ndarray::{Array1, Array2, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

/// Mean and covariance of rows of features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureStats {
    /// Number of rows.
    pub count: usize,
    /// The mean row.
    pub mean: Array1<f64>,
    /// The unbiased covariance, `[features, features]`: the sum of squares over `count - 1`.
    pub covariance: Array2<f64>,
}

impl FeatureStats {
    /// The statistics of rows, `[count, features]`.
    ///
    /// # Errors
    /// [`Error::NonFiniteFeature`]; [`Error::Mismatch`] when there are fewer than two rows or no features.
    pub fn from_rows(rows: ArrayView2<f64>) -> Result<Self> {
        if let Some(((row, column), _)) = rows.indexed_iter().find(|(_, x)| !x.is_finite()) {
            return Err(Error::NonFiniteFeature { row, column });
        }
        let (count, features) = rows.dim();
        if count < 2 || features == 0 {
            return Err(Error::Mismatch {
                what: "the rows of features",
                expected: "at least [2, 1]".into(),
                found: format!("{:?}", rows.shape()),
            });
        }
        let mean = rows.sum_axis(Axis(0)) / count as f64;
        let centered = &rows - &mean;
        let covariance = centered.t().dot(&centered) / (count - 1) as f64;
        Ok(Self {
            count,
            mean,
            covariance,
        })
    }

    /// The statistics of both sets of rows together (Chan, Golub & LeVeque, 1979).
    ///
    /// # Errors
    /// [`Error::Mismatch`] when the numbers of features differ.
    pub fn merge(&self, other: &Self) -> Result<Self> {
        require_same_features(self, other)?;
        let [here, there] = [self.count, other.count].map(|count| count as f64);
        let count = here + there;
        let step = &other.mean - &self.mean;
        let between = outer(&step) * (here * there / count);
        let within = &self.covariance * (here - 1.0) + &other.covariance * (there - 1.0);
        Ok(Self {
            count: self.count + other.count,
            mean: &self.mean + &(step * (there / count)),
            covariance: (within + between) / (count - 1.0),
        })
    }
}

fn outer(x: &Array1<f64>) -> Array2<f64> {
    let column = x.view().insert_axis(Axis(1));
    column.dot(&column.t())
}

fn require_same_features(a: &FeatureStats, b: &FeatureStats) -> Result<()> {
    let n = a.mean.len();
    let square = [&a.covariance, &b.covariance]
        .iter()
        .all(|c| c.dim() == (n, n));
    match square && b.mean.len() == n {
        true => Ok(()),
        false => Err(Error::Mismatch {
            what: "the number of features",
            expected: n.to_string(),
            found: format!("{}, {:?}", b.mean.len(), b.covariance.shape()),
        }),
    }
}

/// `|μa − μb|² + tr(Ca + Cb − 2 (Ca Cb)^½)`.
///
/// Ca Cb is not symmetric, but with `Ca = Lᵀ L` it has the eigenvalues of `L Cb Lᵀ`, which is, and 0 beside them: the
/// trace of its root is the sum of the roots of those. `L` has no more rows than the smaller set has pictures.
/// Eigenvalues that rounding made negative count as 0, so that with covariances without full rank the distance is exact
/// to about `10⁻⁷ tr C` only.
///
/// Estimated from finitely many pictures the distance is too large, the more so the fewer they are: two samples of one
/// and the same distribution are apart. So a distance means something only beside the one between two sets of real
/// pictures of the same counts ([`Frechet`](crate::Frechet)).
///
/// # Errors
/// [`Error::Mismatch`] when the numbers of features differ or a statistic is not finite.
pub fn frechet_distance(a: &FeatureStats, b: &FeatureStats) -> Result<f64> {
    require_same_features(a, b)?;
    let shift = &a.mean - &b.mean;
    let (few, many) = if a.count <= b.count { (a, b) } else { (b, a) };
    let factor = factor(few.covariance.view())?;
    let product = factor.dot(&many.covariance).dot(&factor.t());
    let eigenvalues = symmetric_eigenvalues(product.view())?;
    let trace_of_root: f64 = eigenvalues.iter().map(|x| x.max(0.0).sqrt()).sum();
    let traces = a.covariance.diag().sum() + b.covariance.diag().sum();
    let distance = shift.dot(&shift) + traces - 2.0 * trace_of_root;
    match distance.is_finite() {
        // It is never negative but for rounding.
        true => Ok(distance.max(0.0)),
        false => Err(Error::Mismatch {
            what: "a Fréchet distance",
            expected: "finite means and covariances".into(),
            found: distance.to_string(),
        }),
    }
}
