//! The reader of segments: a track of any format, resampled and cut.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use crate::container::tracks::only_track;
use crate::error::MediaError;
use crate::estimate::{MemoryEstimate, SMALL_BYTES, mel_estimate};
use crate::file::MediaFile;
use crate::label::Label;
use crate::source::Source;
use crate::tracks::TrackChoice;

use super::decoder::{Decoder, Held, Samples};
use super::mel::MelPreprocess;
use super::open;
use super::resample::{self, Resampler};

/// Seconds of a segment: longer audio and video are cut into pieces of this length, as the reference does.
pub const SEGMENT_SECONDS: f64 = 240.0;

/// Where audio comes from.
#[derive(Clone, Debug)]
pub enum AudioSource {
    /// A file.
    File(MediaFile),
    /// The bytes of a file, and what messages call them.
    Bytes(Arc<[u8]>, String),
    /// Mono samples with their rate in hertz.
    Samples(Arc<[f32]>, u32),
}

impl AudioSource {
    /// A file, opened at each reading.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File(MediaFile::new(path))
    }
}

/// Consecutive mono samples at the model's rate.
#[derive(Clone, Debug, PartialEq)]
pub struct AudioSegment {
    /// Where it begins in the audio, in seconds.
    pub start_s: f64,
    /// Where it ends.
    pub end_s: f64,
    /// Samples at the model's rate; -1 to 1 is full scale, and float files may go beyond.
    pub samples: Vec<f32>,
}

/// Audio that is being decoded, a segment at a time.
///
/// A segment is [`SEGMENT_SECONDS`] long and is resampled on its own, so its samples do not depend on the others. Where the
/// sample rate changes in the middle, as in files that were joined, each part is resampled on its own too. Channels are
/// mixed by their mean. What an encoder added before and after the audio is cut off where the container tells. A last
/// piece too short for three mel frames (one fiftieth of a second) is dropped, unless it is all there is.
///
/// Beside one segment at the model's rate, memory holds a few packets and their samples; files are never read whole.
pub struct AudioReader {
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

/// A place in an audio file whose rate may change.
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

impl fmt::Debug for AudioReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AudioReader({}, {}, {} Hz)", self.label.name, self.label.format, self.given.rate_hz)
    }
}

impl AudioReader {
    /// Opens an audio file: reads its headers and finds the track.
    ///
    /// `rate_hz` is the rate of the samples that will be given.
    ///
    /// # Errors
    /// - [`MediaError::NotFound`], [`MediaError::NotAFile`], [`MediaError::Unreadable`]: the path
    /// - [`MediaError::Empty`]: no bytes or no samples
    /// - [`MediaError::UnknownFormat`]: not an audio file; what it is instead is named
    /// - [`MediaError::UnsupportedCodec`]: a codec, a container or a variant that is not read, or a rate outside of 1 to
    ///   768 kHz
    /// - [`MediaError::NoTrack`]: a video without audio
    /// - [`MediaError::TooManyChannels`]: more than 64, decided from the header
    /// - [`MediaError::Corrupt`]: damaged or cut short
    pub fn open(source: &AudioSource, rate_hz: u32) -> Result<Self, MediaError> {
        Self::open_track(source, &TrackChoice::Default, rate_hz)
    }

    /// As [`AudioReader::open`], of the track that is meant where a file holds several.
    ///
    /// Formats that hold one track (all but MP4, MOV, Matroska and WebM) have it at index 0.
    ///
    /// # Errors
    /// As [`AudioReader::open`], and [`MediaError::NoSuchTrack`] with the tracks that are there. The default track is never
    /// exchanged for another one: where its codec is not read, [`MediaError::UnsupportedCodec`] names it and lists the
    /// others.
    pub fn open_track(source: &AudioSource, choice: &TrackChoice, rate_hz: u32) -> Result<Self, MediaError> {
        if rate_hz == 0 {
            let expected = "at least 1";
            return Err(MediaError::Preprocess { field: "sample_rate_hz", found: "0".to_owned(), expected });
        }
        let (label, decoder): (Label, Box<dyn Decoder>) = match source {
            AudioSource::File(file) => open::open(Source::from_file(file, "file")?, choice)?,
            AudioSource::Bytes(bytes, name) => open::open(Source::from_bytes(bytes.clone(), name, "file")?, choice)?,
            AudioSource::Samples(samples, native_hz) => {
                let label = Label { name: "audio".to_owned(), format: "samples" };
                only_track(&label.name, label.format, "audio track", choice)?;
                (label, Box::new(Samples { samples: samples.clone(), at: 0, rate_hz: *native_hz }))
            }
        };
        let native_hz = decoder.rate_hz();
        label.check_rate(native_hz, !matches!(source, AudioSource::Samples(..)))?;
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

    /// The rate in hertz at which the next segment begins in the file; the samples that are given have the rate that was asked
    /// for.
    #[must_use]
    pub fn native_hz(&self) -> u32 {
        self.given.rate_hz
    }

    /// Bytes of memory that the next segment takes, from its packets to its log-mel frames: at most as the header tells its
    /// length. A header that states less than there is makes this too small.
    ///
    /// # Errors
    /// [`MediaError::Corrupt`] where the end of the file, which some formats keep the length at, cannot be read.
    pub fn estimate(&mut self, settings: &MelPreprocess) -> Result<MemoryEstimate, MediaError> {
        self.choose_resampler(self.pending[0].rate_hz);
        let segment = (SEGMENT_SECONDS * f64::from(self.pending[0].rate_hz)) as u64;
        let known = self.frames_left()?;
        let frames = known.unwrap_or(segment).min(segment);
        let Held { bytes, call_frames } = self.decoder.held();
        // Samples that were decoded and not taken yet, as they grow, and once more in the resampler.
        let pieces = 3 * 4 * call_frames.min(known.unwrap_or(call_frames));
        let samples = self.resampler.length(frames);
        let mel = mel_estimate(samples, settings);
        let weights = self.resampler.bytes() + self.spare.as_ref().map_or(0, Resampler::bytes);
        let peak = bytes + weights + pieces + 4 * samples + mel.peak + SMALL_BYTES;
        Ok(MemoryEstimate { peak, kept: mel.kept })
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
    pub fn next_segment(&mut self) -> Result<Option<AudioSegment>, MediaError> {
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
    /// As [`AudioReader::next_segment`].
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
            return Err(MediaError::Empty { name: self.label.name.clone(), expected: "audio sample" });
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
    fn read_segment(&mut self) -> Result<AudioSegment, MediaError> {
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
        Ok(AudioSegment { start_s, end_s: self.given.seconds(0), samples })
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

/// Bytes that one segment of an audio file takes, from the packets to its log-mel frames.
///
/// The segment is as long as the header says, and at most [`crate::SEGMENT_SECONDS`]. Windows cut and padded by the
/// caller take what [`mel_estimate`] says beside this.
///
/// # Errors
/// As [`AudioReader::open`].
pub fn audio_estimate(source: &AudioSource, settings: &MelPreprocess) -> Result<MemoryEstimate, MediaError> {
    audio_track_estimate(source, &TrackChoice::Default, settings)
}

/// As [`audio_estimate`], of the track that is meant.
///
/// # Errors
/// As [`AudioReader::open_track`].
pub fn audio_track_estimate(
    source: &AudioSource,
    choice: &TrackChoice,
    settings: &MelPreprocess,
) -> Result<MemoryEstimate, MediaError> {
    AudioReader::open_track(source, choice, settings.sample_rate_hz)?.estimate(settings)
}
