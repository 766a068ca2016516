//! Mono samples into log-mel frames, as the published feature extractor computes them.
//!
//! What lives here: the window, the power spectrum, the mel filters and the logarithm. What does not: decoding and
//! resampling, and the batches and masks of the tower.

use multiversion::multiversion;
use realfft::RealFftPlanner;

use crate::error::MediaError;

/// Frames that the tower needs to give one pooled row.
pub(crate) const LEAST_FRAMES: usize = 3;

/// Numbers of the mel transform.
///
/// The published checkpoints use 16,000 Hz, windows of 400 samples, steps of 160 and 128 bands.
#[derive(Clone, Debug, PartialEq)]
pub struct MelPreprocess {
    /// Rate the model listens at, in hertz.
    pub sample_rate_hz: u32,
    /// Samples of one transform window.
    pub fft_samples: u32,
    /// Samples between windows.
    pub hop_samples: u32,
    /// Mel bands.
    pub mels: u32,
}

/// Log-mel frames.
#[derive(Clone, Debug, PartialEq)]
pub struct LogMel {
    values: Vec<f32>,
    mels: usize,
}

impl LogMel {
    /// Four looks at a longer clip, of so many frames each and one behind the other: all of it, drawn together in time, and the middle of
    /// each third of the places where so many frames may begin.
    ///
    /// # Shapes
    /// - returns: `[4 * frames, mels]`
    /// # Numerics
    /// f32: every frame of the first look lies between two.
    /// # Source
    /// transformers 5.23, `ClapFeatureExtractor._random_mel_fusion`, which takes places by chance; torch 2.15, `interpolate` with
    /// `mode="bilinear"` and `align_corners=False`.
    /// # Panics
    /// If there are fewer frames, or none are asked for.
    #[must_use]
    pub fn four_looks(&self, frames: usize) -> LogMel {
        let (mels, all) = (self.mels, self.frames());
        assert!((1..=all).contains(&frames), "{frames} of {all} frames");
        let step = all as f32 / frames as f32;
        let mut values = Vec::with_capacity(4 * frames * mels);
        for at in 0..frames {
            let place = (step * (at as f32 + 0.5) - 0.5).max(0.0);
            let first = (place as usize).min(all - 1);
            let share = place - first as f32;
            let row = |frame: usize| &self.values[frame * mels..(frame + 1) * mels];
            let next = row((first + 1).min(all - 1));
            values.extend(row(first).iter().zip(next).map(|(a, b)| (1.0 - share) * a + share * b));
        }
        let (mut begin, places) = (0, all - frames + 1);
        for third in 0..3 {
            let count = places / 3 + usize::from(third < places % 3);
            let start = if count == 0 { 0 } else { begin + count / 2 };
            begin += count;
            values.extend_from_slice(&self.values[start * mels..(start + frames) * mels]);
        }
        LogMel { values, mels }
    }

    /// The values: `[frames, mels]`, rows packed.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Number of frames.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.values.len() / self.mels
    }

    /// Mel bands.
    #[must_use]
    pub fn mels(&self) -> usize {
        self.mels
    }
}

/// Log-mel frames of a clip: `ceil(samples / hop)` of them.
///
/// # Shapes
/// - `samples`: `[samples]`, mono, at [`MelPreprocess::sample_rate_hz`]
/// - returns: `[frames, mels]`
/// # Numerics
/// All of it in f64, rounded once at the end. The window is the periodic Hann; windows are centred on multiples of the
/// hop, the clip is mirrored before its start and followed by zeros, whatever its length. Filters are Slaney's from 0 Hz
/// to half the rate, each with area one. Then `log10(max(power, 1e-10))`, not below the largest value less 8, and
/// `(x + 4) / 4`. The largest value is looked for in every window that touches the clip: one or two of them lie past the
/// last frame that is returned, and they count, because the extractor crops only after that step.
/// # Errors
/// [`MediaError::SampleNotFinite`]; [`MediaError::AudioTooShort`] below three frames; [`MediaError::Preprocess`] for a
/// number in `preprocess` that is zero.
/// # Source
/// transformers 5.23, `WhisperFeatureExtractor` (`feature_size=128`), padded with zeros and cropped by its mask. The
/// extractor cuts a clip at 30 s; here, longer clips follow the same rule with the maximum over the whole clip. It also
/// mirrors a clip of 29.9875 s to 30 s at its end, where its own padding is too short, which is not done here.
pub fn log_mel(samples: &[f32], preprocess: &MelPreprocess) -> Result<LogMel, MediaError> {
    log_mel_of_least(samples, preprocess, LEAST_FRAMES)
}

/// [`log_mel`] of a clip of this many frames or more, for towers that make a row of fewer than three.
///
/// # Shapes
/// As [`log_mel`].
/// # Numerics
/// As [`log_mel`].
/// # Errors
/// As [`log_mel`]; [`MediaError::AudioTooShort`] below `least` frames.
pub fn log_mel_of_least(samples: &[f32], preprocess: &MelPreprocess, least: usize) -> Result<LogMel, MediaError> {
    check(samples, preprocess)?;
    let hop = preprocess.hop_samples as usize;
    let frames = samples.len().div_ceil(hop);
    if frames < least.max(1) {
        return Err(MediaError::AudioTooShort { name: NAME.to_owned(), frames, minimum: least });
    }
    let windows = (samples.len() + preprocess.fft_samples as usize / 2).div_ceil(hop);
    Ok(scaled(
        log_powers(samples, preprocess, &mel_bands(preprocess, HertzRange::SPEECH), windows, false),
        frames,
        preprocess,
    ))
}

/// Log-mel frames of a bare clip: `floor(samples / hop)` of them. It is mirrored behind its end as it is before its start, and
/// the largest value is looked for in the frames that are returned.
///
/// # Shapes
/// As [`log_mel`].
/// # Numerics
/// As [`log_mel`].
/// # Errors
/// As [`log_mel`]; [`MediaError::AudioTooShort`] where half a window cannot be mirrored.
/// # Source
/// transformers 5.23, `WhisperFeatureExtractor` without padding (`padding="do_not_pad"`).
pub fn log_mel_mirrored(samples: &[f32], preprocess: &MelPreprocess) -> Result<LogMel, MediaError> {
    check(samples, preprocess)?;
    let frames = samples.len() / preprocess.hop_samples as usize;
    if samples.len() <= preprocess.fft_samples as usize / 2 || frames == 0 {
        return Err(MediaError::AudioTooShort { name: NAME.to_owned(), frames: 0, minimum: 1 });
    }
    Ok(scaled(
        log_powers(samples, preprocess, &mel_bands(preprocess, HertzRange::SPEECH), frames, true),
        frames,
        preprocess,
    ))
}

/// Decibels of the mel bands of a bare clip: `floor(samples / hop) + 1` frames. It is mirrored before its start and behind its
/// end; bands lie between two frequencies.
///
/// # Shapes
/// - `samples`: `[samples]`, mono, at [`MelPreprocess::sample_rate_hz`]
/// - returns: `[frames, mels]`
/// # Numerics
/// Window and filters as [`log_mel`]; then `10 log10(max(power, 1e-10))`. All of it in f64, rounded once at the end.
/// # Errors
/// [`MediaError::SampleNotFinite`]; [`MediaError::AudioTooShort`] where half a window cannot be mirrored;
/// [`MediaError::Preprocess`] for a number that is zero, or a range that is none.
/// # Source
/// transformers 5.23, `ClapFeatureExtractor._np_extract_fbank_features`: the filters of `truncation="rand_trunc"` are Slaney's, those of
/// `truncation="fusion"` HTK's.
pub fn decibel_mel(samples: &[f32], preprocess: &MelPreprocess, range: HertzRange) -> Result<LogMel, MediaError> {
    check(samples, preprocess)?;
    let HertzRange { lowest, highest, .. } = range;
    if lowest >= highest {
        let expected = "more than the lowest frequency";
        return Err(MediaError::Preprocess { field: "highest_hz", found: highest.to_string(), expected });
    }
    if samples.len() <= preprocess.fft_samples as usize / 2 {
        return Err(MediaError::AudioTooShort { name: NAME.to_owned(), frames: 0, minimum: 1 });
    }
    let frames = samples.len() / preprocess.hop_samples as usize + 1;
    let bands = match range.scale {
        MelScale::Slaney => mel_bands(preprocess, range),
        MelScale::Htk => htk_bands(preprocess, range),
    };
    let powers = log_powers(samples, preprocess, &bands, frames, true);
    let values = powers.iter().map(|value| (10.0 * value) as f32).collect();
    Ok(LogMel { values, mels: preprocess.mels as usize })
}

/// Frequencies between which mel bands lie, in hertz.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HertzRange {
    /// Where the first band begins.
    pub lowest: u32,
    /// Where the last one ends.
    pub highest: u32,
    /// How they lie between both.
    pub scale: MelScale,
}

/// How mel bands lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MelScale {
    /// Triangles of area one on Slaney's scale.
    #[default]
    Slaney,
    /// Triangles of height one on the scale of HTK.
    Htk,
}

impl HertzRange {
    /// That of the published speech models, whatever the rate is.
    const SPEECH: Self = Self { lowest: 0, highest: 8000, scale: MelScale::Slaney };
}

/// What the clip is called in messages.
const NAME: &str = "audio";

/// Refuses numbers of zero, and samples that are none.
fn check(samples: &[f32], preprocess: &MelPreprocess) -> Result<(), MediaError> {
    for (field, value) in [
        ("sample_rate_hz", preprocess.sample_rate_hz),
        ("fft_samples", preprocess.fft_samples),
        ("hop_samples", preprocess.hop_samples),
        ("mels", preprocess.mels),
    ] {
        if value == 0 {
            return Err(MediaError::Preprocess { field, found: "0".to_owned(), expected: "at least 1" });
        }
    }
    if let Some(at) = samples.iter().position(|sample| !sample.is_finite()) {
        let seconds = at as f64 / f64::from(preprocess.sample_rate_hz);
        return Err(MediaError::SampleNotFinite { name: NAME.to_owned(), seconds });
    }
    Ok(())
}

/// The first frames of `log10` powers, brought to the range of the tower by the largest of all.
fn scaled(mut log_power: Vec<f64>, frames: usize, preprocess: &MelPreprocess) -> LogMel {
    let mels = preprocess.mels as usize;
    let largest = log_power.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    log_power.truncate(frames * mels);
    let values = log_power.iter().map(|value| ((value.max(largest - 8.0) + 4.0) / 4.0) as f32).collect();
    LogMel { values, mels }
}

/// `log10` of the mel powers of the first windows of a clip, behind whose end there is its mirror image or silence:
/// `[windows, mels]`.
fn log_powers(samples: &[f32], preprocess: &MelPreprocess, bands: &[Band], windows: usize, mirrored: bool) -> Vec<f64> {
    let fft_samples = preprocess.fft_samples as usize;
    let hop = preprocess.hop_samples as usize;
    let before = fft_samples / 2;
    let window = hann(fft_samples);
    let fft = RealFftPlanner::<f64>::new().plan_fft_forward(fft_samples);
    let mut framed = fft.make_input_vec();
    let mut spectrum = fft.make_output_vec();
    let mut scratch = fft.make_scratch_vec();
    let mut power = vec![0.0; spectrum.len()];
    let mut out = Vec::with_capacity(windows * bands.len());
    for index in 0..windows {
        let start = (index * hop) as isize - before as isize;
        if let Some(inside) = usize::try_from(start).ok().and_then(|s| samples.get(s..s + fft_samples)) {
            for ((to, sample), weight) in framed.iter_mut().zip(inside).zip(&window) {
                *to = f64::from(*sample) * weight;
            }
        } else {
            for (i, (to, weight)) in framed.iter_mut().zip(&window).enumerate() {
                // Before the start the clip runs backwards, without its first sample twice; after the end it is silent, or runs
                // backwards too.
                let mut at = (start + i as isize).unsigned_abs();
                if mirrored && at >= samples.len() {
                    at = (2 * (samples.len() - 1)).saturating_sub(at);
                }
                *to = samples.get(at).map_or(0.0, |sample| f64::from(*sample)) * weight;
            }
        }
        fft.process_with_scratch(&mut framed, &mut spectrum, &mut scratch).expect("the buffers are the plan's own");
        for (to, bin) in power.iter_mut().zip(&spectrum) {
            *to = bin.norm_sqr();
        }
        out.extend(bands.iter().map(|band| {
            let sum: f64 = band.weights.iter().zip(&power[band.first_bin..]).map(|(w, p)| w * p).sum();
            sum.max(1e-10)
        }));
    }
    to_log10(&mut out);
    out
}

/// Positive, normal numbers to their logarithms, several at a time: one after another they were half of all the time.
///
/// # Numerics
/// `x = m * 2^e` with m between the roots of 1/2 and 2, and `ln m = 2 (s + s^3/3 + s^5/5 + …)`, `s = (m - 1) / (m + 1)`, as
/// far as f64 can tell. Within 1e-15 of the logarithm or of its own size, and the same bits on every machine.
#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn to_log10(values: &mut [f64]) {
    const ROOT_OF_HALF: u64 = std::f64::consts::FRAC_1_SQRT_2.to_bits();
    const ONE: u64 = 1.0_f64.to_bits();
    const MANTISSA: u64 = (1 << 52) - 1;
    /// With an integer below 2^52 in its mantissa, a number larger by that integer.
    const TWO_TO_52: f64 = 4_503_599_627_370_496.0;
    for value in values {
        let shifted = value.to_bits().wrapping_add(ONE - ROOT_OF_HALF);
        let e = f64::from_bits(shifted >> 52 | TWO_TO_52.to_bits()) - (TWO_TO_52 + 1023.0);
        let m = f64::from_bits((shifted & MANTISSA) + ROOT_OF_HALF);
        let s = (m - 1.0) / (m + 1.0);
        let z = s * s;
        let mut series = 1.0 / 23.0;
        for n in [21.0, 19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
            series = series * z + 1.0 / n;
        }
        *value = e * std::f64::consts::LOG10_2 + series * s * (2.0 * std::f64::consts::LOG10_E);
    }
}

/// The periodic Hann window.
fn hann(n: usize) -> Vec<f64> {
    (0..n).map(|i| 0.5 - 0.5 * (std::f64::consts::TAU * i as f64 / n as f64).cos()).collect()
}

/// The bins that one mel band adds up.
struct Band {
    first_bin: usize,
    weights: Vec<f64>,
}

/// Triangles of area one between equal steps on Slaney's mel scale.
///
/// # Source
/// transformers 5.23, `audio_utils.mel_filter_bank` with `norm="slaney"` and `mel_scale="slaney"`, and
/// `feature_extraction_whisper.py` for the highest frequency.
fn mel_bands(preprocess: &MelPreprocess, range: HertzRange) -> Vec<Band> {
    let mels = preprocess.mels as usize;
    let (lowest, highest) = (hertz_to_mel(range.lowest.into()), hertz_to_mel(range.highest.into()));
    let edge = |i: usize| mel_to_hertz(lowest + (highest - lowest) * i as f64 / (mels + 1) as f64);
    triangles(preprocess, &(0..mels + 2).map(edge).collect::<Vec<f64>>(), |width| 2.0 / width)
}

/// Triangles of height one between equal steps on the mel scale of HTK.
///
/// # Source
/// transformers 5.23, `audio_utils.mel_filter_bank` with `norm=None` and `mel_scale="htk"`.
fn htk_bands(preprocess: &MelPreprocess, range: HertzRange) -> Vec<Band> {
    let mel = |hertz: u32| 2595.0 * (1.0 + f64::from(hertz) / 700.0).log10();
    let hertz = |mel: f64| 700.0 * (10f64.powf(mel / 2595.0) - 1.0);
    let (mels, lowest, highest) = (preprocess.mels as usize, mel(range.lowest), mel(range.highest));
    let edge = |i: usize| hertz(lowest + (highest - lowest) * i as f64 / (mels + 1) as f64);
    triangles(preprocess, &(0..mels + 2).map(edge).collect::<Vec<f64>>(), |_| 1.0)
}

/// Triangles between every three of these frequencies, times what `height` says of their width.
fn triangles(preprocess: &MelPreprocess, edges: &[f64], height: impl Fn(f64) -> f64) -> Vec<Band> {
    let bins = preprocess.fft_samples as usize / 2 + 1;
    let bin_hz = |bin: usize| f64::from(preprocess.sample_rate_hz) * bin as f64 / f64::from(preprocess.fft_samples);
    edges
        .windows(3)
        .map(|edge| {
            let weight = |bin: usize| {
                let up = (bin_hz(bin) - edge[0]) / (edge[1] - edge[0]);
                let down = (edge[2] - bin_hz(bin)) / (edge[2] - edge[1]);
                up.min(down).max(0.0) * height(edge[2] - edge[0])
            };
            let first_bin = (0..bins).find(|bin| weight(*bin) > 0.0).unwrap_or(bins);
            let weights = (first_bin..bins).map(weight).take_while(|w| *w > 0.0).collect();
            Band { first_bin, weights }
        })
        .collect()
}

/// Slaney's scale: straight below 1 kHz, logarithmic above.
fn hertz_to_mel(hz: f64) -> f64 {
    if hz < 1000.0 { 3.0 * hz / 200.0 } else { 15.0 + (hz / 1000.0).ln() * 27.0 / 6.4f64.ln() }
}

/// The other way round.
fn mel_to_hertz(mel: f64) -> f64 {
    if mel < 15.0 { 200.0 * mel / 3.0 } else { 1000.0 * ((mel - 15.0) * 6.4f64.ln() / 27.0).exp() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHED: MelPreprocess =
        MelPreprocess { sample_rate_hz: 16_000, fft_samples: 400, hop_samples: 160, mels: 128 };

    #[test]
    fn every_published_band_has_at_least_one_bin() {
        for (index, band) in mel_bands(&PUBLISHED, HertzRange::SPEECH).iter().enumerate() {
            assert!(!band.weights.is_empty() && band.weights.iter().all(|w| *w > 0.0), "band {index}");
            assert!(band.first_bin + band.weights.len() <= 201);
        }
    }

    #[test]
    fn logarithms_are_those_of_the_library_within_their_bound() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut numbers: Vec<f64> = (-10..=10).map(|power| 10_f64.powi(power)).collect();
        numbers.extend((0..60).map(|i| 2_f64.powi(i - 30)));
        numbers.extend(std::iter::repeat_with(|| 10_f64.powf(20.0 * random.f64() - 10.0)).take(100_000));
        // Where mantissas wrap, and where logarithms are smallest.
        for middle in [std::f64::consts::FRAC_1_SQRT_2, 1.0, std::f64::consts::SQRT_2] {
            numbers.extend((0..1000).map(|i| f64::from_bits(middle.to_bits() - 500 + i)));
        }
        let mut logs = numbers.clone();
        to_log10(&mut logs);
        let mut worst = 0.0_f64;
        for (number, log) in numbers.iter().zip(&logs) {
            let want = number.log10();
            worst = worst.max((log - want).abs() / want.abs().max(1.0));
        }
        println!("worst of {}: {worst:e}", numbers.len());
        assert!(worst < 1e-15, "{worst:e}");
    }

    #[test]
    fn the_scale_and_its_inverse_agree() {
        for hz in [0.0, 40.0, 999.9, 1000.0, 1000.1, 8000.0, 24_000.0] {
            assert!((mel_to_hertz(hertz_to_mel(hz)) - hz).abs() < 1e-8, "{hz}");
        }
    }
}
