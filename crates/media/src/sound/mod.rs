//! Sound files into mono samples at the model's rate, a segment at a time, and those into log-mel frames.
//!
//! What lives here: the source of a sound, how it is cut into segments, and the reader that gives them. Containers and
//! codecs are in the files beside this one: [`pcm`] for files of plain samples, [`ogg`] for Ogg, [`mpeg`] for bare MPEG
//! audio, [`demux`] for what symphonia takes apart. What does not: prompts, batches, and the pictures of a film.
//!
//! # Formats
//! WAV (also RF64, RIFX and streamed), AIFF, AIFF-C, CAF and AU; FLAC; MP3, MP2 and MP1; Ogg with Vorbis, Opus or FLAC; AAC-LC
//! in ADTS; and the default audio track, or the one asked for, of MP4, M4A, MOV, Matroska and WebM, with AAC-LC, ALAC, MP3,
//! FLAC, Vorbis, Opus or PCM. The content decides, not the ending of the name.
//!
//! # Where this is less than FFmpeg
//! - AAC is read as AAC-LC of one or two channels. HE-AAC that its container announces is refused by name. Where only the
//!   frames tell of it (implicit signalling, the rule in ADTS) the core is decoded, which has half the rate and lacks the
//!   upper half of the frequencies: at 48 kHz, what lies above 12 kHz at the latest, and less at low bit rates.
//! - Padding at the end of Matroska tracks stays, up to one packet; delay at the start is cut off.
//! - A silent edit that delays the sound track of an MP4 is not made audible.

mod demux;
mod flac;
mod input;
mod matroska;
mod mel;
mod mp4;
mod mpeg;
mod ogg;
mod opus;
mod pcm;
mod quicktime;
mod resample;

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Cause, MediaError};
use crate::need::{Need, SMALL_BYTES, mel_need};
use crate::tracks::{TrackChoice, only_track};

use self::input::Input;
pub use self::mel::{LogMel, MelPreprocess, log_mel};
pub(crate) use self::mpeg::frames_may_follow;
use self::resample::Resampler;

/// Seconds of a segment: longer sound and film are cut into pieces of this length, as the reference does.
pub const SEGMENT_SECONDS: f64 = 240.0;

/// More channels than this are refused from the header.
const MAX_CHANNELS: usize = 64;

/// Rates that are taken, in hertz.
const RATES_HZ: std::ops::RangeInclusive<u32> = 1_000..=768_000;

/// Where sound comes from.
#[derive(Clone, Debug)]
pub enum SoundSource {
    /// A file.
    File(PathBuf),
    /// The bytes of a file, and what messages call them.
    Bytes(Arc<[u8]>, String),
    /// Mono samples with their rate in hertz.
    Samples(Arc<[f32]>, u32),
}

/// Consecutive mono samples at the model's rate.
#[derive(Clone, Debug, PartialEq)]
pub struct SoundSegment {
    /// Where it begins in the sound, in seconds.
    pub start_s: f64,
    /// Where it ends.
    pub end_s: f64,
    /// Samples at the model's rate; -1 to 1 is full scale, and float files may go beyond.
    pub samples: Vec<f32>,
}

/// Sound that is being decoded, a segment at a time.
///
/// A segment is [`SEGMENT_SECONDS`] long and is resampled on its own, so its samples do not depend on the others. Where the
/// sample rate changes in the middle, as in files that were joined, each part is resampled on its own too. Channels are
/// mixed by their mean. What an encoder added before and after the sound is cut off where the container tells. A last
/// piece too short for three mel frames (one fiftieth of a second) is dropped, unless it is all there is.
///
/// Beside one segment at the model's rate, memory holds a few packets and their samples; files are never read whole.
pub struct SoundReader {
    label: Label,
    decoder: Box<dyn Decoder>,
    rate_hz: u32,
    resampler: Resampler,
    /// The resampler of the rate before this one: joined parts often take turns, and its weights are work.
    spare: Option<Resampler>,
    /// Decoded frames that belong to the next segment, in runs of one rate; never empty.
    pending: VecDeque<Run>,
    /// Where the next frame stands.
    given: Clock,
    /// Where the next frame that is decoded will stand.
    decoded: Clock,
    at_end: bool,
    /// The end, or a fault, was reported.
    done: bool,
}

/// Decoded frames of one rate.
struct Run {
    rate_hz: u32,
    frames: Vec<f32>,
}

/// A place in a sound whose rate may change.
#[derive(Clone, Copy)]
struct Clock {
    /// Where the part of the present rate begins.
    start_s: f64,
    rate_hz: u32,
    frames: u64,
}

impl Clock {
    fn at(rate_hz: u32) -> Self {
        Self { start_s: 0.0, rate_hz, frames: 0 }
    }

    fn seconds(&self, more: u64) -> f64 {
        self.start_s + (self.frames + more) as f64 / f64::from(self.rate_hz)
    }

    fn advance(&mut self, rate_hz: u32, frames: u64) {
        if rate_hz != self.rate_hz {
            *self = Self { start_s: self.seconds(0), rate_hz, frames: 0 };
        }
        self.frames += frames;
    }
}

impl fmt::Debug for SoundReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SoundReader({}, {}, {} Hz)", self.label.name, self.label.format, self.given.rate_hz)
    }
}

impl SoundReader {
    /// Opens a sound: reads its headers and finds the track.
    ///
    /// `rate_hz` is the rate of the samples that will be given.
    ///
    /// # Errors
    /// - [`MediaError::NotFound`], [`MediaError::NotAFile`], [`MediaError::Unreadable`]: the path
    /// - [`MediaError::Empty`]: no bytes or no samples
    /// - [`MediaError::UnknownFormat`]: not a sound; what it is instead is named
    /// - [`MediaError::UnsupportedCodec`]: a codec, a container or a variant that is not read, or a rate outside of 1 to
    ///   768 kHz
    /// - [`MediaError::NoTrack`]: a film without sound
    /// - [`MediaError::TooManyChannels`]: more than 64, decided from the header
    /// - [`MediaError::Corrupt`]: damaged or cut short
    pub fn open(source: &SoundSource, rate_hz: u32) -> Result<Self, MediaError> {
        Self::open_track(source, &TrackChoice::Default, rate_hz)
    }

    /// As [`SoundReader::open`], of the track that is meant where a file holds several.
    ///
    /// Formats that hold one track (all but MP4, MOV, Matroska and WebM) have it at index 0.
    ///
    /// # Errors
    /// As [`SoundReader::open`], and [`MediaError::NoSuchTrack`] with the tracks that are there. The default track is never
    /// exchanged for another one: where its codec is not read, [`MediaError::UnsupportedCodec`] names it and lists the
    /// others.
    pub fn open_track(source: &SoundSource, choice: &TrackChoice, rate_hz: u32) -> Result<Self, MediaError> {
        if rate_hz == 0 {
            let expected = "at least 1";
            return Err(MediaError::Preprocess { field: "sample_rate_hz", found: "0".to_owned(), expected });
        }
        let (label, decoder): (Label, Box<dyn Decoder>) = match source {
            SoundSource::File(path) => {
                let (file, bytes) = crate::image::open_file(path)?;
                input::open(Input::from_file(file, bytes), &path.display().to_string(), choice)?
            }
            SoundSource::Bytes(bytes, name) => input::open(Input::from_bytes(bytes.clone()), name, choice)?,
            SoundSource::Samples(samples, native_hz) => {
                let label = Label { name: "sound".to_owned(), format: "samples" };
                only_track(&label.name, label.format, "audio track", choice)?;
                (label, Box::new(Samples { samples: samples.clone(), at: 0, rate_hz: *native_hz }))
            }
        };
        let native_hz = decoder.rate_hz();
        label.check_rate(native_hz, !matches!(source, SoundSource::Samples(..)))?;
        Ok(Self {
            label,
            decoder,
            rate_hz,
            resampler: Resampler::new(native_hz, rate_hz),
            spare: None,
            pending: VecDeque::from([Run { rate_hz: native_hz, frames: Vec::new() }]),
            given: Clock::at(native_hz),
            decoded: Clock::at(native_hz),
            at_end: false,
            done: false,
        })
    }

    /// Bytes of memory that the next segment takes, from its packets to its log-mel frames: at most as the header tells its
    /// length. A header that states less than there is makes this too small.
    ///
    /// # Errors
    /// [`MediaError::Corrupt`] where the end of the file, which some formats keep the length at, cannot be read.
    pub fn need(&mut self, settings: &MelPreprocess) -> Result<Need, MediaError> {
        self.choose_resampler(self.pending[0].rate_hz);
        let segment = (SEGMENT_SECONDS * f64::from(self.pending[0].rate_hz)) as u64;
        let known = self.frames_left()?;
        let frames = known.unwrap_or(segment).min(segment);
        let Held { bytes, call_frames } = self.decoder.held();
        // Samples that were decoded and not taken yet, as they grow, and once more in the resampler.
        let pieces = 3 * 4 * call_frames.min(known.unwrap_or(call_frames));
        let samples = self.resampler.length(frames);
        let mel = mel_need(samples, settings);
        let weights = self.resampler.bytes() + self.spare.as_ref().map_or(0, Resampler::bytes);
        let peak = bytes + weights + pieces + 4 * samples + mel.peak + SMALL_BYTES;
        Ok(Need { peak, kept: mel.kept })
    }

    /// Frames that are still to come, those that were decoded among them, as far as they are known.
    fn frames_left(&mut self) -> Result<Option<u64>, MediaError> {
        let pending: u64 = self.pending.iter().map(|run| run.frames.len() as u64).sum();
        Ok(self.decoder.frames_left()?.map(|left| left.saturating_add(pending)))
    }

    /// The next segment; `None` after the last.
    ///
    /// # Errors
    /// - [`MediaError::Corrupt`]: damaged, or less than the container states; also if the decoder gave up
    /// - [`MediaError::SampleNotFinite`]: with its time
    /// - [`MediaError::Empty`]: there is no sample at all
    /// - [`MediaError::UnsupportedCodec`]: what turns up later is of a kind that is not read
    ///
    /// After an error, no more segments follow.
    pub fn next_segment(&mut self) -> Result<Option<SoundSegment>, MediaError> {
        if !self.has_more()? {
            return Ok(None);
        }
        let result = self.read_segment();
        if result.is_err() {
            self.stop();
        }
        result.map(Some)
    }

    /// Whether another segment follows; decodes the first packets of it.
    ///
    /// # Errors
    /// As [`SoundReader::next_segment`].
    pub fn has_more(&mut self) -> Result<bool, MediaError> {
        // More than two steps of the published mel transform, so that three frames come out.
        let least = u64::from(self.rate_hz) / 50 + 1;
        while !self.at_end && self.pending_samples() < least {
            if let Err(error) = self.decode() {
                self.stop();
                return Err(error);
            }
        }
        if self.done {
            return Ok(false);
        }
        if self.at_end && self.decoded.seconds(0) == 0.0 {
            // Said once; then there is nothing more to say.
            self.done = true;
            return Err(MediaError::Empty { name: self.label.name.clone(), expected: "sound sample" });
        }
        let enough = self.pending_samples() >= least;
        let some = self.pending.iter().any(|run| !run.frames.is_empty());
        Ok(enough || (self.given.seconds(0) == 0.0 && some))
    }

    /// Samples that the decoded frames will become.
    fn pending_samples(&self) -> u64 {
        self.pending.iter().map(|run| resample::length(run.rate_hz, self.rate_hz, run.frames.len() as u64)).sum()
    }

    /// Decodes and resamples up to the end of the segment.
    fn read_segment(&mut self) -> Result<SoundSegment, MediaError> {
        let start_s = self.given.seconds(0);
        // The part of the segment at the present rate: frames of it, those taken, and the time before it.
        let mut rate_hz = self.pending[0].rate_hz;
        let mut frames = (SEGMENT_SECONDS * f64::from(rate_hz)) as u64;
        let (mut taken, mut before_s) = (0u64, 0.0);
        // Room for all of it: grown step by step, it would be in memory twice. What is not written to takes none.
        let left = self.frames_left()?.unwrap_or(frames);
        self.choose_resampler(rate_hz);
        let mut samples = Vec::with_capacity(self.resampler.length(left.min(frames)) as usize);
        loop {
            let run = &mut self.pending[0];
            let now = run.frames.len().min((frames - taken) as usize);
            self.resampler.push(&run.frames[..now], &mut samples);
            run.frames.drain(..now);
            taken += now as u64;
            self.given.advance(rate_hz, now as u64);
            if taken == frames || (self.at_end && self.pending.len() == 1) {
                break;
            }
            if self.pending.len() > 1 {
                // All of this rate is taken; another one follows.
                self.pending.pop_front();
                self.resampler.finish(&mut samples);
                before_s += taken as f64 / f64::from(rate_hz);
                rate_hz = self.pending[0].rate_hz;
                frames = ((SEGMENT_SECONDS - before_s) * f64::from(rate_hz)) as u64;
                taken = 0;
                self.choose_resampler(rate_hz);
                continue;
            }
            self.decode()?;
        }
        self.resampler.finish(&mut samples);
        Ok(SoundSegment { start_s, end_s: self.given.seconds(0), samples })
    }

    /// Makes `resampler` the one from a rate.
    fn choose_resampler(&mut self, from: u32) {
        if self.resampler.from() == from {
            return;
        }
        let new = match self.spare.take() {
            Some(spare) if spare.from() == from => spare,
            _ => Resampler::new(from, self.rate_hz),
        };
        self.spare = Some(std::mem::replace(&mut self.resampler, new));
    }

    /// Decodes one more piece into `pending`.
    fn decode(&mut self) -> Result<(), MediaError> {
        let Some(run) = self.pending.back_mut() else { return Ok(()) };
        let before = run.frames.len();
        // The decoders are large and not ours. None of their state is used after a panic: the reader stops.
        let more = catch_unwind(AssertUnwindSafe(|| self.decoder.decode(&mut run.frames)))
            .unwrap_or_else(|_| Err(self.label.corrupt("the decoder gave up on it")))?;
        let fresh = &run.frames[before..];
        let (rate_hz, count) = (self.decoder.rate_hz(), fresh.len() as u64);
        let not_finite = fresh.iter().position(|sample| !sample.is_finite());
        if rate_hz != run.rate_hz && count > 0 {
            self.label.check_rate(rate_hz, true)?;
            let frames = run.frames.split_off(before);
            self.pending.push_back(Run { rate_hz, frames });
        }
        let before = self.decoded;
        if count > 0 {
            self.decoded.advance(rate_hz, count);
        }
        if let Some(at) = not_finite {
            let mut place = before;
            place.advance(rate_hz, at as u64);
            return Err(MediaError::SampleNotFinite { name: self.label.name.clone(), seconds: place.seconds(0) });
        }
        self.at_end = !more;
        Ok(())
    }

    /// Leaves nothing to be read.
    fn stop(&mut self) {
        self.at_end = true;
        self.done = true;
        let rate_hz = self.decoded.rate_hz;
        self.pending = VecDeque::from([Run { rate_hz, frames: Vec::new() }]);
    }
}

/// A track that gives mono samples at its own rate.
trait Decoder: Send {
    /// Samples a second of what the last call of [`Decoder::decode`] gave; before the first call, of what it will give.
    /// All samples of one call have the same rate, and the next call may have another one.
    fn rate_hz(&self) -> u32;

    /// Frames that are still to come, as far as a header or the bytes that are left bound them.
    fn frames_left(&mut self) -> Result<Option<u64>, MediaError>;

    /// What it holds in memory.
    fn held(&self) -> Held;

    /// Appends the next samples; false if no more follow. A call may append none and still have more to come.
    fn decode(&mut self, mono: &mut Vec<f32>) -> Result<bool, MediaError>;
}

/// What a decoder holds in memory.
struct Held {
    /// Tables, buffers and the state of the codec.
    bytes: u64,
    /// The most frames that one call gives.
    call_frames: u64,
}

/// What messages call a sound, and its format.
#[derive(Clone, Debug)]
struct Label {
    name: String,
    format: &'static str,
}

impl Label {
    fn corrupt(&self, why: impl Into<Cause>) -> MediaError {
        MediaError::Corrupt { name: self.name.clone(), format: self.format, source: why.into() }
    }

    fn unsupported(&self, detail: impl Into<String>) -> MediaError {
        MediaError::UnsupportedCodec { name: self.name.clone(), format: self.format, detail: detail.into() }
    }

    /// Something is missing at the end.
    fn cut_short(&self, found: u64, expected: u64, what: &str) -> MediaError {
        self.corrupt(format!("found {found} {what}, expected {expected}"))
    }

    fn check_rate(&self, hz: u32, from_file: bool) -> Result<(), MediaError> {
        if RATES_HZ.contains(&hz) {
            return Ok(());
        }
        if hz == 0 && from_file {
            return Err(self.corrupt("the sample rate is zero"));
        }
        let (low, high) = (RATES_HZ.start(), RATES_HZ.end());
        Err(self.unsupported(format!("found a sample rate of {hz} Hz, expected {low} to {high} Hz")))
    }

    fn check_channels(&self, channels: usize) -> Result<(), MediaError> {
        match channels {
            0 => Err(self.corrupt("there are no channels")),
            1..=MAX_CHANNELS => Ok(()),
            _ => Err(MediaError::TooManyChannels { name: self.name.clone(), channels, limit: MAX_CHANNELS }),
        }
    }
}

/// Appends the means of interleaved frames.
fn mix(interleaved: impl Iterator<Item = f64>, channels: usize, mono: &mut Vec<f32>) {
    let mut sum = 0.0;
    let mut in_frame = 0;
    for sample in interleaved {
        sum += sample;
        in_frame += 1;
        if in_frame == channels {
            mono.push((sum / channels as f64) as f32);
            (sum, in_frame) = (0.0, 0);
        }
    }
}

/// Samples that the caller has.
struct Samples {
    samples: Arc<[f32]>,
    at: usize,
    rate_hz: u32,
}

impl Decoder for Samples {
    fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    fn frames_left(&mut self) -> Result<Option<u64>, MediaError> {
        Ok(Some((self.samples.len() - self.at) as u64))
    }

    fn held(&self) -> Held {
        Held { bytes: 0, call_frames: 4096 }
    }

    fn decode(&mut self, mono: &mut Vec<f32>) -> Result<bool, MediaError> {
        let end = self.samples.len().min(self.at + 4096);
        mono.extend_from_slice(&self.samples[self.at..end]);
        self.at = end;
        Ok(end < self.samples.len())
    }
}
