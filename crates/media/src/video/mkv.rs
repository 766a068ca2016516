//! The video track of a Matroska or WebM file.

use crate::container::matroska::{BlockTrack, Elements, Packet as Block, TrackEntry, VIDEO, packets};
use crate::container::tracks::find;
use crate::error::MediaError;
use crate::label::Label;
use crate::source::Source;
use crate::tracks::{TrackChoice, TrackInfo};
use crate::video::ffmpeg::codec_name;
use crate::video::packets::{Codec, Packet, Placed, TrackColour, VideoTrack};

/// What is known of the track.
struct Track {
    codec: Codec,
    stream: String,
    config: Vec<u8>,
    width: u32,
    height: u32,
    quarter_turns: u8,
    colour: Option<TrackColour>,
    stripped: Vec<u8>,
}

/// The video's video track.
pub(crate) fn open(mut source: Source, choice: &TrackChoice) -> Result<VideoTrack, MediaError> {
    let found = packets(&mut source, VIDEO, |label, entries| video_track(label, entries, choice))?;
    let Some((blocks, track, found)) = found else {
        return Err(source.label.no_track("a video without images", "a video track"));
    };
    // The last image may say nothing of its length; then it is shown as long as the one before it.
    let mut order: Vec<i64> = found.iter().map(|block| block.pts).collect();
    order.sort_unstable();
    let last_gap = if let [.., a, b] = order[..] { b - a } else { 0 };
    let packets = found
        .iter()
        .map(|block| Packet {
            pts: block.pts,
            start: block.pts,
            duration: blocks.duration(block).map_or(last_gap, |duration| duration as i64),
            sync: block.sync,
            shown: block.visible,
        })
        .collect();
    // The list of blocks while it grows, and their order.
    let opening = (2 * size_of::<Block>() as u64 + 8) * found.len() as u64;
    let places = found.iter().map(|block| block.place).collect();
    Ok(VideoTrack {
        label: source.label.clone(),
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

/// The codec of a track entry.
fn entry_codec(entry: &TrackEntry<'_>) -> Codec {
    match entry.codec() {
        b"V_MPEG4/ISO/AVC" => Codec::H264,
        b"V_AV1" => Codec::Av1,
        b"V_MPEGH/ISO/HEVC" => Codec::Hevc,
        b"V_VP9" => Codec::Vp9,
        b"V_VP8" => Codec::Vp8,
        other => Codec::Other(other.escape_ascii().to_string()),
    }
}

/// The video track that is meant.
fn video_track(
    label: &Label,
    mut entries: Vec<TrackEntry<'_>>,
    choice: &TrackChoice,
) -> Result<(BlockTrack, Track), MediaError> {
    let broken = || label.corrupt("the description of a track does not hold together");
    for entry in &mut entries {
        entry.info.codec = codec_name(&entry_codec(entry)).to_owned();
    }
    let infos: Vec<TrackInfo> = entries.iter().map(|entry| entry.info.clone()).collect();
    let chosen = find(&label.name, "video track", &infos, choice)?;
    let entry = entries.swap_remove(chosen);
    let stream = format!("0:v:{chosen}");
    let blocks = BlockTrack::new(&entry).ok_or_else(broken)?;
    let codec = entry_codec(&entry);
    let config = entry.configuration().to_vec();
    let parts = entry.parts;
    let video = parts.inside(0xe0).ok_or_else(broken)?;
    let side = |id| video.unsigned(id).and_then(|side| u32::try_from(side).ok()).unwrap_or(0);
    let colour = match video.bytes(0x55b0) {
        None => None,
        Some(body) => {
            let parts = Elements::read(body).ok_or_else(broken)?;
            let code = |id, default| parts.unsigned(id).unwrap_or(default);
            let matrix = u8::try_from(code(0x55b1, 2)).unwrap_or(2);
            Some(TrackColour { matrix, full_range: code(0x55b9, 0) == 2 })
        }
    };
    let mut quarter_turns = 0;
    if let Some(body) = video.bytes(0x7670) {
        let parts = Elements::read(body).ok_or_else(broken)?;
        let angle = |id| parts.float(id).unwrap_or(0.0);
        let rectangular = parts.unsigned(0x7671).unwrap_or(0) == 0;
        if rectangular && angle(0x7673) == 0.0 && angle(0x7674) == 0.0 {
            // The roll counts against the clock.
            let turns = -angle(0x7675) / 90.0;
            if (turns - turns.round()).abs() > 0.01 || turns.abs() > 1e6 {
                return Err(label.unsupported("found images turned by an angle that is no quarter turn"));
            }
            quarter_turns = (turns.round() as i64).rem_euclid(4) as u8;
        }
    }
    let mut stripped = Vec::new();
    if let Some(body) = parts.bytes(0x6d80) {
        for body in Elements::read(body).ok_or_else(broken)?.all(0x6240) {
            let parts = Elements::read(body).ok_or_else(broken)?;
            if parts.unsigned(0x5033).unwrap_or(0) != 0 {
                return Err(label.unsupported("found encrypted images"));
            }
            let compression = parts.inside(0x5034).ok_or_else(broken)?;
            if compression.unsigned(0x4254).unwrap_or(0) != 3 {
                return Err(label.unsupported("found a video track that is packed once more as a whole"));
            }
            if parts.unsigned(0x5032).unwrap_or(1) & 1 != 0 {
                stripped = compression.bytes(0x4255).unwrap_or_default().to_vec();
            }
        }
    }
    let (width, height) = (side(0xb0), side(0xba));
    let track = Track { codec, stream, config, width, height, quarter_turns, colour, stripped };
    Ok((blocks, track))
}
