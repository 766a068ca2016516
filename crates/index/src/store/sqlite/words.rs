//! The search by words in SQLite: FTS5's bm25 over chunks and over names, with filters inside.

use std::collections::HashSet;

use rusqlite::types::Value;
use rusqlite::{ToSql, params_from_iter};

use super::Database;
use crate::error::IndexError;
use crate::query::Filter;
use crate::script::is_unspaced;
use crate::store::path::{below, bytes_of_path};
use crate::store::rows::Match;
use crate::store::{Condition, WordIndex};

/// A condition over `files f` and `contents c` with its values.
pub(super) struct Where {
    pub sql: String,
    pub values: Vec<Value>,
}

impl Where {
    pub fn of(condition: &Condition) -> Self {
        let mut this = Self { sql: "1".into(), values: Vec::new() };
        this.add_filter(&condition.filter);
        for phrase in &condition.phrases {
            this.add_text(phrase, "");
        }
        for word in &condition.without {
            this.add_text(word, "NOT ");
        }
        this
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
        let long = is_unspaced(phrase) && phrase.chars().count() >= 3;
        let table = table_of(if long { WordIndex::Parts } else { WordIndex::Words });
        self.sql += &format!(
            " AND {not}(c.id IN (SELECT ch.content FROM {table} w JOIN chunks ch ON ch.id = w.rowid WHERE {table} MATCH ?)
              OR f.id IN (SELECT n.rowid FROM names n WHERE names MATCH ?))"
        );
        self.values.extend([quoted(phrase), quoted(phrase)].map(Value::from));
    }

    /// The contents that are allowed, as a list for `IN`.
    pub fn contents(&self) -> String {
        format!("SELECT f.content FROM files f JOIN contents c ON c.id = f.content WHERE {}", self.sql)
    }
}

fn table_of(index: WordIndex) -> &'static str {
    match index {
        WordIndex::Words => "words",
        WordIndex::Parts => "parts",
    }
}

impl Database {
    /// How many chunks have a term, and which of these do: one pass over its list, where FTS5 would look up one chunk at a time
    /// as slowly as it passes over hundreds.
    pub fn chunks_with(&self, index: WordIndex, term: &str, ids: &[i64]) -> Result<(usize, HashSet<i64>), IndexError> {
        let table = table_of(index);
        let mut statement = self.prepare(&format!("SELECT rowid FROM {table} WHERE {table} MATCH ?1"))?;
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        let mut pass = || {
            let (mut count, mut having) = (0, HashSet::new());
            let mut rows = statement.query([quoted(term)])?;
            while let Some(row) = rows.next()? {
                let id = row.get(0)?;
                count += 1;
                if sorted.binary_search(&id).is_ok() {
                    having.insert(id);
                }
            }
            Ok((count, having))
        };
        pass().map_err(|e| self.error(e))
    }

    /// Chunks that have some of the terms.
    pub fn match_chunks(
        &self,
        index: WordIndex,
        terms: &[String],
        condition: &Condition,
        most: usize,
    ) -> Result<Vec<Match>, IndexError> {
        let (table, allowed) = (table_of(index), Where::of(condition));
        let sql = if condition.is_open() {
            // Only the best are sorted. `ORDER BY rank` sorts all of them, and what it reads after that is for filters, which are
            // then asked of the best alone.
            format!(
                "SELECT rowid, -bm25({table}) AS score FROM {table} WHERE {table} MATCH ?
                 ORDER BY score DESC, rowid LIMIT ?"
            )
        } else {
            format!(
                "SELECT w.rowid, -w.rank FROM {table} w WHERE {table} MATCH ?
                 AND (SELECT content FROM chunks WHERE id = w.rowid) IN ({}) ORDER BY w.rank LIMIT ?",
                allowed.contents()
            )
        };
        self.matches(&sql, &any_of(terms), &allowed.values, most)
    }

    /// Chunks that contain some characters, which no index has: every allowed one is looked through.
    pub fn containing(&self, run: &str, condition: &Condition, most: usize) -> Result<Vec<Match>, IndexError> {
        let allowed = Where::of(condition);
        let sql = format!(
            "SELECT id, 0.0 FROM chunks WHERE instr(text, ?) > 0 AND content IN ({}) ORDER BY id LIMIT ?",
            allowed.contents()
        );
        self.matches(&sql, run, &allowed.values, most)
    }

    /// Files whose names have some of the terms, or every one of them.
    pub fn match_names(
        &self,
        terms: &[String],
        every: bool,
        condition: &Condition,
        most: usize,
    ) -> Result<Vec<Match>, IndexError> {
        let expression = if every { all_of(terms) } else { any_of(terms) };
        let allowed = Where::of(condition);
        let sql = format!(
            "SELECT n.rowid, -n.rank FROM names n JOIN files f ON f.id = n.rowid JOIN contents c ON c.id = f.content
             WHERE names MATCH ? AND {} ORDER BY n.rank LIMIT ?",
            allowed.sql
        );
        self.matches(&sql, &expression, &allowed.values, most)
    }

    /// Which of these chunks have a text that contains some characters as they are.
    pub fn chunks_containing(&self, run: &str, ids: &[i64]) -> Result<HashSet<i64>, IndexError> {
        self.having(ids, "SELECT instr(text, ?2) > 0 FROM chunks WHERE id = ?1", run)
    }

    /// Which of these files have a term in their names.
    pub fn names_with(&self, ids: &[i64], term: &str) -> Result<HashSet<i64>, IndexError> {
        self.having(ids, "SELECT EXISTS (SELECT 1 FROM names WHERE rowid = ?1 AND names MATCH ?2)", &quoted(term))
    }

    fn having(&self, ids: &[i64], sql: &str, text: &str) -> Result<HashSet<i64>, IndexError> {
        let mut statement = self.prepare(sql)?;
        let mut having = HashSet::new();
        for id in ids {
            if statement.query_row((id, text), |row| row.get(0)).map_err(|e| self.error(e))? {
                having.insert(*id);
            }
        }
        Ok(having)
    }

    fn matches(&self, sql: &str, text: &str, values: &[Value], most: usize) -> Result<Vec<Match>, IndexError> {
        let (text, most) = (Value::from(text.to_string()), Value::from(most as i64));
        let all = std::iter::once(&text).chain(values).chain(std::iter::once(&most));
        let all: Vec<&dyn ToSql> = all.map(|value| value as &dyn ToSql).collect();
        let mut statement = self.prepare(sql)?;
        let rows = statement.query_map(params_from_iter(all), |row| Ok(Match { id: row.get(0)?, bm25: row.get(1)? }));
        rows.and_then(Iterator::collect).map_err(|e| self.error(e))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_term_is_an_operator() {
        assert_eq!(any_of(&["a\"b".into(), "NEAR(".into()]), "\"a\"\"b\" OR \"NEAR(\"");
    }
}
