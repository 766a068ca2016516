//! Matroska and WebM files into a picture track. One pass over the headers; the bytes of blocks are passed over.
//!
//! Why not a crate: matroska-demuxer 0.8.1 gives the bytes of each block and not its place, so times alone would cost a
//! reading of the whole film, and symphonia's reader hides the same place.

use std::io::{self, Read, Seek, SeekFrom};

use crate::error::MediaError;
use crate::film::ffmpeg::codec_name;
use crate::film::packets::{Codec, Packet, PictureTrack, TrackColour};
use crate::film::source::{Placed, Source};
use crate::tracks::{TrackChoice, TrackInfo, find};

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

/// Nanoseconds beyond this are refused (146 years), so that sums cannot overflow.
const MAX_TIME_NS: u64 = 1 << 62;

/// Types of tracks.
const VIDEO: u64 = 1;
pub(crate) const AUDIO: u64 = 2;

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
    stream: String,
    config: Vec<u8>,
    width: u32,
    height: u32,
    quarter_turns: u8,
    colour: Option<TrackColour>,
    /// Nanoseconds.
    default_duration: Option<u64>,
    /// Of the ticks of its blocks, relative to those of the file.
    scale: f64,
    stripped: Vec<u8>,
}

/// A block of the track.
struct Found {
    /// Nanoseconds.
    pts: i64,
    sync: bool,
    visible: bool,
    /// Nanoseconds.
    duration: Option<u64>,
    place: (u64, u32),
}

/// The clock of the blocks that are read.
#[derive(Clone, Copy)]
struct Clock {
    /// Nanoseconds a tick.
    scale: u64,
    /// Where the cluster begins, in ticks.
    cluster: u64,
}

impl Clock {
    /// Where a block begins in nanoseconds.
    fn at(&self, shift: i16, track_scale: f64) -> i64 {
        // Bounded where the cluster's time is read.
        let cluster = self.cluster.saturating_mul(self.scale).min(MAX_TIME_NS) as i64;
        let shift = i64::from(shift) * self.scale as i64;
        cluster + if track_scale == 1.0 { shift } else { (shift as f64 * track_scale).round() as i64 }
    }
}

/// The film's picture track.
pub(crate) fn open(mut source: Source, choice: &TrackChoice) -> Result<PictureTrack, MediaError> {
    let mut clock = Clock { scale: 1_000_000, cluster: 0 };
    let mut segments = 0;
    let mut track: Option<Track> = None;
    let mut found: Vec<Found> = Vec::new();
    let file_len = source.len();
    let mut walk = Walk { source: &mut source, at: 0, window: Vec::new() };
    let mut at = 0;
    while at < file_len {
        let head = walk.head(at)?;
        let body_at = at + head.head;
        if matches!(head.id, SEGMENT | CLUSTER) {
            if head.body.is_some_and(|body| body_at.saturating_add(body) > file_len) {
                return Err(walk.source.corrupt(format!("a part that begins at byte {at} goes beyond the film's end")));
            }
            // Its tracks would be others, and its clock begins again.
            segments += usize::from(head.id == SEGMENT);
            if segments > 1 {
                return Err(walk.source.unsupported(format!("found a second file joined to the first at byte {at}")));
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
                    clock.scale = child(&parts, 0x2a_d7b1).map_or(Some(1_000_000), unsigned).unwrap_or(0);
                    if clock.scale == 0 || clock.scale > 1_000_000_000 {
                        return Err(walk.source.corrupt(format!("its clock has ticks of {} ns", clock.scale)));
                    }
                } else if track.is_none() {
                    track = picture_track(walk.source, &parts, choice)?;
                }
            }
            TIMESTAMP => {
                let bytes = walk.peek(body_at, body)?;
                let time = bytes.get(..body as usize).and_then(unsigned);
                let bounded = |time: &u64| time.checked_mul(clock.scale).is_some_and(|time| time < MAX_TIME_NS);
                clock.cluster = match time.filter(bounded) {
                    Some(time) => time,
                    None => return Err(walk.source.corrupt("a cluster begins beyond all time")),
                };
            }
            SIMPLE_BLOCK => {
                if let Some(track) = &track {
                    let before = found.len();
                    let flags = read_block(&mut walk, (body_at, body), clock, track, None, &mut found)?;
                    if let Some(first) = found.get_mut(before) {
                        first.sync = flags & 0x80 != 0;
                    }
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
                            BLOCK => block = Some((part_at, body)),
                            BLOCK_DURATION if body <= 8 => {
                                duration = walk.peek(part_at, body)?.get(..body as usize).and_then(unsigned);
                                let scaled = duration.map(|ticks| ticks as f64 * clock.scale as f64 * track.scale);
                                duration = scaled.filter(|ns| *ns < MAX_TIME_NS as f64).map(|ns| ns.round() as u64);
                            }
                            REFERENCE => refers = true,
                            _ => {}
                        }
                        inner = part_end;
                    }
                    if let Some(block) = block {
                        let before = found.len();
                        read_block(&mut walk, block, clock, track, duration, &mut found)?;
                        if let Some(first) = found.get_mut(before) {
                            first.sync = !refers;
                        }
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
    // The last picture may say nothing of its length; then it is shown as long as the one before it.
    let mut order: Vec<i64> = found.iter().map(|block| block.pts).collect();
    order.sort_unstable();
    let last_gap = if let [.., a, b] = order[..] { b - a } else { 0 };
    let packets = found
        .iter()
        .map(|block| Packet {
            pts: block.pts,
            start: block.pts,
            duration: block.duration.or(track.default_duration).map_or(last_gap, |duration| duration as i64),
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
        stream: track.stream,
        config: track.config,
        width: track.width,
        height: track.height,
        quarter_turns: track.quarter_turns,
        mirrored: false,
        colour: track.colour,
        ticks: 1_000_000_000,
        packets,
        again: Vec::new(),
        data: Box::new(Placed { source, places, stripped: track.stripped }),
        opening,
    })
}

/// Appends the packets of a block, if it is of the track, and gives its flags.
fn read_block(
    walk: &mut Walk<'_>,
    (at, body): (u64, u64),
    clock: Clock,
    track: &Track,
    duration: Option<u64>,
    found: &mut Vec<Found>,
) -> Result<u8, MediaError> {
    let parts = (|| {
        let bytes = walk.peek(at, 12.min(body)).ok()?;
        let (_, track, len) = vint(bytes)?;
        let rest = bytes.get(len..len + 3)?;
        Some((track, len as u64 + 3, i16::from_be_bytes([rest[0], rest[1]]), rest[2]))
    })();
    let Some((number, head, shift, flags)) = parts.filter(|parts| parts.1 <= body) else {
        return Err(walk.source.corrupt(format!("the block at byte {at} ends too early")));
    };
    if number != track.number {
        return Ok(flags);
    }
    let (pts, visible) = (clock.at(shift, track.scale), flags & 8 == 0);
    let mut push = |walk: &Walk<'_>, pts, duration, at, len: u64| {
        if len > MAX_PACKET_BYTES {
            return Err(walk.source.corrupt(format!("a picture has {len} bytes, expected at most {MAX_PACKET_BYTES}")));
        }
        found.push(Found { pts, sync: false, visible, duration, place: (at, len as u32) });
        Ok(())
    };
    if flags & 6 == 0 {
        push(walk, pts, duration, at + head, body - head)?;
        return Ok(flags);
    }
    let lengths = laced(walk.peek(at + head, (body - head).min(256 * 8))?, flags >> 1 & 3, body - head);
    let Some((skip, lengths)) = lengths else {
        return Err(walk.source.corrupt(format!("the lace of the block at byte {at} does not hold together")));
    };
    let each = match (track.default_duration, duration) {
        (Some(each), _) => each,
        (None, Some(all)) => all / lengths.len() as u64,
        (None, None) if lengths.len() == 1 => 0,
        (None, None) => {
            return Err(walk.source.unsupported(
                "found several images laced into one block that does not say how long \
                                                each is shown",
            ));
        }
    };
    let mut from = at + head + skip;
    for (place, len) in lengths.into_iter().enumerate() {
        push(walk, pts.saturating_add((each * place as u64) as i64), Some(each).filter(|each| *each > 0), from, len)?;
        from += len;
    }
    Ok(flags)
}

/// Bytes of the lace's own head, and the lengths of the packets behind it, which fill so many bytes with it.
///
/// # Source
/// RFC 9559, 10.3: 1 is Xiph lacing, 2 fixed-size, 3 EBML.
fn laced(bytes: &[u8], kind: u8, total: u64) -> Option<(u64, Vec<u64>)> {
    let count = usize::from(*bytes.first()?) + 1;
    let mut at = 1;
    let mut lengths: Vec<u64> = Vec::with_capacity(count);
    match kind {
        2 => {
            let each = (total - 1) / count as u64;
            return (each * count as u64 == total - 1).then(|| (1, vec![each; count]));
        }
        1 => {
            for _ in 1..count {
                let mut length = 0;
                loop {
                    let byte = *bytes.get(at)?;
                    at += 1;
                    length += u64::from(byte);
                    if byte != 255 {
                        break;
                    }
                }
                lengths.push(length);
            }
        }
        _ => {
            for _ in 1..count {
                let (_, value, len) = vint(bytes.get(at..)?)?;
                at += len;
                let length = match lengths.last() {
                    None => value,
                    // Differences are shifted to be no less than zero.
                    Some(before) => {
                        let bias = (1i64 << (7 * len - 1)) - 1;
                        before.checked_add_signed(value as i64 - bias)?
                    }
                };
                lengths.push(length);
            }
        }
    }
    let sum = lengths.iter().try_fold(at as u64, |sum, length| sum.checked_add(*length))?;
    lengths.push(total.checked_sub(sum)?);
    Some((at as u64, lengths))
}

/// What a track entry says of a track, whatever its kind.
fn entry_info(parts: &[(u64, &[u8])], index: u32) -> TrackInfo {
    let number = |id, default| child(parts, id).and_then(unsigned).unwrap_or(default);
    let text = |id| {
        let bytes: &[u8] = child(parts, id)?;
        let bytes = bytes.split(|byte| *byte == 0).next()?;
        Some(bytes.escape_ascii().to_string()).filter(|text| !text.is_empty())
    };
    let codec = text(0x86).unwrap_or_default();
    let codec = match codec.as_str() {
        "A_AC3" => "AC-3",
        "A_EAC3" => "E-AC-3",
        "A_TRUEHD" => "TrueHD",
        "A_MPEG/L3" => "MP3",
        "A_MPEG/L2" => "MP2",
        "A_VORBIS" => "Vorbis",
        "A_OPUS" => "Opus",
        "A_FLAC" => "FLAC",
        "A_ALAC" => "ALAC",
        other if other.starts_with("A_AAC") => "AAC",
        other if other.starts_with("A_DTS") => "DTS",
        other if other.starts_with("A_PCM") => "PCM",
        other => other,
    };
    TrackInfo {
        index,
        codec: codec.to_owned(),
        // BCP 47 goes before; absent, the older element stands for English, which nobody need have said.
        language: text(0x22_b59d).or_else(|| text(0x22_b59c)).filter(|language| language != "und"),
        default: number(0x88, 1) == 1,
        enabled: number(0xb9, 1) == 1,
        // Hearing, visual impairment, text descriptions, commentary.
        special: [0x55ab, 0x55ac, 0x55ad, 0x55af].iter().any(|flag| number(*flag, 0) == 1),
    }
}

/// The tracks of a kind that a file describes, with their numbers; none where no description is found before the data.
/// Leaves the reader anywhere.
pub(crate) fn described(reader: &mut (impl Read + Seek), kind: u64) -> io::Result<Vec<(u64, TrackInfo)>> {
    let mut at = 0;
    // Headers, tags, attachments and cues: few in any file.
    for _ in 0..10_000 {
        let mut bytes = Vec::new();
        reader.seek(SeekFrom::Start(at))?;
        reader.take(16).read_to_end(&mut bytes)?;
        let Some(found) = head(&bytes) else { break };
        at += found.head;
        match (found.id, found.body) {
            (SEGMENT, _) => {}
            (TRACKS, Some(body)) if body <= MAX_TRACKS_BYTES => {
                let mut bytes = Vec::new();
                reader.seek(SeekFrom::Start(at))?;
                reader.take(body).read_to_end(&mut bytes)?;
                let entries = elements(&bytes).unwrap_or_default();
                let entries = entries.iter().filter(|(id, _)| *id == 0xae).filter_map(|(_, body)| elements(body));
                let of_kind = entries.filter(|parts| child(parts, 0x83).and_then(unsigned) == Some(kind));
                let numbered = of_kind.enumerate().filter_map(|(index, parts)| {
                    Some((child(&parts, 0xd7).and_then(unsigned)?, entry_info(&parts, index as u32)))
                });
                return Ok(numbered.collect());
            }
            (_, Some(body)) => at = at.saturating_add(body),
            (_, None) => break,
        }
    }
    Ok(Vec::new())
}

/// The codec of a track entry.
fn entry_codec(parts: &[(u64, &[u8])]) -> Codec {
    let codec = child(parts, 0x86).unwrap_or_default();
    match codec.split(|byte| *byte == 0).next().unwrap_or_default() {
        b"V_MPEG4/ISO/AVC" => Codec::H264,
        b"V_AV1" => Codec::Av1,
        b"V_MPEGH/ISO/HEVC" => Codec::Hevc,
        b"V_VP9" => Codec::Vp9,
        b"V_VP8" => Codec::Vp8,
        other => Codec::Other(other.escape_ascii().to_string()),
    }
}

/// The picture track that is meant.
fn picture_track(source: &Source, entries: &[(u64, &[u8])], choice: &TrackChoice) -> Result<Option<Track>, MediaError> {
    let broken = || source.corrupt("the description of a track does not hold together");
    let mut candidates = Vec::new();
    let mut infos: Vec<TrackInfo> = Vec::new();
    for (_, body) in entries.iter().filter(|(id, _)| *id == 0xae) {
        let parts = elements(body).ok_or_else(broken)?;
        if child(&parts, 0x83).and_then(unsigned) != Some(VIDEO) {
            continue;
        }
        let codec = codec_name(&entry_codec(&parts)).to_owned();
        infos.push(TrackInfo { codec, ..entry_info(&parts, candidates.len() as u32) });
        candidates.push(parts);
    }
    if candidates.is_empty() {
        return Ok(None);
    }
    let chosen = find(source.name(), "video track", &infos, choice)?;
    let parts = candidates.swap_remove(chosen);
    let stream = format!("0:v:{chosen}");
    let number = child(&parts, 0xd7).and_then(unsigned).ok_or_else(broken)?;
    let codec = entry_codec(&parts);
    let config = child(&parts, 0x63a2).unwrap_or_default().to_vec();
    let default_duration =
        child(&parts, 0x23_e383).and_then(unsigned).filter(|duration| (1..MAX_TIME_NS).contains(duration));
    // Below this FFmpeg takes it for a mistake; nobody has written any other than 1 for long.
    let scale = child(&parts, 0x23_314f).and_then(float).filter(|scale| (0.01..=1e3).contains(scale)).unwrap_or(1.0);
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
    Ok(Some(Track {
        number,
        codec,
        stream,
        config,
        width,
        height,
        quarter_turns,
        colour,
        default_duration,
        scale,
        stripped,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laces_of_all_kinds_give_the_lengths_of_their_packets() {
        // RFC 9559, 10.3: packets of 800, 500 and 1000 bytes.
        let xiph = [2, 255, 255, 255, 35, 255, 245];
        assert_eq!(laced(&xiph, 1, 2307), Some((7, vec![800, 500, 1000])));
        let ebml = [2, 0x43, 0x20, 0x5e, 0xd3];
        assert_eq!(laced(&ebml, 3, 2305), Some((5, vec![800, 500, 1000])));
        assert_eq!(laced(&[2], 2, 2401), Some((1, vec![800, 800, 800])));
        assert_eq!(laced(&[2], 2, 2400), None, "not of one size");
        assert_eq!(laced(&xiph, 1, 1000), None, "longer than the block");
        assert_eq!(laced(&[2, 255], 1, 1000), None);
    }

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
