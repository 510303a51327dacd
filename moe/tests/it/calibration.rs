//! Which examples thresholds are calibrated on.

use tessera_moe::calibration_batches;

#[test]
fn batches_are_whole_and_spread_over_the_data() {
    let batches = calibration_batches(100_000, 4);
    assert_eq!(batches.len(), 16);
    assert!(batches.iter().all(|batch| batch.len() == 4));
    assert_eq!((batches[0][0], batches[15][3]), (0, 98_437));
    assert_eq!(calibration_batches(3, 8), [[0, 1, 2]]);
    assert!(calibration_batches(0, 8).is_empty());
}
