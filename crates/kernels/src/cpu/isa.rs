//! Which instructions the kernels use: found once, and forced one by one where paths are compared.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

/// A set of instructions that kernels are written for, from the plainest to the richest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Isa {
    /// No instructions beyond what the program was compiled for.
    Portable,
    /// 128-bit vectors of aarch64. Written and type-checked; no such machine was at hand.
    Neon,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// 512-bit vectors (F, BW, DQ, VL).
    Avx512,
    /// 512-bit vectors with products of bf16 pairs and of bytes (BF16, VNNI).
    Avx512Bf16,
    /// Tiles of bf16 (AMX), beside everything of [`Isa::Avx512Bf16`].
    Amx,
}

impl Isa {
    /// Every set, plainest first.
    pub const ALL: [Isa; 6] = [Isa::Portable, Isa::Neon, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx];

    /// The name users type and read.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Neon => "neon",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512-bf16",
            Isa::Amx => "amx",
        }
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            Isa::Neon => cfg!(target_arch = "aarch64"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => {
                Isa::Avx512.is_available()
                    && is_x86_feature_detected!("avx512bf16")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => Isa::Avx512Bf16.is_available() && super::amx::is_available(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// Those this machine has, plainest first.
    pub fn available() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The one kernels use now: what [`Isa::force`] said, else the richest this machine has.
    pub fn current() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        match FORCED.load(Ordering::Relaxed) {
            0 => *BEST.get_or_init(|| Isa::available().last().expect("there is always the portable one")),
            forced => Isa::ALL[usize::from(forced) - 1],
        }
    }

    /// Makes every kernel of this process use one set from now on; `None` goes back to the richest.
    ///
    /// Vectors of two sets differ in their last bits, so a program chooses before its first engine.
    ///
    /// # Errors
    /// [`IsaUnavailable`] if this machine does not have it; the choice is left as it was.
    pub fn force(isa: Option<Isa>) -> Result<(), IsaUnavailable> {
        match isa {
            Some(isa) if !isa.is_available() => Err(IsaUnavailable(isa)),
            Some(isa) => {
                FORCED.store(isa as u8 + 1, Ordering::Relaxed);
                Ok(())
            }
            None => {
                FORCED.store(0, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}

/// Zero, or one more than the forced set.
static FORCED: AtomicU8 = AtomicU8::new(0);

/// A set of instructions that this machine does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IsaUnavailable(pub Isa);

impl fmt::Display for IsaUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let there: Vec<&str> = Isa::available().map(Isa::name).collect();
        write!(f, "this machine has no {}; it has {}", self.0, there.join(", "))
    }
}

impl std::error::Error for IsaUnavailable {}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Isa::ALL.into_iter().find(|isa| isa.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Isa::ALL.into_iter().map(Isa::name).collect();
            format!("unknown instructions `{text}`: expected one of {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_refused() {
        for isa in Isa::ALL {
            assert_eq!(isa.name().parse(), Ok(isa));
        }
        assert!("sse2".parse::<Isa>().unwrap_err().contains("portable"));
    }

    #[test]
    fn what_the_machine_lacks_cannot_be_forced() {
        assert!(Isa::available().any(|isa| isa == Isa::Portable));
        for isa in Isa::ALL.into_iter().filter(|isa| !isa.is_available()) {
            assert_eq!(Isa::force(Some(isa)), Err(IsaUnavailable(isa)));
        }
    }
}
