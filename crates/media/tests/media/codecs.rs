//! Films in codecs that an FFmpeg program or the feature `av1` decodes. Goldens: `tests/golden/make/codecs.py`.

use std::path::PathBuf;
use std::sync::Arc;

use omniburn_media::{Film, FilmOptions, FilmSource, TrackChoice};

use crate::support::{golden, json};

/// Name, codec, starts, sides as shown.
fn stored() -> Vec<(String, String, Vec<f64>, [u32; 2])> {
    let listing = json(&golden().join("codecs.json"));
    let films = listing.as_object().unwrap().iter().map(|(name, film)| {
        let starts = film["starts_s"].as_array().unwrap().iter().map(|start| start.as_f64().unwrap()).collect();
        let sides = ["width", "height"].map(|side| film[side].as_u64().unwrap() as u32);
        (name.clone(), film["codec"].as_str().unwrap().to_owned(), starts, sides)
    });
    films.collect()
}

fn path(name: &str) -> PathBuf {
    golden().join("codecs").join(name)
}

#[test]
fn the_default_program_is_called_ffmpeg() {
    assert_eq!(FilmOptions::default().ffmpeg, Some(PathBuf::from("ffmpeg")));
}

#[test]
fn codecs_that_nothing_here_decodes_are_refused_by_name() {
    let missing = FilmOptions { ffmpeg: Some(PathBuf::from("/no/such/program")), track: TrackChoice::Default };
    let mut refused = 0;
    for (name, codec, ..) in stored() {
        if cfg!(feature = "av1") && codec == "AV1" {
            continue;
        }
        let file = FilmSource::File(path(&name));
        let bytes = FilmSource::Bytes(Arc::from(std::fs::read(path(&name)).unwrap()), "a film".to_owned());
        for (source, options) in
            [(&file, &FilmOptions { ffmpeg: None, track: TrackChoice::Default }), (&file, &missing), (&bytes, &missing)]
        {
            let error = Film::open(source, options).unwrap_err();
            assert_eq!(error.kind(), "unsupported_codec", "{name}: {error}");
            assert!(error.to_string().contains(&codec), "{name}: {error}");
            refused += 1;
        }
    }
    println!("{refused} refused");
    assert!(refused >= 15);
}

#[test]
#[cfg(feature = "av1")]
fn av1_films_show_a_picture_for_each_start() {
    let options = FilmOptions { ffmpeg: None, track: TrackChoice::Default };
    for (name, _, starts, sides) in stored().into_iter().filter(|film| film.1 == "AV1") {
        let mut film = Film::open(&FilmSource::File(path(&name)), &options).unwrap();
        let times: Vec<f64> = starts.iter().map(|start| start + 0.01).collect();
        let mut seen = Vec::new();
        film.frames_at(&times, &mut |_, frame| {
            assert_eq!([frame.width().0, frame.height().0], sides, "{name}");
            seen.push(frame.clone());
            Ok(())
        })
        .unwrap();
        assert_eq!(seen.len(), starts.len());
        // The scene moves from picture to picture.
        assert!(seen.windows(2).all(|two| two[0] != two[1]), "{name}");
    }
}

/// Through containers, times and turns of our own and the pictures of FFmpeg.
#[test]
fn films_are_shown_by_a_real_program() {
    let Some(program) = std::env::var_os("OMNIBURN_TEST_FFMPEG").map(PathBuf::from) else {
        println!("not run: OMNIBURN_TEST_FFMPEG names no FFmpeg program");
        return;
    };
    // What `av1` decodes is compared plane by plane where it lives.
    for (name, _, starts, sides) in stored().into_iter().filter(|film| !cfg!(feature = "av1") || film.1 != "AV1") {
        let options = FilmOptions { ffmpeg: Some(program.clone()), track: TrackChoice::Default };
        let mut film = Film::open(&FilmSource::File(path(&name)), &options).unwrap();
        // Each picture alone, in the middle of its time, against all of them in one decode.
        let whole = std::process::Command::new(&program)
            .args(["-nostdin", "-v", "error", "-i"])
            .arg(path(&name))
            .args(["-fps_mode", "passthrough", "-vf"])
            .arg("scale=flags=bilinear+accurate_rnd+full_chroma_int+bitexact,format=rgb24")
            .args(["-f", "rawvideo", "pipe:1"])
            .output()
            .unwrap();
        let bytes = (sides[0] * sides[1] * 3) as usize;
        assert_eq!(whole.stdout.len(), bytes * starts.len(), "{name}");
        let times: Vec<f64> = starts.iter().map(|start| start + 0.01).collect();
        film.frames_at(&times, &mut |place, frame| {
            assert!(frame.pixels() == &whole.stdout[place * bytes..][..bytes], "{name}: picture {place}");
            Ok(())
        })
        .unwrap();
        println!("{name}: {} pictures equal", starts.len());
    }
}
