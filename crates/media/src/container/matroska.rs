//! Elements of Matroska and WebM files: the description of the tracks, and the places and times of blocks, whose bytes are
//! passed over.
//!
//! Why not a crate: matroska-demuxer 0.8.1 gives the bytes of each block and not its place, so times alone would cost a
//! reading of the whole file, and symphonia's reader hides the same place.
//!
//! # Source
//! RFC 9559 (Matroska) and RFC 8794 (EBML).

use crate::error::MediaError;
use crate::label::Label;
use crate::source::Source;
use crate::tracks::TrackInfo;

const EBML: u64 = 0x1a45_dfa3;
const SEGMENT: u64 = 0x1853_8067;
const INFO: u64 = 0x1549_a966;
const TRACKS: u64 = 0x1654_ae6b;
const TRACK_ENTRY: u64 = 0xae;
const CLUSTER: u64 = 0x1f43_b675;
const TIMESTAMP: u64 = 0xe7;
const SIMPLE_BLOCK: u64 = 0xa3;
const BLOCK_GROUP: u64 = 0xa0;
const BLOCK: u64 = 0xa1;
const BLOCK_DURATION: u64 = 0x9b;
const REFERENCE: u64 = 0xfb;

/// Description of the tracks; the codec's configuration and fonts of no use to us are all that can be long.
const MAX_TRACKS_BYTES: u64 = 16 << 20;

/// Elements at the top before the description of the tracks: headers, tags, attachments and cues, few in any file.
const MAX_ELEMENTS: usize = 10_000;

/// As in [`super::mp4`].
const MAX_PACKETS: usize = 1 << 23;
const MAX_PACKET_BYTES: u64 = 1 << 28;

/// Nanoseconds beyond this are refused (146 years), so that sums cannot overflow.
const MAX_TIME_NS: u64 = 1 << 62;

/// Types of tracks.
pub(crate) const VIDEO: u64 = 1;
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

/// The elements of a body that is in memory.
pub(crate) struct Elements<'a>(Vec<(u64, &'a [u8])>);

impl<'a> Elements<'a> {
    /// `None` if one does not fit.
    pub(crate) fn read(mut bytes: &'a [u8]) -> Option<Self> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let head = head(bytes)?;
            let (from, len) = (head.head as usize, usize::try_from(head.body?).ok()?);
            let end = from.checked_add(len)?;
            found.push((head.id, bytes.get(from..end)?));
            bytes = &bytes[end..];
        }
        Some(Self(found))
    }

    /// The body of the first element of a name.
    pub(crate) fn bytes(&self, id: u64) -> Option<&'a [u8]> {
        self.0.iter().find(|(found, _)| *found == id).map(|(_, body)| *body)
    }

    /// The bodies of all elements of a name.
    pub(crate) fn all(&self, id: u64) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |(found, _)| *found == id).map(|(_, body)| *body)
    }

    /// The elements inside the first one of a name, none where it is absent; `None` if they do not fit.
    pub(crate) fn inside(&self, id: u64) -> Option<Self> {
        Self::read(self.bytes(id).unwrap_or_default())
    }

    pub(crate) fn unsigned(&self, id: u64) -> Option<u64> {
        self.bytes(id).and_then(unsigned)
    }

    pub(crate) fn float(&self, id: u64) -> Option<f64> {
        let bytes = self.bytes(id)?;
        match bytes.len() {
            0 => Some(0.0),
            4 => Some(f64::from(f32::from_be_bytes(bytes.try_into().ok()?))),
            8 => Some(f64::from_be_bytes(bytes.try_into().ok()?)),
            _ => None,
        }
    }

    /// Text up to its first zero; `None` where it is absent or empty.
    fn text(&self, id: u64) -> Option<String> {
        let bytes = self.bytes(id)?.split(|byte| *byte == 0).next()?;
        Some(bytes.escape_ascii().to_string()).filter(|text| !text.is_empty())
    }
}

fn unsigned(bytes: &[u8]) -> Option<u64> {
    (bytes.len() <= 8).then(|| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

/// The description of a track: RFC 9559, 5.1.4.1.
pub(crate) struct TrackEntry<'a> {
    pub(crate) parts: Elements<'a>,
    /// What it says whatever the kind of the track; the index is among those of its kind.
    pub(crate) info: TrackInfo,
}

impl<'a> TrackEntry<'a> {
    /// The number that blocks name the track by.
    pub(crate) fn number(&self) -> Option<u64> {
        self.parts.unsigned(0xd7)
    }

    /// The identifier of the codec, up to its first zero.
    pub(crate) fn codec(&self) -> &'a [u8] {
        self.parts.bytes(0x86).unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// The configuration of the codec.
    pub(crate) fn configuration(&self) -> &'a [u8] {
        self.parts.bytes(0x63a2).unwrap_or_default()
    }
}

/// The tracks of a kind in a body of [`TRACKS`]; an error for an entry that does not hold together.
fn track_entries<'a>(tracks: &Elements<'a>, kind: u64) -> impl Iterator<Item = Result<TrackEntry<'a>, Broken>> {
    let mut index = 0;
    tracks.all(TRACK_ENTRY).filter_map(move |body| {
        let Some(parts) = Elements::read(body) else { return Some(Err(Broken)) };
        if parts.unsigned(0x83) != Some(kind) {
            return None;
        }
        let info = entry_info(&parts, index);
        index += 1;
        Some(Ok(TrackEntry { parts, info }))
    })
}

/// The description of a track does not hold together.
struct Broken;

/// What a track entry says of a track, whatever its kind.
fn entry_info(parts: &Elements<'_>, index: u32) -> TrackInfo {
    let number = |id, default| parts.unsigned(id).unwrap_or(default);
    let codec = parts.text(0x86).unwrap_or_default();
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
        language: parts.text(0x22_b59d).or_else(|| parts.text(0x22_b59c)).filter(|language| language != "und"),
        default: number(0x88, 1) == 1,
        enabled: number(0xb9, 1) == 1,
        // Hearing, visual impairment, text descriptions, commentary.
        special: [0x55ab, 0x55ac, 0x55ad, 0x55af].iter().any(|flag| number(*flag, 0) == 1),
    }
}

/// What stands at the top of a file before its data.
#[derive(Default)]
pub(crate) struct Headers {
    /// The body of the description of the tracks; empty where none is found.
    tracks: Vec<u8>,
    /// Where the body of the segment begins, and its length where the file says so.
    pub(crate) segment: Option<(u64, Option<u64>)>,
    /// Another file follows behind the segment.
    pub(crate) joined: bool,
}

impl Headers {
    /// Walks from element to element until the description of the tracks is found. Leaves the source anywhere.
    pub(crate) fn read(source: &mut Source) -> Result<Self, MediaError> {
        let mut found = Self::default();
        let mut at = 0;
        for _ in 0..MAX_ELEMENTS {
            let Some(Head { id, head, body }) = head(&source.read_up_to(at, 16)?) else { break };
            at += head;
            match (id, body) {
                (SEGMENT, body) => found.segment = Some((at, body)),
                (TRACKS, Some(body)) if body <= MAX_TRACKS_BYTES => {
                    found.tracks = source.read_up_to(at, body)?;
                    break;
                }
                (_, Some(body)) => at = at.saturating_add(body),
                (_, None) => break,
            }
        }
        if let Some((at, Some(body))) = found.segment {
            let behind = head(&source.read_up_to(at.saturating_add(body), 16)?);
            found.joined = behind.is_some_and(|head| matches!(head.id, EBML | SEGMENT));
        }
        Ok(found)
    }

    /// The tracks of a kind that hold together.
    pub(crate) fn tracks(&self, kind: u64) -> Vec<TrackEntry<'_>> {
        let Some(tracks) = Elements::read(&self.tracks) else { return Vec::new() };
        track_entries(&tracks, kind).filter_map(Result::ok).collect()
    }
}

/// What is known of a track whose blocks are read.
pub(crate) struct BlockTrack {
    number: u64,
    /// Nanoseconds.
    default_duration: Option<u64>,
    /// Of the ticks of its blocks, relative to those of the file.
    scale: f64,
}

impl BlockTrack {
    /// `None` for an entry without a number.
    pub(crate) fn new(entry: &TrackEntry<'_>) -> Option<Self> {
        let parts = &entry.parts;
        let default_duration = parts.unsigned(0x23_e383).filter(|duration| (1..MAX_TIME_NS).contains(duration));
        // Below this FFmpeg takes it for a mistake; nobody has written any other than 1 for long.
        let scale = parts.float(0x23_314f).filter(|scale| (0.01..=1e3).contains(scale)).unwrap_or(1.0);
        Some(Self { number: entry.number()?, default_duration, scale })
    }

    /// How long a packet is shown in nanoseconds, where it or its track says so.
    pub(crate) fn duration(&self, packet: &Packet) -> Option<u64> {
        packet.duration.or(self.default_duration)
    }
}

/// A packet of a track: a block, or one of those that share a block.
pub(crate) struct Packet {
    /// Nanoseconds.
    pub(crate) pts: i64,
    pub(crate) sync: bool,
    pub(crate) visible: bool,
    /// Nanoseconds.
    duration: Option<u64>,
    /// Offset and length.
    pub(crate) place: (u64, u32),
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

/// The source with a few bytes ahead.
struct Walk<'a> {
    source: &'a mut Source,
    at: u64,
    window: Vec<u8>,
}

impl Walk<'_> {
    /// At least `len` bytes from a place, or all that are left.
    fn peek(&mut self, at: u64, len: u64) -> Result<&[u8], MediaError> {
        let end = at.saturating_add(len).min(self.source.length());
        if at < self.at || end > self.at + self.window.len() as u64 {
            self.window = self.source.read_up_to(at, WINDOW.max(len))?;
            self.at = at;
        }
        Ok(&self.window[(at - self.at) as usize..])
    }

    fn head(&mut self, at: u64) -> Result<Head, MediaError> {
        let found = head(self.peek(at, 16)?);
        found.ok_or_else(|| self.source.label.corrupt(format!("what stands at byte {at} is no element")))
    }
}

/// The packets of one of the tracks of a kind, in one pass over the headers of the whole file; `None` without such a track.
/// `choose` picks the track, and gives what is known of it.
pub(crate) fn packets<T>(
    source: &mut Source,
    kind: u64,
    choose: impl Fn(&Label, Vec<TrackEntry<'_>>) -> Result<(BlockTrack, T), MediaError>,
) -> Result<Option<(BlockTrack, T, Vec<Packet>)>, MediaError> {
    let mut clock = Clock { scale: 1_000_000, cluster: 0 };
    let mut segments = 0;
    let mut chosen: Option<(BlockTrack, T)> = None;
    let mut found: Vec<Packet> = Vec::new();
    let file_len = source.length();
    let mut walk = Walk { source, at: 0, window: Vec::new() };
    let mut at = 0;
    while at < file_len {
        let head = walk.head(at)?;
        let body_at = at + head.head;
        if matches!(head.id, SEGMENT | CLUSTER) {
            if head.body.is_some_and(|body| body_at.saturating_add(body) > file_len) {
                return Err(walk
                    .source
                    .label
                    .corrupt(format!("a part that begins at byte {at} goes beyond the video's end")));
            }
            // Its tracks would be others, and its clock begins again.
            segments += usize::from(head.id == SEGMENT);
            if segments > 1 {
                return Err(walk
                    .source
                    .label
                    .unsupported(format!("found a second file joined to the first at byte {at}")));
            }
            // Their children follow as if they stood by themselves, which is also how an unknown size is read.
            at = body_at;
            continue;
        }
        let Some(body) = head.body else {
            return Err(walk.source.label.corrupt(format!("the element at byte {at} does not say its size")));
        };
        let end = body_at.saturating_add(body);
        if end > file_len {
            return Err(walk
                .source
                .label
                .corrupt(format!("the element at byte {at} ends at byte {end}, and the video ends at {file_len}")));
        }
        match head.id {
            INFO | TRACKS => {
                if body > MAX_TRACKS_BYTES {
                    return Err(walk.source.label.corrupt(format!("its description has {body} bytes")));
                }
                let bytes = walk.source.read_at(body_at, body)?;
                let Some(parts) = Elements::read(&bytes) else {
                    return Err(walk.source.label.corrupt("its description does not hold together"));
                };
                if head.id == INFO {
                    clock.scale = parts.bytes(0x2a_d7b1).map_or(Some(1_000_000), unsigned).unwrap_or(0);
                    if clock.scale == 0 || clock.scale > 1_000_000_000 {
                        return Err(walk.source.label.corrupt(format!("its clock has ticks of {} ns", clock.scale)));
                    }
                } else if chosen.is_none() {
                    let label = &walk.source.label;
                    let entries: Result<Vec<_>, Broken> = track_entries(&parts, kind).collect();
                    let entries =
                        entries.map_err(|Broken| label.corrupt("the description of a track does not hold together"))?;
                    if !entries.is_empty() {
                        chosen = Some(choose(label, entries)?);
                    }
                }
            }
            TIMESTAMP => {
                let bytes = walk.peek(body_at, body)?;
                let time = bytes.get(..body as usize).and_then(unsigned);
                let bounded = |time: &u64| time.checked_mul(clock.scale).is_some_and(|time| time < MAX_TIME_NS);
                clock.cluster = match time.filter(bounded) {
                    Some(time) => time,
                    None => return Err(walk.source.label.corrupt("a cluster begins beyond all time")),
                };
            }
            SIMPLE_BLOCK => {
                if let Some((track, _)) = &chosen {
                    let before = found.len();
                    let flags = read_block(&mut walk, (body_at, body), clock, track, None, &mut found)?;
                    if let Some(first) = found.get_mut(before) {
                        first.sync = flags & 0x80 != 0;
                    }
                }
            }
            BLOCK_GROUP => {
                if let Some((track, _)) = &chosen {
                    let mut inner = body_at;
                    let (mut block, mut duration, mut refers) = (None, None, false);
                    while inner < end {
                        let part = walk.head(inner)?;
                        let part_at = inner + part.head;
                        let part_end = part.body.and_then(|body| part_at.checked_add(body)).filter(|at| *at <= end);
                        let (Some(part_end), Some(body)) = (part_end, part.body) else {
                            return Err(walk
                                .source
                                .label
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
            return Err(walk.source.label.corrupt(format!("it has more than {MAX_PACKETS} images")));
        }
        at = end;
    }
    Ok(chosen.map(|(track, known)| (track, known, found)))
}

/// Appends the packets of a block, if it is of the track, and gives its flags.
fn read_block(
    walk: &mut Walk<'_>,
    (at, body): (u64, u64),
    clock: Clock,
    track: &BlockTrack,
    duration: Option<u64>,
    found: &mut Vec<Packet>,
) -> Result<u8, MediaError> {
    let parts = (|| {
        let bytes = walk.peek(at, 12.min(body)).ok()?;
        let (_, track, len) = vint(bytes)?;
        let rest = bytes.get(len..len + 3)?;
        Some((track, len as u64 + 3, i16::from_be_bytes([rest[0], rest[1]]), rest[2]))
    })();
    let Some((number, head, shift, flags)) = parts.filter(|parts| parts.1 <= body) else {
        return Err(walk.source.label.corrupt(format!("the block at byte {at} ends too early")));
    };
    if number != track.number {
        return Ok(flags);
    }
    let (pts, visible) = (clock.at(shift, track.scale), flags & 8 == 0);
    let mut push = |walk: &Walk<'_>, pts, duration, at, len: u64| {
        if len > MAX_PACKET_BYTES {
            return Err(walk
                .source
                .label
                .corrupt(format!("an image has {len} bytes, expected at most {MAX_PACKET_BYTES}")));
        }
        found.push(Packet { pts, sync: false, visible, duration, place: (at, len as u32) });
        Ok(())
    };
    if flags & 6 == 0 {
        push(walk, pts, duration, at + head, body - head)?;
        return Ok(flags);
    }
    let lengths = laced(walk.peek(at + head, (body - head).min(256 * 8))?, flags >> 1 & 3, body - head);
    let Some((skip, lengths)) = lengths else {
        return Err(walk.source.label.corrupt(format!("the lace of the block at byte {at} does not hold together")));
    };
    let each = match (track.default_duration, duration) {
        (Some(each), _) => each,
        (None, Some(all)) => all / lengths.len() as u64,
        (None, None) if lengths.len() == 1 => 0,
        (None, None) => {
            return Err(walk
                .source
                .label
                .unsupported("found several images laced into one block that does not say how long each is shown"));
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
