//! `tessera doctor`: whether this machine and this build compute what they should.

use crate::args::Global;
use crate::{output, ranks};
use anyhow::{Result, bail, ensure};
use burn::tensor::DType;
use clap::Args;
use ndarray::{Array4, Axis};
use serde::Serialize;
use tessera::backend::{DeviceName, device_values, host_values, streams};
use tessera::pictures::psnr;
use tessera::{ArModel, Device};

/// Check this build and this machine.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  tessera doctor\n  tessera doctor --device cuda --json")]
pub struct Doctor {
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Verdict {
    Pass,
    Warn,
    Error,
}

#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'static str>,
}

impl Check {
    fn pass(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Pass,
            found: found.into(),
            hint: None,
        }
    }

    fn warn(check: &'static str, found: impl Into<String>, hint: &'static str) -> Self {
        Self {
            check,
            verdict: Verdict::Warn,
            found: found.into(),
            hint: Some(hint),
        }
    }

    /// What a computation gave; the hint is for its failure.
    fn of(check: &'static str, result: Result<String>, hint: &'static str) -> Self {
        match result {
            Ok(found) => Self::pass(check, found),
            Err(error) => Self {
                check,
                verdict: Verdict::Error,
                found: format!("{error:#}"),
                hint: Some(hint),
            },
        }
    }
}

impl Doctor {
    /// Runs every check.
    ///
    /// # Errors
    /// When one of them found an error.
    pub fn run(self, global: &Global) -> Result<()> {
        let checks = [features(), threads(), memory(), simd(), mpi()]
            .into_iter()
            .chain(adapters())
            .chain(computations(global))
            .collect::<Vec<_>>();
        let errors = checks
            .iter()
            .filter(|check| check.verdict == Verdict::Error)
            .count();
        if self.json {
            let version = env!("CARGO_PKG_VERSION");
            output::json(
                &serde_json::json!({ "schema": "tessera.doctor/v1", "version": version, "checks": checks }),
            )?;
        } else {
            output::text(format!("tessera {}", env!("CARGO_PKG_VERSION")))?;
            for Check {
                check,
                verdict,
                found,
                hint,
            } in &checks
            {
                output::text(format!(
                    "{:<5} {check}: {found}",
                    format!("{verdict:?}").to_uppercase()
                ))?;
                if let Some(hint) = hint {
                    output::text(format!("      hint: {hint}"))?;
                }
            }
        }
        ensure!(errors == 0, "{errors} of {} checks failed", checks.len());
        Ok(())
    }
}

fn mpi() -> Check {
    Check::pass("mpi", ranks::describe())
}

/// What GPUs there are, whether or not one is used.
fn adapters() -> Vec<Check> {
    #[cfg(feature = "wgpu")]
    {
        let found = tessera::backend::adapters();
        let described = |adapter: &tessera::backend::Adapter| {
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
            Check::pass("adapter", found)
        };
        match found.is_empty() {
            false => found.iter().map(described).collect(),
            true => vec![Check::warn(
                "adapter",
                "none",
                "wgpu wants a driver for Vulkan, Metal, DirectX 12 or OpenGL; mesa-vulkan-drivers has one for \
                 processors",
            )],
        }
    }
    #[cfg(not(feature = "wgpu"))]
    Vec::new()
}

/// What kernels have on the device, where they are compiled for it.
fn limits(device: &Device) -> Option<Check> {
    #[cfg(feature = "wgpu")]
    {
        let limits = tessera::backend::limits(device.burn())?;
        let name = device.burn().identity()?.name;
        let found = format!(
            "{name}: {} threads share {} KiB, {} to {} run in step, tensors of up to {} MiB",
            limits.units_per_cube,
            limits.shared_memory >> 10,
            limits.plane[0],
            limits.plane[1],
            limits.largest_tensor >> 20
        );
        Some(Check::pass("limits", found))
    }
    #[cfg(not(feature = "wgpu"))]
    {
        let _ = device;
        None
    }
}

/// The types of numbers that a model's weights may be of.
fn dtypes(device: &Device) -> Check {
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
    Check::pass("number types", found)
}

fn features() -> Check {
    let (built, missing): (Vec<_>, Vec<_>) =
        tessera::backend::device_names().partition(|device| device.built_in);
    let names = |devices: Vec<DeviceName>| {
        let names: Vec<_> = devices.into_iter().map(|device| device.name).collect();
        names.join(", ")
    };
    Check::pass(
        "devices built in",
        format!("{} (not: {})", names(built), names(missing)),
    )
}

fn threads() -> Check {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let found = format!("{} of {cores} processors", rayon::current_num_threads());
    match rayon::current_num_threads() > cores {
        true => Check::warn(
            "threads",
            found,
            "more threads than processors slow each other down; lower -t",
        ),
        false => Check::pass("threads", found),
    }
}

fn memory() -> Check {
    let field = |name| crate::memory::mib("/proc/meminfo", name);
    match (field("MemAvailable"), field("MemTotal")) {
        (Some(free), Some(total)) => {
            let found = format!("{free} of {total} MiB available");
            match free < 512 {
                true => Check::warn(
                    "memory",
                    found,
                    "close other programs, or lower --batch-size",
                ),
                false => Check::pass("memory", found),
            }
        }
        _ => Check::pass("memory", "not known on this system"),
    }
}

/// The widest vectors that the kernels, which choose at run time, find here.
fn simd() -> Check {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    {
        let (wide, fused) = (
            std::is_x86_feature_detected!("avx512f"),
            std::is_x86_feature_detected!("fma"),
        );
        match (wide, std::is_x86_feature_detected!("avx2") && fused) {
            (true, _) => Check::pass("vectors", "AVX-512"),
            (_, true) => Check::pass("vectors", "AVX2 with FMA"),
            _ => Check::warn(
                "vectors",
                "neither AVX2 nor AVX-512",
                "the program works, several times slower",
            ),
        }
    }
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
    Check::pass("vectors", std::env::consts::ARCH)
}

fn computations(global: &Global) -> Vec<Check> {
    let random = Check::of(
        "seeded numbers",
        random(),
        "the build is broken: seeds would give other pictures here",
    );
    let device = match global.open() {
        Ok(device) => device,
        Err(error) => {
            let check = Check::of(
                "device",
                Err(error),
                "build with --features, or choose another --device",
            );
            return vec![random, check];
        }
    };
    let opened = Check::pass("device", format!("{} opens", global.device.chosen()));
    let computed = [
        dtypes(&device),
        Check::of(
            "matrix product",
            matmul(&device),
            "do not trust this device; try --device flex",
        ),
        Check::of(
            "built-in model",
            round_trip(&device),
            "the build or the device is broken; try --device flex",
        ),
    ];
    [random, opened]
        .into_iter()
        .chain(limits(&device))
        .chain(computed)
        .collect()
}

/// Philox4x32-10 of seed 0, stream 0, whose first block its authors publish.
fn random() -> Result<String> {
    let mut rng = streams::MEASUREMENT.of(0, 0);
    let found: [u32; 4] = std::array::from_fn(|_| rng.next_u32());
    const EXPECTED: [u32; 4] = [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8];
    ensure!(
        found == EXPECTED,
        "expected {EXPECTED:08x?}, found {found:08x?}"
    );
    Ok("the published ones".into())
}

/// A product on the device against three plain loops.
fn matmul(device: &Device) -> Result<String> {
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
    ensure!(error < 1e-3, "off by {error:.1e} from a plain loop");
    Ok(format!("within {error:.1e} of a plain loop"))
}

/// A soft blob through the built-in tokenizer, quantized, and back; every step as the CPU has it.
fn round_trip(device: &Device) -> Result<String> {
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
    ensure!(
        off <= 1e-3,
        "{name}: latents are off by {off:.1e} of the largest that the CPU has"
    );
    let decoded = model.decode(indices.view())?;
    let original = model.finish(image.index_axis(Axis(0), 0))?;
    let quality = psnr(&original, &decoded[0])?;
    if quality < 15.0 {
        bail!("{name}: a picture came back at {quality:.1} dB");
    }
    Ok(format!(
        "{name}: latents within {off:.1e} of the CPU's, a picture comes back at {quality:.1} dB"
    ))
}
