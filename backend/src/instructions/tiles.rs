//! Whether there are tiles of bf16 (Intel AMX).

/// Whether the processor has bf16 tiles and the system lets us use them: Linux grants their state on request
/// (`arch_prctl`, `ARCH_REQ_XCOMP_PERM`, feature 18), once per process.
pub(super) fn permitted() -> bool {
    has_tiles() && request()
}

/// CPUID leaf 7: EDX bit 22 is AMX-BF16, bit 24 AMX-TILE.
fn has_tiles() -> bool {
    let leaf = std::arch::x86_64::__cpuid_count(7, 0);
    leaf.edx & (1 << 22) != 0 && leaf.edx & (1 << 24) != 0
}

#[cfg(target_os = "linux")]
fn request() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const REQ_XCOMP_PERM: u64 = 0x1023;
    const XTILEDATA: u64 = 18;
    let status: i64;
    // SAFETY: a system call that reads and writes no memory of ours; rcx and r11 are what `syscall` overwrites.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") ARCH_PRCTL => status, in("rdi") REQ_XCOMP_PERM,
            in("rsi") XTILEDATA, out("rcx") _, out("r11") _, options(nostack));
    }
    status == 0
}

#[cfg(not(target_os = "linux"))]
fn request() -> bool {
    false
}
