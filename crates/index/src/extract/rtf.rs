//! Rich text: the words between its control words.
//!
//! # Source
//! Rich Text Format (RTF) Specification 1.9.1.

use encoding_rs::Encoding;

use super::section::Text;
use crate::error::Fault;

/// Groups that hold no text of the document.
const UNREAD: [&str; 15] = [
    "fonttbl",
    "colortbl",
    "stylesheet",
    "info",
    "pict",
    "object",
    "header",
    "footer",
    "headerl",
    "headerr",
    "footerl",
    "footerr",
    "generator",
    "themedata",
    "listtable",
];
/// Groups within groups.
const DEEPEST: usize = 1000;

/// What holds within a group.
#[derive(Clone)]
struct Group {
    unread: bool,
    /// Characters behind `\u` that stand for it where Unicode is not read.
    skipped: usize,
}

/// The text of a document.
pub(super) fn text_of(bytes: &[u8]) -> Result<Text, Fault> {
    let (mut text, mut pending) = (String::new(), Vec::new());
    let mut groups = vec![Group { unread: false, skipped: 1 }];
    let mut encoding = encoding_rs::WINDOWS_1252;
    let (mut at, mut skip) = (0, 0usize);
    let mut half = None;
    let flush = |pending: &mut Vec<u8>, text: &mut String, encoding: &'static Encoding| {
        if !pending.is_empty() {
            text.push_str(&encoding.decode_without_bom_handling(pending).0);
            pending.clear();
        }
    };
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        let unread = groups.last().is_none_or(|group| group.unread);
        match byte {
            b'{' => {
                flush(&mut pending, &mut text, encoding);
                if groups.len() > DEEPEST {
                    return Err(Fault::new("corrupt", format!("found more than {DEEPEST} groups within each other")));
                }
                groups.extend(groups.last().cloned());
            }
            b'}' => {
                flush(&mut pending, &mut text, encoding);
                groups.pop();
                if groups.is_empty() {
                    break;
                }
            }
            b'\\' => {
                let word = control(bytes, &mut at);
                match word {
                    Control::Byte(_) if skip > 0 => skip -= 1,
                    Control::Byte(value) if !unread => pending.push(value),
                    Control::Symbol(b'*') => {
                        if let Some(group) = groups.last_mut() {
                            group.unread = true;
                        }
                    }
                    Control::Symbol(c @ (b'\\' | b'{' | b'}')) if !unread => pending.push(c),
                    Control::Symbol(c) if !unread => {
                        flush(&mut pending, &mut text, encoding);
                        match c {
                            b'~' => text.push(' '),
                            b'_' => text.push('-'),
                            b'\n' | b'\r' => text.push('\n'),
                            _ => {}
                        }
                    }
                    Control::Word(name, number) => {
                        flush(&mut pending, &mut text, encoding);
                        match (name, number) {
                            (name, _) if UNREAD.contains(&name) => {
                                if let Some(group) = groups.last_mut() {
                                    group.unread = true;
                                }
                            }
                            ("ansicpg", Some(page)) => encoding = page_of(page).unwrap_or(encoding),
                            ("uc", Some(count)) => {
                                if let Some(group) = groups.last_mut() {
                                    group.skipped = usize::try_from(count).unwrap_or(1).min(16);
                                }
                            }
                            ("u", Some(number)) if !unread => {
                                skip = groups.last().map_or(1, |group| group.skipped);
                                push_unit(&mut text, &mut half, (number & 0xffff) as u16);
                            }
                            ("bin", Some(count)) => at = at.saturating_add(usize::try_from(count).unwrap_or(0)),
                            ("par" | "line" | "sect" | "page" | "row", _) if !unread => text.push('\n'),
                            ("tab" | "cell", _) if !unread => text.push('\t'),
                            ("emdash", _) if !unread => text.push('\u{2014}'),
                            ("endash", _) if !unread => text.push('\u{2013}'),
                            ("lquote", _) if !unread => text.push('\u{2018}'),
                            ("rquote", _) if !unread => text.push('\u{2019}'),
                            ("ldblquote", _) if !unread => text.push('\u{201c}'),
                            ("rdblquote", _) if !unread => text.push('\u{201d}'),
                            ("bullet", _) if !unread => text.push('\u{2022}'),
                            _ => {}
                        }
                    }
                    _ => {}
                }
            }
            b'\r' | b'\n' => {}
            _ if skip > 0 => skip -= 1,
            byte if !unread => pending.push(byte),
            _ => {}
        }
    }
    flush(&mut pending, &mut text, encoding);
    Ok(Text::of(None, text))
}

/// Adds a unit of UTF-16; the first half of a pair waits for the second.
fn push_unit(text: &mut String, first: &mut Option<u16>, unit: u16) {
    let pair = [first.take().unwrap_or(unit), unit];
    let units = if pair[0] == unit && !(0xdc00..0xe000).contains(&unit) { &pair[1..] } else { &pair[..] };
    match char::decode_utf16(units.iter().copied()).next() {
        Some(Ok(c)) => text.push(c),
        _ if (0xd800..0xdc00).contains(&unit) => *first = Some(unit),
        _ => text.push(char::REPLACEMENT_CHARACTER),
    }
}

/// The encoding of a code page of Windows.
fn page_of(page: i32) -> Option<&'static Encoding> {
    let label = match page {
        932 => "shift_jis".to_string(),
        936 => "gbk".to_string(),
        949 => "euc-kr".to_string(),
        950 => "big5".to_string(),
        65001 => "utf-8".to_string(),
        page => format!("windows-{page}"),
    };
    Encoding::for_label(label.as_bytes())
}

enum Control<'a> {
    Word(&'a str, Option<i32>),
    Symbol(u8),
    /// `\'hh`.
    Byte(u8),
}

/// What stands behind a backslash; `at` is moved behind it.
fn control<'a>(bytes: &'a [u8], at: &mut usize) -> Control<'a> {
    let rest = &bytes[*at..];
    let Some(&first) = rest.first() else { return Control::Symbol(b' ') };
    if first == b'\'' {
        let digits = rest.get(1..3).and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(value) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            *at += 3;
            return Control::Byte(value);
        }
    }
    if !first.is_ascii_alphabetic() {
        *at += 1;
        return Control::Symbol(first);
    }
    let letters = rest.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    let minus = usize::from(rest.get(letters) == Some(&b'-'));
    let digits = rest[letters + minus..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let end = if digits > 0 { letters + minus + digits } else { letters };
    let ascii = |range: std::ops::Range<usize>| std::str::from_utf8(&rest[range]).unwrap_or_default();
    let number = if digits > 0 { ascii(letters..end).parse().ok() } else { None };
    *at += end + usize::from(rest.get(end) == Some(&b' '));
    Control::Word(ascii(0..letters), number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rtf: &str) -> String {
        text_of(rtf.as_bytes()).unwrap().sections.remove(0).text
    }

    #[test]
    fn the_words_are_found_between_the_control_words() {
        let rtf = r"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Times;}}{\*\generator x;}\f0\b One\b0  two\par caf\'e9 \{x\}\tab\u8364? end}";
        assert_eq!(of(rtf), "One two\ncafé {x}\t€ end");
    }

    #[test]
    fn pairs_of_units_and_what_stands_for_them_are_one_character() {
        assert_eq!(of(r"{\rtf1 \u-10179?\u-8704? x{\uc0\u228 b}}"), "\u{1F600} xäb");
        assert_eq!(of(r"{\rtf1\ansicpg932 \'93\'8c\'8b\'9e}"), "東京");
    }

    #[test]
    fn broken_documents_give_what_is_there() {
        for rtf in [
            "",
            "{",
            "}",
            r"{\rtf1 a",
            r"\",
            r"{\rtf1 \'",
            r"{\rtf1 \u",
            r"{\rtf1\bin99999 a",
            r"{\rtf1 \u99999999999 a}",
        ] {
            let _ = text_of(rtf.as_bytes());
        }
        assert_eq!(text_of("{".repeat(2000).as_bytes()).unwrap_err().kind, "corrupt");
    }
}
