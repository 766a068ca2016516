//! The search by words on a server: FTS5's bm25 in SQL over the same words, with filters inside.
//!
//! A `tsvector` holds what FTS5 makes of a text, so that the words of both stores are equal. How often a phrase stands in one is
//! `ts_rank_cd` with all weights one, which is the number of its covers. The few texts that a `tsvector` cannot hold are read
//! and counted here. Equal operations in equal order give the same bits as FTS5.

use std::collections::HashSet;

use postgres::types::ToSql;

use super::session::{Server, Value};
use super::split::{count_phrase, of_text, phrase, query_of_runs, to_text};
use super::write::Counters;
use crate::error::IndexError;
use crate::query::Filter;
use crate::script::is_unspaced;
use crate::store::path::{below, bytes_of_path, path_of_bytes};
use crate::store::rows::{Match, name_of};
use crate::store::{Condition, WordIndex};

/// The constants of bm25 in FTS5.
const K1: f64 = 1.2;
const B: f64 = 0.75;
/// The inverse document frequency of what more than half of the texts have.
const LEAST_IDF: f64 = 1e-6;

/// Values of a statement, and the names that they have in it.
#[derive(Default)]
pub(super) struct Values(Vec<Box<dyn ToSql + Sync>>);

impl Values {
    /// Adds a value; gives its name.
    pub fn add(&mut self, value: impl ToSql + Sync + 'static) -> String {
        self.0.push(Box::new(value));
        format!("${}", self.0.len())
    }

    pub fn pop(&mut self) {
        self.0.pop();
    }

    pub fn all(&self) -> Vec<Value<'_>> {
        self.0.iter().map(|value| value.as_ref() as Value<'_>).collect()
    }
}

/// How often phrases stand in a text, and how many words it has: as bm25.
fn bm25(idfs: &[f64], counts: &[f64], length: f64, mean: f64) -> f64 {
    let mut score = 0.0;
    for (idf, count) in idfs.iter().zip(counts) {
        score += idf * ((count * (K1 + 1.0)) / (count + K1 * (1.0 - B + B * length / mean)));
    }
    score
}

/// The same in SQL: `counts` are names of columns.
fn bm25_sql(values: &mut Values, idfs: &[f64], counts: &[String], length: &str, mean: f64) -> String {
    let (k1, b, mean) = (values.add(K1), values.add(B), values.add(mean));
    let (k1, b) = (format!("{k1}::double precision"), format!("{b}::double precision"));
    let size = format!("(1::double precision - {b} + {b} * {length}::double precision / {mean}::double precision)");
    let term = |(idf, count): (&f64, &String)| {
        let idf = values.add(*idf);
        format!("{idf}::double precision * (({count} * ({k1} + 1::double precision)) / ({count} + {k1} * {size}))")
    };
    let terms: Vec<String> = idfs.iter().zip(counts).map(term).collect();
    format!("0::double precision + {}", terms.join(" + "))
}

/// Which of the two tables with words is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    Chunks,
    Files,
}

/// A run of characters that is looked for inside of texts.
struct Run {
    folded: String,
    /// What a text that has it has in any case.
    query: String,
}

impl Server {
    /// A condition over `files f` and `contents c`.
    pub fn condition(&self, condition: &Condition, values: &mut Values) -> Result<String, IndexError> {
        let mut sql = "true".to_string();
        filter(&condition.filter, &mut sql, values);
        for phrase in &condition.phrases {
            sql += &format!(" AND {}", self.having(phrase, values)?);
        }
        for word in &condition.without {
            sql += &format!(" AND NOT {}", self.having(word, values)?);
        }
        Ok(sql)
    }

    /// The contents that a condition allows, as a list for `IN`.
    pub fn allowed(&self, condition: &Condition, values: &mut Values) -> Result<String, IndexError> {
        let sql = self.condition(condition, values)?;
        Ok(format!("SELECT f.content FROM files f JOIN contents c ON c.id = f.content WHERE {sql}"))
    }

    /// Contents in whose text or name a phrase stands.
    fn having(&self, text: &str, values: &mut Values) -> Result<String, IndexError> {
        let words = self.words_of(text)?;
        let Some(query) = phrase(&words) else {
            // FTS5 finds nothing by what has no word, be it in a text or in a name.
            let run = self.run_of(text)?.filter(|_| is_long_run(text));
            return Ok(run.map_or("false".into(), |run| in_runs(&run, values)));
        };
        let names = {
            let (query, clipped) = (values.add(query.clone()), values.add(self.clipped_with(Table::Files, &words)?));
            format!("(f.words @@ {query}::text::tsquery OR f.id = ANY({clipped}))")
        };
        let texts = if is_long_run(text) {
            self.run_of(text)?.map_or("false".into(), |run| in_runs(&run, values))
        } else {
            let (query, clipped) = (values.add(query), values.add(self.clipped_with(Table::Chunks, &words)?));
            format!("c.id IN (SELECT content FROM chunks WHERE words @@ {query}::text::tsquery OR id = ANY({clipped}))")
        };
        Ok(format!("({texts} OR {names})"))
    }

    fn words_of(&self, text: &str) -> Result<Vec<String>, IndexError> {
        // As FTS5 reads a query.
        let text = text.replace('\0', " ");
        Ok(self.splitter().words(&[&text])?.pop().unwrap_or_default())
    }

    fn run_of(&self, text: &str) -> Result<Option<Run>, IndexError> {
        let folded = self.splitter().folded(&text.replace('\0', " "))?;
        Ok(query_of_runs(&folded).map(|query| Run { folded, query }))
    }

    /// Every text, or name, that a `tsvector` cannot hold, with its id and its words.
    fn clipped(&self, table: Table) -> Result<Vec<(i64, Vec<String>)>, IndexError> {
        let counters = Counters::read(&mut self.session(), &self.place, false)?;
        let (some, sql) = match table {
            Table::Chunks => (counters.clipped_texts, "SELECT id, text FROM chunks WHERE clipped ORDER BY id"),
            Table::Files => {
                let sql = "SELECT f.id, c.title, f.path FROM files f JOIN contents c ON c.id = f.content
                           WHERE f.clipped ORDER BY f.id";
                (counters.clipped_names, sql)
            }
        };
        if some == 0 {
            return Ok(Vec::new());
        }
        let mut all = Vec::new();
        for row in &self.query(sql, &[])? {
            let text: Option<String> = self.value(row, 1)?;
            let text = text.map(|text| of_text(text, &self.place)).transpose()?;
            let text = match table {
                Table::Chunks => text.unwrap_or_default(),
                Table::Files => name_of(&path_of_bytes(self.value(row, 2)?), text.as_deref()),
            };
            all.push((self.value(row, 0)?, self.splitter().words(&[&text])?.pop().unwrap_or_default()));
        }
        Ok(all)
    }

    fn clipped_with(&self, table: Table, phrase: &[String]) -> Result<Vec<i64>, IndexError> {
        let having = |(_, words): &(i64, Vec<String>)| count_phrase(words, phrase) > 0;
        Ok(self.clipped(table)?.into_iter().filter(having).map(|(id, _)| id).collect())
    }

    /// How many texts, or names, have a phrase.
    fn count_phrase(&self, table: Table, words: &[String]) -> Result<usize, IndexError> {
        let Some(query) = phrase(words) else { return Ok(0) };
        let name = if table == Table::Chunks { "chunks" } else { "files" };
        let sql = format!("SELECT count(*) FROM {name} WHERE words @@ $1::text::tsquery");
        Ok(self.count(&sql, &[&query])? + self.clipped_with(table, words)?.len())
    }

    fn count_run(&self, run: &Run) -> Result<usize, IndexError> {
        let sql = "SELECT count(*) FROM chunks
                   WHERE (parts @@ $1::text::tsquery OR clipped) AND strpos(folded, $2) > 0";
        self.count(sql, &[&run.query, &run.folded])
    }

    /// Chunks that have some of the terms.
    pub fn find_chunks(
        &self,
        index: WordIndex,
        terms: &[String],
        condition: &Condition,
        most: usize,
    ) -> Result<Vec<Match>, IndexError> {
        match index {
            WordIndex::Words => {
                let mut values = Values::default();
                let allowed = match condition.is_open() {
                    true => "true".to_string(),
                    false => format!("t.content IN ({})", self.allowed(condition, &mut values)?),
                };
                self.find_words(Table::Chunks, terms, false, values, &allowed, most)
            }
            WordIndex::Parts => self.find_runs(terms, condition, most),
        }
    }

    /// Files whose names have some of the terms, or every one of them.
    pub fn find_names(
        &self,
        terms: &[String],
        every: bool,
        condition: &Condition,
        most: usize,
    ) -> Result<Vec<Match>, IndexError> {
        let mut values = Values::default();
        let sql = self.condition(condition, &mut values)?;
        let allowed =
            format!("EXISTS (SELECT FROM files f JOIN contents c ON c.id = f.content WHERE f.id = t.id AND {sql})");
        self.find_words(Table::Files, terms, every, values, &allowed, most)
    }

    /// By words in either table, `t` in the condition.
    fn find_words(
        &self,
        table: Table,
        terms: &[String],
        every: bool,
        mut values: Values,
        allowed: &str,
        most: usize,
    ) -> Result<Vec<Match>, IndexError> {
        let phrases: Vec<Vec<String>> = terms.iter().map(|term| self.words_of(term)).collect::<Result<_, _>>()?;
        let queries: Vec<Option<String>> = phrases.iter().map(|words| phrase(words)).collect();
        if queries.iter().all(Option::is_none) || (every && queries.iter().any(Option::is_none)) {
            return Ok(Vec::new());
        }
        let counters = Counters::read(&mut self.session(), &self.place, false)?;
        let (rows, length) = match table {
            Table::Chunks => (counters.texts, counters.text_words),
            Table::Files => (counters.names, counters.name_words),
        };
        let mean = length as f64 / rows as f64;
        let idfs = phrases
            .iter()
            .map(|words| Ok(idf(rows, self.count_phrase(table, words)?)))
            .collect::<Result<Vec<f64>, IndexError>>()?;
        let clipped = self.clipped(table)?;
        let clipped: Vec<(i64, Vec<f64>, f64)> = clipped
            .into_iter()
            .map(|(id, words)| {
                let counts = phrases.iter().map(|phrase| count_phrase(&words, phrase) as f64).collect();
                (id, counts, words.len() as f64)
            })
            .filter(|(_, counts, _): &(i64, Vec<f64>, f64)| {
                let mut there = counts.iter().map(|count| *count > 0.0);
                if every { there.all(|there| there) } else { there.any(|there| there) }
            })
            .collect();
        let name = if table == Table::Chunks { "chunks" } else { "files" };
        let mut found = Vec::new();
        if !clipped.is_empty() {
            let ids = values.add(clipped.iter().map(|(id, ..)| *id).collect::<Vec<i64>>());
            let sql = format!("SELECT t.id FROM {name} t WHERE t.id = ANY({ids}) AND {allowed}");
            let rows = self.query(&sql, &values.all())?;
            values.pop();
            let allowed: HashSet<i64> = rows.iter().map(|row| self.value(row, 0)).collect::<Result<_, _>>()?;
            let of =
                |(id, counts, length): (i64, Vec<f64>, f64)| Match { id, bm25: bm25(&idfs, &counts, length, mean) };
            found.extend(clipped.into_iter().filter(|(id, ..)| allowed.contains(id)).map(of));
        }
        let joined = queries.iter().flatten().map(|query| format!("({query})")).collect::<Vec<_>>();
        let query = values.add(joined.join(if every { " & " } else { " | " }));
        let (mut columns, mut counts) = (Vec::new(), Vec::new());
        for (at, one) in queries.iter().enumerate() {
            counts.push(format!("n.n{at}"));
            columns.push(match one {
                Some(one) => {
                    let one = values.add(one.clone());
                    format!("ts_rank_cd('{{1,1,1,1}}', t.words, {one}::text::tsquery)::double precision AS n{at}")
                }
                None => format!("0::double precision AS n{at}"),
            });
        }
        let score = bm25_sql(&mut values, &idfs, &counts, "t.length", mean);
        let limit = values.add(most as i64);
        let sql = format!(
            "SELECT t.id, {score} AS score FROM {name} t
             CROSS JOIN LATERAL (SELECT {} OFFSET 0) n
             WHERE t.words @@ {query}::text::tsquery AND {allowed} ORDER BY score DESC, t.id LIMIT {limit}",
            columns.join(", ")
        );
        self.found(&sql, &values, found, most)
    }

    /// By runs of characters inside of texts.
    fn find_runs(&self, terms: &[String], condition: &Condition, most: usize) -> Result<Vec<Match>, IndexError> {
        let runs: Vec<Option<Run>> = terms.iter().map(|term| self.run_of(term)).collect::<Result<_, _>>()?;
        let runs: Vec<Run> = runs.into_iter().flatten().collect();
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let counters = Counters::read(&mut self.session(), &self.place, false)?;
        let mean = counters.text_runs as f64 / counters.texts as f64;
        let idfs = runs
            .iter()
            .map(|run| Ok(idf(counters.texts, self.count_run(run)?)))
            .collect::<Result<Vec<f64>, IndexError>>()?;
        let mut values = Values::default();
        let allowed = match condition.is_open() {
            true => "true".to_string(),
            false => format!("t.content IN ({})", self.allowed(condition, &mut values)?),
        };
        let (mut any, mut columns, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for (at, run) in runs.iter().enumerate() {
            let (query, folded) = (values.add(run.query.clone()), values.add(run.folded.clone()));
            any.push(format!("((t.parts @@ {query}::text::tsquery OR t.clipped) AND strpos(t.folded, {folded}) > 0)"));
            counts.push(format!("n.n{at}"));
            let count = if overlaps_itself(&run.folded) {
                let pattern = values.add(format!("(?={})", escaped(&run.folded)));
                format!("regexp_count(t.folded, {pattern})")
            } else {
                format!("(length(t.folded) - length(replace(t.folded, {folded}, ''))) / length({folded})")
            };
            columns.push(format!("({count})::double precision AS n{at}"));
        }
        let score = bm25_sql(&mut values, &idfs, &counts, "t.runs", mean);
        let limit = values.add(most as i64);
        let sql = format!(
            "SELECT t.id, {score} AS score FROM chunks t
             CROSS JOIN LATERAL (SELECT {} OFFSET 0) n
             WHERE ({}) AND {allowed} ORDER BY score DESC, t.id LIMIT {limit}",
            columns.join(", "),
            any.join(" OR ")
        );
        self.found(&sql, &values, Vec::new(), most)
    }

    /// What a statement finds beside what was found here, best first.
    fn found(&self, sql: &str, values: &Values, mut found: Vec<Match>, most: usize) -> Result<Vec<Match>, IndexError> {
        for row in &self.query(sql, &values.all())? {
            found.push(Match { id: self.value(row, 0)?, bm25: self.value(row, 1)? });
        }
        found.sort_by(|one, other| other.bm25.total_cmp(&one.bm25).then(one.id.cmp(&other.id)));
        found.truncate(most);
        Ok(found)
    }

    /// Chunks whose text contains some characters as they are.
    pub fn find_containing(&self, run: &str, condition: &Condition, most: usize) -> Result<Vec<Match>, IndexError> {
        let mut values = Values::default();
        let allowed = self.allowed(condition, &mut values)?;
        let (run, limit) = (values.add(to_text(run)), values.add(most as i64));
        let sql = format!(
            "SELECT id, 0::double precision FROM chunks WHERE strpos(text, {run}) > 0 AND content IN ({allowed})
             ORDER BY id LIMIT {limit}"
        );
        let rows = self.query(&sql, &values.all())?;
        rows.iter().map(|row| Ok(Match { id: self.value(row, 0)?, bm25: self.value(row, 1)? })).collect()
    }

    /// How many chunks have a term, and which of these do.
    pub fn which_chunks(&self, index: WordIndex, term: &str, ids: &[i64]) -> Result<(usize, HashSet<i64>), IndexError> {
        match index {
            WordIndex::Words => {
                Ok((self.count_phrase(Table::Chunks, &self.words_of(term)?)?, self.which(Table::Chunks, ids, term)?))
            }
            WordIndex::Parts => match self.run_of(term)? {
                None => Ok((0, HashSet::new())),
                Some(run) => {
                    let sql = "SELECT id FROM chunks WHERE id = ANY($1) AND strpos(folded, $2) > 0";
                    Ok((self.count_run(&run)?, self.ids(sql, &[&ids, &run.folded])?))
                }
            },
        }
    }

    /// Which of these chunks have a text that contains some characters as they are.
    pub fn which_containing(&self, run: &str, ids: &[i64]) -> Result<HashSet<i64>, IndexError> {
        self.ids("SELECT id FROM chunks WHERE id = ANY($1) AND strpos(text, $2) > 0", &[&ids, &to_text(run)])
    }

    /// Which of these files have a term in their names.
    pub fn which_names(&self, ids: &[i64], term: &str) -> Result<HashSet<i64>, IndexError> {
        self.which(Table::Files, ids, term)
    }

    fn which(&self, table: Table, ids: &[i64], term: &str) -> Result<HashSet<i64>, IndexError> {
        let words = self.words_of(term)?;
        let Some(query) = phrase(&words) else { return Ok(HashSet::new()) };
        let name = if table == Table::Chunks { "chunks" } else { "files" };
        let sql = format!("SELECT id FROM {name} WHERE id = ANY($1) AND words @@ $2::text::tsquery");
        let mut having = self.ids(&sql, &[&ids, &query])?;
        having.extend(self.clipped_with(table, &words)?.into_iter().filter(|id| ids.contains(id)));
        Ok(having)
    }

    fn ids(&self, sql: &str, values: &[Value<'_>]) -> Result<HashSet<i64>, IndexError> {
        self.query(sql, values)?.iter().map(|row| self.value(row, 0)).collect()
    }
}

/// The inverse document frequency as FTS5 has it.
fn idf(rows: i64, with: usize) -> f64 {
    let (rows, with) = (rows as f64, with as f64);
    let idf = ((rows - with + 0.5) / (with + 0.5)).ln();
    if idf <= 0.0 { LEAST_IDF } else { idf }
}

fn is_long_run(text: &str) -> bool {
    is_unspaced(text) && text.chars().count() >= 3
}

/// Contents in whose text a run of characters stands.
fn in_runs(run: &Run, values: &mut Values) -> String {
    let (query, folded) = (values.add(run.query.clone()), values.add(run.folded.clone()));
    format!(
        "c.id IN (SELECT content FROM chunks
                  WHERE (parts @@ {query}::text::tsquery OR clipped) AND strpos(folded, {folded}) > 0)"
    )
}

/// True for a run that can stand at two places which share characters.
fn overlaps_itself(run: &str) -> bool {
    run.char_indices().skip(1).any(|(at, _)| run.starts_with(&run[at..]))
}

/// A text as a regular expression that matches it alone.
fn escaped(text: &str) -> String {
    text.chars().flat_map(|c| (!c.is_alphanumeric() && c.is_ascii()).then_some('\\').into_iter().chain([c])).collect()
}

fn filter(filter: &Filter, sql: &mut String, values: &mut Values) {
    let mut among = |column: &str, of: Vec<String>, not: &str| {
        if !of.is_empty() {
            *sql += &format!(" AND {not}({column} = ANY({}))", values.add(of));
        }
    };
    for (kinds, not) in [(&filter.kinds, ""), (&filter.not_kinds, "NOT ")] {
        among("c.kind", kinds.iter().map(|kind| kind.name().to_string()).collect(), not);
    }
    for (endings, not) in [(&filter.endings, ""), (&filter.not_endings, "NOT ")] {
        among("f.ext", endings.iter().map(|ending| to_text(ending)).collect(), not);
    }
    for (folders, not) in [(&filter.folders, ""), (&filter.not_folders, "NOT ")] {
        if folders.is_empty() {
            continue;
        }
        let mut one = |folder: &std::path::PathBuf| {
            let (from, to) = below(folder);
            let (at, from, to) = (values.add(bytes_of_path(folder)), values.add(from), values.add(to));
            format!("f.path = {at} OR (f.path >= {from} AND f.path < {to})")
        };
        let all: Vec<String> = folders.iter().map(&mut one).collect();
        *sql += &format!(" AND {not}({})", all.join(" OR "));
    }
    for (at, sign) in [(filter.after_ns, ">="), (filter.before_ns, "<")] {
        if let Some(at) = at {
            // A photograph is of the time at which it was taken, whenever it was copied.
            *sql += &format!(" AND coalesce(c.taken_ns, f.mtime_ns) {sign} {}", values.add(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_overlaps_itself_is_known() {
        assert!(overlaps_itself("aaa") && overlaps_itself("abab") && overlaps_itself("東京東"));
        assert!(!overlaps_itself("abc") && !overlaps_itself("東京都"));
    }

    #[test]
    fn a_text_is_a_pattern_of_itself() {
        assert_eq!(escaped("a.b (c)東"), "a\\.b\\ \\(c\\)東");
    }

    #[test]
    fn seldom_words_weigh_more_and_common_ones_nearly_nothing() {
        assert_eq!(idf(10, 9), LEAST_IDF);
        assert!(idf(100, 1) > idf(100, 10));
        assert!(bm25(&[1.0], &[2.0], 10.0, 10.0) > bm25(&[1.0], &[1.0], 10.0, 10.0));
    }
}
