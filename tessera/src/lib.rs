//! Image generation over discrete tokens, from Rust: open any model, generate, tokenize, calibrate, evaluate.
//!
//! ```
//! use tessera::{Device, Model, Request};
//!
//! let device = Device::parse("flex")?; // or "auto", "wgpu", "cuda:1" with their features
//! let model = Model::builtin(&device)?; // or Model::open("runs/ar/model", &device)?
//! let class = model.class("dress")?;
//! let sampling = model.sampling().steps(4);
//! for picture in model.generate([Request::new(class, 1)], &sampling) {
//!     let picture = picture?;
//!     println!("{}: {} px", picture.params.class_name, picture.pixels.width());
//! }
//! # Ok::<(), tessera::Error>(())
//! ```
//!
//! | | |
//! |---|---|
//! | [`Model`], [`Source`] | any model that draws: a folder, a run, a released checkpoint, a name in the hub's cache, built in |
//! | [`Model::generate`] → [`Generation`] | an iterator of [`Picture`]s; [`Generation::advance`] for steps and previews |
//! | [`Divided`], [`Names`] | pictures that ranks draw together; the names of their files |
//! | [`ArModel`], [`DitModel`], [`ModelCard`] | the two kinds of model and their parts: encode, decode, save |
//! | [`Model::tokenize`], [`ArModel::decode`] | pictures to tokens and back |
//! | [`Tokenizer`] | a tokenizer without a generator: pictures of any size to latents and back |
//! | [`Inputs`] | the pictures that it works on: files or a data set |
//! | [`Manifest`], [`TokenWriter`] | files of tokens |
//! | [`encode_dataset`], [`calibrate`] | a data set to latents; what a quantizer needs to know of them |
//! | [`Reconstructions`] | rate and distortion: what quantization costs |
//! | [`Routing`] | which experts tokens have, by layer, time, class and place |
//! | [`Found`], [`Report`] | what a file or folder is; what a file of weights is of |
//! | [`Architecture`], [`Converter`] | weights of any format to safetensors |
//! | [`doctor::diagnose`] | whether this machine and this build compute what they should |
//! | [`Preset`] | an architecture of the field with random weights |
//! | [`hub::locate`] | models in the hub's cache |
//!
//! The crates below are re-exported: [`pictures`], [`evaluate`], [`tokenizers`], [`quantize`], [`gen_ar`], [`gen_dit`],
//! [`moe`], [`attention2d`], [`weights`], [`checkpoint`], [`backend`] and, with the feature `train`, [`train`].
//!
//! API boundary: this crate prints nothing, knows no command line, and reads the environment in [`hub`] alone.
#![deny(unsafe_code)]
#![recursion_limit = "256"]

mod class;
mod convert;
mod decoder;
mod device;
mod digest;
mod divided;
pub mod doctor;
mod error;
mod generate;
pub mod hub;
mod identity;
mod inputs;
mod inspect;
mod latent_file;
mod latents;
mod memory;
mod model;
mod names;
mod params;
mod preset;
mod reconstruct;
pub mod routing;
pub mod samples;
mod spread;
mod square;
mod tokenizer;
mod tokens;
mod vae;

pub use class::{ClassList, class_id};
pub use convert::{Conversion, Converter, Origin, of_model};
pub use decoder::decoder_noise;
pub use device::Device;
pub use digest::{base_name, sha256, sha256_of_file, sha256_of_files};
pub use divided::Divided;
pub use error::{Error, Result};
pub use generate::{Event, Generation, Picture, Request, Step};
pub use identity::{digest_of_tokenizer, sha256_of_data, sha256_of_tokenizer};
pub use inputs::{Color, InputPicture, Inputs};
pub use inspect::{Check, Found, PictureFile, Report, TensorInfo, counted};
pub use latent_file::LatentFile;
#[cfg(feature = "train")]
pub use latents::{CalibrationOptions, calibrate, encode_posteriors, measured_on};
pub use latents::{OnProgress, Orientation, encode_dataset};
pub use memory::{forget_peak_memory, peak_memory_mib};
pub use model::{
    ArCard, ArModel, CARD_FILE, DitCard, DitModel, Model, ModelCard, Source, dit_config,
    generator_config, model_folder, require_parts,
};
pub use names::{NameFault, Named, Names};
pub use params::ImageParams;
pub use preset::Preset;
pub use reconstruct::{Quality, RateDistortion, Reconstructions, entropy_bits};
pub use routing::Routing;
pub use spread::quantizer_of;
pub use square::Square;
pub use tessera_backend::{ComputePrecision, DeviceSpec};
pub use tessera_checkpoint::Architecture;
pub use tessera_gen_ar::{CfgSchedule, SampleConfig as Sampling, SamplingPreset};
pub use tessera_quantize::{Bits, ScaleBy};
pub use tessera_weights::{WeightDtype, Which};
pub use tokenizer::{Cuts, ImgSize, Tokenizer, VaeOptions, require_distributions};
pub use tokens::{MANIFEST_FILE, Manifest, Shard, TokenWriter};
pub use vae::open_vae;

/// Images, latents and tokens are its arrays.
pub use ndarray;
pub use tessera_attention2d as attention2d;
pub use tessera_backend as backend;
pub use tessera_checkpoint as checkpoint;
pub use tessera_evaluate as evaluate;
pub use tessera_gen_ar as gen_ar;
pub use tessera_gen_dit as gen_dit;
pub use tessera_moe as moe;
pub use tessera_pictures as pictures;
pub use tessera_quantize as quantize;
pub use tessera_tokenizer as tokenizers;
#[cfg(feature = "train")]
pub use tessera_train as train;
pub use tessera_weights as weights;
