//! Where models compute, and how much of its memory a tokenizer may use at once.

use crate::error::{Error, Result};
use burn::module::Module;
use ndarray::Array4;
use tessera_backend::{ComputePrecision, DeviceSpec};
use tessera_tokenizer::{ImageTokenizer, decode_within, encode_moments_within, encode_within};

/// Tensors of about the largest size that a tokenizer holds at once: the input of a layer, its output, what is added to
/// it, and the workspace of a convolution.
const LARGE_AT_ONCE: u64 = 4;

/// A device that is open.
///
/// ```
/// use tessera::Device;
///
/// let device = Device::parse("flex")?.with_memory(2 << 30); // the CPU, 2 GiB
/// assert!(Device::parse("abacus").is_err());
/// # Ok::<(), tessera::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Device {
    burn: burn::tensor::Device,
    memory: Option<u64>,
}

/// The largest magnitude of a latent: those of the field's tokenizers stay below 1000.
const MOST_LATENT: f32 = 1e6;

impl Device {
    /// Opens a device by its name: `auto`, `flex` (the CPU), `wgpu`, `vulkan`, `metal`, `cuda` or `ndarray`, as far as
    /// they are built in, with an index such as `cuda:1`.
    ///
    /// # Errors
    /// An unknown name, a device that is not built in or not there.
    pub fn parse(name: &str) -> Result<Self> {
        Ok(name.parse::<DeviceSpec>()?.open()?.into())
    }

    /// The CPU.
    pub fn cpu() -> Self {
        burn::tensor::Device::flex().into()
    }

    /// The same device, of whose memory a tokenizer uses at most about so many bytes at once: it works on fewer
    /// pictures at a time, or on tiles of them.
    pub fn with_memory(self, bytes: u64) -> Self {
        let memory = Some(bytes);
        Self { memory, ..self }
    }

    /// The same, as Burn has it.
    pub fn burn(&self) -> &burn::tensor::Device {
        &self.burn
    }

    /// Most bytes of one tensor: what the driver allows, and what [`with_memory`](Self::with_memory) leaves.
    pub fn largest_tensor(&self) -> u64 {
        let wanted = self.memory.map_or(u64::MAX, |bytes| bytes / LARGE_AT_ONCE);
        #[cfg(feature = "wgpu")]
        let allowed =
            tessera_backend::limits(&self.burn).map_or(u64::MAX, |limits| limits.largest_tensor);
        #[cfg(not(feature = "wgpu"))]
        let allowed = u64::MAX;
        wanted.min(allowed)
    }

    /// The latents `[images, channels, height, width]` of images `[images, channels, height, width]` in `[-1, 1]`, in
    /// as many steps as the memory asks for.
    ///
    /// # Errors
    /// When there is not even room for a tile.
    pub fn encode(
        &self,
        tokenizer: &dyn ImageTokenizer,
        images: Array4<f32>,
    ) -> Result<Array4<f32>> {
        Ok(encode_within(tokenizer, images, self.largest_tensor())?)
    }

    /// What latents of images are drawn from, as [`ImageTokenizer::encode_moments`] has it, in as many steps as the
    /// memory asks for.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_moments(
        &self,
        tokenizer: &dyn ImageTokenizer,
        images: Array4<f32>,
    ) -> Result<Array4<f32>> {
        let bytes = self.largest_tensor();
        Ok(encode_moments_within(tokenizer, images, bytes)?)
    }

    /// The images of latents, in as many steps as the memory asks for; shapes as for [`encode`](Self::encode).
    ///
    /// # Errors
    /// As [`encode`](Self::encode); [`Error::Invalid`] where latents are none, of which a decoder's normalization would
    /// make a flat picture.
    pub fn decode(
        &self,
        tokenizer: &dyn ImageTokenizer,
        latents: Array4<f32>,
    ) -> Result<Array4<f32>> {
        if let Some(largest) = latents
            .iter()
            .find(|latent| latent.is_nan() || latent.abs() > MOST_LATENT)
        {
            return Err(Error::Invalid {
                what: "latents to decode",
                expected: format!("values of -{MOST_LATENT} to {MOST_LATENT}"),
                found: format!("{largest:e}: a mean, scale or range of the model does not fit"),
            });
        }
        Ok(decode_within(tokenizer, latents, self.largest_tensor())?)
    }

    /// Whether this is the CPU.
    pub fn is_cpu(&self) -> bool {
        self.burn == burn::tensor::Device::flex()
    }

    /// Whether this device only stores weights in a precision, and multiplies them in f32.
    pub fn widens(&self, precision: ComputePrecision) -> bool {
        self.is_cpu() && !precision.is_native_on_cpu()
    }

    /// A model with the weights of its linear maps in a precision that the device computes with.
    ///
    /// # Errors
    /// [`Error::DataType`] when it does not.
    pub fn in_precision<M: Module>(&self, model: M, precision: ComputePrecision) -> Result<M> {
        let supports = |kind: &ComputePrecision| self.burn.supports_dtype(kind.dtype());
        if !supports(&precision) {
            let kinds = [
                ComputePrecision::F32,
                ComputePrecision::F16,
                ComputePrecision::Bf16,
            ];
            return Err(Error::DataType {
                found: precision.to_string(),
                known: kinds
                    .iter()
                    .filter(|kind| supports(kind))
                    .map(ComputePrecision::to_string)
                    .collect(),
            });
        }
        Ok(precision.apply(model))
    }
}

impl From<burn::tensor::Device> for Device {
    fn from(burn: burn::tensor::Device) -> Self {
        Self { burn, memory: None }
    }
}
