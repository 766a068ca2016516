//! Records whose retrieval figures were measured in several types, and the type that is the fastest among the good ones.
//!
//! A type is a matter of the record (how far its figures move) and of the processor's instructions (how long it takes), and both
//! were measured beforehand: `benches/LEDGER.md` has the rows. Nothing here is timed, so the type does not change from run to
//! run.

use omniburn_kernels::Isa;

use crate::record::Dtype;

/// How far a figure may move, in points of a hundred, for a type to be used unasked.
pub const MOST_POINTS: f64 = 0.5;

/// How many times as fast as f32 a type must be to be used unasked.
const MARGIN: f64 = 1.05;

/// A record with what was measured of it.
#[derive(Debug, Clone, Copy)]
pub struct Evaluated {
    /// Digest of its header.
    pub digest: &'static str,
    /// Types, and the largest move of a figure of retrieval against f32, in points of a hundred.
    pub points: &'static [(Dtype, f64)],
    /// Times of one case with one set of instructions.
    pub times: &'static [TypeTime],
}

/// How long a case took in a type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TypeTime {
    /// The instructions.
    pub isa: Isa,
    /// The case, as `omniburn bench` calls it.
    pub case: &'static str,
    /// The type that products were computed in.
    pub dtype: Dtype,
    /// Milliseconds.
    pub ms: f64,
}

const fn time(isa: Isa, case: &'static str, dtype: Dtype, ms: f64) -> TypeTime {
    TypeTime { isa, case, dtype, ms }
}

/// Every record that was evaluated.
pub const EVALUATED: &[Evaluated] = &[Evaluated {
    // The model that ships.
    digest: "32ce5afbed1a8a21d67d51ada1586831916baee1234ce2713cde7bc14b61bfc1",
    // Of 51 figures; left out is R@1 of human speech, 65 clips, where one clip is 1.5 points, and bf16 turned one.
    points: &[(Dtype::F32, 0.0), (Dtype::Int8, 0.28), (Dtype::Bf16, 0.33)],
    times: &[
        // Intel with AMX.
        time(Isa::Amx, "text:16x128", Dtype::F32, 334.0),
        time(Isa::Amx, "text:16x128", Dtype::Bf16, 157.0),
        // AMD EPYC with AVX512-BF16, two cores.
        time(Isa::Avx512Bf16, "text:1x16", Dtype::F32, 1.22),
        time(Isa::Avx512Bf16, "text:1x16", Dtype::Bf16, 0.72),
        time(Isa::Avx512Bf16, "text:1x16", Dtype::Int8, 0.77),
        time(Isa::Avx512Bf16, "text:16x128", Dtype::F32, 114.0),
        time(Isa::Avx512Bf16, "text:16x128", Dtype::Bf16, 68.3),
        time(Isa::Avx512Bf16, "text:16x128", Dtype::Int8, 76.0),
    ],
}];

/// The type that products of a record are computed in on a CPU unless another is asked for; `None` where nothing was
/// measured of it, or not with these instructions.
pub fn fastest_type(digest: &str, isa: Isa) -> Option<Dtype> {
    let found = EVALUATED.iter().find(|found| found.digest == digest)?;
    let times: Vec<TypeTime> = found.times.iter().copied().filter(|time| time.isa == isa).collect();
    fastest(&times, found.points)
}

/// The fastest of the types whose figures move by no more than [`MOST_POINTS`], by their times with one set of instructions:
/// f32, unless another is at least 1.05 times as fast in the geometric mean over the cases that both were timed in. `None`
/// without times.
pub fn fastest(times: &[TypeTime], points: &[(Dtype, f64)]) -> Option<Dtype> {
    let ms = |case: &str, dtype| times.iter().find(|time| (time.case, time.dtype) == (case, dtype)).map(|time| time.ms);
    let gain = |dtype: Dtype| {
        let timed = times.iter().filter(|time| time.dtype == dtype);
        let gains: Vec<f64> = timed.filter_map(|time| Some((ms(time.case, Dtype::F32)? / time.ms).ln())).collect();
        (!gains.is_empty()).then(|| (gains.iter().sum::<f64>() / gains.len() as f64).exp())
    };
    let good = points.iter().filter(|(dtype, points)| *dtype != Dtype::F32 && *points <= MOST_POINTS);
    let gains = good.filter_map(|&(dtype, _)| Some((dtype, gain(dtype)?)));
    let best = gains.filter(|(_, gain)| *gain >= MARGIN).max_by(|one, other| one.1.total_cmp(&other.1));
    (!times.is_empty()).then(|| best.map_or(Dtype::F32, |(dtype, _)| dtype))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINTS: [(Dtype, f64); 3] = [(Dtype::F32, 0.0), (Dtype::Int8, 0.28), (Dtype::Bf16, 0.33)];

    fn times(ms: &[(Dtype, f64)]) -> Vec<TypeTime> {
        ms.iter().map(|&(dtype, ms)| time(Isa::Avx2, "a case", dtype, ms)).collect()
    }

    #[test]
    fn the_fastest_type_of_those_whose_figures_hold_is_used() {
        let of = |ms: &[(Dtype, f64)], points: &[(Dtype, f64)]| fastest(&times(ms), points);
        let all = [(Dtype::F32, 334.0), (Dtype::Bf16, 157.0), (Dtype::Int8, 140.0)];
        assert_eq!(of(&all, &POINTS), Some(Dtype::Int8));
        assert_eq!(of(&all[..2], &POINTS), Some(Dtype::Bf16));
        // Too far from f32, or never measured.
        assert_eq!(of(&all, &[POINTS[0], (Dtype::Int8, 0.51), POINTS[2]]), Some(Dtype::Bf16));
        assert_eq!(of(&all, &POINTS[..1]), Some(Dtype::F32));
        // Not faster by the margin, slower, not timed, nothing timed.
        assert_eq!(of(&[(Dtype::F32, 100.0), (Dtype::Bf16, 96.0)], &POINTS), Some(Dtype::F32));
        assert_eq!(of(&[(Dtype::F32, 100.0), (Dtype::Bf16, 120.0)], &POINTS), Some(Dtype::F32));
        assert_eq!(of(&[(Dtype::F32, 100.0)], &POINTS), Some(Dtype::F32));
        assert_eq!(of(&[(Dtype::Bf16, 100.0)], &POINTS), Some(Dtype::F32));
        assert_eq!(of(&[], &POINTS), None);
    }

    #[test]
    fn what_shipped_was_evaluated_and_its_types_follow_from_the_times() {
        let [found] = EVALUATED else { panic!("one record") };
        let of = |isa| fastest_type(found.digest, isa);
        assert_eq!((of(Isa::Amx), of(Isa::Avx512Bf16)), (Some(Dtype::Bf16), Some(Dtype::Bf16)));
        assert_eq!((of(Isa::Portable), fastest_type("another", Isa::Amx)), (None, None));
        assert!(found.times.iter().all(|time| time.ms > 0.0));
    }

    #[test]
    #[cfg(feature = "mini")]
    fn the_record_that_ships_is_the_one_that_was_evaluated() {
        let record = crate::record::RecordFolder::inside(crate::shipped::MINI).unwrap();
        // Figures of another record are not known: `cargo xtask eval-mini --dtype` measures them.
        assert_eq!(record.header().digest, EVALUATED[0].digest);
    }
}
