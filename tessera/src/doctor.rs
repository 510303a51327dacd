//! Whether this machine and this build compute what they should.

use crate::device::Device;
use crate::error::in_full;
use crate::memory::proc_mib;
use crate::model::ArModel;
use burn::tensor::DType;
use ndarray::{Array4, Axis};
use serde::{Serialize, Serializer};
use tessera_backend::{
    DeviceName, Instructions, device_names, device_values, host_values, streams,
};
use tessera_pictures::psnr;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// As it should be.
    Pass,
    /// It works, but not as well as it could.
    Warn,
    /// It does not work.
    Error,
}

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The devices that are compiled in.
    Devices,
    /// Threads beside processors.
    Threads,
    /// Memory that is free.
    Memory,
    /// The instructions of the kernels, which choose at run time.
    Vectors,
    /// What starts ranks.
    Ranks,
    /// A GPU, whether or not it is used.
    Adapter,
    /// The random numbers of a seed against those that their authors publish.
    Seeds,
    /// Whether the device opens.
    Device,
    /// What kernels have on the device.
    Limits,
    /// The types of numbers that a model's weights may be of.
    NumberTypes,
    /// A matrix product on the device against plain loops.
    Product,
    /// A picture through the built-in model and back.
    Model,
}

impl Subject {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Devices => "devices built in",
            Self::Threads => "threads",
            Self::Memory => "memory",
            Self::Vectors => "vectors",
            Self::Ranks => "mpi",
            Self::Adapter => "adapter",
            Self::Seeds => "seeded numbers",
            Self::Device => "device",
            Self::Limits => "limits",
            Self::NumberTypes => "number types",
            Self::Product => "matrix product",
            Self::Model => "built-in model",
        }
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked.
    pub check: Subject,
    /// How it went.
    pub verdict: Verdict,
    /// What there is.
    pub found: String,
}

impl Finding {
    fn pass(check: Subject, found: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Pass,
            found: found.into(),
        }
    }

    fn warn(check: Subject, found: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Warn,
            ..Self::pass(check, found)
        }
    }

    /// What a computation gave.
    fn of(check: Subject, result: Result<String, String>) -> Self {
        match result {
            Ok(found) => Self::pass(check, found),
            Err(found) => Self {
                verdict: Verdict::Error,
                ..Self::pass(check, found)
            },
        }
    }
}

/// Checks everything: the build, the machine, and a device called `chosen` that `open` opens, or says why it does not.
/// `ranks` is what starts them.
pub fn diagnose(
    ranks: String,
    chosen: &str,
    open: impl FnOnce() -> Result<Device, String>,
) -> Vec<Finding> {
    let ranks = Finding::pass(Subject::Ranks, ranks);
    [features(), threads(), memory(), simd(), ranks]
        .into_iter()
        .chain(adapters())
        .chain([random()])
        .chain(computations(chosen, open()))
        .collect()
}

/// What GPUs there are, whether or not one is used.
fn adapters() -> Vec<Finding> {
    #[cfg(feature = "wgpu")]
    {
        let found = tessera_backend::adapters();
        let described = |adapter: &tessera_backend::Adapter| {
            let kind = if adapter.gpu {
                "a GPU"
            } else {
                "a processor that plays a GPU"
            };
            let found = format!(
                "{}, {kind}; {} {}; tensors of up to {} MiB",
                adapter.name,
                adapter.api,
                adapter.driver,
                adapter.largest_buffer >> 20
            );
            Finding::pass(Subject::Adapter, found)
        };
        match found.is_empty() {
            false => found.iter().map(described).collect(),
            true => vec![Finding::warn(Subject::Adapter, "none")],
        }
    }
    #[cfg(not(feature = "wgpu"))]
    Vec::new()
}

/// What kernels have on the device, where they are compiled for it.
fn limits(device: &Device) -> Option<Finding> {
    #[cfg(feature = "wgpu")]
    {
        let limits = tessera_backend::limits(device.burn())?;
        let name = device.burn().identity()?.name;
        let found = format!(
            "{name}: {} threads share {} KiB, {} to {} run in step, tensors of up to {} MiB",
            limits.units_per_cube,
            limits.shared_memory >> 10,
            limits.plane[0],
            limits.plane[1],
            limits.largest_tensor >> 20
        );
        Some(Finding::pass(Subject::Limits, found))
    }
    #[cfg(not(feature = "wgpu"))]
    {
        let _ = device;
        None
    }
}

/// The types of numbers that a model's weights may be of.
fn dtypes(device: &Device) -> Finding {
    let (known, other): (Vec<_>, Vec<_>) = [
        ("f32", DType::F32),
        ("f16", DType::F16),
        ("bf16", DType::BF16),
    ]
    .into_iter()
    .partition(|&(_, dtype)| device.burn().supports_dtype(dtype));
    let names =
        |types: &[(&str, DType)]| types.iter().map(|row| row.0).collect::<Vec<_>>().join(", ");
    let found = match other.is_empty() {
        true => names(&known),
        false => format!("{} (not: {})", names(&known), names(&other)),
    };
    Finding::pass(Subject::NumberTypes, found)
}

fn features() -> Finding {
    let (built, missing): (Vec<_>, Vec<_>) = device_names().partition(|device| device.built_in);
    let names = |devices: Vec<DeviceName>| {
        let names: Vec<_> = devices.into_iter().map(|device| device.name).collect();
        names.join(", ")
    };
    Finding::pass(
        Subject::Devices,
        format!("{} (not: {})", names(built), names(missing)),
    )
}

fn threads() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let found = format!("{} of {cores} processors", rayon::current_num_threads());
    match rayon::current_num_threads() > cores {
        true => Finding::warn(Subject::Threads, found),
        false => Finding::pass(Subject::Threads, found),
    }
}

fn memory() -> Finding {
    let field = |name| proc_mib("/proc/meminfo", name);
    match (field("MemAvailable"), field("MemTotal")) {
        (Some(free), Some(total)) => {
            let found = format!("{free} of {total} MiB available");
            match free < 512 {
                true => Finding::warn(Subject::Memory, found),
                false => Finding::pass(Subject::Memory, found),
            }
        }
        _ => Finding::pass(Subject::Memory, "not known on this system"),
    }
}

/// The instructions of the kernels, which choose at run time.
fn simd() -> Finding {
    let (used, found) = (Instructions::used(), Instructions::of_processor());
    let text = match used == found {
        true => used.to_string(),
        false => format!("{used}, as TESSERA_CPU says; the processor has {found}"),
    };
    match used == Instructions::Baseline && cfg!(target_arch = "x86_64") {
        true => Finding::warn(Subject::Vectors, text),
        false => Finding::pass(Subject::Vectors, text),
    }
}

fn random() -> Finding {
    Finding::of(Subject::Seeds, seeded())
}

/// What the device computes, opened.
fn computations(chosen: &str, opened: Result<Device, String>) -> Vec<Finding> {
    let device = match opened {
        Ok(device) => device,
        Err(error) => return vec![Finding::of(Subject::Device, Err(error))],
    };
    let opens = Finding::pass(Subject::Device, format!("{chosen} opens"));
    let computed = [
        dtypes(&device),
        Finding::of(Subject::Product, matmul(&device)),
        Finding::of(
            Subject::Model,
            round_trip(&device).unwrap_or_else(|error| Err(in_full(&error))),
        ),
    ];
    [opens]
        .into_iter()
        .chain(limits(&device))
        .chain(computed)
        .collect()
}

/// Philox4x32-10 of seed 0, stream 0, whose first block its authors publish.
fn seeded() -> Result<String, String> {
    let mut rng = streams::MEASUREMENT.of(0, 0);
    let found: [u32; 4] = std::array::from_fn(|_| rng.next_u32());
    const EXPECTED: [u32; 4] = [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8];
    match found == EXPECTED {
        true => Ok("the published ones".into()),
        false => Err(format!("expected {EXPECTED:08x?}, found {found:08x?}")),
    }
}

/// A product on the device against three plain loops.
fn matmul(device: &Device) -> Result<String, String> {
    let [m, k, n]: [usize; 3] = [33, 65, 17];
    let mut rng = streams::MEASUREMENT.of(1, 0);
    let mut matrix = |len: usize| (0..len).map(|_| rng.normal()).collect::<Vec<f32>>();
    let (a, b) = (matrix(m * k), matrix(k * n));
    let tensor =
        |values: &[f32], shape: [usize; 2]| device_values(values.to_vec(), shape, device.burn());
    let product = host_values(tensor(&a, [m, k]).matmul(tensor(&b, [k, n])));
    let plain = |i: usize| {
        (0..k)
            .map(|j| f64::from(a[i / n * k + j]) * f64::from(b[j * n + i % n]))
            .sum::<f64>()
    };
    let error = product
        .iter()
        .enumerate()
        .map(|(i, &x)| (f64::from(x) - plain(i)).abs())
        .fold(0.0, f64::max);
    match error < 1e-3 {
        true => Ok(format!("within {error:.1e} of a plain loop")),
        false => Err(format!("off by {error:.1e} from a plain loop")),
    }
}

/// A soft blob through the built-in tokenizer, quantized, and back; every step as the CPU has it.
fn round_trip(device: &Device) -> crate::Result<Result<String, String>> {
    let model = ArModel::builtin(device)?;
    let (name, size) = (&model.card.name, model.card.img_size);
    let square = |x: usize| (x as f32 + 0.5 - size as f32 / 2.0).powi(2);
    let bell = |y, x| 2.0 * (-8.0 * (square(y) + square(x)) / (size * size) as f32).exp() - 1.0;
    let shape = (1, model.vae.image_channels(), size, size);
    let image = Array4::from_shape_fn(shape, |(_, _, y, x)| bell(y, x));
    let latents = model.encode(image.clone())?;
    let expected = ArModel::builtin(&Device::cpu())?.encode(image.clone())?;
    let indices = model.quantizer.quantize(expected.view())?;
    let largest = |values: &Array4<f32>| values.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let off = largest(&(&latents - &expected)) / largest(&expected);
    // Not by `off > …`, which NaN is not.
    let close = off <= 1e-3;
    if !close {
        return Ok(Err(format!(
            "{name}: latents are off by {off:.1e} of the largest that the CPU has"
        )));
    }
    let decoded = model.decode(indices.view())?;
    let original = model.finish(image.index_axis(Axis(0), 0))?;
    let quality = psnr(&original, &decoded[0])?;
    Ok(match quality < 15.0 {
        true => Err(format!("{name}: a picture came back at {quality:.1} dB")),
        false => Ok(format!(
            "{name}: latents within {off:.1e} of the CPU's, a picture comes back at {quality:.1} dB"
        )),
    })
}
