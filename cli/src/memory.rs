//! What the system tells of memory.

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
