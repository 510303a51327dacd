//! AdamW (Loshchilov & Hutter, arXiv 1711.05101) with TokenBridge's weight-decay groups and a clip of the global
//! gradient norm.

use crate::error::{Error, Result};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};
use std::collections::BTreeMap;
use tessera_attention2d::{Comm, Reduce};
use tessera_backend::device_values;
use tessera_backend::host_values;
use tessera_backend::ops::{self, AdamWStep, adamw_step};
use tessera_weights::{NamePath, Weights, flat_tensors, track_names, with_flat_tensors};

/// The constants of the optimizer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the first and of the second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, for parameters of two axes and more whose name does not end in `.bias`.
    pub weight_decay: f64,
    /// The largest norm that all gradients together may have; larger ones are scaled down to it.
    pub grad_clip: Option<f64>,
}

/// The gradients of a module's parameters, by name.
#[derive(Debug, Clone, Default)]
pub struct Grads {
    tensors: BTreeMap<String, Tensor<1>>,
}

impl Grads {
    /// Moves the gradients of `module`'s parameters out of what `loss.backward()` gave. What belongs to other
    /// modules stays there.
    pub fn of<M: Module>(module: &M, gradients: &mut Gradients) -> Self {
        struct Take<'a> {
            path: NamePath,
            gradients: &'a mut Gradients,
            tensors: BTreeMap<String, Tensor<1>>,
        }
        impl ModuleVisitor for Take<'_> {
            track_names!();
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if let Some(grad) = param.val().grad_remove(self.gradients) {
                    self.tensors.insert(self.path.name(), grad.reshape([-1]));
                }
            }
        }
        let mut take = Take {
            path: NamePath::default(),
            gradients,
            tensors: BTreeMap::new(),
        };
        module.visit(&mut take);
        Self {
            tensors: take.tensors,
        }
    }

    /// The sum of two backward passes.
    pub fn plus(mut self, other: Self) -> Self {
        for (name, grad) in other.tensors {
            let sum = match self.tensors.remove(&name) {
                Some(sum) => sum + grad,
                None => grad,
            };
            self.tensors.insert(name, sum);
        }
        self
    }

    /// The mean over the ranks, the same bits at each. A parameter of `module` without a gradient at some rank counts
    /// as 0 there, one without any stays without.
    ///
    /// # Errors
    /// When a rank failed.
    pub fn mean<M: Module>(self, module: &M, ranks: &Comm) -> Result<Self> {
        let parameters = flat_tensors(module);
        let here = |name| f32::from(u8::from(self.tensors.contains_key(name)));
        let mut wanted: Vec<_> = parameters.keys().map(here).collect();
        ranks.all_reduce(&mut wanted, Reduce::Max)?;
        let wanted = wanted.iter().map(|&anywhere| anywhere > 0.0);
        let wanted = parameters
            .into_iter()
            .zip(wanted)
            .filter(|(_, wanted)| *wanted);
        let wanted: Vec<_> = wanted.map(|(parameter, _)| parameter).collect();
        let mut values = Vec::new();
        for (name, parameter) in &wanted {
            match self.tensors.get(name) {
                Some(grad) => values.extend(host_values(grad.clone())),
                None => values.resize(values.len() + parameter.dims()[0], 0.0),
            }
        }
        ranks.all_mean(&mut values)?;
        let mut rest = &values[..];
        let tensors = wanted.into_iter().map(|(name, parameter)| {
            let (own, after) = rest.split_at(parameter.dims()[0]);
            rest = after;
            let own = device_values(own.to_vec(), parameter.dims(), &parameter.device());
            (name, own)
        });
        Ok(Self {
            tensors: tensors.collect(),
        })
    }

    /// The gradients, by the names of their parameters.
    ///
    /// # Shapes
    /// - outputs: as many values as the parameter has, flat
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor<1>)> {
        self.tensors
            .iter()
            .map(|(name, grad)| (name.as_str(), grad))
    }

    /// The L2 norm of all gradients together, or the name of the first that is not finite. Reads the device once.
    ///
    /// Long gradients are summed in blocks of a fixed length: a backend may split a long sum between its threads as
    /// they happen to be free, and then no two runs clip alike.
    pub fn norm(&self) -> std::result::Result<f64, String> {
        const BLOCK: usize = 1 << 20;
        let (mut names, mut squares) = (Vec::new(), Vec::new());
        for (name, grad) in &self.tensors {
            let [length] = grad.dims();
            for start in (0..length).step_by(BLOCK) {
                let block = grad.clone().narrow(0, start, BLOCK.min(length - start));
                squares.push(ops::sum_of_squares(block));
                names.push(name);
            }
        }
        if squares.is_empty() {
            return Ok(0.0);
        }
        let squares = host_values(Tensor::cat(squares, 0));
        match names.iter().zip(&squares).find(|(_, s)| !s.is_finite()) {
            Some((name, _)) => Err(name.to_string()),
            None => Ok(squares.iter().map(|&s| f64::from(s)).sum::<f64>().sqrt()),
        }
    }
}

/// Statistics of one optimizer step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerStep {
    /// The L2 norm of all gradients together, before clipping.
    pub grad_norm: f64,
}

/// The optimizer and its moments, by parameter name.
#[derive(Debug, Clone)]
pub struct AdamW {
    config: AdamWConfig,
    steps: u64,
    exp_avg: BTreeMap<String, Tensor<1>>,
    exp_avg_sq: BTreeMap<String, Tensor<1>>,
}

impl AdamW {
    /// Moments of 0 for every parameter of `module`.
    pub fn new<M: Module>(config: AdamWConfig, module: &M) -> Self {
        let mut zeros = flat_tensors(module);
        zeros.values_mut().for_each(|t| *t = t.zeros_like());
        Self {
            config,
            steps: 0,
            exp_avg: zeros.clone(),
            exp_avg_sq: zeros,
        }
    }

    /// Moments as [`moments`](Self::moments) gave them after `steps` steps.
    pub(crate) fn restore<M: Module>(
        config: AdamWConfig,
        module: &M,
        steps: u64,
        [exp_avg, exp_avg_sq]: [Weights; 2],
    ) -> Result<Self> {
        Ok(Self {
            config,
            steps,
            exp_avg: flat_tensors(&exp_avg.apply(module.valid())?),
            exp_avg_sq: flat_tensors(&exp_avg_sq.apply(module.valid())?),
        })
    }

    /// The first and the second moment, named and laid out as the parameters they belong to.
    pub(crate) fn moments<M: Module>(&self, module: &M) -> [Weights; 2] {
        [&self.exp_avg, &self.exp_avg_sq]
            .map(|moment| Weights::of(&with_flat_tensors(module.valid(), moment)))
    }

    /// One step with learning rate `lr`. Parameters without a gradient stay as they are.
    ///
    /// # Errors
    /// [`Error::NonFinite`] names the first gradient that has a NaN or an infinity; nothing was changed then.
    pub fn step<M: Module>(
        &mut self,
        module: M,
        grads: Grads,
        lr: f64,
    ) -> Result<(M, OptimizerStep)> {
        let grad_norm = grads.norm().map_err(|name| Error::NonFinite {
            step: self.steps + 1,
            what: format!("the gradient of `{name}`"),
        })?;
        self.steps += 1;
        let module = module.map(&mut Update {
            path: NamePath::default(),
            lr,
            // PyTorch's clip_grad_norm_, its 1e-6 included.
            grad_scale: match self.config.grad_clip {
                Some(limit) => (limit / (grad_norm + 1e-6)).min(1.0),
                None => 1.0,
            },
            grads,
            optimizer: self,
        });
        Ok((module, OptimizerStep { grad_norm }))
    }
}

struct Update<'a> {
    path: NamePath,
    optimizer: &'a mut AdamW,
    grads: Grads,
    grad_scale: f64,
    lr: f64,
}

impl ModuleMapper for Update<'_> {
    track_names!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.name();
        let Some(grad) = self.grads.tensors.remove(&name) else {
            return param;
        };
        let AdamWConfig {
            betas: [beta1, beta2],
            eps,
            weight_decay,
            ..
        } = self.optimizer.config;
        let decays = D >= 2 && !name.ends_with(".bias");
        let settings = AdamWStep {
            lr: self.lr,
            beta1,
            beta2,
            eps,
            weight_decay: if decays { weight_decay } else { 0.0 },
            step: self.optimizer.steps as usize,
            grad_scale: self.grad_scale,
        };
        let moment = |of: &mut BTreeMap<String, Tensor<1>>| {
            of.remove(&name).unwrap_or_else(|| grad.zeros_like())
        };
        // Removed before the step, so that the backend may update them in place.
        let exp_avg = moment(&mut self.optimizer.exp_avg);
        let exp_avg_sq = moment(&mut self.optimizer.exp_avg_sq);

        let (id, value, mapper) = param.consume();
        let shape = value.dims();
        let trained = value.is_require_grad();
        let checkpointing = value.gradient_checkpointing_strategy();
        let flat = value.inner().reshape([-1]);
        let (flat, exp_avg, exp_avg_sq) = adamw_step(flat, exp_avg, exp_avg_sq, grad, &settings);
        self.optimizer.exp_avg.insert(name.clone(), exp_avg);
        self.optimizer.exp_avg_sq.insert(name, exp_avg_sq);

        let mut value = Tensor::from_inner(flat.reshape(shape));
        if let Some(strategy) = checkpointing {
            value = value.with_gradient_checkpointing_strategy(strategy);
        }
        Param::from_mapped_value(id, value.set_require_grad(trained), mapper)
    }
}
