//! The search by words: FTS5's bm25 over chunks and over names, with filters inside.

use rusqlite::types::Value;
use rusqlite::{ToSql, params_from_iter};

use crate::error::IndexError;
use crate::query::{Filter, Query};
use crate::store::{Database, below, bytes_of_path};

/// English words that say nothing of what is looked for. Left out of a query as long as something else remains.
const STOP_WORDS: &[&str] = &[
    "a", "about", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by", "can", "could", "did", "do",
    "does", "for", "from", "had", "has", "have", "he", "her", "his", "how", "i", "if", "in", "into", "is", "it", "its",
    "me", "my", "no", "not", "of", "on", "or", "our", "she", "should", "so", "some", "that", "the", "their", "them",
    "then", "there", "these", "they", "this", "those", "to", "was", "we", "were", "what", "when", "where", "which",
    "who", "why", "will", "with", "would", "you", "your",
];

/// A condition over `files f` and `contents c` with its values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Condition {
    pub sql: String,
    pub values: Vec<Value>,
}

impl Condition {
    /// What a query allows: its qualifiers, its phrases, and what it must not have.
    pub fn of(query: &Query) -> Self {
        let mut condition = Self { sql: "1".into(), values: Vec::new() };
        condition.add_filter(&query.filter);
        for phrase in &query.phrases {
            condition.add_text(phrase, "");
        }
        for word in &query.without {
            condition.add_text(word, "NOT ");
        }
        condition
    }

    /// True where everything is allowed.
    pub fn is_open(&self) -> bool {
        self.sql == "1"
    }

    fn add_filter(&mut self, filter: &Filter) {
        let among = |column: &str, values: usize, not: &str| {
            format!(" AND {column} {not}IN ({})", vec!["?"; values].join(", "))
        };
        for (kinds, not) in [(&filter.kinds, ""), (&filter.not_kinds, "NOT ")] {
            if !kinds.is_empty() {
                self.sql += &among("c.kind", kinds.len(), not);
                self.values.extend(kinds.iter().map(|kind| Value::from(kind.name().to_string())));
            }
        }
        for (endings, not) in [(&filter.endings, ""), (&filter.not_endings, "NOT ")] {
            if !endings.is_empty() {
                self.sql += &among("f.ext", endings.len(), not);
                self.values.extend(endings.iter().map(|ending| Value::from(ending.clone())));
            }
        }
        for (folders, not) in [(&filter.folders, ""), (&filter.not_folders, "NOT ")] {
            if !folders.is_empty() {
                let one = "f.path = ? OR (f.path >= ? AND f.path < ?)";
                self.sql += &format!(" AND {not}({})", vec![one; folders.len()].join(" OR "));
                for folder in folders {
                    let (from, to) = below(folder);
                    self.values.extend([bytes_of_path(folder), from, to].map(Value::from));
                }
            }
        }
        for (at, sign) in [(filter.after_ns, ">="), (filter.before_ns, "<")] {
            if let Some(at) = at {
                // A photograph is of the time at which it was taken, whenever it was copied.
                self.sql += &format!(" AND coalesce(c.taken_ns, f.mtime_ns) {sign} ?");
                self.values.push(at.into());
            }
        }
    }

    /// Contents in whose text or name a phrase stands, or does not.
    fn add_text(&mut self, phrase: &str, not: &str) {
        let (table, text) =
            if is_unspaced(phrase) && phrase.chars().count() >= 3 { ("parts", phrase) } else { ("words", phrase) };
        self.sql += &format!(
            " AND {not}(c.id IN (SELECT ch.content FROM {table} w JOIN chunks ch ON ch.id = w.rowid WHERE {table} MATCH ?)
              OR f.id IN (SELECT n.rowid FROM names n WHERE names MATCH ?))"
        );
        self.values.extend([quoted(text), quoted(text)].map(Value::from));
    }

    /// The contents that are allowed, as a list for `IN`.
    pub fn contents(&self) -> String {
        format!("SELECT f.content FROM files f JOIN contents c ON c.id = f.content WHERE {}", self.sql)
    }
}

/// What a query looks for by words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Terms {
    /// For scripts with spaces.
    pub spaced: Vec<String>,
    /// For scripts without, as runs of characters.
    pub unspaced: Vec<String>,
}

impl Terms {
    pub fn of(query: &Query) -> Self {
        let all: Vec<&String> = query.words.iter().chain(&query.phrases).collect();
        let has_letters = |term: &&&String| term.chars().any(char::is_alphanumeric);
        let (unspaced, spaced): (Vec<&String>, Vec<&String>) =
            all.iter().filter(has_letters).copied().partition(|term| is_unspaced(term));
        let bare = |term: &str| term.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
        let telling: Vec<&String> =
            spaced.iter().filter(|term| !STOP_WORDS.contains(&bare(term).as_str())).copied().collect();
        let spaced = if telling.is_empty() && unspaced.is_empty() { spaced } else { telling };
        Self { spaced: spaced.into_iter().cloned().collect(), unspaced: unspaced.into_iter().cloned().collect() }
    }

    pub fn is_empty(&self) -> bool {
        self.spaced.is_empty() && self.unspaced.is_empty()
    }

    /// Every term.
    pub fn all(&self) -> impl Iterator<Item = &String> {
        self.spaced.iter().chain(&self.unspaced)
    }
}

/// A chunk, or a file, and how well it matches: higher is better.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Match {
    pub id: i64,
    pub bm25: f64,
}

/// The terms of a query with what each of them says: the fewer chunks have it, the more.
#[derive(Debug, Default)]
pub(crate) struct Weights(Vec<Weighted>);

#[derive(Debug)]
struct Weighted {
    term: String,
    weight: f64,
    /// How seldom a chunk has it, as a power of ten.
    rarity: f64,
}

/// In an index of fewer chunks a word that one of them has is as seldom as in one of this many.
const FEW_CHUNKS: f64 = 40.0;

/// Which of the terms something has.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Share {
    /// By weight: from 0 to 1, and 1 of all.
    pub share: f32,
    /// How seldom a chunk would have them all, were they independent of each other, as a power of ten.
    pub rarity: f32,
}

impl Weights {
    /// Of terms in an index: the inverse frequency of bm25, which is never below zero.
    pub fn of(db: &Database, terms: &Terms) -> Result<Self, IndexError> {
        if terms.is_empty() {
            return Ok(Self::default());
        }
        let count = |sql: &str, values: &[&dyn ToSql]| {
            let found = db.prepare(sql)?.query_row(values, |row| row.get::<_, i64>(0));
            found.map(|count| count as f64).map_err(|e| db.error(e))
        };
        let all = count("SELECT count(*) FROM chunks", &[])?;
        let weight = |term: &String| {
            let with = match table_of(term) {
                Some(table) => {
                    let sql = format!("SELECT count(*) FROM {table} WHERE {table} MATCH ?1");
                    count(&sql, &[&quoted(term)])?
                }
                // No index has them: they count as one that a tenth of the chunks have.
                None => all / 10.0,
            };
            let weight = (1.0 + (all - with + 0.5).max(0.5) / (with + 0.5)).ln();
            let rarity = ((all.max(FEW_CHUNKS) + 1.0) / (with + 0.5)).log10().max(0.0);
            Ok(Weighted { term: term.clone(), weight, rarity })
        };
        terms.all().map(weight).collect::<Result<_, IndexError>>().map(Self)
    }

    /// The share of the terms that something has.
    pub fn share(&self, has: impl Fn(&str) -> Result<bool, IndexError>) -> Result<Share, IndexError> {
        let (mut there, mut all, mut rarity) = (0.0, 0.0, 0.0);
        for one in &self.0 {
            all += one.weight;
            if has(&one.term)? {
                there += one.weight;
                rarity += one.rarity;
            }
        }
        Ok(Share { share: if all > 0.0 { (there / all) as f32 } else { 0.0 }, rarity: rarity as f32 })
    }
}

/// The index that has a term; `None` for one or two characters of a script without spaces.
fn table_of(term: &str) -> Option<&'static str> {
    match (is_unspaced(term), term.chars().count()) {
        (true, ..3) => None,
        (true, _) => Some("parts"),
        (false, _) => Some("words"),
    }
}

/// Chunks that have some of the terms, best first.
pub(crate) fn chunks(
    db: &Database,
    terms: &Terms,
    condition: &Condition,
    most: usize,
) -> Result<Vec<Match>, IndexError> {
    let mut found = Vec::new();
    if !terms.spaced.is_empty() {
        found = matches(db, "words", &any_of(&terms.spaced), condition, most)?;
    }
    let long = |term: &&String| term.chars().count() >= 3;
    let mut runs: Vec<String> = terms.unspaced.iter().filter(long).cloned().collect();
    if found.is_empty() {
        // Nothing has the whole words: perhaps something has them inside of others.
        runs.extend(terms.spaced.iter().filter(long).cloned());
    }
    let mut add = |more: Vec<Match>| {
        let new = more.into_iter().filter(|one| found.iter().all(|there: &Match| there.id != one.id));
        let new: Vec<Match> = new.collect();
        found.extend(new);
    };
    if !runs.is_empty() {
        add(matches(db, "parts", &any_of(&runs), condition, most)?);
    }
    for short in terms.unspaced.iter().filter(|term| !long(term)) {
        add(containing(db, short, condition, most)?);
    }
    Ok(found)
}

/// Files whose names have some of the terms, or every one of them, best first.
pub(crate) fn names(
    db: &Database,
    terms: &Terms,
    every: bool,
    condition: &Condition,
    most: usize,
) -> Result<Vec<Match>, IndexError> {
    let all: Vec<String> = terms.all().cloned().collect();
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let expression = if every { all_of(&all) } else { any_of(&all) };
    let sql = format!(
        "SELECT n.rowid, -n.rank FROM names n JOIN files f ON f.id = n.rowid JOIN contents c ON c.id = f.content
         WHERE names MATCH ? AND {} ORDER BY n.rank LIMIT ?",
        condition.sql
    );
    run(db, &sql, &expression, &condition.values, most)
}

/// True where a chunk has a term, as the search by words sees it.
pub(crate) fn chunk_has(db: &Database, chunk: i64, term: &str) -> Result<bool, IndexError> {
    let Some(table) = table_of(term) else {
        return one(db, "SELECT instr(text, ?2) > 0 FROM chunks WHERE id = ?1", chunk, term);
    };
    let sql = format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE rowid = ?1 AND {table} MATCH ?2)");
    one(db, &sql, chunk, &quoted(term))
}

/// True where the name of a file has a term.
pub(crate) fn name_has(db: &Database, file: i64, term: &str) -> Result<bool, IndexError> {
    one(db, "SELECT EXISTS (SELECT 1 FROM names WHERE rowid = ?1 AND names MATCH ?2)", file, &quoted(term))
}

fn one(db: &Database, sql: &str, id: i64, text: &str) -> Result<bool, IndexError> {
    let mut statement = db.prepare(sql)?;
    statement.query_row((id, text), |row| row.get(0)).map_err(|e| db.error(e))
}

fn matches(
    db: &Database,
    table: &str,
    expression: &str,
    condition: &Condition,
    most: usize,
) -> Result<Vec<Match>, IndexError> {
    let filter = if condition.is_open() {
        String::new()
    } else {
        format!("AND (SELECT content FROM chunks WHERE id = w.rowid) IN ({})", condition.contents())
    };
    let sql = format!("SELECT w.rowid, -w.rank FROM {table} w WHERE {table} MATCH ? {filter} ORDER BY w.rank LIMIT ?");
    let values: &[Value] = if condition.is_open() { &[] } else { &condition.values };
    run(db, &sql, expression, values, most)
}

/// Chunks that contain one or two characters, which no index has: every allowed one is looked through.
fn containing(db: &Database, run_of: &str, condition: &Condition, most: usize) -> Result<Vec<Match>, IndexError> {
    let sql = format!(
        "SELECT id, 0.0 FROM chunks WHERE instr(text, ?) > 0 AND content IN ({}) ORDER BY id LIMIT ?",
        condition.contents()
    );
    run(db, &sql, run_of, &condition.values, most)
}

fn run(db: &Database, sql: &str, text: &str, values: &[Value], most: usize) -> Result<Vec<Match>, IndexError> {
    let (text, most) = (Value::from(text.to_string()), Value::from(most as i64));
    let all = std::iter::once(&text).chain(values).chain(std::iter::once(&most));
    let all: Vec<&dyn ToSql> = all.map(|value| value as &dyn ToSql).collect();
    let mut statement = db.prepare(sql)?;
    let rows = statement.query_map(params_from_iter(all), |row| Ok(Match { id: row.get(0)?, bm25: row.get(1)? }));
    rows.and_then(Iterator::collect).map_err(|e| db.error(e))
}

/// Any of the terms, as FTS5 writes it.
fn any_of(terms: &[String]) -> String {
    terms.iter().map(|term| quoted(term)).collect::<Vec<_>>().join(" OR ")
}

/// All of the terms.
fn all_of(terms: &[String]) -> String {
    terms.iter().map(|term| quoted(term)).collect::<Vec<_>>().join(" AND ")
}

/// A term as FTS5 reads it, whatever is in it.
fn quoted(term: &str) -> String {
    format!("\"{}\"", term.replace('"', "\"\"").replace('\0', " "))
}

/// True for text in a script that is written without spaces between words.
pub(crate) fn is_unspaced(text: &str) -> bool {
    text.chars().any(|c| {
        matches!(u32::from(c),
            0x0E00..=0x0EFF | 0x1000..=0x109F | 0x1780..=0x17FF | 0x3040..=0x30FF | 0x3400..=0x4DBF | 0x4E00..=0x9FFF
            | 0xAC00..=0xD7AF | 0xF900..=0xFAFF | 0x20000..=0x323AF)
    })
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn terms(text: &str) -> Terms {
        Terms::of(&Query::parse(text, None, UNIX_EPOCH).unwrap())
    }

    #[test]
    fn words_that_say_nothing_are_left_out_as_long_as_others_remain() {
        assert_eq!(terms("Where is the guitar?").spaced, ["guitar?"]);
        assert_eq!(terms("to be or not to be").spaced.len(), 6);
        assert_eq!(terms("- ! ?"), Terms::default());
    }

    #[test]
    fn scripts_without_spaces_are_told_apart() {
        assert_eq!(terms("東京 tower").unspaced, ["東京"]);
        assert_eq!(terms("東京 tower").spaced, ["tower"]);
    }

    #[test]
    fn nothing_in_a_term_is_an_operator() {
        assert_eq!(any_of(&["a\"b".into(), "NEAR(".into()]), "\"a\"\"b\" OR \"NEAR(\"");
    }
}
