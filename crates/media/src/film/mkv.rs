//! Matroska and WebM files into a picture track. One pass over the headers; the bytes of blocks are passed over.
//!
//! Why not a crate: matroska-demuxer 0.8.1 gives the bytes of each block and not its place, so times alone would cost a
//! reading of the whole film, and symphonia's reader hides the same place.

use crate::error::MediaError;
use crate::film::packets::{Codec, Packet, PictureTrack, TrackColour};
use crate::film::source::{Placed, Source};

const SEGMENT: u64 = 0x1853_8067;
const INFO: u64 = 0x1549_a966;
const TRACKS: u64 = 0x1654_ae6b;
const CLUSTER: u64 = 0x1f43_b675;
const TIMESTAMP: u64 = 0xe7;
const SIMPLE_BLOCK: u64 = 0xa3;
const BLOCK_GROUP: u64 = 0xa0;
const BLOCK: u64 = 0xa1;
const BLOCK_DURATION: u64 = 0x9b;
const REFERENCE: u64 = 0xfb;

/// Description of the tracks; the codec's configuration and fonts of no use to us are all that can be long.
const MAX_TRACKS_BYTES: u64 = 16 << 20;

/// As in [`super::mp4`].
const MAX_PACKETS: usize = 1 << 23;
const MAX_PACKET_BYTES: u64 = 1 << 28;

/// Bytes that are read at once while walking from header to header.
const WINDOW: u64 = 4096;

/// The head of an element: its name, the length of the head, and of the body (`None`: not known).
struct Head {
    id: u64,
    head: u64,
    body: Option<u64>,
}

/// A number of variable length: its value with and without the length marker, and its length.
fn vint(bytes: &[u8]) -> Option<(u64, u64, usize)> {
    let len = bytes.first()?.leading_zeros() as usize + 1;
    if len > 8 {
        return None;
    }
    let marked = bytes.get(..len)?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    Some((marked, marked & !(1 << (7 * len)), len))
}

fn head(bytes: &[u8]) -> Option<Head> {
    let (id, _, id_len) = vint(bytes)?;
    let (_, size, size_len) = vint(&bytes[id_len..])?;
    let unknown = size == (1 << (7 * size_len)) - 1;
    Some(Head { id, head: (id_len + size_len) as u64, body: (!unknown).then_some(size) })
}

/// The elements of a body that is in memory; `None` if one does not fit.
fn elements(mut bytes: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let head = head(bytes)?;
        let (from, len) = (head.head as usize, usize::try_from(head.body?).ok()?);
        let end = from.checked_add(len)?;
        found.push((head.id, bytes.get(from..end)?));
        bytes = &bytes[end..];
    }
    Some(found)
}

fn child<'a>(found: &[(u64, &'a [u8])], id: u64) -> Option<&'a [u8]> {
    found.iter().find(|(found, _)| *found == id).map(|(_, body)| *body)
}

fn unsigned(bytes: &[u8]) -> Option<u64> {
    (bytes.len() <= 8).then(|| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

fn float(bytes: &[u8]) -> Option<f64> {
    match bytes.len() {
        0 => Some(0.0),
        4 => Some(f64::from(f32::from_be_bytes(bytes.try_into().ok()?))),
        8 => Some(f64::from_be_bytes(bytes.try_into().ok()?)),
        _ => None,
    }
}

/// The source with a few bytes ahead.
struct Walk<'a> {
    source: &'a mut Source,
    at: u64,
    window: Vec<u8>,
}

impl Walk<'_> {
    /// At least `len` bytes from a place, or all that are left.
    fn peek(&mut self, at: u64, len: u64) -> Result<&[u8], MediaError> {
        let end = at.saturating_add(len).min(self.source.len());
        if at < self.at || end > self.at + self.window.len() as u64 {
            self.window = self.source.read_up_to(at, WINDOW.max(len))?;
            self.at = at;
        }
        Ok(&self.window[(at - self.at) as usize..])
    }

    fn head(&mut self, at: u64) -> Result<Head, MediaError> {
        let found = head(self.peek(at, 16)?);
        found.ok_or_else(|| self.source.corrupt(format!("what stands at byte {at} is no element")))
    }
}

/// What is known of the track.
struct Track {
    number: u64,
    codec: Codec,
    config: Vec<u8>,
    width: u32,
    height: u32,
    quarter_turns: u8,
    colour: Option<TrackColour>,
    /// Nanoseconds.
    default_duration: Option<u64>,
    stripped: Vec<u8>,
}

/// A block of the track.
struct Found {
    pts: i64,
    sync: bool,
    visible: bool,
    duration: Option<u64>,
    place: (u64, u32),
}

/// The film's picture track.
pub(crate) fn open(mut source: Source) -> Result<PictureTrack, MediaError> {
    let mut scale = 1_000_000;
    let mut track: Option<Track> = None;
    let mut found: Vec<Found> = Vec::new();
    let file_len = source.len();
    let mut walk = Walk { source: &mut source, at: 0, window: Vec::new() };
    let mut cluster = 0;
    let mut at = 0;
    while at < file_len {
        let head = walk.head(at)?;
        let body_at = at + head.head;
        if matches!(head.id, SEGMENT | CLUSTER) {
            if head.body.is_some_and(|body| body_at.saturating_add(body) > file_len) {
                return Err(walk.source.corrupt(format!("a part that begins at byte {at} goes beyond the film's end")));
            }
            // Their children follow as if they stood by themselves, which is also how an unknown size is read.
            at = body_at;
            continue;
        }
        let Some(body) = head.body else {
            return Err(walk.source.corrupt(format!("the element at byte {at} does not say its size")));
        };
        let end = body_at.saturating_add(body);
        if end > file_len {
            return Err(walk
                .source
                .corrupt(format!("the element at byte {at} ends at byte {end}, and the film ends at {file_len}")));
        }
        match head.id {
            INFO | TRACKS => {
                if body > MAX_TRACKS_BYTES {
                    return Err(walk.source.corrupt(format!("its description has {body} bytes")));
                }
                let bytes = walk.source.read(body_at, body)?;
                let Some(parts) = elements(&bytes) else {
                    return Err(walk.source.corrupt("its description does not hold together"));
                };
                if head.id == INFO {
                    scale = child(&parts, 0x2a_d7b1).map_or(Some(1_000_000), unsigned).unwrap_or(0);
                    if scale == 0 || scale > 1_000_000_000 {
                        return Err(walk.source.corrupt(format!("its clock has ticks of {scale} ns")));
                    }
                } else if track.is_none() {
                    track = picture_track(walk.source, &parts)?;
                }
            }
            TIMESTAMP => {
                let bytes = walk.peek(body_at, body)?;
                let time = bytes.get(..body as usize).and_then(unsigned).filter(|time| *time < 1 << 50);
                cluster = match time {
                    Some(time) => time as i64,
                    None => return Err(walk.source.corrupt("a cluster begins beyond all time")),
                };
            }
            SIMPLE_BLOCK => {
                if let Some(track) = &track
                    && let Some((block, flags)) = read_block(&mut walk, body_at, body, cluster, track.number)?
                {
                    found.push(Found { sync: flags & 0x80 != 0, ..block });
                }
            }
            BLOCK_GROUP => {
                if let Some(track) = &track {
                    let mut inner = body_at;
                    let (mut block, mut duration, mut refers) = (None, None, false);
                    while inner < end {
                        let part = walk.head(inner)?;
                        let part_at = inner + part.head;
                        let part_end = part.body.and_then(|body| part_at.checked_add(body)).filter(|at| *at <= end);
                        let (Some(part_end), Some(body)) = (part_end, part.body) else {
                            return Err(walk
                                .source
                                .corrupt(format!("the block group at byte {at} does not hold together")));
                        };
                        match part.id {
                            BLOCK => block = read_block(&mut walk, part_at, body, cluster, track.number)?,
                            BLOCK_DURATION if body <= 8 => {
                                duration = walk.peek(part_at, body)?.get(..body as usize).and_then(unsigned);
                            }
                            REFERENCE => refers = true,
                            _ => {}
                        }
                        inner = part_end;
                    }
                    if let Some((block, _)) = block {
                        found.push(Found { sync: !refers, duration, ..block });
                    }
                }
            }
            _ => {}
        }
        if found.len() > MAX_PACKETS {
            return Err(walk.source.corrupt(format!("it has more than {MAX_PACKETS} pictures")));
        }
        at = end;
    }
    let Some(track) = track else {
        return Err(MediaError::NoTrack {
            name: source.name().to_owned(),
            found: "a film without pictures".to_owned(),
            expected: "a picture track",
        });
    };
    let seconds = |ticks: f64| ticks * scale as f64 / 1e9;
    // The last picture may say nothing of its length; then it is shown as long as the one before it.
    let mut order: Vec<i64> = found.iter().map(|block| block.pts).collect();
    order.sort_unstable();
    let last_gap = if let [.., a, b] = order[..] { (b - a) as f64 } else { 0.0 };
    let packets = found
        .iter()
        .map(|block| Packet {
            pts: block.pts,
            start_s: seconds(block.pts as f64),
            duration_s: match (block.duration, track.default_duration) {
                (Some(ticks), _) => seconds(ticks as f64),
                (None, Some(nanoseconds)) => nanoseconds as f64 / 1e9,
                (None, None) => seconds(last_gap),
            },
            sync: block.sync,
            shown: block.visible,
        })
        .collect();
    let (name, format) = (source.name().to_owned(), source.format);
    // The list of blocks while it grows, and their order.
    let opening = (2 * size_of::<Found>() as u64 + 8) * found.len() as u64;
    let places = found.iter().map(|block| block.place).collect();
    Ok(PictureTrack {
        name,
        format,
        codec: track.codec,
        config: track.config,
        width: track.width,
        height: track.height,
        quarter_turns: track.quarter_turns,
        mirrored: false,
        colour: track.colour,
        packets,
        data: Box::new(Placed { source, places, stripped: track.stripped }),
        opening,
    })
}

/// A block and its flags, if it is of the track.
fn read_block(
    walk: &mut Walk<'_>,
    at: u64,
    body: u64,
    cluster: i64,
    number: u64,
) -> Result<Option<(Found, u8)>, MediaError> {
    let parts = (|| {
        let bytes = walk.peek(at, 12.min(body)).ok()?;
        let (_, track, len) = vint(bytes)?;
        let rest = bytes.get(len..len + 3)?;
        Some((track, len as u64 + 3, i16::from_be_bytes([rest[0], rest[1]]), rest[2]))
    })();
    let Some((track, head, shift, flags)) = parts.filter(|parts| parts.1 <= body) else {
        return Err(walk.source.corrupt(format!("the block at byte {at} ends too early")));
    };
    if track != number {
        return Ok(None);
    }
    if flags & 6 != 0 {
        return Err(walk.source.unsupported("found several pictures laced into one block"));
    }
    let len = body - head;
    if len > MAX_PACKET_BYTES {
        return Err(walk.source.corrupt(format!("a picture has {len} bytes, expected at most {MAX_PACKET_BYTES}")));
    }
    let (pts, visible) = (cluster + i64::from(shift), flags & 8 == 0);
    Ok(Some((Found { pts, sync: false, visible, duration: None, place: (at + head, len as u32) }, flags)))
}

/// The first picture track that is switched on, else the first one.
fn picture_track(source: &Source, entries: &[(u64, &[u8])]) -> Result<Option<Track>, MediaError> {
    let broken = || source.corrupt("the description of a track does not hold together");
    let mut chosen: Option<Vec<(u64, &[u8])>> = None;
    for (_, body) in entries.iter().filter(|(id, _)| *id == 0xae) {
        let parts = elements(body).ok_or_else(broken)?;
        if child(&parts, 0x83).and_then(unsigned) != Some(1) {
            continue;
        }
        let enabled = child(&parts, 0xb9).and_then(unsigned).unwrap_or(1) == 1;
        if enabled {
            chosen = Some(parts);
            break;
        }
        chosen.get_or_insert(parts);
    }
    let Some(parts) = chosen else {
        return Ok(None);
    };
    let number = child(&parts, 0xd7).and_then(unsigned).ok_or_else(broken)?;
    let codec = child(&parts, 0x86).unwrap_or_default();
    let codec = match codec.split(|byte| *byte == 0).next().unwrap_or_default() {
        b"V_MPEG4/ISO/AVC" => Codec::H264,
        b"V_AV1" => Codec::Av1,
        b"V_MPEGH/ISO/HEVC" => Codec::Hevc,
        b"V_VP9" => Codec::Vp9,
        b"V_VP8" => Codec::Vp8,
        other => Codec::Other(other.escape_ascii().to_string()),
    };
    let config = child(&parts, 0x63a2).unwrap_or_default().to_vec();
    let default_duration = child(&parts, 0x23_e383).and_then(unsigned).filter(|duration| *duration > 0);
    let video = elements(child(&parts, 0xe0).unwrap_or_default()).ok_or_else(broken)?;
    let side = |id| child(&video, id).and_then(unsigned).and_then(|side| u32::try_from(side).ok()).unwrap_or(0);
    let colour = match child(&video, 0x55b0) {
        None => None,
        Some(body) => {
            let parts = elements(body).ok_or_else(broken)?;
            let code = |id, default| child(&parts, id).and_then(unsigned).unwrap_or(default);
            let matrix = u8::try_from(code(0x55b1, 2)).unwrap_or(2);
            Some(TrackColour { matrix, full_range: code(0x55b9, 0) == 2 })
        }
    };
    let mut quarter_turns = 0;
    if let Some(body) = child(&video, 0x7670) {
        let parts = elements(body).ok_or_else(broken)?;
        let angle = |id| child(&parts, id).and_then(float).unwrap_or(0.0);
        let rectangular = child(&parts, 0x7671).and_then(unsigned).unwrap_or(0) == 0;
        if rectangular && angle(0x7673) == 0.0 && angle(0x7674) == 0.0 {
            // The roll counts against the clock.
            let turns = -angle(0x7675) / 90.0;
            if (turns - turns.round()).abs() > 0.01 || turns.abs() > 1e6 {
                return Err(source.unsupported("found pictures turned by an angle that is no quarter turn"));
            }
            quarter_turns = (turns.round() as i64).rem_euclid(4) as u8;
        }
    }
    let mut stripped = Vec::new();
    if let Some(body) = child(&parts, 0x6d80) {
        for (_, body) in elements(body).ok_or_else(broken)?.iter().filter(|(id, _)| *id == 0x6240) {
            let parts = elements(body).ok_or_else(broken)?;
            if child(&parts, 0x5033).and_then(unsigned).unwrap_or(0) != 0 {
                return Err(source.unsupported("found encrypted pictures"));
            }
            let compression = elements(child(&parts, 0x5034).unwrap_or_default()).ok_or_else(broken)?;
            if child(&compression, 0x4254).and_then(unsigned).unwrap_or(0) != 3 {
                return Err(source.unsupported("found a picture track that is packed once more as a whole"));
            }
            if child(&parts, 0x5032).and_then(unsigned).unwrap_or(1) & 1 != 0 {
                stripped = child(&compression, 0x4255).unwrap_or_default().to_vec();
            }
        }
    }
    let (width, height) = (side(0xb0), side(0xba));
    Ok(Some(Track { number, codec, config, width, height, quarter_turns, colour, default_duration, stripped }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_variable_length() {
        assert_eq!(vint(&[0x81]), Some((0x81, 1, 1)));
        assert_eq!(vint(&[0x40, 0x02]), Some((0x4002, 2, 2)));
        assert_eq!(vint(&[0x01, 0, 0, 0, 0, 0, 0, 9]), Some((0x0100_0000_0000_0009, 9, 8)));
        assert_eq!(vint(&[0x00, 1]), None);
        assert_eq!(vint(&[0x40]), None);
        assert_eq!(vint(&[]), None);
        assert!(head(&[0xa3, 0xff]).is_some_and(|head| head.body.is_none()), "all ones: not known");
    }
}
