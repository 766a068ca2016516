//! Files that are missing, cut, mislabelled, of another kind, or mutated at random.

use omniburn_media::{MediaError, decode_image, decode_image_file};
use proptest::prelude::*;

use crate::support::golden;

/// One small file of each way to be stored.
const SAMPLES: [&str; 18] = [
    "rgba.png",
    "palette-trns-many.png",
    "interlaced.png",
    "rgba-16.png",
    "exif-6.png",
    "420-q90.jpg",
    "420-progressive-q75.jpg",
    "cmyk-q90.jpg",
    "exif-6.jpg",
    "lossless-alpha.webp",
    "lossy.webp",
    "transparent.gif",
    "part-of-screen.gif",
    "rgb.bmp",
    "palette.bmp",
    "rgb-tiff_lzw.tif",
    "rgb-tiff_adobe_deflate.tif",
    "one-bit.tif",
];

fn sample(name: &str) -> Vec<u8> {
    std::fs::read(golden().join("images").join(name)).unwrap()
}

fn refused(bytes: &[u8], name: &str) -> (&'static str, String) {
    let error = decode_image(bytes, name).unwrap_err();
    let message = error.to_string();
    assert!(message.contains(name), "{message} names {name}");
    (error.kind(), message)
}

#[test]
fn a_cut_file_is_corrupt_in_every_format() {
    for name in SAMPLES {
        let bytes = sample(name);
        for share in [0.1, 0.3, 0.5, 0.7, 0.9] {
            let cut = ((bytes.len() as f64 * share) as usize).max(27);
            let (kind, message) = refused(&bytes[..cut], "cut file");
            assert_eq!(kind, "corrupt", "{name} cut at {cut}: {message}");
        }
    }
}

#[test]
fn a_jpeg_without_its_end_is_corrupt_though_all_pixels_may_be_there() {
    let bytes = sample("420-q90.jpg");
    let (kind, message) = refused(&bytes[..bytes.len() - 2], "a.jpg");
    assert_eq!(kind, "corrupt");
    assert!(message.contains("jpeg"), "{message}");
}

/// Found by the target `webp` of omniburn-hostile: the decoder made room for all of it.
#[test]
fn metadata_that_goes_on_behind_the_end_of_a_webp_is_corrupt() {
    let mut bytes = sample("exif-6.webp");
    let at = bytes.windows(4).position(|name| name == b"EXIF").unwrap();
    bytes[at + 4..at + 8].copy_from_slice(&3_278_746_650u32.to_le_bytes());
    let (kind, message) = refused(&bytes, "long.webp");
    assert_eq!(kind, "corrupt");
    assert!(message.contains("behind the end"), "{message}");
}

#[test]
fn nothing_is_empty() {
    assert_eq!(refused(b"", "empty.png").0, "empty");
    // A JPEG with a width of zero.
    let mut jpeg = sample("420-q90.jpg");
    let frame = jpeg.windows(2).position(|marker| marker == b"\xff\xc0").unwrap();
    jpeg[frame + 7..frame + 9].fill(0);
    assert_eq!(refused(&jpeg, "no pixel.jpg").0, "empty");
    // A PNG with a height of zero, which is not legal either.
    let mut png = sample("rgba.png");
    png[20..24].fill(0);
    assert_eq!(refused(&png, "no pixel.png").0, "empty");
}

#[test]
fn images_that_are_not_read_are_named() {
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        ("HEIC", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic".to_vec()),
        ("AVIF", b"\0\0\0\x18ftypavif\0\0\0\0mif1avif".to_vec()),
        ("JXL", b"\0\0\0\x0cJXL \r\n\x87\n\0\0".to_vec()),
        ("SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec()),
        ("PSD", b"8BPS\0\x01\0\0\0\0".to_vec()),
    ];
    for (format, bytes) in cases.drain(..) {
        let (kind, message) = refused(&bytes, "holiday");
        assert_eq!(kind, "unsupported_codec", "{format}");
        assert!(message.contains(format), "{message}");
    }
}

#[test]
fn variants_that_are_not_read_are_refused_by_name() {
    let (kind, message) = refused(&sample("float.tif"), "float.tif");
    assert_eq!(kind, "unsupported_codec", "{message}");
    assert!(message.contains("32-bit float"), "{message}");
}

#[test]
fn what_is_no_image_is_named() {
    let cases: [(&[u8], &str); 6] = [
        (b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0", "wav"),
        (b"\0\0\0\x18ftypisom\0\0\x02\0isommp42", "mp4"),
        (b"%PDF-1.7\n%\xe2\xe3", "pdf"),
        (b"just a note", "text"),
        (b"PK\x03\x04\x14\0", "zip"),
        (b"\x01\x02\x03\x04", "no known format"),
    ];
    for (bytes, word) in cases {
        let (kind, message) = refused(bytes, "thing.png");
        assert_eq!(kind, "unknown_format", "{message}");
        assert!(message.contains(word), "{message}");
        assert!(message.contains("expected an image"), "{message}");
    }
}

#[test]
fn a_missing_file_and_a_folder_are_told_apart() {
    let missing = decode_image_file(&golden().join("images/none.png")).unwrap_err();
    assert_eq!(missing.kind(), "not_found");
    assert!(missing.to_string().contains("none.png"));
    let through_a_file = decode_image_file(&golden().join("images/rgba.png/x.png")).unwrap_err();
    assert_eq!(through_a_file.kind(), "not_found");
    let folder = decode_image_file(&golden().join("images")).unwrap_err();
    assert_eq!(folder.kind(), "not_a_file");
    assert!(folder.to_string().contains("folder"), "{folder}");
    #[cfg(unix)]
    {
        let device = decode_image_file(std::path::Path::new("/dev/null")).unwrap_err();
        assert_eq!(device.kind(), "not_a_file");
    }
}

/// Changes some bytes and perhaps the length. The first four stay, so that the decoder of the format is reached.
fn mutated(bytes: &[u8], edits: &[(prop::sample::Index, u8)], cut: prop::sample::Index) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for (at, value) in edits {
        let at = 4 + at.index(out.len() - 4);
        out[at] = *value;
    }
    // One mutation in four is cut as well.
    let cut = cut.index(bytes.len() * 4);
    if cut < out.len() {
        out.truncate(cut.max(4));
    }
    out
}

/// `kind` is one of the words an image can fail with.
fn has_a_kind_of_images(error: &MediaError) -> bool {
    matches!(error.kind(), "unknown_format" | "unsupported_codec" | "corrupt" | "too_large" | "empty")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_mutated_file_makes_a_panic(
        which in 0..SAMPLES.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = mutated(&sample(SAMPLES[which]), &edits, cut);
        match decode_image(&bytes, "mutated") {
            Ok(image) => prop_assert_eq!(
                image.pixels().len() as u64,
                u64::from(image.width().0) * u64::from(image.height().0) * 3
            ),
            Err(error) => prop_assert!(has_a_kind_of_images(&error), "{}: {}", error.kind(), error),
        }
    }

    #[test]
    fn no_arbitrary_bytes_make_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), which in 0..SAMPLES.len()) {
        // Arbitrary bytes alone, and behind the head of a real file.
        let head = &sample(SAMPLES[which])[..40];
        for bytes in [bytes.clone(), [head, bytes.as_slice()].concat()] {
            if let Err(error) = decode_image(&bytes, "arbitrary") {
                prop_assert!(has_a_kind_of_images(&error), "{}: {}", error.kind(), error);
            }
        }
    }
}
