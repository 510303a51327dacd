//! `tessera doctor`: whether this machine and this build compute what they should.

use super::bench::Line;
use crate::args::Global;
use crate::{output, ranks};
use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;
use tessera::doctor::{Finding, Subject, Verdict, diagnose};
use tessera_bench::operations::cases;

/// Check this build and this machine.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  tessera doctor\n  tessera doctor --bench\n  tessera doctor --device cuda --json\n\n\
                  TESSERA_CPU limits the instructions of the CPU's kernels: baseline, avx2, avx512, avx512-bf16 or amx."
)]
pub struct Doctor {
    /// Measure what the kernels reach here, in some ten seconds.
    #[arg(long)]
    bench: bool,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Check {
    #[serde(flatten)]
    finding: Finding,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'static str>,
}

/// What `--bench` measures: products that the processor bounds, in f32 and bf16, one that memory bounds in each,
/// attention, a convolution, and operations on single elements.
const SPEEDS: [&str; 8] = [
    "matmul-1024",
    "linear-bf16-2560x1024x4096",
    "linear-4x1024x4096",
    "linear-bf16-4x1024x4096",
    "attention-16x1024x64",
    "conv-128x256x256",
    "gelu-2560x4096",
    "layer-norm-2560x1024",
];

impl Doctor {
    /// Runs every check.
    ///
    /// # Errors
    /// When one of them found an error; Ctrl-C.
    pub fn run(self, global: &Global) -> Result<()> {
        let open = || global.open().map_err(|error| format!("{error:#}"));
        let findings = diagnose(ranks::describe(), &global.device.chosen().to_string(), open);
        let errors = findings
            .iter()
            .filter(|finding| finding.verdict == Verdict::Error)
            .count();
        let hinted = |finding: Finding| Check {
            hint: hint(&finding),
            finding,
        };
        let checks: Vec<_> = findings.into_iter().map(hinted).collect();
        let version = env!("CARGO_PKG_VERSION");
        let speeds = self.speeds(global)?;
        if self.json {
            let mut report = serde_json::json!({
                "schema": "tessera.doctor/v1", "version": version, "checks": checks,
            });
            if self.bench {
                report["speeds"] = serde_json::to_value(&speeds)?;
            }
            output::json(&report)?;
        } else {
            output::text(format!("tessera {version}"))?;
            for Check { finding, hint } in &checks {
                let verdict = format!("{:?}", finding.verdict).to_uppercase();
                let check = finding.check.name();
                output::text(format!("{verdict:<5} {check}: {}", finding.found))?;
                if let Some(hint) = hint {
                    output::text(format!("      hint: {hint}"))?;
                }
            }
            speeds.iter().try_for_each(output::text)?;
        }
        ensure!(errors == 0, "{errors} of {} checks failed", checks.len());
        Ok(())
    }

    /// What the kernels reach, if that is asked for and the device opens.
    fn speeds(&self, global: &Global) -> Result<Vec<Line>> {
        if !self.bench {
            return Ok(Vec::new());
        }
        let Ok(device) = global.device.open() else {
            return Ok(Vec::new());
        };
        let cases = cases(&SPEEDS.map(str::to_owned))?.into_iter();
        let cases = cases.filter(|case| SPEEDS.contains(&case.name));
        cases.map(|case| Line::of(case, &device, 1.0)).collect()
    }
}

/// What helps.
fn hint(finding: &Finding) -> Option<&'static str> {
    if finding.verdict == Verdict::Pass {
        return None;
    }
    Some(match finding.check {
        Subject::Threads => "more threads than processors slow each other down; lower -t",
        Subject::Memory => "close other programs, or lower --batch-size",
        Subject::Vectors => "the program works, several times slower",
        Subject::Adapter => {
            "wgpu wants a driver for Vulkan, Metal, DirectX 12 or OpenGL; mesa-vulkan-drivers has one for processors"
        }
        Subject::Seeds => "the build is broken: seeds would give other pictures here",
        Subject::Device => "build with --features, or choose another --device",
        Subject::Product => "do not trust this device; try --device flex",
        Subject::Model => "the build or the device is broken; try --device flex",
        Subject::Devices | Subject::Ranks | Subject::Limits | Subject::NumberTypes => return None,
    })
}
