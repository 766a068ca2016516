//! Audio files into mono samples at the model's rate, a segment at a time, and those into log-mel frames.
//!
//! What lives here: the source of an audio file, how it is cut into segments, and the reader that gives them. Containers and
//! codecs are in the files beside this one: [`pcm`] for files of plain samples, [`ogg`] for Ogg, [`mpeg`] for bare MPEG
//! audio, [`demux`] for what symphonia takes apart. What does not: prompts, batches, and the images of a video.
//!
//! # Formats
//! WAV (also RF64, RIFX and streamed), AIFF, AIFF-C, CAF and AU; FLAC; MP3, MP2 and MP1; Ogg with Vorbis, Opus or FLAC; AAC-LC
//! in ADTS; and the default audio track, or the one asked for, of MP4, M4A, MOV, Matroska and WebM, with AAC-LC, ALAC, MP3,
//! FLAC, Vorbis, Opus or PCM. The content decides, not the ending of the name.
//!
//! # Where this is less than FFmpeg
//! - AAC is read as AAC-LC of one or two channels. HE-AAC that its container announces is refused by name. Where only the
//!   frames tell of it (implicit signalling, the rule in ADTS) the core is decoded, which has half the rate and lacks the
//!   upper half of the frequencies: at 48 kHz, what lies above 12 kHz at the latest, and less at low bit rates.
//! - Padding at the end of Matroska tracks stays, up to one packet; delay at the start is cut off.
//! - A silent edit that delays the audio track of an MP4 is not made audible.

mod decoder;
mod demux;
mod flac;
mod matroska;
pub(crate) mod mel;
mod mp4;
mod mpeg;
mod ogg;
mod open;
mod opus;
mod packets;
mod pcm;
mod quicktime;
mod reader;
mod resample;
mod samples;
mod tags;
mod vorbis;

pub use self::mel::{
    HertzRange, LogMel, MelPreprocess, MelScale, decibel_mel, log_mel, log_mel_mirrored, log_mel_of_least,
};
pub use self::reader::{AudioReader, AudioSegment, AudioSource, SEGMENT_SECONDS, audio_estimate, audio_track_estimate};
pub use self::tags::{MediaTag, media_tags};
