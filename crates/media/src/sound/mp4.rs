//! The boxes of an MP4 that symphonia does not tell about: which tracks are sound, in which codec, and the edit list that
//! says where the sound begins in the decoded frames.

use std::io::{self, Read, Seek, SeekFrom};

use crate::error::MediaError;
use crate::tracks::{TrackInfo, packed_language};

use super::Label;
use super::input::Input;

/// Boxes are not looked for deeper than this, and not more of them than that.
const MAX_BOXES: usize = 100_000;

/// The table of chunks is looked through no further, where there is more than one description.
const MAX_RUNS_BYTES: u64 = 16 << 20;

/// Entries of an edit list that are read; a track with more of them counts as one in parts.
const MAX_EDITS: u64 = 1_000;

/// A sound track.
#[derive(Debug, Default)]
pub(super) struct SoundTrack {
    pub(super) id: u32,
    /// Ticks a second of the track.
    pub(super) timescale: u32,
    /// Ticks a second of the film.
    pub(super) movie_timescale: u32,
    /// First tick that is heard, where an edit list says so.
    pub(super) start: Option<u64>,
    /// What is heard, in ticks of the film.
    pub(super) length: Option<u64>,
    /// The edit list plays several parts that do not follow one on the other.
    pub(super) in_parts: bool,
    /// First tick of each edit that is not empty, and its length in ticks of the film.
    parts: Vec<(u64, u64)>,
    /// The film is stored in pieces with tables of their own.
    pub(super) fragmented: bool,
    /// The configuration of ALAC, which films of QuickTime hide a level deeper.
    pub(super) alac: Option<Vec<u8>>,
    /// More than one description of samples is in use, as where files of different codecs or rates were joined.
    pub(super) changes: bool,
    descriptions: u32,
    codec: [u8; 4],
    is_sound: bool,
    /// Meant to be played unless another one is asked for.
    enabled: bool,
    language: Option<String>,
}

impl SoundTrack {
    pub(super) fn encrypted(&self) -> bool {
        matches!(&self.codec, b"enca" | b"drms")
    }

    /// Whether the track holds plain samples, which are read in [`super::quicktime`].
    pub(super) fn plain(&self) -> bool {
        super::quicktime::is_plain(&self.codec)
    }

    /// What messages and callers are told of it.
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
            other => return super::pcm::coded_as(other),
        };
        name.to_owned()
    }
}

/// The sound tracks of a film, in order. Leaves the input at its start.
pub(super) fn sound_tracks(input: &mut Input, label: &Label) -> Result<Vec<SoundTrack>, MediaError> {
    let length = input.length();
    let mut walk = Walk {
        input,
        tracks: Vec::new(),
        movie_timescale: 0,
        fragmented: false,
        cut: false,
        movies: 0,
        claimed: None,
        boxes: 0,
    };
    walk.file(length, label)?;
    let (movie_timescale, fragmented) = (walk.movie_timescale, walk.fragmented);
    let mut tracks = walk.tracks;
    input.seek(SeekFrom::Start(0)).map_err(|error| label.corrupt(error))?;
    tracks.retain(|track| track.is_sound);
    for track in &mut tracks {
        track.movie_timescale = movie_timescale;
        track.fragmented = fragmented;
        for pair in track.parts.windows(2) {
            // Parts that follow one on the other are one, to a tick of rounding.
            let ticks = u128::from(pair[0].1) * u128::from(track.timescale);
            let end = u128::from(pair[0].0) + ticks / u128::from(movie_timescale.max(1));
            track.in_parts |= end.abs_diff(u128::from(pair[1].0)) > 1;
            track.length = track.length.and_then(|length| length.checked_add(pair[1].1));
        }
    }
    Ok(tracks)
}

/// Bytes of the boxes at the top that are not the media. Leaves the input at its start.
pub(super) fn table_bytes(input: &mut Input) -> u64 {
    let length = input.length();
    let (mut at, mut sum) = (0u64, 0u64);
    for _ in 0..MAX_BOXES {
        let mut head = Vec::new();
        let read = input.seek(SeekFrom::Start(at)).and_then(|_| (&mut *input).take(16).read_to_end(&mut head));
        // A fault here is told when the boxes are read.
        let (true, Some(size)) = (read.is_ok() && head.len() >= 8, head.get(..4)) else { break };
        let size = match (u64::from(be32(size)), head.get(8..16)) {
            (0, _) => length.saturating_sub(at),
            (1, Some(wide)) => u64::from_be_bytes(std::array::from_fn(|i| wide[i])),
            (size, _) => size,
        };
        if matches!(&head[4..8], b"moov" | b"moof" | b"sidx") {
            sum = sum.saturating_add(size.min(length));
        }
        match at.checked_add(size.max(8)).filter(|next| *next < length) {
            Some(next) => at = next,
            None => break,
        }
    }
    let _ = input.seek(SeekFrom::Start(0));
    sum
}

/// What was found so far.
struct Walk<'a> {
    input: &'a mut Input,
    tracks: Vec<SoundTrack>,
    movie_timescale: u32,
    fragmented: bool,
    /// A box reaches beyond the end of the file.
    cut: bool,
    /// Boxes that describe tracks: one, except where files were joined.
    movies: usize,
    /// Samples that a run of a fragment claims, where they are more than the file has bytes: symphonia 0.6.1 counts them
    /// one by one, 2.9 billion in 2.7 s for a file of 4 kB.
    claimed: Option<u32>,
    boxes: usize,
}

impl Walk<'_> {
    /// Goes through the boxes of a file, whose last one may not reach beyond its end and which must describe tracks.
    fn file(&mut self, end: u64, label: &Label) -> Result<(), MediaError> {
        self.boxes(0, end).map_err(|error| label.corrupt(error))?;
        if self.cut {
            return Err(label.corrupt("the last box is cut short"));
        }
        match self.movies {
            0 => return Err(label.corrupt("the description of the tracks is missing")),
            1 => {}
            _ => return Err(label.unsupported("found several MP4 files that were joined")),
        }
        if let Some(samples) = self.claimed {
            return Err(label.corrupt(format!("a fragment claims {samples} packets, more than the file has bytes")));
        }
        Ok(())
    }

    /// Goes through the boxes between two bytes, and into those that hold what is wanted.
    fn boxes(&mut self, mut at: u64, end: u64) -> io::Result<()> {
        while at + 8 <= end && self.boxes < MAX_BOXES {
            self.boxes += 1;
            let head = self.bytes(at, 16)?;
            let Some(size) = head.get(..4).map(|b| u64::from(be32(b))) else { return Ok(()) };
            let (size, header) = match size {
                0 => (end - at, 8),
                1 => match head.get(8..16) {
                    Some(wide) => (u64::from_be_bytes(std::array::from_fn(|i| wide[i])), 16),
                    None => return Ok(()),
                },
                size => (size, 8),
            };
            // Damage is symphonia's to tell; here it only ends the search.
            if size < header {
                return Ok(());
            }
            let body = at + header;
            let next = at.saturating_add(size);
            let stop = next.min(end);
            // Bytes that somebody appended look like boxes of any name and length.
            let known = matches!(
                &head[4..8],
                b"moov"
                    | b"mdat"
                    | b"moof"
                    | b"free"
                    | b"skip"
                    | b"wide"
                    | b"ftyp"
                    | b"sidx"
                    | b"mfra"
                    | b"trak"
                    | b"udta"
            );
            self.cut |= known && next > self.input.length();
            self.movies += usize::from(&head[4..8] == b"moov");
            match &head[4..8] {
                b"trak" => {
                    self.tracks.push(SoundTrack::default());
                    self.boxes(body, stop)?;
                }
                b"mvex" => self.fragmented = true,
                b"moov" | b"mdia" | b"minf" | b"stbl" | b"edts" | b"moof" | b"traf" => self.boxes(body, stop)?,
                b"trun" => {
                    let count = self.bytes(body + 4, 4)?;
                    let samples = if count.len() == 4 { be32(&count) } else { 0 };
                    if u64::from(samples) > self.input.length() {
                        self.claimed = Some(samples);
                    }
                }
                b"stsc" if self.tracks.last().is_some_and(|track| track.descriptions > 1) => {
                    let runs = self.bytes(body, (stop - body).min(MAX_RUNS_BYTES) as usize)?;
                    let changes = runs.get(8..).unwrap_or_default().chunks_exact(12).any(|run| be32(&run[8..]) != 1);
                    if let Some(track) = self.tracks.last_mut() {
                        track.changes = changes;
                    }
                }
                name @ (b"mvhd" | b"tkhd" | b"mdhd" | b"hdlr" | b"stsd" | b"elst") => {
                    let name: [u8; 4] = std::array::from_fn(|i| name[i]);
                    let most = if &name == b"elst" { 8 + 20 * MAX_EDITS } else { 256 };
                    let content = self.bytes(body, (stop - body).min(most) as usize)?;
                    self.content(&name, &content);
                }
                _ => {}
            }
            at = next;
        }
        Ok(())
    }

    fn content(&mut self, name: &[u8; 4], content: &[u8]) -> Option<()> {
        let wide = *content.first()? == 1;
        let word = |at: usize| content.get(at..at + 4).map(be32);
        let long = |at: usize| Some(u64::from(word(at)?) << 32 | u64::from(word(at + 4)?));
        if name == b"mvhd" {
            self.movie_timescale = word(if wide { 20 } else { 12 })?;
            return Some(());
        }
        let track = self.tracks.last_mut()?;
        match name {
            b"tkhd" => {
                track.enabled = content.get(3)? & 1 == 1;
                track.id = word(if wide { 20 } else { 12 })?;
            }
            b"mdhd" => {
                track.timescale = word(if wide { 20 } else { 12 })?;
                let at = if wide { 32 } else { 20 };
                track.language = packed_language(u16::from_be_bytes([*content.get(at)?, *content.get(at + 1)?]));
            }
            // Old films have a second one of these, which says how data is stored.
            b"hdlr" => track.is_sound |= content.get(8..12)? == b"soun",
            b"stsd" => {
                track.descriptions = word(4)?;
                track.codec = std::array::from_fn(|i| content.get(12 + i).copied().unwrap_or(0));
                if &track.codec == b"alac" {
                    // A box of that name with a version and 24 bytes, somewhere behind the fields of the entry.
                    let at = content.windows(8).skip(16).position(|head| head == b"\0\0\0\x24alac")? + 16 + 12;
                    track.alac = content.get(at..at + 24).map(<[u8]>::to_vec);
                }
            }
            _ => {
                // Edits that are not empty. An empty one before the first delays the sound, which is not done here.
                let size = if wide { 20 } else { 12 };
                let mut parts: Vec<(u64, u64)> = Vec::new();
                for entry in 0..u64::from(word(4)?).min(MAX_EDITS) as usize {
                    let at = 8 + entry * size;
                    let (length, start) = if wide {
                        (long(at)?, long(at + 8)? as i64)
                    } else {
                        (u64::from(word(at)?), i64::from(word(at + 4)? as i32))
                    };
                    if let Ok(start) = u64::try_from(start) {
                        parts.push((start, length));
                    }
                }
                if let Some((start, length)) = parts.first().copied() {
                    track.start = Some(start);
                    track.length = (length > 0).then_some(length);
                }
                track.in_parts = u64::from(word(4)?) > MAX_EDITS;
                track.parts = parts;
            }
        }
        Some(())
    }

    fn bytes(&mut self, at: u64, length: usize) -> io::Result<Vec<u8>> {
        self.input.seek(SeekFrom::Start(at))?;
        let mut out = Vec::new();
        self.input.take(length as u64).read_to_end(&mut out)?;
        Ok(out)
    }
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
