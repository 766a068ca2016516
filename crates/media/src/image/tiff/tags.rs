//! The directory of a TIFF: its header, the tags of its first image, and their values.
//!
//! Nothing is reserved by a number that the file states alone: a list of values is read only where all of it lies in
//! the file.

use std::io::SeekFrom;

use super::fault::{Fault, damaged};
use crate::image::rgb::ReadSeek;

/// Tags that are read, by the names of the specification.
pub(super) mod tag {
    pub const NEW_SUBFILE_TYPE: u16 = 254;
    pub const IMAGE_WIDTH: u16 = 256;
    pub const IMAGE_LENGTH: u16 = 257;
    pub const BITS_PER_SAMPLE: u16 = 258;
    pub const COMPRESSION: u16 = 259;
    pub const PHOTOMETRIC: u16 = 262;
    pub const FILL_ORDER: u16 = 266;
    pub const STRIP_OFFSETS: u16 = 273;
    pub const SAMPLES_PER_PIXEL: u16 = 277;
    pub const ROWS_PER_STRIP: u16 = 278;
    pub const STRIP_BYTE_COUNTS: u16 = 279;
    pub const PLANAR_CONFIGURATION: u16 = 284;
    pub const T4_OPTIONS: u16 = 292;
    pub const PREDICTOR: u16 = 317;
    pub const COLOR_MAP: u16 = 320;
    pub const TILE_WIDTH: u16 = 322;
    pub const TILE_LENGTH: u16 = 323;
    pub const TILE_OFFSETS: u16 = 324;
    pub const TILE_BYTE_COUNTS: u16 = 325;
    pub const INK_SET: u16 = 332;
    pub const EXTRA_SAMPLES: u16 = 338;
    pub const SAMPLE_FORMAT: u16 = 339;
    pub const JPEG_TABLES: u16 = 347;
    pub const YCBCR_COEFFICIENTS: u16 = 529;
    pub const YCBCR_SUBSAMPLING: u16 = 530;
    pub const REFERENCE_BLACK_WHITE: u16 = 532;
    pub const DNG_VERSION: u16 = 50706;
}

/// One entry of a directory.
struct Entry {
    tag: u16,
    kind: u16,
    count: u64,
    /// Where its values lie in the file.
    at: u64,
}

/// The first directory of a file.
pub(super) struct Directory {
    pub(super) big_endian: bool,
    /// Bytes of the whole file.
    pub(super) file_bytes: u64,
    entries: Vec<Entry>,
}

/// Tags that a directory has at most; those of cameras and scanners have some dozens.
const MOST_TAGS: u64 = 16_384;

impl Directory {
    /// Reads the header and the directory that it points at.
    pub(super) fn read(source: &mut dyn ReadSeek, file_bytes: u64) -> Result<Self, Fault> {
        let mut found = Self { big_endian: false, file_bytes, entries: Vec::new() };
        let head = found.bytes(source, 0, 8)?;
        found.big_endian = head[0] == b'M';
        // Pillow takes the version in either order of bytes, as some writers get it wrong.
        let wide = head[2] == 43 || head[3] == 43;
        let first = if wide {
            let rest = found.bytes(source, 8, 8)?;
            if found.number(&head[4..6]) != 8 {
                return Err(damaged("the header of a BigTIFF has offsets that are not of 8 bytes"));
            }
            found.number(&rest)
        } else {
            found.number(&head[4..])
        };
        let (count_bytes, entry_bytes, inline_bytes) = if wide { (8, 20, 8) } else { (2, 12, 4) };
        let count = found.bytes(source, first, count_bytes)?;
        let count = found.number(&count);
        if count == 0 || count > MOST_TAGS {
            return Err(damaged(format!("the first directory has {count} tags")));
        }
        let table = found.bytes(source, first + count_bytes, count * entry_bytes)?;
        for (index, entry) in table.chunks_exact(entry_bytes as usize).enumerate() {
            let (tag, kind) = (found.number(&entry[..2]) as u16, found.number(&entry[2..4]) as u16);
            let count = found.number(&entry[4..entry.len() - inline_bytes]);
            let inline = &entry[entry.len() - inline_bytes..];
            let Some(size) = kind_bytes(kind) else { continue };
            let at = if count.saturating_mul(size) <= inline_bytes as u64 {
                first + count_bytes + (index as u64 + 1) * entry_bytes - inline_bytes as u64
            } else {
                found.number(inline)
            };
            found.entries.push(Entry { tag, kind, count, at });
        }
        Ok(found)
    }

    /// An unsigned number of any width in the byte order of the file.
    pub(super) fn number(&self, bytes: &[u8]) -> u64 {
        let join = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        if self.big_endian { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) }
    }

    /// Bytes that lie in the file as a whole.
    fn bytes(&self, source: &mut dyn ReadSeek, at: u64, count: u64) -> Result<Vec<u8>, Fault> {
        if at.checked_add(count).is_none_or(|end| end > self.file_bytes) {
            return Err(damaged(format!("{count} bytes at {at} lie behind the end of the file")));
        }
        source.seek(SeekFrom::Start(at))?;
        let mut bytes = vec![0; count as usize];
        source.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn entry(&self, tag: u16) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.tag == tag && entry.count > 0)
    }

    pub(super) fn has(&self, tag: u16) -> bool {
        self.entry(tag).is_some()
    }

    /// How many values a tag has.
    pub(super) fn count(&self, tag: u16) -> u64 {
        self.entry(tag).map_or(0, |entry| entry.count)
    }

    /// The bytes of a tag of any type.
    pub(super) fn raw(&self, source: &mut dyn ReadSeek, tag: u16) -> Result<Option<Vec<u8>>, Fault> {
        let Some(entry) = self.entry(tag) else { return Ok(None) };
        let size = kind_bytes(entry.kind).expect("entries of unknown types are not kept");
        Ok(Some(self.bytes(source, entry.at, entry.count.saturating_mul(size))?))
    }

    /// The values of a tag of whole numbers, at most `most` of them.
    pub(super) fn numbers(&self, source: &mut dyn ReadSeek, tag: u16, most: u64) -> Result<Option<Vec<u64>>, Fault> {
        let Some(entry) = self.entry(tag) else { return Ok(None) };
        let size = kind_bytes(entry.kind).expect("entries of unknown types are not kept");
        let signed = matches!(entry.kind, 6 | 8 | 9 | 17);
        if !signed && !matches!(entry.kind, 1 | 3 | 4 | 7 | 13 | 16 | 18) {
            return Err(damaged(format!("tag {tag} has values of type {}, expected whole numbers", entry.kind)));
        }
        let bytes = self.bytes(source, entry.at, entry.count.min(most).saturating_mul(size))?;
        let values = bytes.chunks_exact(size as usize).map(|bytes| {
            let value = self.number(bytes);
            if signed && value >> (8 * size - 1) != 0 {
                return Err(damaged(format!("tag {tag} has a negative value")));
            }
            Ok(value)
        });
        values.collect::<Result<_, _>>().map(Some)
    }

    /// The first value of a tag.
    pub(super) fn one(&self, source: &mut dyn ReadSeek, tag: u16) -> Result<Option<u64>, Fault> {
        Ok(self.numbers(source, tag, 1)?.map(|values| values[0]))
    }

    /// The first value of a tag that fits 32 bits.
    pub(super) fn one_u32(&self, source: &mut dyn ReadSeek, tag: u16) -> Result<Option<u32>, Fault> {
        let small = |value| u32::try_from(value).map_err(|_| damaged(format!("tag {tag} is {value}")));
        self.one(source, tag)?.map(small).transpose()
    }

    /// The values of a tag of fractions, floats or whole numbers.
    pub(super) fn reals(&self, source: &mut dyn ReadSeek, tag: u16, most: u64) -> Result<Option<Vec<f32>>, Fault> {
        let Some(entry) = self.entry(tag) else { return Ok(None) };
        let (kind, size) = (entry.kind, kind_bytes(entry.kind).expect("entries of unknown types are not kept"));
        if !matches!(kind, 5 | 10 | 11 | 12) {
            let whole = self.numbers(source, tag, most)?;
            return Ok(whole.map(|values| values.into_iter().map(|value| value as f32).collect()));
        }
        let bytes = self.bytes(source, entry.at, entry.count.min(most).saturating_mul(size))?;
        let value = |bytes: &[u8]| match kind {
            11 => f32::from_bits(self.number(bytes) as u32),
            12 => f64::from_bits(self.number(bytes)) as f32,
            _ => {
                let [above, below] = [&bytes[..4], &bytes[4..]].map(|part| self.number(part) as u32);
                let real = |part: u32| if kind == 10 { f64::from(part as i32) } else { f64::from(part) };
                if below == 0 { 0.0 } else { (real(above) / real(below)) as f32 }
            }
        };
        Ok(Some(bytes.chunks_exact(size as usize).map(value).collect()))
    }
}

/// Bytes of one value of a type; `None` for types that no version of the specification has.
fn kind_bytes(kind: u16) -> Option<u64> {
    Some(match kind {
        1 | 2 | 6 | 7 => 1,
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16 | 17 | 18 => 8,
        _ => return None,
    })
}
