//! What people type: words, "exact words", -words and qualifiers.
//!
//! A qualifier counts only where its key is known and no space follows the colon, so that `12:30` and `http://…` stay text.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::QueryError;
use crate::kind::Kind;

/// Which files may be found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Of these kinds; any where there are none.
    pub kinds: Vec<Kind>,
    /// Of none of these kinds.
    pub not_kinds: Vec<Kind>,
    /// With one of these endings, in lower case and without the dot; any where there are none.
    pub endings: Vec<String>,
    /// With none of these endings.
    pub not_endings: Vec<String>,
    /// Below one of these folders; anywhere where there are none.
    pub folders: Vec<PathBuf>,
    /// Below none of these folders.
    pub not_folders: Vec<PathBuf>,
    /// Changed, or taken where a photograph says when, at this time or later, in nanoseconds since 1970.
    pub after_ns: Option<i64>,
    /// Changed, or taken, before this time, in nanoseconds since 1970.
    pub before_ns: Option<i64>,
}

impl Filter {
    /// True where every file may be found.
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }
}

/// A query taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// The words without qualifiers, as they are embedded.
    pub text: String,
    /// Words that stand in no quotation marks.
    pub words: Vec<String>,
    /// Phrases in quotation marks: whatever is found has them.
    pub phrases: Vec<String>,
    /// Words and phrases with a minus before them: whatever is found has none of them.
    pub without: Vec<String>,
    /// Which files may be found.
    pub filter: Filter,
}

/// Keys of qualifiers.
const KEYS: [&str; 7] = ["type", "kind", "ext", "in", "after", "before", "since"];

/// A word or a phrase of a query.
struct Piece {
    minus: bool,
    key: Option<String>,
    value: String,
    quoted: bool,
}

impl Query {
    /// Takes a query apart. `home` stands for a `~` at the beginning of a folder, `now` is what times are counted from.
    ///
    /// # Errors
    /// [`QueryError`] naming what is wrong.
    pub fn parse(text: &str, home: Option<&std::path::Path>, now: SystemTime) -> Result<Self, QueryError> {
        let mut query = Query::default();
        let mut kept: Vec<String> = Vec::new();
        for piece in pieces(text)? {
            let Piece { minus, key, value, quoted } = piece;
            let Some(key) = key else {
                match (minus, quoted) {
                    (true, _) => query.without.push(value),
                    (false, true) => {
                        kept.push(value.clone());
                        query.phrases.push(value);
                    }
                    (false, false) => {
                        kept.push(value.clone());
                        query.words.push(value);
                    }
                }
                continue;
            };
            query.filter.add(&key, &value, minus, home, now)?;
        }
        query.text = kept.join(" ");
        Ok(query)
    }

    /// True where nothing is left to search for.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty() && self.phrases.is_empty()
    }
}

impl Filter {
    fn add(
        &mut self,
        key: &str,
        value: &str,
        minus: bool,
        home: Option<&std::path::Path>,
        now: SystemTime,
    ) -> Result<(), QueryError> {
        match key {
            "type" | "kind" => {
                let kinds = kinds_of(value)?;
                if minus { &mut self.not_kinds } else { &mut self.kinds }.extend(kinds);
            }
            "ext" => {
                let endings = value.split(',').map(|ending| ending.trim_start_matches('.').to_lowercase());
                let endings = endings.filter(|ending| !ending.is_empty());
                if minus { &mut self.not_endings } else { &mut self.endings }.extend(endings);
            }
            "in" => {
                let folder = match (value.strip_prefix('~'), home) {
                    (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with(std::path::is_separator) => {
                        home.join(rest.trim_start_matches(std::path::is_separator))
                    }
                    _ => PathBuf::from(value),
                };
                if minus { &mut self.not_folders } else { &mut self.folders }.push(folder);
            }
            // `-after` is `before`, and the other way round.
            _ => {
                let after = (key != "before") != minus;
                let at = time_of(value, now)?;
                if after {
                    self.after_ns = Some(self.after_ns.map_or(at, |there| there.max(at)));
                } else {
                    self.before_ns = Some(self.before_ns.map_or(at, |there| there.min(at)));
                }
            }
        }
        Ok(())
    }
}

/// Kinds with commas between.
///
/// # Errors
/// [`QueryError::UnknownKind`].
pub fn kinds_of(value: &str) -> Result<Vec<Kind>, QueryError> {
    let kind = |name: &str| Kind::named(name).ok_or_else(|| QueryError::UnknownKind { found: name.into() });
    value.split(',').map(str::trim).filter(|name| !name.is_empty()).map(kind).collect()
}

/// A day, or a length of time before now, in nanoseconds since 1970. A day begins at midnight UTC.
///
/// # Errors
/// [`QueryError::BadDate`].
pub fn time_of(value: &str, now: SystemTime) -> Result<i64, QueryError> {
    let bad = || QueryError::BadDate { found: value.into() };
    let day_s = 86_400i64;
    let seconds = if let Some(ago) = value.strip_suffix(['d', 'w', 'm', 'y']) {
        let days = match value.as_bytes()[ago.len()] {
            b'd' => 1,
            b'w' => 7,
            b'm' => 30,
            _ => 365,
        };
        let count: u32 = ago.parse().map_err(|_| bad())?;
        let now_s = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs() as i64;
        now_s - i64::from(count) * days * day_s
    } else {
        let parts: Vec<&str> = value.split('-').collect();
        let number = |at: usize, digits: usize, range: std::ops::RangeInclusive<i64>| match parts.get(at) {
            None => Some(1),
            Some(part) if part.len() == digits && part.bytes().all(|b| b.is_ascii_digit()) => {
                part.parse::<i64>().ok().filter(|number| range.contains(number))
            }
            Some(_) => None,
        };
        let year = number(0, 4, 1..=9999).ok_or_else(bad)?;
        let month = number(1, 2, 1..=12).ok_or_else(bad)?;
        let day = number(2, 2, 1..=days_of(year, month)).ok_or_else(bad)?;
        if parts.len() > 3 {
            return Err(bad());
        }
        days_since_1970(year, month, day) * day_s
    };
    seconds.checked_mul(1_000_000_000).ok_or_else(bad)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a day of the Gregorian calendar.
///
/// # Source
/// Howard Hinnant, "chrono-compatible low-level date algorithms", `days_from_civil`.
pub(crate) fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Words and phrases, with quotation marks at their beginnings taken off.
fn pieces(text: &str) -> Result<Vec<Piece>, QueryError> {
    let chars: Vec<char> = text.chars().collect();
    let (mut pieces, mut at) = (Vec::new(), 0);
    while at < chars.len() {
        if chars[at].is_whitespace() {
            at += 1;
            continue;
        }
        let minus = chars[at] == '-' && chars.get(at + 1).is_some_and(|next| !next.is_whitespace() && *next != '-');
        at += usize::from(minus);
        let key = key_at(&chars[at..]);
        at += key.as_ref().map_or(0, |key| key.chars().count() + 1);
        let quoted = chars.get(at).copied().filter(|c| matches!(c, '"' | '\u{201c}' | '\u{201e}'));
        let value: String;
        if let Some(mark) = quoted {
            let closing: &[char] = if mark == '"' { &['"'] } else { &['\u{201c}', '\u{201d}'] };
            let begins = at + 1;
            let length = chars[begins..].iter().position(|c| closing.contains(c));
            let length = length.ok_or(QueryError::UnclosedQuote { at: at + 1 })?;
            value = chars[begins..begins + length].iter().collect();
            at = begins + length + 1;
        } else {
            let length = chars[at..].iter().position(|c| c.is_whitespace()).unwrap_or(chars.len() - at);
            value = chars[at..at + length].iter().collect();
            at += length;
        }
        if !value.trim().is_empty() {
            pieces.push(Piece { minus, key, value: value.trim().into(), quoted: quoted.is_some() });
        }
    }
    Ok(pieces)
}

/// A known key with a colon and something other than a space behind it.
fn key_at(chars: &[char]) -> Option<String> {
    let colon = chars.iter().take(8).position(|c| *c == ':')?;
    let key: String = chars[..colon].iter().collect::<String>().to_lowercase();
    let followed = chars.get(colon + 1).is_some_and(|next| !next.is_whitespace());
    (followed && KEYS.contains(&key.as_str())).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Query, QueryError> {
        Query::parse(text, Some(std::path::Path::new("/u")), UNIX_EPOCH + Duration::from_secs(10 * 86_400))
    }

    #[test]
    fn words_phrases_and_qualifiers_are_told_apart() {
        let query = parse("a ship type:image,video -draft \"under sail\" ext:.PNG in:~/Docs after:1970-01-03").unwrap();
        assert_eq!(query.text, "a ship under sail");
        assert_eq!(query.words, ["a", "ship"]);
        assert_eq!(query.phrases, ["under sail"]);
        assert_eq!(query.without, ["draft"]);
        assert_eq!(query.filter.kinds, [Kind::Image, Kind::Video]);
        assert_eq!(query.filter.endings, ["png"]);
        assert_eq!(query.filter.folders, [PathBuf::from("/u/Docs")]);
        assert_eq!(query.filter.after_ns, Some(2 * 86_400 * 1_000_000_000));
    }

    #[test]
    fn what_is_no_qualifier_stays_text() {
        for text in ["12:30", "http://example.org", "type: image", "12\" pipe", "a - b", "--help", "note:x"] {
            let query = parse(text).unwrap();
            assert_eq!(query.text, text);
            assert!(query.filter.is_open() && query.without.is_empty(), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(parse("a \"b"), Err(QueryError::UnclosedQuote { at: 3 }));
        assert_eq!(parse("type:picture"), Err(QueryError::UnknownKind { found: "picture".into() }));
        for wrong in ["2026-02-30", "2026-13-01", "26-01-01", "x", "-3d", "2026-01-01-01", "99999999999d", "d"] {
            assert!(matches!(parse(&format!("a before:{wrong}")), Err(QueryError::BadDate { .. })), "{wrong}");
        }
    }

    #[test]
    fn negated_qualifiers_turn_round() {
        let query = parse("x -type:pdf -ext:txt -in:/a -after:1970-01-02").unwrap();
        assert_eq!(query.filter.not_kinds, [Kind::Pdf]);
        assert_eq!(query.filter.not_endings, ["txt"]);
        assert_eq!(query.filter.not_folders, [PathBuf::from("/a")]);
        assert_eq!((query.filter.after_ns, query.filter.before_ns), (None, Some(86_400 * 1_000_000_000)));
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        let day = |text: &str| time_of(text, UNIX_EPOCH).unwrap() / 86_400_000_000_000;
        assert_eq!([day("1970-01-01"), day("2000-03-01"), day("2024-02-29"), day("2026")], [0, 11_017, 19_782, 20_454]);
        assert_eq!(parse("a after:3d").unwrap().filter.after_ns, Some(7 * 86_400 * 1_000_000_000));
    }

    #[test]
    fn only_qualifiers_leave_nothing_to_search_for() {
        assert!(parse("type:image -x").unwrap().is_empty());
        assert!(parse("  ").unwrap().is_empty());
    }
}
