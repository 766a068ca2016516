//! The preprocessor files of transformers 4 and 5: `preprocessor_config.json`, `video_preprocessor_config.json`, and
//! `processor_config.json`, in which transformers 5 nests all of them.
//!
//! Which file counts is as `AutoProcessor` decides: the nested section, else the medium's own file, else, for video, the
//! image's. A field that is absent has the default of the class that the file names, and where it names none that is known
//! here, what the card says. Every field is read, refused by name, or said in a note.
//!
//! # Source
//! transformers 5.24: `image_processing_base.py`, `video_processing_utils.py`, `feature_extraction_utils.py` (which file),
//! `image_processing_qwen2_vl.py`, `video_processing_qwen2_vl.py`, `video_processing_qwen3_vl.py`,
//! `feature_extraction_whisper.py` (fields and defaults).

use std::path::{Path, PathBuf};

use omniburn_models::record::{AudioPreprocess, PixelPreprocess, Preprocess, SquarePreprocess};
use serde_json::{Map, Value};

use crate::clip_files::clips;
use crate::error::ConvertError;
use crate::fields::{Faults, Fields, listed, shown};
use crate::files::read_json_if_there;
use crate::square_files::{CLIP_MEAN, CLIP_STD, square, triple};

const PROCESSOR_FILE: &str = "processor_config.json";
const IMAGE_FILE: &str = "preprocessor_config.json";
const VIDEO_FILE: &str = "video_preprocessor_config.json";
/// The files that say how images and videos are prepared.
pub(crate) const PREPROCESSOR_FILES: [&str; 3] = [PROCESSOR_FILE, IMAGE_FILE, VIDEO_FILE];
/// Pillow's number for bicubic, the one filter images are resized with.
const BICUBIC: u64 = 3;
/// Frames taken of a video where nothing says how many.
const VIDEO_FRAMES: u32 = 32;
const RESCALE: f64 = 1.0 / 255.0;

/// What the preprocessor files say over what holds without them.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProcessorFiles {
    pub preprocess: Preprocess,
    /// The files that were there and were read.
    pub read: Vec<PathBuf>,
    pub notes: Vec<String>,
}

/// The field by which a processor puts the audio of a video between its frames.
pub(crate) const INTERLEAVED: &str = "use_audio_in_video";
/// What stands in its place, where it is refused.
pub(crate) const NOT_INTERLEAVED: &str =
    "false: the audio of a video is not put between its frames; given as another part it stands beside them";

/// Refuses a file that puts the audio of videos between their frames, in whatever section it says so.
///
/// # Source
/// transformers 5.23.0, `processing_qwen2_5_omni.py`: `use_audio_in_video` of `videos_kwargs`, off by default.
fn refuse_interleaved(path: &Path, value: Option<&Value>) -> Result<(), ConvertError> {
    fn look(value: &Value, at: &str, faults: &Faults) {
        for (name, inner) in value.as_object().into_iter().flatten() {
            let field = format!("{at}{name}");
            if name == INTERLEAVED && !matches!(inner, Value::Null | Value::Bool(false)) {
                faults.add(field, shown(Some(inner)), NOT_INTERLEAVED);
            } else {
                look(inner, &format!("{field}."), faults);
            }
        }
    }
    let faults = Faults::of(path);
    if let Some(value) = value {
        look(value, "", &faults);
    }
    Ok(faults.check()?)
}

/// One medium's settings: a file, or a section of the file that nests them.
struct Section<'a> {
    path: &'a Path,
    /// Path of the section inside the file, empty or ending in a dot.
    at: &'static str,
    value: &'a Value,
}

impl Section<'_> {
    fn file(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// A class of processors whose arithmetic is computed, with its defaults.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PixelClass {
    Qwen2VlImage,
    Qwen2VlVideo,
    Qwen3VlVideo,
    /// The file names no class, or one that is no part of transformers.
    Unknown,
}

impl PixelClass {
    fn name(self) -> &'static str {
        match self {
            PixelClass::Qwen2VlImage => "Qwen2VLImageProcessor",
            PixelClass::Qwen2VlVideo => "Qwen2VLVideoProcessor",
            PixelClass::Qwen3VlVideo => "Qwen3VLVideoProcessor",
            PixelClass::Unknown => "the card",
        }
    }

    /// What holds where a file of this class says nothing.
    fn defaults(self, otherwise: &PixelPreprocess) -> PixelPreprocess {
        let (limits, mean, std) = match self {
            PixelClass::Unknown => return otherwise.clone(),
            PixelClass::Qwen2VlImage => ((3136, 1_003_520), CLIP_MEAN, CLIP_STD),
            PixelClass::Qwen2VlVideo => ((100_352, 602_112), CLIP_MEAN, CLIP_STD),
            PixelClass::Qwen3VlVideo => ((131_072, 786_432), [0.5; 3], [0.5; 3]),
        };
        PixelPreprocess {
            min_pixels: limits.0,
            max_pixels: limits.1,
            mean,
            std,
            rescale: RESCALE,
            per_frame: self == PixelClass::Qwen2VlVideo,
            ..otherwise.clone()
        }
    }
}

impl ProcessorFiles {
    /// Reads the preprocessor files of a folder; `otherwise` is what holds without them, for each medium that the model takes.
    ///
    /// # Errors
    /// [`ConvertError::Fields`] with every field of a file that is wrong, [`ConvertError::Json`], [`ConvertError::Io`].
    pub fn read(folder: &Path, otherwise: &Preprocess) -> Result<Self, ConvertError> {
        let mut files = Self::default();
        let paths = PREPROCESSOR_FILES.map(|file| folder.join(file));
        let mut values = [None, None, None];
        for (path, value) in paths.iter().zip(&mut values) {
            *value = read_json_if_there::<Map<String, Value>>(path)?.map(Value::Object);
            files.read.extend(value.is_some().then(|| path.clone()));
            refuse_interleaved(path, value.as_ref())?;
        }
        let [processor, image, video] = &values;
        let nested = |names: &[(&str, &'static str)]| -> Result<Option<Section<'_>>, ConvertError> {
            let Some(map) = processor.as_ref().and_then(Value::as_object) else { return Ok(None) };
            let found = names.iter().find_map(|(name, at)| Some((*name, *at, map.get(*name)?)));
            match found {
                None | Some((_, _, Value::Null)) => Ok(None),
                Some((_, at, value @ Value::Object(_))) => Ok(Some(Section { path: &paths[0], at, value })),
                Some((name, _, other)) => {
                    let faults = Faults::of(&paths[0]);
                    faults.add(name, shown(Some(other)), "an object");
                    Err(faults.refusal().into())
                }
            }
        };
        let own = |at: usize, value: &'_ Option<Value>| {
            value.as_ref().map(|_| Section {
                path: &paths[at],
                at: "",
                value: values[at].as_ref().expect("it is there"),
            })
        };
        let image_section = nested(&[("image_processor", "image_processor.")])?;
        let video_section = nested(&[("video_processor", "video_processor.")])?;
        let sound_section =
            nested(&[("feature_extractor", "feature_extractor."), ("audio_processor", "audio_processor.")])?;
        let beside = [(&image_section, IMAGE_FILE, image.is_some()), (&video_section, VIDEO_FILE, video.is_some())];
        for (section, file, there) in beside {
            if let Some(section) = section.as_ref().filter(|_| there) {
                let at = section.at.trim_end_matches('.');
                files.notes.push(format!("{PROCESSOR_FILE}: {at} is taken, {file} is left aside"));
            }
        }
        if let Some(base) = &otherwise.image {
            let of_image = image_section.or_else(|| own(1, image));
            let of_video = video_section.or_else(|| own(2, video)).or_else(|| own(1, image));
            files.pixels(of_image.as_ref(), of_video.as_ref(), base, otherwise)?;
        } else if let Some(base) = &otherwise.square {
            if video_section.is_some() || video.is_some() {
                files.notes.push(format!("{VIDEO_FILE} and a video_processor are left aside: frames go in as images"));
            }
            let section = image_section.or_else(|| own(1, image));
            let squares = files.squares(section.as_ref(), base)?;
            files.preprocess.square = Some(squares);
            files.preprocess.video_frames = otherwise.video_frames;
        }
        if let Some(base) = &otherwise.audio {
            let section = sound_section.or_else(|| own(1, image));
            let sound = sound(section.as_ref(), base, &mut files.notes)?;
            files.preprocess.audio = Some(sound);
        }
        Ok(files)
    }

    /// How images become squares: what the section says over what holds without it.
    fn squares(
        &mut self,
        section: Option<&Section<'_>>,
        base: &SquarePreprocess,
    ) -> Result<SquarePreprocess, ConvertError> {
        let Some(section) = section else {
            self.notes.push(format!("no {IMAGE_FILE}: images are prepared as the family's processor does by default"));
            return Ok(base.clone());
        };
        let faults = Faults::of(section.path);
        let root = Fields::new(section.at, Some(section.value), &faults);
        let squares = square(root, section.value, &section.file(), base, &mut self.notes);
        faults.check()?;
        Ok(squares)
    }

    fn pixels(
        &mut self,
        of_image: Option<&Section<'_>>,
        of_video: Option<&Section<'_>>,
        base: &PixelPreprocess,
        otherwise: &Preprocess,
    ) -> Result<(), ConvertError> {
        let images = match of_image {
            Some(section) => self.pixel_section(section, base, false)?,
            None => {
                self.notes.push(format!("no {IMAGE_FILE}: the card's limits for images"));
                base.clone()
            }
        };
        // Where nothing is said of video, its frames are treated as images.
        let video_base = match otherwise.video {
            Some(PixelPreprocess { min_pixels, max_pixels, .. }) => {
                PixelPreprocess { min_pixels, max_pixels, ..images.clone() }
            }
            None => images.clone(),
        };
        let mut frames = otherwise.video_frames.unwrap_or(VIDEO_FRAMES);
        let video = match of_video {
            Some(section) if section.at.is_empty() && section.path.ends_with(IMAGE_FILE) => {
                let video = self.pixel_section(section, &images, true)?;
                let how = if video.per_frame { ", frame by frame" } else { "" };
                self.notes.push(format!("no {VIDEO_FILE}: {IMAGE_FILE} counts for video too{how}"));
                video
            }
            Some(section) => {
                frames = self.frames(section, frames)?;
                self.pixel_section(section, &video_base, true)?
            }
            None => {
                let whose = if otherwise.video.is_some() { "the card's limits for video" } else { "as images" };
                self.notes.push(format!("no {VIDEO_FILE}: {whose}"));
                video_base
            }
        };
        self.preprocess.image = Some(images);
        self.preprocess.video = Some(video);
        self.preprocess.video_frames = Some(frames);
        Ok(())
    }

    /// The number of frames, where a section has one that is sampled by.
    fn frames(&mut self, section: &Section<'_>, otherwise: u32) -> Result<u32, ConvertError> {
        let faults = Faults::of(section.path);
        let root = Fields::new(section.at, Some(section.value), &faults);
        let samples = root.flag("do_sample_frames");
        let number = root.size("num_frames");
        let (fps, least, most) = (root.number("fps"), root.size("min_frames"), root.size("max_frames"));
        faults.check()?;
        if samples == Some(false) {
            return Ok(otherwise);
        }
        if let Some(number) = number {
            return Ok(number as u32);
        }
        if fps.is_some() || least.is_some() || most.is_some() {
            self.notes.push(format!(
                "{}: {}fps, min_frames and max_frames are not read: {otherwise} frames are taken, evenly over the video",
                section.file(),
                section.at
            ));
        }
        Ok(otherwise)
    }

    /// One section over what holds without it; its sizes must be those of the tower.
    fn pixel_section(
        &mut self,
        section: &Section<'_>,
        otherwise: &PixelPreprocess,
        video: bool,
    ) -> Result<PixelPreprocess, ConvertError> {
        let faults = Faults::of(section.path);
        let root = Fields::new(section.at, Some(section.value), &faults);
        let class = pixel_class(root, video);
        let base = class.defaults(otherwise);
        if let Some(size) = root.get("size").filter(|size| !size.is_object()) {
            faults.add(root.path("size"), shown(Some(size)), "an object with shortest_edge and longest_edge");
        }
        let size_at = format!("{}size.", section.at);
        let size = Fields::new(&size_at, root.get("size"), &faults);
        for (name, _) in size.present().filter(|(name, _)| !matches!(name.as_str(), "shortest_edge" | "longest_edge")) {
            size.fault(name, "shortest_edge and longest_edge, numbers of pixels");
        }
        for (name, tower) in
            [("patch_size", base.patch_px), ("merge_size", base.merge), ("temporal_patch_size", base.temporal_patch)]
        {
            if root.count(name).is_some_and(|n| n != u64::from(tower)) {
                root.fault(name, format!("{tower}, as in vision_config"));
            }
        }
        if root.count("resample").is_some_and(|n| n != BICUBIC) {
            root.fault("resample", format!("{BICUBIC} (bicubic)"));
        }
        for step in ["do_resize", "do_rescale", "do_normalize"] {
            root.only_flag(step, true);
        }
        root.only_flag("cap_pixels_per_frame", false);
        // To the library `null` is no absence: it switches a step off, or leaves it without its numbers.
        for (name, expected) in NOT_NULL {
            if section.value.get(*name).is_some_and(Value::is_null) {
                faults.add(root.path(name), "null", *expected);
            }
        }
        if class == PixelClass::Qwen3VlVideo && section.value.get("size").is_some_and(Value::is_null) {
            faults.add(root.path("size"), "null", "an object with shortest_edge and longest_edge");
        }
        let (min_pixels, max_pixels) = self.limits(section, root, size, class, &base);
        if min_pixels == 0 || min_pixels > max_pixels {
            let field = if root.get("min_pixels").is_some() || root.get("size").is_none() {
                root.path("min_pixels")
            } else {
                size.path("shortest_edge")
            };
            faults.add(field, min_pixels.to_string(), format!("1 to max_pixels = {max_pixels}"));
        }
        let (mean, std) = (triple(root, "image_mean", base.mean), triple(root, "image_std", base.std));
        if std.iter().any(|&s| s <= 0.0) {
            root.fault("image_std", "three positive numbers");
        }
        let rescale = root.number("rescale_factor").unwrap_or(base.rescale);
        if !(rescale > 0.0 && rescale.is_finite()) {
            root.fault("rescale_factor", "a positive number");
        }
        faults.check()?;
        let absent: Vec<&str> =
            ["size", "image_mean", "image_std"].into_iter().filter(|name| root.get(name).is_none()).collect();
        let has_limits = root.get("min_pixels").is_some() && root.get("max_pixels").is_some();
        let absent: Vec<&str> = absent.into_iter().filter(|name| *name != "size" || !has_limits).collect();
        if !absent.is_empty() {
            let whose = match class {
                PixelClass::Unknown => "what holds without the file".to_string(),
                class => format!("the defaults of {}", class.name()),
            };
            self.notes.push(format!("{}: no {}{}: {whose}", section.file(), section.at, absent.join(", ")));
        }
        self.unread(section, root, class);
        Ok(PixelPreprocess { min_pixels, max_pixels, mean, std, rescale, ..base })
    }

    /// Least and largest number of pixels.
    fn limits(
        &mut self,
        section: &Section<'_>,
        root: Fields<'_>,
        size: Fields<'_>,
        class: PixelClass,
        base: &PixelPreprocess,
    ) -> (u64, u64) {
        let file = section.file();
        let has_size = root.get("size").is_some_and(Value::is_object);
        let mut limit = |name: &str, edge: &str, otherwise: u64| {
            let (flat, nested) = (root.count(name), size.count(edge));
            if class == PixelClass::Qwen3VlVideo {
                // That class has no such fields: what a file says in them has no effect.
                if let Some(flat) = flat.filter(|flat| Some(*flat) != nested) {
                    self.notes.push(format!(
                        "{file}: {}{name} {flat} has no effect on {}, which reads size.{edge}",
                        section.at,
                        class.name()
                    ));
                }
                if has_size && nested.is_none() {
                    size.fault(edge, "a number of pixels");
                }
                return nested.unwrap_or(otherwise);
            }
            match (flat, nested) {
                (Some(flat), Some(nested)) if flat != nested => {
                    self.notes.push(format!("{file}: {}{name} {flat} is taken, not size.{edge} {nested}", section.at));
                    flat
                }
                (None, None) if has_size => {
                    size.fault(edge, "a number of pixels");
                    otherwise
                }
                (flat, nested) => flat.or(nested).unwrap_or(otherwise),
            }
        };
        (limit("min_pixels", "shortest_edge", base.min_pixels), limit("max_pixels", "longest_edge", base.max_pixels))
    }

    /// Says which fields that might be thought to count do not.
    fn unread(&mut self, section: &Section<'_>, root: Fields<'_>, class: PixelClass) {
        let said: Vec<String> = root
            .present()
            .filter(|(name, value)| !listed(KNOWN, name) && **value != Value::Bool(false))
            .map(|(name, value)| format!("{name} {}", shown(Some(value))))
            .collect();
        if !said.is_empty() {
            let whom = if class == PixelClass::Unknown { "" } else { class.name() };
            self.notes.push(
                format!("{}: {}{} has no effect on {whom}", section.file(), section.at, said.join(", "))
                    .trim_end_matches(" on ")
                    .to_string(),
            );
        }
    }
}

/// Fields that may be absent and not `null`, with what would do.
const NOT_NULL: &[(&str, &str)] = &[
    ("do_resize", "true"),
    ("do_rescale", "true"),
    ("do_normalize", "true"),
    ("resample", "3 (bicubic)"),
    ("rescale_factor", "a positive number"),
    ("image_mean", "three numbers"),
    ("image_std", "three positive numbers"),
    ("patch_size", "the tower's"),
    ("merge_size", "the tower's"),
    ("temporal_patch_size", "the tower's"),
];

/// Fields that are read, that concern another medium in a file of several, or that change no pixel of these classes.
const KNOWN: &str = "\
    auto_map cap_pixels_per_frame chunk_length crop_size data_format default_to_square device disable_grouping \
    dither do_center_crop do_convert_rgb do_normalize do_pad do_rescale do_resize do_sample_frames \
    feature_extractor_type feature_size fps hop_length image_mean image_processor_type image_seq_length image_std \
    input_data_format max_frames max_pixels max_video_tokens merge_size min_frames min_pixels model_input_names \
    n_fft n_samples nb_max_frames num_frames pad_size padding_side padding_value patch_size processor_class resample \
    rescale_factor return_attention_mask return_metadata return_tensors sampling_rate size temporal_patch_size \
    use_fast video_metadata video_processor_type _processor_class _valid_kwargs_names backend do_grayscale";

/// Processors of transformers with another arithmetic, without `ImageProcessor`.
const OTHER_IMAGES: &str = "\
    Aria Beit Bit Blip BridgeTower CLIP Chameleon ChineseCLIP Cohere2Vision ConvNext DINOv3ViT DPT DeepseekVL \
    DeepseekVLHybrid DeiT Donut EfficientNet Emu3 Ernie4_5_VLMoe Flava Fuyu Gemma3 Gemma4 Glm46V Glm4v GlmImage \
    GotOcr2 HunYuanVL Idefics Idefics2 Idefics3 Janus Kimi_K25 Kosmos2_5 LayoutLMv2 LayoutLMv3 Levit Lfm2Vl Llama4 \
    Llava LlavaNext LlavaOnevision MiniCPMV4_6 Mllama MobileNetV1 MobileNetV2 MobileViT Nougat Ovis2 PaddleOCRVL \
    PerceptionLM Phi4Multimodal Pix2Struct Pixtral Siglip Siglip2 SmolVLM ViT VideoLlama3 VideoLlava VideoMAE Vilt";

/// Processors of transformers with another arithmetic, without `VideoProcessor`.
const OTHER_VIDEOS: &str = "\
    Ernie4_5_VLMoe Gemma4 Glm46V Glm4v InstructBlipVideo InternVL Kimi_K25 LlavaNextVideo LlavaOnevision MiniCPMV4_6 \
    PerceptionLM Sam2Video SmolVLM VJEPA2 VideoLlama3 VideoLlava VideoMAE";

/// Feature extractors of transformers with another arithmetic, without `FeatureExtractor`.
const OTHER_SOUNDS: &str = "\
    AST Clap Clvp Dac Dia Encodec Gemma3nAudio Gemma4Audio GraniteSpeech KyutaiSpeechToText MusicgenMelody Parakeet \
    Phi4Multimodal Pop2Piano Qwen3ASR SeamlessM4T Speech2Text SpeechT5 UnivNet Wav2Vec2";

/// The class that a section names; another class of transformers is a fault.
fn pixel_class(root: Fields<'_>, video: bool) -> PixelClass {
    let (field, end, others) = if video {
        ("video_processor_type", "VideoProcessor", OTHER_VIDEOS)
    } else {
        ("image_processor_type", "ImageProcessor", OTHER_IMAGES)
    };
    let Some(name) = root.text(field) else {
        // In an image's file the class of the images gives that of the video, by its full name.
        let of_image = if video { root.text("image_processor_type") } else { None };
        let is_that = of_image == Some(PixelClass::Qwen2VlImage.name());
        return if is_that { PixelClass::Qwen2VlVideo } else { PixelClass::Unknown };
    };
    let short = name.strip_suffix("Fast").unwrap_or(name);
    let short = short.strip_suffix("Pil").unwrap_or(short);
    let mine = if video {
        [PixelClass::Qwen3VlVideo, PixelClass::Qwen2VlVideo].as_slice()
    } else {
        &[PixelClass::Qwen2VlImage]
    };
    if let Some(class) = mine.iter().find(|class| class.name() == short) {
        return *class;
    }
    if short.strip_suffix(end).is_some_and(|short| listed(others, short)) {
        let names: Vec<&str> = mine.iter().map(|class| class.name()).collect();
        root.fault(field, names.join(" or "));
    }
    PixelClass::Unknown
}

/// How audio becomes mel frames: the section's word, else what holds without it.
fn sound(
    section: Option<&Section<'_>>,
    otherwise: &AudioPreprocess,
    notes: &mut Vec<String>,
) -> Result<AudioPreprocess, ConvertError> {
    let nowhere = PathBuf::from(IMAGE_FILE);
    let faults = Faults::of(section.map_or(&nowhere, |section| section.path));
    let root = Fields::new(section.map_or("", |section| section.at), section.map(|section| section.value), &faults);
    if let (Some(clip), Some(section)) = (&otherwise.clip, section) {
        let sound = clips(root, (otherwise, clip), &section.file(), notes);
        faults.check()?;
        return Ok(sound);
    }
    if otherwise.clip.is_some() {
        notes.push(format!("no {IMAGE_FILE}: audio is prepared as the family's processor does by default"));
        return Ok(otherwise.clone());
    }
    let size = |name: &str, otherwise: u32| root.size(name).map_or(otherwise, |n| n as u32);
    let mels = otherwise.mels;
    if root.size("feature_size").is_some_and(|n| n != mels as usize) {
        root.fault("feature_size", format!("{mels}, as audio_config.num_mel_bins"));
    }
    let kind = root.text("feature_extractor_type").and_then(|name| name.strip_suffix("FeatureExtractor"));
    if kind.is_some_and(|kind| listed(OTHER_SOUNDS, kind)) {
        root.fault("feature_extractor_type", "WhisperFeatureExtractor");
    }
    if root.number("dither").is_some_and(|n| n != 0.0) {
        root.fault("dither", "0.0, without noise");
    }
    if root.number("padding_value").is_some_and(|n| n != 0.0) {
        root.fault("padding_value", "0.0");
    }
    if let Some(seconds) = root.size("chunk_length").filter(|seconds| *seconds != 30) {
        let at = section.map_or("", |section| section.at);
        notes.push(format!("{at}chunk_length {seconds} is not read: audio is taken as long as it is"));
    }
    let preprocess = AudioPreprocess {
        sample_rate_hz: size("sampling_rate", otherwise.sample_rate_hz),
        fft_samples: size("n_fft", otherwise.fft_samples),
        hop_samples: size("hop_length", otherwise.hop_samples),
        ..otherwise.clone()
    };
    faults.check()?;
    Ok(preprocess)
}
