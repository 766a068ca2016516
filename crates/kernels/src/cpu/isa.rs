//! Which instructions the kernels use: named by the processor, chosen by an engine, or forced where paths are compared.

use std::cell::Cell;
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
    /// Tiles of bf16, and of int8 where there are such (AMX), beside everything of [`Isa::Avx512Bf16`].
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

    /// The set that the processor's flags alone name: the richest this machine has. Products of bf16 pairs
    /// ([`Isa::Avx512Bf16`]) count only where they are known to be fast, which they are not on Intel's processors: 16 texts of
    /// the model that ships, in bf16, ran at 62 GFLOP/s with them, at 100 with [`Isa::Avx512`], at 303 with [`Isa::Amx`], and
    /// a hypervisor may hide the last. A measured choice ([`Isa::choose_for_thread`]) knows better.
    pub fn by_flags() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| richest(&Isa::available().collect::<Vec<_>>(), is_intel))
    }

    /// The set that kernels started by this thread use now: what [`Isa::force`] said, else what
    /// [`Isa::choose_for_thread`] did, else [`Isa::by_flags`].
    pub fn current() -> Isa {
        Isa::resolved(CHOSEN.get())
    }

    /// As [`Isa::current`], on a thread with the choice `chosen`.
    pub fn resolved(chosen: Option<Isa>) -> Isa {
        Isa::forced().or(chosen).unwrap_or_else(Isa::by_flags)
    }

    /// What [`Isa::force`] said last.
    pub fn forced() -> Option<Isa> {
        match FORCED.load(Ordering::Relaxed) {
            0 => None,
            forced => Some(Isa::ALL[usize::from(forced) - 1]),
        }
    }

    /// Makes the kernels that this thread starts use one set from now on, on whichever threads they run; `None` goes back to
    /// [`Isa::by_flags`]. A forced set wins. An engine says so once, on the thread of its device, so that two engines of one
    /// process may differ.
    ///
    /// # Errors
    /// [`IsaUnavailable`] if this machine does not have it; the choice is left as it was.
    pub fn choose_for_thread(isa: Option<Isa>) -> Result<(), IsaUnavailable> {
        match isa.filter(|isa| !isa.is_available()) {
            Some(isa) => Err(IsaUnavailable(isa)),
            None => {
                CHOSEN.set(isa);
                Ok(())
            }
        }
    }

    /// Makes every kernel of this process use one set from now on, whatever was chosen; `None` goes back to the choices.
    ///
    /// Vectors of two sets differ in their last bits, so a program forces one before its first engine.
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

thread_local! {
    /// What kernels that this thread starts were chosen to use.
    static CHOSEN: Cell<Option<Isa>> = const { Cell::new(None) };
}

/// The richest of the sets that are there, plainest first; products of bf16 pairs do not count on Intel's processors.
fn richest(available: &[Isa], intel: fn() -> bool) -> Isa {
    match available.last() {
        Some(Isa::Avx512Bf16) if intel() => Isa::Avx512,
        Some(&isa) => isa,
        None => Isa::Portable,
    }
}

/// Whether the processor is of Intel's make.
fn is_intel() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let leaf = std::arch::x86_64::__cpuid(0);
        [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel"
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

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

    #[test]
    fn flags_name_the_richest_set_but_for_bf16_pairs_of_intel() {
        let all = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx];
        let named = |count: usize, intel| richest(&all[..count], if intel { || true } else { || false });
        assert_eq!((named(5, true), named(5, false)), (Isa::Amx, Isa::Amx));
        assert_eq!((named(4, true), named(4, false)), (Isa::Avx512, Isa::Avx512Bf16));
        for count in 1..=3 {
            assert_eq!((named(count, true), named(count, false)), (all[count - 1], all[count - 1]));
        }
        assert!(Isa::by_flags().is_available());
    }

    #[test]
    fn a_choice_is_its_threads_own_and_one_that_is_not_there_is_refused() {
        let on_a_thread = |isa| {
            std::thread::spawn(move || (Isa::choose_for_thread(isa), CHOSEN.get(), Isa::resolved(CHOSEN.get())))
                .join()
                .unwrap()
        };
        for isa in Isa::ALL {
            match isa.is_available() {
                true => assert_eq!(on_a_thread(Some(isa)), (Ok(()), Some(isa), isa)),
                false => assert_eq!(on_a_thread(Some(isa)), (Err(IsaUnavailable(isa)), None, Isa::by_flags())),
            }
        }
        assert_eq!((CHOSEN.get(), on_a_thread(None)), (None, (Ok(()), None, Isa::by_flags())));
    }
}
