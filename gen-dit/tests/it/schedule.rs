//! The chain of noising steps.

use tessera_gen_dit::Ddpm;

fn times(steps: usize) -> Vec<usize> {
    let chain = Ddpm::new(steps);
    assert_eq!(chain.steps(), steps);
    (0..steps).map(|step| chain.time(step)).collect()
}

#[test]
fn fewer_steps_are_spread_evenly_over_the_thousand() {
    assert_eq!(times(1), [0]);
    assert_eq!(times(2), [0, 999]);
    assert_eq!(times(4), [0, 333, 666, 999]);
    assert_eq!(times(10), [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]);
    assert_eq!(times(1000), (0..1000).collect::<Vec<_>>());
    let of_250 = times(250);
    assert_eq!([of_250[0], of_250[1], of_250[249]], [0, 4, 999]);
}

/// As `space_timesteps` adds its stride up, where multiplying gives another step at some ties: 499.5 of 21 steps.
#[test]
fn every_number_of_steps_takes_the_references_ones() {
    for steps in 2..=1000 {
        let stride = 999.0 / (steps as f64 - 1.0);
        let mut at = 0.0_f64;
        for (step, time) in times(steps).into_iter().enumerate() {
            assert_eq!(time, at.round_ties_even() as usize, "{step} of {steps}");
            at += stride;
        }
    }
    assert_eq!(times(21)[10], 499);
}

#[test]
fn signal_falls_and_noise_grows_and_their_squares_are_one() {
    for steps in [1000, 50, 2] {
        let chain = Ddpm::new(steps);
        let mut last = [1.0, 0.0];
        for step in 0..steps {
            let [signal, noise] = [chain.signal(step), chain.noise(step)];
            assert!((signal * signal + noise * noise - 1.0).abs() < 1e-12);
            assert!(signal < last[0] && noise > last[1]);
            last = [signal, noise];
        }
    }
    // The figures of linear betas: 1 - 1e-4 is left after one step, exp(-10.1) after all.
    let chain = Ddpm::new(1000);
    assert!((chain.signal(0).powi(2) - (1.0 - 1e-4)).abs() < 1e-12);
    assert!((chain.signal(999).powi(2) - 4.036e-5).abs() < 1e-7);
}
