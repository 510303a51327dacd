//! Every position is generated exactly once, whatever the number of steps.

use proptest::prelude::*;
use tessera_gen_ar::{CfgSchedule, schedule};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_position_is_generated_once_for_any_number_of_steps(seq in 1usize..300, steps in 1usize..400) {
        let plan = schedule(seq, steps);
        prop_assert_eq!(plan.len(), steps.min(seq));
        let mut masked = seq;
        for (index, step) in plan.iter().enumerate() {
            prop_assert_eq!(step.masked, masked);
            prop_assert!(step.predicted >= 1);
            masked -= step.predicted;
            if index + 1 < plan.len() {
                prop_assert_eq!(step.mask_len, masked);
            }
        }
        prop_assert_eq!(masked, 0);
        prop_assert_eq!(plan[plan.len() - 1].mask_len, 1);
    }

    #[test]
    fn linear_guidance_grows_from_about_1_to_about_the_scale(seq in 2usize..300, steps in 1usize..300) {
        let guidance: Vec<f32> = schedule(seq, steps)
            .iter()
            .map(|s| s.guidance(3.0, CfgSchedule::Linear, seq))
            .collect();
        prop_assert!(guidance.is_sorted());
        prop_assert!(guidance[0] >= 1.0 && guidance[guidance.len() - 1] < 3.0);
    }
}

#[test]
fn the_schedule_of_the_paper_generates_one_token_per_step() {
    assert!(schedule(256, 256).iter().all(|step| step.predicted == 1));
    // 64 steps: singly at first, up to 7 late.
    let plan = schedule(256, 64);
    assert_eq!(plan[0].predicted, 1);
    assert_eq!(plan.iter().map(|step| step.predicted).max(), Some(7));
}
