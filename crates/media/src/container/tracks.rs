//! The choice among the tracks of a container, and what containers share in describing them.

use crate::error::MediaError;
use crate::tracks::{TrackChoice, TrackInfo};

/// The place in the list that is meant; `None` where there is no such track.
///
/// # Source
/// FFmpeg's `av_find_best_stream` and mpv's track selection: the default disposition decides; among equals the first.
pub(crate) fn choose(tracks: &[TrackInfo], choice: &TrackChoice) -> Option<usize> {
    let best = |wanted: &dyn Fn(&TrackInfo) -> bool| {
        let all = tracks.iter().enumerate().filter(|(_, track)| wanted(track));
        // Of equals `min_by_key` gives the first.
        all.min_by_key(|(_, track)| (!track.enabled, !track.default, track.special)).map(|(at, _)| at)
    };
    match choice {
        TrackChoice::Default => best(&|_| true),
        TrackChoice::Index(index) => tracks.iter().position(|track| track.index == *index),
        TrackChoice::Language(language) => {
            best(&|track| track.language.as_ref().is_some_and(|found| found.eq_ignore_ascii_case(language)))
        }
    }
}

/// The place in the list that is meant.
///
/// # Errors
/// [`MediaError::NoSuchTrack`] lists what is there; the list must not be empty for [`TrackChoice::Default`].
pub(crate) fn find(
    name: &str,
    kind: &'static str,
    tracks: &[TrackInfo],
    choice: &TrackChoice,
) -> Result<usize, MediaError> {
    choose(tracks, choice).ok_or_else(|| MediaError::NoSuchTrack {
        name: name.to_owned(),
        kind,
        wanted: choice.clone(),
        found: tracks.to_vec(),
    })
}

/// What a format that holds one track has of it.
pub(crate) fn only_track(
    name: &str,
    format: &'static str,
    kind: &'static str,
    choice: &TrackChoice,
) -> Result<(), MediaError> {
    let only = TrackInfo { codec: format.to_owned(), default: true, enabled: true, ..TrackInfo::default() };
    find(name, kind, &[only], choice).map(drop)
}

/// The three letters of an MP4 media header's language; `None` for undetermined ones and for the codes of old Macintosh.
pub(crate) fn packed_language(code: u16) -> Option<String> {
    if code < 0x400 || code == 0x7fff {
        return None;
    }
    let letters: String = [10, 5, 0].iter().map(|shift| (((code >> shift & 31) as u8) + 0x60) as char).collect();
    (letters != "und" && letters.bytes().all(|letter| letter.is_ascii_lowercase())).then_some(letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(index: u32, default: bool, enabled: bool, special: bool, language: Option<&str>) -> TrackInfo {
        TrackInfo { index, codec: "AAC".to_owned(), language: language.map(str::to_owned), default, enabled, special }
    }

    #[test]
    fn the_default_track_is_the_first_that_is_enabled_default_and_for_everybody() {
        let tracks = [
            track(0, true, false, false, None),
            track(1, false, true, false, Some("eng")),
            track(2, true, true, true, Some("deu")),
            track(3, true, true, false, Some("deu")),
            track(4, true, true, false, Some("fra")),
        ];
        assert_eq!(choose(&tracks, &TrackChoice::Default), Some(3));
        assert_eq!(choose(&tracks[..3], &TrackChoice::Default), Some(2));
        assert_eq!(choose(&tracks[..2], &TrackChoice::Default), Some(1));
        assert_eq!(choose(&tracks[..1], &TrackChoice::Default), Some(0));
        assert_eq!(choose(&[], &TrackChoice::Default), None);
        assert_eq!(choose(&tracks, &TrackChoice::Index(4)), Some(4));
        assert_eq!(choose(&tracks, &TrackChoice::Index(5)), None);
        assert_eq!(choose(&tracks, &TrackChoice::Language("DEU".to_owned())), Some(3));
        assert_eq!(choose(&tracks, &TrackChoice::Language("ita".to_owned())), None);
    }

    #[test]
    fn languages_of_media_headers_are_three_packed_letters() {
        assert_eq!(packed_language(0x15c7).as_deref(), Some("eng"));
        assert_eq!(packed_language(0x55c4), None, "und");
        assert_eq!(packed_language(0), None, "a code of old Macintosh: English");
        assert_eq!(packed_language(0x7fff), None);
    }
}
