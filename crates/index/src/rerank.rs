//! The best hits of a search, read again by a reranker beside the query and ordered by its scores.
//!
//! What a reranker reads of a hit is the text of its chunk; of an image without text, and of a page that is an image, the image
//! itself, where the reranker takes images. Hits that it does not read keep their order behind those that it read.

use crate::embedder::Content;
use crate::error::{Fault, IndexError};
use crate::extract::Drawing;
use crate::kind::{Kind, Modality};
use crate::locator::Locator;
use crate::search::{Hit, MinScore, Reranking, SearchOptions};

/// Hits that are read at most.
pub(crate) const RERANKED: usize = 50;

/// A model that scores a document beside a query.
pub trait Reranker {
    /// Whether a document may be an image.
    fn takes_images(&self) -> bool;

    /// A score from 0 to 1 for each document, in their order.
    ///
    /// # Errors
    /// [`Fault`] where nothing can be scored at all; the fault of one document is its own result.
    fn scores(&self, query: &str, documents: Vec<Content>) -> Result<Vec<Result<f32, Fault>>, Fault>;
}

/// Reads the first [`RERANKED`] hits again: those that were read come first, by their scores, equal ones in the order of the
/// search. [`MinScore::At`] counts for the scores that the hits have then.
///
/// # Errors
/// [`IndexError::Embedder`] for a reranker that refuses, or that was cancelled.
pub(crate) fn rerank(
    reranker: &dyn Reranker,
    query: &str,
    hits: Vec<Hit>,
    options: &SearchOptions,
) -> Result<Vec<Hit>, IndexError> {
    let (mut documents, mut outcomes) = (Vec::new(), Vec::new());
    for (at, hit) in hits.iter().enumerate() {
        let document = if at < RERANKED {
            document_of(hit, reranker.takes_images())
        } else {
            Err(format!("behind the first {RERANKED}"))
        };
        outcomes.push(document.map(|document| documents.push(document)));
    }
    let scores = if documents.is_empty() { Vec::new() } else { scores(reranker, query, documents)? };
    let mut scores = scores.into_iter();
    let mut reranked: Vec<Hit> = Vec::new();
    for (mut hit, outcome) in hits.into_iter().zip(outcomes) {
        let outcome = match outcome {
            Err(why) => Err(why),
            Ok(()) => {
                let score = scores.next().unwrap_or_else(|| Err(Fault::new("panicked", "no score came of it")));
                score.map_err(|fault| fault.to_string())
            }
        };
        if let Ok(score) = outcome {
            hit.score = score.clamp(0.0, 1.0);
            hit.scores.rerank = Some(score);
        }
        hit.reranking = Some(Reranking { rank_before: hit.rank, outcome });
        reranked.push(hit);
    }
    reranked.sort_by(|one, other| match (one.scores.rerank, other.scores.rerank) {
        (Some(one), Some(other)) => other.total_cmp(&one),
        (one, other) => other.is_some().cmp(&one.is_some()),
    });
    if let MinScore::At(min) = options.min_score {
        reranked.retain(|hit| hit.score >= min);
    }
    reranked.truncate(options.limit);
    reranked.iter_mut().zip(1..).for_each(|(hit, rank)| hit.rank = rank);
    Ok(reranked)
}

fn scores(
    reranker: &dyn Reranker,
    query: &str,
    documents: Vec<Content>,
) -> Result<Vec<Result<f32, Fault>>, IndexError> {
    let scores = reranker.scores(query, documents).map_err(IndexError::Embedder)?;
    match scores.iter().find_map(|score| score.as_ref().err().filter(|fault| fault.kind == "cancelled")) {
        Some(fault) => Err(IndexError::Embedder(fault.clone())),
        None => Ok(scores),
    }
}

/// What a reranker reads of a hit, or why there is nothing.
fn document_of(hit: &Hit, images: bool) -> Result<Content, String> {
    match (hit.kind.modality(), hit.locator) {
        _ if !hit.text.trim().is_empty() => Ok(Content::Text(hit.text.clone())),
        (Modality::Image, _) if images => Ok(Content::Image(hit.path.clone())),
        (Modality::Text, Locator::Page(page)) if images && hit.kind == Kind::Pdf => {
            let drawn = Drawing::open(&hit.path).and_then(|drawing| drawing.page(page));
            drawn.map(Content::Pixels).map_err(|fault| fault.to_string())
        }
        (Modality::Image, _) | (_, Locator::Page(_)) => Err("an image, and the reranker reads texts".into()),
        (Modality::Text, _) => Err("found by its name alone".into()),
        _ => Err(format!("{} without text", hit.kind)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::HitScores;
    use crate::snippet::Snippet;

    /// Scores a text by its last number; an image is 0.5.
    struct Numbers {
        images: bool,
    }

    impl Reranker for Numbers {
        fn takes_images(&self) -> bool {
            self.images
        }

        fn scores(&self, query: &str, documents: Vec<Content>) -> Result<Vec<Result<f32, Fault>>, Fault> {
            let score = |document| match document {
                Content::Text(text) if text.contains("fails") => Err(Fault::new("too_long", "a long text")),
                Content::Text(text) => Ok(text.rsplit(' ').next().unwrap().parse().unwrap()),
                _ => Ok(0.5),
            };
            if query == "stop" {
                return Ok(vec![Err(Fault::new("cancelled", "")); documents.len()]);
            }
            Ok(documents.into_iter().map(score).collect())
        }
    }

    fn hit(rank: usize, kind: Kind, text: &str) -> Hit {
        Hit {
            rank,
            score: 1.0 - rank as f32 / 1000.0,
            kind,
            path: format!("/{rank}").into(),
            locator: Locator::Whole,
            title: None,
            snippet: Snippet::default(),
            text: text.into(),
            mtime_ns: 0,
            size: 0,
            id: String::new(),
            scores: HitScores::default(),
            ranks: [None; 3],
            reranking: None,
        }
    }

    fn hits() -> Vec<Hit> {
        vec![
            hit(1, Kind::Audio, ""),
            hit(2, Kind::Text, "a 0.2"),
            hit(3, Kind::Image, ""),
            hit(4, Kind::Text, "b 0.9"),
            hit(5, Kind::Text, "fails"),
            hit(6, Kind::Text, "c 0.9"),
        ]
    }

    fn before(hits: &[Hit]) -> Vec<usize> {
        hits.iter().map(|hit| hit.reranking.as_ref().unwrap().rank_before).collect()
    }

    fn reranked(
        images: bool,
        query: &str,
        hits: Vec<Hit>,
        limit: usize,
        min_score: MinScore,
    ) -> Result<Vec<Hit>, IndexError> {
        rerank(&Numbers { images }, query, hits, &SearchOptions { limit, min_score, ..SearchOptions::default() })
    }

    #[test]
    fn what_was_read_comes_first_by_its_score_and_the_rest_keeps_its_order() {
        let found = reranked(false, "q", hits(), 10, MinScore::Any).unwrap();
        assert_eq!(before(&found), [4, 6, 2, 1, 3, 5]);
        assert_eq!(found.iter().map(|hit| hit.rank).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
        assert_eq!((found[0].score, found[0].scores.rerank), (0.9, Some(0.9)));
        assert_eq!((found[3].score, found[3].scores.rerank), (0.999, None));
        let why = |at: usize| found[at].reranking.as_ref().unwrap().outcome.clone().unwrap_err();
        assert_eq!(why(3), "audio without text");
        assert!(why(4).contains("image") && why(5).contains("too_long"));
        let found = reranked(true, "q", hits(), 4, MinScore::At(0.3)).unwrap();
        assert_eq!(before(&found), [4, 6, 3, 1]);
    }

    #[test]
    fn hits_behind_the_first_ones_are_not_read_and_a_cancelled_reranker_ends_the_search() {
        let many: Vec<Hit> = (1..=RERANKED + 2).map(|rank| hit(rank, Kind::Text, "x 0.1")).collect();
        let found = reranked(false, "q", many, 100, MinScore::Any).unwrap();
        assert_eq!(found.iter().filter(|hit| hit.scores.rerank.is_some()).count(), RERANKED);
        assert_eq!(before(&found), (1..=RERANKED + 2).collect::<Vec<_>>());
        let ended = reranked(false, "stop", hits(), 10, MinScore::Any).unwrap_err();
        assert!(matches!(ended, IndexError::Embedder(fault) if fault.kind == "cancelled"));
    }
}
