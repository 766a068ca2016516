//! The search: by words, by meaning, or by both.
//!
//! Filters act inside both searches. Each gives contents, and a content counts by its best chunk.
//!
//! Where the model is calibrated, both are evidence from 0 to 1 and are joined as if they were independent: `1 - (1 - a)(1 - b)`.
//! Meaning gives the calibrated score, which can be compared between modalities. Words give the share of the query's terms that
//! a chunk has, each term counted by how seldom it is, squared: a few of many words that are everywhere say nothing, and all of
//! them nearly everything. In a fusion by rank one common word would be worth as much as the best place by meaning; what this
//! finds is measured by `cargo xtask eval-find`.
//!
//! With [`MinScore::Auto`] only what is related is found: what is so seldom among unrelated items that the best of all that were
//! compared would hardly be so by chance, or has the query's words, seldom ones among them; beside such a thing, what one unrelated
//! item in a hundred is. What words say counts no more than how
//! seldom they are, so that words which are everywhere make nothing related.
//!
//! Where it is not calibrated, cosines and words cannot be compared, and the lists are fused by reciprocal rank (Cormack, Clarke
//! and Büttcher 2009, k = 60), a place by words counting as much as the same share.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use rusqlite::params_from_iter;
use rusqlite::types::Value;
use serde::Serialize;

use crate::bits::Bits;
use crate::calibration::{Calibration, rarity_of_evidence, related_from};
use crate::error::{IndexError, QueryError};
use crate::kind::{Kind, Modality};
use crate::locator::{Locator, LocatorBody};
use crate::matrix::Matrix;
use crate::query::Query;
use crate::scan::{self, Blocks, Scored};
use crate::snippet::Snippet;
use crate::store::{ChunkRow, Database, FileRow, PageHead, heads};
use crate::words::{self, Condition, Match, Share, Terms, Weights};

/// The constant of reciprocal rank fusion.
const RANK_CONSTANT: f64 = 60.0;
/// Chunks of each modality in the list by meaning, at least.
const DEPTH: usize = 200;
/// Chunks of the list by words, at least: of each it is asked which words it has.
const WORDS_DEPTH: usize = 64;
/// Contents that the list by meaning has at least, where there are as many.
const ENOUGH: usize = 40;
/// The evidence of a chunk that has every word of the query.
const ALL_WORDS_SCORE: f32 = 0.95;
/// The share of the query's words, and the rarity of those, from which something is related by its words alone: nearly all of
/// them, and no more than one chunk in twenty has them by chance.
const WORDS_RELATED: Share = Share { share: 0.9, rarity: 1.3 };
/// The rarity of what is related beside something that is: one unrelated item in a hundred.
const RELATED_BESIDE: f32 = 2.0;

/// Which searches are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Both, fused.
    #[default]
    Hybrid,
    /// By meaning alone.
    Semantic,
    /// By words alone.
    Words,
}

/// From which score on something is found.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum MinScore {
    /// From any.
    #[default]
    Any,
    /// From a score on, 0 to 1.
    At(f32),
    /// What is related: what would hardly be the best of all that were compared, were it not; for calibrated models.
    Auto,
}

/// How a search is done.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchOptions {
    /// Which searches are asked.
    pub mode: Mode,
    /// Hits at most.
    pub limit: usize,
    /// Hits of one file at most.
    pub per_file: usize,
    /// From which score on.
    pub min_score: MinScore,
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self { mode: Mode::Hybrid, limit: 10, per_file: 1, min_score: MinScore::Any }
    }
}

/// What a hit was found by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Default)]
pub struct HitScores {
    /// The cosine; `None` where it was not found by meaning.
    pub semantic: Option<f32>,
    /// bm25, higher is better; `None` where it was not found by words.
    pub words: Option<f64>,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// From 1.
    pub rank: usize,
    /// From 0 to 1.
    pub score: f32,
    /// The kind of the file.
    pub kind: Kind,
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub locator: Locator,
    /// The file's own title, where it has one.
    pub title: Option<String>,
    /// Words of the place.
    pub snippet: Snippet,
    /// When the file was changed, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Bytes of the file.
    pub size: i64,
    /// What [`crate::Index::get`] knows the file by.
    pub id: String,
    /// What it was found by.
    pub scores: HitScores,
    /// Its places in the lists, for those who ask why: by meaning, by words, by name.
    pub ranks: [Option<usize>; 3],
}

/// A hit as a line of JSON: the same object on the command line, over HTTP and for agents.
#[derive(Debug, Clone, Serialize)]
pub struct HitBody<'a> {
    rank: usize,
    score: f32,
    kind: &'static str,
    path: std::borrow::Cow<'a, str>,
    uri: String,
    locator: LocatorBody,
    title: Option<&'a str>,
    snippet: &'a str,
    /// Seconds since 1970.
    mtime: f64,
    size: i64,
    id: &'a str,
    scores: HitScores,
}

impl Hit {
    /// For JSON.
    pub fn body(&self) -> HitBody<'_> {
        HitBody {
            rank: self.rank,
            score: self.score,
            kind: self.kind.name(),
            path: self.path.to_string_lossy(),
            uri: uri_of(&self.path),
            locator: self.locator.body(),
            title: self.title.as_deref(),
            snippet: &self.snippet.text,
            mtime: self.mtime_ns as f64 / 1e9,
            size: self.size,
            id: &self.id,
            scores: self.scores,
        }
    }
}

/// A path as an address, bytes outside of unreserved ASCII escaped.
pub fn uri_of(path: &std::path::Path) -> String {
    use std::fmt::Write;
    let mut uri = String::from("file://");
    let mut bytes = crate::store::bytes_of_path(path);
    if cfg!(windows) {
        bytes.iter_mut().filter(|byte| **byte == b'\\').for_each(|byte| *byte = b'/');
        uri.push('/');
    }
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => uri.push(char::from(byte)),
            b':' if cfg!(windows) => uri.push(':'),
            _ => {
                let _ = write!(uri, "%{byte:02X}");
            }
        }
    }
    uri
}

/// A query with its vector.
pub(crate) struct Asked<'a> {
    pub query: &'a Query,
    /// The query's vector and what it was made from; none for a search by words alone.
    pub vector: Option<(&'a [f32], Modality)>,
    /// A file that is not to be found: the one that is searched with.
    pub except: Option<&'a std::path::Path>,
}

/// What is known of a chunk that some search found.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    semantic: Option<f32>,
    calibrated: f32,
    bm25: Option<f64>,
    /// Which of the query's words it has.
    words: Share,
    /// How seldom something unrelated is as near, as a power of ten; where it was asked for.
    rarity: f32,
}

impl Found {
    fn score(&self) -> f32 {
        both(self.calibrated, evidence(self.words))
    }

    /// Whether it is related, with what the name of its file says.
    fn is_related(&self, name: Share, from: f32) -> bool {
        let all = |words: &Share| words.share >= WORDS_RELATED.share && words.rarity >= WORDS_RELATED.rarity;
        let worth = |words: Share| rarity_of_evidence(evidence(words)).min(words.rarity);
        // The same words in a text and in its name are said once.
        self.rarity + worth(self.words).max(worth(name)) >= from || [self.words, name].iter().any(all)
    }
}

/// Two pieces of evidence from 0 to 1 as one.
fn both(one: f32, other: f32) -> f32 {
    1.0 - (1.0 - one.clamp(0.0, 1.0)) * (1.0 - other.clamp(0.0, 1.0))
}

/// The evidence of something that has a share of the query's words, from 0 to [`ALL_WORDS_SCORE`].
fn evidence(words: Share) -> f32 {
    ALL_WORDS_SCORE * words.share * words.share
}

/// Searches.
pub(crate) fn search(
    db: &Database,
    calibration: &Calibration,
    asked: &Asked<'_>,
    options: &SearchOptions,
) -> Result<Vec<Hit>, IndexError> {
    let begin = db.connection().unchecked_transaction().map_err(|e| db.error(e))?;
    let hits = search_within(db, calibration, asked, options);
    drop(begin);
    hits
}

/// Everything is read in one transaction, so that rows, words and vectors are of one moment.
fn search_within(
    db: &Database,
    calibration: &Calibration,
    asked: &Asked<'_>,
    options: &SearchOptions,
) -> Result<Vec<Hit>, IndexError> {
    if options.min_score == MinScore::Auto && asked.vector.is_some_and(|(_, modality)| !calibration.covers(modality)) {
        return Err(IndexError::NotCalibrated { model: db.meta()?.model });
    }
    let condition = Condition::of(asked.query);
    let terms = if options.mode == Mode::Semantic { Terms::default() } else { Terms::of(asked.query) };
    if terms.is_empty() && asked.vector.is_none() {
        let filters = !asked.query.filter.is_open() || !asked.query.without.is_empty();
        return Err(if filters { QueryError::OnlyFilters } else { QueryError::Empty }.into());
    }
    let depth = DEPTH.max(4 * options.limit);
    let mut chunks: HashMap<i64, Found> = HashMap::new();
    // Contents of each chunk that was found, and the lists of contents, best first.
    let mut contents: HashMap<i64, i64> = HashMap::new();
    let mut lists: [Vec<(i64, f64)>; 3] = Default::default();
    let related_only = options.min_score == MinScore::Auto;
    let mut related = None;
    if let (Some((vector, modality)), true) = (asked.vector, options.mode != Mode::Words) {
        let heads = heads(db)?;
        let groups = allowed(db, &heads, &condition)?;
        related = related_only.then(|| related_from(groups.iter().map(Bits::count).sum()));
        let enough = ENOUGH.max(2 * options.limit);
        let near = Nearness { db, calibration, vector, modality, heads, groups };
        for near in near.chunks(depth, enough, related_only)? {
            let Near { chunk, content, found, calibrated, rarity } = near;
            let there = chunks.entry(chunk).or_default();
            (there.semantic, there.calibrated, there.rarity) = (Some(found.score), calibrated, rarity);
            contents.insert(chunk, content);
            lists[0].push((content, 1.0));
        }
    }
    let weights = Weights::of(db, &terms)?;
    for Match { id, bm25 } in words::chunks(db, &terms, &condition, WORDS_DEPTH.max(4 * options.limit))? {
        let words = weights.share(|term| words::chunk_has(db, id, term))?;
        let there = chunks.entry(id).or_default();
        (there.bm25, there.words) = (Some(bm25), words);
        let content = match contents.get(&id) {
            Some(content) => *content,
            None => db.chunk(id)?.content,
        };
        contents.insert(id, content);
        // Alone, the order of bm25 is the order.
        lists[1].push((content, if options.mode == Mode::Words { 1.0 } else { f64::from(evidence(words)) }));
    }
    // Files found by name, with bm25 and what their words say.
    let mut named: BTreeMap<i64, (f64, Share)> = BTreeMap::new();
    let mut best: HashMap<i64, f32> = HashMap::new();
    let every = options.mode == Mode::Hybrid;
    for Match { id, bm25 } in words::names(db, &terms, every, &condition, depth)? {
        let words = weights.share(|term| words::name_has(db, id, term))?;
        for file in db.files_where("f.id = ?1", &[&id])? {
            named.insert(file.id, (bm25, words));
            lists[2].push((file.content, 1.0));
            let there = best.entry(file.content).or_default();
            *there = there.max(evidence(words));
        }
    }
    let mut order = fused(&mut lists);
    let calibrated = asked.vector.is_some_and(|(_, modality)| calibration.covers(modality));
    if options.mode == Mode::Hybrid && calibrated {
        let by_name = best.clone();
        for (chunk, content) in &contents {
            let score = chunks.get(chunk).map_or(0.0, Found::score);
            let score = both(score, by_name.get(content).copied().unwrap_or(0.0));
            let there = best.entry(*content).or_default();
            *there = there.max(score);
        }
        let score = |content: &i64| best.get(content).copied().unwrap_or(0.0);
        // Equal ones stay in the order of their ranks.
        order.sort_by(|one, other| score(other).total_cmp(&score(one)));
    }
    let mut by_content: HashMap<i64, Vec<i64>> = HashMap::new();
    for (chunk, content) in &contents {
        by_content.entry(*content).or_default().push(*chunk);
    }
    if related_only && related.is_none() {
        related = Some(related_from(allowed(db, &heads(db)?, &condition)?.iter().map(Bits::count).sum()));
    }
    let min = match options.min_score {
        MinScore::Any | MinScore::Auto => f32::NEG_INFINITY,
        MinScore::At(score) => score,
    };
    let collect = |related: Option<f32>, limit: usize| -> Result<Vec<Hit>, IndexError> {
        let view = View { db, condition: &condition, terms: &terms, named: &named, asked, related };
        let mut hits: Vec<Hit> = Vec::new();
        for content in &order {
            if hits.len() >= limit {
                break;
            }
            let of_content = by_content.get(content).cloned().unwrap_or_default();
            let ranks =
                [0, 1, 2].map(|list| lists[list].iter().position(|(there, _)| there == content).map(|at| at + 1));
            for hit in view.hits(*content, of_content, &chunks, options.per_file)? {
                if hit.score >= min && hits.len() < limit {
                    hits.push(Hit { rank: hits.len() + 1, ranks, ..hit });
                }
            }
        }
        Ok(hits)
    };
    match related {
        None => collect(None, options.limit),
        // One thing that is related, and the query is about what is here: others beside it need less.
        Some(from) if collect(Some(from), 1)?.is_empty() => Ok(Vec::new()),
        Some(from) => collect(Some(from.min(RELATED_BESIDE)), options.limit),
    }
}

/// Contents by the weighted sum of their reciprocal ranks. Each list is left with the first place of each content.
fn fused(lists: &mut [Vec<(i64, f64)>; 3]) -> Vec<i64> {
    let mut sums: HashMap<i64, (f64, usize)> = HashMap::new();
    for list in lists.iter_mut() {
        let mut seen = HashSet::new();
        list.retain(|(content, _)| seen.insert(*content));
        for (at, (content, weight)) in list.iter().enumerate() {
            let first = sums.len();
            sums.entry(*content).or_insert((0.0, first)).0 += weight / (RANK_CONSTANT + (at + 1) as f64);
        }
    }
    let mut order: Vec<(i64, (f64, usize))> = sums.into_iter().collect();
    // Equal sums keep the order in which the lists named them.
    order.sort_by(|(_, one), (_, other)| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
    order.into_iter().map(|(content, _)| content).collect()
}

/// A chunk that is near a query.
struct Near {
    chunk: i64,
    content: i64,
    found: Scored,
    calibrated: f32,
    rarity: f32,
}

/// The search by meaning.
struct Nearness<'a> {
    db: &'a Database,
    calibration: &'a Calibration,
    vector: &'a [f32],
    modality: Modality,
    heads: Vec<PageHead>,
    /// The rows that may be found, by modality.
    groups: [Bits; 4],
}

impl Nearness<'_> {
    /// Chunks by calibrated score, of `enough` contents where there are as many; with their rarity where it is asked for.
    fn chunks(mut self, depth: usize, enough: usize, with_rarity: bool) -> Result<Vec<Near>, IndexError> {
        let (db, dim) = (self.db, self.db.meta()?.dim);
        assert_eq!(self.vector.len(), dim, "the caller has checked the identity of the query's model");
        let mut matrix = Matrix::open(db, &self.heads, dim)?;
        let count = db.connection().query_row("SELECT count(*) FROM contents", [], |row| row.get::<_, i64>(0));
        let enough = enough.min(count.map_err(|e| db.error(e))?.max(0) as usize);
        // What is not among the best without the centre is as seldom as anything.
        let centred = match self.calibration.centre(self.modality).filter(|_| with_rarity) {
            Some(centre) => {
                let shifted: Vec<f32> = self.vector.iter().zip(centre).map(|(value, centre)| value - centre).collect();
                let lists = self.best(&mut matrix, &shifted, depth)?;
                let scores: HashMap<usize, f32> = lists.into_iter().flatten().map(|one| (one.row, one.score)).collect();
                Some(scores)
            }
            None => None,
        };
        let rarity = |found: &Scored, item: Modality| match &centred {
            _ if !with_rarity => 0.0,
            None => self.calibration.rarity(self.modality, item, found.score, false),
            Some(centred) => {
                let of = |score: &f32| self.calibration.rarity(self.modality, item, *score, true);
                centred.get(&found.row).map_or(0.0, of)
            }
        };
        let mut near: Vec<Near> = Vec::new();
        let mut contents: HashSet<i64> = HashSet::new();
        let mut statement = db.prepare("SELECT id, content FROM chunks WHERE vector = ?1")?;
        loop {
            let found = self.best(&mut matrix, self.vector, depth)?;
            let all = found.iter().all(|list| list.len() < depth);
            let mut new: HashSet<i64> = HashSet::new();
            for (item, list) in Modality::ALL.into_iter().zip(found) {
                for found in list {
                    let row = statement.query_row([found.row as i64], |row| Ok((row.get(0)?, row.get(1)?)));
                    let (chunk, content) = row.map_err(|e| match e {
                        rusqlite::Error::QueryReturnedNoRows => {
                            db.corrupt(format!("vector {} has no chunk", found.row))
                        }
                        e => db.error(e),
                    })?;
                    let calibrated = self.calibration.score(self.modality, item, found.score);
                    let rarity = rarity(&found, item);
                    near.push(Near { chunk, content, found, calibrated, rarity });
                    new.insert(content);
                }
            }
            contents.extend(&new);
            if all || contents.len() >= enough {
                near.sort_by(|one, other| {
                    other.calibrated.total_cmp(&one.calibrated).then(one.found.cmp(&other.found))
                });
                return Ok(near);
            }
            // A few long files fill the list: the next look goes without them.
            for content in new {
                for row in db.chunks_of(content)?.into_iter().filter_map(|(_, row)| usize::try_from(row?).ok()) {
                    self.groups.iter_mut().for_each(|group| group.clear(row));
                }
            }
        }
    }

    /// The best rows of each modality; a damaged cache is made anew.
    fn best(&self, matrix: &mut Matrix, vector: &[f32], depth: usize) -> Result<Vec<Vec<Scored>>, IndexError> {
        match scan::best(matrix, vector, &self.groups, depth) {
            Err(error) if matrix.is_cached() => {
                tracing::debug!("the cache of vectors is made anew: {error}");
                *matrix = Matrix::again(self.db, &self.heads, vector.len())?;
                scan::best(matrix, vector, &self.groups, depth)
            }
            found => found,
        }
    }
}

/// The cosines of a vector with every row, by modality.
pub(crate) fn cosines(db: &Database, vector: &[f32]) -> Result<[Vec<f32>; 4], IndexError> {
    let dim = db.meta()?.dim;
    let heads = heads(db)?;
    let groups = allowed(db, &heads, &Condition::of(&Query::default()))?;
    let matrix = Matrix::open(db, &heads, dim)?;
    let found = scan::best(&matrix, vector, &groups, matrix.rows())?;
    let mut lists = found.into_iter().map(|list| list.into_iter().map(|one| one.score).collect());
    Ok([0, 1, 2, 3].map(|_| lists.next().unwrap_or_default()))
}

/// The rows that may be found, by modality.
fn allowed(db: &Database, heads: &[PageHead], condition: &Condition) -> Result<[Bits; 4], IndexError> {
    let rows = heads.iter().map(|head| head.count).sum();
    let mut groups = [0, 1, 2, 3].map(|modality| {
        let mut bits = Bits::none(0);
        heads.iter().for_each(|head| bits.extend_from_bytes(&head.alive[modality].to_bytes()));
        bits
    });
    if condition.is_open() {
        return Ok(groups);
    }
    let mut chosen = Bits::none(rows);
    let sql = format!("SELECT vector FROM chunks WHERE vector IS NOT NULL AND content IN ({})", condition.contents());
    let mut statement = db.prepare(&sql)?;
    let vectors = statement.query_map(params_from_iter(&condition.values), |row| row.get::<_, i64>(0));
    for vector in vectors.map_err(|e| db.error(e))? {
        chosen.set(usize::try_from(vector.map_err(|e| db.error(e))?).unwrap_or(usize::MAX));
    }
    groups.iter_mut().for_each(|group| group.keep(&chosen));
    Ok(groups)
}

/// What turns contents into hits.
struct View<'a> {
    db: &'a Database,
    condition: &'a Condition,
    terms: &'a Terms,
    /// Files found by name, with bm25 and which of the words their names have.
    named: &'a BTreeMap<i64, (f64, Share)>,
    asked: &'a Asked<'a>,
    /// The rarity of what is related, where nothing else is to be found.
    related: Option<f32>,
}

impl View<'_> {
    /// The hits of a content: its files, those found by name first, each with its best chunks.
    fn hits(
        &self,
        content: i64,
        of_content: Vec<i64>,
        found: &HashMap<i64, Found>,
        per_file: usize,
    ) -> Result<Vec<Hit>, IndexError> {
        let mut files = self.files(content)?;
        files.sort_by_key(|file| !self.named.contains_key(&file.id));
        let terms: Vec<String> = self.terms.all().cloned().collect();
        let mut judged: Vec<(f32, Option<i64>, Found)> = Vec::new();
        for chunk in of_content {
            let about = found.get(&chunk).copied().unwrap_or_default();
            judged.push((about.score(), Some(chunk), about));
        }
        // Of equal ones the one that has more of the words, and then the first in the file.
        let bm25 = |found: &Found| found.bm25.unwrap_or(f64::NEG_INFINITY);
        judged.sort_by(|(a, x, one), (b, y, other)| {
            b.total_cmp(a).then(bm25(other).total_cmp(&bm25(one))).then(x.cmp(y))
        });
        if judged.is_empty() {
            // Found by its name alone.
            judged.push((0.0, None, Found::default()));
        }
        let mut hits = Vec::new();
        for file in files {
            let by_name = self.named.get(&file.id).copied();
            let id = self.shown_id(&file)?;
            let name = by_name.map_or_else(Share::default, |(_, words)| words);
            let related = |(_, _, about): &&(f32, Option<i64>, Found)| {
                self.related.is_none_or(|from| about.is_related(name, from))
            };
            for (score, chunk, about) in judged.iter().filter(related).take(per_file) {
                let row = chunk.map(|chunk| self.db.chunk(chunk)).transpose()?;
                let score = both(*score, evidence(name));
                let words = about.bm25.or(by_name.map(|(bm25, _)| bm25));
                hits.push(hit_of(&file, row, &terms, score, HitScores { semantic: about.semantic, words }, id.clone()));
            }
        }
        Ok(hits)
    }

    /// The files of a content that may be found.
    fn files(&self, content: i64) -> Result<Vec<FileRow>, IndexError> {
        let sql = format!("c.id = ? AND {} ORDER BY f.path", self.condition.sql);
        let id = Value::from(content);
        let values: Vec<&dyn rusqlite::ToSql> =
            std::iter::once(&id).chain(&self.condition.values).map(|value| value as &dyn rusqlite::ToSql).collect();
        let mut files = self.db.files_where(&sql, &values)?;
        files.retain(|file| self.asked.except != Some(file.path.as_path()));
        Ok(files)
    }

    /// As much of a file's id as tells it from all others, six digits at least.
    fn shown_id(&self, file: &FileRow) -> Result<String, IndexError> {
        let digits: String = file.short.iter().map(|byte| format!("{byte:02x}")).collect();
        for bytes in 3..file.short.len() {
            let (from, to) = prefix_range(&file.short[..bytes]);
            let sql = "SELECT count(*) FROM files WHERE short >= ?1 AND (?2 IS NULL OR short < ?2)";
            let mut statement = self.db.prepare(sql)?;
            let count: i64 = statement.query_row((from, to), |row| row.get(0)).map_err(|e| self.db.error(e))?;
            if count <= 1 {
                return Ok(digits[..2 * bytes].to_string());
            }
        }
        Ok(digits)
    }
}

/// The bounds of what begins with some bytes; without an upper one where there is none.
pub(crate) fn prefix_range(prefix: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut to = prefix.to_vec();
    while let Some(last) = to.pop() {
        if last < u8::MAX {
            to.push(last + 1);
            return (prefix.to_vec(), Some(to));
        }
    }
    (prefix.to_vec(), None)
}

fn hit_of(file: &FileRow, chunk: Option<ChunkRow>, terms: &[String], score: f32, scores: HitScores, id: String) -> Hit {
    let (locator, snippet) = match chunk {
        None => (Locator::Whole, Snippet::default()),
        Some(chunk) => {
            let snippet = Snippet::of(&chunk.text, terms);
            let locator = match chunk.locator {
                Locator::Lines { first, last } => {
                    Locator::Lines { first: (first + snippet.lines_before).min(last), last }
                }
                other => other,
            };
            (locator, snippet)
        }
    };
    Hit {
        rank: 0,
        score: score.clamp(0.0, 1.0),
        kind: file.kind,
        path: file.path.clone(),
        locator,
        title: file.title.clone(),
        snippet,
        mtime_ns: file.mtime_ns,
        size: file.size,
        id,
        scores,
        ranks: [None; 3],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_fused_and_each_content_counts_once_a_list() {
        let whole = |list: &[i64]| -> Vec<(i64, f64)> { list.iter().map(|content| (*content, 1.0)).collect() };
        let mut lists = [whole(&[1, 2, 2, 3]), whole(&[3, 3, 1]), vec![(9, 0.5)]];
        // 1: 1/61 + 1/62; 3: 1/63 + 1/61; 2: 1/62; 9: half of 1/61.
        assert_eq!(fused(&mut lists), [1, 3, 2, 9]);
        assert_eq!(lists, [whole(&[1, 2, 3]), whole(&[3, 1]), vec![(9, 0.5)]]);
    }

    #[test]
    fn words_make_something_related_only_where_they_are_seldom() {
        let seldom = Share { share: 1.0, rarity: 4.0 };
        let everywhere = Share { share: 1.0, rarity: 0.4 };
        let part = Share { share: 0.5, rarity: 4.0 };
        let by_words = |words| Found { words, ..Found::default() };
        let of_many = related_from(100_000);
        assert!(by_words(seldom).is_related(Share::default(), of_many));
        assert!(Found::default().is_related(seldom, of_many));
        for words in [everywhere, part] {
            assert!(!by_words(words).is_related(words, of_many), "{words:?}");
        }
        // Both together are more than either; of many items more is asked than of few.
        assert!(related_from(100) < of_many);
        let near = Found { rarity: of_many - 1.0, ..Found::default() };
        assert!(!near.is_related(Share::default(), of_many));
        assert!(Found { words: Share { share: 0.9, rarity: 2.0 }, ..near }.is_related(Share::default(), of_many));
        assert!(!Found { words: everywhere, ..near }.is_related(Share::default(), of_many));
    }

    #[test]
    fn addresses_escape_what_is_not_plain() {
        if cfg!(unix) {
            assert_eq!(uri_of(std::path::Path::new("/a b/ü#1.txt")), "file:///a%20b/%C3%BC%231.txt");
        }
    }

    #[test]
    fn a_prefix_of_bytes_has_bounds() {
        assert_eq!(prefix_range(&[1, 2]), (vec![1, 2], Some(vec![1, 3])));
        assert_eq!(prefix_range(&[1, 255]), (vec![1, 255], Some(vec![2])));
        assert_eq!(prefix_range(&[255]), (vec![255], None));
    }
}
