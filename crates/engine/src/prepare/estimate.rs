//! What an item needs of the memory budget, computed from its header before anything of it is decoded.

use std::sync::{Arc, Mutex, PoisonError};

use omniburn_media::{
    AudioSource, ImageSource, ImageTarget, MemoryEstimate, SquareFit, SquareTarget, VideoOptions, VideoSource,
};
use omniburn_media::{audio_track_estimate, frames_estimate, image_estimate, video_estimate};
use omniburn_models::family::{AudioForm, ImageForm, RowOutputs};
use omniburn_models::record::{AudioPreprocess, Modality, RecordHeader};

use super::preparer::{ImagePreprocessor, Prepared, Preparer, TOKENISE_BYTES, longest_clip_s};
use crate::call::{Input, Request, Source};
use crate::error::{ItemError, guarded};
use crate::forms::{Medium, Rows};
use crate::memory::{Budget, Pool};

/// What an item needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ItemEstimate {
    /// While it is read and prepared, and what is kept of that.
    media: MemoryEstimate,
    /// From what is kept to its vector.
    share: u64,
    /// Whether it may be of several segments: then its decoder works on the next while one is computed.
    streams: bool,
    /// Rows it will be, about: tokens, patches or mel frames.
    pub rows: usize,
}

impl ItemEstimate {
    /// Bytes at most at any moment.
    pub(crate) fn bytes(&self) -> u64 {
        if self.streams {
            return self.media.peak + self.media.kept + self.share;
        }
        self.media.peak.max(self.media.kept + self.share)
    }
}

/// Rows enough for the ids around a medium: prefix, ends, suffix, or a prompt without its instruction.
const FRAME_ROWS: usize = 64;

/// Rows enough for the time in front of a group of frames and the ends around it.
const STAMP_ROWS: usize = 16;

/// Estimates what items take of the memory that all callers share.
#[derive(Debug)]
pub(crate) struct Estimator {
    preparer: Arc<Preparer>,
    pool: Arc<Pool>,
    pub budget: Budget,
    /// Held while a short text is cut into tokens without room in the budget.
    short_text: Mutex<()>,
}

impl Estimator {
    pub(crate) fn new(preparer: Arc<Preparer>, pool: Arc<Pool>, budget: Budget) -> Self {
        Self { preparer, pool, budget, short_text: Mutex::default() }
    }

    fn header(&self) -> &RecordHeader {
        self.preparer.header()
    }

    /// What an image, audio or video needs; it reads headers, and refuses what would be refused when decoded.
    pub(crate) fn estimate(&self, input: &Input, request: &Request) -> Result<ItemEstimate, ItemError> {
        if let Some(over) = request.over() {
            return Err(over);
        }
        guarded(|| self.estimate_unguarded(input, request))
    }

    fn estimate_unguarded(&self, input: &Input, request: &Request) -> Result<ItemEstimate, ItemError> {
        self.preparer.check_files_and_take(input)?;
        if let Some(bytes) = input.text_bytes() {
            return Ok(self.long_text_estimate(bytes, request));
        }
        if matches!(input.0, Source::Parts(_) | Source::Pair(_)) {
            return self.estimate_of_several(input, request);
        }
        let (media, shape) = self.medium_estimate(input, request)?;
        let streams = matches!(
            input.0,
            Source::VideoFile(_) | Source::VideoBytes(_) | Source::AudioFile(_) | Source::AudioBytes(_)
        ) || matches!(input.0, Source::AudioSamples(..));
        Ok(ItemEstimate {
            media,
            share: self.share(shape) + self.features_bytes(shape.tokens(), request),
            streams,
            rows: shape.rows(),
        })
    }

    /// What an item of several parts, or a pair with media, needs: its parts are prepared one after the other, and their rows are
    /// kept until the last of them has gone through its tower.
    fn estimate_of_several(&self, input: &Input, request: &Request) -> Result<ItemEstimate, ItemError> {
        let (mut all, mut tokens) = (ItemEstimate::default(), FRAME_ROWS);
        for leaf in input.leaves() {
            if let Some(bytes) = leaf.text_bytes() {
                let text = self.long_text_estimate(bytes, request);
                all.media.peak = all.media.peak.max(all.media.kept + text.media.peak);
                (all.rows, tokens) = (all.rows + text.rows, tokens + text.rows);
                continue;
            }
            let (media, shape) = self.medium_estimate(leaf, request)?;
            all.media.peak = all.media.peak.max(all.media.kept + media.peak);
            all.media.kept += media.kept;
            all.share += self.share(shape);
            (all.rows, tokens) = (all.rows + shape.rows(), tokens + shape.tokens());
        }
        all.share += self.budget.text_unit(&[tokens]) + self.features_bytes(tokens, request);
        Ok(all)
    }

    /// What a medium needs while it is read and prepared, and the shape it will have.
    fn medium_estimate(&self, input: &Input, request: &Request) -> Result<(MemoryEstimate, Shape), ItemError> {
        let modality = input.modality();
        let preprocessor =
            matches!(modality, Modality::Image | Modality::Video).then(|| self.preparer.image_preprocessor(modality));
        let target = preprocessor.as_ref().map(|preprocessor| match preprocessor {
            ImagePreprocessor::Patches(preprocess) => ImageTarget::Patches(preprocess),
            ImagePreprocessor::Fitted(target) => ImageTarget::Fitted(*target),
        });
        let target = || target.as_ref().expect("images and videos have a target");
        let video = |source: &VideoSource| {
            let frames = self.preparer.frames_of(request)?;
            let options = VideoOptions { ffmpeg: self.preparer.ffmpeg.clone(), track: input.1.clone() };
            Ok::<_, ItemError>((video_estimate(source, &options, frames, target())?, frames))
        };
        let audio = |source: &AudioSource| audio_track_estimate(source, &input.1, &self.preparer.mel_settings());
        let (media, frames) = match &input.0 {
            Source::Text(_) | Source::Pair(_) | Source::Parts(_) | Source::List(_) => {
                return Err(ItemError::Request {
                    reason: "a text, a pair and an item of several parts are no media".into(),
                });
            }
            Source::ImageFile(file) => (image_estimate(ImageSource::File(file), target())?, 1),
            Source::ImageBytes(bytes) => (image_estimate(ImageSource::Bytes(bytes), target())?, 1),
            Source::ImagePixels(image) => (image_estimate(ImageSource::Pixels(image), target())?, 1),
            Source::VideoFrames(frames) => {
                let sources: Vec<ImageSource> = frames.iter().map(ImageSource::Pixels).collect();
                (frames_estimate(&sources, target())?, frames.len())
            }
            Source::VideoFrameFiles(files) => {
                let sources: Vec<ImageSource> = files.iter().map(ImageSource::File).collect();
                (frames_estimate(&sources, target())?, files.len())
            }
            Source::VideoFile(file) => video(&VideoSource::File(file.clone()))?,
            Source::VideoBytes(bytes) => video(&VideoSource::Bytes(bytes.clone(), "video".into()))?,
            Source::AudioFile(file) => (audio(&AudioSource::File(file.clone()))?, 0),
            Source::AudioBytes(bytes) => (audio(&AudioSource::Bytes(bytes.clone(), "audio".into()))?, 0),
            Source::AudioSamples(samples, rate) => (audio(&AudioSource::Samples(samples.clone(), *rate))?, 0),
        };
        let media = match (&preprocessor, &self.header().family.spec().audio) {
            // Windows of speech are padded to whole seconds, each beside the samples it was cut from.
            (None, Some(AudioForm::Windows { .. })) => {
                MemoryEstimate { peak: media.peak + 2 * media.kept, kept: 2 * media.kept }
            }
            // Each clip beside the samples it is made of, however short the audio is.
            (None, Some(AudioForm::Spectrogram { mels, .. })) => {
                let (clip, samples) = self.clip_size();
                let frames = (media.kept as usize).div_ceil(4 * mels);
                let kept = (4 * mels * clip * (frames.div_ceil(clip.max(1)) + 1)) as u64;
                // The whole of it at once, where several looks are taken at it, in f64 and in f32.
                let whole = if self.clip_looks() > 1 { 3 * media.kept } else { 0 };
                MemoryEstimate { peak: media.peak + whole + kept + 8 * samples as u64, kept }
            }
            _ => media,
        };
        // A token of an instruction is a byte at least.
        let instruction = request.instruction.as_ref().map_or(0, String::len);
        Ok((media, self.shape(modality, media.kept, frames, preprocessor.as_ref()).with_tokens(instruction)))
    }

    /// A text as tokens; `None` for other inputs, and for a long text where there is no room to cut it now.
    pub(crate) fn read_text(&self, input: &Input, request: &Request) -> Option<Result<Prepared, ItemError>> {
        let bytes = input.text_bytes()?;
        let room = self.pool.try_reserve(request.resolved_priority(), TOKENISE_BYTES * bytes as u64);
        // Short ones are cut in any case, so that what they need is known exactly: one at a time, within the base.
        let one = match room {
            Some(_) => None,
            None if bytes > SHORT_TEXT_BYTES => return None,
            None => Some(self.short_text.lock().unwrap_or_else(PoisonError::into_inner)),
        };
        let prepared = self.preparer.prepare(input.clone(), request);
        drop((room, one));
        Some(prepared)
    }

    /// What a text needs from its tokens on.
    pub(crate) fn text_estimate(&self, prepared: &Prepared, request: &Request) -> ItemEstimate {
        let rows = prepared.rows();
        ItemEstimate { share: self.text_share(rows, request), rows, ..ItemEstimate::default() }
    }

    /// What so many tokens need from there on, with vectors of their own where they are wanted: on the device, as they are
    /// read back, and as they are kept.
    fn text_share(&self, rows: usize, request: &Request) -> u64 {
        let spec = self.header().family.spec();
        let late = spec.outputs.rows().and_then(|rows| rows.late.as_ref());
        let widest = late.into_iter().flat_map(|late| &late.dense).map(|dense| dense.outputs).max().unwrap_or(0);
        let own = if request.rows.multi { 12 * spec.hidden.max(widest) as u64 } else { self.own_rows() };
        self.budget.text_item(rows) + rows as u64 * own
    }

    /// What a text of so many bytes needs at most, before its tokens are counted.
    fn long_text_estimate(&self, bytes: usize, request: &Request) -> ItemEstimate {
        let rows = self.preparer.most_rows(bytes, request.role);
        let media = MemoryEstimate { peak: TOKENISE_BYTES * bytes as u64, kept: 0 };
        ItemEstimate { media, share: self.text_share(rows, request), streams: false, rows }
    }

    /// What a prepared item needs from here to its vector.
    pub(crate) fn bytes_of(&self, prepared: &Prepared, before: &ItemEstimate, request: &Request) -> u64 {
        match prepared {
            Prepared::Text { sequence, .. } => self.text_share(sequence.len(), request),
            Prepared::Media(medium) => {
                medium.rows.bytes() + self.share_of(medium) + self.features_bytes(medium.tokens, request)
            }
            Prepared::Long(_) => before.bytes(),
        }
    }

    /// What a medium needs beside its rows.
    pub(crate) fn share_of(&self, medium: &Medium) -> u64 {
        match &medium.rows {
            Rows::Parts(parts) => {
                let shares: u64 = parts.iter().map(|part| self.share(self.shape_of(part, FRAME_ROWS))).sum();
                shares + self.budget.text_unit(&[medium.tokens])
            }
            one => self.share(self.shape_of(one, medium.tokens)),
        }
    }

    /// Bytes of the rows that media become and of what is added to them behind three layers, on the device, as they are read back
    /// and as they are kept, where they are wanted of a sequence of so many rows.
    fn features_bytes(&self, tokens: usize, request: &Request) -> u64 {
        let spec = self.header().family.spec();
        let wanted = request.features || spec.outputs.rows().is_some_and(RowOutputs::only_features);
        if wanted { (4 * 12 * spec.hidden * tokens) as u64 } else { 0 }
    }

    /// Bytes of a token's own vector on the device, as it is read back and as it is kept, of a model that gives nothing else.
    fn own_rows(&self) -> u64 {
        let spec = self.header().family.spec();
        if spec.outputs.rows().is_some_and(|forms| forms.alone) { 12 * spec.hidden.max(spec.vector) as u64 } else { 0 }
    }

    fn share(&self, shape: Shape) -> u64 {
        let budget = &self.budget;
        let own = shape.tokens() as u64 * self.own_rows();
        own + match shape {
            Shape::Patches { window, windows, tokens } => budget.patches_item(window, windows, tokens),
            Shape::Frames { window, frames, tokens } => budget.frames_item(window, frames, tokens),
            Shape::FittedImages { patches: Some(patches), tokens, .. } => budget.patches_item(patches, 1, tokens),
            Shape::FittedImages { tokens, .. } => budget.square_unit(1) + budget.text_unit(&[tokens]),
            Shape::AudioWindows { longest, tokens, .. } => budget.audio_unit(&[longest]) + budget.text_unit(&[tokens]),
        }
    }

    fn shape_of(&self, rows: &Rows, tokens: usize) -> Shape {
        match rows {
            Rows::Patches(patches) => {
                let grid = patches.grid();
                Shape::Patches { window: grid.h * grid.w, windows: grid.t, tokens }
            }
            Rows::Mel(mel) => Shape::Frames { window: self.audio_window(mel.frames()), frames: mel.frames(), tokens },
            // Never one of several itself.
            Rows::Parts(_) => Shape::FittedImages { count: 0, patches: None, tokens },
            Rows::FittedImages(images) => {
                let patches = (0..images.count()).filter_map(|index| images.patches(index)).max();
                Shape::FittedImages { count: images.count(), patches, tokens: FRAME_ROWS }
            }
            Rows::AudioWindows(windows) => {
                let longest = windows.iter().map(|mel| mel.frames()).max().unwrap_or(0);
                Shape::AudioWindows {
                    longest,
                    frames: windows.iter().map(|mel| mel.frames()).sum(),
                    tokens: FRAME_ROWS,
                }
            }
        }
    }

    /// The shape of what will be kept in so many bytes.
    fn shape(&self, modality: Modality, kept: u64, frames: usize, preprocessor: Option<&ImagePreprocessor>) -> Shape {
        let spec = self.header().family.spec();
        match (preprocessor, spec.image) {
            (Some(ImagePreprocessor::Patches(preprocess)), Some(ImageForm::Patches { merge, .. })) => {
                let row = 3 * preprocess.temporal_patch as usize * (preprocess.patch as usize).pow(2);
                let patches = (kept as usize).div_ceil(row.max(1));
                let windows = match modality {
                    Modality::Video => frames.div_ceil(preprocess.temporal_patch.max(1) as usize).max(1),
                    _ => 1,
                };
                let stamped = self.header().family.parts_form().is_some_and(|form| form.stamps.is_some());
                let stamps = if stamped { windows * STAMP_ROWS } else { 0 };
                let tokens = patches.div_ceil(merge * merge) + FRAME_ROWS + stamps;
                Shape::Patches { window: patches.div_ceil(windows), windows, tokens }
            }
            (Some(ImagePreprocessor::Fitted(SquareTarget { fit: SquareFit::Patches { most, .. }, .. })), _) => {
                Shape::FittedImages { count: frames, patches: Some(*most as usize), tokens: FRAME_ROWS }
            }
            (Some(_), _) => Shape::FittedImages { count: frames, patches: None, tokens: FRAME_ROWS },
            (None, _) => {
                let frames = (kept as usize).div_ceil(4 * self.preparer.mel_settings().mels as usize);
                match spec.audio.as_ref().and_then(|audio| audio.features(frames)) {
                    Some(features) => {
                        Shape::Frames { window: self.audio_window(frames), frames, tokens: features + FRAME_ROWS }
                    }
                    None => {
                        let settings = self.preparer.mel_settings();
                        let clip_frames = match spec.audio {
                            Some(AudioForm::Spectrogram { .. }) => self.clip_size().0,
                            _ => longest_clip_s() * (settings.sample_rate_hz / settings.hop_samples.max(1)) as usize,
                        };
                        Shape::AudioWindows { longest: frames.min(clip_frames), frames, tokens: FRAME_ROWS }
                    }
                }
            }
        }
    }

    /// Mel frames and samples of a clip, where audio is brought to clips of one length.
    fn clip_size(&self) -> (usize, usize) {
        let audio = self.header().preprocess.audio.as_ref();
        let samples = audio.and_then(|audio| audio.clip.as_ref()).map_or(0, |clip| clip.samples as usize);
        (self.clip_looks() * audio.and_then(AudioPreprocess::clip_frames).unwrap_or(1), samples)
    }

    /// Looks at longer audio that make one clip.
    fn clip_looks(&self) -> usize {
        let clip = self.header().preprocess.audio.as_ref().and_then(|audio| audio.clip.as_ref());
        if clip.is_some_and(|clip| clip.fused) { 4 } else { 1 }
    }

    /// Mel frames of the longest window that the audio tower reads of a clip.
    fn audio_window(&self, frames: usize) -> usize {
        match &self.header().family.spec().audio {
            Some(AudioForm::Mel(audio)) => audio.window_frames(),
            Some(AudioForm::Chunked(_)) => frames.max(1),
            _ => 1,
        }
    }
}

/// Texts up to this length are cut into tokens also where the budget has no room at the moment.
const SHORT_TEXT_BYTES: usize = 4 << 10;

/// What a medium is to its tower.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Patches { window: usize, windows: usize, tokens: usize },
    Frames { window: usize, frames: usize, tokens: usize },
    FittedImages { count: usize, patches: Option<usize>, tokens: usize },
    AudioWindows { longest: usize, frames: usize, tokens: usize },
}

impl Shape {
    /// The same with more rows that enter the backbone.
    fn with_tokens(mut self, more: usize) -> Self {
        match &mut self {
            Shape::Patches { tokens, .. }
            | Shape::Frames { tokens, .. }
            | Shape::FittedImages { tokens, .. }
            | Shape::AudioWindows { tokens, .. } => *tokens += more,
        }
        self
    }

    /// Rows that enter the backbone.
    fn tokens(self) -> usize {
        match self {
            Shape::Patches { tokens, .. }
            | Shape::Frames { tokens, .. }
            | Shape::FittedImages { tokens, .. }
            | Shape::AudioWindows { tokens, .. } => tokens,
        }
    }

    fn rows(self) -> usize {
        match self {
            Shape::Patches { window, windows, .. } => window * windows,
            Shape::Frames { frames, .. } | Shape::AudioWindows { frames, .. } => frames,
            // As many as the map of an image has cells, or as patches.
            Shape::FittedImages { count, patches, .. } => count * patches.unwrap_or(49),
        }
    }
}
