//! TIFF in all its layouts against Pillow 13. Inputs and expected bytes: `tests/golden/make/tiffs.py`.

use omniburn_media::{ImageSource, ImageTarget, decode_image, image_estimate};
use safetensors::SafeTensors;

use crate::support::{assert_same, difference, golden, stored_image};

/// Every file of the folder, with its name.
fn files() -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<(String, Vec<u8>)> = std::fs::read_dir(golden().join("tiffs"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap())
        })
        .collect();
    found.sort();
    found
}

/// Largest and mean difference where the decoder rounds in its own way, as for JPEG files; L*a*b* goes through a cube of
/// colours whose corners Pillow's library rounds otherwise.
fn bound(name: &str) -> Option<(u8, f64)> {
    match name {
        "lab.tif" => Some((1, 0.05)),
        "jpeg-tiles.tif" | "jpeg-strips.tif" | "jpeg-ycbcr.tif" => Some((5, 0.6)),
        name if name.starts_with("jpeg") => Some((3, 0.05)),
        _ => None,
    }
}

#[test]
fn every_layout_decodes_as_pillow_does() {
    let bytes = std::fs::read(golden().join("tiffs.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let files = files();
    for (name, bytes) in &files {
        let got = decode_image(bytes, name).unwrap_or_else(|error| panic!("{error}"));
        let want = stored_image(&tensors, name);
        match bound(name) {
            None => assert_same(name, &got, &want),
            Some((max, mean)) => {
                let apart = difference(name, &got, &want);
                assert!(apart.max <= max && apart.mean <= mean, "{name}: {apart:?}");
            }
        }
    }
    // A golden folder that lost its files must not pass.
    assert_eq!(files.len(), 125);
}

#[test]
fn the_header_of_every_layout_says_what_it_takes() {
    for (name, bytes) in files() {
        let estimate = image_estimate(ImageSource::Bytes(&bytes), &ImageTarget::Square(32)).unwrap();
        let image = decode_image(&bytes, &name).unwrap();
        assert!(estimate.peak >= image.pixels().len() as u64, "{name}: {estimate:?}");
        assert!(estimate.peak < 64 << 20, "{name}: {estimate:?}");
    }
}

#[test]
fn a_file_that_is_cut_is_corrupt_or_whole() {
    for (name, bytes) in files() {
        let whole = decode_image(&bytes, &name).unwrap();
        for part in 1..16 {
            let cut = (bytes.len() * part / 16).max(5);
            match decode_image(&bytes[..cut], "cut.tif") {
                // The directory stands before the strips in some files, and trailing bytes may be of no use.
                Ok(image) => assert_same(&name, &image, &whole),
                Err(error) => assert_eq!(error.kind(), "corrupt", "{name} cut at {cut}: {error}"),
            }
        }
    }
}

/// Bytes are changed at random places; whatever they say then, an image comes out or an error that is one of bad bytes, and
/// no decoder of ours gives up by a panic.
#[test]
fn changed_bytes_never_end_in_a_panic() {
    let mut random = fastrand::Rng::with_seed(38);
    let known = ["unsupported_codec", "corrupt", "too_large", "empty", "unknown_format"];
    for (name, bytes) in files() {
        for _ in 0..60 {
            let mut changed = bytes.clone();
            for _ in 0..random.usize(1..5) {
                // Directories lie at the end of these files, and are where most of the meaning is.
                let from = if random.bool() { 0 } else { changed.len().saturating_sub(220) };
                let at = random.usize(from..changed.len());
                changed[at] = random.u8(..);
            }
            // Sides that are legal and large are tried elsewhere: 178 million pixels take their time.
            if changed[..4] == bytes[..4] && large(&changed) {
                continue;
            }
            if let Err(error) = decode_image(&changed, "changed") {
                assert!(known.contains(&error.kind()), "{name}: {error}");
                let gave_up = error.to_string().contains("gave up");
                assert!(!gave_up || name.starts_with("jpeg") || name.contains("webp"), "{name}: {error}");
            }
        }
    }
}

/// Whether the header says more than four million pixels.
fn large(bytes: &[u8]) -> bool {
    image_estimate(ImageSource::Bytes(bytes), &ImageTarget::Square(32)).is_ok_and(|estimate| estimate.peak > 24 << 20)
}

/// A file of one strip of 8 x 8 pixels of three bytes, with these tags beside or instead of the usual ones.
fn made(changes: &[(u16, &[u16])]) -> Vec<u8> {
    let usual: [(u16, &[u16]); 9] = [
        (256, &[8]),
        (257, &[8]),
        (258, &[8, 8, 8]),
        (259, &[1]),
        (262, &[2]),
        (273, &[8]),
        (277, &[3]),
        (278, &[8]),
        (279, &[192]),
    ];
    let mut tags: std::collections::BTreeMap<u16, &[u16]> = usual.into_iter().collect();
    tags.extend(changes.iter().copied().filter(|(_, values)| !values.is_empty()));
    for (tag, _) in changes.iter().filter(|(_, values)| values.is_empty()) {
        tags.remove(tag);
    }
    let mut file = b"II*\0\0\0\0\0".to_vec();
    file.extend([0x55; 192]);
    let directory = file.len() as u32;
    file[4..8].copy_from_slice(&directory.to_le_bytes());
    file.extend((tags.len() as u16).to_le_bytes());
    let mut more = Vec::new();
    let behind = file.len() + 12 * tags.len() + 4;
    for (tag, values) in tags {
        file.extend([tag, 3].into_iter().flat_map(u16::to_le_bytes));
        file.extend((values.len() as u32).to_le_bytes());
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        if bytes.len() <= 4 {
            file.extend(&bytes);
            file.resize(file.len() + 4 - bytes.len(), 0);
        } else {
            file.extend(((behind + more.len()) as u32).to_le_bytes());
            more.extend(bytes);
        }
    }
    file.extend([0; 4]);
    file.extend(more);
    file
}

#[test]
fn what_is_not_read_is_refused_by_name() {
    assert!(decode_image(&made(&[]), "usual").is_ok());
    type Tags = Vec<(u16, Vec<u16>)>;
    let mut cases: Vec<(Tags, String)> = Vec::new();
    for (packing, words) in [
        (6, "old-style"),
        (32766, "NeXT"),
        (32809, "ThunderScan"),
        (33003, "JPEG 2000"),
        (34661, "JBIG"),
        (34676, "LogLuv"),
        (34712, "JPEG 2000"),
        (34887, "LERC"),
        (50002, "JPEG XL"),
        (12345, "unknown"),
    ] {
        cases.push((vec![(259, vec![packing])], format!("compression {packing} (")));
        cases.push((vec![(259, vec![packing])], words.to_owned()));
    }
    for (photometric, words) in [
        (4, "transparency mask"),
        (9, "ICC L*a*b*"),
        (32803, "colour filter array"),
        (32845, "LogLuv"),
        (34892, "linear raw"),
    ] {
        let tags = vec![(262, vec![photometric]), (258, vec![8]), (277, vec![1])];
        cases.push((tags, format!("photometric interpretation {photometric} ({words}")));
    }
    for ((format, bits), words) in [
        ((3, 16), "16-bit float"),
        ((3, 32), "32-bit float"),
        ((3, 64), "64-bit float"),
        ((2, 16), "signed whole numbers of 16 bits"),
        ((2, 32), "signed whole numbers of 32 bits"),
        ((1, 32), "unsigned whole numbers of 32 bits"),
        ((6, 64), "complex"),
        ((4, 8), "format 4"),
    ] {
        let tags = vec![(339, vec![format; 3]), (258, vec![bits; 3])];
        cases.push((tags, words.to_owned()));
    }
    cases.push((vec![(258, vec![5, 6, 5])], "[5, 6, 5] bits".to_owned()));
    cases.push((vec![(339, vec![1, 1, 3])], "different formats".to_owned()));
    cases.push((vec![(262, vec![3]), (258, vec![16]), (277, vec![1])], "palette of 16 bits".to_owned()));
    cases.push((vec![(262, vec![5]), (258, vec![8; 4]), (277, vec![4]), (332, vec![2])], "inks of set 2".to_owned()));
    cases.push((vec![(259, vec![5]), (317, vec![3])], "predictor 3".to_owned()));
    cases.push((vec![(262, vec![1]), (258, vec![8; 2]), (277, vec![2])], "without ExtraSamples".to_owned()));
    cases.push((vec![(262, vec![1]), (338, vec![0, 0])], "expected one, and one that may be alpha".to_owned()));
    cases.push((vec![(254, vec![1]), (50706, vec![1, 4])], "DNG".to_owned()));
    cases.push((vec![(259, vec![4])], "CCITT rows of 3 samples".to_owned()));
    for (tags, words) in cases {
        let tags: Vec<(u16, &[u16])> = tags.iter().map(|(tag, values)| (*tag, values.as_slice())).collect();
        let error = decode_image(&made(&tags), "a.tif").expect_err(&words);
        assert_eq!(error.kind(), "unsupported_codec", "{error}");
        assert!(error.to_string().contains(&words) && error.to_string().contains("a.tif"), "{words}: {error}");
    }
}

/// Values of tags that are other than usual; none: the tag is left out.
type Changes = &'static [(u16, &'static [u16])];

#[test]
fn what_breaks_the_rules_is_corrupt() {
    let cases: [(Changes, &str); 9] = [
        (&[(256, &[])], "sides"),
        (&[(278, &[0])], "no pixels"),
        (&[(273, &[])], "0 strips or tiles are there, expected 1"),
        (&[(273, &[9_000])], "behind the end"),
        (&[(284, &[3])], "planar configuration is 3"),
        (&[(266, &[3])], "fill order is 3"),
        (&[(262, &[3]), (258, &[8]), (277, &[1])], "palette has 0 values"),
        (&[(277, &[2])], "2 samples a pixel are there, expected 3"),
        (&[(259, &[8])], "deflate"),
    ];
    for (tags, words) in cases {
        let error = decode_image(&made(tags), "a.tif").expect_err(words);
        assert_eq!(error.kind(), "corrupt", "{error}");
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
    // Tiles that are far larger than the image would take memory that it does not need.
    let tags: &[(u16, &[u16])] =
        &[(322, &[60_000]), (323, &[60_000]), (324, &[8]), (325, &[192]), (273, &[]), (259, &[8])];
    assert_eq!(decode_image(&made(tags), "a.tif").unwrap_err().kind(), "corrupt");
    let tags: &[(u16, &[u16])] = &[(322, &[60_000]), (323, &[8]), (324, &[8]), (325, &[192]), (273, &[]), (259, &[8])];
    assert_eq!(decode_image(&made(tags), "a.tif").unwrap_err().kind(), "corrupt");
}
