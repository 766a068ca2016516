//! Tiles of AMX: 32 rows by two panels at once, in assembly, because stable Rust has no functions for them.
//!
//! # Source
//! Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18; the system call of
//! Documentation/arch/x86/xstate.rst.

use std::arch::asm;
use std::sync::OnceLock;

use super::lanes::LANES;
use super::tile::{Bf16Bits, Block};

/// Rows of a tile register.
const TILE: usize = 16;
/// bf16 in a row of a tile register.
const DEPTH: usize = 32;

/// Whether this processor has tiles of bf16, the system lets this process use them, and a small product comes out right.
pub(super) fn is_available() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| has_instructions() && is_permitted() && multiplies())
}

fn has_instructions() -> bool {
    use std::arch::x86_64::__cpuid_count;
    // Leaf 7, EDX: bit 22 AMX-BF16, bit 24 AMX-TILE.
    if __cpuid_count(0, 0).eax < 7 {
        return false;
    }
    let leaf = __cpuid_count(7, 0);
    leaf.edx & (1 << 22) != 0 && leaf.edx & (1 << 24) != 0
}

#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    let result: i64;
    // SAFETY: arch_prctl (158) with ARCH_REQ_XCOMP_PERM (0x1023) for XTILEDATA (18) reads and writes no memory of ours;
    // the kernel may change rcx and r11.
    unsafe {
        asm!("syscall", inlateout("rax") 158_i64 => result, in("rdi") 0x1023, in("rsi") 18,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// A product of whole numbers, which has one right answer: a hypervisor that shows the instructions and computes something
/// else is not trusted.
fn multiplies() -> bool {
    const ROWS: usize = 37;
    let value = |i: usize| ((i * 7 + i / 13) % 9) as f32 - 4.0;
    let depth = 2 * DEPTH;
    let a: Vec<u16> = (0..48 * depth).map(|i| super::lanes::to_bf16(value(i))).collect();
    let b: Vec<u16> = (0..3 * depth * LANES).map(|i| super::lanes::to_bf16(value(i + 5))).collect();
    let mut c = vec![0.0_f32; ROWS * 3 * LANES];
    let (a_at, b_at, c_at) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
    // SAFETY: the buffers are as large as the block says, with rows of `a` up to a multiple of sixteen.
    unsafe {
        block(Block {
            rows: ROWS,
            panels: 3,
            depth,
            a: a_at,
            lda: depth,
            b: b_at,
            panel: depth * LANES,
            c: c_at,
            ldc: 3 * LANES,
            accumulate: false,
            next: std::ptr::null(),
        });
    }
    let from = super::lanes::from_bf16;
    (0..ROWS).all(|row| {
        (0..3 * LANES).all(|column| {
            let (panel, lane) = (column / LANES, column % LANES);
            let at = |k: usize| b[panel * depth * LANES + (k / 2) * 2 * LANES + 2 * lane + k % 2];
            let want: f32 = (0..depth).map(|k| from(a[row * depth + k]) * from(at(k))).sum();
            c[row * 3 * LANES + column] == want
        })
    })
}

/// What LDTILECFG reads.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_per_row: [u16; 16],
    rows: [u8; 16],
}

/// Tiles 0 to 3: sums; 4 and 5: rows of `a`; 6 and 7: panels of `b`. All are full: rows that are not asked for are computed
/// into a buffer and left there.
static FULL: Config = Config {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    bytes_per_row: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// See [`super::tile::bf16_block`].
///
/// # Safety
/// The instructions are there and permitted; `depth` is a multiple of 32; rows of `a` can be read up to the next multiple
/// of sixteen.
pub(super) unsafe fn block(block: Block<Bf16Bits, Bf16Bits>) {
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) &FULL, options(nostack, readonly));
        let mut row = 0;
        while row < block.rows {
            let rows = (block.rows - row).min(2 * TILE);
            let mut panel = 0;
            while panel < block.panels {
                let panels = (block.panels - panel).min(2);
                part(&block, row, rows, panel, panels);
                panel += panels;
            }
            row += rows;
        }
        asm!("tilerelease", options(nostack, nomem));
    }
}

/// Up to 32 rows by up to two panels.
unsafe fn part(block: &Block<Bf16Bits, Bf16Bits>, row: usize, rows: usize, panel: usize, panels: usize) {
    unsafe {
        // Whole tiles go where they belong; a part of one goes through a buffer.
        let mut buffer = [0.0_f32; 2 * TILE * 2 * LANES];
        let target = block.c.add(row * block.ldc + panel * LANES);
        let whole = rows.is_multiple_of(TILE);
        let (c, ldc) = if whole { (target, block.ldc) } else { (buffer.as_mut_ptr(), 2 * LANES) };
        if !whole && block.accumulate {
            for r in 0..rows {
                std::ptr::copy_nonoverlapping(target.add(r * block.ldc), c.add(r * ldc), panels * LANES);
            }
        }
        let a = block.a.add(row * block.lda);
        let b = block.b.add(panel * block.panel);
        let (second_row, second_panel) = (rows > TILE, panels > 1);
        match (second_row, second_panel) {
            (true, true) => tiles::<true, true>(block, a, b, c, ldc),
            (true, false) => tiles::<true, false>(block, a, b, c, ldc),
            (false, true) => tiles::<false, true>(block, a, b, c, ldc),
            (false, false) => tiles::<false, false>(block, a, b, c, ldc),
        }
        if !whole {
            for r in 0..rows {
                std::ptr::copy_nonoverlapping(c.add(r * ldc), target.add(r * block.ldc), panels * LANES);
            }
        }
    }
}

/// One to four tiles of sums. Strides are in bytes.
unsafe fn tiles<const ROWS: bool, const PANELS: bool>(
    block: &Block<Bf16Bits, Bf16Bits>,
    a: *const Bf16Bits,
    b: *const Bf16Bits,
    c: *mut f32,
    ldc: usize,
) {
    unsafe {
        let (a_stride, c_stride) = (block.lda * 2, ldc * 4);
        let c_next_row = c.add(if ROWS { TILE * ldc } else { 0 });
        let a_next_row = a.add(if ROWS { TILE * block.lda } else { 0 });
        let b_next = b.add(if PANELS { block.panel } else { 0 });
        if block.accumulate {
            asm!("tileloadd tmm0, [{c} + {s}]", c = in(reg) c, s = in(reg) c_stride, options(nostack, readonly));
            if PANELS {
                asm!("tileloadd tmm1, [{c} + {s}]", c = in(reg) c.add(LANES), s = in(reg) c_stride, options(nostack, readonly));
            }
            if ROWS {
                asm!("tileloadd tmm2, [{c} + {s}]", c = in(reg) c_next_row, s = in(reg) c_stride, options(nostack, readonly));
            }
            if ROWS && PANELS {
                asm!("tileloadd tmm3, [{c} + {s}]", c = in(reg) c_next_row.add(LANES), s = in(reg) c_stride, options(nostack, readonly));
            }
        } else {
            asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack, nomem));
        }
        // Sixteen pairs of rows of a panel: 64 bytes each, one after the other.
        let b_stride = 2 * LANES * 2;
        for step in 0..block.depth / DEPTH {
            let (a0, a1) = (a.add(step * DEPTH), a_next_row.add(step * DEPTH));
            let (b0, b1) = (b.add(step * DEPTH * LANES), b_next.add(step * DEPTH * LANES));
            match (ROWS, PANELS) {
                (true, true) => asm!(
                    "tileloadd tmm4, [{a0} + {sa}]",
                    "tileloadd tmm6, [{b0} + {sb}]",
                    "tileloadd tmm5, [{a1} + {sa}]",
                    "tileloadd tmm7, [{b1} + {sb}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    a0 = in(reg) a0, a1 = in(reg) a1, b0 = in(reg) b0, b1 = in(reg) b1,
                    sa = in(reg) a_stride, sb = in(reg) b_stride, options(nostack, readonly)
                ),
                (true, false) => asm!(
                    "tileloadd tmm4, [{a0} + {sa}]",
                    "tileloadd tmm6, [{b0} + {sb}]",
                    "tileloadd tmm5, [{a1} + {sa}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    a0 = in(reg) a0, a1 = in(reg) a1, b0 = in(reg) b0,
                    sa = in(reg) a_stride, sb = in(reg) b_stride, options(nostack, readonly)
                ),
                (false, true) => asm!(
                    "tileloadd tmm4, [{a0} + {sa}]",
                    "tileloadd tmm6, [{b0} + {sb}]",
                    "tileloadd tmm7, [{b1} + {sb}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    a0 = in(reg) a0, b0 = in(reg) b0, b1 = in(reg) b1,
                    sa = in(reg) a_stride, sb = in(reg) b_stride, options(nostack, readonly)
                ),
                (false, false) => asm!(
                    "tileloadd tmm4, [{a0} + {sa}]",
                    "tileloadd tmm6, [{b0} + {sb}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    a0 = in(reg) a0, b0 = in(reg) b0,
                    sa = in(reg) a_stride, sb = in(reg) b_stride, options(nostack, readonly)
                ),
            }
        }
        asm!("tilestored [{c} + {s}], tmm0", c = in(reg) c, s = in(reg) c_stride, options(nostack));
        if PANELS {
            asm!("tilestored [{c} + {s}], tmm1", c = in(reg) c.add(LANES), s = in(reg) c_stride, options(nostack));
        }
        if ROWS {
            asm!("tilestored [{c} + {s}], tmm2", c = in(reg) c_next_row, s = in(reg) c_stride, options(nostack));
        }
        if ROWS && PANELS {
            asm!("tilestored [{c} + {s}], tmm3", c = in(reg) c_next_row.add(LANES), s = in(reg) c_stride, options(nostack));
        }
    }
}
