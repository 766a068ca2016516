//! What a file is, from its first bytes or from the ending of its name.

use std::ffi::OsStr;
use std::path::Path;

use crate::container::mpeg::frames_may_follow;
use crate::encoding::{TextEncoding, is_other_text};

/// Endings of image files: those that are decoded, and those that are known to be images and refused by name.
const IMAGE_ENDINGS: &[&str] = &[
    "png", "apng", "jpg", "jpeg", "jpe", "jfif", "webp", "gif", "bmp", "dib", "tif", "tiff", //
    "heic", "heif", "hif", "avif", "jxl", "jp2", "jpx", "psd", "xcf", "svg", "ico", "exr", "hdr", "tga", "dds", "qoi",
    "ppm", "pgm", "pbm", "pnm",
];

/// Formats that are images but are not decoded here.
const IMAGES_NOT_READ: &[&str] =
    &["heic", "avif", "jxl", "jp2", "psd", "xcf", "svg", "ico", "exr", "hdr", "dds", "qoi", "pnm"];

/// True for a path with one of these endings, in any case.
pub(crate) fn has_ending(path: &Path, endings: &[&str]) -> bool {
    let ending = path.extension().and_then(OsStr::to_str);
    ending.is_some_and(|ending| endings.iter().any(|known| known.eq_ignore_ascii_case(ending)))
}

/// Bytes of a file that [`sniff`] looks at; more do no harm.
pub(crate) const SNIFF_BYTES: usize = 1024;

/// True for the ending of an image file, also of one that is refused by name (HEIC, AVIF, …).
#[must_use]
pub fn known_image_ending(path: &Path) -> bool {
    has_ending(path, IMAGE_ENDINGS)
}

/// True for a format that [`sniff`] knows as an image and that is not decoded.
pub(crate) fn image_not_read(format: &str) -> bool {
    IMAGES_NOT_READ.contains(&format)
}

/// What [`sniff`] says of text that is neither UTF-8 nor in wider units.
pub const OTHER_TEXT: &str = "text in an encoding other than UTF-8";

/// Names the format of a file from its first bytes (1,024 are enough), in lower case; `None` where nothing is known.
///
/// `text` is said of readable UTF-8 that is nothing more special; `utf-16 text` and `utf-32 text` of text in wider units,
/// and [`OTHER_TEXT`] of what people write in other encodings, such as Latin-1, Windows-1252 or Shift-JIS.
#[must_use]
pub fn sniff(bytes: &[u8]) -> Option<&'static str> {
    const AT_START: &[(&[u8], &str)] = &[
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"\xff\xd8\xff", "jpeg"),
        (b"GIF87a", "gif"),
        (b"GIF89a", "gif"),
        (b"II*\0", "tiff"),
        (b"MM\0*", "tiff"),
        (b"II+\0", "tiff"),
        (b"MM\0+", "tiff"),
        // The version in the other order of bytes than it says of itself, which Pillow reads.
        (b"II\0*", "tiff"),
        (b"MM*\0", "tiff"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "jxl"),
        (b"\xff\x0a", "jxl"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "jp2"),
        (b"\xff\x4f\xff\x51", "jp2"),
        (b"8BPS", "psd"),
        (b"gimp xcf", "xcf"),
        (b"\x76\x2f\x31\x01", "exr"),
        (b"#?RADIANCE", "hdr"),
        (b"#?RGBE", "hdr"),
        (b"DDS ", "dds"),
        (b"qoif", "qoi"),
        (b"\0\0\x01\0", "ico"),
        (b"%PDF-", "pdf"),
        (b"%!PS", "postscript"),
        (b"{\\rtf", "rtf"),
        (b"ID3", "mp3"),
        (b"fLaC", "flac"),
        (b"OggS", "ogg"),
        (b"MThd", "midi"),
        (b"#!AMR", "amr"),
        (b"\x0b\x77", "ac3"),
        (b"\x7f\xfe\x80\x01", "dts"),
        (b"MAC ", "ape"),
        (b"MPCK", "musepack"),
        (b"MP+", "musepack"),
        (b"wvpk", "wavpack"),
        (b"TTA1", "tta"),
        (b".snd\0\0", "au"),
        (b"riff\x2e\x91\xcf\x11", "w64"),
        (b"DSD ", "dsf"),
        (b".RMF", "realmedia"),
        (b"caff", "caf"),
        (b"\x1aE\xdf\xa3", "mkv"),
        (b"FLV\x01", "flv"),
        (b"\0\0\x01\xba", "mpeg"),
        (b"\0\0\x01\xb3", "mpeg"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c", "asf"),
        (b"PK\x03\x04", "zip"),
        (b"PK\x05\x06", "zip"),
        (b"\x1f\x8b", "gzip"),
        (b"BZh", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"(\xb5/\xfd", "zstd"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
        (b"Rar!\x1a\x07", "rar"),
        (b"SQLite format 3\0", "sqlite"),
        (b"\x7fELF", "elf"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "ole document"),
        (b"wOFF", "font"),
        (b"wOF2", "font"),
        (b"OTTO", "font"),
        (b"\0\x01\0\0\0", "font"),
    ];
    if let Some((_, name)) = AT_START.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Some(if *name == "zip" { zip_kind(bytes) } else { name });
    }
    let at = |range: std::ops::Range<usize>| bytes.get(range).unwrap_or_default();
    match (at(0..4), at(8..12)) {
        (b"RIFF" | b"RIFX" | b"RF64" | b"BW64", b"WAVE") => return Some("wav"),
        (b"RIFF", b"WEBP") => return Some("webp"),
        (b"RIFF", b"AVI ") => return Some("avi"),
        (b"FORM", b"AIFF" | b"AIFC") => return Some("aiff"),
        _ => {}
    }
    // Sun audio and that of DEC, in either byte order: the samples begin within the first 64 KiB. The four letters alone
    // begin texts too.
    match (at(0..4), at(4..8)) {
        (b"dns." | b"\0ds.", [_, _, 0, 0]) | (b".sd\0", [0, 0, _, _]) => return Some("au"),
        _ => {}
    }
    if at(4..8) == b"ftyp" {
        return Some(iso_brand(bytes));
    }
    if matches!(at(4..8), b"moov" | b"mdat" | b"wide") {
        return Some("mp4");
    }
    // "BM" also begins words, so the size of the header that follows must be one that exists.
    if at(0..2) == b"BM" && matches!(at(14..18), [12 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0]) {
        return Some("bmp");
    }
    if let [b'P', b'1'..=b'7', b' ' | b'\t' | b'\r' | b'\n', ..] = bytes {
        return Some("pnm");
    }
    // A packet every 188 bytes.
    if bytes.len() > 2 * 188 && bytes.iter().step_by(188).all(|byte| *byte == 0x47) {
        return Some("mpeg-ts");
    }
    if at(257..262) == b"ustar" {
        return Some("tar");
    }
    // Before MPEG audio: the mark of little-endian UTF-16 has the bits of a frame, and so have the first letters of some
    // Cyrillic words in one byte each. In a frame of audio some byte soon is below 32, as none of a text is.
    match TextEncoding::of_wide(bytes) {
        Some(TextEncoding::Utf16Le | TextEncoding::Utf16Be) => return Some("utf-16 text"),
        Some(TextEncoding::Utf32Le | TextEncoding::Utf32Be) => return Some("utf-32 text"),
        _ => {}
    }
    let other_text = is_other_text(bytes);
    // An MPEG audio frame: eleven set bits, then a layer and a bit rate that exist. Layer 0 is AAC's.
    if let [0xff, second, third, ..] = *bytes
        && !(bytes.len() >= 8 && other_text)
    {
        if second & 0xf6 == 0xf0 && frames_may_follow(bytes) {
            return Some("aac");
        }
        if second & 0xe0 == 0xe0
            && second & 0x18 != 0x08
            && second & 0x06 != 0
            && third >> 4 != 15
            && third & 0x0c != 0x0c
            && frames_may_follow(bytes)
        {
            return Some("mp3");
        }
    }
    if other_text && bytes.is_ascii() {
        return Some(OTHER_TEXT);
    }
    text_kind(bytes).or(other_text.then_some(OTHER_TEXT))
}

/// What a ZIP archive is, by the name of its first file: documents of offices and books are archives, too.
fn zip_kind(bytes: &[u8]) -> &'static str {
    let name = bytes.get(30..).unwrap_or_default();
    if name.starts_with(b"[Content_Types].xml") || name.starts_with(b"_rels/") || name.starts_with(b"docProps/") {
        return "office document (docx, xlsx or pptx)";
    }
    let mime = name.strip_prefix(b"mimetypeapplication/").unwrap_or_default();
    match mime {
        _ if mime.starts_with(b"epub+zip") => "epub",
        _ if mime.starts_with(b"vnd.oasis.opendocument") => "opendocument",
        _ => "zip",
    }
}

/// The brand of an ISO media file: HEIC and AVIF images, else a video or audio in an MP4.
fn iso_brand(bytes: &[u8]) -> &'static str {
    let length = bytes.get(0..4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize);
    let end = length.clamp(8, bytes.len());
    // The minor version after the main brand is no brand; its bytes match none.
    let brands = || bytes[8..end].chunks_exact(4);
    let any = |wanted: &[&[u8]]| brands().any(|brand| wanted.contains(&brand));
    if any(&[b"avif", b"avis"]) {
        "avif"
    } else if any(&[b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"]) {
        "heic"
    } else if any(&[b"M4A ", b"M4B "]) {
        "m4a"
    } else if any(&[b"qt  "]) {
        "mov"
    } else {
        "mp4"
    }
}

/// Text and the formats that are written as text.
fn text_kind(bytes: &[u8]) -> Option<&'static str> {
    let bytes = &bytes[..bytes.len().min(SNIFF_BYTES)];
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        // A character cut by the end of the sample is no fault.
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let control = |c: &char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\x0c');
    // A log holds escapes of a terminal, a file of DOS its end mark; no text holds a NUL.
    let controls = text.chars().filter(control).count();
    if text.is_empty() || text.contains('\0') || 8 * controls > text.chars().count() {
        return None;
    }
    let lower = text.to_ascii_lowercase();
    let begins = lower.trim_start();
    if begins.starts_with("<svg") || (begins.starts_with("<?xml") && lower.contains("<svg")) {
        return Some("svg");
    }
    if begins.starts_with("<!doctype html") || begins.starts_with("<html") {
        return Some("html");
    }
    if begins.starts_with("<?xml") {
        return Some("xml");
    }
    Some("text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_name_the_format() {
        let cases: &[(&[u8], Option<&str>)] = &[
            (b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR", Some("png")),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", Some("jpeg")),
            (b"RIFF\x10\0\0\0WEBPVP8 ", Some("webp")),
            (b"RIFF\x10\0\0\0WAVEfmt ", Some("wav")),
            (b"RIFF\x10\0\0\0AVI LIST", Some("avi")),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", Some("heic")),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", Some("avif")),
            (b"\0\0\0\x18ftypisom\0\0\x02\0isommp42", Some("mp4")),
            (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", Some("mov")),
            (b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42", Some("m4a")),
            (b"\0\0\0\x0cJXL \r\n\x87\n", Some("jxl")),
            (b"\xff\x0a\xfa\x1f", Some("jxl")),
            (b"\xff\xfb\x90\x64\0\0", Some("mp3")),
            (b"ID3\x04\0\0", Some("mp3")),
            (b"#!AMR\n\x3c", Some("amr")),
            (b"\x0b\x77\x8a\x01", Some("ac3")),
            (b"MAC \x96\x0f", Some("ape")),
            (b"BW64\xff\xff\xff\xffWAVEds64", Some("wav")),
            (b"\xff\xf1\x50\x80", Some("aac")),
            (b"BM6\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x01\0", Some("bmp")),
            (b"BMW drivers park here, mostly.", Some("text")),
            (b"<?xml version=\"1.0\"?>\n<svg width=\"3\"/>", Some("svg")),
            (b"<!DOCTYPE html><html>", Some("html")),
            (b"%PDF-1.7", Some("pdf")),
            (b"PK\x03\x04\x14", Some("zip")),
            ("caf\u{e9} au lait".as_bytes(), Some("text")),
            // The last character is cut in the middle.
            (b"caf\xc3", Some("text")),
            (b"\x03\x01\x02", None),
            // The mark of UTF-16 is also the beginning of a frame of MPEG audio.
            (b"\xff\xfeA\0 \0r\0e\0d\0", Some("utf-16 text")),
            (b"\xfe\xff\0A\0 \0r\0e\0d", Some("utf-16 text")),
            (b"\xff\xfe\0\0A\0\0\0", Some("utf-32 text")),
            (b"A\0 \0r\0e\0d\0", Some("utf-16 text")),
            // "ясно, что" and "яркий свет" in Windows-1251, whose first letters are those of AAC.
            (b"\xff\xf1\xed\xee, \xf7\xf2\xee", Some(OTHER_TEXT)),
            (b"\xff\xf0\xea\xe8\xe9 \xf1\xe2\xe5\xf2", Some(OTHER_TEXT)),
            (b"caf\xe9 au lait", Some(OTHER_TEXT)),
            (b"\x1b[32mgreen\x1b[0m and the rest of the line", Some("text")),
            (b"some words\0and more of them", None),
            (b"{\\rtf1\\ansi words}", Some("rtf")),
            (
                b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x13\0\0\0[Content_Types].xml",
                Some("office document (docx, xlsx or pptx)"),
            ),
            (b"", None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(sniff(bytes), *expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn a_brand_list_longer_than_the_sample_is_read_to_its_end() {
        assert_eq!(sniff(b"\xff\xff\xff\x18ftypmif1\0\0\0\0avif"), Some("avif"));
        assert_eq!(sniff(b"\0\0\0\0ftyp"), Some("mp4"));
    }

    #[test]
    fn endings_of_images_are_known_in_any_case() {
        for name in ["a.png", "b.JPG", "c.Heic", "folder.x/d.tiff", "e.f.webp"] {
            assert!(known_image_ending(Path::new(name)), "{name}");
        }
        for name in ["png", "a.txt", "b.wav", "c.", ".png", "d.pngx"] {
            assert!(!known_image_ending(Path::new(name)), "{name}");
        }
    }
}
