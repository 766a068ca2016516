//! JPEG in the forms that the fast decoder does not read. Inputs and expected bytes: `tests/golden/make/jpegs.py`.

use omniburn_media::decode_image;
use safetensors::SafeTensors;

use crate::support::{difference, golden, json, plain_png};

/// Files that the fast decoder reads, whose rounding is its own: within the bounds of `images.rs`. All others are equal
/// to the bit.
const FAST: [&str; 35] = [
    "11-11-11-one-scan",
    "12-11-11-one-scan",
    "21-11-11-one-scan",
    "22-11-11-one-scan",
    "420-restarts",
    "444-standard-tables-fine",
    "bytes-behind-the-end",
    "cropped-12",
    "cropped-21",
    "cropped-22",
    "fine-cut-2",
    "fine-cut-40",
    "fine-cut-70",
    "fine-cut-95",
    "grey-11",
    "grey-cut-2",
    "grey-cut-40",
    "grey-cut-70",
    "grey-cut-95",
    "names-0-1-2",
    "one-scan-cut-2",
    "one-scan-cut-40",
    "one-scan-cut-70",
    "one-scan-cut-95",
    "restarts-cut-2",
    "restarts-cut-40",
    "restarts-cut-70",
    "restarts-cut-95",
    "second-image-behind",
    "thumbnail-inside",
    "wide-cut-2",
    "wide-cut-40",
    "wide-cut-70",
    "wide-cut-95",
    "ycc-by-adobe",
];

#[test]
fn every_order_of_scans_and_every_sampling_decodes_as_pillow_does() {
    let bytes = std::fs::read(golden().join("jpegs.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let list = json(&golden().join("jpegs.json"));
    let (mut equal, mut close, mut refused, mut wrong) = (0, 0, 0, Vec::new());
    for (name, word) in list.as_object().unwrap() {
        let file = tensors.tensor(&format!("file/{name}")).unwrap();
        let got = decode_image(file.data(), "file.jpg");
        if let Some(word) = word.as_str() {
            let Err(error) = got else {
                wrong.push(format!("{name}: decoded, expected {word}"));
                continue;
            };
            let message = error.to_string();
            let kinds = ["unsupported_codec", "corrupt"];
            assert!(kinds.contains(&error.kind()) && message.contains(word), "{name}: {message}, expected {word}");
            refused += 1;
            continue;
        }
        let want = plain_png(tensors.tensor(&format!("want/{name}")).unwrap().data());
        let apart = match &got {
            Ok(got) => difference(name, got, &want),
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        let fast = FAST.contains(&name.as_str());
        let (max, mean) = if fast { (5, 0.6) } else { (0, 0.0) };
        if apart.max > max || apart.mean > mean {
            wrong.push(format!("{name}: {apart:?}"));
        }
        *(if fast { &mut close } else { &mut equal }) += 1;
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!((equal, close, refused), (134, 35, 20));
}

#[test]
fn forms_that_are_not_read_are_told_apart_from_damage() {
    let bytes = std::fs::read(golden().join("jpegs.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    for (name, kind) in [
        ("lossless", "unsupported_codec"),
        ("hierarchical", "unsupported_codec"),
        ("twelve-bits", "unsupported_codec"),
        ("height-behind", "unsupported_codec"),
        ("progressive-in-part", "unsupported_codec"),
        ("two-components", "unsupported_codec"),
        ("sampling-3-to-2", "unsupported_codec"),
        ("two-starts", "corrupt"),
        ("no-end", "corrupt"),
        ("no-scan", "corrupt"),
    ] {
        let file = tensors.tensor(&format!("file/{name}")).unwrap();
        let error = decode_image(file.data(), "file.jpg").unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {error}");
    }
}
