//! The layer: scores, the routing mask, and the gated sum over the routed experts (section 4).

use crate::{Error, Experts, LayerTrace, Mode, MoeConfig, Router, RouterTrace, RoutingMask};
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use tessera_backend::device_values;
use tessera_backend::elements_of;
use tessera_backend::host_values;
use tessera_backend::init::ParamInit;
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

/// The sizes of a layer of experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoeWidths {
    /// Features of a token.
    pub d_model: usize,
    /// Hidden features of the dense MLP that the experts replace.
    pub hidden: usize,
    /// Features of the target of per-layer regularization (section 6); `None` if the model has no such target.
    pub target: Option<usize>,
}

impl MoeConfig {
    /// How many numbers a layer has, thresholds among them; `u64::MAX` where they are more. Needs no valid config.
    pub fn elements(&self, widths: MoeWidths) -> u64 {
        let MoeWidths {
            d_model: width,
            hidden,
            target,
        } = widths;
        let (experts, hidden) = (self.experts, hidden / self.split.max(1));
        let router = elements_of(&[
            &[width, width],
            &[width],
            &[width, experts],
            &[experts],
            &[1],
        ]);
        let target = target.filter(|_| self.target_weight > 0.0);
        let target = target.map_or(0, |target| elements_of(&[&[width, target], &[target]]));
        let experts = elements_of(&[
            &[experts, width, hidden],
            &[experts, hidden],
            &[experts, hidden, width],
            &[experts, width],
        ]);
        router.saturating_add(target).saturating_add(experts)
    }
}

impl Moe {
    /// A layer with random weights. A target head is made if `widths` names a target and the config gives its loss a
    /// weight.
    ///
    /// # Panics
    /// On a config that [`MoeConfig::validate`] refuses.
    pub fn init(config: &MoeConfig, widths: MoeWidths, init: &mut ParamInit) -> Self {
        let MoeWidths {
            d_model,
            hidden,
            target,
        } = widths;
        config.validate(hidden).expect("the config was validated");
        let target = target.filter(|_| config.target_weight > 0.0);
        Self {
            router: Router::init(config.experts, d_model, target, init),
            experts: Experts::init(config.experts, d_model, hidden / config.split, init),
            config: config.clone(),
        }
    }

    /// The config of the layer.
    pub fn config(&self) -> &MoeConfig {
        &self.config
    }

    /// `y = Σ_e G_e FFN_e(x)` with the gates `G = S ⊙ M`, the scores `S = A(Router(x))` and the routing mask M.
    ///
    /// # Shapes
    /// - x: `[batch, seq, d_model]`
    /// - output: `[batch, seq, d_model]`; zero for a token without experts
    ///
    /// NaN is not an error here but reaches the output, where the model's own check finds it: a NaN score makes its
    /// token's output NaN, and in a race within the batch all outputs.
    pub fn forward(&self, x: Tensor<3>, trace: &mut RouterTrace) -> Tensor<3> {
        let [batch, seq, d_model] = x.dims();
        let (logits, target) = match trace.mode() {
            Mode::Race => self.router.forward_with_target(x.clone()),
            Mode::Inference => (self.router.forward(x.clone()), None),
        };
        let scores = self.config.gate.scores(logits.clone());
        let rows = x.clone().reshape([batch * seq, d_model]); // [tokens, d_model]
        let gates = scores.clone();
        let gates = gates.reshape([batch * seq, self.config.experts]); // [tokens, experts]
        if self.routes_on_device(trace) {
            let y = self.experts.above(rows, gates, self.router.threshold.val());
            return y.reshape([batch, seq, d_model]); // [batch, seq, d_model]
        }
        let Ok(mask) = self.mask(&scores, trace.mode()) else {
            return x * f32::NAN;
        };
        let routes = Routes::of_mask(mask.as_slice(), self.config.experts);
        let y = self.experts.forward(rows, gates, routes);
        trace.push(LayerTrace {
            logits,
            mask,
            target,
        });
        y.reshape([batch, seq, d_model]) // [batch, seq, d_model]
    }

    /// Whether the scores stay on the device: a threshold decides, and nobody asks for the mask.
    fn routes_on_device(&self, trace: &RouterTrace) -> bool {
        trace.mode() == Mode::Inference && self.config.threshold && !trace.records()
    }

    /// The routing mask M, selected on the host in f32: there are only a few scores per token.
    fn mask(&self, scores: &Tensor<3>, mode: Mode) -> Result<RoutingMask, Error> {
        let (shape, config) = (scores.dims(), &self.config);
        let scores = host_values(scores.clone().inner());
        match mode {
            Mode::Race => config.rule.select(&scores, shape, config.k),
            Mode::Inference if config.threshold => {
                Ok(RoutingMask::above(self.threshold(), &scores, shape))
            }
            Mode::Inference => {
                let [_, seq, experts] = shape;
                let shape = [1, seq, experts];
                let image = |scores| {
                    let mask = config.rule.select(scores, shape, config.k);
                    // NaN reaches any threshold, so that it shows in its own image alone.
                    mask.unwrap_or_else(|_| RoutingMask::above(f32::INFINITY, scores, shape))
                };
                let images: Vec<_> = scores.chunks(seq * experts).map(image).collect();
                Ok(RoutingMask::concat(&images))
            }
        }
    }

    /// The score that routes a token to an expert at inference; reads the device.
    pub fn threshold(&self) -> f32 {
        host_values(self.router.threshold.val())[0]
    }

    /// The threshold's update after a training step (section 4): `τ ← m τ + (1 − m) cutoff`. Without a cutoff,
    /// because nothing was selected, τ stays.
    pub fn next_threshold(&self, cutoff: Option<f32>) -> f32 {
        let (old, m) = (self.threshold(), self.config.momentum as f32);
        cutoff.map_or(old, |cutoff| m * old + (1.0 - m) * cutoff)
    }

    /// The layer with another threshold.
    pub fn with_threshold(mut self, threshold: f32) -> Self {
        let old = self.router.threshold.val();
        let new = device_values(vec![threshold], [1], &old.device()).set_require_grad(false);
        self.router.threshold = Param::initialized(self.router.threshold.id, new);
        self
    }

    /// The layer without its target head, which only training needs.
    pub fn without_target(mut self) -> Self {
        self.router.target = None;
        self.config.target_weight = 0.0;
        self
    }
}
