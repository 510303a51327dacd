//! `tessera doctor`: whether this machine and this build compute what they should.

use crate::args::Global;
use crate::{output, ranks};
use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;
use tessera::doctor::{Finding, Subject, Verdict, diagnose};

/// Check this build and this machine.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  tessera doctor\n  tessera doctor --device cuda --json")]
pub struct Doctor {
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

impl Doctor {
    /// Runs every check.
    ///
    /// # Errors
    /// When one of them found an error.
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
        if self.json {
            output::json(
                &serde_json::json!({ "schema": "tessera.doctor/v1", "version": version, "checks": checks }),
            )?;
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
        }
        ensure!(errors == 0, "{errors} of {} checks failed", checks.len());
        Ok(())
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
