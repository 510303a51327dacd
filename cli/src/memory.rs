//! What the system tells of memory, and how much of a device's may be used.

use burn::tensor::Device;
use std::sync::OnceLock;

/// What `--max-vram` says, in bytes.
static MAX_VRAM: OnceLock<u64> = OnceLock::new();

/// Tensors of about the largest size that a tokenizer holds at once: what goes into a layer, what comes of it, what is added to it, and
/// the workspace of a convolution.
const LARGE_AT_ONCE: u64 = 4;

/// Bounds what tokenizers use of a device's memory, once.
pub fn set_max_vram(mib: u64) {
    let _ = MAX_VRAM.set(mib << 20);
}

/// Most bytes of one tensor on a device: what its driver allows, and what `--max-vram` leaves.
pub fn largest_tensor(device: &Device) -> u64 {
    let wanted = MAX_VRAM
        .get()
        .map_or(u64::MAX, |bytes| bytes / LARGE_AT_ONCE);
    #[cfg(feature = "wgpu")]
    let there = tessera_backend::limits(device).map_or(u64::MAX, |limits| limits.largest_tensor);
    #[cfg(not(feature = "wgpu"))]
    let there = {
        let _ = device;
        u64::MAX
    };
    wanted.min(there)
}

/// A field of a file of `/proc` whose lines are such as `VmHWM:  123 kB`, in MiB; nothing where there is no such file.
pub fn mib(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib >> 10)
}

/// The most memory that this process has held so far, in MiB.
pub fn peak() -> Option<u64> {
    mib("/proc/self/status", "VmHWM")
}
