//! Which examples the thresholds of experts are measured on when training ends.

/// Batches measured.
const BATCHES: usize = 16;

/// Whole batches of indices below `available`, evenly spaced, so that data in the order of their classes give all classes; one batch
/// of all there are, if they do not fill one.
pub fn calibration_batches(available: usize, batch_size: usize) -> Vec<Vec<usize>> {
    let count = available.min(BATCHES * batch_size);
    let examples: Vec<usize> = (0..count).map(|i| i * available / count).collect();
    let batches = examples.chunks_exact(batch_size.min(count).max(1));
    batches.map(<[usize]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::calibration_batches;

    #[test]
    fn batches_are_whole_and_spread_over_the_data() {
        let batches = calibration_batches(100_000, 4);
        assert_eq!(batches.len(), 16);
        assert!(batches.iter().all(|batch| batch.len() == 4));
        assert_eq!((batches[0][0], batches[15][3]), (0, 98_437));
        assert_eq!(calibration_batches(3, 8), [[0, 1, 2]]);
        assert!(calibration_batches(0, 8).is_empty());
    }
}
