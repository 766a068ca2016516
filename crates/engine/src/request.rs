//! What callers say: inputs, roles, and how a request should be treated.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use omniburn_media::{RgbImage, TrackChoice, Truncation};
use omniburn_models::record::Modality;
use omniburn_scheduler::{Cancel, Priority};
use serde::{Deserialize, Serialize};

use crate::embedding::Embedding;
use crate::error::ItemError;
use crate::journal::{Journal, JournalEntry};

/// One thing to embed: text, an image, audio or video, from a path, bytes or decoded values.
#[derive(Clone)]
pub struct Input(pub(crate) Source, pub(crate) TrackChoice);

/// Contents are shared, so that an input is passed about without a copy of it.
#[derive(Clone)]
pub(crate) enum Source {
    Text(Arc<str>),
    ImageFile(PathBuf),
    ImageBytes(Arc<[u8]>),
    ImagePixels(Arc<RgbImage>),
    VideoFile(PathBuf),
    VideoBytes(Arc<[u8]>),
    VideoFrames(Arc<[RgbImage]>),
    VideoFrameFiles(Vec<PathBuf>),
    AudioFile(PathBuf),
    AudioBytes(Arc<[u8]>),
    AudioSamples(Arc<[f32]>, u32),
}

impl Input {
    /// A string. The role's prefix is put in front by the engine, never by the caller.
    pub fn text(text: impl Into<String>) -> Self {
        Self(Source::Text(text.into().into()), TrackChoice::Default)
    }

    /// An image file: PNG, JPEG, WebP, GIF (its first frame), BMP or TIFF, told by content and not by ending.
    pub fn image_file(path: impl Into<PathBuf>) -> Self {
        Self(Source::ImageFile(path.into()), TrackChoice::Default)
    }

    /// The bytes of an image file.
    pub fn image_bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(Source::ImageBytes(bytes.into()), TrackChoice::Default)
    }

    /// A decoded image.
    pub fn image_pixels(image: RgbImage) -> Self {
        Self(Source::ImagePixels(Arc::new(image)), TrackChoice::Default)
    }

    /// A video file: H.264 in MP4, MOV or MKV, animated GIF or WebP; other codecs where a program for them is there. Its
    /// audio is not heard: [`Input::audio_file`] of the same file is that.
    pub fn video_file(path: impl Into<PathBuf>) -> Self {
        Self(Source::VideoFile(path.into()), TrackChoice::Default)
    }

    /// The bytes of a video file.
    pub fn video_bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(Source::VideoBytes(bytes.into()), TrackChoice::Default)
    }

    /// Decoded frames of a video in order, taken whole.
    pub fn video_frames(frames: Vec<RgbImage>) -> Self {
        Self(Source::VideoFrames(frames.into()), TrackChoice::Default)
    }

    /// Image files that are the frames of a video in order, taken whole.
    pub fn video_frame_files(frames: Vec<PathBuf>) -> Self {
        Self(Source::VideoFrameFiles(frames), TrackChoice::Default)
    }

    /// An audio file, or a video whose audio track is meant: WAV, FLAC, MP3, OGG, Opus, AAC, ALAC, AIFF or CAF, of any rate
    /// and number of channels.
    pub fn audio_file(path: impl Into<PathBuf>) -> Self {
        Self(Source::AudioFile(path.into()), TrackChoice::Default)
    }

    /// The bytes of an audio file.
    pub fn audio_bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(Source::AudioBytes(bytes.into()), TrackChoice::Default)
    }

    /// Mono samples in -1..1 with their rate in hertz.
    pub fn audio_samples(samples: impl Into<Arc<[f32]>>, rate_hz: u32) -> Self {
        Self(Source::AudioSamples(samples.into(), rate_hz), TrackChoice::Default)
    }

    /// Which audio or video track is meant, where a file holds several; by default the one that players choose. Other
    /// inputs have one, at index 0, and texts and images have none to choose from.
    ///
    /// An input with another track is another input: nothing kept of one is given for the other. A track that is not there
    /// is refused with a list of those that are.
    #[must_use]
    pub fn track(mut self, track: TrackChoice) -> Self {
        self.1 = track;
        self
    }

    /// What kind of input it is.
    pub fn modality(&self) -> Modality {
        match &self.0 {
            Source::Text(_) => Modality::Text,
            Source::ImageFile(_) | Source::ImageBytes(_) | Source::ImagePixels(_) => Modality::Image,
            Source::VideoFile(_) | Source::VideoBytes(_) | Source::VideoFrames(_) | Source::VideoFrameFiles(_) => {
                Modality::Video
            }
            Source::AudioFile(_) | Source::AudioBytes(_) | Source::AudioSamples(..) => Modality::Audio,
        }
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Text(text) => f.debug_tuple("Text").field(text).finish(),
            Source::ImageFile(path) | Source::VideoFile(path) | Source::AudioFile(path) => {
                write!(f, "{}({})", self.modality(), path.display())
            }
            _ => write!(f, "{}(..)", self.modality()),
        }
    }
}

/// What an input is for; its prefix stands in front in every modality and for every task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Something to search with.
    Query,
    /// Something to be found.
    #[default]
    Document,
    /// Neither: no prefix, unless the checkpoint names a default prompt.
    None,
}

/// How far a long call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Items finished, failed ones included.
    pub done: usize,
    /// Items in all.
    pub total: usize,
}

/// Called after each window of items of a long call.
pub type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

/// An input of a call, and how it is treated where that is not as the rest of the call.
///
/// Made from an [`Input`], which is treated as its call says, or from `(Input, Request)`. Role, task, dimension,
/// truncation, frames and priority are then the input's own; so are cancel and deadline, those of the call where it has
/// none. Progress and journal are always the call's.
#[derive(Debug, Clone)]
pub struct Asked {
    pub(crate) input: Input,
    pub(crate) own: Option<Request>,
}

impl From<Input> for Asked {
    fn from(input: Input) -> Self {
        Self { input, own: None }
    }
}

impl From<(Input, Request)> for Asked {
    fn from((input, request): (Input, Request)) -> Self {
        Self { input, own: Some(request) }
    }
}

/// How a call, or an input of it, should be treated. One path serves every verb.
#[derive(Clone, Default)]
pub struct Request {
    pub(crate) role: Role,
    pub(crate) task: Option<String>,
    pub(crate) priority: Option<Priority>,
    pub(crate) dim: Option<usize>,
    pub(crate) truncation: Truncation,
    pub(crate) frames: Option<u32>,
    pub(crate) cancel: Option<Cancel>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) progress: Option<OnProgress>,
    pub(crate) journal: Option<Journal>,
    /// Computed anew whatever is kept or in flight, in units as large as memory lets them be.
    pub(crate) replay: bool,
}

impl Request {
    /// A request in a role; queries are interactive and everything else is background unless told otherwise.
    pub fn new(role: Role) -> Self {
        Self { role, ..Self::default() }
    }

    /// What the input is for.
    #[must_use]
    pub fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// A task of the record other than the engine's own.
    #[must_use]
    pub fn task(mut self, task: impl Into<String>) -> Self {
        self.task = Some(task.into());
        self
    }

    /// How urgent it is.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// One of the record's Matryoshka dimensions in place of the full width.
    #[must_use]
    pub fn dim(mut self, dim: usize) -> Self {
        self.dim = Some(dim);
        self
    }

    /// What happens to a text longer than the model reads; refused unless said otherwise.
    #[must_use]
    pub fn truncation(mut self, truncation: Truncation) -> Self {
        self.truncation = truncation;
        self
    }

    /// Frames sampled from a video file, or from each of its segments; by default what the record says, else 32. A list of
    /// frames is taken whole.
    ///
    /// # Panics
    /// At zero.
    #[must_use]
    pub fn frames(mut self, frames: u32) -> Self {
        assert!(frames > 0, "a video is seen in at least one frame");
        self.frames = Some(frames);
        self
    }

    /// A handle that stops the call at the next unit; items not done by then fail as cancelled.
    #[must_use]
    pub fn cancel(mut self, cancel: Cancel) -> Self {
        self.cancel = Some(cancel);
        self
    }

    /// When an answer is of no use any more: items not done by then fail as cancelled, at the next unit.
    #[must_use]
    pub fn deadline(mut self, at: Instant) -> Self {
        self.deadline = Some(at);
        self
    }

    /// Called after each window of items.
    #[must_use]
    pub fn on_progress(mut self, progress: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// Called with what is needed to do the call again and compare: how it is computed, each unit as it has run, each
    /// item with its result. Off by default. With it every input is read once more for its digest.
    ///
    /// It is called on the thread of the caller, and waited for. Entries hold no content and no path; but whoever guesses
    /// an input can tell by its digest that the guess is right.
    #[must_use]
    pub fn journal(mut self, write: impl Fn(&JournalEntry) + Send + Sync + 'static) -> Self {
        self.journal = Some(Journal::new(write));
        self
    }

    /// The request of one input of this call that brings its own.
    pub(crate) fn with_own(&self, own: Request) -> Self {
        Self {
            cancel: own.cancel.or_else(|| self.cancel.clone()),
            deadline: own.deadline.or(self.deadline),
            progress: self.progress.clone(),
            journal: self.journal.clone(),
            replay: self.replay,
            ..own
        }
    }

    /// Whether an input has one result under both.
    pub(crate) fn same_result(&self, other: &Self) -> bool {
        let result = |r: &Self| (r.role, r.dim, r.truncation, r.frames);
        result(self) == result(other) && self.task == other.task
    }

    /// Whether inputs of both, within one call, may be computed as one.
    pub(crate) fn same_units(&self, other: &Self) -> bool {
        let cancel = match (&self.cancel, &other.cancel) {
            (Some(one), Some(other)) => one.is(other),
            (one, other) => one.is_none() && other.is_none(),
        };
        let when = |r: &Self| (r.resolved_priority(), r.deadline);
        cancel && when(self) == when(other) && self.same_result(other)
    }

    pub(crate) fn resolved_priority(&self) -> Priority {
        self.priority.unwrap_or(match self.role {
            Role::Query => Priority::Interactive,
            Role::Document | Role::None => Priority::Background,
        })
    }

    /// Why nobody wants the result any more; `None` where somebody does.
    pub(crate) fn over(&self) -> Option<ItemError> {
        if self.cancel.as_ref().is_some_and(Cancel::is_cancelled) {
            return Some(ItemError::Cancelled);
        }
        self.deadline.is_some_and(|at| at <= Instant::now()).then_some(ItemError::DeadlinePassed)
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("role", &self.role)
            .field("task", &self.task)
            .field("priority", &self.resolved_priority())
            .field("dim", &self.dim)
            .field("truncation", &self.truncation)
            .field("frames", &self.frames)
            .finish_non_exhaustive()
    }
}

/// A vector with what is known of how it was made. Two are equal where all but their timings is.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// The vector.
    pub embedding: Embedding,
    /// What it was made from.
    pub modality: Modality,
    /// Rows that entered the backbone, of all segments together.
    pub tokens: usize,
    /// Whether a text was cut.
    pub truncated: bool,
    /// What an audio or video file was cut into, 240 s each but the last; one where it is shorter, none for what has no
    /// time. With several, `embedding` is their unit mean.
    pub segments: Vec<Segment>,
    /// Where the time went.
    pub timings: Timings,
}

impl PartialEq for Embedded {
    fn eq(&self, other: &Self) -> bool {
        let Self { embedding, modality, tokens, truncated, segments, timings: _ } = self;
        (embedding, modality, tokens, truncated, segments)
            == (&other.embedding, &other.modality, &other.tokens, &other.truncated, &other.segments)
    }
}

/// Where the time of a result went. A result that was kept, or that another call computed, has the times of this call's
/// preparation or of that one's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// Read, decoded and cut into tokens, patches or frames, on threads of callers.
    pub tokenise: Duration,
    /// Waited for the device, for all its units together.
    pub queue: Duration,
    /// Computed by the device: the passes it was in, whole, whatever was beside it. An image, audio or video that came with
    /// others has the passes of all of them.
    pub compute: Duration,
}

/// Where a segment lies in its audio or video.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// Where it begins, in seconds.
    pub start_s: f64,
    /// Where it ends, in seconds.
    pub end_s: f64,
}

/// A part of a long audio or video with its own vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Where it lies.
    pub span: Span,
    /// Its vector.
    pub embedding: Embedding,
    /// Rows that entered the backbone.
    pub tokens: usize,
}
