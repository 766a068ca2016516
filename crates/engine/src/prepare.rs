//! From inputs to numbers, on the caller's threads: everything that needs no device.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use omniburn_media::{ClipCutter, Film, FilmOptions, FilmSource, LogMel, MediaError, MelPreprocess, PatchGrid};
use omniburn_media::{SEGMENT_SECONDS, SoundReader, SoundSource, VisionPreprocess};
use omniburn_media::{decode_image, decode_image_file, film_patches, image_patches, log_mel, video_patches};
use omniburn_models::record::{Modality, PixelPreprocess, SoundPreprocess};

use crate::engine::Engine;
use crate::error::ItemError;
use crate::prompt::{self, Frame};
use crate::request::{Input, Request, Source, Span};
use crate::worker::panic_message;

/// Frames sampled from a film where neither the request nor the record says.
const DEFAULT_FRAMES: u32 = 32;

/// Rows of a medium that are taken whatever the longest text: the largest film and a segment of 240 s of sound, as
/// published, are 6,272 and 6,000 rows. Positions are computed, so a checkpoint made for shorter texts reads them, too.
const MEDIA_ROWS: usize = 8192;

/// An input as numbers.
pub(crate) enum Prepared {
    Text {
        ids: Vec<u32>,
        truncated: bool,
    },
    Media(Medium),
    /// Sound or film of more than one segment; one segment is in memory at a time.
    Long(Box<Long>),
}

/// A picture, a clip or a sound as what its tower reads, with the ids around it.
pub(crate) struct Medium {
    pub modality: Modality,
    pub rows: Rows,
    pub frame: Frame,
    /// Rows that will enter the backbone.
    pub tokens: usize,
    /// Where it lies in the sound or film it was cut from.
    pub span: Option<Span>,
}

/// What a tower reads.
#[derive(Clone)]
pub(crate) enum Rows {
    Patches(Arc<PatchGrid>),
    Mel(Arc<LogMel>),
}

impl Rows {
    fn bytes(&self) -> u64 {
        match self {
            Rows::Patches(patches) => patches.bytes() as u64,
            Rows::Mel(mel) => 4 * mel.values().len() as u64,
        }
    }

    fn rows(&self) -> usize {
        match self {
            Rows::Patches(patches) => patches.grid().patches(),
            Rows::Mel(mel) => mel.frames(),
        }
    }
}

/// Sound or film whose segments are prepared one after the other.
pub(crate) struct Long {
    modality: Modality,
    frame: Frame,
    /// The first segment, which showed that there is another.
    first: Option<Medium>,
    source: LongSource,
}

enum LongSource {
    Sound(SoundReader),
    Film { film: Film, at_s: f64, frames: usize },
}

impl Prepared {
    /// Rows it will be: tokens, patches of the tower or mel frames.
    pub(crate) fn rows(&self) -> usize {
        match self {
            Prepared::Text { ids, .. } => ids.len(),
            Prepared::Media(medium) => medium.rows.rows(),
            Prepared::Long(long) => long.first.as_ref().map_or(0, |m| m.rows.rows()),
        }
    }

    /// Bytes held until it is computed.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Prepared::Text { ids, .. } => 4 * ids.len() as u64,
            Prepared::Media(medium) => medium.rows.bytes(),
            Prepared::Long(long) => long.first.as_ref().map_or(0, |m| m.rows.bytes()),
        }
    }
}

impl Engine {
    /// Everything that needs no device: reading, decoding, tokenising. A decoder that panics costs only its item.
    pub(crate) fn prepare(&self, input: Input, request: &Request) -> Result<Prepared, ItemError> {
        if request.cancelled() {
            return Err(ItemError::Cancelled);
        }
        guarded(|| self.prepare_unguarded(input, request))
    }

    fn prepare_unguarded(&self, input: Input, request: &Request) -> Result<Prepared, ItemError> {
        let modality = input.modality();
        for path in input.files() {
            check_file(path)?;
        }
        if let Some(reason) = self.refusal(modality) {
            return Err(ItemError::ModalityAbsent { modality, reason });
        }
        let patches = match input.0 {
            Source::Text(text) => return self.prepare_text(&text, request),
            Source::ImageFile(path) => image_patches(&decode_image_file(&path)?, &self.pixels(modality))
                .map_err(|error| error.of(path.display().to_string()))?,
            Source::ImageBytes(bytes) => image_patches(&decode_image(&bytes, "picture")?, &self.pixels(modality))?,
            Source::ImagePixels(image) => image_patches(&image, &self.pixels(modality))?,
            Source::VideoFrames(frames) => video_patches(&frames, &self.pixels(modality))?,
            Source::VideoFrameFiles(paths) => {
                let pixels = self.pixels(modality);
                // One at a time, so that a list of a thousand photos is not held decoded.
                let mut clip = ClipCutter::new(paths.len(), &pixels)?;
                paths.iter().try_for_each(|path| {
                    clip.push(&decode_image_file(path)?).map_err(|error| error.of(path.display().to_string()))
                })?;
                clip.finish()
            }
            Source::VideoFile(path) => return self.prepare_film(&FilmSource::File(path), request),
            Source::VideoBytes(bytes) => return self.prepare_film(&FilmSource::Bytes(bytes, "film".into()), request),
            Source::AudioFile(path) => return self.prepare_sound(&SoundSource::File(path), request),
            Source::AudioBytes(bytes) => {
                return self.prepare_sound(&SoundSource::Bytes(bytes, "sound".into()), request);
            }
            Source::AudioSamples(samples, rate_hz) => {
                return self.prepare_sound(&SoundSource::Samples(samples, rate_hz), request);
            }
        };
        let frame = prompt::frame(self.header(), &self.inner.tokenizer, request.role, modality)?;
        self.medium(modality, Rows::Patches(Arc::new(patches)), frame, None).map(Prepared::Media)
    }

    fn prepare_text(&self, text: &str, request: &Request) -> Result<Prepared, ItemError> {
        let prefix = prompt::prefix(&self.header().prompts, request.role);
        let limit = self.inner.parts.config().text.max_tokens;
        let ids = self.inner.tokenizer.text_ids(prefix, text, limit, request.truncation)?;
        if ids.ids.is_empty() {
            return Err(ItemError::Empty { modality: Modality::Text });
        }
        Ok(Prepared::Text { ids: ids.ids, truncated: ids.truncated })
    }

    fn prepare_sound(&self, source: &SoundSource, request: &Request) -> Result<Prepared, ItemError> {
        let reader = SoundReader::open(source, self.mel_settings().sample_rate_hz)?;
        self.first_segment(Modality::Audio, LongSource::Sound(reader), request)
    }

    fn prepare_film(&self, source: &FilmSource, request: &Request) -> Result<Prepared, ItemError> {
        let frames = request.frames.or(self.header().preprocess.video_frames).unwrap_or(DEFAULT_FRAMES) as usize;
        // Each group of frames is at least one row: refuse before decoding what the backbone cannot read.
        let limit = self.media_limit();
        let least = frames / self.pixels(Modality::Video).temporal_patch as usize;
        if least > limit {
            return Err(ItemError::TooLong { tokens: least, limit });
        }
        let film = Film::open(source, &FilmOptions { ffmpeg: self.inner.ffmpeg.clone() })?;
        self.first_segment(Modality::Video, LongSource::Film { film, at_s: 0.0, frames }, request)
    }

    /// What has one segment as a medium, what has more with its first.
    fn first_segment(&self, modality: Modality, source: LongSource, request: &Request) -> Result<Prepared, ItemError> {
        let frame = prompt::frame(self.header(), &self.inner.tokenizer, request.role, modality)?;
        let mut long = Long { modality, frame, first: None, source };
        let first = self.decode_segment(&mut long)?;
        let first = first.ok_or(ItemError::Empty { modality })?;
        if long.source.has_more()? {
            long.first = Some(first);
            return Ok(Prepared::Long(Box::new(long)));
        }
        Ok(Prepared::Media(first))
    }

    /// The next segment of a long sound or film; `None` after the last.
    pub(crate) fn next_segment(&self, long: &mut Long, request: &Request) -> Result<Option<Medium>, ItemError> {
        if let Some(first) = long.first.take() {
            return Ok(Some(first));
        }
        if request.cancelled() {
            return Err(ItemError::Cancelled);
        }
        guarded(|| self.decode_segment(long))
    }

    fn decode_segment(&self, long: &mut Long) -> Result<Option<Medium>, ItemError> {
        let (rows, span) = match &mut long.source {
            LongSource::Sound(reader) => {
                let Some(segment) = reader.next_segment()? else { return Ok(None) };
                let mel = log_mel(&segment.samples, &self.mel_settings())?;
                (Rows::Mel(Arc::new(mel)), Span { start_s: segment.start_s, end_s: segment.end_s })
            }
            LongSource::Film { film, at_s, frames } => {
                let (start_s, end_s) = (*at_s, (*at_s + SEGMENT_SECONDS).min(film.duration_s()));
                if start_s > 0.0 && start_s >= end_s {
                    return Ok(None);
                }
                *at_s = start_s + SEGMENT_SECONDS;
                let patches = film_patches(film, start_s..end_s, *frames, &self.pixels(Modality::Video))?;
                (Rows::Patches(Arc::new(patches)), Span { start_s, end_s })
            }
        };
        self.medium(long.modality, rows, long.frame.clone(), Some(span)).map(Some)
    }

    /// A medium with the rows it will be, refused where the backbone does not read so many.
    fn medium(&self, modality: Modality, rows: Rows, frame: Frame, span: Option<Span>) -> Result<Medium, ItemError> {
        let config = self.inner.parts.config();
        let features = match &rows {
            Rows::Patches(patches) => {
                let merge = config.vision.as_ref().map_or(1, |v| v.merge);
                patches.grid().patches() / (merge * merge)
            }
            Rows::Mel(mel) => config.audio.as_ref().map_or(0, |a| a.features(mel.frames())),
        };
        let (tokens, limit) = (frame.tokens(features), self.media_limit());
        if tokens > limit {
            return Err(ItemError::TooLong { tokens, limit });
        }
        Ok(Medium { modality, rows, frame, tokens, span })
    }

    fn media_limit(&self) -> usize {
        self.inner.parts.config().text.max_tokens.max(MEDIA_ROWS)
    }

    /// Why a modality is not taken; `None` where it is.
    pub(crate) fn refusal(&self, modality: Modality) -> Option<String> {
        let allowed = self.inner.modalities.as_ref().is_none_or(|m| m.contains(&modality));
        let config = self.inner.parts.config();
        match modality {
            _ if !allowed => Some("its tower was not allowed to load".into()),
            Modality::Image | Modality::Video if config.vision.is_none() => {
                Some("the record has no picture tower".into())
            }
            Modality::Audio if config.audio.is_none() => Some("the record has no sound tower".into()),
            _ => None,
        }
    }

    fn pixels(&self, modality: Modality) -> VisionPreprocess {
        let preprocess = &self.header().preprocess;
        let pixels = if modality == Modality::Video { &preprocess.video } else { &preprocess.image };
        vision_preprocess(pixels.as_ref().expect("a record with a picture tower says how pictures are prepared"))
    }

    fn mel_settings(&self) -> MelPreprocess {
        let audio = self.header().preprocess.audio.as_ref();
        mel_preprocess(audio.expect("a record with a sound tower says how sound is prepared"))
    }
}

impl LongSource {
    fn has_more(&mut self) -> Result<bool, MediaError> {
        match self {
            LongSource::Sound(reader) => reader.has_more(),
            LongSource::Film { film, at_s, .. } => Ok(*at_s < film.duration_s()),
        }
    }
}

/// A panic of a decoder as the error of its item.
fn guarded<T>(work: impl FnOnce() -> Result<T, ItemError>) -> Result<T, ItemError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(ItemError::Panicked { message: panic_message(panic.as_ref()) }))
}

impl Input {
    fn files(&self) -> &[PathBuf] {
        match &self.0 {
            Source::ImageFile(path) | Source::VideoFile(path) | Source::AudioFile(path) => std::slice::from_ref(path),
            Source::VideoFrameFiles(paths) => paths,
            _ => &[],
        }
    }
}

/// Whether a file is there and is a file, for media that nothing here reads further.
fn check_file(path: &Path) -> Result<(), MediaError> {
    let meta = std::fs::metadata(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => MediaError::NotFound { path: path.into(), source },
        _ => MediaError::Unreadable { path: path.into(), source },
    })?;
    if meta.is_dir() {
        return Err(MediaError::NotAFile { path: path.into(), found: "a folder" });
    }
    Ok(())
}

/// How a record's pictures are prepared, in the terms of the media crate.
pub fn vision_preprocess(p: &PixelPreprocess) -> VisionPreprocess {
    VisionPreprocess {
        patch: p.patch_px,
        merge: p.merge,
        temporal_patch: p.temporal_patch,
        min_pixels: p.min_pixels,
        max_pixels: p.max_pixels,
        mean: p.mean,
        std: p.std,
        rescale: p.rescale,
    }
}

/// How a record's sound is prepared, in the terms of the media crate.
pub fn mel_preprocess(p: &SoundPreprocess) -> MelPreprocess {
    MelPreprocess {
        sample_rate_hz: p.sample_rate_hz,
        fft_samples: p.fft_samples,
        hop_samples: p.hop_samples,
        mels: p.mels,
    }
}
