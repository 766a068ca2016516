//! What the boxes of an MP4 say that symphonia does not tell: which tracks are audio, in which codec, and the edit list that
//! says where the audio begins in the decoded frames.

use crate::container::mp4::{
    MAX_HEADER_BYTES, MediaHeader, MovieHeader, TopBox, TrackHeader, edit_list, handler, whole_box, whole_boxes,
};
use crate::error::MediaError;
use crate::source::Source;
use crate::tracks::TrackInfo;

use super::samples::coded_as;

/// More boxes at the top of a file are not looked at.
const MAX_BOXES: usize = 100_000;

/// A track with more entries in its edit list counts as one in parts.
const MAX_EDITS: usize = 1_000;

/// An audio track.
#[derive(Debug, Default)]
pub(super) struct AudioTrack {
    pub(super) id: u32,
    /// Ticks a second of the track.
    pub(super) timescale: u32,
    /// Ticks a second of the video.
    pub(super) movie_timescale: u32,
    /// First tick that is heard, where an edit list says so.
    pub(super) start: Option<u64>,
    /// What is heard, in ticks of the video.
    pub(super) length: Option<u64>,
    /// The edit list plays several parts that do not follow one on the other.
    pub(super) in_parts: bool,
    /// The video is stored in pieces with tables of their own.
    pub(super) fragmented: bool,
    /// The configuration of ALAC, which videos of QuickTime hide a level deeper.
    pub(super) alac: Option<Vec<u8>>,
    /// More than one description of samples is in use, as where files of different codecs or rates were joined.
    pub(super) changes: bool,
    codec: [u8; 4],
    /// Meant to be played unless another one is asked for.
    enabled: bool,
    language: Option<String>,
}

impl AudioTrack {
    pub(super) fn encrypted(&self) -> bool {
        matches!(&self.codec, b"enca" | b"drms")
    }

    /// Whether the track holds plain samples, which are read in [`super::quicktime`].
    pub(super) fn plain(&self) -> bool {
        matches!(
            &self.codec,
            b"raw "
                | b"twos"
                | b"sowt"
                | b"NONE"
                | b"\0\0\0\0"
                | b"in24"
                | b"in32"
                | b"fl32"
                | b"fl64"
                | b"lpcm"
                | b"ulaw"
                | b"alaw"
                | b"ipcm"
                | b"fpcm"
        )
    }

    /// What messages and callers see of it.
    pub(super) fn info(&self, index: u32) -> TrackInfo {
        let codec = match &self.codec {
            b"mp4a" => "AAC".to_owned(),
            b".mp3" => "MP3".to_owned(),
            b"alac" => "ALAC".to_owned(),
            b"fLaC" => "FLAC".to_owned(),
            b"Opus" => "Opus".to_owned(),
            b"lpcm" | b"ipcm" | b"fpcm" | b"sowt" | b"twos" | b"in24" | b"in32" | b"fl32" | b"fl64" | b"raw " => {
                "PCM".to_owned()
            }
            b"ac-3" | b"ec-3" | b"ac-4" | b"dtsc" | b"dtse" | b"dtsh" | b"dtsl" | b"dtsx" | b"samr" | b"sawb"
            | b"mlpa" | b"ima4" | b"QDM2" | b"QDMC" | b"mha1" | b"mhm1" => self.codec_words(),
            other => other.escape_ascii().to_string(),
        };
        let (language, default) = (self.language.clone(), self.enabled);
        TrackInfo { index, codec, language, default, enabled: true, special: false }
    }

    /// The codec in words.
    pub(super) fn codec_words(&self) -> String {
        let name = match &self.codec {
            b"mp4a" => "AAC of an unusual kind",
            b"ac-3" => "AC-3",
            b"ec-3" => "E-AC-3",
            b"ac-4" => "AC-4",
            b"dtsc" | b"dtse" | b"dtsh" | b"dtsl" | b"dtsx" => "DTS",
            b"samr" => "AMR",
            b"sawb" => "AMR-WB",
            b"mlpa" => "TrueHD",
            b"alac" => "ALAC of an unusual kind",
            b"enca" => "enca",
            b"mha1" | b"mhm1" => "MPEG-H",
            other => return coded_as(other),
        };
        name.to_owned()
    }
}

/// The header of a video, and what its audio tracks are.
pub(super) struct Movie {
    /// The body of `moov`.
    pub(super) moov: Vec<u8>,
    /// The audio tracks, in order.
    pub(super) tracks: Vec<AudioTrack>,
    /// Bytes of the boxes at the top that are not the media.
    pub(super) table_bytes: u64,
}

impl Movie {
    /// Reads the boxes at the top of a file, whose last one may not reach beyond its end and of which one must describe
    /// tracks. Leaves the source anywhere.
    pub(super) fn read(source: &mut Source) -> Result<Self, MediaError> {
        let length = source.length();
        let (mut movie, mut movies, mut cut, mut claimed, mut table_bytes) = (Vec::new(), 0, false, None, 0u64);
        let mut at = 0;
        for _ in 0..MAX_BOXES {
            // Damage is symphonia's to tell; here it only ends the search.
            let Some(found) = TopBox::read(source, at)? else { break };
            // Bytes that somebody appended look like boxes of any name and length.
            let known = matches!(
                &found.kind,
                b"moov" | b"mdat" | b"moof" | b"free" | b"skip" | b"wide" | b"ftyp" | b"sidx" | b"mfra" | b"udta"
            );
            cut |= known && found.end > length;
            if matches!(&found.kind, b"moov" | b"moof" | b"sidx") {
                table_bytes = table_bytes.saturating_add(found.end.min(length) - at);
            }
            if matches!(&found.kind, b"moov" | b"moof") {
                let bytes = found.end.min(length) - found.body.min(length);
                if bytes > MAX_HEADER_BYTES {
                    let found = format!("found {bytes} bytes of tables, at most {MAX_HEADER_BYTES}");
                    return Err(source.label.unsupported(found));
                }
                let body = found.bytes(source)?;
                if &found.kind == b"moof" {
                    claimed = claimed.or(most_claimed(&body).filter(|samples| u64::from(*samples) > length));
                } else {
                    movies += 1;
                    movie = body;
                }
            }
            if found.end <= at || found.end >= length {
                break;
            }
            at = found.end;
        }
        let label = &source.label;
        if cut {
            return Err(label.corrupt("the last box is cut short"));
        }
        match movies {
            0 => return Err(label.corrupt("the description of the tracks is missing")),
            1 => {}
            _ => return Err(label.unsupported("found several MP4 files that were joined")),
        }
        if let Some(samples) = claimed {
            return Err(label.corrupt(format!("a fragment claims {samples} packets, more than the file has bytes")));
        }
        let movie_timescale = whole_box(&movie, &[b"mvhd"]).and_then(|body| MovieHeader::read(body).ok());
        let movie_timescale = movie_timescale.map_or(0, |head| head.timescale);
        let fragmented = whole_box(&movie, &[b"mvex"]).is_some();
        let traks = whole_boxes(&movie).filter(|(kind, _)| kind == b"trak");
        let tracks = traks.filter_map(|(_, trak)| AudioTrack::read(trak, movie_timescale, fragmented)).collect();
        Ok(Self { moov: movie, tracks, table_bytes })
    }
}

/// The most samples that a run of a fragment claims: symphonia 0.6.1 counts them one by one, 2.9 billion in 2.7 s for a file
/// of 4 kB.
fn most_claimed(moof: &[u8]) -> Option<u32> {
    let tracks = whole_boxes(moof).filter(|(kind, _)| kind == b"traf");
    let runs = tracks.flat_map(|(_, traf)| whole_boxes(traf)).filter(|(kind, _)| kind == b"trun");
    runs.filter_map(|(_, run)| run.get(4..8).map(be32)).max()
}

impl AudioTrack {
    /// `None` for a track of another kind.
    fn read(trak: &[u8], movie_timescale: u32, fragmented: bool) -> Option<Self> {
        let mdia = whole_box(trak, &[b"mdia"]).unwrap_or_default();
        // Old videos have a second handler, which says how data is stored.
        let minf = whole_box(mdia, &[b"minf"]).unwrap_or_default();
        let handlers = whole_boxes(mdia).chain(whole_boxes(minf)).filter(|(kind, _)| kind == b"hdlr");
        if !handlers.into_iter().any(|(_, body)| handler(body).is_ok_and(|kind| &kind == b"soun")) {
            return None;
        }
        let mut track = Self { movie_timescale, fragmented, ..Self::default() };
        if let Some(head) = whole_box(trak, &[b"tkhd"]).and_then(|body| TrackHeader::read(body).ok()) {
            (track.id, track.enabled) = (head.id, head.enabled);
        }
        if let Some(head) = whole_box(mdia, &[b"mdhd"]).and_then(|body| MediaHeader::read(body).ok()) {
            (track.timescale, track.language) = (head.timescale, head.language);
        }
        let stbl = whole_box(minf, &[b"stbl"]).unwrap_or_default();
        if let Some(stsd) = whole_box(stbl, &[b"stsd"]) {
            track.codec = std::array::from_fn(|i| stsd.get(12 + i).copied().unwrap_or(0));
            if &track.codec == b"alac" {
                // A box of that name with a version and 24 bytes, somewhere behind the fields of the entry.
                let at = stsd.windows(8).skip(16).position(|head| head == b"\0\0\0\x24alac").map(|at| at + 16 + 12);
                track.alac = at.and_then(|at| stsd.get(at..at + 24)).map(<[u8]>::to_vec);
            }
            let runs = whole_box(stbl, &[b"stsc"]).and_then(|runs| runs.get(8..)).unwrap_or_default();
            let several = stsd.get(4..8).is_some_and(|count| be32(count) > 1);
            track.changes = several && runs.chunks_exact(12).any(|run| be32(&run[8..]) != 1);
        }
        if let Some(edits) = whole_box(trak, &[b"edts", b"elst"]).and_then(|body| edit_list(body).ok()) {
            track.in_parts = edits.len() > MAX_EDITS;
            // An empty edit before the first delays the audio, which is not done here.
            let parts = edits.iter().filter_map(|edit| Some((u64::try_from(edit.start).ok()?, edit.duration)));
            let parts: Vec<(u64, u64)> = parts.collect();
            if let Some((start, length)) = parts.first().copied() {
                track.start = Some(start);
                track.length = (length > 0).then_some(length);
            }
            for pair in parts.windows(2) {
                // Parts that follow one on the other are one, to a tick of rounding.
                let ticks = u128::from(pair[0].1) * u128::from(track.timescale);
                let end = u128::from(pair[0].0) + ticks / u128::from(movie_timescale.max(1));
                track.in_parts |= end.abs_diff(u128::from(pair[1].0)) > 1;
                track.length = track.length.and_then(|length| length.checked_add(pair[1].1));
            }
        }
        Some(track)
    }
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
