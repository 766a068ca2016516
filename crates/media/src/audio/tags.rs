//! Tags of audio and video files as words: ID3, Vorbis comments, those of MP4 and Matroska. Places where something was recorded
//! are left out.

use std::io::Seek;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::{StandardTag, Tag};

use super::{demux, ogg};
use crate::file::MediaFile;
use crate::kind::sniff;
use crate::source::Source;

/// Characters that are kept of one tag.
const MAX_CHARACTERS: usize = 4000;
/// Tags that are kept of a file.
const MAX_TAGS: usize = 100;

/// Something that a file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaTag {
    /// `title`, `artist`, `album`, `album_artist`, `series`, `composer`, `performer`, `conductor`, `director`, `genre`, `date`,
    /// `comment`, `description` or `lyrics`.
    pub name: &'static str,
    /// Its words.
    pub value: String,
}

/// The tags of an audio or video file (MP3, AAC, FLAC, Ogg, MP4, Matroska), each once; none where it has none or they cannot be
/// read.
pub fn media_tags(path: &Path) -> Vec<MediaTag> {
    let found = catch_unwind(AssertUnwindSafe(|| read(path))).ok().flatten().unwrap_or_default();
    let mut tags: Vec<MediaTag> = Vec::new();
    for (name, value) in found {
        let value = value.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        let value: String = value.chars().filter(|c| !c.is_control() || *c == '\n').take(MAX_CHARACTERS).collect();
        // ID3v1 has the first thirty characters of what ID3v2 has.
        let there = |tag: &MediaTag| tag.name == name && tag.value.starts_with(&value);
        if value.is_empty() || tags.iter().any(there) || tags.len() == MAX_TAGS {
            continue;
        }
        tags.retain(|tag| tag.name != name || !value.starts_with(&tag.value));
        tags.push(MediaTag { name, value });
    }
    tags
}

fn read(path: &Path) -> Option<Vec<(&'static str, String)>> {
    let mut source = Source::from_file(&MediaFile::new(path), "audio").ok()?;
    let format = sniff(&source.head().ok()?)?;
    source.label.format = format;
    source.rewind().ok()?;
    match format {
        "ogg" => {
            let label = source.label.clone();
            Some(comments(&ogg::comment(source, &label).ok()?))
        }
        "mp3" | "aac" | "flac" | "mp4" | "m4a" | "mov" | "mkv" => {
            let stream = MediaSourceStream::new(Box::new(source), MediaSourceStreamOptions::default());
            let mut format = demux::probe(stream).ok()?;
            let mut log = format.metadata();
            let mut found = Vec::new();
            loop {
                if let Some(revision) = log.current() {
                    let tracks = revision.per_track.iter().flat_map(|track| &track.metadata.tags);
                    found.extend(revision.media.tags.iter().chain(tracks).filter_map(words_of));
                }
                if log.pop().is_none() {
                    return Some(found);
                }
            }
        }
        _ => None,
    }
}

fn words_of(tag: &Tag) -> Option<(&'static str, String)> {
    use StandardTag::*;
    let text = |name, value: &str| Some((name, value.to_owned()));
    match tag.std.as_ref()? {
        TrackTitle(value) | MovieTitle(value) | TvEpisodeTitle(value) => text("title", value),
        Artist(value) | Author(value) => text("artist", value),
        Album(value) | CollectionTitle(value) => text("album", value),
        AlbumArtist(value) => text("album_artist", value),
        TvSeriesTitle(value) => text("series", value),
        Composer(value) => text("composer", value),
        Performer(value) | Actor(value) | Narrator(value) | Soloist(value) => text("performer", value),
        Conductor(value) => text("conductor", value),
        Director(value) => text("director", value),
        Genre(value) => text("genre", value),
        RecordingDate(value) | ReleaseDate(value) | OriginalReleaseDate(value) => text("date", value),
        RecordingYear(year) | ReleaseYear(year) => Some(("date", year.to_string())),
        Comment(value) => text("comment", value),
        Description(value) | Synopsis(value) | Summary(value) | Subject(value) | Keywords(value) => {
            text("description", value)
        }
        Lyrics(value) => text("lyrics", value),
        _ => None,
    }
}

/// The fields of a comment header, as far as it goes: its end may be cut.
///
/// # Source
/// Ogg Vorbis I format specification: comment field and header specification; RFC 7845, 5.2; RFC 9639, 8.6.
fn comments(packet: &[u8]) -> Vec<(&'static str, String)> {
    let body = [&b"\x03vorbis"[..], b"OpusTags"].iter().find_map(|begin| packet.strip_prefix(*begin));
    // A block of FLAC has its kind and three bytes of length before.
    let Some(mut rest) = body.or_else(|| packet.get(4..).filter(|_| packet[0] & 0x7f == 4)) else { return Vec::new() };
    if field(&mut rest).is_none() {
        return Vec::new();
    }
    // The number of fields is not needed: those that are there are read.
    rest = rest.get(4..).unwrap_or_default();
    let mut found = Vec::new();
    while let Some(field) = field(&mut rest) {
        let text = String::from_utf8_lossy(field);
        let Some((key, value)) = text.split_once('=') else { continue };
        let name = match key.to_ascii_uppercase().as_str() {
            "TITLE" => "title",
            "ARTIST" | "AUTHOR" => "artist",
            "ALBUM" => "album",
            "ALBUMARTIST" | "ALBUM ARTIST" => "album_artist",
            "COMPOSER" => "composer",
            "PERFORMER" | "NARRATOR" => "performer",
            "CONDUCTOR" => "conductor",
            "GENRE" => "genre",
            "DATE" | "YEAR" => "date",
            "COMMENT" => "comment",
            "DESCRIPTION" => "description",
            "LYRICS" => "lyrics",
            _ => continue,
        };
        found.push((name, value.to_owned()));
    }
    found
}

/// A value behind its length.
fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (value, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = after;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(begin: &[u8], fields: &[&str]) -> Vec<u8> {
        let mut packet = begin.to_vec();
        let mut put = |text: &str| {
            packet.extend((text.len() as u32).to_le_bytes());
            packet.extend(text.as_bytes());
        };
        put("a writer");
        packet.extend((fields.len() as u32).to_le_bytes());
        for field in fields {
            packet.extend((field.len() as u32).to_le_bytes());
            packet.extend(field.as_bytes());
        }
        packet
    }

    #[test]
    fn comments_are_read_as_far_as_they_go() {
        let fields = ["title=Winter harbour", "ARTIST=Nora K.", "ENCODER=x", "no field", "date=1998"];
        for begin in [&b"\x03vorbis"[..], b"OpusTags", b"\x84\0\0\x40"] {
            let whole = packet(begin, &fields);
            let expected = [("title", "Winter harbour"), ("artist", "Nora K."), ("date", "1998")];
            let found = comments(&whole);
            assert_eq!(found.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>(), expected);
            for cut in 0..whole.len() {
                assert!(comments(&whole[..cut]).len() <= expected.len());
            }
        }
        assert!(comments(b"").is_empty());
    }

    /// An MP3 without audio but a frame of silence, behind ID3v2.3 with text frames, and ID3v1 at its end.
    fn mp3(frames: &[(&[u8; 4], &str)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, value) in frames {
            body.extend(*name);
            body.extend((value.len() as u32 + 1).to_be_bytes());
            body.extend([0, 0, 0]);
            body.extend(value.bytes());
        }
        let size = body.len() as u32;
        let mut file = b"ID3\x03\0\0".to_vec();
        file.extend([21, 14, 7, 0].map(|shift| (size >> shift) as u8 & 0x7f));
        file.extend(body);
        // MPEG 1 layer III, 128 kbit/s, 44.1 kHz: frames of 417 bytes.
        for _ in 0..8 {
            file.extend([0xff, 0xfb, 0x90, 0xc4]);
            file.resize(file.len() + 413, 0);
        }
        file
    }

    #[test]
    fn the_tags_of_an_mp3_are_found_and_damage_gives_none() {
        let folder = std::env::temp_dir().join(format!("omniburn-tags-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("song.mp3");
        let whole = mp3(&[(b"TIT2", "The salt road"), (b"TPE1", "Mules"), (b"TALB", "Passes"), (b"TENC", "x")]);
        std::fs::write(&path, &whole).unwrap();
        let tag = |name, value: &str| MediaTag { name, value: value.into() };
        assert_eq!(media_tags(&path), [tag("title", "The salt road"), tag("artist", "Mules"), tag("album", "Passes")]);
        for cut in (0..120).step_by(7) {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let _ = media_tags(&path);
        }
        assert_eq!(media_tags(&folder.join("none.mp3")), []);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
