//! What the system tells of memory.

/// A field of a file of `/proc` whose lines are such as `VmHWM:  123 kB`, in KiB; nothing where there is no such file.
fn proc_kib(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// The same in MiB.
pub(crate) fn proc_mib(file: &str, name: &str) -> Option<u64> {
    proc_kib(file, name).map(|kib| kib >> 10)
}

/// The most memory that this process has held so far, in KiB; known on Linux alone.
pub(crate) fn peak_kib() -> Option<u64> {
    proc_kib("/proc/self/status", "VmHWM")
}

/// Lets [`peak_memory_mib`] begin at what this process holds now, on Linux.
pub fn forget_peak_memory() {
    // Where there is no such file, the peak is not known either.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The most memory that this process has held so far, in MiB; known on Linux alone.
pub fn peak_memory_mib() -> Option<u64> {
    peak_kib().map(|kib| kib >> 10)
}
