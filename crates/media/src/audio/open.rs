//! Which decoder takes an audio file.

use std::io::Seek;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::container::mpeg::{LEAD_BYTES, begins_late};
use crate::container::tracks::only_track;
use crate::error::MediaError;
use crate::kind::sniff;
use crate::label::Label;
use crate::source::Source;
use crate::tracks::TrackChoice;

use super::decoder::Decoder;
use super::{demux, flac, mpeg, ogg, pcm};

/// What is expected where no audio was found.
const EXPECTED: &str = "audio (WAV, FLAC, MP3, OGG, Opus, M4A, AAC, AIFF, CAF or AU)";

/// Formats of audio that are known by name and not read.
const NOT_READ: &[(&str, &str)] = &[
    ("asf", "Windows Media"),
    ("avi", "AVI"),
    ("flv", "Flash Video"),
    ("mpeg", "an MPEG program stream"),
    ("midi", "MIDI, which is notes and not audio"),
    ("amr", "AMR"),
    ("ac3", "AC-3"),
    ("dts", "DTS"),
    ("ape", "Monkey's Audio"),
    ("musepack", "Musepack"),
    ("wavpack", "WavPack"),
    ("tta", "True Audio"),
    ("w64", "Sony Wave64"),
    ("dsf", "DSD"),
    ("realmedia", "RealMedia"),
];

/// Finds the format and opens its decoder. A panic of a decoder is an error of its input.
pub(super) fn open(mut source: Source, choice: &TrackChoice) -> Result<(Label, Box<dyn Decoder>), MediaError> {
    let found = sniff(&source.head()?);
    let name = source.label.name.clone();
    let unknown = || MediaError::UnknownFormat { name: name.clone(), found, expected: EXPECTED };
    // MPEG audio may begin with the rest of a frame, or with padding, where a recording or a stream was cut.
    let format = match found {
        Some(format) => format,
        None if begins_late(&source.read_up_to(0, LEAD_BYTES)?) => "mp3",
        None => return Err(unknown()),
    };
    source.label.format = format;
    source.rewind().map_err(|error| source.label.corrupt(error))?;
    let label = source.label.clone();
    if let Some((_, words)) = NOT_READ.iter().find(|(known, _)| *known == format) {
        return Err(label.unsupported(format!("found {words}")));
    }
    if matches!(format, "wav" | "aiff" | "caf" | "au" | "flac" | "ogg" | "mp3" | "aac") {
        only_track(&name, format, "audio track", choice)?;
    }
    let opened = catch_unwind(AssertUnwindSafe(|| -> Result<Box<dyn Decoder>, MediaError> {
        match format {
            "wav" | "aiff" | "caf" | "au" => pcm::open(source, &label),
            "ogg" => ogg::open(source, &label),
            "mp3" | "aac" => mpeg::open(source, &label),
            "flac" => flac::open(source, 0, &label),
            "mp4" | "m4a" | "mov" | "mkv" => demux::open(source, &label, choice),
            _ => Err(unknown()),
        }
    }));
    let decoder = opened.unwrap_or_else(|_| Err(label.corrupt("the decoder gave up on it")))?;
    Ok((label, decoder))
}
