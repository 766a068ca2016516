//! What a file is embedded as: by its content, its ending, and a look inside where both leave it open.

use std::path::Path;

use crate::kind::{has_ending, known_image_ending};
use crate::video::{VideoSource, has_images, is_animation};

const TEXT_ENDINGS: &[&str] = &[
    "txt", "text", "md", "markdown", "rst", "tex", "csv", "tsv", "json", "jsonl", "ndjson", "yaml", "yml", "toml",
    "xml", "html", "htm", "log", "srt", "vtt",
];
const AUDIO_ENDINGS: &[&str] = &[
    "wav", "wave", "mp3", "flac", "ogg", "oga", "opus", "m4a", "m4b", "aac", "aif", "aiff", "caf", "wma", "mka", "mid",
];
const VIDEO_ENDINGS: &[&str] =
    &["mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "wmv", "flv", "ogv", "3gp", "mts", "m2ts"];

/// What a file is embedded as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Text, which callers read.
    Text,
    /// A still image.
    Image,
    /// Audio.
    Audio,
    /// Video, moving images included.
    Video,
}

impl FileKind {
    /// By the ending of a name.
    #[must_use]
    pub fn of_ending(path: &Path) -> Option<Self> {
        if known_image_ending(path) {
            return Some(FileKind::Image);
        }
        let kinds =
            [(FileKind::Text, TEXT_ENDINGS), (FileKind::Audio, AUDIO_ENDINGS), (FileKind::Video, VIDEO_ENDINGS)];
        kinds.into_iter().find(|(_, endings)| has_ending(path, endings)).map(|(kind, _)| kind)
    }

    /// By the name that [`crate::sniff`] gives a format; `None` for what is none of them.
    #[must_use]
    pub fn of_format(format: &str) -> Option<Self> {
        Some(match format {
            "text" | "html" | "xml" | "utf-16 text" | "utf-32 text" => FileKind::Text,
            "wav" | "aiff" | "caf" | "mp3" | "flac" | "aac" | "m4a" | "ogg" | "midi" => FileKind::Audio,
            "mp4" | "mov" | "mkv" | "avi" | "flv" | "mpeg" | "asf" => FileKind::Video,
            "png" | "jpeg" | "gif" | "webp" | "bmp" | "tiff" | "heic" | "avif" | "jxl" | "jp2" | "psd" | "xcf"
            | "svg" | "ico" | "exr" | "hdr" | "dds" | "qoi" | "pnm" => FileKind::Image,
            _ => return None,
        })
    }

    /// What a file is: its content says it, except where the ending knows better. A container may hold audio or video;
    /// and what is called an image and is text is a broken image, not a text.
    #[must_use]
    pub fn decide(format: Option<&str>, ending: Option<Self>) -> Option<Self> {
        match (format.and_then(FileKind::of_format), ending) {
            (Some(FileKind::Text) | None, Some(ending)) => Some(ending),
            (Some(FileKind::Audio | FileKind::Video), Some(ending @ (FileKind::Audio | FileKind::Video))) => {
                Some(ending)
            }
            (Some(content), _) => Some(content),
            (None, None) => None,
        }
    }

    /// What only a look inside tells: an image that moves is a video, and a video's container may hold nothing but audio.
    /// Damage is left for the reader to name.
    #[must_use]
    pub fn looked_into(self, path: &Path, format: Option<&str>) -> Self {
        let source = || VideoSource::file(path);
        match (self, format) {
            (FileKind::Image, Some("gif" | "webp" | "png")) if is_animation(&source()).unwrap_or(false) => {
                FileKind::Video
            }
            (FileKind::Video, Some("mp4" | "mov" | "m4a" | "mkv")) if !has_images(&source()).unwrap_or(true) => {
                FileKind::Audio
            }
            _ => self,
        }
    }
}
