//! Text as FTS5 splits it, asked of FTS5 itself, so that both stores have the same words; and text as Postgres can hold it.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;

use rusqlite::Connection;
use sha2::{Digest, Sha256};

use crate::error::IndexError;

/// Positions of a lexeme and of a text that a `tsvector` holds: 255 and 16,383; and its bytes, one MiB.
const MOST_OF_A_WORD: usize = 250;
const MOST_WORDS: usize = 16_000;
const MOST_BYTES: usize = 500_000;
/// Bytes of a lexeme: a `tsvector` holds 2,046. Longer words are known by their digest.
const LONGEST_WORD: usize = 1024;
/// Runs of three characters that are looked up; what has them all is looked through.
const MOST_RUNS: usize = 24;

/// Splits text into words and folds characters.
pub(super) struct Splitter {
    /// In memory.
    fts: Connection,
    /// What `parts` makes of characters; nothing of some.
    folded: HashMap<char, Option<char>>,
}

/// What is kept of a text for the search by words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Split {
    /// As `tsvector` reads it; none where it cannot hold it all.
    pub words: Option<String>,
    /// How many words it has.
    pub length: i32,
}

impl Split {
    /// True where the words are not all in `words`: such a text is looked through.
    pub fn is_clipped(&self) -> bool {
        self.words.is_none()
    }
}

impl Splitter {
    pub fn new() -> Result<Self, IndexError> {
        let made = Connection::open_in_memory().and_then(|fts| {
            fts.execute_batch(
                "CREATE VIRTUAL TABLE words USING fts5 (text, content = '', tokenize = 'unicode61 remove_diacritics 2');
                 CREATE VIRTUAL TABLE seen_words USING fts5vocab (words, 'instance');
                 CREATE VIRTUAL TABLE parts USING fts5 (text, content = '', tokenize = 'trigram remove_diacritics 1');
                 CREATE VIRTUAL TABLE seen_parts USING fts5vocab (parts, 'instance');",
            )?;
            Ok(Self { fts, folded: HashMap::new() })
        });
        made.map_err(error_of)
    }

    /// The words of texts, in order.
    pub fn words(&mut self, texts: &[&str]) -> Result<Vec<Vec<String>>, IndexError> {
        let mut words = vec![Vec::new(); texts.len()];
        self.seen("words", texts.iter().enumerate().map(|(at, text)| (at as i64, *text)), |text, at, word| {
            if let Some(words) = words.get_mut(text as usize) {
                if words.len() <= at {
                    words.resize(at + 1, String::new());
                }
                words[at] = word;
            }
        })?;
        Ok(words)
    }

    fn seen<'t>(
        &mut self,
        table: &str,
        texts: impl Iterator<Item = (i64, &'t str)>,
        mut tell: impl FnMut(i64, usize, String),
    ) -> Result<(), IndexError> {
        let run = || -> rusqlite::Result<()> {
            let begun = self.fts.unchecked_transaction()?;
            begun.execute(&format!("INSERT INTO {table} ({table}) VALUES ('delete-all')"), [])?;
            let mut insert = begun.prepare_cached(&format!("INSERT INTO {table} (rowid, text) VALUES (?1, ?2)"))?;
            for (id, text) in texts {
                insert.execute((id, text))?;
            }
            let mut select = begun.prepare_cached(&format!("SELECT doc, offset, term FROM seen_{table}"))?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                tell(row.get(0)?, row.get::<_, i64>(1)?.max(0) as usize, row.get(2)?);
            }
            drop(rows);
            drop((insert, select));
            begun.commit()
        };
        run().map_err(error_of)
    }

    /// A text as runs of three characters are taken from it: without accents and case.
    pub fn folded(&mut self, text: &str) -> Result<String, IndexError> {
        let mut new: Vec<char> = text.chars().filter(|c| !self.folded.contains_key(c)).collect();
        new.sort_unstable();
        new.dedup();
        if !new.is_empty() {
            let texts: Vec<(i64, String)> = new.iter().map(|c| (i64::from(u32::from(*c)), format!("xx{c}"))).collect();
            let mut found: HashMap<i64, char> = HashMap::new();
            self.seen("parts", texts.iter().map(|(id, text)| (*id, text.as_str())), |id, _, run| {
                found.extend(run.chars().nth(2).map(|c| (id, c)));
            })?;
            self.folded.extend(new.iter().map(|c| (*c, found.get(&i64::from(u32::from(*c))).copied())));
        }
        Ok(text.chars().filter_map(|c| self.folded[&c]).collect())
    }
}

fn error_of(source: rusqlite::Error) -> IndexError {
    IndexError::Database { path: "the words of a text, split in memory".into(), source }
}

/// Words as a `tsvector`.
pub(super) fn split(words: &[String]) -> Split {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, word) in words.iter().enumerate() {
        places.entry(word).or_default().push(at + 1);
    }
    let length = i32::try_from(words.len()).unwrap_or(i32::MAX);
    let whole = words.len() <= MOST_WORDS && places.values().all(|places| places.len() <= MOST_OF_A_WORD);
    let mut text = String::new();
    for (word, places) in places.iter().filter(|_| whole) {
        text.push_str(&lexeme(word));
        for (at, place) in places.iter().enumerate() {
            let _ = write!(text, "{}{place}", if at == 0 { ':' } else { ',' });
        }
        text.push(' ');
    }
    Split { words: Some(text).filter(|text| whole && text.len() <= MOST_BYTES), length }
}

/// A folded text as the runs of three characters in it, without their places; none where a `tsvector` cannot hold them.
pub(super) fn runs(folded: &str) -> Option<String> {
    let runs = runs_of(folded);
    let text = runs.iter().map(|run| lexeme(run)).collect::<Vec<_>>().join(" ");
    Some(text).filter(|text| text.len() <= MOST_BYTES)
}

/// How many runs of three characters a folded text has.
pub(super) fn count_runs(folded: &str) -> i32 {
    i32::try_from(folded.chars().count().saturating_sub(2)).unwrap_or(i32::MAX)
}

fn runs_of(folded: &str) -> Vec<String> {
    let characters: Vec<char> = folded.chars().collect();
    let mut runs: Vec<String> = characters.windows(3).map(|run| run.iter().collect()).collect();
    runs.sort_unstable();
    runs.dedup();
    runs
}

/// What has a folded text of three characters or more has these, as `tsquery` reads it; none for less.
pub(super) fn query_of_runs(folded: &str) -> Option<String> {
    let mut runs = runs_of(folded);
    runs.truncate(MOST_RUNS);
    let runs: Vec<String> = runs.iter().map(|run| lexeme(run)).collect();
    Some(runs.join(" & ")).filter(|query| !query.is_empty())
}

/// Words in their order, one behind the other, as `tsquery` reads it; none for no word.
pub(super) fn phrase(words: &[String]) -> Option<String> {
    let words: Vec<String> = words.iter().map(|word| lexeme(word)).collect();
    Some(words.join(" <-> ")).filter(|phrase| !phrase.is_empty())
}

/// How often words stand in a text one behind the other.
pub(super) fn count_phrase(text: &[String], phrase: &[String]) -> usize {
    if phrase.is_empty() { 0 } else { text.windows(phrase.len()).filter(|words| *words == phrase).count() }
}

/// A word as `tsvector` and `tsquery` read it, whatever is in it.
fn lexeme(word: &str) -> String {
    if word.len() > LONGEST_WORD {
        let digest: String = Sha256::digest(word).iter().map(|byte| format!("{byte:02x}")).collect();
        // No word begins with a control character.
        return format!("'\u{1}{digest}'");
    }
    format!("'{}'", word.replace('\\', "\\\\").replace('\'', "''"))
}

/// The sign before what a `text` of Postgres cannot hold.
const ESCAPE: char = '\u{1A}';

/// A text as Postgres can hold it: without zeros.
pub(super) fn to_text(text: &str) -> String {
    if !text.contains(['\0', ESCAPE]) {
        return text.into();
    }
    let mut held = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\0' => held.extend([ESCAPE, '0']),
            ESCAPE => held.extend([ESCAPE, ESCAPE]),
            c => held.push(c),
        }
    }
    held
}

/// What [`to_text`] was given.
///
/// # Errors
/// [`IndexError::Corrupt`] for a text that it never gives.
pub(super) fn of_text(held: String, place: &Path) -> Result<String, IndexError> {
    if !held.contains(ESCAPE) {
        return Ok(held);
    }
    let (mut text, mut rest) = (String::with_capacity(held.len()), held.chars());
    while let Some(c) = rest.next() {
        match c {
            ESCAPE => match rest.next() {
                Some('0') => text.push('\0'),
                Some(ESCAPE) => text.push(ESCAPE),
                _ => {
                    return Err(IndexError::Corrupt { path: place.into(), what: "a text with a broken escape".into() });
                }
            },
            c => text.push(c),
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_fts5_in_their_order() {
        let mut splitter = Splitter::new().unwrap();
        let words = splitter.words(&["Le café est fermé, le CAFÉ!", "", "foo-bar_baz 東京タワー"]).unwrap();
        assert_eq!(words[0], ["le", "cafe", "est", "ferme", "le", "cafe"]);
        assert_eq!((words[1].len(), words[2].join("|").as_str()), (0, "foo|bar|baz|東京タワー"));
        // Nothing is left of before.
        assert_eq!(splitter.words(&["one"]).unwrap(), [["one"]]);
    }

    #[test]
    fn folding_is_that_of_runs_of_three() {
        let mut splitter = Splitter::new().unwrap();
        assert_eq!(splitter.folded("ÀB\0c̈ß東\u{301}").unwrap(), "abcß東");
    }

    #[test]
    fn what_a_tsvector_cannot_hold_is_known() {
        let words = |count: usize| vec!["w".to_string(); count];
        assert_eq!(split(&words(2)), Split { words: Some("'w':1,2 ".into()), length: 2 });
        assert!(split(&words(251)).is_clipped() && !split(&[]).is_clipped());
        assert_eq!(count_phrase(&words(4), &words(2)), 3);
        assert!(lexeme(&"x".repeat(5000)).len() < 80);
        assert_eq!(lexeme("it's \\"), "'it''s \\\\'");
    }

    #[test]
    fn texts_with_zeros_come_back() {
        for text in ["plain", "a\0b", "\u{1A}0\0\u{1A}"] {
            let held = to_text(text);
            assert!(!held.contains('\0'));
            assert_eq!(of_text(held, Path::new("x")).unwrap(), text);
        }
        assert!(of_text("\u{1A}x".into(), Path::new("x")).is_err());
    }
}
