//! How good pictures are.
//!
//! Generated ones: a [`Classifier`] trained on the real pictures must recognize the class that was asked for
//! ([`Agreement`]), and the Fréchet distance between real and generated pictures in that classifier's features
//! ([`Frechet`]) says how far their distributions are apart. [`Evaluation`] is both at once.
//!
//! The distance is the formula of Heusel et al. (arXiv 1706.08500, section 3) in *these* features. It is not FID, which
//! is defined by one Inception network, and must not be called so: its values compare pictures of one data set, judged
//! by one and the same classifier, and nothing else.
//!
//! Features that compare pictures of any data are those of a network that others trained on ImageNet ([`EffLite0`]): a
//! Fréchet distance called FD-EffLite0, precision and recall ([`FeatureReport`]), a perceptual distance of two pictures
//! ([`View::distances`]), and the [`nearest`] of many.
//!
//! API boundary: pictures as arrays in, figures out. This crate draws no picture and opens no generator.
#![forbid(unsafe_code)]

mod augment;
mod classifier;
mod eigen;
mod error;
mod evaluate;
mod evaluation;
mod features;
mod frechet;
mod report;
#[cfg(feature = "train")]
mod training;

pub use augment::Augment;
pub use classifier::{Classifier, ClassifierConfig};
pub use eigen::{factor, symmetric_eigenvalues};
pub use error::{Error, Result};
pub use evaluate::{Evaluated, accuracy, evaluate, evaluate_dataset, features_of};
pub use evaluation::{Evaluation, RealPictures, on_squares};
pub use features::{
    EffLite0, FeatureFigures, FeatureFloor, FeatureReport, Looked, Nearest, Seen, View, look,
    nearest, neighbor_cells, radii, require_enough, share_within,
};
pub use frechet::{FeatureStats, frechet_distance};
pub use report::{Agreement, ClassAgreement, Frechet};
#[cfg(feature = "train")]
pub use training::{ClassifierObjective, classifier_recipe, train_classifier};
