//! Plain samples in MOV and MP4: how the description of a track says they are stored, and where its tables say they lie.
//!
//! symphonia 0.6.1 takes `in24` and `in32` as little-endian whatever `enda` says, refuses samples of eight bits, and knows
//! neither `NONE` nor `ipcm`, so these tracks are read here. All other codecs are left to it.
//!
//! # Source
//! QuickTime File Format, "Sound Media"; ISO/IEC 14496-12, 12.2; ISO/IEC 23003-5 for `ipcm` and `fpcm`. Where the formats
//! leave a choice, FFmpeg's `mov.c`: 8-bit `NONE` is unsigned, 16-bit `raw ` is big-endian and signed.

use crate::container::mp4::{TopBox, whole_box, whole_boxes};
use crate::error::MediaError;
use crate::label::Label;
use crate::source::Source;

use super::mp4::AudioTrack;
use super::samples::{Coding, Header, Place, Sample};

/// What a description of plain samples says.
struct Described {
    rate_hz: u32,
    channels: usize,
    sample: Sample,
    big_endian: bool,
}

/// What reads a track of plain samples. Leaves the source anywhere.
pub(super) fn header(source: &mut Source, moov: &[u8], track: &AudioTrack) -> Result<Header, MediaError> {
    let label = &source.label.clone();
    let trak = find_track(moov, track.id).ok_or_else(|| label.corrupt("the description of the track is missing"))?;
    let stbl = whole_box(trak, &[b"mdia", b"minf", b"stbl"])
        .ok_or_else(|| label.corrupt("the tables of the track are missing"))?;
    let stsd = child(stbl, b"stsd").ok_or_else(|| label.corrupt("the description of the samples is missing"))?;
    let described = describe(stsd, track, label)?;
    let frame_bytes = (described.sample.bytes() * described.channels) as u64;
    let mut places = Vec::new();
    tables(stbl, frame_bytes, label, &mut places)?;
    if track.fragmented {
        let defaults = child(moov, b"mvex").map_or(0, |mvex| trex_size(mvex, track.id));
        fragments(source, track.id, defaults, &mut places)?;
    }
    let bytes: u64 = places.iter().map(|place| place.bytes).sum();
    let (rate_hz, all) = (described.rate_hz, bytes / frame_bytes);
    let frames = |ticks: u64, of: u32| (u128::from(ticks) * u128::from(rate_hz) / u128::from(of.max(1))) as u64;
    let skip = track.start.map_or(0, |start| frames(start, track.timescale));
    let mut most = all.saturating_sub(skip);
    if let Some(length) = track.length.filter(|_| track.movie_timescale >= rate_hz) {
        most = most.min(frames(length, track.movie_timescale));
    }
    let Described { channels, sample, big_endian, .. } = described;
    Ok(Header { rate_hz, channels, coding: Coding::Plain { sample, big_endian }, places, skip, frames: Some(most) })
}

/// Reads the description of the samples.
fn describe(stsd: &[u8], track: &AudioTrack, label: &Label) -> Result<Described, MediaError> {
    let short = || label.corrupt("the description of the samples is cut short");
    let count = stsd.get(4..8).map(be32).ok_or_else(short)?;
    if count != 1 {
        return Err(label.unsupported(format!("found an audio track with {count} descriptions of its samples")));
    }
    let entry = stsd.get(8..).ok_or_else(short)?;
    let size = entry.get(..4).map(be32).ok_or_else(short)? as usize;
    let codec: [u8; 4] = entry.get(4..8).ok_or_else(short)?.try_into().map_err(|_| short())?;
    let body = entry.get(8..size.max(8)).ok_or_else(short)?;
    let half = |at: usize| body.get(at..at + 2).map(|b| u32::from(u16::from_be_bytes([b[0], b[1]]))).ok_or_else(short);
    let word = |at: usize| body.get(at..at + 4).map(be32).ok_or_else(short);
    let version = half(8)?;
    let (mut channels, mut bits) = (half(16)?, half(18)?);
    let mut rate = f64::from(word(24)?) / 65536.0;
    let mut flags = None;
    // The fields of QuickTime stand in a table of version 0; the second version of ISO has none of them.
    let boxes = match version {
        1 if stsd[0] == 0 => 28 + 16,
        2 => 28 + 36,
        0 | 1 => 28,
        other => return Err(label.unsupported(format!("found a description of audio of version {other}"))),
    };
    let mut frame_bytes = None;
    if version == 1 && boxes > 28 {
        frame_bytes = Some(word(36)?).filter(|bytes| *bytes > 0);
    }
    if version == 2 {
        let wide = |at: usize| Ok::<_, MediaError>(u64::from(word(at)?) << 32 | u64::from(word(at + 4)?));
        rate = f64::from_bits(wide(32)?);
        (channels, bits) = (word(40)?, word(48)?);
        flags = Some(word(52)?);
        frame_bytes = Some(word(56)?).filter(|bytes| *bytes > 0);
    }
    let boxes = body.get(boxes..).unwrap_or_default();
    if let Some(rate_box) = child(boxes, b"srat").and_then(|srat| srat.get(4..8)) {
        rate = f64::from(be32(rate_box));
    }
    let rate_hz = if rate >= 0.5 { rate.round().min(f64::from(u32::MAX)) as u32 } else { track.timescale };
    label.check_channels(channels as usize)?;
    let wave = child(boxes, b"wave").unwrap_or_default();
    let little =
        [wave, boxes].iter().find_map(|found| child(found, b"enda")).is_some_and(|enda| enda.last() == Some(&1));
    let name = codec.escape_ascii().to_string();
    let odd = || label.unsupported(format!("found samples of {bits} bits coded as \"{name}\""));
    let whole = |bits: u32| Sample::signed(bits.clamp(1, 64).next_multiple_of(8));
    let (sample, big_endian) = match &codec {
        b"ulaw" => (Sample::MuLaw, true),
        b"alaw" => (Sample::ALaw, true),
        b"in24" => (Sample::Signed(3), !little),
        b"in32" => (Sample::Signed(4), !little),
        b"fl32" => (Sample::Float32, !little),
        b"fl64" => (Sample::Float64, !little),
        b"raw " | b"NONE" | b"\0\0\0\0" if bits == 8 => (Sample::Unsigned(1), true),
        b"raw " if bits != 16 => return Err(odd()),
        b"twos" | b"NONE" | b"\0\0\0\0" | b"raw " => (whole(bits).ok_or_else(odd)?, !little),
        b"sowt" => (whole(bits).ok_or_else(odd)?, false),
        b"ipcm" | b"fpcm" => {
            let config = child(boxes, b"pcmC").and_then(|config| config.get(4..6));
            let config =
                config.ok_or_else(|| label.corrupt(format!("\"{name}\" has no description of its samples")))?;
            let bits = u32::from(config[1]);
            let sample = if &codec == b"ipcm" { Sample::signed(bits) } else { Sample::float(bits) };
            let odd = || label.unsupported(format!("found samples of {bits} bits coded as \"{name}\""));
            (sample.filter(|_| bits > 8 || &codec == b"ipcm").ok_or_else(odd)?, config[0] & 1 == 0)
        }
        // With flags of its own: float, big-endian, signed, packed, at the upper end, channels apart.
        b"lpcm" => {
            let flags = flags.ok_or_else(odd)?;
            if flags & 32 != 0 && channels > 1 {
                return Err(label.unsupported("found plain samples with one channel after the other"));
            }
            let stored = frame_bytes.filter(|bytes| bytes % channels == 0).map_or(bits, |bytes| 8 * (bytes / channels));
            let bits = if flags & 16 != 0 { stored } else { bits };
            let sample = match (flags & 1 != 0, flags & 4 != 0) {
                (true, _) => Sample::float(bits),
                (false, true) => Sample::signed(bits),
                (false, false) => Sample::unsigned(bits),
            };
            (sample.ok_or_else(odd)?, flags & 2 != 0)
        }
        _ => return Err(odd()),
    };
    let law = matches!(sample, Sample::MuLaw | Sample::ALaw);
    if let Some(bytes) = frame_bytes.filter(|bytes| !law && *bytes as usize != sample.bytes() * channels as usize) {
        return Err(label.unsupported(format!(
            "found samples of {bits} bits coded as \"{name}\" in frames of {bytes} bytes for {channels} channels"
        )));
    }
    Ok(Described { rate_hz, channels: channels as usize, sample, big_endian })
}

/// The places that the tables of a track name.
fn tables(stbl: &[u8], frame_bytes: u64, label: &Label, places: &mut Vec<Place>) -> Result<(), MediaError> {
    let missing = |what: &str| label.corrupt(format!("the table of {what} is missing or cut short"));
    let words = |bytes: &[u8], at: usize| bytes.get(at..at + 4).map(be32);
    let sizes = child(stbl, b"stsz").ok_or_else(|| missing("sizes"))?;
    let (one, count) = (words(sizes, 4), words(sizes, 8));
    let (Some(one), Some(count)) = (one, count) else { return Err(missing("sizes")) };
    if count == 0 {
        return Ok(());
    }
    // One size for all is that of a frame or, in old videos, 1; the description tells the bytes.
    let one = u64::from(one);
    if one > 1 && one % frame_bytes != 0 {
        return Err(
            label.unsupported(format!("found plain samples in packets of {one} bytes, {frame_bytes} bytes a frame"))
        );
    }
    let each = if one > 1 { one } else { frame_bytes };
    let sizes = sizes.get(12..).unwrap_or_default();
    if one == 0 && (sizes.len() as u64) < 4 * u64::from(count) {
        return Err(missing("sizes"));
    }
    let runs = child(stbl, b"stsc").and_then(|runs| runs.get(8..)).ok_or_else(|| missing("chunks"))?;
    let runs: Vec<[u32; 3]> = runs.chunks_exact(12).map(|run| [be32(run), be32(&run[4..]), be32(&run[8..])]).collect();
    if runs.iter().any(|run| run[2] != 1) {
        return Err(label.unsupported("found an audio track whose description changes"));
    }
    let narrow = child(stbl, b"stco").and_then(|chunks| chunks.get(8..));
    let wide = child(stbl, b"co64").and_then(|chunks| chunks.get(8..));
    let chunks: Box<dyn Iterator<Item = u64>> = match (narrow, wide) {
        (Some(chunks), _) => Box::new(chunks.chunks_exact(4).map(|chunk| u64::from(be32(chunk)))),
        (None, Some(chunks)) => {
            let wide = |chunk: &[u8]| u64::from(be32(chunk)) << 32 | u64::from(be32(&chunk[4..]));
            Box::new(chunks.chunks_exact(8).map(wide))
        }
        (None, None) => return Err(missing("offsets")),
    };
    let (mut run, mut packet) = (0, 0u64);
    for (number, start) in (1u32..).zip(chunks) {
        while runs.get(run + 1).is_some_and(|next| next[0] <= number) {
            run += 1;
        }
        let packets = u64::from(runs.get(run).ok_or_else(|| missing("chunks"))?[1]).min(u64::from(count) - packet);
        let bytes = if one == 0 {
            let sizes = &sizes[4 * packet as usize..4 * (packet + packets) as usize];
            sizes.chunks_exact(4).map(|size| u64::from(be32(size))).sum()
        } else {
            packets * each
        };
        packet += packets;
        push(places, start, bytes);
    }
    if packet < u64::from(count) {
        return Err(label.cut_short(packet, u64::from(count), "packets"));
    }
    Ok(())
}

/// Appends a place, to the last one if it follows it.
fn push(places: &mut Vec<Place>, start: u64, bytes: u64) {
    match places.last_mut() {
        Some(last) if last.start + last.bytes == start => last.bytes += bytes,
        _ if bytes == 0 => {}
        _ => places.push(Place { start, bytes }),
    }
}

/// The size of packets that `trex` gives to the fragments of a track.
fn trex_size(mvex: &[u8], id: u32) -> u32 {
    let trex = whole_boxes(mvex).filter(|(name, _)| name == b"trex").map(|(_, body)| body);
    trex.filter(|body| body.len() >= 24 && be32(&body[4..]) == id).map(|body| be32(&body[16..])).next().unwrap_or(0)
}

/// The body of the track of a number.
fn find_track(moov: &[u8], id: u32) -> Option<&[u8]> {
    whole_boxes(moov).filter(|(name, _)| name == b"trak").map(|(_, body)| body).find(|trak| {
        let head = child(trak, b"tkhd").unwrap_or_default();
        let at = if head.first() == Some(&1) { 20 } else { 12 };
        head.get(at..at + 4).map(be32) == Some(id)
    })
}

fn child<'a>(body: &'a [u8], name: &[u8; 4]) -> Option<&'a [u8]> {
    whole_box(body, &[name])
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// The places that fragments of a track name.
fn fragments(source: &mut Source, id: u32, size: u32, places: &mut Vec<Place>) -> Result<(), MediaError> {
    let mut at = 0;
    while let Some(found) = TopBox::read(source, at)? {
        if &found.kind == b"moof" {
            let moof = found.bytes(source)?;
            fragment(&moof, at, id, size, &source.label, places)?;
        }
        if found.end <= at {
            break;
        }
        at = found.end;
    }
    Ok(())
}

/// The places that one fragment names.
fn fragment(
    moof: &[u8],
    moof_at: u64,
    id: u32,
    size: u32,
    label: &Label,
    places: &mut Vec<Place>,
) -> Result<(), MediaError> {
    let short = || label.corrupt("a fragment is cut short");
    // Without a base of its own, data follows what the track before it had.
    let mut after = moof_at;
    for (_, traf) in whole_boxes(moof).filter(|(name, _)| name == b"traf") {
        let head = child(traf, b"tfhd").ok_or_else(short)?;
        let word = |bytes: &[u8], at: usize| bytes.get(at..at + 4).map(be32).ok_or_else(short);
        let flags = word(head, 0)? & 0xff_ffff;
        let of_track = word(head, 4)? == id;
        let mut at = 8;
        let mut base = if flags & 0x2_0000 != 0 { moof_at } else { after };
        if flags & 1 != 0 {
            base = u64::from(word(head, at)?) << 32 | u64::from(word(head, at + 4)?);
            at += 8;
        }
        at += if flags & 2 != 0 { 4 } else { 0 };
        at += if flags & 8 != 0 { 4 } else { 0 };
        let size = if flags & 16 != 0 { word(head, at)? } else { size };
        let mut place = base;
        for (_, run) in whole_boxes(traf).filter(|(name, _)| name == b"trun") {
            let flags = word(run, 0)? & 0xff_ffff;
            let count = word(run, 4)?;
            let mut at = 8;
            if flags & 1 != 0 {
                place = base.saturating_add_signed(i64::from(word(run, at)? as i32));
                at += 4;
            }
            at += if flags & 4 != 0 { 4 } else { 0 };
            let fields = [0x100, 0x200, 0x400, 0x800].map(|bit| flags & bit != 0);
            let step = 4 * fields.iter().filter(|there| **there).count();
            let bytes = if fields[1] {
                let entries = run.get(at..).unwrap_or_default();
                if (entries.len() as u64) < u64::from(count) * step as u64 {
                    return Err(short());
                }
                let skip = if fields[0] { 4 } else { 0 };
                let sizes = entries.chunks_exact(step).take(count as usize);
                sizes.map(|entry| u64::from(be32(&entry[skip..]))).sum()
            } else {
                u64::from(count) * u64::from(size)
            };
            if of_track {
                push(places, place, bytes);
            }
            place = place.saturating_add(bytes);
        }
        after = place;
    }
    Ok(())
}
