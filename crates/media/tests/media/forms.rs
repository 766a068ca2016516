//! Rare forms of GIF and BMP. Inputs and expected bytes: `tests/golden/make/forms.py`.

use omniburn_media::decode_image;
use safetensors::SafeTensors;

use crate::support::{assert_same, golden, plain_png};

#[test]
fn rare_forms_of_gif_and_bmp_decode_as_pillow_does() {
    let bytes = std::fs::read(golden().join("forms.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut checked = 0;
    for (key, file) in tensors.iter() {
        let Some(name) = key.strip_prefix("file/") else { continue };
        let want = plain_png(tensors.tensor(&format!("want/{name}")).unwrap().data());
        let got = decode_image(file.data(), name).unwrap_or_else(|error| panic!("{error}"));
        assert_same(name, &got, &want);
        checked += 1;
    }
    assert_eq!(checked, 48);
}

#[test]
fn a_frame_that_reaches_beyond_every_screen_is_refused_by_name() {
    let bytes = std::fs::read(golden().join("forms.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut gif = tensors.tensor("file/gif-opaque-0-0-0-0-0").unwrap().data().to_vec();
    let frame = gif.windows(9).position(|bytes| bytes == [0x2c, 0, 0, 0, 0, 13, 0, 7, 0]).unwrap();
    gif[frame + 1..frame + 3].copy_from_slice(&u16::MAX.to_le_bytes());
    let error = decode_image(&gif, "far.gif").unwrap_err();
    assert_eq!(error.kind(), "unsupported_codec");
    assert!(error.to_string().contains("65548"), "{error}");
}
