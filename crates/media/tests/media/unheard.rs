//! Audio files that are refused, cut, mislabelled, or mutated.

use std::time::{Duration, Instant};

use omniburn_media::{AudioSource, MediaError};

use crate::audio::{bytes, decoded, file};
use crate::support::golden;

fn refused(name: &str, content: &[u8]) -> (&'static str, String) {
    match decoded(&bytes(name, content), 16_000) {
        Ok(samples) => panic!("{name} gave {} samples", samples.len()),
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains(name), "{message} names {name}");
            (error.kind(), message)
        }
    }
}

/// A WAV with any numbers in its header.
fn wav(tag: u16, channels: u16, rate: u32, bits: u16, stated: u32, data: &[u8]) -> Vec<u8> {
    let block = (u32::from(channels) * u32::from(bits) / 8) as u16;
    let mut out = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0".to_vec();
    out.extend(tag.to_le_bytes());
    out.extend(channels.to_le_bytes());
    out.extend(rate.to_le_bytes());
    out.extend(rate.wrapping_mul(u32::from(block)).to_le_bytes());
    out.extend(block.to_le_bytes());
    out.extend(bits.to_le_bytes());
    out.extend(b"data");
    out.extend(stated.to_le_bytes());
    out.extend(data);
    out
}

#[test]
fn codecs_that_are_not_read_are_named() {
    for (name, word) in [
        ("ac3.mkv", "AC-3"),
        ("ac3.mp4", "AC-3"),
        ("eac3.mp4", "E-AC-3"),
        ("dts.mkv", "DTS"),
        ("raw.ac3", "AC-3"),
        ("raw.dts", "DTS"),
        ("wma.wma", "Windows Media"),
        ("wavpack.wv", "WavPack"),
        ("true.tta", "True Audio"),
    ] {
        let (kind, message) = refused(name, &file(name));
        assert_eq!(kind, "unsupported_codec", "{message}");
        assert!(message.contains(word), "{message}");
    }
    for (content, word) in [
        (b"MThd\0\0\0\x06\0\0".as_slice(), "MIDI"),
        (b"#!AMR\n\x3c\x91", "AMR"),
        (b"MAC \x96\x0f\0\0", "Monkey's Audio"),
        (b"MPCKSH\0\0", "Musepack"),
        (b"RIFF\0\0\0\0AVI LIST", "AVI"),
    ] {
        let (kind, message) = refused("an audio file", content);
        assert_eq!(kind, "unsupported_codec", "{message}");
        assert!(message.contains(word), "{message}");
    }
    for (tag, word) in [(0x55, "MP3 in a WAV"), (0x161, "Windows Media Audio 2"), (0x2001, "DTS"), (0x1234, "0x1234")] {
        let (kind, message) = refused("a.wav", &wav(tag, 2, 44_100, 16, 400, &[0; 400]));
        assert_eq!(kind, "unsupported_codec", "{message}");
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn an_encrypted_track_is_named() {
    let mut content = file("stereo.m4a");
    let at = content.windows(4).rposition(|four| four == b"mp4a").unwrap();
    content[at..at + 4].copy_from_slice(b"enca");
    let (kind, message) = refused("secret.m4a", &content);
    assert_eq!(kind, "unsupported_codec", "{message}");
    assert!(message.contains("encrypted"), "{message}");
}

#[test]
fn speex_in_ogg_is_named() {
    let mut page = b"OggS\0\x02".to_vec();
    page.extend([0; 8]);
    page.extend([7, 0, 0, 0, 0, 0, 0, 0]);
    page.extend([0; 4]);
    page.extend([1, 80]);
    page.extend(b"Speex   ");
    page.extend([0; 72]);
    let mut second = page.clone();
    second[5] = 4;
    second[18] = 1;
    for page in [&mut page, &mut second] {
        let sum = page.iter().fold(0u32, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte) << 24, |s, _| (s << 1) ^ if s >> 31 == 1 { 0x04c1_1db7 } else { 0 })
        });
        page[22..26].copy_from_slice(&sum.to_le_bytes());
    }
    let (kind, message) = refused("a.spx", &[page, second].concat());
    assert_eq!(kind, "unsupported_codec", "{message}");
    assert!(message.contains("Speex"), "{message}");
}

#[test]
fn what_is_no_audio_is_named() {
    for (content, word) in [
        (b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".as_slice(), "png"),
        (b"%PDF-1.7\n%\xe2\xe3", "pdf"),
        (b"just a note", "text"),
        (b"\x01\x02\x03\x04", "no known format"),
    ] {
        let (kind, message) = refused("thing.wav", content);
        assert_eq!(kind, "unknown_format", "{message}");
        assert!(message.contains(word), "{message}");
        assert!(message.contains("expected audio (WAV, FLAC, MP3, OGG, Opus, M4A, AAC, AIFF, CAF or AU)"), "{message}");
    }
    assert_eq!(refused("empty.wav", b"").0, "empty");
    let missing = decoded(&AudioSource::file(golden().join("audio/files/none.wav")), 16_000).unwrap_err();
    assert_eq!(missing.kind(), "not_found");
    let folder = decoded(&AudioSource::file(golden().join("audio/files")), 16_000).unwrap_err();
    assert_eq!(folder.kind(), "not_a_file");
}

#[test]
fn a_video_without_audio_has_no_track() {
    for name in ["silent.mp4", "silent.mkv"] {
        let (kind, message) = refused(name, &file(name));
        assert_eq!(kind, "empty", "{message}");
        assert!(message.contains("expected an audio track"), "{message}");
    }
}

#[test]
fn headers_that_lie_are_refused_before_anything_is_made_room_for() {
    let began = Instant::now();
    let cases = [
        // Ten thousand channels.
        (wav(1, 10_000, 44_100, 16, 400, &[0; 400]), "too_large", "found 10000 audio channels, expected at most 64"),
        (wav(1, 65, 44_100, 16, 400, &[0; 400]), "too_large", "65"),
        (wav(1, 0, 44_100, 16, 400, &[0; 400]), "corrupt", "no channels"),
        (wav(1, 2, 0, 16, 400, &[0; 400]), "corrupt", "sample rate is zero"),
        (wav(1, 2, 999, 16, 400, &[0; 400]), "unsupported_codec", "999 Hz"),
        (wav(1, 2, 768_001, 16, 400, &[0; 400]), "unsupported_codec", "768001 Hz"),
        // Hours of audio in 400 bytes.
        (wav(1, 2, 44_100, 16, 0xf000_0000, &[0; 400]), "corrupt", "found 400 bytes of audio, expected 4026531840"),
        (wav(1, 2, 44_100, 16, 402, &[0; 400]), "corrupt", "found 400 bytes"),
        (wav(3, 2, 44_100, 16, 400, &[0; 400]), "unsupported_codec", "float samples of 16 bits"),
        (wav(1, 1, 16_000, 16, 0, &[]), "empty", "audio sample"),
    ];
    for (content, kind, words) in cases {
        let (found, message) = refused("liar.wav", &content);
        assert_eq!(found, kind, "{message}");
        assert!(message.contains(words), "{message}");
    }
    let mut flac = file("mono.flac");
    // The number of samples in the header of FLAC: 36 bits.
    flac[8 + 13] |= 0x0f;
    let (kind, message) = refused("long.flac", &flac);
    assert_eq!(kind, "corrupt", "{message}");
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn float_samples_beyond_full_scale_are_kept_and_those_that_are_no_numbers_are_not() {
    let values = |bad: f32| -> Vec<u8> {
        (0..4_000).flat_map(|i| if i == 2_000 { bad } else { 1.5f32 }.to_le_bytes()).collect()
    };
    let loud = decoded(&bytes("loud.wav", &wav(3, 1, 16_000, 32, 16_000, &values(-3.0))), 16_000).unwrap();
    assert_eq!((loud[0], loud[2_000]), (1.5, -3.0));
    for bad in [f32::NAN, f32::INFINITY] {
        let (kind, message) = refused("bad.wav", &wav(3, 1, 16_000, 32, 16_000, &values(bad)));
        assert_eq!(kind, "not_finite", "{message}");
        assert!(message.contains("0.125 s"), "{message}");
    }
}

#[test]
fn an_audio_that_is_cut_is_corrupt_where_its_length_is_known() {
    for name in [
        "s16.wav",
        "f64.wav",
        "rf64.wav",
        "rifx.wav",
        "ima.wav",
        "s16.aiff",
        "f32.aifc",
        "s16.caf",
        "alac.caf",
        "alac.m4a",
        "stereo.m4a",
        "film.mp4",
        "film.mov",
        "stereo.flac",
        "mono.flac",
        "stereo.mp3",
        "stereo.ogg",
        "mono.opus",
        "flac.ogg",
        "vorbis.webm",
        "opus.webm",
        "film.mkv",
        "aac.mkv",
    ] {
        let whole = file(name);
        for share in [0.2, 0.5, 0.8, 0.97] {
            let cut = ((whole.len() as f64 * share) as usize).max(60);
            let (kind, message) = refused(name, &whole[..cut]);
            assert_eq!(kind, "corrupt", "{name} cut at {cut}: {message}");
        }
    }
}

#[test]
fn tags_and_padding_around_mp3_are_no_damage() {
    let plain = file("mono-cbr.mp3");
    let want = decoded(&bytes("a.mp3", &plain), 16_000).unwrap();
    let mut old_tag = b"TAG".to_vec();
    old_tag.resize(128, b'x');
    let mut new_tag = b"ID3\x04\0\0\0\0\x02\0".to_vec();
    new_tag.resize(10 + 256, 0xff);
    let ape: Vec<u8> =
        [b"APETAGEX\xd0\x07\0\0\x20\0\0\0\0\0\0\0\0\0\0\x80\0\0\0\0\0\0\0\0".as_slice(), &[0; 0]].concat();
    for (name, before, after) in [
        ("id3v1", &[][..], old_tag.as_slice()),
        ("id3v2", &new_tag, &[]),
        ("both", &new_tag, &old_tag),
        ("zeros", &[], &[0; 5000]),
        ("ape", &[], &ape),
        ("letters", &[], b"LYRICSBEGIN and so on"),
    ] {
        let got = decoded(&bytes(name, &[before, &plain, after].concat()), 16_000);
        assert!(got.unwrap_or_else(|error| panic!("{name}: {error}")) == want, "{name}");
    }
    // Bytes in the middle are damage.
    let middle = plain.len() / 2;
    let (kind, message) = refused("holed.mp3", &[&plain[..middle], &[0; 300], &plain[middle..]].concat());
    assert_eq!(kind, "corrupt", "{message}");
}

#[test]
fn flac_behind_a_tag_of_mp3_is_read() {
    let flac = file("mono.flac");
    let mut tagged = b"ID3\x04\0\0\0\0\x02\0".to_vec();
    tagged.resize(10 + 256, 0);
    tagged.extend(&flac);
    let want = decoded(&bytes("plain.flac", &flac), 16_000).unwrap();
    assert!(decoded(&bytes("tagged.flac", &tagged), 16_000).unwrap() == want);
}

#[test]
fn joined_ogg_files_are_read_as_one() {
    for name in ["stereo.ogg", "mono.opus", "flac.ogg"] {
        let one = file(name);
        let want = decoded(&bytes(name, &one), 44_100).unwrap().len();
        let two = decoded(&bytes(name, &[one.clone(), one.clone()].concat()), 44_100).unwrap();
        assert!(two.len().abs_diff(2 * want) <= 1, "{name}: {} for twice {want}", two.len());
    }
    // The rates, channels and codecs may differ; each part is resampled on its own.
    let mixed = bytes("mixed.ogg", &[file("stereo.ogg"), file("mono.opus")].concat());
    let parts = ["stereo.ogg", "mono.opus"].map(|name| decoded(&bytes(name, &file(name)), 16_000).unwrap());
    assert!(decoded(&mixed, 16_000).unwrap() == parts.concat());
}

#[test]
fn a_flipped_bit_in_flac_and_ogg_is_found() {
    for name in ["mono.flac", "stereo.ogg", "mono.opus", "flac.ogg"] {
        let mut content = file(name);
        let at = content.len() * 2 / 3;
        content[at] ^= 0x10;
        let (kind, message) = refused(name, &content);
        assert_eq!(kind, "corrupt", "{name}: {message}");
    }
}

/// One file of each container and codec.
const SAMPLES: [&str; 28] = [
    "s16.wav",
    "f32.wav",
    "rf64.wav",
    "extensible.wav",
    "ima.wav",
    "ms.wav",
    "s24.aiff",
    "alaw.aifc",
    "s16.caf",
    "alac.caf",
    "alac.m4a",
    "mono.flac",
    "flac.ogg",
    "flac.mkv",
    "flac.mp4",
    "pcm.mov",
    "stereo.mp3",
    "mono-cbr.mp3",
    "layer2.mp2",
    "stereo.ogg",
    "mono.opus",
    "opus.webm",
    "opus.mp4",
    "stereo.m4a",
    "fragmented.mp4",
    "mono.aac",
    "film.mov",
    "film.webm",
];

/// A word of the fixed list that an audio file can fail with.
fn is_expected(error: &MediaError) -> bool {
    let kinds = ["unknown_format", "unsupported_codec", "corrupt", "too_large", "not_finite", "empty"];
    kinds.contains(&error.kind())
}

/// Decodes and watches the clock; the panics of the decoders are caught inside.
fn try_it(name: &str, content: &[u8], longest: &mut Duration) {
    let began = Instant::now();
    // Most of the files have this rate, so resampling takes no time.
    match decoded(&bytes(name, content), 44_100) {
        Ok(samples) => assert!(samples.len() < 44_100 * 60, "{name}: {} samples", samples.len()),
        Err(error) => assert!(is_expected(&error), "{name}: {}: {error}", error.kind()),
    }
    *longest = (*longest).max(began.elapsed());
}

#[test]
fn no_cut_or_mutated_file_makes_a_panic_or_takes_long() {
    let mut state = 12_345u32;
    let mut random = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    let mut longest = Duration::ZERO;
    for name in SAMPLES {
        let whole = file(name);
        for step in 0..40 {
            try_it(name, &whole[..whole.len() * step / 40], &mut longest);
        }
        for _ in 0..300 {
            let mut content = whole.clone();
            for _ in 0..1 + random(6) {
                // Every other change is in the headers.
                let reach = if random(2) == 0 { 600.min(content.len()) } else { content.len() };
                let at = 4 + random(reach - 4);
                content[at] = random(256) as u8;
            }
            try_it(name, &content, &mut longest);
        }
    }
    println!("{} files took {longest:?} at most", SAMPLES.len() * 340);
    assert!(longest < Duration::from_secs(20), "{longest:?}");
}

/// Found by the step `fuzz`: four kilobytes that kept a reader busy for 2.7 s.
#[test]
fn a_fragment_that_claims_more_packets_than_the_file_has_bytes_is_refused_at_once() {
    let mut content = file("fragmented.mp4");
    let at = content.windows(4).position(|name| name == b"trun").unwrap();
    content[at + 4..at + 12].copy_from_slice(&[0, 0, 0, 0, 0xac, 0x44, 0, 0]);
    let begun = Instant::now();
    let (kind, message) = refused("claims.mp4", &content);
    assert_eq!(kind, "corrupt");
    assert!(message.contains("claims 2890137600 packets"), "{message}");
    assert!(begun.elapsed() < Duration::from_secs(1));
}
