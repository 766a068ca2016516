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

use serde::Serialize;

use crate::calibration::{Calibration, rarity_of_evidence, related_from};
use crate::error::{IndexError, QueryError};
use crate::kind::{Kind, Modality};
use crate::locator::{Locator, LocatorBody};
use crate::query::Query;
use crate::snippet::Snippet;
use crate::store::{ChunkRow, Condition, FileRow, FoundRow, Match, Moment, Place, Store, VectorSearch, Which};
use crate::words::{self, Share, Terms, Weights};

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
    /// A reranker's score from 0 to 1; `None` where none read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rerank: Option<f32>,
}

/// What became of a hit when a reranker was given the best ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Reranking {
    /// Its rank in the search, from 1.
    pub rank_before: usize,
    /// Its score, or why it was not read.
    pub outcome: Result<f32, String>,
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
    /// All words of the place; empty where it has none.
    pub text: String,
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
    /// What a reranker made of it, where one was asked.
    pub reranking: Option<Reranking>,
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
    db: &dyn Store,
    calibration: &Calibration,
    asked: &Asked<'_>,
    options: &SearchOptions,
) -> Result<Vec<Hit>, IndexError> {
    let _moment = Moment::begin(db)?;
    search_within(db, calibration, asked, options)
}

/// Rows, words and vectors are of one moment.
fn search_within(
    db: &dyn Store,
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
        let rows = db.vector_search(&condition)?;
        related = if related_only { Some(related_from(rows.allowed()?)) } else { None };
        let enough = ENOUGH.max(2 * options.limit);
        let near = Nearness { db, calibration, vector, modality, rows };
        for near in near.chunks(depth, enough, related_only)? {
            let Near { chunk, content, found, calibrated, rarity } = near;
            let there = chunks.entry(chunk).or_default();
            (there.semantic, there.calibrated, there.rarity) = (Some(found.score), calibrated, rarity);
            contents.insert(chunk, content);
            lists[0].push((content, 1.0));
        }
    }
    let matches = words::chunks(db, &terms, &condition, WORDS_DEPTH.max(4 * options.limit))?;
    let ids: Vec<i64> = matches.iter().map(|one| one.id).collect();
    let weights = Weights::of(db, &terms, &ids)?;
    let unknown: Vec<i64> = ids.iter().filter(|id| !contents.contains_key(id)).copied().collect();
    for (id, chunk) in unknown.iter().zip(db.chunks(&unknown)?) {
        contents.insert(*id, chunk.content);
    }
    for Match { id, bm25 } in matches {
        let words = weights.share_of_chunk(id);
        let there = chunks.entry(id).or_default();
        (there.bm25, there.words) = (Some(bm25), words);
        let content = contents[&id];
        // Alone, the order of bm25 is the order.
        lists[1].push((content, if options.mode == Mode::Words { 1.0 } else { f64::from(evidence(words)) }));
    }
    // Files found by name, with bm25 and what their words say.
    let mut named: BTreeMap<i64, (f64, Share)> = BTreeMap::new();
    let mut best: HashMap<i64, f32> = HashMap::new();
    let every = options.mode == Mode::Hybrid;
    let matches = words::names(db, &terms, every, &condition, depth)?;
    let ids: Vec<i64> = matches.iter().map(|one| one.id).collect();
    let shares = weights.shares_of_names(db, &ids)?;
    for (Match { id, bm25 }, words) in matches.into_iter().zip(shares) {
        for file in db.files(Which::Id(id))? {
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
        related = Some(related_from(db.vector_search(&condition)?.allowed()?));
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
    found: FoundRow,
    calibrated: f32,
    rarity: f32,
}

/// The search by meaning.
struct Nearness<'a> {
    db: &'a dyn Store,
    calibration: &'a Calibration,
    vector: &'a [f32],
    modality: Modality,
    rows: Box<dyn VectorSearch + 'a>,
}

impl Nearness<'_> {
    /// Chunks by calibrated score, of `enough` contents where there are as many; with their rarity where it is asked for.
    fn chunks(mut self, depth: usize, enough: usize, with_rarity: bool) -> Result<Vec<Near>, IndexError> {
        let (db, dim) = (self.db, self.db.meta()?.dim);
        assert_eq!(self.vector.len(), dim, "the caller has checked the identity of the query's model");
        let enough = enough.min(db.count_contents()?);
        // What is not among the best without the centre is as seldom as anything.
        let apart = match self.calibration.apart(self.modality, self.vector).filter(|_| with_rarity) {
            Some(apart) => {
                let lists = self.rows.best(&apart.vector, depth)?;
                let product = |one: FoundRow| (one.row, apart.product(one.score));
                Some(lists.into_iter().flatten().map(product).collect::<HashMap<usize, f32>>())
            }
            None => None,
        };
        let rarity = |found: &FoundRow, item: Modality| match &apart {
            _ if !with_rarity => 0.0,
            None => self.calibration.rarity(self.modality, item, found.score, false),
            Some(apart) => {
                let of = |product: &f32| self.calibration.rarity(self.modality, item, *product, true);
                apart.get(&found.row).map_or(0.0, of)
            }
        };
        let mut near: Vec<Near> = Vec::new();
        let mut contents: HashSet<i64> = HashSet::new();
        loop {
            let found = self.rows.best(self.vector, depth)?;
            let all = found.iter().all(|list| list.len() < depth);
            let mut new: HashSet<i64> = HashSet::new();
            for (item, list) in Modality::ALL.into_iter().zip(found) {
                let places = self.rows.places(&list)?;
                for (found, Place { chunk, content }) in list.into_iter().zip(places) {
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
            self.rows.leave_out(&new)?;
        }
    }
}

/// The cosines of a vector with every row, by modality.
pub(crate) fn cosines(db: &dyn Store, vector: &[f32]) -> Result<[Vec<f32>; 4], IndexError> {
    let mut rows = db.vector_search(&Condition::default())?;
    let all = rows.allowed()?;
    Ok(rows.best(vector, all)?.map(|list| list.into_iter().map(|one| one.score).collect()))
}

/// What turns contents into hits.
struct View<'a> {
    db: &'a dyn Store,
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
                let row = self.db.chunks(chunk.as_slice())?.pop();
                let score = both(*score, evidence(name));
                let words = about.bm25.or(by_name.map(|(bm25, _)| bm25));
                hits.push(hit_of(
                    &file,
                    row,
                    &terms,
                    score,
                    HitScores { semantic: about.semantic, words, rerank: None },
                    id.clone(),
                ));
            }
        }
        Ok(hits)
    }

    /// The files of a content that may be found.
    fn files(&self, content: i64) -> Result<Vec<FileRow>, IndexError> {
        let mut files = self.db.files(Which::Content(content, self.condition))?;
        files.retain(|file| self.asked.except != Some(file.path.as_path()));
        Ok(files)
    }

    /// As much of a file's id as tells it from all others, six digits at least.
    fn shown_id(&self, file: &FileRow) -> Result<String, IndexError> {
        let digits: String = file.short.iter().map(|byte| format!("{byte:02x}")).collect();
        for bytes in 3..file.short.len() {
            let (from, to) = prefix_range(&file.short[..bytes]);
            if self.db.count_short(&from, to.as_deref())? <= 1 {
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
    let (locator, snippet, text) = match chunk {
        None => (Locator::Whole, Snippet::default(), String::new()),
        Some(chunk) => {
            let snippet = Snippet::of(&chunk.text, terms);
            let locator = match chunk.locator {
                Locator::Lines { first, last } => {
                    Locator::Lines { first: (first + snippet.lines_before).min(last), last }
                }
                other => other,
            };
            (locator, snippet, chunk.text)
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
        text,
        mtime_ns: file.mtime_ns,
        size: file.size,
        id,
        scores,
        ranks: [None; 3],
        reranking: None,
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
