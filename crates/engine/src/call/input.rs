//! What goes in: one input of any kind, and what it is for.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use omniburn_media::{MediaFile, RgbImage, TrackChoice};
use omniburn_models::record::Modality;
use serde::{Deserialize, Serialize};

/// One thing to embed: text, an image, audio or video, from a path, bytes or decoded values.
#[derive(Clone)]
pub struct Input(pub(crate) Source, pub(crate) TrackChoice, pub(crate) Option<f64>);

/// Contents are shared, so that an input is passed about without a copy of it.
#[derive(Clone)]
pub(crate) enum Source {
    Text(Arc<str>),
    ImageFile(MediaFile),
    ImageBytes(Arc<[u8]>),
    ImagePixels(Arc<RgbImage>),
    VideoFile(MediaFile),
    VideoBytes(Arc<[u8]>),
    VideoFrames(Arc<[RgbImage]>),
    VideoFrameFiles(Arc<[MediaFile]>),
    AudioFile(MediaFile),
    AudioBytes(Arc<[u8]>),
    AudioSamples(Arc<[f32]>, u32),
    /// One item made of several.
    Parts(Arc<[Input]>),
    /// A query and a document.
    Pair(Arc<[Input; 2]>),
    /// A query and the documents that are read with it, texts all.
    List(Arc<[Input]>),
}

impl Input {
    /// A string. The role's prefix is put in front by the engine, never by the caller.
    pub fn text(text: impl Into<String>) -> Self {
        Self(Source::Text(text.into().into()), TrackChoice::Default, None)
    }

    /// An image file: PNG, JPEG, WebP, GIF (its first frame), BMP or TIFF, recognised by content and not by ending.
    pub fn image_file(path: impl Into<PathBuf>) -> Self {
        Self(Source::ImageFile(MediaFile::new(path)), TrackChoice::Default, None)
    }

    /// The bytes of an image file.
    pub fn image_bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(Source::ImageBytes(bytes.into()), TrackChoice::Default, None)
    }

    /// A decoded image.
    pub fn image_pixels(image: RgbImage) -> Self {
        Self(Source::ImagePixels(Arc::new(image)), TrackChoice::Default, None)
    }

    /// A video file: H.264 in MP4, MOV or MKV, animated GIF or WebP; other codecs where a program for them is there. Its
    /// audio is not heard: [`Input::audio_file`] of the same file is that.
    pub fn video_file(path: impl Into<PathBuf>) -> Self {
        Self(Source::VideoFile(MediaFile::new(path)), TrackChoice::Default, None)
    }

    /// The bytes of a video file.
    pub fn video_bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(Source::VideoBytes(bytes.into()), TrackChoice::Default, None)
    }

    /// Decoded frames of a video in order, taken whole.
    pub fn video_frames(frames: Vec<RgbImage>) -> Self {
        Self(Source::VideoFrames(frames.into()), TrackChoice::Default, None)
    }

    /// Image files that are the frames of a video in order, taken whole.
    pub fn video_frame_files(frames: Vec<PathBuf>) -> Self {
        Self(Source::VideoFrameFiles(frames.into_iter().map(MediaFile::new).collect()), TrackChoice::Default, None)
    }

    /// An audio file, or a video whose audio track is meant: WAV, FLAC, MP3, OGG, Opus, AAC, ALAC, AIFF or CAF, of any rate
    /// and number of channels.
    pub fn audio_file(path: impl Into<PathBuf>) -> Self {
        Self(Source::AudioFile(MediaFile::new(path)), TrackChoice::Default, None)
    }

    /// The bytes of an audio file.
    pub fn audio_bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(Source::AudioBytes(bytes.into()), TrackChoice::Default, None)
    }

    /// Mono samples in -1..1 with their rate in hertz.
    pub fn audio_samples(samples: impl Into<Arc<[f32]>>, rate_hz: u32) -> Self {
        Self(Source::AudioSamples(samples.into(), rate_hz), TrackChoice::Default, None)
    }

    /// One item made of several, such as an image with its caption: one vector. Parts of parts count as parts. A family that
    /// takes no such items refuses it with [`ErrorKind::ModalityAbsent`](crate::ErrorKind::ModalityAbsent) and its name; one
    /// that does says in which order they are read. An audio or video among several parts is one segment at most.
    pub fn parts(parts: impl IntoIterator<Item = Input>) -> Self {
        Self(Source::Parts(parts.into_iter().collect()), TrackChoice::Default, None)
    }

    /// A query and a document, for a model that scores them.
    pub(crate) fn pair(query: Input, document: Input) -> Self {
        Self(Source::Pair(Arc::new([query, document])), TrackChoice::Default, None)
    }

    /// A query and the documents that are read with it, for a model that scores them.
    pub(crate) fn list(query: &str, documents: impl IntoIterator<Item = String>) -> Self {
        let texts = std::iter::once(query.to_string()).chain(documents).map(Input::text);
        Self(Source::List(texts.collect()), TrackChoice::Default, None)
    }

    /// Whether it is a query and a document, or several.
    pub(crate) fn is_pair(&self) -> bool {
        matches!(self.0, Source::Pair(_) | Source::List(_))
    }

    /// Bytes that are cut into tokens; `None` for what holds anything but text.
    pub(crate) fn text_bytes(&self) -> Option<usize> {
        match &self.0 {
            Source::Text(text) => Some(text.len()),
            Source::Pair(pair) => pair.iter().map(Self::text_bytes).sum(),
            Source::Parts(parts) | Source::List(parts) => parts.iter().map(Self::text_bytes).sum(),
            _ => None,
        }
    }

    /// The inputs it is made of, in order: itself, where it is neither made of several nor a pair.
    pub(crate) fn leaves(&self) -> Vec<&Input> {
        match &self.0 {
            Source::Parts(parts) | Source::List(parts) => parts.iter().flat_map(Self::leaves).collect(),
            Source::Pair(pair) => pair.iter().flat_map(Self::leaves).collect(),
            _ => vec![self],
        }
    }

    /// The kinds of what it is made of, each once.
    pub(crate) fn modalities(&self) -> Vec<Modality> {
        let mut kinds: Vec<Modality> = self.leaves().into_iter().map(Self::modality).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
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

    /// How many a second the frames of a list are; by default as many as the model was made for. It counts where a model reads
    /// the times of frames, and is of no effect on other inputs: files say it themselves.
    ///
    /// # Panics
    /// Unless it is a positive number.
    #[must_use]
    pub fn frame_rate(mut self, per_second: f64) -> Self {
        assert!(per_second > 0.0 && per_second.is_finite(), "frames follow each other at a positive rate");
        self.2 = Some(per_second);
        self
    }

    /// The files it is read from.
    pub(crate) fn files(&self) -> Vec<&MediaFile> {
        match &self.0 {
            Source::ImageFile(file) | Source::VideoFile(file) | Source::AudioFile(file) => vec![file],
            Source::VideoFrameFiles(files) => files.iter().collect(),
            Source::Parts(parts) => parts.iter().flat_map(Self::files).collect(),
            Source::Pair(pair) => pair.iter().flat_map(Self::files).collect(),
            _ => Vec::new(),
        }
    }

    /// The same input, whose files are opened once from here on: its header is read before there is room for its content, and what
    /// is decoded then is the file that was measured.
    pub(crate) fn kept(&self) -> Self {
        let source = match &self.0 {
            Source::ImageFile(file) => Source::ImageFile(file.kept()),
            Source::VideoFile(file) => Source::VideoFile(file.kept()),
            Source::AudioFile(file) => Source::AudioFile(file.kept()),
            Source::VideoFrameFiles(files) => Source::VideoFrameFiles(files.iter().map(MediaFile::kept).collect()),
            Source::Parts(parts) => Source::Parts(parts.iter().map(Self::kept).collect()),
            Source::Pair(pair) => Source::Pair(Arc::new([pair[0].kept(), pair[1].kept()])),
            in_memory => in_memory.clone(),
        };
        Self(source, self.1.clone(), self.2)
    }

    /// What kind of input it is; of one made of several the first kind that is not text.
    pub fn modality(&self) -> Modality {
        let of_all = |parts: &[Input]| {
            parts.iter().map(Self::modality).find(|kind| *kind != Modality::Text).unwrap_or(Modality::Text)
        };
        match &self.0 {
            Source::Text(_) | Source::List(_) => Modality::Text,
            Source::Parts(parts) => of_all(parts),
            Source::Pair(pair) => of_all(&pair[..]),
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
            Source::ImageFile(file) | Source::VideoFile(file) | Source::AudioFile(file) => {
                write!(f, "{}({})", self.modality(), file.path().display())
            }
            Source::Parts(parts) => f.debug_tuple("Parts").field(parts).finish(),
            Source::Pair(pair) => f.debug_tuple("Pair").field(pair).finish(),
            _ => write!(f, "{}(..)", self.modality()),
        }
    }
}

impl From<&str> for Input {
    fn from(text: &str) -> Self {
        Input::text(text)
    }
}

impl From<String> for Input {
    fn from(text: String) -> Self {
        Input::text(text)
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
