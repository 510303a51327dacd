//! How large tensors would be that nobody has made yet.

/// The elements of tensors of these shapes together; `u64::MAX` where they are more. A shape is any factors of one:
/// sizes that a file claims may be beyond the address space, and so may their products.
///
/// ```
/// use tessera_backend::elements_of;
///
/// assert_eq!(elements_of(&[&[2, 3, 4], &[4]]), 28);
/// assert_eq!(elements_of(&[&[usize::MAX, 2], &[1]]), u64::MAX);
/// ```
pub fn elements_of(shapes: &[&[usize]]) -> u64 {
    let shapes = shapes.iter().map(|shape| {
        let sides = shape.iter().map(|&side| side as u64);
        sides.fold(1, u64::saturating_mul)
    });
    shapes.fold(0, u64::saturating_add)
}
