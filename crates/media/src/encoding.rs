//! Text that is not UTF-8: UTF-16 and UTF-32, which are read, and one-byte and East Asian encodings, which are only known
//! not to be UTF-8.
//!
//! # Source
//! The Unicode Standard 16.0, sections 3.10 (byte order marks), 23.8 (the mark as a signature).

/// An encoding of text that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextEncoding {
    /// UTF-8, with or without its mark.
    Utf8,
    /// Units of two bytes, the low byte first.
    Utf16Le,
    /// Units of two bytes, the high byte first.
    Utf16Be,
    /// Four bytes a character, the low byte first.
    Utf32Le,
    /// Four bytes a character, the high byte first.
    Utf32Be,
}

/// Where a text breaks the rules of its encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotText {
    /// Offset of the first byte that is wrong, a byte order mark counted.
    pub at: usize,
    /// What is there.
    pub found: &'static str,
}

impl TextEncoding {
    const WIDE: [Self; 4] = [Self::Utf32Le, Self::Utf32Be, Self::Utf16Le, Self::Utf16Be];

    /// Its name among people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UTF-8",
            Self::Utf16Le => "UTF-16 (little-endian)",
            Self::Utf16Be => "UTF-16 (big-endian)",
            Self::Utf32Le => "UTF-32 (little-endian)",
            Self::Utf32Be => "UTF-32 (big-endian)",
        }
    }

    /// Its byte order mark.
    #[must_use]
    pub fn mark(self) -> &'static [u8] {
        match self {
            Self::Utf8 => b"\xef\xbb\xbf",
            Self::Utf16Le => b"\xff\xfe",
            Self::Utf16Be => b"\xfe\xff",
            Self::Utf32Le => b"\xff\xfe\0\0",
            Self::Utf32Be => b"\0\0\xfe\xff",
        }
    }

    /// Bytes of a unit.
    #[must_use]
    pub fn unit_bytes(self) -> usize {
        match self {
            Self::Utf8 => 1,
            Self::Utf16Le | Self::Utf16Be => 2,
            Self::Utf32Le | Self::Utf32Be => 4,
        }
    }

    /// The encoding whose byte order mark stands first.
    #[must_use]
    pub fn of_mark(bytes: &[u8]) -> Option<Self> {
        // The mark of UTF-16 begins that of UTF-32, after which UTF-16 would have a NUL.
        Self::WIDE.into_iter().chain([Self::Utf8]).find(|encoding| bytes.starts_with(encoding.mark()))
    }

    /// The encoding of the first bytes of a text in UTF-16 or UTF-32: by its mark, or where three in four characters are below
    /// 256 (in UTF-16) and none is one that nobody writes.
    /// `None` for UTF-8 and for what is no such text.
    #[must_use]
    pub fn of_wide(head: &[u8]) -> Option<Self> {
        if let Some(marked) = Self::WIDE.into_iter().find(|encoding| head.starts_with(encoding.mark())) {
            // The mark of UTF-16, low byte first, is also a frame of MPEG-1 audio, layer I: there another one follows.
            let audio = marked == Self::Utf16Le && !is_prose(head, marked) && layer_one_follows(head);
            return (!audio).then_some(marked);
        }
        Self::WIDE.into_iter().find(|&encoding| {
            let units = head.len() / encoding.unit_bytes();
            if units < 2 || !head.contains(&0) || !is_prose(head, encoding) {
                return false;
            }
            // Of four bytes, one or two are zero in every character: nothing else looks so.
            let narrow = units_of(head, encoding).filter(|&unit| unit < 0x100).count();
            encoding.unit_bytes() == 4 || 4 * narrow >= 3 * units
        })
    }

    /// Whether the first bytes of a file would be text in UTF-16 of some script, which without a mark is no more than a guess.
    #[must_use]
    pub fn may_be_utf16(head: &[u8]) -> bool {
        head.len() >= 4
            && head.len().is_multiple_of(2)
            && [Self::Utf16Le, Self::Utf16Be].iter().any(|&either| is_prose(head, either))
    }

    /// The text, without its byte order mark.
    ///
    /// # Errors
    /// [`NotText`] at the first place that is none of this encoding.
    pub fn decode(self, bytes: &[u8]) -> Result<String, NotText> {
        let start = if bytes.starts_with(self.mark()) { self.mark().len() } else { 0 };
        let body = &bytes[start..];
        let size = self.unit_bytes();
        let cut = |at: usize| NotText { at: start + at, found: "the beginning of a character that is cut" };
        let text = match self {
            Self::Utf8 => match std::str::from_utf8(body) {
                Ok(text) => text.to_owned(),
                Err(e) => return Err(NotText { at: start + e.valid_up_to(), found: "a byte that is not UTF-8" }),
            },
            Self::Utf16Le | Self::Utf16Be => {
                let (mut text, mut at) = (String::with_capacity(body.len() / 2), 0);
                for unit in char::decode_utf16(units_of(body, self).map(|unit| unit as u16)) {
                    let Ok(unit) = unit else {
                        return Err(NotText { at: start + at, found: "half of a surrogate pair" });
                    };
                    text.push(unit);
                    at += 2 * unit.len_utf16();
                }
                text
            }
            Self::Utf32Le | Self::Utf32Be => {
                let mut text = String::with_capacity(body.len() / 2);
                for (place, unit) in units_of(body, self).enumerate() {
                    let Some(unit) = char::from_u32(unit) else {
                        return Err(NotText { at: start + 4 * place, found: "a number that is no character" });
                    };
                    text.push(unit);
                }
                text
            }
        };
        match body.len() % size {
            0 => Ok(text),
            rest => Err(cut(body.len() - rest)),
        }
    }
}

fn units_of(bytes: &[u8], encoding: TextEncoding) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(encoding.unit_bytes()).map(move |unit| match (encoding, unit) {
        (TextEncoding::Utf16Le, &[a, b]) => u32::from(u16::from_le_bytes([a, b])),
        (TextEncoding::Utf16Be, &[a, b]) => u32::from(u16::from_be_bytes([a, b])),
        (TextEncoding::Utf32Le, &[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
        (TextEncoding::Utf32Be, &[a, b, c, d]) => u32::from_be_bytes([a, b, c, d]),
        (_, unit) => u32::from(unit[0]),
    })
}

/// Whether the first bytes of a file are whole characters that people write. The last one may be cut.
fn is_prose(head: &[u8], encoding: TextEncoding) -> bool {
    let plain = |c: char| {
        let unassigned = (u32::from(c) & 0xfffe) == 0xfffe || ('\u{fdd0}'..='\u{fdef}').contains(&c);
        !unassigned && (!c.is_control() || matches!(c, '\t' | '\n' | '\r' | '\x0c'))
    };
    let marked = usize::from(head.starts_with(encoding.mark())) * encoding.mark().len();
    let size = encoding.unit_bytes();
    let body = &head[marked..];
    let mut body = &body[..body.len() - body.len() % size];
    // A pair of surrogates whose second half lies behind the sample.
    if size == 2 && units_of(body, encoding).last().is_some_and(|unit| (0xd800..0xdc00).contains(&unit)) {
        body = &body[..body.len() - 2];
    }
    encoding.decode(body).is_ok_and(|text| text.chars().all(plain))
}

/// Whether another frame of MPEG-1 audio, layer I, begins where the first one ends.
///
/// # Source
/// ISO/IEC 11172-3, 2.4.1.3 and 2.4.2.3: `(12 * bitrate / rate + padding) * 4` bytes.
fn layer_one_follows(head: &[u8]) -> bool {
    let &[_, _, third, ..] = head else { return false };
    let (bit_rate, rate) = (u32::from(third >> 4) * 32_000, [44_100, 48_000, 32_000, 0][usize::from(third >> 2 & 3)]);
    if bit_rate == 0 || third >> 4 == 15 || rate == 0 {
        return false;
    }
    let next = (12 * bit_rate / rate + u32::from(third >> 1 & 1)) as usize * 4;
    head.get(next..next + 2).is_some_and(|sync| sync[0] == 0xff && sync[1] & 0xfe == 0xfe)
}

/// Whether the first bytes of a file are text in an encoding that is not UTF-8: bytes above 127 among characters that are
/// written, and none that only control. Compressed and binary data has such a byte within the first few dozen.
#[must_use]
pub(crate) fn is_other_text(head: &[u8]) -> bool {
    // Terminals have no such escape.
    let escapes = head.windows(2).any(|pair| pair == b"\x1b$");
    let written = |byte: u8| byte >= 0x20 && byte != 0x7f || matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c);
    // Shifts between the sets of ISO-2022.
    let shifts = |byte: u8| escapes && matches!(byte, 0x1b | 0x0e | 0x0f);
    !head.is_empty() && (escapes || !head.is_ascii()) && head.iter().all(|&byte| written(byte) || shifts(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide(text: &str, encoding: TextEncoding, marked: bool) -> Vec<u8> {
        let mut bytes = if marked { encoding.mark().to_vec() } else { Vec::new() };
        match encoding {
            TextEncoding::Utf8 => bytes.extend(text.bytes()),
            TextEncoding::Utf16Le => bytes.extend(text.encode_utf16().flat_map(u16::to_le_bytes)),
            TextEncoding::Utf16Be => bytes.extend(text.encode_utf16().flat_map(u16::to_be_bytes)),
            TextEncoding::Utf32Le => bytes.extend(text.chars().flat_map(|c| u32::from(c).to_le_bytes())),
            TextEncoding::Utf32Be => bytes.extend(text.chars().flat_map(|c| u32::from(c).to_be_bytes())),
        }
        bytes
    }

    #[test]
    fn wide_text_is_known_and_reads_back_with_and_without_its_mark() {
        for text in
            ["A red bicycle leans against the wall.", "caf\u{e9}\r\nau lait\n", "ok", "\u{1f6b2} a bicycle, that is"]
        {
            for encoding in TextEncoding::WIDE {
                for marked in [true, false] {
                    let bytes = wide(text, encoding, marked);
                    assert_eq!(TextEncoding::of_wide(&bytes), Some(encoding), "{text} {encoding:?} {marked}");
                    assert_eq!(encoding.decode(&bytes).as_deref(), Ok(text));
                }
            }
            assert_eq!(TextEncoding::of_wide(text.as_bytes()), None);
        }
        // Few of these have a zero byte, so only the mark tells.
        let chinese = "\u{4e00}\u{8f86}\u{7ea2}\u{8272}\u{7684}\u{81ea}\u{884c}\u{8f66}";
        for encoding in TextEncoding::WIDE {
            assert_eq!(TextEncoding::of_wide(&wide(chinese, encoding, true)), Some(encoding));
        }
        for encoding in [TextEncoding::Utf16Le, TextEncoding::Utf16Be] {
            let bytes = wide(chinese, encoding, false);
            assert!(TextEncoding::of_wide(&bytes).is_none() && TextEncoding::may_be_utf16(&bytes));
        }
        assert_eq!(TextEncoding::of_wide(&wide(chinese, TextEncoding::Utf32Be, false)), Some(TextEncoding::Utf32Be));
        assert!(!TextEncoding::may_be_utf16(&[0xff; 300]));
        // Strings of C.
        for data in [&b"abc\0"[..], b"ab\0cd\0", b"words\0more\0", b"\0abc"] {
            assert_eq!(TextEncoding::of_wide(data), None, "{data:?}");
        }
    }

    #[test]
    fn a_sample_cut_within_a_character_is_still_text() {
        let bytes = wide(&"a \u{1f6b2} ".repeat(40), TextEncoding::Utf16Le, true);
        for length in 4..bytes.len() {
            assert_eq!(TextEncoding::of_wide(&bytes[..length]), Some(TextEncoding::Utf16Le), "{length}");
        }
    }

    #[test]
    fn what_breaks_a_text_is_said_with_its_place() {
        let lone = [b'a', 0, 0x3d, 0xd8, b'b', 0];
        let found = TextEncoding::Utf16Le.decode(&lone).unwrap_err();
        assert_eq!((found.at, found.found), (2, "half of a surrogate pair"));
        assert_eq!(TextEncoding::Utf16Le.decode(b"\xff\xfea\0b").unwrap_err().at, 4);
        assert_eq!(TextEncoding::Utf32Be.decode(b"\0\0\0a\0\x11\0\0").unwrap_err().at, 4);
        assert_eq!(TextEncoding::Utf8.decode(b"\xef\xbb\xbfab\xe9").unwrap_err().at, 5);
    }

    #[test]
    fn frames_of_layer_one_are_not_text() {
        // 32 kbit/s at 48 kHz: 32 bytes a frame.
        let frame = [&b"\xff\xfe\x14\0\x12\x34"[..], &[0; 26]].concat();
        assert_eq!(TextEncoding::of_wide(&frame.repeat(3)), None);
    }

    #[test]
    fn text_of_other_encodings_is_told_from_data() {
        // "Grüße" and "один текст" in one byte each, "日本" in Shift-JIS and in ISO-2022-JP.
        for text in
            [&b"Gr\xfc\xdfe"[..], b"\xee\xe4\xe8\xed \xf2\xe5\xea\xf1\xf2", b"\x93\xfa\x96\x7b", b"\x1b$BF|K\\\x1b(B"]
        {
            assert!(is_other_text(text), "{text:x?}");
        }
        for data in [&b""[..], b"plain", b"\x1b(B\x1b[mplain", b"\x89\x01\xfc", b"a\0\xfc", b"\xfc\x7f"] {
            assert!(!is_other_text(data), "{data:x?}");
        }
    }
}
