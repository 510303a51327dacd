//! The layer: scores, the race, and the winners' experts (section 4).

use crate::{Error, Experts, LayerTrace, Mode, MoeConfig, Router, Trace, Winners};
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use tessera_backend::device_values;
use tessera_backend::host_values;
use tessera_backend::init::Init;
use tessera_backend::ops::Routes;

/// A mixture of experts in place of an MLP.
#[derive(Module, Debug)]
pub struct Moe {
    /// Scores the experts.
    pub router: Router,
    /// The experts.
    pub experts: Experts,
    #[module(skip)]
    config: MoeConfig,
}

impl Moe {
    /// Random weights, in place of an MLP `[d_model, hidden]`; `target` is the width of the per-layer target, of which a head
    /// is made if the config gives its loss a weight.
    ///
    /// # Panics
    /// On a config that [`MoeConfig::validate`] refuses.
    pub fn init(
        config: &MoeConfig,
        [d_model, hidden]: [usize; 2],
        target: Option<usize>,
        init: &mut Init,
    ) -> Self {
        config.validate(hidden).expect("the config was validated");
        let target = target.filter(|_| config.target_weight > 0.0);
        Self {
            router: Router::init(config.experts, d_model, target, init),
            experts: Experts::init(config.experts, d_model, hidden / config.split, init),
            config: config.clone(),
        }
    }

    /// What it was made by.
    pub fn config(&self) -> &MoeConfig {
        &self.config
    }

    /// `y = Σ_e (S ⊙ M)_e FFN_e(x)` with the scores S and the winners M.
    ///
    /// # Shapes
    /// - x: `[batch, seq, d_model]`
    /// - output: `[batch, seq, d_model]`
    ///
    /// # Panics
    /// Never of its own: where a score is NaN, its token's output is, and where a batch races for experts all outputs are, so
    /// that whoever checks the model's finds it.
    pub fn forward(&self, x: Tensor<3>, trace: &mut Trace) -> Tensor<3> {
        let [batch, seq, d_model] = x.dims();
        let racing = trace.mode() == Mode::Race;
        let (logits, target) = self.router.forward(x.clone(), racing);
        let scores = self.config.gate.scores(logits.clone());
        let rows = x.clone().reshape([batch * seq, d_model]);
        let gates = scores.clone().reshape([batch * seq, self.config.experts]);
        if !racing && self.config.threshold && !trace.collects() {
            let threshold = self.router.threshold.val();
            return self
                .experts
                .above(rows, gates, threshold)
                .reshape([batch, seq, d_model]);
        }
        let winners = match self.winners(&scores, trace.mode()) {
            Ok(winners) => winners,
            Err(_) => return x * f32::NAN,
        };
        let routes = Routes::of_mask(winners.mask(), self.config.experts);
        let y = self.experts.forward(rows, gates, routes);
        trace.push(LayerTrace {
            logits,
            winners,
            target,
        });
        y.reshape([batch, seq, d_model])
    }

    /// Races on the host, in f32: what is sorted are a few numbers a token.
    fn winners(&self, scores: &Tensor<3>, mode: Mode) -> Result<Winners, Error> {
        let (shape, config) = (scores.dims(), &self.config);
        let [_, seq, experts] = shape;
        let scores = host_values(scores.clone().inner());
        match mode {
            Mode::Race => config.rule.winners(&scores, shape, config.k),
            Mode::Alone if config.threshold => Ok(Winners::above(self.threshold(), &scores, shape)),
            Mode::Alone => {
                let shape = [1, seq, experts];
                let one = |scores| {
                    let raced = config.rule.winners(scores, shape, config.k);
                    // What is not a number wins, so that it shows in its own picture alone.
                    raced.unwrap_or_else(|_| Winners::above(f32::INFINITY, scores, shape))
                };
                let images: Vec<_> = scores.chunks(seq * experts).map(one).collect();
                Ok(Winners::stacked(&images))
            }
        }
    }

    /// What a score must reach at inference.
    pub fn threshold(&self) -> f32 {
        host_values(self.router.threshold.val())[0]
    }

    /// The threshold after a step in which `kth` was the last score to win (`None`: nothing won), eq. of section 4's
    /// learnable threshold.
    pub fn next_threshold(&self, kth: Option<f32>) -> f32 {
        let (old, m) = (self.threshold(), self.config.momentum as f32);
        kth.map_or(old, |kth| m * old + (1.0 - m) * kth)
    }

    /// The same layer with another threshold.
    pub fn with_threshold(mut self, threshold: f32) -> Self {
        let old = self.router.threshold.val();
        let new = device_values(vec![threshold], [1], &old.device()).set_require_grad(false);
        self.router.threshold = Param::initialized(self.router.threshold.id, new);
        self
    }

    /// The same layer without what only training needs.
    pub fn without_target(mut self) -> Self {
        self.router.target = None;
        self.config.target_weight = 0.0;
        self
    }
}
