//! Which instructions are the fastest on this processor: a short timing of products and of a convolution, and the choice that
//! follows from its times.
//!
//! The processor's flags do not say it: what a path is worth differs from maker to maker, and a hypervisor may hide the best
//! one. Nothing here touches a file: whoever keeps a choice reads it back and hands it to an engine.

use std::mem::MaybeUninit;
use std::time::Instant;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::cpu::Isa;
use crate::cpu::conv::{Bottleneck, Dense, Depthwise, Maps, Spare, Window};
use crate::cpu::linear::{Epilogue, Out, Rows, linear};
use crate::cpu::pack::{ColumnOrder, Packed, PanelFormat, PanelLayout};

/// How many times as fast a richer set must be to be chosen in place of a plainer one: noise of a few percent turns no
/// choice, and what is chosen is within these five percent of the fastest.
const MARGIN: f64 = 1.05;
/// A set that takes so many times as long as the fastest in the first round is timed no further.
const HOPELESS: f64 = 3.0;
/// Interleaved rounds after the first one; the best of them counts.
const ROUNDS: usize = 5;
/// Rows of a query.
const FEW: usize = 16;
/// Rows of a chunk: more are cut into such.
const MANY: usize = 192;
/// Rows of the matrix: those of a feed-forward of the model that ships.
const INPUTS: usize = 384;
/// Columns of the matrix.
const OUTPUTS: usize = 1536;

/// A kernel that is timed. Which one a product takes follows from the type it is computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimedKernel {
    /// A product of 16 rows with a matrix of 384 x 1536, in f32.
    F32Few,
    /// The same in bf16.
    Bf16Few,
    /// The same in int8.
    Int8Few,
    /// A product of 192 rows with a matrix of 384 x 1536, in f32.
    F32Many,
    /// The same in bf16.
    Bf16Many,
    /// The same in int8.
    Int8Many,
    /// An inverted bottleneck of 24 channels, six times as wide inside, over 28 x 28 cells, in f32.
    Convolution,
}

impl TimedKernel {
    /// Every kernel, in the order of a round; the first three decide what takes part in the others.
    pub const ALL: [TimedKernel; 7] = [
        TimedKernel::F32Few,
        TimedKernel::Bf16Few,
        TimedKernel::Int8Few,
        TimedKernel::F32Many,
        TimedKernel::Bf16Many,
        TimedKernel::Int8Many,
        TimedKernel::Convolution,
    ];

    /// Whether two sets run the same code here, as far as a choice goes: those with vectors of 512 bits differ in products of
    /// bf16, and AMX in those of int8 too. (Products of bytes that AVX512-BF16 brings with it are left out: they are the
    /// faster ones, and beside them slow pairs of bf16 would be chosen.)
    pub fn same_code(self, one: Isa, other: Isa) -> bool {
        let code = |isa| match (self, isa) {
            (TimedKernel::Bf16Few | TimedKernel::Bf16Many, isa) => isa,
            (TimedKernel::Int8Few | TimedKernel::Int8Many, Isa::Amx) => Isa::Amx,
            (_, Isa::Avx512Bf16 | Isa::Amx) => Isa::Avx512,
            (_, isa) => isa,
        };
        code(one) == code(other)
    }
}

/// How long a kernel took with a set of instructions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelTime {
    /// The set.
    pub isa: Isa,
    /// The kernel.
    pub kernel: TimedKernel,
    /// The best of several runs, above zero.
    pub seconds: f64,
}

/// The set to compute with, by times that were taken in one run: beginning with the plainest, a richer one takes its place
/// where it is at least 1.05 times as fast, in the geometric mean over the kernels whose code differs. A set that was not
/// timed in every kernel is no candidate. `None` without times.
pub fn fastest_isa(times: &[KernelTime]) -> Option<Isa> {
    let kernels = || TimedKernel::ALL.into_iter().filter(|kernel| times.iter().any(|time| time.kernel == *kernel));
    let candidates = Isa::ALL.into_iter().filter(|isa| times.iter().any(|time| time.isa == *isa));
    let mut complete = candidates.filter(|&isa| kernels().all(|kernel| best(times, isa, kernel).is_some()));
    let mut chosen = complete.next()?;
    for next in complete {
        let pair = |kernel| Some((best(times, chosen, kernel)? / best(times, next, kernel)?).ln());
        let gains: Vec<f64> = kernels().filter(|kernel| !kernel.same_code(chosen, next)).filter_map(pair).collect();
        if gains.iter().sum::<f64>() >= gains.len() as f64 * MARGIN.ln() && !gains.is_empty() {
            chosen = next;
        }
    }
    Some(chosen)
}

/// The best time of a kernel with a set, or with one that runs the same code.
fn best(times: &[KernelTime], isa: Isa, kernel: TimedKernel) -> Option<f64> {
    let same = times.iter().filter(|time| time.kernel == kernel && kernel.same_code(time.isa, isa));
    same.map(|time| time.seconds).reduce(f64::min)
}

/// A processor as far as a choice depends on it, and the version whose kernels were timed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Processor {
    /// What the processor calls itself, else its architecture.
    pub name: String,
    /// The sets that this process may use, plainest first.
    pub sets: Vec<Isa>,
    /// Threads that this process may run at once.
    pub threads: usize,
    /// Version of this library.
    pub version: String,
}

impl Processor {
    /// The one that this process runs on.
    pub fn here() -> Self {
        Self {
            name: processor_name(),
            sets: Isa::available().collect(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// Whether there is anything to choose: at least two sets besides the portable one, which was nowhere faster than another.
    pub fn has_choice(&self) -> bool {
        self.sets.iter().filter(|isa| **isa != Isa::Portable).count() > 1
    }
}

fn processor_name() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::__cpuid;
        // Leaves 0x80000002 to 0x80000004: 48 letters.
        if __cpuid(0x8000_0000).eax >= 0x8000_0004 {
            let leaves = [0x8000_0002, 0x8000_0003, 0x8000_0004].map(__cpuid);
            let registers = leaves.into_iter().flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]);
            let letters: Vec<u8> = registers.flat_map(u32::to_le_bytes).take_while(|letter| *letter != 0).collect();
            let name = String::from_utf8_lossy(&letters).split_whitespace().collect::<Vec<_>>().join(" ");
            if !name.is_empty() {
                return name;
            }
        }
    }
    let architectures = [
        ("x86_64", cfg!(target_arch = "x86_64")),
        ("aarch64", cfg!(target_arch = "aarch64")),
        ("wasm32", cfg!(target_arch = "wasm32")),
    ];
    architectures.into_iter().find(|(_, here)| *here).map_or("another processor", |(name, _)| name).into()
}

/// A set of instructions chosen by measurement, as plain data to be kept: with it come the times it follows from and the
/// processor they were taken on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelChoice {
    /// The set.
    pub isa: Isa,
    /// Where it was measured.
    pub processor: Processor,
    /// What it was chosen by.
    pub times: Vec<KernelTime>,
}

impl KernelChoice {
    /// Times every set of this processor on `threads` threads, one a core if `None`, and chooses. With AVX2 it takes 60 ms of
    /// processor time in all, because nothing but AVX2 is left after the first round; with all sets up to AMX
    /// 21 ms on two threads. What else the machine does meanwhile goes into the times.
    pub fn measure(threads: Option<usize>) -> Self {
        let processor = Processor::here();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(processor.threads)).build();
        let mut bench = Bench::new();
        let sets = &processor.sets;
        let mut run = |isa, kernel| bench.run(isa, kernel);
        let times = match pool {
            Ok(pool) => pool.install(|| rounds(sets, &mut run)),
            // Without a pool of its own the global one serves.
            Err(_) => rounds(sets, &mut run),
        };
        let isa = fastest_isa(&times).expect("the portable set was timed");
        Self { isa, processor, times }
    }

    /// Whether it was made on `processor` by this version, and follows from its own times.
    pub fn holds_on(&self, processor: &Processor) -> bool {
        let sane = |time: &KernelTime| time.seconds.is_finite() && time.seconds > 0.0;
        self.processor == *processor
            && processor.sets.contains(&self.isa)
            && self.times.iter().all(sane)
            && fastest_isa(&self.times) == Some(self.isa)
    }
}

/// The times of every set, by a function that runs a kernel once and says how many seconds it took.
///
/// All sets run the products of few rows first; what is hopeless there is out. The others run all kernels whose code differs
/// among them, in turns, so that a slow moment of the machine hits each alike. Of sets that run the same code one is timed.
fn rounds(sets: &[Isa], run: &mut (dyn FnMut(Isa, TimedKernel) -> f64 + Send)) -> Vec<KernelTime> {
    let mut times: Vec<KernelTime> = Vec::new();
    let mut take = |isa, kernel, times: &mut Vec<KernelTime>| {
        let seconds = run(isa, kernel);
        match times.iter_mut().find(|time| (time.isa, time.kernel) == (isa, kernel)) {
            Some(time) => time.seconds = time.seconds.min(seconds),
            None => times.push(KernelTime { isa, kernel, seconds }),
        }
    };
    let first = &TimedKernel::ALL[..3];
    for &kernel in first {
        for isa in distinct(sets, kernel) {
            // The first run finds caches cold and memory fresh.
            take(isa, kernel, &mut times);
            take(isa, kernel, &mut times);
        }
    }
    let hopeless = |isa| {
        first.iter().any(|&kernel| {
            let least = sets.iter().filter_map(|&other| best(&times, other, kernel)).reduce(f64::min);
            best(&times, isa, kernel) > least.map(|least| HOPELESS * least)
        })
    };
    let left: Vec<Isa> = sets.iter().copied().filter(|&isa| !hopeless(isa)).collect();
    for _ in 0..ROUNDS {
        for kernel in TimedKernel::ALL {
            let distinct = distinct(&left, kernel);
            if distinct.len() > 1 {
                distinct.into_iter().for_each(|isa| take(isa, kernel, &mut times));
            }
        }
    }
    times
}

/// Sets without those that run the code of a plainer one.
fn distinct(sets: &[Isa], kernel: TimedKernel) -> Vec<Isa> {
    let plainer = |isa: Isa| sets.iter().any(|&other| other < isa && kernel.same_code(other, isa));
    sets.iter().copied().filter(|&isa| !plainer(isa)).collect()
}

/// What the kernels work on.
struct Bench {
    rows: Vec<f32>,
    f32: Packed,
    bf16: Packed,
    int8: Packed,
    out: Vec<MaybeUninit<f32>>,
    block: Bottleneck,
    maps: Maps,
    spare: Spare,
}

impl Bench {
    fn new() -> Self {
        let noise = |count: usize| -> Vec<f32> {
            let value = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0;
            (0..count).map(value).collect()
        };
        let layout = |format| PanelLayout::new(format, INPUTS, OUTPUTS, ColumnOrder::Plain);
        let matrix = noise(INPUTS * OUTPUTS);
        let codes: Vec<i8> = matrix.iter().map(|value| (value * 127.0) as i8).collect();
        let [channels, wide, side] = [24, 144, 28];
        let dense =
            |outputs: usize, inputs: usize| Dense::new(&noise(outputs * inputs), &noise(outputs), [outputs, inputs, 1]);
        let window = Window { kernel: 3, stride: 1 };
        Self {
            rows: noise(MANY * INPUTS),
            f32: Packed::from_f32(layout(PanelFormat::F32), &matrix),
            bf16: Packed::from_f32(layout(PanelFormat::Bf16), &matrix),
            int8: Packed::from_codes(layout(PanelFormat::Int8), &codes, vec![1.0 / 127.0; OUTPUTS]),
            out: vec![MaybeUninit::uninit(); MANY * OUTPUTS],
            block: Bottleneck {
                expand: Some(dense(wide, channels)),
                depthwise: Depthwise::new(&noise(wide * 9), &noise(wide), wide, window),
                project: dense(channels, wide),
                residual: true,
            },
            maps: Maps::from_planes(&noise(channels * side * side), [1, channels, side, side]),
            spare: Spare::default(),
        }
    }

    fn run(&mut self, isa: Isa, kernel: TimedKernel) -> f64 {
        let (weight, low, rows) = match kernel {
            TimedKernel::F32Few => (&self.f32, false, FEW),
            TimedKernel::Bf16Few => (&self.bf16, true, FEW),
            TimedKernel::Int8Few => (&self.int8, true, FEW),
            TimedKernel::F32Many => (&self.f32, false, MANY),
            TimedKernel::Bf16Many => (&self.bf16, true, MANY),
            TimedKernel::Int8Many => (&self.int8, true, MANY),
            TimedKernel::Convolution => {
                let maps = self.maps.clone();
                let started = Instant::now();
                let result = self.block.forward(isa, maps, &self.spare);
                let took = started.elapsed();
                drop(result);
                return took.as_secs_f64();
            }
        };
        let (x, out) = (Rows::F32(&self.rows[..rows * INPUTS]), &mut self.out[..rows * OUTPUTS]);
        let started = Instant::now();
        linear(isa, x, rows, weight, low, Epilogue::default(), Out::F32(out));
        started.elapsed().as_secs_f64()
    }
}

/// By its name.
impl Serialize for Isa {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Isa {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMX: [Isa; 5] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx];

    /// Times of one kernel, by what it computes a second.
    fn rates(kernel: TimedKernel, rates: &[(Isa, f64)]) -> Vec<KernelTime> {
        rates.iter().map(|&(isa, rate)| KernelTime { isa, kernel, seconds: 1.0 / rate }).collect()
    }

    #[test]
    fn an_intel_processor_takes_amx_and_without_it_avx512_but_never_bf16_pairs() {
        // GFLOP/s of 16 texts of the model that ships, in bf16.
        let all = [(Isa::Avx512, 100.0), (Isa::Avx512Bf16, 62.0), (Isa::Amx, 303.0)];
        assert_eq!(fastest_isa(&rates(TimedKernel::Bf16Many, &all)), Some(Isa::Amx));
        assert_eq!(fastest_isa(&rates(TimedKernel::Bf16Many, &all[..2])), Some(Isa::Avx512));
        // Kernels whose code is the same do not water the difference down.
        let mut times = rates(TimedKernel::Bf16Many, &all[..2]);
        for kernel in TimedKernel::ALL.into_iter().filter(|kernel| *kernel != TimedKernel::Bf16Many) {
            times.extend(rates(kernel, &[(Isa::Avx512, 100.0), (Isa::Avx512Bf16, 99.0)]));
        }
        assert_eq!(fastest_isa(&times), Some(Isa::Avx512));
    }

    #[test]
    fn an_amd_processor_takes_bf16_pairs() {
        // Milliseconds of 2048 rows by 1024 x 6144 a core: 440 GFLOP/s in bf16, 228 in f32.
        let times = rates(TimedKernel::Bf16Many, &[(Isa::Avx512, 228.0), (Isa::Avx512Bf16, 440.0)]);
        assert_eq!(fastest_isa(&times), Some(Isa::Avx512Bf16));
    }

    #[test]
    fn a_richer_set_wins_by_a_margin_or_not_at_all() {
        let of = |rich: f64| fastest_isa(&rates(TimedKernel::F32Many, &[(Isa::Avx2, 100.0), (Isa::Avx512, rich)]));
        assert_eq!([of(100.0), of(104.9), of(105.1)], [Some(Isa::Avx2), Some(Isa::Avx2), Some(Isa::Avx512)]);
        // Whatever the times, nothing is more than the margin faster than what is chosen.
        let mut seed = 1_u32;
        for _ in 0..2_000 {
            let times = rates(
                TimedKernel::Bf16Many,
                &AMX.map(|isa| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (isa, 90.0 + f64::from(seed >> 16) / 2_000.0)
                }),
            );
            let chosen = fastest_isa(&times).unwrap();
            let of = |isa| best(&times, isa, TimedKernel::Bf16Many).unwrap();
            assert!(AMX.into_iter().all(|isa| of(chosen) <= of(isa) * MARGIN), "{chosen} of {times:?}");
        }
    }

    #[test]
    fn what_was_not_timed_to_the_end_is_not_chosen_and_nothing_is_chosen_of_nothing() {
        let mut times = rates(TimedKernel::F32Few, &[(Isa::Avx2, 100.0), (Isa::Portable, 900.0)]);
        times.extend(rates(TimedKernel::F32Many, &[(Isa::Avx2, 100.0)]));
        assert_eq!(fastest_isa(&times), Some(Isa::Avx2));
        assert_eq!(fastest_isa(&[]), None);
    }

    /// Seconds of a made-up processor: what is faster by so many times, and the noise of the machine on top.
    fn times_of(sets: &[Isa], mut run: impl FnMut(Isa, TimedKernel) -> f64 + Send) -> (Vec<KernelTime>, usize) {
        let mut runs = 0;
        let times = rounds(sets, &mut |isa, kernel| {
            runs += 1;
            run(isa, kernel)
        });
        (times, runs)
    }

    #[test]
    fn rounds_time_what_may_win_and_a_slow_moment_changes_nothing() {
        let speed = |isa, kernel| match (isa, kernel) {
            (Isa::Portable, _) => 8.0,
            (Isa::Avx2, TimedKernel::Int8Few | TimedKernel::Int8Many) => 5.0,
            (Isa::Avx2, _) => 1.6,
            (Isa::Avx512Bf16, TimedKernel::Bf16Few | TimedKernel::Bf16Many) => 1.6,
            (Isa::Amx, TimedKernel::Bf16Many) => 0.33,
            _ => 1.0,
        };
        for slow in 0..40 {
            let mut count = 0;
            let (times, runs) = times_of(&AMX, |isa, kernel| {
                count += 1;
                speed(isa, kernel) * if count % 40 == slow { 3.0 } else { 1.0 }
            });
            assert_eq!(fastest_isa(&times), Some(Isa::Amx), "{times:?}");
            // Two runs of 3 + 5 + 4 first ones, five rounds of three sets in two kernels and of two in two others.
            assert_eq!(runs, 24 + 50);
            let (times, _) = times_of(&AMX[..4], speed);
            assert_eq!(fastest_isa(&times), Some(Isa::Avx512), "{times:?}");
        }
        // Nothing is left to be timed where one set is far ahead.
        let (times, runs) = times_of(&AMX[..2], |isa, _| if isa == Isa::Portable { 8.0 } else { 1.0 });
        assert_eq!((fastest_isa(&times), runs), (Some(Isa::Avx2), 12));
    }

    #[test]
    fn this_processor_is_measured_and_its_choice_reads_back() {
        let begun = Instant::now();
        let choice = KernelChoice::measure(None);
        println!("{:.1} ms: {choice:#?}", begun.elapsed().as_secs_f64() * 1e3);
        let here = Processor::here();
        assert!(choice.holds_on(&here) && choice.isa.is_available(), "{choice:?}");
        let text = serde_json::to_string(&choice).unwrap();
        assert_eq!(serde_json::from_str::<KernelChoice>(&text).unwrap(), choice, "{text}");
        assert!(text.starts_with(&format!("{{\"isa\":\"{}\",\"processor\":{{\"name\":", choice.isa)), "{text}");
        for wrong in ["\"isa\":\"sse2\"", "\"more\":1,\"isa\":\"portable\""] {
            let wrong = text.replacen(&format!("\"isa\":\"{}\"", choice.isa), wrong, 1);
            assert!(serde_json::from_str::<KernelChoice>(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_choice_of_another_processor_or_version_or_against_its_times_does_not_hold() {
        let times = rates(TimedKernel::F32Many, &[(Isa::Portable, 1.0)]);
        let choice = KernelChoice { isa: Isa::Portable, processor: Processor::here(), times };
        let here = Processor::here();
        assert!(choice.holds_on(&here));
        let others = [
            Processor { name: "another".into(), ..here.clone() },
            Processor { threads: here.threads + 1, ..here.clone() },
            Processor { version: "0.0.0".into(), ..here.clone() },
            Processor { sets: vec![Isa::Portable], ..here.clone() },
        ];
        assert!(others.iter().all(|other| *other == here || !choice.holds_on(other)));
        let wrong = [
            KernelChoice { times: Vec::new(), ..choice.clone() },
            KernelChoice { times: rates(TimedKernel::F32Many, &[(Isa::Portable, -1.0)]), ..choice.clone() },
            KernelChoice {
                times: rates(TimedKernel::F32Many, &[(Isa::Portable, 1.0), (Isa::Avx2, 9.0)]),
                ..choice.clone()
            },
        ];
        assert!(wrong.iter().all(|choice| !choice.holds_on(&here)), "{wrong:?}");
    }
}
