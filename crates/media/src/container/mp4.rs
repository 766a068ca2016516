//! Boxes of ISO media files (MP4, MOV): their heads and bodies, and what the header of a movie says of its tracks, whatever
//! the tracks hold. Only boxes are read, never `mdat`.
//!
//! Why not a crate: re_mp4 0.5.1 keeps neither edit lists nor `colr` nor what is needed to bound a hostile table.
//!
//! # Source
//! ISO/IEC 14496-12; QuickTime File Format.

use super::tracks::packed_language;
use crate::error::MediaError;
use crate::source::Source;

/// Boxes `moov` and `moof` of more bytes than this are refused; an hour of video needs about 3 MB.
pub(crate) const MAX_HEADER_BYTES: u64 = 256 << 20;

/// Why a box cannot be used, in words; the name of the file comes later.
pub(crate) enum Bad {
    Corrupt(String),
    Unsupported(String),
    Named(Box<MediaError>),
}

pub(crate) type Step<T> = Result<T, Bad>;

/// A box that breaks the rules.
pub(crate) fn bad<T>(words: impl Into<String>) -> Step<T> {
    Err(Bad::Corrupt(words.into()))
}

/// A box at the top of a file.
pub(crate) struct TopBox {
    pub(crate) kind: [u8; 4],
    /// Where its body begins.
    pub(crate) body: u64,
    /// Where it ends as it says, which may be beyond the end of the file.
    pub(crate) end: u64,
}

impl TopBox {
    /// The box at a place; `None` where there is none, or one of a size that no box can have.
    pub(crate) fn read(source: &mut Source, at: u64) -> Result<Option<Self>, MediaError> {
        let Some((kind, header, size)) = box_head(&source.read_up_to(at, 16)?) else { return Ok(None) };
        let end = if size == 0 { source.length() } else { at.saturating_add(size) };
        Ok(Some(Self { kind, body: at + header, end }))
    }

    /// Its body, as far as the file has it.
    pub(crate) fn bytes(&self, source: &mut Source) -> Result<Vec<u8>, MediaError> {
        source.read_up_to(self.body, self.end.saturating_sub(self.body))
    }
}

/// Type, length of the header, and size of a box (0: to the end).
fn box_head(head: &[u8]) -> Option<([u8; 4], u64, u64)> {
    let size = u64::from(u32::from_be_bytes(head.get(0..4)?.try_into().ok()?));
    let kind: [u8; 4] = head.get(4..8)?.try_into().ok()?;
    match size {
        1 => {
            let size = u64::from_be_bytes(head.get(8..16)?.try_into().ok()?);
            (size >= 16).then_some((kind, 16, size))
        }
        0 => Some((kind, 8, 0)),
        8.. => Some((kind, 8, size)),
        _ => None,
    }
}

/// Reads numbers from the body of a box.
#[derive(Copy, Clone)]
pub(crate) struct Reader<'a> {
    pub(crate) bytes: &'a [u8],
    kind: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], kind: &'static str) -> Self {
        Self { bytes, kind }
    }

    pub(crate) fn take(&mut self, len: usize) -> Step<&'a [u8]> {
        if len > self.bytes.len() {
            return bad(format!("its box {} ends too early", self.kind));
        }
        let (taken, rest) = self.bytes.split_at(len);
        self.bytes = rest;
        Ok(taken)
    }

    pub(crate) fn u8(&mut self) -> Step<u8> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn u16(&mut self) -> Step<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    pub(crate) fn u32(&mut self) -> Step<u32> {
        self.take(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    pub(crate) fn i32(&mut self) -> Step<i32> {
        self.u32().map(|value| value as i32)
    }

    pub(crate) fn u64(&mut self) -> Step<u64> {
        Ok(u64::from(self.u32()?) << 32 | u64::from(self.u32()?))
    }

    /// 64 bits in version 1 of a box, else 32.
    pub(crate) fn wide(&mut self, version: u8) -> Step<u64> {
        if version == 1 { self.u64() } else { self.u32().map(u64::from) }
    }

    /// Version and flags.
    pub(crate) fn full(&mut self) -> Step<(u8, u32)> {
        let word = self.u32()?;
        Ok(((word >> 24) as u8, word & 0xff_ffff))
    }

    /// A number of entries, which must be there.
    pub(crate) fn count(&mut self, entry_bytes: usize) -> Step<usize> {
        let count = self.u32()? as usize;
        if count.saturating_mul(entry_bytes) > self.bytes.len() {
            return bad(format!("its box {} claims {count} entries and ends before them", self.kind));
        }
        Ok(count)
    }
}

/// The boxes in a body. What follows the last whole one, if shorter than a header, is padding.
pub(crate) fn boxes(mut bytes: &[u8]) -> Step<Vec<([u8; 4], &[u8])>> {
    let mut found = Vec::new();
    while bytes.len() >= 8 {
        let Some((kind, header, size)) = box_head(bytes) else {
            return bad("a box has a size that no box can have");
        };
        // A zero word ends a list of boxes in QuickTime files.
        if size == 0 && kind == [0; 4] {
            break;
        }
        let size = if size == 0 { bytes.len() as u64 } else { size };
        if size > bytes.len() as u64 {
            return bad(format!("its box {} is longer than what it lies in", String::from_utf8_lossy(&kind)));
        }
        let (whole, rest) = bytes.split_at(size as usize);
        found.push((kind, &whole[header as usize..]));
        bytes = rest;
    }
    Ok(found)
}

/// The first box of a type.
pub(crate) fn child<'a>(found: &[([u8; 4], &'a [u8])], kind: &[u8; 4]) -> Option<&'a [u8]> {
    found.iter().find(|(found, _)| found == kind).map(|(_, body)| *body)
}

/// The first box of a type, which must be there.
pub(crate) fn required<'a>(found: &[([u8; 4], &'a [u8])], kind: &'static str) -> Step<&'a [u8]> {
    let wanted: &[u8; 4] = kind.as_bytes().try_into().expect("types have four letters");
    child(found, wanted).ok_or_else(|| Bad::Corrupt(format!("it has no box {kind}")))
}

/// The boxes in a body, as far as they are whole: of tracks that another reader refuses where they are not.
pub(crate) fn whole_boxes(body: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let (kind, header, size) = box_head(rest)?;
        let size = if size == 0 { rest.len() } else { usize::try_from(size).ok()? };
        let inner = rest.get(header as usize..size)?;
        rest = &rest[size..];
        Some((kind, inner))
    })
}

/// The first whole box of a type, inside one another.
pub(crate) fn whole_box<'a>(body: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    path.iter().try_fold(body, |body, name| whole_boxes(body).find(|(found, _)| found == *name).map(|(_, body)| body))
}

/// The two by two part of a transformation matrix: a, b, c, d.
fn matrix(reader: &mut Reader<'_>) -> Step<[i64; 4]> {
    let mut values = [0; 9];
    for value in &mut values {
        *value = i64::from(reader.i32()?);
    }
    Ok([values[0], values[1], values[3], values[4]])
}

/// The header of a movie, `mvhd`.
pub(crate) struct MovieHeader {
    /// Ticks a second.
    pub(crate) timescale: u32,
    pub(crate) matrix: [i64; 4],
}

impl MovieHeader {
    pub(crate) fn read(body: &[u8]) -> Step<Self> {
        let mut head = Reader::new(body, "mvhd");
        let (version, _) = head.full()?;
        head.take(if version == 1 { 16 } else { 8 })?;
        let timescale = head.u32()?;
        head.take(if version == 1 { 8 } else { 4 } + 16)?;
        Ok(Self { timescale, matrix: matrix(&mut head)? })
    }
}

/// The header of a track, `tkhd`.
pub(crate) struct TrackHeader {
    pub(crate) id: u32,
    /// Meant to be played unless another one is asked for.
    pub(crate) enabled: bool,
    pub(crate) matrix: [i64; 4],
}

impl TrackHeader {
    pub(crate) fn read(body: &[u8]) -> Step<Self> {
        let mut head = Reader::new(body, "tkhd");
        let (version, flags) = head.full()?;
        head.take(if version == 1 { 16 } else { 8 })?;
        let id = head.u32()?;
        head.take(if version == 1 { 12 } else { 8 } + 16)?;
        Ok(Self { id, enabled: flags & 1 == 1, matrix: matrix(&mut head)? })
    }
}

/// The header of what a track holds, `mdhd`.
pub(crate) struct MediaHeader {
    /// Ticks a second.
    pub(crate) timescale: u32,
    pub(crate) language: Option<String>,
}

impl MediaHeader {
    pub(crate) fn read(body: &[u8]) -> Step<Self> {
        let mut head = Reader::new(body, "mdhd");
        let (version, _) = head.full()?;
        head.take(if version == 1 { 16 } else { 8 })?;
        let timescale = head.u32()?;
        head.take(if version == 1 { 8 } else { 4 })?;
        Ok(Self { timescale, language: packed_language(head.u16()?) })
    }
}

/// The kind of a track, of `hdlr`: "vide", "soun".
pub(crate) fn handler(body: &[u8]) -> Step<[u8; 4]> {
    let mut reader = Reader::new(body, "hdlr");
    reader.take(8)?;
    reader.take(4).map(|kind| std::array::from_fn(|i| kind[i]))
}

/// An entry of an edit list, `elst`.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Edit {
    /// On the movie's clock.
    pub(crate) duration: u64,
    /// On the track's clock; less than zero: nothing is shown.
    pub(crate) start: i64,
    /// In parts of 65,536.
    pub(crate) rate: u32,
}

/// The edit list of a track.
pub(crate) fn edit_list(body: &[u8]) -> Step<Vec<Edit>> {
    let mut list = Reader::new(body, "elst");
    let (version, _) = list.full()?;
    let count = list.count(if version == 1 { 20 } else { 12 })?;
    let edit = |_| {
        let duration = list.wide(version)?;
        let start = if version == 1 { list.u64()? as i64 } else { i64::from(list.i32()?) };
        Ok(Edit { duration, start, rate: list.u32()? })
    };
    (0..count).map(edit).collect()
}
