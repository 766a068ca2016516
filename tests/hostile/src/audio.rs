//! Audio, one target a family of containers.

use std::sync::Arc;

use omniburn_media::{AudioReader, AudioSource, SEGMENT_SECONDS};

use crate::image::check;
use crate::places::{golden, samples, with_endings};

/// The rate in hertz that an input is read at: that of most valid files, which then pass without the filter that would
/// take most of the time; and for one input in 256 the rate of the models.
fn rate_hz(data: &[u8]) -> u32 {
    match data.len() % 256 {
        0 => 16_000,
        _ if data.windows(8).any(|name| name == b"OpusHead") => 48_000,
        _ => 44_100,
    }
}

/// Opens, and reads the first segment.
pub fn body(data: &[u8]) {
    let source = AudioSource::Bytes(Arc::from(data), "hostile".to_owned());
    let rate_hz = rate_hz(data);
    let mut reader = match AudioReader::open(&source, rate_hz) {
        Ok(reader) => reader,
        Err(error) => return check(&error),
    };
    match reader.next_segment() {
        Ok(Some(segment)) => {
            assert!(segment.samples.iter().all(|sample| sample.is_finite()), "a sample is a number");
            assert!(segment.samples.len() as f64 <= (SEGMENT_SECONDS + 1.0) * f64::from(rate_hz), "a segment ends");
            assert!(segment.start_s == 0.0 && segment.end_s > 0.0, "{} to {}", segment.start_s, segment.end_s);
        }
        Ok(None) => panic!("audio without a segment is an error"),
        Err(error) => check(&error),
    }
}

/// [`body`] with the bytes as they are and, where sums of pages are wrong, with those mended.
pub fn ogg(data: &[u8]) {
    body(data);
    if let Some(mended) = with_page_sums(data) {
        body(&mended);
    }
}

/// The same Ogg with right sums of pages; `None` if they are right or it is no Ogg.
fn with_page_sums(data: &[u8]) -> Option<Vec<u8>> {
    let mut mended = data.to_vec();
    let mut at = 0;
    while mended.get(at..at + 4) == Some(b"OggS".as_slice()) && at + 27 <= mended.len() {
        let segments = usize::from(mended[at + 26]);
        let Some(table) = mended.get(at + 27..at + 27 + segments) else { break };
        let end = at + 27 + segments + table.iter().map(|bytes| usize::from(*bytes)).sum::<usize>();
        if end > mended.len() {
            break;
        }
        mended[at + 22..at + 26].fill(0);
        let sum = page_sum(&mended[at..end]).to_le_bytes();
        mended[at + 22..at + 26].copy_from_slice(&sum);
        at = end;
    }
    (mended != data).then_some(mended)
}

/// The sum of an Ogg page: the polynomial of CRC-32 without reflection, from zero.
fn page_sum(page: &[u8]) -> u32 {
    page.iter().fold(0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte) << 24, |sum, _| sum << 1 ^ if sum >> 31 == 1 { 0x04c1_1db7 } else { 0 })
    })
}

fn of(endings: &[&str]) -> Vec<Vec<u8>> {
    with_endings(&golden().join("media/audio/files"), endings, 16_000)
}

pub fn pcm_seeds() -> Vec<Vec<u8>> {
    of(&["wav", "aiff", "aif", "aifc", "caf"])
}

pub fn flac_seeds() -> Vec<Vec<u8>> {
    // The first frames are enough: what is changed in a long file is mostly audio.
    let mut seeds = with_endings(&golden().join("media/audio/files"), &["flac"], 50_000);
    seeds.extend(with_endings(&samples(), &["flac"], 50_000));
    seeds.iter_mut().for_each(|seed| seed.truncate(8000));
    seeds
}

pub fn mpeg_seeds() -> Vec<Vec<u8>> {
    of(&["mp3", "mp2", "aac"])
}

pub fn ogg_seeds() -> Vec<Vec<u8>> {
    of(&["ogg", "opus"])
}

pub fn mp4_seeds() -> Vec<Vec<u8>> {
    of(&["m4a", "mp4", "mov"])
}

pub fn mkv_seeds() -> Vec<Vec<u8>> {
    of(&["mkv", "webm"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_pages_are_those_of_the_goldens() {
        for seed in ogg_seeds() {
            assert_eq!(with_page_sums(&seed), None);
            let mut changed = seed.clone();
            changed[22] ^= 1;
            assert_eq!(with_page_sums(&changed), Some(seed));
        }
    }
}
