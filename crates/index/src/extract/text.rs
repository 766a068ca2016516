//! Plain text of any encoding.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use omniburn_media::TextEncoding;

use super::section::MAX_TEXT_BYTES;
use crate::error::Fault;

/// The text of a file: UTF-8, UTF-16 or UTF-32, else in the encoding that it most looks like.
pub(super) fn read(path: &Path) -> Result<String, Fault> {
    let file = File::open(path).map_err(|e| Fault::of_io(&e))?;
    let mut bytes = Vec::new();
    file.take(MAX_TEXT_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Fault::of_io(&e))?;
    if bytes.len() as u64 > MAX_TEXT_BYTES {
        let message = format!("found more than {MAX_TEXT_BYTES} bytes of text, which is what one file may have");
        return Err(Fault::new("too_large", message));
    }
    decode(bytes)
}

/// Bytes as text, with `\n` at the ends of lines.
pub(super) fn decode(bytes: Vec<u8>) -> Result<String, Fault> {
    let head = &bytes[..bytes.len().min(1024)];
    let wide = TextEncoding::of_mark(&bytes).or_else(|| TextEncoding::of_wide(head));
    let text = match wide {
        Some(encoding) => encoding
            .decode(&bytes)
            .map_err(|e| Fault::new("corrupt", format!("{} with {} at byte {}", encoding.name(), e.found, e.at)))?,
        None => match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let bytes = error.into_bytes();
                let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
                detector.feed(&bytes, true);
                let encoding = detector.guess(None, Utf8Detection::Deny);
                encoding.decode_without_bom_handling(&bytes).0.into_owned()
            }
        },
    };
    Ok(if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_other_encodings_is_read_as_what_it_most_looks_like() {
        let of = |bytes: &[u8]| decode(bytes.to_vec()).unwrap();
        assert_eq!(of("é\r\nb\rc".as_bytes()), "é\nb\nc");
        assert_eq!(of(b"caf\xe9 au lait, tr\xe8s bien"), "café au lait, très bien");
        let (shift_jis, ..) = encoding_rs::SHIFT_JIS.encode("東京の天気は晴れです。明日は雨でしょう。");
        assert_eq!(of(&shift_jis), "東京の天気は晴れです。明日は雨でしょう。");
        assert_eq!(of(b"\xff\xfea\0b\0"), "ab");
    }
}
