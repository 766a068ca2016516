//! What makes two inputs the same: digests of what goes in.

use std::fmt;
use std::io::Read;
use std::time::UNIX_EPOCH;

use omniburn_media::{MediaFile, RgbImage, TrackChoice};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::input::{Input, Source};

/// SHA-256 of an input, or of an input with the request it is part of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InputDigest(Sha256Digest);

impl InputDigest {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0.0
    }
}

impl fmt::Display for InputDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for InputDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The 32 bytes of a SHA-256, written as 64 digits 0-9 and a-f.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Sha256Digest(pub [u8; 32]);

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl From<Sha256Digest> for String {
    fn from(hex: Sha256Digest) -> Self {
        hex.to_string()
    }
}

impl TryFrom<String> for Sha256Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let bytes = text.as_bytes().as_chunks::<2>();
        let pairs = bytes.0.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
        let bytes = if bytes.1.is_empty() { pairs.collect::<Option<Vec<u8>>>() } else { None };
        let digest = bytes.and_then(|bytes| bytes.try_into().ok());
        digest.map(Sha256Digest).ok_or_else(|| "expected a SHA-256 of 64 digits 0-9 and a-f".into())
    }
}

/// How a file is distinguished from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    /// By place, length and time of change: nothing is read.
    ByPlace,
    /// By every byte, so that a copy under another name is the same.
    ByContent,
}

/// Pieces that go into a digest, each with its length, so that no two lists of pieces run into one.
pub(super) struct Pieces(Sha256);

impl Pieces {
    pub(super) fn new(kind: &str) -> Self {
        let mut pieces = Self(Sha256::new());
        pieces.add(kind.as_bytes());
        pieces
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    pub(super) fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    pub(super) fn finish(self) -> InputDigest {
        InputDigest(Sha256Digest(self.0.finalize().into()))
    }

    fn image(&mut self, image: &RgbImage) {
        self.number(image.width().0.into());
        self.number(image.height().0.into());
        self.add(image.pixels());
    }

    /// A file; `None` where it cannot be read, which its own turn will say.
    fn file(&mut self, file: &MediaFile, files: Files) -> Option<()> {
        match files {
            Files::ByPlace => {
                let path = file.path();
                let meta = path.metadata().ok()?;
                let changed = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
                self.add(path.as_os_str().as_encoded_bytes());
                self.number(meta.len());
                self.number(changed.as_nanos() as u64);
            }
            Files::ByContent => {
                let mut file = file.open().ok()?;
                self.number(file.length());
                let mut piece = vec![0u8; 1 << 18];
                loop {
                    match file.read(&mut piece).ok()? {
                        0 => break,
                        read => self.0.update(&piece[..read]),
                    }
                }
            }
        }
        Some(())
    }

    /// Bytes as a file of the same content is counted.
    fn content(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }
}

impl Input {
    /// Digest of the input's modality and content: what it says, its bytes, its pixels or samples. A file and its bytes
    /// in memory are the same input, decoded pixels are another. `None` for a file that cannot be read.
    pub fn digest(&self) -> Option<InputDigest> {
        self.key(Files::ByContent)
    }

    pub(crate) fn key(&self, files: Files) -> Option<InputDigest> {
        let kind = match (&self.0, files) {
            (Source::Text(_), _) => "text",
            (Source::ImageBytes(_) | Source::VideoBytes(_) | Source::AudioBytes(_), _) => "bytes",
            (Source::ImageFile(_) | Source::VideoFile(_) | Source::AudioFile(_), Files::ByContent) => "bytes",
            (Source::ImageFile(_) | Source::VideoFile(_) | Source::AudioFile(_), Files::ByPlace) => "place",
            (Source::ImagePixels(_), _) => "pixels",
            (Source::VideoFrames(_), _) => "frames",
            (Source::VideoFrameFiles(_), Files::ByContent) => "frame bytes",
            (Source::VideoFrameFiles(_), Files::ByPlace) => "frame places",
            (Source::AudioSamples(..), _) => "samples",
            (Source::Parts(_), _) => "parts",
            (Source::Pair(_), _) => "pair",
            (Source::List(_), _) => "list",
        };
        let mut pieces = Pieces::new(kind);
        pieces.add(self.modality().name().as_bytes());
        match &self.0 {
            Source::Text(text) => pieces.add(text.as_bytes()),
            Source::ImageFile(file) | Source::VideoFile(file) | Source::AudioFile(file) => pieces.file(file, files)?,
            Source::ImageBytes(bytes) | Source::VideoBytes(bytes) | Source::AudioBytes(bytes) => pieces.content(bytes),
            Source::ImagePixels(image) => pieces.image(image),
            Source::VideoFrames(frames) => frames.iter().for_each(|frame| pieces.image(frame)),
            Source::VideoFrameFiles(list) => list.iter().try_for_each(|file| pieces.file(file, files))?,
            Source::AudioSamples(samples, rate_hz) => {
                pieces.number((*rate_hz).into());
                pieces.number(samples.len() as u64);
                samples.iter().for_each(|sample| pieces.0.update(sample.to_le_bytes()));
            }
            Source::Parts(parts) | Source::List(parts) => {
                pieces.number(parts.len() as u64);
                for part in parts.iter() {
                    pieces.add(part.key(files)?.as_bytes());
                }
            }
            Source::Pair(pair) => {
                for part in pair.iter() {
                    pieces.add(part.key(files)?.as_bytes());
                }
            }
        }
        // Nothing for the default, so that digests noted before there was a choice stay what they are.
        match &self.1 {
            TrackChoice::Default => {}
            TrackChoice::Index(index) => {
                pieces.add(b"track");
                pieces.number((*index).into());
            }
            TrackChoice::Language(language) => {
                pieces.add(b"track of language");
                pieces.add(language.to_ascii_lowercase().as_bytes());
            }
        }
        if let Some(per_second) = self.2 {
            pieces.add(b"frames a second");
            pieces.number(per_second.to_bits());
        }
        Some(pieces.finish())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use omniburn_media::{Height, Width};

    use super::*;

    #[test]
    fn what_is_the_same_has_one_digest_and_what_is_not_has_another() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"the same bytes").unwrap();
        let copy = tempfile::NamedTempFile::new().unwrap();
        std::fs::copy(file.path(), copy.path()).unwrap();
        let of = |input: &Input| input.digest().unwrap();
        let image = |width, height| {
            let pixels = vec![7; 3 * width as usize * height as usize];
            Input::image_pixels(RgbImage::new(Width(width), Height(height), pixels).unwrap())
        };
        assert_eq!(of(&Input::image_file(file.path())), of(&Input::image_file(copy.path())));
        assert_eq!(of(&Input::image_file(file.path())), of(&Input::image_bytes(*b"the same bytes")));
        assert_ne!(
            Input::image_file(file.path()).key(Files::ByPlace),
            Input::image_file(copy.path()).key(Files::ByPlace)
        );
        let different = [
            Input::image_file(file.path()),
            Input::audio_file(file.path()),
            Input::text("the same bytes"),
            Input::text("the same byte"),
            image(2, 6),
            image(6, 2),
            Input::audio_samples(Arc::from([0.5f32, 0.5]), 16_000),
            Input::audio_samples(Arc::from([0.5f32, 0.5]), 8_000),
            Input::video_frame_files(vec![file.path().into()]),
            Input::video_frame_files(vec![file.path().into(), copy.path().into()]),
        ];
        for (i, a) in different.iter().enumerate() {
            assert_eq!(of(a), of(a));
            assert!(different[..i].iter().all(|b| of(a) != of(b)), "{a:?}");
        }
        assert_eq!(Input::image_file("nowhere.png").digest(), None);
    }
}
