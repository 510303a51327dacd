//! State of one forward pass through the backbone, beside the activations.

use crate::attention::KvCache;
use crate::{Dropout, GenArConfig};
use burn::tensor::{Int, Tensor};
use tessera_attention2d::Tokens;
use tessera_backend::Rng;
use tessera_backend::ops;
use tessera_moe::{Mode, RouterTrace};

/// What a forward pass drops, and how its tokens are routed to experts.
#[derive(Debug)]
pub struct ForwardContext<'a> {
    /// Dropout.
    pub dropout: Dropout<'a>,
    /// The routers of all layers with experts, the encoder's before the decoder's.
    pub trace: RouterTrace,
    /// Where blocks leave their keys and values for later steps.
    pub(crate) kept: Option<KeptKeys<'a>>,
}

/// The caches of the blocks that are still to come, of the first images of a batch.
#[derive(Debug)]
pub(crate) struct KeptKeys<'a> {
    pub caches: std::slice::IterMut<'a, KvCache>,
    pub images: usize,
    /// The places of all rows of an image, `[images * rows]`.
    pub places: Tensor<1, Int>,
}

impl ForwardContext<'static> {
    /// Inference: no dropout, and no image's routes depend on another image.
    pub fn inference() -> Self {
        Self {
            dropout: Dropout::off(),
            trace: RouterTrace::off(),
            kept: None,
        }
    }

    /// No dropout, and tokens race within the batch: the cutoffs that thresholds are calibrated from.
    pub(crate) fn racing() -> Self {
        Self {
            dropout: Dropout::off(),
            trace: RouterTrace::new(Mode::Race),
            kept: None,
        }
    }
}

impl<'a> ForwardContext<'a> {
    /// Training: the config's dropout with masks from `rng`, and tokens race within the batch.
    pub fn training(config: &GenArConfig, rng: &'a mut Rng) -> Self {
        Self {
            dropout: Dropout::training(config, rng),
            trace: RouterTrace::new(Mode::Race),
            kept: None,
        }
    }

    /// Inference whose blocks leave the keys and values of the first `images` images in `caches`, one per block.
    ///
    /// # Shapes
    /// - places: `[images * rows]`
    pub(crate) fn keeping(
        caches: &'a mut [KvCache],
        images: usize,
        places: Tensor<1, Int>,
    ) -> Self {
        let kept = Some(KeptKeys {
            caches: caches.iter_mut(),
            images,
            places,
        });
        Self {
            kept,
            ..ForwardContext::inference()
        }
    }

    /// Leaves the keys and values of the next block, `[batch, heads, seq here, head_dim]`, if they are kept.
    pub(crate) fn keep(&mut self, tokens: Tokens<'_>, [k, v]: [&Tensor<4>; 2]) {
        let Some(KeptKeys {
            caches,
            images,
            places,
        }) = &mut self.kept
        else {
            return;
        };
        let heads = k.dims()[1];
        let whole = |x: &Tensor<4>| {
            let x = x.clone().narrow(0, 0, *images);
            match tokens.is_sharded() {
                false => x,
                // [images, heads, seq, head_dim]
                true => ops::split_heads(tokens.gather(ops::merge_heads(x)), heads).swap_dims(1, 2),
            }
        };
        let cache = caches.next().expect("a cache per block");
        cache.put(places, [&whole(k), &whole(v)]);
    }
}
