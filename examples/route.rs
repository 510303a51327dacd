//! Routes tokens to experts with `tessera-moe` alone, and prints how many tokens each expert takes under two rules.
//!
//! ```text
//! cargo run --release -p tessera-moe --example route
//! ```

use burn::tensor::Device;
use tessera_backend::{Rng, init::ParamInit};
use tessera_moe::{Mode, Moe, MoeConfig, MoeWidths, Result, RouterTrace, RoutingRule, Usage};

const BATCH: usize = 8;
const SEQ: usize = 64;
const D_MODEL: usize = 32;

fn main() -> Result<()> {
    let device = Device::flex(); // Burn's CPU backend
    let x = Rng::new(1, 0).normal_tensor([BATCH, SEQ, D_MODEL], &device);

    // 2-in-8: a token has two of eight experts on average, each half as wide as the MLP they replace.
    let widths = MoeWidths {
        d_model: D_MODEL,
        hidden: 4 * D_MODEL,
        target: None,
    };
    for rule in [RoutingRule::Token, RoutingRule::Race] {
        let config = MoeConfig {
            rule,
            ..MoeConfig::k_in_e(2, 8)
        };
        let moe = Moe::init(&config, widths, &mut ParamInit::new(0, &device));

        // A forward pass as in training: tokens race within the batch, and the trace records who won.
        let mut trace = RouterTrace::new(Mode::Race);
        let y = moe.forward(x.clone(), &mut trace);
        assert_eq!(y.dims(), [BATCH, SEQ, D_MODEL]);

        let usage = Usage::of(&trace.layers[0].mask);
        println!("{rule:?}");
        println!("  tokens per expert     {:?}", usage.loads());
        println!("  experts per token     {:.2}", usage.mean_active());
        println!(
            "  tokens without expert {:.1}%",
            100.0 * usage.share_without()
        );
        println!("  MaxVio                {:.2}", usage.max_vio());
    }
    Ok(())
}
