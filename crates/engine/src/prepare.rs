//! From inputs to numbers, on the caller's threads: everything that needs no device.

use std::path::{Path, PathBuf};

use omniburn_media::{MediaError, RgbImage, VisionPreprocess};
use omniburn_media::{decode_image, decode_image_file, image_patches, video_patches};
use omniburn_models::batch::Grid;
use omniburn_models::record::{Modality, PixelPreprocess};

use crate::engine::Engine;
use crate::error::ItemError;
use crate::prompt::{self, Frame};
use crate::request::{Input, Request, Source};
use crate::worker::panic_message;

/// An input as numbers.
pub(crate) enum Prepared {
    Text { ids: Vec<u32>, truncated: bool },
    Media { modality: Modality, values: Vec<f32>, grid: Grid, frame: Frame, tokens: usize },
}

impl Prepared {
    /// Rows it will be: tokens, or patches of the tower.
    pub(crate) fn rows(&self) -> usize {
        match self {
            Prepared::Text { ids, .. } => ids.len(),
            Prepared::Media { grid, .. } => grid.patches(),
        }
    }

    /// Bytes held until it is computed.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Prepared::Text { ids, .. } => 4 * ids.len() as u64,
            Prepared::Media { values, .. } => 4 * values.len() as u64,
        }
    }
}

impl Engine {
    /// Everything that needs no device: reading, decoding, tokenising. A decoder that panics costs only its item.
    pub(crate) fn prepare(&self, input: Input, request: &Request) -> Result<Prepared, ItemError> {
        if request.cancelled() {
            return Err(ItemError::Cancelled);
        }
        let work = std::panic::AssertUnwindSafe(|| self.prepare_unguarded(input, request));
        std::panic::catch_unwind(work)
            .unwrap_or_else(|panic| Err(ItemError::Panicked { message: panic_message(panic.as_ref()) }))
    }

    fn prepare_unguarded(&self, input: Input, request: &Request) -> Result<Prepared, ItemError> {
        let modality = input.modality();
        for path in input.files() {
            check_file(path)?;
        }
        if let Some(reason) = self.refusal(modality) {
            return Err(ItemError::ModalityAbsent { modality, reason });
        }
        let limit = self.inner.parts.config().text.max_tokens;
        let prompts = &self.header().prompts;
        let patches = match input.0 {
            Source::Text(text) => {
                let prefix = prompt::prefix(prompts, request.role);
                let ids = self.inner.tokenizer.text_ids(prefix, &text, limit, request.truncation)?;
                if ids.ids.is_empty() {
                    return Err(ItemError::Empty { modality });
                }
                return Ok(Prepared::Text { ids: ids.ids, truncated: ids.truncated });
            }
            Source::ImageFile(path) => image_patches(&decode_image_file(&path)?, &self.pixels(modality))?,
            Source::ImageBytes(bytes) => image_patches(&decode_image(&bytes, "picture")?, &self.pixels(modality))?,
            Source::ImagePixels(image) => image_patches(&image, &self.pixels(modality))?,
            Source::VideoFrames(frames) => video_patches(&frames, &self.pixels(modality))?,
            Source::VideoFrameFiles(paths) => {
                let frames = paths.iter().map(|p| decode_image_file(p)).collect::<Result<Vec<RgbImage>, _>>()?;
                video_patches(&frames, &self.pixels(modality))?
            }
            Source::VideoFile(path) => return Err(unread(&path.display().to_string(), &std::fs::read(&path).ok())),
            Source::VideoBytes(bytes) => return Err(unread("film", &Some(bytes.to_vec()))),
            Source::AudioFile(_) | Source::AudioBytes(_) | Source::AudioSamples(..) => {
                unreachable!("sound is refused above")
            }
        };
        let frame = prompt::frame(self.header(), &self.inner.tokenizer, request.role, modality)?;
        let grid = patches.grid();
        let grid = Grid { t: grid.t, h: grid.h, w: grid.w };
        let merge = self.inner.parts.config().vision.as_ref().map_or(1, |v| v.merge);
        let tokens = frame.tokens(grid.patches() / (merge * merge));
        if tokens > limit {
            return Err(ItemError::TooLong { tokens, limit });
        }
        Ok(Prepared::Media { modality, values: patches.into_rows(), grid, frame, tokens })
    }

    /// Why a modality is not taken; `None` where it is.
    pub(crate) fn refusal(&self, modality: Modality) -> Option<String> {
        let allowed = self.inner.modalities.as_ref().is_none_or(|m| m.contains(&modality));
        let config = self.inner.parts.config();
        match modality {
            _ if !allowed => Some("its tower was not allowed to load".into()),
            Modality::Text => None,
            Modality::Image | Modality::Video if config.vision.is_none() => {
                Some("the record has no picture tower".into())
            }
            Modality::Image | Modality::Video => None,
            Modality::Audio if config.audio.is_none() => Some("the record has no sound tower".into()),
            Modality::Audio => Some("this version does not read sound yet".into()),
        }
    }

    fn pixels(&self, modality: Modality) -> VisionPreprocess {
        let preprocess = &self.header().preprocess;
        let pixels = if modality == Modality::Video { &preprocess.video } else { &preprocess.image };
        vision_preprocess(pixels.as_ref().expect("a record with a picture tower says how pictures are prepared"))
    }
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

/// Film files are not read yet: the format is named.
fn unread(name: &str, bytes: &Option<Vec<u8>>) -> ItemError {
    let found = bytes.as_deref().and_then(omniburn_media::sniff);
    ItemError::Media(match found {
        Some(format) => MediaError::UnsupportedCodec {
            name: name.into(),
            format,
            detail: "film files are not read by this version; a list of frames is".into(),
        },
        None => MediaError::UnknownFormat { name: name.into(), found },
    })
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
