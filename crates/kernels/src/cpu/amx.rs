//! Tiles of AMX: 32 rows by two panels at once, or 16 rows by four, in assembly, because stable Rust has no functions for them.
//!
//! A step of the depth is 64 bytes of a row: 32 bf16, or 64 whole numbers of 8 bits. Sums stay in their tiles over the whole
//! depth of a block. What is measured of it, on one thread of an Intel processor of model 207 at depth 1,024: 2,846 GFLOP/s of
//! bf16 from registers alone, 2,100 from the first cache, 1,650 with rows and panels in the second one; rows that lie 2,048
//! bytes apart cost 8 % of that beside rows packed into tiles, so that rows are read as they lie.
//!
//! # Source
//! Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18; the system call of
//! Documentation/arch/x86/xstate.rst.

use std::arch::asm;
use std::sync::OnceLock;

use super::simd::{LANES, to_bf16};
use super::tile::{Bf16Bits, Block};

/// Rows of a tile register.
const TILE: usize = 16;
/// Rows of the highest block.
pub(super) const ROWS: usize = 2 * TILE;
/// Sums of the largest block.
pub(super) const SUMS: usize = 4 * TILE * LANES;
/// Bytes of a row of a tile register.
const STEP: usize = 64;
/// Bytes of a tile register, and of what a panel gives to a step.
pub(super) const TILE_BYTES: usize = TILE * STEP;

/// Whether this processor has tiles of bf16, the system lets this process use them, and a small product comes out right.
pub(super) fn is_available() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| has_instructions() && is_permitted() && multiplies::<u16, u16, f32>(to_bf16, to_bf16))
}

/// Whether there are tiles of whole numbers too, beside what [`is_available`] says, and a small product comes out right.
pub(super) fn has_int8() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        is_available() && features() & (1 << 25) != 0 && multiplies::<i8, u8, i32>(|v| v as i8, |v| v as u8)
    })
}

fn has_instructions() -> bool {
    // Bit 22 AMX-BF16, bit 24 AMX-TILE.
    features() & (1 << 22) != 0 && features() & (1 << 24) != 0
}

/// EDX of leaf 7.
fn features() -> u32 {
    use std::arch::x86_64::__cpuid_count;
    if __cpuid_count(0, 0).eax < 7 { 0 } else { __cpuid_count(7, 0).edx }
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

/// A product of small whole numbers, which has one right answer: a hypervisor that shows the instructions and computes something
/// else is not trusted.
fn multiplies<A: Copy, B: Copy, C: Copy + Default + Into<f64>>(a: fn(f32) -> A, b: fn(f32) -> B) -> bool
where
    Block<A, B, C>: Product,
{
    const ROWS: usize = 53;
    const PANELS: usize = 3;
    let group = STEP / size_of::<A>() / TILE;
    let depth = 2 * group * TILE;
    let value = |i: usize, less: usize| ((i * 7 + i / 13) % 9) as f32 - less as f32;
    let rows: Vec<A> = (0..ROWS * depth).map(|i| a(value(i, 4))).collect();
    let panels: Vec<B> = (0..PANELS * depth * LANES).map(|i| b(value(i + 5, 0))).collect();
    let mut sums = vec![C::default(); ROWS * PANELS * LANES];
    // SAFETY: the buffers are as large as the block says; the instructions are there.
    unsafe {
        block(Block {
            rows: ROWS,
            panels: PANELS,
            depth,
            a: rows.as_ptr(),
            lda: depth,
            b: panels.as_ptr(),
            panel: depth * LANES,
            c: sums.as_mut_ptr(),
            ldc: PANELS * LANES,
            accumulate: false,
            next: std::ptr::null(),
        });
    }
    (0..ROWS).all(|row| {
        (0..PANELS * LANES).all(|column| {
            let (panel, lane) = (column / LANES, column % LANES);
            let at = |k: usize| panel * depth * LANES + k / group * group * LANES + group * lane + k % group;
            let want: f32 = (0..depth).map(|k| value(row * depth + k, 4) * value(at(k) + 5, 0)).sum();
            sums[row * PANELS * LANES + column].into() == f64::from(want)
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

/// The tile registers of this thread while a task uses them; given back to the system at the end.
///
/// Tiles 0 to 3 are sums; 4, and 5 with more than sixteen rows, rows of `a`; the others panels of `b`. A tile has as many rows
/// as are asked for, so that none is read or written that is not there.
pub(super) struct Tiles {
    /// Rows of the upper tiles and of the lower ones, as they are configured; zeros where they are not.
    rows: [usize; 2],
}

impl Tiles {
    /// Not configured yet.
    pub(super) fn new() -> Self {
        Self { rows: [0; 2] }
    }

    #[inline(always)]
    unsafe fn set(&mut self, rows: [usize; 2]) {
        if self.rows == rows {
            return;
        }
        let mut config = Config { palette: 1, start_row: 0, reserved: [0; 14], bytes_per_row: [0; 16], rows: [0; 16] };
        config.bytes_per_row[..8].fill(STEP as u16);
        let full = TILE as u8;
        config.rows[..8].copy_from_slice(&match rows.map(|rows| rows as u8) {
            [rows, 0] => [rows, rows, rows, rows, rows, full, full, full],
            [upper, lower] => [upper, upper, lower, lower, upper, lower, full, full],
        });
        unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, readonly)) };
        self.rows = rows;
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        if self.rows != [0; 2] {
            // SAFETY: they were configured, so the instructions are there.
            unsafe { asm!("tilerelease", options(nostack, nomem)) };
        }
    }
}

/// A block of any size. See [`super::tile::bf16_block`] and [`super::tile::byte_block`].
///
/// # Safety
/// The instructions are there and permitted; `depth` is a multiple of a step; the block's pointers are valid for its sizes.
pub(super) unsafe fn block<A, B, C>(block: Block<A, B, C>)
where
    Block<A, B, C>: Product,
{
    let mut tiles = Tiles::new();
    let mut row = 0;
    while row < block.rows {
        let rows = (block.rows - row).min(ROWS);
        let mut panel = 0;
        while panel < block.panels {
            let panels = widest(rows).min(block.panels - panel);
            unsafe { tile(&mut tiles, block.part(row, rows, panel, panels)) };
            panel += panels;
        }
        row += rows;
    }
}

/// Panels that tiles take at once beside so many rows.
pub(super) fn widest(rows: usize) -> usize {
    if rows > TILE { 2 } else { 4 }
}

/// Up to 32 rows by up to [`widest`] panels.
///
/// # Safety
/// As [`block`].
#[inline(always)]
pub(super) unsafe fn tile<A, B, C>(tiles: &mut Tiles, block: Block<A, B, C>)
where
    Block<A, B, C>: Product,
{
    unsafe {
        if block.rows > TILE {
            tiles.set([TILE, block.rows - TILE]);
            match block.panels {
                1 => block.two_rows::<1>(),
                _ => block.two_rows::<2>(),
            }
        } else {
            tiles.set([block.rows, 0]);
            match block.panels {
                1 => block.one_row::<1>(),
                2 => block.one_row::<2>(),
                3 => block.one_row::<3>(),
                _ => block.one_row::<4>(),
            }
        }
    }
}

/// What tiles multiply: bf16, or signed bytes of rows with unsigned ones of panels.
pub(super) trait Product {
    /// Two tiles of rows by one or two panels.
    ///
    /// # Safety
    /// As [`block`]; the tiles are configured for the block's rows.
    unsafe fn two_rows<const PANELS: usize>(&self);
    /// One tile of rows by one to four panels.
    ///
    /// # Safety
    /// As [`block`]; the tiles are configured for the block's rows.
    unsafe fn one_row<const PANELS: usize>(&self);
}

/// `load!("tmm0" from address, bytes between rows)`.
macro_rules! load {
    ($tile:literal from $at:expr, $stride:expr) => {
        asm!(concat!("tileloadd ", $tile, ", [{at} + {stride}]"), at = in(reg) $at, stride = in(reg) $stride,
            options(nostack, readonly))
    };
}

/// `store!("tmm0" to address, bytes between rows)`.
macro_rules! store {
    ($tile:literal to $at:expr, $stride:expr) => {
        asm!(concat!("tilestored [{at} + {stride}], ", $tile), at = in(reg) $at, stride = in(reg) $stride,
            options(nostack))
    };
}

macro_rules! product {
    ($a:ty, $b:ty, $c:ty, $multiply:literal) => {
        impl Product for Block<$a, $b, $c> {
            #[inline(always)]
            unsafe fn two_rows<const PANELS: usize>(&self) {
                let (c, row) = (self.c, self.ldc * size_of::<$c>());
                let lower = c.wrapping_add(TILE * self.ldc);
                let stride = self.lda * size_of::<$a>();
                let (mut a, mut b) = (self.a.cast::<u8>(), self.b.cast::<u8>());
                let panel = self.panel * size_of::<$b>();
                unsafe {
                    if self.accumulate {
                        load!("tmm0" from c, row);
                        load!("tmm2" from lower, row);
                        if PANELS > 1 {
                            load!("tmm1" from c.wrapping_add(LANES), row);
                            load!("tmm3" from lower.wrapping_add(LANES), row);
                        }
                    } else {
                        asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack, nomem));
                    }
                    for _ in 0..self.depth * size_of::<$a>() / STEP {
                        load!("tmm4" from a, stride);
                        load!("tmm6" from b, STEP);
                        asm!(concat!($multiply, " tmm0, tmm4, tmm6"), options(nostack, nomem));
                        if PANELS > 1 {
                            load!("tmm7" from b.wrapping_add(panel), STEP);
                            asm!(concat!($multiply, " tmm1, tmm4, tmm7"), options(nostack, nomem));
                        }
                        load!("tmm5" from a.wrapping_add(TILE * stride), stride);
                        asm!(concat!($multiply, " tmm2, tmm5, tmm6"), options(nostack, nomem));
                        if PANELS > 1 {
                            asm!(concat!($multiply, " tmm3, tmm5, tmm7"), options(nostack, nomem));
                        }
                        a = a.wrapping_add(STEP);
                        b = b.wrapping_add(TILE_BYTES);
                    }
                    store!("tmm0" to c, row);
                    store!("tmm2" to lower, row);
                    if PANELS > 1 {
                        store!("tmm1" to c.wrapping_add(LANES), row);
                        store!("tmm3" to lower.wrapping_add(LANES), row);
                    }
                }
            }

            #[inline(always)]
            unsafe fn one_row<const PANELS: usize>(&self) {
                let (c, row) = (self.c, self.ldc * size_of::<$c>());
                let stride = self.lda * size_of::<$a>();
                let (mut a, mut b) = (self.a.cast::<u8>(), self.b.cast::<u8>());
                let panel = self.panel * size_of::<$b>();
                unsafe {
                    asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack, nomem));
                    if self.accumulate {
                        load!("tmm0" from c, row);
                        if PANELS > 1 {
                            load!("tmm1" from c.wrapping_add(LANES), row);
                        }
                        if PANELS > 2 {
                            load!("tmm2" from c.wrapping_add(2 * LANES), row);
                        }
                        if PANELS > 3 {
                            load!("tmm3" from c.wrapping_add(3 * LANES), row);
                        }
                    }
                    for _ in 0..self.depth * size_of::<$a>() / STEP {
                        load!("tmm4" from a, stride);
                        load!("tmm5" from b, STEP);
                        asm!(concat!($multiply, " tmm0, tmm4, tmm5"), options(nostack, nomem));
                        if PANELS > 1 {
                            load!("tmm6" from b.wrapping_add(panel), STEP);
                            asm!(concat!($multiply, " tmm1, tmm4, tmm6"), options(nostack, nomem));
                        }
                        if PANELS > 2 {
                            load!("tmm7" from b.wrapping_add(2 * panel), STEP);
                            asm!(concat!($multiply, " tmm2, tmm4, tmm7"), options(nostack, nomem));
                        }
                        if PANELS > 3 {
                            load!("tmm5" from b.wrapping_add(3 * panel), STEP);
                            asm!(concat!($multiply, " tmm3, tmm4, tmm5"), options(nostack, nomem));
                        }
                        a = a.wrapping_add(STEP);
                        b = b.wrapping_add(TILE_BYTES);
                    }
                    store!("tmm0" to c, row);
                    if PANELS > 1 {
                        store!("tmm1" to c.wrapping_add(LANES), row);
                    }
                    if PANELS > 2 {
                        store!("tmm2" to c.wrapping_add(2 * LANES), row);
                    }
                    if PANELS > 3 {
                        store!("tmm3" to c.wrapping_add(3 * LANES), row);
                    }
                }
            }
        }
    };
}

product!(Bf16Bits, Bf16Bits, f32, "tdpbf16ps");
product!(i8, u8, i32, "tdpbsud");
