//! What a network that knows the thousand classes of ImageNet sees in pictures, and how far two sets of pictures are
//! apart in it: [`EffLite0`] and [`FeatureReport`].

mod block;
mod layers;
mod looking;
mod neighbors;
mod network;
mod report;

pub use looking::{Looked, Nearest, Seen, look, neighbor_cells};
pub use neighbors::{nearest, radii, share_within};
pub use network::{EffLite0, View};
pub use report::{FeatureFigures, FeatureFloor, FeatureReport, require_enough};
