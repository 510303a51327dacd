//! Judges of generated pictures: a classifier trained on the real pictures, which must recognise the class that was
//! asked for ([`Agreement`]), and the Fréchet distance between real and generated pictures in that classifier's
//! features ([`Frechet`]).
//!
//! The distance is the formula of Heusel et al. (arXiv 1706.08500, section 3) in *these* features. It is not FID,
//! which is defined by one Inception network, and must not be called so: its values compare pictures judged by one
//! and the same classifier, and nothing else.

mod classifier;
mod eigen;
mod examine;
mod frechet;
mod report;
mod training;

pub use classifier::{Classifier, ClassifierConfig};
pub use eigen::{Eigen, symmetric_eigen};
pub use examine::{Examined, accuracy, examine, examine_dataset, features_of, images_of};
pub use frechet::{FeatureStats, frechet_distance};
pub use report::{Agreement, ClassAgreement, Frechet};
pub use training::{Augment, ClassifierObjective, classifier_recipe, train_classifier};
