//! The video track of an MP4 or MOV file, fragmented or not.

use crate::container::mp4::{
    self, Bad, MAX_HEADER_BYTES, MediaHeader, MovieHeader, Reader, Step, TopBox, TrackHeader, bad, boxes, child,
    edit_list, handler, required,
};
use crate::container::tracks::find;
use crate::error::MediaError;
use crate::source::Source;
use crate::tracks::{TrackChoice, TrackInfo};
use crate::video::ffmpeg::codec_name;
use crate::video::packets::{Again, Codec, Packet, Placed, TrackColour, VideoTrack};

/// More packets in one track are refused: 38 hours at 60 frames a second, and 0.5 GB of tables.
const MAX_PACKETS: usize = 1 << 23;

/// A packet longer than this is refused; the largest image of H.264 without any compression is 107 MB.
const MAX_PACKET_BYTES: u32 = 1 << 28;

/// Times beyond this on a track's clock are refused, so that sums cannot overflow.
const MAX_TIME: i64 = 1 << 60;

/// The video's video track.
pub(crate) fn open(mut source: Source, choice: &TrackChoice) -> Result<VideoTrack, MediaError> {
    let mut movie = None;
    let mut fragments: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut fragment_bytes = 0;
    let mut at = 0;
    while source.length() - at >= 8 {
        let found = match TopBox::read(&mut source, at)? {
            Some(found) => found,
            // Padding after the last box does no harm.
            None if movie.is_some() => break,
            None => {
                return Err(source.label.corrupt(format!("the box at byte {at} has a size that no box can have")));
            }
        };
        let TopBox { kind, body, end } = found;
        if matches!(&kind, b"moov" | b"moof") {
            fragment_bytes += end.saturating_sub(body);
            if fragment_bytes > MAX_HEADER_BYTES {
                return Err(source.label.corrupt(format!(
                    "its boxes {} have more than {MAX_HEADER_BYTES} bytes",
                    String::from_utf8_lossy(&kind)
                )));
            }
            let bytes = source.read_at(body, end.saturating_sub(body))?;
            if &kind == b"moof" {
                fragments.push((at, bytes));
            } else if movie.is_none() {
                movie = Some(bytes);
            }
        }
        if end > source.length() {
            return Err(source.label.corrupt(format!(
                "the box {} at byte {at} ends at byte {end}, and the video ends at {}",
                kind.escape_ascii(),
                source.length()
            )));
        }
        at = end;
    }
    let Some(movie) = movie else {
        return Err(source.label.corrupt("it has no box moov, which lists the images"));
    };
    let found = video_track(&movie, &fragments, source.length(), &source.label.name, choice);
    let (trak, samples) = match found {
        Ok(Some(found)) => found,
        Ok(None) => {
            return Err(source.label.no_track("a video without images", "a video track"));
        }
        Err(Bad::Corrupt(words)) => return Err(source.label.corrupt(words)),
        Err(Bad::Unsupported(words)) => return Err(source.label.unsupported(words)),
        Err(Bad::Named(error)) => return Err(*error),
    };
    Ok(VideoTrack {
        label: source.label.clone(),
        codec: trak.entry.codec,
        stream: trak.stream,
        config: trak.entry.config,
        width: trak.entry.width,
        height: trak.entry.height,
        quarter_turns: trak.turns.0,
        mirrored: trak.turns.1,
        colour: trak.entry.colour,
        ticks: u64::from(trak.timescale),
        packets: samples.packets,
        again: samples.again,
        data: Box::new(Placed { source, places: samples.places, stripped: Vec::new() }),
        opening: fragment_bytes,
    })
}

/// One `trak` as far as it is needed.
struct Trak<'a> {
    id: u32,
    stream: String,
    turns: (u8, bool),
    timescale: u32,
    edits: Vec<Edit>,
    entry: Entry,
    stbl: Vec<([u8; 4], &'a [u8])>,
}

/// A sample entry.
#[derive(Clone)]
struct Entry {
    codec: Codec,
    config: Vec<u8>,
    width: u32,
    height: u32,
    colour: Option<TrackColour>,
}

/// An entry of an edit list.
#[derive(Copy, Clone, Debug)]
struct Edit {
    /// On the movie's clock.
    duration: u64,
    /// On the track's clock; `None`: nothing is shown.
    media_time: Option<i64>,
}

#[derive(Default)]
struct Samples {
    packets: Vec<Packet>,
    again: Vec<Again>,
    places: Vec<(u64, u32)>,
}

/// A packet before the edit list is applied.
struct Raw {
    place: (u64, u32),
    pts: i64,
    duration: i64,
    sync: bool,
    /// Described by a fragment: the lengths of edits do not cut it.
    in_fragment: bool,
}

fn video_track<'a>(
    movie: &'a [u8],
    fragments: &[(u64, Vec<u8>)],
    file_len: u64,
    name: &str,
    choice: &TrackChoice,
) -> Step<Option<(Trak<'a>, Samples)>> {
    let top = boxes(movie)?;
    let MovieHeader { timescale: movie_scale, matrix: movie_matrix } = MovieHeader::read(required(&top, "mvhd")?)?;
    if child(&top, b"cmov").is_some() {
        return Err(Bad::Unsupported("found a compressed movie header".to_owned()));
    }

    let mut candidates: Vec<Head<'_>> = Vec::new();
    let mut infos: Vec<TrackInfo> = Vec::new();
    let mut chapters = Vec::new();
    for (_, body) in top.iter().filter(|(kind, _)| kind == b"trak") {
        let parts = boxes(body)?;
        chapters.extend(chapter_tracks(&parts));
        if let Some(head) = read_head(parts)? {
            candidates.push(head);
        }
    }
    // Images that stand for chapters are no video, and FFmpeg counts them as covers.
    candidates.retain(|head| !chapters.contains(&head.track.id));
    for (at, head) in candidates.iter_mut().enumerate() {
        head.stream = format!("0:V:{at}");
    }
    candidates.retain(|head| !head.cover);
    for (at, head) in candidates.iter().enumerate() {
        let codec = codec_name(&head.codec).to_owned();
        let (language, default) = (head.media.language.clone(), head.track.enabled);
        infos.push(TrackInfo { index: at as u32, codec, language, default, enabled: true, special: false });
    }
    if candidates.is_empty() {
        return Ok(None);
    }
    let chosen = find(name, "video track", &infos, choice).map_err(|error| Bad::Named(Box::new(error)))?;
    let trak = read_trak(candidates.swap_remove(chosen), movie_matrix)?;
    if trak.timescale == 0 {
        return bad("the clock of its video track has zero ticks a second");
    }
    let mut raw = table_samples(&trak, file_len)?;
    if let Some(extends) = child(&top, b"mvex") {
        fragment_samples(&trak, extends, fragments, file_len, &mut raw)?;
    }
    let samples = apply_edits(&trak, movie_scale, raw)?;
    Ok(Some((trak, samples)))
}

/// Quarter turns clockwise, and whether a mirror comes before them.
///
/// # Source
/// ISO/IEC 14496-12, 6.2.2: a point (x, y) goes to (a x + c y, b x + d y), y downwards.
fn turns([a, b, c, d]: [i64; 4]) -> Option<(u8, bool)> {
    let small = |value: i64, of: i64| value.abs() * 64 <= of.abs();
    if small(b, a) && small(c, d) && a != 0 && d != 0 {
        Some(match (a > 0, d > 0) {
            (true, true) => (0, false),
            (false, false) => (2, false),
            (false, true) => (0, true),
            (true, false) => (2, true),
        })
    } else if small(a, b) && small(d, c) && b != 0 && c != 0 {
        Some(match (b > 0, c > 0) {
            (true, false) => (1, false),
            (false, true) => (3, false),
            (false, false) => (1, true),
            (true, true) => (3, true),
        })
    } else if [a, b, c, d] == [0; 4] {
        // Written by some tools for "no transformation".
        Some((0, false))
    } else {
        None
    }
}

/// A track of moving images before its tables are read.
struct Head<'a> {
    track: TrackHeader,
    media: MediaHeader,
    codec: Codec,
    /// One still image.
    cover: bool,
    stream: String,
    parts: Vec<([u8; 4], &'a [u8])>,
}

/// The tracks that hold the chapters of a track, by their numbers.
fn chapter_tracks(parts: &[([u8; 4], &[u8])]) -> Vec<u32> {
    let references = child(parts, b"tref").and_then(|body| boxes(body).ok()).unwrap_or_default();
    let chapters = child(&references, b"chap").unwrap_or_default();
    chapters.chunks_exact(4).map(|id| u32::from_be_bytes([id[0], id[1], id[2], id[3]])).collect()
}

/// `None` for a track without moving images.
fn read_head(parts: Vec<([u8; 4], &[u8])>) -> Step<Option<Head<'_>>> {
    let media = boxes(required(&parts, "mdia")?)?;
    if &handler(required(&media, "hdlr")?)? != b"vide" {
        return Ok(None);
    }
    let track = TrackHeader::read(required(&parts, "tkhd")?)?;
    let media_header = MediaHeader::read(required(&media, "mdhd")?)?;
    let info = boxes(required(&media, "minf")?)?;
    let stbl = boxes(required(&info, "stbl")?)?;
    let kind: [u8; 4] = match required(&stbl, "stsd")?.get(12..16) {
        Some(kind) => [kind[0], kind[1], kind[2], kind[3]],
        None => return bad("its video track says nothing of its codec"),
    };
    let count = required(&stbl, "stsz").ok().and_then(|sizes| sizes.get(8..12));
    let cover = matches!(&kind, b"jpeg" | b"png ") && count.is_none_or(|count| count <= [0, 0, 0, 1].as_slice());
    let codec = entry_codec(&kind).0;
    let stream = String::new();
    Ok(Some(Head { track, media: media_header, codec, cover, stream, parts }))
}

fn read_trak(head: Head<'_>, movie_matrix: [i64; 4]) -> Step<Trak<'_>> {
    let Head { track, media: MediaHeader { timescale, .. }, stream, parts, .. } = head;
    let media = boxes(required(&parts, "mdia")?)?;
    let own = track.matrix;
    let [a, b, c, d] = own;
    let [e, f, g, h] = movie_matrix.map(|value| value >> 8);
    let both = if movie_matrix == [0; 4] { own } else { [a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h] };
    let Some(turns) = turns(both) else {
        return Err(Bad::Unsupported("found images turned by an angle that is no quarter turn".to_owned()));
    };

    let mut edits = Vec::new();
    if let Some(list) = child(&parts, b"edts")
        && let Some(list) = child(&boxes(list)?, b"elst")
    {
        for mp4::Edit { duration, start, rate } in edit_list(list)? {
            // One written as a whole number, or left at zero, is meant as 1: GStreamer and FFmpeg play it so.
            if !(-1..MAX_TIME).contains(&start) || duration > MAX_TIME as u64 {
                return bad("its edit list goes beyond all time");
            }
            let media_time = (start >= 0).then_some(start);
            if media_time.is_some() && !matches!(rate, 0 | 1 | 0x1_0000) {
                return Err(Bad::Unsupported("found an edit list that changes the speed".to_owned()));
            }
            edits.push(Edit { duration, media_time });
        }
    }

    let info = boxes(required(&media, "minf")?)?;
    let stbl = boxes(required(&info, "stbl")?)?;
    let mut descriptions = Reader::new(required(&stbl, "stsd")?, "stsd");
    descriptions.full()?;
    descriptions.u32()?;
    let entries = boxes(descriptions.bytes)?;
    let Some((kind, entry)) = entries.first() else {
        return bad("its video track says nothing of its codec");
    };
    if entries.iter().any(|other| other.0 != *kind || other.1 != *entry) {
        return Err(Bad::Unsupported("found a video track that changes its codec or settings".to_owned()));
    }
    let entry = read_entry(kind, entry)?;
    Ok(Trak { id: track.id, stream, turns, timescale, edits, entry, stbl })
}

/// The codec of a sample entry, and the box that configures it.
fn entry_codec(kind: &[u8; 4]) -> (Codec, &'static [u8; 4]) {
    match kind {
        b"avc1" | b"avc3" => (Codec::H264, b"avcC"),
        b"av01" => (Codec::Av1, b"av1C"),
        b"hvc1" | b"hev1" | b"dvh1" | b"dvhe" => (Codec::Hevc, b"hvcC"),
        b"vp09" => (Codec::Vp9, b"vpcC"),
        b"vp08" => (Codec::Vp8, b"vpcC"),
        b"mp4v" => (Codec::Other("MPEG-4 Part 2".to_owned()), b"esds"),
        other => (Codec::Other(other.escape_ascii().to_string()), b"none"),
    }
}

fn read_entry(kind: &[u8; 4], body: &[u8]) -> Step<Entry> {
    if matches!(kind, b"encv" | b"drmi") {
        return Err(Bad::Unsupported("found encrypted images".to_owned()));
    }
    let (codec, config_box) = entry_codec(kind);
    let mut reader = Reader::new(body, "stsd");
    reader.take(24)?;
    let width = u32::from(reader.u16()?);
    let height = u32::from(reader.u16()?);
    reader.take(50)?;
    // Old QuickTime entries may end with what is no box.
    let parts = boxes(reader.bytes).unwrap_or_default();
    let config = child(&parts, config_box).unwrap_or_default().to_vec();
    let colour = child(&parts, b"colr").and_then(|body| {
        let kind = body.get(0..4)?;
        let matrix = u16::from_be_bytes(body.get(8..10)?.try_into().ok()?).try_into().ok()?;
        match kind {
            b"nclx" => Some(TrackColour { matrix, full_range: body.get(10)? & 0x80 != 0 }),
            b"nclc" => Some(TrackColour { matrix, full_range: false }),
            _ => None,
        }
    });
    Ok(Entry { codec, config, width, height, colour })
}

fn check_place(offset: u64, size: u32, file_len: u64, number: usize) -> Step<()> {
    if offset.checked_add(u64::from(size)).is_none_or(|end| end > file_len) {
        return bad(format!("image {number} lies at byte {offset}, and the video ends at {file_len}"));
    }
    if size > MAX_PACKET_BYTES {
        return bad(format!("image {number} has {size} bytes, expected at most {MAX_PACKET_BYTES}"));
    }
    Ok(())
}

/// Room for so many packets, if they are not too many.
fn check_count(count: usize) -> Step<()> {
    if count > MAX_PACKETS {
        return bad(format!("it claims {count} images, expected at most {MAX_PACKETS}"));
    }
    Ok(())
}

/// Runs of (count, value) one value at a time.
struct Runs<'a> {
    reader: Reader<'a>,
    entries: usize,
    left: u32,
    value: u32,
}

impl<'a> Runs<'a> {
    fn new(body: Option<&'a [u8]>, kind: &'static str) -> Step<Self> {
        let Some(body) = body else {
            return Ok(Self { reader: Reader::new(&[], kind), entries: 0, left: 0, value: 0 });
        };
        let mut reader = Reader::new(body, kind);
        reader.full()?;
        let entries = reader.count(8)?;
        Ok(Self { reader, entries, left: 0, value: 0 })
    }

    fn next(&mut self) -> Step<Option<u32>> {
        while self.left == 0 {
            if self.entries == 0 {
                return Ok(None);
            }
            self.entries -= 1;
            self.left = self.reader.u32()?;
            self.value = self.reader.u32()?;
        }
        self.left -= 1;
        Ok(Some(self.value))
    }
}

/// Packets of the tables in `stbl`; none in a fragmented video.
fn table_samples(trak: &Trak<'_>, file_len: u64) -> Step<Vec<Raw>> {
    let stbl = &trak.stbl;
    // Sizes.
    let (count, fixed, bits, mut sizes) = if let Some(body) = child(stbl, b"stsz") {
        let mut sizes = Reader::new(body, "stsz");
        sizes.full()?;
        let fixed = sizes.u32()?;
        let count = if fixed == 0 { sizes.count(4)? } else { sizes.u32()? as usize };
        (count, fixed, 32, sizes)
    } else if let Some(body) = child(stbl, b"stz2") {
        let mut sizes = Reader::new(body, "stz2");
        sizes.full()?;
        let bits = sizes.u32()? & 0xff;
        let count = sizes.u32()? as usize;
        if !matches!(bits, 4 | 8 | 16) || (count.saturating_mul(bits as usize)).div_ceil(8) > sizes.bytes.len() {
            return bad("its box stz2 ends too early");
        }
        (count, 0, bits, sizes)
    } else {
        return bad("it has no box stsz");
    };
    check_count(count)?;
    if u64::from(fixed) * count as u64 > file_len {
        return bad(format!("it claims {count} images of {fixed} bytes, and the video has {file_len} bytes"));
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut half = None;
    let mut next_size = || -> Step<u32> {
        match (fixed, bits) {
            (1.., _) => Ok(fixed),
            (_, 32) => sizes.u32(),
            (_, 16) => sizes.u16().map(u32::from),
            (_, 8) => sizes.u8().map(u32::from),
            _ => match half.take() {
                Some(low) => Ok(low),
                None => {
                    let byte = sizes.u8()?;
                    half = Some(u32::from(byte & 15));
                    Ok(u32::from(byte >> 4))
                }
            },
        }
    };

    let mut times = Runs::new(Some(required(stbl, "stts")?), "stts")?;
    let mut shifts = Runs::new(child(stbl, b"ctts"), "ctts")?;
    let mut syncs = match child(stbl, b"stss") {
        None => None,
        Some(body) => {
            let mut reader = Reader::new(body, "stss");
            reader.full()?;
            let count = reader.count(4)?;
            let mut numbers = Vec::with_capacity(count);
            for _ in 0..count {
                numbers.push(reader.u32()? as usize);
            }
            numbers.sort_unstable();
            numbers.dedup();
            Some(numbers.into_iter().peekable())
        }
    };

    // Chunks.
    let mut groups = Reader::new(required(stbl, "stsc")?, "stsc");
    groups.full()?;
    let group_count = groups.count(12)?;
    let mut group_list = Vec::with_capacity(group_count);
    for _ in 0..group_count {
        group_list.push((groups.u32()?, groups.u32()?));
        groups.u32()?;
    }
    let (mut chunks, wide) = match child(stbl, b"stco") {
        Some(body) => (Reader::new(body, "stco"), false),
        None => (Reader::new(required(stbl, "co64")?, "co64"), true),
    };
    chunks.full()?;
    let chunk_count = chunks.count(if wide { 8 } else { 4 })?;

    let mut raw = Vec::with_capacity(count);
    let mut group = 0;
    let mut dts: i64 = 0;
    for chunk in 1..=chunk_count as u64 {
        let mut offset = if wide { chunks.u64()? } else { u64::from(chunks.u32()?) };
        while group_list.get(group + 1).is_some_and(|next| u64::from(next.0) <= chunk) {
            group += 1;
        }
        let Some((first, in_chunk)) = group_list.get(group) else {
            return bad("its box stsc is empty");
        };
        if u64::from(*first) > chunk {
            return bad("its box stsc does not begin with the first chunk");
        }
        for _ in 0..*in_chunk {
            if raw.len() == count {
                break;
            }
            let number = raw.len() + 1;
            let size = next_size()?;
            check_place(offset, size, file_len, number)?;
            let Some(duration) = times.next()? else {
                return bad(format!("it has {count} images and times for {} of them", raw.len()));
            };
            let shift = shifts.next()?.unwrap_or(0) as i32;
            let sync = match &mut syncs {
                None => true,
                Some(numbers) => {
                    while numbers.next_if(|next| *next < number).is_some() {}
                    numbers.peek() == Some(&number)
                }
            };
            let duration = i64::from(duration);
            let pts = dts + i64::from(shift);
            raw.push(Raw { place: (offset, size), pts, duration, sync, in_fragment: false });
            offset += u64::from(size);
            // 2^23 packets of less than 2^32 ticks stay below 2^55.
            dts += duration;
        }
    }
    if raw.len() < count {
        return bad(format!("it has {count} images and places for {} of them", raw.len()));
    }
    Ok(raw)
}

/// Packets of `moof` boxes.
fn fragment_samples(
    trak: &Trak<'_>,
    extends: &[u8],
    fragments: &[(u64, Vec<u8>)],
    file_len: u64,
    raw: &mut Vec<Raw>,
) -> Step<()> {
    const NOT_SYNC: u32 = 0x1_0000;
    let mut defaults = (0, 0, 0);
    for (_, body) in boxes(extends)?.iter().filter(|(kind, _)| kind == b"trex") {
        let mut reader = Reader::new(body, "trex");
        reader.full()?;
        if reader.u32()? == trak.id {
            reader.u32()?;
            defaults = (reader.u32()?, reader.u32()?, reader.u32()?);
        }
    }
    let mut dts = raw.iter().map(|raw| raw.duration).sum::<i64>();
    for (moof_at, body) in fragments {
        let mut previous_end = *moof_at;
        for (_, body) in boxes(body)?.iter().filter(|(kind, _)| kind == b"traf") {
            let parts = boxes(body)?;
            let mut head = Reader::new(required(&parts, "tfhd")?, "tfhd");
            let (_, flags) = head.full()?;
            let ours = head.u32()? == trak.id;
            let base = if flags & 1 != 0 {
                head.u64()?
            } else if flags & 0x2_0000 != 0 {
                *moof_at
            } else {
                previous_end
            };
            if flags & 2 != 0 {
                head.u32()?;
            }
            let mut or = |bit: u32, default: u32| if flags & bit != 0 { head.u32() } else { Ok(default) };
            let duration = or(8, defaults.0)?;
            let size = or(0x10, defaults.1)?;
            let sample_flags = or(0x20, defaults.2)?;
            if ours && let Some(body) = child(&parts, b"tfdt") {
                let mut reader = Reader::new(body, "tfdt");
                let (version, _) = reader.full()?;
                let time = reader.wide(version)?;
                if time > MAX_TIME as u64 {
                    return bad("a fragment begins beyond all time");
                }
                dts = time as i64;
            }
            let mut offset = base;
            for (_, body) in parts.iter().filter(|(kind, _)| kind == b"trun") {
                let mut run = Reader::new(body, "trun");
                let (_, flags) = run.full()?;
                let count = run.u32()? as usize;
                if flags & 1 != 0 {
                    let shift = i64::from(run.i32()?);
                    offset = match base.checked_add_signed(shift) {
                        Some(offset) => offset,
                        None => return bad("a fragment lies before the video"),
                    };
                }
                let first_flags = if flags & 4 != 0 { Some(run.u32()?) } else { None };
                let entry_bytes = (flags >> 8 & 15).count_ones() as usize * 4;
                if count.saturating_mul(entry_bytes) > run.bytes.len() {
                    return bad(format!("its box trun claims {count} entries and ends before them"));
                }
                if !ours && flags & 0x200 == 0 {
                    offset = offset.saturating_add(u64::from(size) * count as u64);
                    continue;
                }
                check_count(raw.len() + count)?;
                for index in 0..count {
                    let mut or = |bit: u32, default: u32| if flags & bit != 0 { run.u32() } else { Ok(default) };
                    let duration = i64::from(or(0x100, duration)?);
                    let size = or(0x200, size)?;
                    let default = if index == 0 { first_flags.unwrap_or(sample_flags) } else { sample_flags };
                    let own = or(0x400, default)?;
                    let shift = i64::from(or(0x800, 0)? as i32);
                    if ours {
                        check_place(offset, size, file_len, raw.len() + 1)?;
                        let sync = own & NOT_SYNC == 0;
                        let pts = dts + shift;
                        raw.push(Raw { place: (offset, size), pts, duration, sync, in_fragment: true });
                        dts += duration;
                    }
                    offset = offset.saturating_add(u64::from(size));
                }
            }
            previous_end = offset;
        }
    }
    Ok(())
}

/// Packets on the video's clock.
///
/// A packet is shown by every edit in which it begins. One that begins before an edit and ends in it is not shown: this is
/// FFmpeg's rule, and differs from the standard only for edits that do not begin with an image.
///
/// The header of a fragmented video is written before its length is known, so its edits move fragments and cut nothing off
/// them (also FFmpeg's rule).
fn apply_edits(trak: &Trak<'_>, movie_scale: u32, raw: Vec<Raw>) -> Step<Samples> {
    if !trak.edits.is_empty() && movie_scale == 0 {
        return bad("the clock of its edit list has zero ticks a second");
    }
    // Ticks of the movie as ticks of the track.
    let scaled = |ticks: u64| {
        let ticks = u128::from(ticks) * u128::from(trak.timescale);
        ((ticks + u128::from(movie_scale) / 2) / u128::from(movie_scale.max(1))).min(MAX_TIME as u128) as i64
    };
    let mut samples = Samples::default();
    samples.packets.reserve_exact(raw.len());
    samples.places.reserve_exact(raw.len());
    for raw in &raw {
        let Raw { pts, duration, sync, .. } = *raw;
        // Without an edit list everything is shown at its own time.
        samples.packets.push(Packet { pts, start: pts, duration, sync, shown: trak.edits.is_empty() });
        samples.places.push(raw.place);
    }
    if trak.edits.is_empty() {
        return Ok(samples);
    }
    // Packets in the order of their own times: an edit shows a run of them.
    let mut order: Vec<usize> = (0..raw.len()).filter(|at| !raw[*at].in_fragment).collect();
    order.sort_by_key(|at| raw[*at].pts);
    let mut video_time: u64 = 0;
    let mut first = None;
    for (index, edit) in trak.edits.iter().enumerate() {
        let start = scaled(video_time);
        video_time = video_time.saturating_add(edit.duration);
        let Some(media_time) = edit.media_time else { continue };
        let shift = start - media_time;
        first.get_or_insert(shift);
        // The length of the last edit of a video that was still being written is left at zero.
        let open = edit.duration == 0 && index + 1 == trak.edits.len();
        let end = if open { i64::MAX } else { media_time.saturating_add(scaled(edit.duration)) };
        let from = order.partition_point(|at| raw[*at].pts < media_time);
        for at in order[from..].iter().take_while(|at| raw[**at].pts < end) {
            let packet = &mut samples.packets[*at];
            let start = packet.pts.saturating_add(shift);
            if packet.shown {
                if samples.again.len() == MAX_PACKETS {
                    return bad(format!("its edit list shows more than {MAX_PACKETS} images again"));
                }
                samples.again.push(Again { packet: *at, start });
            } else {
                (packet.start, packet.shown) = (start, true);
            }
        }
    }
    let Some(shift) = first else {
        return bad("its edit list shows nothing");
    };
    for (packet, raw) in samples.packets.iter_mut().zip(&raw) {
        if raw.in_fragment {
            (packet.start, packet.shown) = (packet.pts.saturating_add(shift), true);
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_name_their_turn() {
        const ONE: i64 = 1 << 16;
        for (matrix, expected) in [
            ([ONE, 0, 0, ONE], Some((0, false))),
            ([0, ONE, -ONE, 0], Some((1, false))),
            ([-ONE, 0, 0, -ONE], Some((2, false))),
            ([0, -ONE, ONE, 0], Some((3, false))),
            ([-ONE, 0, 0, ONE], Some((0, true))),
            ([ONE, 0, 0, -ONE], Some((2, true))),
            ([0, -ONE, -ONE, 0], Some((1, true))),
            ([0, ONE, ONE, 0], Some((3, true))),
            ([0, 0, 0, 0], Some((0, false))),
            ([ONE, ONE, -ONE, ONE], None),
        ] {
            assert_eq!(turns(matrix), expected, "{matrix:?}");
        }
    }
}
