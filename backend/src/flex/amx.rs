//! Tiles of bf16 (Intel AMX) through inline assembly: the instructions are not among Rust's stable intrinsics.

use super::half::Block;

/// Tiles of a thread; released when dropped.
pub(super) struct Tiles(());

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::half_operands::{PANEL, STEP};
    use super::{Block, Tiles};
    use std::arch::asm;

    /// What `ldtilecfg` reads: palette 1, eight tiles of 16 rows of 64 bytes.
    #[repr(C, align(64))]
    struct Config {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        bytes_per_row: [u16; 16],
        rows: [u8; 16],
    }

    impl Tiles {
        /// Makes this thread's tiles usable.
        pub(in super::super) fn configure() -> Self {
            let mut config = Config {
                palette: 1,
                start_row: 0,
                reserved: [0; 14],
                bytes_per_row: [0; 16],
                rows: [0; 16],
            };
            config.bytes_per_row[..8].fill(64);
            config.rows[..8].fill(16);
            // SAFETY: only asked for where tiles are permitted; the configuration is 64 bytes as the instruction reads.
            unsafe {
                asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly))
            };
            Self(())
        }
    }

    impl Drop for Tiles {
        fn drop(&mut self) {
            // SAFETY: `configure` ran on this thread.
            unsafe { asm!("tilerelease", options(nostack, nomem)) };
        }
    }

    /// 16 rows against a panel of 64 columns: four tiles of sums, `pairs` a multiple of 16.
    ///
    /// # Safety
    /// The thread's tiles are configured, and the block's pointers hold what it says for 16 rows.
    pub(in super::super) unsafe fn block(block: Block) {
        debug_assert!(block.pairs.is_multiple_of(STEP / 2));
        // SAFETY: the caller's contract.
        unsafe {
            asm!(
                "tileloadd tmm0, [{z} + {ldz}*1]",
                "tileloadd tmm1, [{z} + {ldz}*1 + 64]",
                "tileloadd tmm2, [{z} + {ldz}*1 + 128]",
                "tileloadd tmm3, [{z} + {ldz}*1 + 192]",
                "2:",
                "tileloadd tmm4, [{x} + {ldx}*1]",
                "tileloadd tmm5, [{w} + {ldw}*1]",
                "tileloadd tmm6, [{w} + {ldw}*1 + 64]",
                "tdpbf16ps tmm0, tmm4, tmm5",
                "tileloadd tmm7, [{w} + {ldw}*1 + 128]",
                "tdpbf16ps tmm1, tmm4, tmm6",
                "tileloadd tmm5, [{w} + {ldw}*1 + 192]",
                "tdpbf16ps tmm2, tmm4, tmm7",
                "tdpbf16ps tmm3, tmm4, tmm5",
                "add {x}, 64",
                "add {w}, {step}",
                "dec {n}",
                "jnz 2b",
                "tilestored [{z} + {ldz}*1], tmm0",
                "tilestored [{z} + {ldz}*1 + 64], tmm1",
                "tilestored [{z} + {ldz}*1 + 128], tmm2",
                "tilestored [{z} + {ldz}*1 + 192], tmm3",
                x = inout(reg) block.x => _,
                w = inout(reg) block.panel => _,
                n = inout(reg) block.pairs / (STEP / 2) => _,
                z = in(reg) block.sums,
                ldx = in(reg) 2 * block.x_stride,
                ldw = in(reg) 4 * PANEL,
                ldz = in(reg) 4 * block.stride,
                step = const 4 * PANEL * (STEP / 2),
                options(nostack),
            );
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::block;

#[cfg(not(target_arch = "x86_64"))]
impl Tiles {
    pub(super) fn configure() -> Self {
        Self(())
    }
}

/// Never asked for where there are no tiles.
///
/// # Safety
/// None to keep.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn block(_: Block) {
    unreachable!("only found on x86-64")
}
