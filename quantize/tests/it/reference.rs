//! The slow reference that the search must equal; shared with the benchmark.

/// `argmin_i |values_i - x|` in f32, the first at equal distance.
pub fn argmin(values: &[f32], x: f32) -> u16 {
    let mut best = (f32::INFINITY, 0);
    for (index, value) in values.iter().enumerate() {
        let distance = (x - value).abs();
        if distance < best.0 {
            best = (distance, index);
        }
    }
    best.1 as u16
}
