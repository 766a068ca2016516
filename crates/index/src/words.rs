//! The search by words: which terms a query has, what each says, and where they are looked for. Stores split and rank as FTS5.

use std::collections::HashSet;

use crate::error::IndexError;
use crate::query::Query;
use crate::script::is_unspaced;
use crate::store::{Condition, Match, Store, WordIndex};

/// English words that say nothing of what is looked for. Left out of a query as long as something else remains.
const STOP_WORDS: &[&str] = &[
    "a", "about", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by", "can", "could", "did", "do",
    "does", "for", "from", "had", "has", "have", "he", "her", "his", "how", "i", "if", "in", "into", "is", "it", "its",
    "me", "my", "no", "not", "of", "on", "or", "our", "she", "should", "so", "some", "that", "the", "their", "them",
    "then", "there", "these", "they", "this", "those", "to", "was", "we", "were", "what", "when", "where", "which",
    "who", "why", "will", "with", "would", "you", "your",
];

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

/// The terms of a query with what each of them says: the fewer chunks have it, the more.
#[derive(Debug, Default)]
pub(crate) struct Weights(Vec<Weighted>);

#[derive(Debug)]
struct Weighted {
    term: String,
    weight: f64,
    /// How seldom a chunk has it, as a power of ten.
    rarity: f64,
    /// Which of the chunks that were found have it.
    chunks: HashSet<i64>,
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
    /// Of terms in an index, with which of some chunks have each. A weight is the inverse frequency of bm25, which is never below
    /// zero.
    pub fn of(db: &dyn Store, terms: &Terms, chunks: &[i64]) -> Result<Self, IndexError> {
        if terms.is_empty() {
            return Ok(Self::default());
        }
        let all = db.count_chunks()? as f64;
        let weight = |term: &String| {
            let (with, chunks) = match index_of(term) {
                Some(index) => {
                    let (with, chunks) = db.chunks_with(index, term, chunks)?;
                    (with as f64, chunks)
                }
                // No index has them: they count as one that a tenth of the chunks have.
                None => (all / 10.0, db.chunks_containing(term, chunks)?),
            };
            let weight = (1.0 + (all - with + 0.5).max(0.5) / (with + 0.5)).ln();
            let rarity = ((all.max(FEW_CHUNKS) + 1.0) / (with + 0.5)).log10().max(0.0);
            Ok(Weighted { term: term.clone(), weight, rarity, chunks })
        };
        terms.all().map(weight).collect::<Result<_, IndexError>>().map(Self)
    }

    /// The share of the terms that one of the chunks has.
    pub fn share_of_chunk(&self, id: i64) -> Share {
        self.share(|at| self.0[at].chunks.contains(&id))
    }

    /// The shares of the terms that the names of files have.
    pub fn shares_of_names(&self, db: &dyn Store, ids: &[i64]) -> Result<Vec<Share>, IndexError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let having: Vec<HashSet<i64>> =
            self.0.iter().map(|one| db.names_with(ids, &one.term)).collect::<Result<_, IndexError>>()?;
        Ok(ids.iter().map(|id| self.share(|at| having[at].contains(id))).collect())
    }

    /// The share of the terms that something has, told by their numbers.
    fn share(&self, has: impl Fn(usize) -> bool) -> Share {
        let (mut there, mut all, mut rarity) = (0.0, 0.0, 0.0);
        for (at, one) in self.0.iter().enumerate() {
            all += one.weight;
            if has(at) {
                there += one.weight;
                rarity += one.rarity;
            }
        }
        Share { share: if all > 0.0 { (there / all) as f32 } else { 0.0 }, rarity: rarity as f32 }
    }
}

/// The index that has a term; `None` for one or two characters of a script without spaces.
fn index_of(term: &str) -> Option<WordIndex> {
    match (is_unspaced(term), term.chars().count()) {
        (true, ..3) => None,
        (true, _) => Some(WordIndex::Parts),
        (false, _) => Some(WordIndex::Words),
    }
}

/// Chunks that have some of the terms, best first.
pub(crate) fn chunks(
    db: &dyn Store,
    terms: &Terms,
    condition: &Condition,
    most: usize,
) -> Result<Vec<Match>, IndexError> {
    let mut found = Vec::new();
    if !terms.spaced.is_empty() {
        found = db.match_chunks(WordIndex::Words, &terms.spaced, condition, most)?;
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
        add(db.match_chunks(WordIndex::Parts, &runs, condition, most)?);
    }
    for short in terms.unspaced.iter().filter(|term| !long(term)) {
        add(db.containing(short, condition, most)?);
    }
    Ok(found)
}

/// Files whose names have some of the terms, or every one of them, best first.
pub(crate) fn names(
    db: &dyn Store,
    terms: &Terms,
    every: bool,
    condition: &Condition,
    most: usize,
) -> Result<Vec<Match>, IndexError> {
    let all: Vec<String> = terms.all().cloned().collect();
    if all.is_empty() { Ok(Vec::new()) } else { db.match_names(&all, every, condition, most) }
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
}
