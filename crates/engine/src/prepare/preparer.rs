//! From inputs to numbers, on the caller's threads: everything that needs no device.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use omniburn_media::{AudioReader, AudioSource, RgbImage, SEGMENT_SECONDS, TextToken, TextTokenizer, VisionPreprocess};
use omniburn_media::{
    ClipCutter, HertzRange, MediaError, MelPreprocess, MelScale, SquareTarget, TrackChoice, Video, VideoOptions,
    VideoSource, decibel_mel, decode_image, decode_media_file, image_patches, log_mel, log_mel_mirrored,
    log_mel_of_least, sample_times, sampled_patches,
};
use omniburn_media::{PairCut, PairIds, PlacedIds, PromptPair, Truncation};
use omniburn_models::blocks::{LateInteraction, QueryExpansion};
use omniburn_models::family::{AudioForm, ImageForm, PairForm};
use omniburn_models::record::{
    AudioPreprocess, ClipFill, ClipPreprocess, Modality, PixelPreprocess, RecordFolder, RecordHeader,
};

use super::chunks::{chunks, chunks_at};
use super::prompt::{self, Around};
use crate::call::{Input, LateChunks, Request, Role, Source, Span};
use crate::error::{ItemError, guarded};
use crate::forms::{FittedImages, Layout, Medium, Rows, Sequence, square_target};

/// Bytes that cutting a text into tokens takes for each of its own: 207 measured (tokenizers 0.23.2, a text of 1 MiB).
pub(super) const TOKENISE_BYTES: u64 = 256;

/// Frames sampled from a video where neither the request nor the record says.
const DEFAULT_FRAMES: u32 = 32;

/// Rows of a medium that are taken whatever the longest text: the largest video and a segment of 240 s of audio, as
/// published, are 6,272 and 6,000 rows. Positions are computed, so a checkpoint made for shorter texts reads them, too.
const MEDIA_ROWS: usize = 8192;

/// An input as numbers.
pub(crate) enum Prepared {
    Text {
        sequence: Sequence,
        truncated: bool,
        /// Of a query and a document, what was cut of them.
        pair: Option<PairCut>,
        /// Bytes of each chunk that has a vector of its own.
        chunks: Vec<Range<usize>>,
    },
    Media(Medium),
    /// Audio or video of more than one segment; one segment is in memory at a time.
    Long(Box<Long>),
}

/// Audio or video whose segments are prepared one after the other.
pub(crate) struct Long {
    modality: Modality,
    around: Around,
    /// The first segment, which showed that there is another.
    first: Option<Medium>,
    source: LongSource,
}

pub(super) enum LongSource {
    // Boxed: it is much the larger of the two.
    Audio(Box<AudioReader>),
    Video { video: Video, at_s: f64, frames: usize },
}

/// A medium that was opened.
pub(super) enum Opened {
    /// As its tower reads it.
    Whole(Part),
    /// To be read segment by segment.
    Long(LongSource),
}

/// A medium as its tower reads it.
pub(super) struct Part {
    pub modality: Modality,
    pub rows: Rows,
    /// Of a video, when each of its groups of frames is shown, in seconds.
    pub stamps: Vec<f64>,
    /// Of a video, how long each of them is shown, in seconds.
    pub group_s: f64,
}

impl Prepared {
    /// Rows it will be: tokens, patches of the tower or mel frames.
    pub(crate) fn rows(&self) -> usize {
        match self {
            Prepared::Text { sequence, .. } => sequence.len(),
            Prepared::Media(medium) => medium.rows.rows(),
            Prepared::Long(long) => long.first.as_ref().map_or(0, |m| m.rows.rows()),
        }
    }
}

/// What a model of late interaction lays into the texts of a role; nothing of other models.
#[derive(Debug, Clone, Copy, Default)]
struct RowLayout {
    /// Id in the second place.
    marker: Option<u32>,
    /// What stands behind.
    expansion: Option<QueryExpansion>,
    /// Tokens at most, where that is less than what the model reads.
    most: Option<usize>,
}

/// Reads, decodes and tokenises what a record's model reads.
#[derive(Debug)]
pub(crate) struct Preparer {
    pub record: Arc<RecordFolder>,
    pub tokenizer: TextTokenizer,
    /// The modalities that are taken; `None`: all the record has.
    pub modalities: Option<Vec<Modality>>,
    /// The program asked to decode videos whose codec nothing here decodes.
    pub ffmpeg: Option<PathBuf>,
}

impl Preparer {
    /// Of the record that inputs are prepared for.
    pub(crate) fn header(&self) -> &RecordHeader {
        self.record.header()
    }

    /// Everything that needs no device: reading, decoding, tokenising. A decoder that panics costs only its item.
    pub(crate) fn prepare(&self, input: Input, request: &Request) -> Result<Prepared, ItemError> {
        if let Some(over) = request.over() {
            return Err(over);
        }
        guarded(|| self.prepare_unguarded(input, request))
    }

    fn prepare_unguarded(&self, input: Input, request: &Request) -> Result<Prepared, ItemError> {
        self.check_files_and_take(&input)?;
        if request.features && input.modality() == Modality::Text {
            let reason = "it goes through no tower, so that it has no features".into();
            return Err(ItemError::ModalityAbsent { modality: Modality::Text, reason });
        }
        match &input.0 {
            Source::Text(text) => self.prepare_text(text, request),
            Source::Pair(pair) => self.prepare_pair(pair, request),
            Source::List(texts) => self.prepare_list(texts, request),
            Source::Parts(_) => self.prepare_parts(&input, request),
            _ => self.prepare_lone(&input, request),
        }
    }

    /// A medium that is an item by itself.
    pub(super) fn prepare_lone(&self, input: &Input, request: &Request) -> Result<Prepared, ItemError> {
        match self.open(input, request)? {
            Opened::Whole(part) => {
                let around = self.around(part.modality, request)?;
                self.medium(part, &around, None).map(Prepared::Media)
            }
            Opened::Long(source) => self.first_segment(input.modality(), source, request),
        }
    }

    /// Opens a medium, and decodes what is decoded whole.
    pub(super) fn open(&self, input: &Input, request: &Request) -> Result<Opened, ItemError> {
        let track = &input.1;
        let image =
            |rows: Rows| Ok(Opened::Whole(Part { modality: Modality::Image, rows, stamps: Vec::new(), group_s: 0.0 }));
        let frames = |rows: Rows, count: usize| {
            let per_second = input.2.unwrap_or_else(|| self.list_rate());
            let times: Vec<f64> = (0..count).map(|frame| frame as f64 / per_second).collect();
            let (stamps, group_s) = (self.stamps(&times), self.group_frames() as f64 / per_second);
            Ok(Opened::Whole(Part { modality: Modality::Video, rows, stamps, group_s }))
        };
        match &input.0 {
            Source::ImageFile(file) => {
                let rows = self.image(&decode_media_file(file)?);
                image(rows.map_err(|error| error.of(file.path().display().to_string()))?)
            }
            Source::ImageBytes(bytes) => image(self.image(&decode_image(bytes, "image")?)?),
            Source::ImagePixels(pixels) => image(self.image(pixels)?),
            Source::VideoFrames(list) => {
                let rows = self.frames(list.len(), |n, each| each(&list[n]))?;
                frames(rows, list.len())
            }
            Source::VideoFrameFiles(files) => {
                let rows = self.frames(files.len(), |n, each| {
                    let name = || files[n].path().display().to_string();
                    // One at a time, so that a list of a thousand photos is not held decoded.
                    each(&decode_media_file(&files[n])?).map_err(|error| error.of(name()))
                })?;
                frames(rows, files.len())
            }
            Source::VideoFile(file) => self.open_video(&VideoSource::File(file.clone()), track, request),
            Source::VideoBytes(bytes) => {
                self.open_video(&VideoSource::Bytes(bytes.clone(), "video".into()), track, request)
            }
            Source::AudioFile(file) => self.open_audio(&AudioSource::File(file.clone()), track),
            Source::AudioBytes(bytes) => self.open_audio(&AudioSource::Bytes(bytes.clone(), "audio".into()), track),
            Source::AudioSamples(samples, rate_hz) => {
                self.open_audio(&AudioSource::Samples(samples.clone(), *rate_hz), track)
            }
            Source::Text(_) | Source::Pair(_) | Source::Parts(_) | Source::List(_) => {
                Err(ItemError::Request { reason: "a text, a pair and an item of several parts are no media".into() })
            }
        }
    }

    /// An image as its tower reads it.
    fn image(&self, image: &RgbImage) -> Result<Rows, MediaError> {
        match self.image_preprocessor(Modality::Image) {
            ImagePreprocessor::Patches(preprocess) => Ok(Rows::Patches(Arc::new(image_patches(image, &preprocess)?))),
            ImagePreprocessor::Fitted(target) => {
                let mut images = FittedImages::new(target);
                images.push(image);
                Ok(Rows::FittedImages(Arc::new(images)))
            }
        }
    }

    /// Frames as their tower reads them; `frame` gives the frame of a place to what takes it.
    fn frames(
        &self,
        count: usize,
        mut frame: impl FnMut(usize, &mut dyn FnMut(&RgbImage) -> Result<(), MediaError>) -> Result<(), MediaError>,
    ) -> Result<Rows, MediaError> {
        match self.image_preprocessor(Modality::Video) {
            ImagePreprocessor::Patches(preprocess) => {
                let mut clip = ClipCutter::new(count, &preprocess)?;
                (0..count).try_for_each(|n| frame(n, &mut |image| clip.push(image)))?;
                Ok(Rows::Patches(Arc::new(clip.finish())))
            }
            ImagePreprocessor::Fitted(target) => {
                let mut images = FittedImages::new(target);
                let mut push = |image: &RgbImage| {
                    images.push(image);
                    Ok(())
                };
                (0..count).try_for_each(|n| frame(n, &mut push))?;
                if images.count() == 0 {
                    return Err(MediaError::Empty { name: "video".into(), expected: "frame" });
                }
                Ok(Rows::FittedImages(Arc::new(images)))
            }
        }
    }

    /// What stands around a lone medium.
    fn around(&self, modality: Modality, request: &Request) -> Result<Around, ItemError> {
        prompt::around(self.header(), &self.tokenizer, request, modality)
    }

    fn prepare_text(&self, text: &str, request: &Request) -> Result<Prepared, ItemError> {
        if let Some(prompt) = self.header().family.item_prompt() {
            return self.prepare_prompted(prompt, &[text], request);
        }
        let prefix = prompt::prefix(&self.header().prompts, request.role);
        if let Some(chunks) = &request.late_chunks {
            return self.prepare_chunks(text, prefix, chunks, request);
        }
        let RowLayout { marker, expansion, most } = self.row_layout(request.role);
        let limit = most.unwrap_or_else(|| self.header().family.max_tokens());
        let marked = usize::from(marker.is_some());
        let mut ids =
            self.tokenizer.text_ids(prefix, text, limit - marked, request.truncation).map_err(|e| match e {
                MediaError::TooLong { found, limit } => {
                    MediaError::TooLong { found: found + marked, limit: limit + marked }
                }
                other => other,
            })?;
        ids.ids = LateInteraction::marked(marker, ids.ids);
        if ids.ids.is_empty() {
            return Err(ItemError::Empty { modality: Modality::Text });
        }
        let skipped = self.skipped(prefix)?;
        if skipped >= ids.ids.len() {
            // Cut so far that only the prompt is left.
            return Err(ItemError::TooLong { tokens: skipped + 1, limit });
        }
        let end = self.tokenizer.trailing_specials().first().copied();
        let mut read = self.header().family.text_rule().apply(ids.ids, limit, end);
        let mut unseen = 0;
        if let Some(QueryExpansion { id, length, attended, .. }) = expansion {
            let added = length.saturating_sub(read.len());
            read.resize(read.len() + added, id);
            unseen = if attended { 0 } else { added };
        }
        let sequence = Sequence { ids: read, skipped, unseen, ..Sequence::default() };
        Ok(Prepared::Text { sequence, truncated: ids.truncated, pair: None, chunks: Vec::new() })
    }

    /// A text whose chunks have vectors of their own. What the tokenizer puts in front belongs to the first, with the prefix, and
    /// what it puts behind to the last.
    fn prepare_chunks(
        &self,
        text: &str,
        prefix: &str,
        wanted: &LateChunks,
        request: &Request,
    ) -> Result<Prepared, ItemError> {
        let limit = self.header().family.max_tokens();
        let PlacedIds { ids, places, truncated } =
            self.tokenizer.placed_ids(prefix, text, limit, request.truncation)?;
        let found = match wanted {
            LateChunks::Most(most) => chunks(text, &places, most.get()),
            LateChunks::At(starts) => chunks_at(starts, &places).map_err(|index| ItemError::Request {
                reason: match truncated {
                    true => format!("chunk {index} lies behind the {limit} tokens that the model reads"),
                    false => format!("chunk {index} of the text has no token"),
                },
            })?,
        };
        let (rows, bytes): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        if rows.is_empty() {
            return Err(ItemError::Empty { modality: Modality::Text });
        }
        let sequence = Sequence { ids, chunks: rows, ..Sequence::default() };
        Ok(Prepared::Text { sequence, truncated, pair: None, chunks: bytes })
    }

    /// What a model of late interaction lays into texts of a role.
    fn row_layout(&self, role: Role) -> RowLayout {
        let late = self.header().family.spec().outputs.rows().and_then(|rows| rows.late.as_ref());
        match (late, role) {
            (Some(late), Role::Query) => {
                let most = late.expansion.filter(|expansion| expansion.fixed).map(|expansion| expansion.length);
                RowLayout { marker: late.query_marker, expansion: late.expansion, most }
            }
            (Some(late), Role::Document) => {
                RowLayout { marker: late.document_marker, expansion: None, most: late.document_tokens }
            }
            _ => RowLayout::default(),
        }
    }

    /// Rows of a text of this many tokens at most.
    pub(crate) fn most_rows(&self, tokens: usize, role: Role) -> usize {
        let (family, RowLayout { marker, expansion, .. }) = (&self.header().family, self.row_layout(role));
        let rows = family.text_rule().rows(tokens + usize::from(marker.is_some()), family.max_tokens());
        rows.max(expansion.map_or(0, |expansion| expansion.length))
    }

    /// Tokens of a text with its prefix, whatever its length.
    pub(crate) fn count_tokens(&self, text: &str, request: &Request) -> Result<usize, ItemError> {
        let prefix = prompt::prefix(&self.header().prompts, request.role);
        let marked = usize::from(self.row_layout(request.role).marker.is_some());
        guarded(|| Ok(self.tokenizer.ids(&[prefix, text].concat())?.len() + marked))
    }

    /// The prefix of a role.
    pub(crate) fn prefix(&self, role: Role) -> &str {
        prompt::prefix(&self.header().prompts, role)
    }

    /// The tokens of the role's prefix and a text, with their places.
    pub(crate) fn tokens(&self, text: &str, request: &Request, specials: bool) -> Result<Vec<TextToken>, ItemError> {
        guarded(|| Ok(self.tokenizer.tokens(&[self.prefix(request.role), text].concat(), specials)?))
    }

    /// Bytes that [`Preparer::tokens`] takes at most: as for ids, and a string and a place for each.
    pub(crate) fn tokens_bytes(&self, text: &str) -> u64 {
        text.len().max(1) as u64 * 2 * TOKENISE_BYTES
    }

    /// A query and a document as one sequence, as the model's pairs are laid out.
    fn prepare_pair(&self, pair: &[Input; 2], request: &Request) -> Result<Prepared, ItemError> {
        let (family, prompts) = (&self.header().family, &self.header().prompts);
        let [query, document] = match family.parts_form() {
            Some(form) => match self.pair_texts(form, pair)? {
                Some(texts) => texts,
                None => return self.prepare_media_pair(form, pair, request),
            },
            None => match pair {
                [Input(Source::Text(query), ..), Input(Source::Text(document), ..)] => {
                    [query, document].map(|text| text.to_string())
                }
                _ => {
                    let modality = pair.iter().map(Input::modality).find(|kind| *kind != Modality::Text);
                    let reason = format!("the family `{}` scores texts", family.name());
                    return Err(ItemError::ModalityAbsent { modality: modality.unwrap_or(Modality::Text), reason });
                }
            },
        };
        let limit = family.max_tokens();
        let (query, document) = ([&*prompts.query, &query].concat(), [&*prompts.document, &document].concat());
        let PairIds { ids, types, cut } = match family.spec().outputs.pairs() {
            Some(PairForm::Template { .. }) => self.tokenizer.pair_ids(&query, &document, limit, request.truncation)?,
            Some(PairForm::Prompt(prompt)) => {
                let [instruction, before_query, before_document] = &prompt.labels;
                let asked = request.instruction.as_ref().unwrap_or(&prompt.instruction);
                let query = [instruction, asked, before_query, &query, before_document].map(String::as_str).concat();
                let (before, behind) = (prompt.before.as_str(), prompt.behind.as_str());
                let pair = PromptPair { before, query: &query, document: &document, behind };
                let cut = self.cuts_pair(request)?;
                self.tokenizer.prompt_pair_ids(&pair, limit, cut)?
            }
            Some(PairForm::List(_)) | None => {
                return Err(ItemError::Request { reason: "the model scores no pairs".into() });
            }
        };
        if ids.is_empty() {
            return Err(ItemError::Empty { modality: Modality::Text });
        }
        self.refuse_placeholders(&ids)?;
        let types = self.token_types(types)?;
        let truncated = cut.query || cut.document;
        let sequence = Sequence { ids, types, ..Sequence::default() };
        Ok(Prepared::Text { sequence, truncated, pair: Some(cut), chunks: Vec::new() })
    }

    /// Whether a pair in a prompt may be cut.
    pub(super) fn cuts_pair(&self, request: &Request) -> Result<bool, ItemError> {
        match request.truncation {
            Truncation::Error => Ok(false),
            Truncation::Right => Ok(true),
            Truncation::Left => {
                let reason = "a pair in a prompt is cut at the end of its document, never at a beginning".into();
                Err(ItemError::Request { reason })
            }
        }
    }

    /// Token types as the model reads them; none where it tells none apart, or all are of type 0.
    fn token_types(&self, types: Vec<u32>) -> Result<Vec<u8>, ItemError> {
        let Some(PairForm::Template { types: known @ 2.. }) = self.header().family.spec().outputs.pairs() else {
            return Ok(Vec::new());
        };
        if types.iter().all(|kind| *kind == 0) {
            return Ok(Vec::new());
        }
        let read = types.into_iter().map(|kind| u8::try_from(kind).ok().filter(|kind| kind < known)).collect();
        let unknown = || {
            let source = format!("its template for pairs has more than the {known} token types of the model").into();
            MediaError::Tokenizer { name: "tokenizer.json".into(), source }.into()
        };
        Option::ok_or_else(read, unknown)
    }

    /// Rows in front of a text with this prefix that its poolings leave out.
    fn skipped(&self, prefix: &str) -> Result<usize, ItemError> {
        match self.header().family.spec().skips_prompt && !prefix.is_empty() {
            true => Ok(self.tokenizer.prefix_rows(prefix)?),
            false => Ok(0),
        }
    }

    fn open_audio(&self, source: &AudioSource, track: &TrackChoice) -> Result<Opened, ItemError> {
        let reader = AudioReader::open_track(source, track, self.mel_settings().sample_rate_hz)?;
        Ok(Opened::Long(LongSource::Audio(Box::new(reader))))
    }

    /// Frames to sample from a video, refused where the backbone cannot read so many.
    pub(crate) fn frames_of(&self, request: &Request) -> Result<usize, ItemError> {
        let frames = request.frames.or(self.header().preprocess.video_frames).unwrap_or(DEFAULT_FRAMES) as usize;
        // Each group of frames is at least one row: refuse before decoding what the backbone cannot read.
        let limit = self.media_limit();
        let least = match self.image_preprocessor(Modality::Video) {
            ImagePreprocessor::Patches(preprocess) => frames / preprocess.temporal_patch as usize,
            // Their mean is taken, so only time sets a bound: the longest video of the other family is 16,384 frames.
            ImagePreprocessor::Fitted(_) => frames.div_ceil(2),
        };
        if least > limit {
            return Err(ItemError::TooLong { tokens: least, limit });
        }
        Ok(frames)
    }

    fn open_video(&self, source: &VideoSource, track: &TrackChoice, request: &Request) -> Result<Opened, ItemError> {
        let frames = self.frames_of(request)?;
        let video = Video::open(source, &VideoOptions { ffmpeg: self.ffmpeg.clone(), track: track.clone() })?;
        Ok(Opened::Long(LongSource::Video { video, at_s: 0.0, frames }))
    }

    /// What has one segment as a medium, what has more with its first.
    fn first_segment(&self, modality: Modality, source: LongSource, request: &Request) -> Result<Prepared, ItemError> {
        let around = self.around(modality, request)?;
        let mut long = Long { modality, around, first: None, source };
        let first = self.decode_segment(&mut long)?;
        let first = first.ok_or(ItemError::Empty { modality })?;
        if long.source.has_more()? {
            long.first = Some(first);
            return Ok(Prepared::Long(Box::new(long)));
        }
        Ok(Prepared::Media(first))
    }

    /// The next segment of a long audio or video; `None` after the last.
    pub(crate) fn next_segment(&self, long: &mut Long, request: &Request) -> Result<Option<Medium>, ItemError> {
        if let Some(first) = long.first.take() {
            return Ok(Some(first));
        }
        if let Some(over) = request.over() {
            return Err(over);
        }
        guarded(|| self.decode_segment(long))
    }

    fn decode_segment(&self, long: &mut Long) -> Result<Option<Medium>, ItemError> {
        let Some((part, span)) = self.segment(&mut long.source)? else { return Ok(None) };
        self.medium(part, &long.around, Some(span)).map(Some)
    }

    /// The next segment of a source as its tower reads it; `None` after the last.
    pub(super) fn segment(&self, source: &mut LongSource) -> Result<Option<(Part, Span)>, ItemError> {
        Ok(match source {
            LongSource::Audio(reader) => {
                let Some(segment) = reader.next_segment()? else { return Ok(None) };
                let rows = self.audio(&segment.samples)?;
                let part = Part { modality: Modality::Audio, rows, stamps: Vec::new(), group_s: 0.0 };
                Some((part, Span { start_s: segment.start_s, end_s: segment.end_s }))
            }
            LongSource::Video { video, at_s, frames } => {
                let (start_s, end_s) = (*at_s, (*at_s + SEGMENT_SECONDS).min(video.duration_s()));
                if start_s > 0.0 && start_s >= end_s {
                    return Ok(None);
                }
                *at_s = start_s + SEGMENT_SECONDS;
                let times = sample_times(start_s..end_s, *frames);
                let rows = match self.image_preprocessor(Modality::Video) {
                    ImagePreprocessor::Patches(preprocess) => {
                        Rows::Patches(Arc::new(sampled_patches(video, start_s..end_s, *frames, &preprocess)?))
                    }
                    ImagePreprocessor::Fitted(target) => {
                        let mut images = FittedImages::new(target);
                        video.frames_at(&times, &mut |_, frame| {
                            images.push(frame);
                            Ok(())
                        })?;
                        Rows::FittedImages(Arc::new(images))
                    }
                };
                let stamps = self.stamps(&times);
                let group_s = self.group_frames() as f64 * (end_s - start_s) / (*frames).max(1) as f64;
                Some((Part { modality: Modality::Video, rows, stamps, group_s }, Span { start_s, end_s }))
            }
        })
    }

    /// A medium with the rows it will be, refused where the backbone does not read so many.
    fn medium(&self, part: Part, around: &Around, span: Option<Span>) -> Result<Medium, ItemError> {
        let layout = match around {
            Around::Frame(frame) => {
                let features = match (&part.rows, &self.header().family.spec().audio) {
                    (Rows::AudioWindows(windows), Some(AudioForm::Windows { rows, .. })) => {
                        // Each window has its own ends; one pair of them is counted below.
                        windows.len() * (rows + frame.tokens(0)) - frame.tokens(0)
                    }
                    // A finished vector.
                    (Rows::AudioWindows(_), Some(AudioForm::Spectrogram { .. })) => 1,
                    _ => self.features(&part)?,
                };
                Layout::framed(frame.clone(), features)
            }
            Around::Prompt { before, behind } => self.lay_medium(&part, [before, behind])?,
        };
        self.laid(part.modality, part.rows, layout, span)
    }

    /// What was laid out, refused where the backbone does not read so many rows.
    pub(super) fn laid(
        &self,
        modality: Modality,
        rows: Rows,
        layout: Layout,
        span: Option<Span>,
    ) -> Result<Medium, ItemError> {
        let (tokens, limit) = (layout.tokens(), self.media_limit());
        if tokens > limit {
            return Err(ItemError::TooLong { tokens, limit });
        }
        Ok(Medium { modality, rows, layout, tokens, span, digest: None, pair: None })
    }

    /// Feature rows that a medium gives.
    pub(super) fn features(&self, part: &Part) -> Result<usize, ItemError> {
        let spec = self.header().family.spec();
        let other = || {
            let reason = "the record prepares another form".into();
            ItemError::ModalityAbsent { modality: part.modality, reason }
        };
        match (&part.rows, spec.image, &spec.audio) {
            (Rows::Patches(patches), Some(ImageForm::Patches { merge, .. }), _) => {
                Ok(patches.grid().patches() / (merge * merge))
            }
            (Rows::FittedImages(images), Some(ImageForm::Pixels { rows, .. }), _) => {
                // Of a video, those of a frame.
                Ok(images.sides.first().and_then(|_| images.patches(0)).unwrap_or(rows))
            }
            (Rows::Mel(mel), _, Some(audio)) => audio.features(mel.frames()).ok_or_else(other),
            _ => Err(other()),
        }
    }

    /// Rows of a sequence with media at most.
    fn media_limit(&self) -> usize {
        let family = &self.header().family;
        let most = family.parts_form().map_or(MEDIA_ROWS, |form| form.max_rows);
        family.max_tokens().max(most)
    }

    /// How many a second the frames of a list are, where their caller does not say it.
    fn list_rate(&self) -> f64 {
        let form = self.header().family.parts_form();
        let said = form.and_then(|form| form.stamps.or(form.clock.map(|clock| clock.frames_per_second)));
        f64::from(said.unwrap_or(1).max(1))
    }

    /// Frames of a group; 1 where frames come in none.
    fn group_frames(&self) -> usize {
        match self.header().family.spec().image {
            Some(ImageForm::Patches { temporal_patch, .. }) => temporal_patch.max(1),
            _ => 1,
        }
    }

    /// When the groups of frames at these times are shown: in the middle of the first and the last frame of a group, where the
    /// last group repeats its last frame.
    ///
    /// # Source
    /// transformers 5.23.0, `Qwen3VLProcessor._calculate_timestamps`.
    fn stamps(&self, times: &[f64]) -> Vec<f64> {
        let middle = |group: &[f64]| group.first().zip(group.last()).map_or(0.0, |(first, last)| (first + last) / 2.0);
        times.chunks(self.group_frames()).map(middle).collect()
    }

    /// Refuses an input whose files are not there, or that is not taken. Of a pair or an item of several parts the kinds count
    /// first.
    pub(crate) fn check_files_and_take(&self, input: &Input) -> Result<(), ItemError> {
        let several = matches!(input.0, Source::Pair(_) | Source::Parts(_));
        if several {
            self.take(input)?;
        }
        input.files().into_iter().try_for_each(|file| check_file(file.path()))?;
        self.take(input)
    }

    /// Refuses an input that is not taken, whatever is in it.
    pub(super) fn take(&self, input: &Input) -> Result<(), ItemError> {
        let family = &self.header().family;
        let whole = match &input.0 {
            Source::Pair(pair) => &pair[..],
            _ => std::slice::from_ref(input),
        };
        let of_several = whole.iter().find(|input| matches!(input.0, Source::Parts(_)));
        if let Some(input) = of_several.filter(|_| family.parts_form().is_none()) {
            let reason = format!("the family `{}` takes no item made of several parts", family.name());
            return Err(ItemError::ModalityAbsent { modality: input.modality(), reason });
        }
        let refused = input.modalities().into_iter().find_map(|modality| Some((modality, self.refusal(modality)?)));
        refused.map_or(Ok(()), |(modality, reason)| Err(ItemError::ModalityAbsent { modality, reason }))
    }

    /// Why a modality is not taken; `None` where it is.
    pub(crate) fn refusal(&self, modality: Modality) -> Option<String> {
        let allowed = self.modalities.as_ref().is_none_or(|m| m.contains(&modality));
        match modality {
            _ if !allowed => Some("its tower was not allowed to load".into()),
            _ if self.header().family.takes(modality) => None,
            Modality::Audio => Some("the record has no audio tower".into()),
            Modality::Text => Some("the record has no text model".into()),
            _ => Some("the record has no image tower".into()),
        }
    }

    pub(crate) fn image_preprocessor(&self, modality: Modality) -> ImagePreprocessor {
        let preprocess = &self.header().preprocess;
        if let Some(target) = square_target(preprocess) {
            return ImagePreprocessor::Fitted(target);
        }
        let pixels = if modality == Modality::Video { &preprocess.video } else { &preprocess.image };
        let pixels = pixels.as_ref().expect("a record with an image tower says how images are prepared");
        ImagePreprocessor::Patches(vision_preprocess(pixels))
    }

    /// Samples at the tower's rate as it hears them: whole, in windows padded to whole seconds, or in clips of one length.
    fn audio(&self, samples: &[f32]) -> Result<Rows, MediaError> {
        let settings = self.mel_settings();
        let audio = self.header().preprocess.audio.as_ref();
        if let Some(clip) = audio.and_then(|audio| audio.clip.as_ref()) {
            let scale = if clip.fused { MelScale::Htk } else { MelScale::Slaney };
            let range = HertzRange { lowest: clip.lowest_hz, highest: clip.highest_hz, scale };
            let frames = audio.and_then(AudioPreprocess::clip_frames).unwrap_or(1);
            if clip.fused && samples.len() > clip.samples as usize {
                let mel = decibel_mel(samples, &settings, range)?;
                let looks = if mel.frames() > frames { mel.four_looks(frames) } else { mel };
                return Ok(Rows::AudioWindows(Arc::new(vec![looks])));
            }
            let clips = clips(samples, clip).map(|samples| decibel_mel(&samples, &settings, range));
            return Ok(Rows::AudioWindows(Arc::new(clips.collect::<Result<_, _>>()?)));
        }
        let Some(least_s) = audio.and_then(|audio| audio.whole_seconds) else {
            let mirrored = audio.is_some_and(|audio| audio.mirrored);
            let frames = match &self.header().family.spec().audio {
                _ if mirrored => log_mel_mirrored(samples, &settings),
                // Its stem makes a row of every frame.
                Some(AudioForm::Chunked(_)) => log_mel_of_least(samples, &settings, 1),
                _ => log_mel(samples, &settings),
            };
            return Ok(Rows::Mel(Arc::new(frames?)));
        };
        let rate = settings.sample_rate_hz as usize;
        let windows = speech_windows(samples, rate).into_iter().map(|window| {
            let mut padded = samples[window].to_vec();
            padded.resize(padded.len().div_ceil(rate).max(least_s as usize) * rate, 0.0);
            log_mel(&padded, &settings)
        });
        Ok(Rows::AudioWindows(Arc::new(windows.collect::<Result<_, _>>()?)))
    }

    pub(crate) fn mel_settings(&self) -> MelPreprocess {
        let audio = self.header().preprocess.audio.as_ref();
        mel_preprocess(audio.expect("a record with an audio tower says how audio is prepared"))
    }
}

/// How a record's tower looks at images.
pub(crate) enum ImagePreprocessor {
    Patches(VisionPreprocess),
    /// Whole images, each brought to the size its tower reads.
    Fitted(SquareTarget),
}

/// Mel frames of the longest window that speech may be cut into, with what a cut may move and what fills a second.
pub(crate) fn longest_clip_s() -> usize {
    SPEECH_WINDOW_S + 2
}

/// Clips of one length of samples, of which there is one at least: what is shorter fills one; of what is longer, as many as cover
/// it, spread evenly, first and last at its ends.
fn clips<'a>(samples: &'a [f32], clip: &ClipPreprocess) -> impl Iterator<Item = Cow<'a, [f32]>> {
    let (length, fill) = (clip.samples as usize, clip.fill);
    let count = samples.len().div_ceil(length).max(1);
    (0..count).map(move |index| match samples.len() >= length {
        true => {
            let start = (samples.len() - length) * index / (count - 1).max(1);
            Cow::Borrowed(&samples[start..start + length])
        }
        false => Cow::Owned(filled(samples, length, fill)),
    })
}

/// Samples brought to a length, which is more than they are.
fn filled(samples: &[f32], length: usize, fill: ClipFill) -> Vec<f32> {
    let times = match fill {
        ClipFill::RepeatPad => length / samples.len().max(1),
        ClipFill::Repeat => length / samples.len().max(1) + 1,
        ClipFill::Pad => 1,
    };
    let mut clip = Vec::with_capacity(length + samples.len());
    (0..if samples.is_empty() { 0 } else { times }).for_each(|_| clip.extend_from_slice(samples));
    clip.resize(length, 0.0);
    clip
}

/// Longest window of speech, in seconds. The model that ships was trained on two and three, and hears four as well: of 65
/// captions read by people, some over three seconds, windows of three and of four find 78.5 % alike.
const SPEECH_WINDOW_S: usize = 4;

/// Windows of about the same length, four seconds at most but for half a second on either side that a cut may move to
/// the quietest tenth of a second near it.
fn speech_windows(samples: &[f32], rate: usize) -> Vec<std::ops::Range<usize>> {
    let count = samples.len().div_ceil(SPEECH_WINDOW_S * rate).max(1);
    let (tenth, reach) = ((rate / 10).max(1), rate / 2);
    let loudness = |from: usize| -> f64 { samples[from..from + tenth].iter().map(|v| f64::from(*v).powi(2)).sum() };
    let cuts = (1..count).map(|i| {
        let middle = i * samples.len() / count;
        let first = middle - reach - tenth / 2;
        let quietest = (0..=2 * reach / (tenth / 2).max(1)).map(|step| first + step * (tenth / 2).max(1));
        let quietest = quietest.filter(|from| from + tenth <= samples.len());
        let best = quietest.min_by(|a, b| loudness(*a).total_cmp(&loudness(*b)));
        best.map_or(middle, |from| from + tenth / 2)
    });
    let mut bounds = vec![0];
    bounds.extend(cuts);
    bounds.push(samples.len());
    bounds.windows(2).map(|two| two[0]..two[1]).collect()
}

impl Long {
    pub(crate) fn modality(&self) -> Modality {
        self.modality
    }
}

impl LongSource {
    pub(super) fn has_more(&mut self) -> Result<bool, MediaError> {
        match self {
            LongSource::Audio(reader) => reader.has_more(),
            LongSource::Video { video, at_s, .. } => Ok(*at_s < video.duration_s()),
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

/// How a record's images are prepared, in the terms of the media crate.
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
        per_frame: p.per_frame,
    }
}

/// How a record's audio is prepared, in the terms of the media crate.
pub fn mel_preprocess(p: &AudioPreprocess) -> MelPreprocess {
    MelPreprocess {
        sample_rate_hz: p.sample_rate_hz,
        fft_samples: p.fft_samples,
        hop_samples: p.hop_samples,
        mels: p.mels,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audio_fills_a_clip_or_is_covered_by_clips() {
        let clip = |fill| ClipPreprocess { samples: 8, fill, lowest_hz: 0, highest_hz: 4, fused: false };
        let of = |count: usize, fill| -> Vec<Vec<f32>> {
            let samples: Vec<f32> = (1..=count).map(|at| at as f32).collect();
            clips(&samples, &clip(fill)).map(Cow::into_owned).collect()
        };
        assert_eq!(of(3, ClipFill::RepeatPad), [[1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 0.0, 0.0]]);
        assert_eq!(of(3, ClipFill::Repeat), [[1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0, 2.0]]);
        assert_eq!(of(3, ClipFill::Pad), [[1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0]]);
        assert_eq!(of(0, ClipFill::RepeatPad), [[0.0; 8]]);
        assert_eq!(of(8, ClipFill::Pad), [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]]);
        let long = of(19, ClipFill::RepeatPad);
        assert_eq!(long.iter().map(|clip| clip[0]).collect::<Vec<_>>(), [1.0, 6.0, 12.0]);
        assert!(long.iter().all(|clip| clip.len() == 8) && long[2][7] == 19.0);
    }

    #[test]
    fn speech_is_cut_where_it_is_quiet_and_nothing_is_lost() {
        let rate = 1000;
        // Loud but for a tenth of a second at 3.4 s.
        let sound = |i: usize| if (3400..3500).contains(&i) { 0.0 } else { 0.5 };
        let samples: Vec<f32> = (0..7000).map(sound).collect();
        let windows = speech_windows(&samples, rate);
        assert_eq!(windows.len(), 2);
        assert!(windows[0].end.abs_diff(3400) <= 100, "{windows:?}");
        for length in [0, 1, 999, 4000, 4001, 9001, 240_000] {
            let windows = speech_windows(&vec![0.1; length], rate);
            assert_eq!((windows[0].start, windows.last().map(|w| w.end)), (0, Some(length)));
            assert!(windows.windows(2).all(|two| two[0].end == two[1].start));
            assert!(windows.iter().all(|w| w.len() <= 5 * rate + 100), "{windows:?}");
        }
    }
}
