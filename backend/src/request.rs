//! A request for an image, alike for all generators.

/// One image to draw. The image depends on its request and the sampling options alone, not on the batch it is drawn in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageRequest {
    /// Its class; `None` draws from all classes.
    pub class: Option<usize>,
    /// The seed of everything random about it.
    pub seed: u64,
}

impl ImageRequest {
    /// Checks the classes of a batch against the number that the model has.
    ///
    /// # Errors
    /// [`UnknownClass`] for the first request of a class that the model does not have.
    pub fn check_classes(requests: &[Self], classes: usize) -> Result<(), UnknownClass> {
        let mut named = requests.iter().zip(0..);
        let unknown = named.find_map(|(request, image)| {
            let found = request.class.filter(|&class| class >= classes)?;
            Some((image, found))
        });
        match unknown {
            Some((image, found)) => Err(UnknownClass {
                image,
                found,
                classes,
            }),
            None => Ok(()),
        }
    }
}

/// A request names a class that the model does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("image {image}: class {found} does not exist, the model has {classes} classes (0 to {})", classes - 1)]
pub struct UnknownClass {
    /// Index of the image in the batch.
    pub image: usize,
    /// The class asked for.
    pub found: usize,
    /// Number of classes of the model.
    pub classes: usize,
}
