//! What comes out of an input: its vector, or the score of a pair, and what is known of how it was made.

use std::ops::Range;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use omniburn_media::PairCut;
use omniburn_models::record::Modality;

use crate::embedding::Embedding;

/// A vector with what is known of how it was made. Two are equal where all but their timings is.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// The vector. Of a model that gives nothing but [`OutputKind::Multi`] or [`OutputKind::Features`], and where features are all
    /// that was asked for, it is the unit mean of those rows, which nobody has trained: they are compared row by row.
    pub embedding: Embedding,
    /// A weight for each token of the text that has one, where [`OutputKind::Sparse`] was asked for.
    pub sparse: Option<Sparse>,
    /// A vector for each row of the item, where [`OutputKind::Multi`] was asked for or is all that the model gives.
    pub multi: Option<Vec<Embedding>>,
    /// The rows that its media became, where [`OutputKind::Features`] was asked for or is all that the model gives.
    pub features: Option<Features>,
    /// What it was made from.
    pub modality: Modality,
    /// Rows that entered the backbone, of all segments together.
    pub tokens: usize,
    /// Whether a text was cut.
    pub truncated: bool,
    /// What an audio or video file was cut into, 240 s each but the last; one where it is shorter, none for what has no
    /// time. With several, `embedding` is their unit mean.
    pub segments: Vec<Segment>,
    /// Of a text whose chunks have vectors of their own ([`Request::late_chunks`](crate::Request::late_chunks)), those, in order;
    /// none otherwise.
    pub chunks: Vec<Chunk>,
    /// Where the time went.
    pub timings: Timings,
}

/// A chunk of a text that was read whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// Its bytes in the text.
    pub bytes: Range<usize>,
    /// Its tokens, those that stand around the text among them for the first and the last chunk.
    pub tokens: usize,
    /// Its vector.
    pub embedding: Embedding,
}

impl PartialEq for Embedded {
    fn eq(&self, other: &Self) -> bool {
        let Self { embedding, sparse, multi, features, modality, tokens, truncated, segments, chunks, timings: _ } =
            self;
        (embedding, sparse, multi, features) == (&other.embedding, &other.sparse, &other.multi, &other.features)
            && chunks == &other.chunks
            && (modality, tokens, truncated, segments)
                == (&other.modality, &other.tokens, &other.truncated, &other.segments)
    }
}

/// What a model may give of an item, by the names that people type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputKind {
    /// Its vector.
    Dense,
    /// Weights of the tokens of a text, over the vocabulary.
    Sparse,
    /// A vector for each row of an item, for late interaction.
    Multi,
    /// The rows that media become in the sequence of the model.
    Features,
}

impl OutputKind {
    /// Every kind.
    pub const ALL: [OutputKind; 4] = [OutputKind::Dense, OutputKind::Sparse, OutputKind::Multi, OutputKind::Features];

    /// The kind of a name that people type; `None` for any other name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The name that people type.
    pub fn name(self) -> &'static str {
        match self {
            OutputKind::Dense => "dense",
            OutputKind::Sparse => "sparse",
            OutputKind::Multi => "multi",
            OutputKind::Features => "features",
        }
    }
}

/// Rows that the media of an item became, as a decoder would get them: behind their tower and its connector, not normalised.
/// Several media, and several segments of a long one, stand one behind the other.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Features {
    /// Numbers of a row.
    pub width: usize,
    /// The rows, `[rows, width]`.
    pub rows: Vec<f32>,
    /// What is added to the residual stream at their place, the first set behind the first layer and so on (DeepStack), zeros
    /// for media that add nothing: `[rows, width]` each; mostly none.
    pub deepstack: Vec<Vec<f32>>,
}

impl Features {
    /// Puts the rows of another medium behind these.
    pub(crate) fn append(&mut self, other: Self) {
        let (before, added) = (self.rows.len(), other.rows.len());
        self.width = self.width.max(other.width);
        let mut sets = other.deepstack.into_iter();
        for set in &mut self.deepstack {
            match sets.next() {
                Some(more) => set.extend(more),
                None => set.resize(before + added, 0.0),
            }
        }
        for more in sets {
            let mut set = vec![0.0; before];
            set.extend(more);
            self.deepstack.push(set);
        }
        self.rows.extend(other.rows);
    }
}

/// A sparse vector over the vocabulary: weights above zero by token id, ids ascending.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sparse {
    /// Token ids.
    pub indices: Vec<u32>,
    /// The weight of each.
    pub values: Vec<f32>,
}

impl Sparse {
    /// The largest weight of each id; ids in `unweighted` have none, and weights of zero are left out.
    ///
    /// # Source
    /// FlagEmbedding, `M3Embedder._process_token_weights`.
    pub(crate) fn of(ids: &[u32], weights: &[f32], unweighted: &[u32]) -> Self {
        let mut best: BTreeMap<u32, f32> = BTreeMap::new();
        for (id, weight) in ids.iter().zip(weights).filter(|(id, weight)| **weight > 0.0 && !unweighted.contains(id)) {
            let place = best.entry(*id).or_insert(*weight);
            *place = place.max(*weight);
        }
        let (indices, values) = best.into_iter().unzip();
        Self { indices, values }
    }

    /// The sum of the products of weights that both have.
    pub fn dot(&self, other: &Self) -> f32 {
        let of_other: BTreeMap<u32, f32> = other.indices.iter().copied().zip(other.values.iter().copied()).collect();
        let products =
            self.indices.iter().zip(&self.values).filter_map(|(id, weight)| Some(weight * of_other.get(id)?));
        products.sum()
    }
}

/// How much a document's rows meet a query's: the mean over the query's rows of the largest cosine with a row of the
/// document; 0 where either has no row.
///
/// # Source
/// FlagEmbedding, `M3Embedder.compute_colbert_score`; Khattab and Zaharia 2020 (arXiv 2004.12832), with a mean for the sum.
pub fn max_sim(query: &[Embedding], document: &[Embedding]) -> f32 {
    if query.is_empty() || document.is_empty() {
        return 0.0;
    }
    let best = |row: &Embedding| document.iter().map(|other| row.cosine(other)).fold(f32::MIN, f32::max);
    query.iter().map(best).sum::<f32>() / query.len() as f32
}

/// How well a document meets a query.
#[derive(Debug, Clone)]
pub struct Ranked {
    /// Its place among the documents as they were given.
    pub index: usize,
    /// From 0 to 1: the sigmoid of the logit; of a model that reads documents beside each other, half of it and a half.
    pub score: f32,
    /// What the model gives; any number, or a cosine of a model that reads documents beside each other.
    pub logit: f32,
    /// Rows of the pair that entered the backbone.
    pub tokens: usize,
    /// What was cut of the pair.
    pub cut: PairCut,
    /// Where the time went.
    pub timings: Timings,
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        let Self { index, score, logit, tokens, cut, timings: _ } = self;
        (index, score, logit, tokens, cut) == (&other.index, &other.score, &other.logit, &other.tokens, &other.cut)
    }
}

impl Ranked {
    /// Sorts documents by their logits, the best first; those with equal logits stay in their order.
    pub fn sort(documents: &mut [Ranked]) {
        // None of them is NaN: the engine gives finite logits.
        documents.sort_by(|one, other| other.logit.partial_cmp(&one.logit).unwrap_or(Ordering::Equal));
    }
}

/// What a pair came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scored {
    pub logit: f32,
    /// Whether the logit is a cosine.
    pub cosine: bool,
    pub tokens: usize,
    pub cut: PairCut,
    pub timings: Timings,
}

impl Scored {
    pub(crate) fn ranked(self, index: usize) -> Ranked {
        let Self { logit, cosine, tokens, cut, timings } = self;
        let score = match cosine {
            true => ((1.0 + logit) / 2.0).clamp(0.0, 1.0),
            false => (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32,
        };
        Ranked { index, score, logit, tokens, cut, timings }
    }
}

/// What a prompt with a query and several documents came to: vectors, not normalised.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Listed {
    pub query: Vec<f32>,
    pub documents: Vec<Vec<f32>>,
    pub tokens: usize,
    pub timings: Timings,
}

/// What came of an item: of a pair a score, of a list of documents vectors, of any other a vector.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Vector(Embedded),
    Score(Scored),
    List(Listed),
}

impl Answer {
    pub(crate) fn timings_mut(&mut self) -> &mut Timings {
        match self {
            Answer::Vector(embedded) => &mut embedded.timings,
            Answer::Score(scored) => &mut scored.timings,
            Answer::List(listed) => &mut listed.timings,
        }
    }

    /// # Panics
    /// For the score of a pair: callers who give no pair have none.
    pub(crate) fn into_vector(self) -> Embedded {
        match self {
            Answer::Vector(embedded) => embedded,
            Answer::Score(_) | Answer::List(_) => panic!("an item that is no pair has a vector"),
        }
    }

    /// # Panics
    /// For a vector: a pair has none.
    pub(crate) fn into_score(self) -> Scored {
        match self {
            Answer::Score(scored) => scored,
            Answer::Vector(_) | Answer::List(_) => panic!("a pair has a score"),
        }
    }

    /// # Panics
    /// For anything but a list of documents, which has nothing else.
    pub(crate) fn into_list(self) -> Listed {
        match self {
            Answer::List(listed) => listed,
            Answer::Vector(_) | Answer::Score(_) => panic!("a list of documents has a vector each"),
        }
    }
}

/// Where the time of a result went. A result that was kept, or that another call computed, has the times of this call's
/// preparation or of that one's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// Read, decoded and cut into tokens, patches or frames, on threads of callers.
    pub tokenise: Duration,
    /// Waited for the device, for all its units together.
    pub queue: Duration,
    /// Computed by the device: the passes it was in, whole, whatever was beside it. An image, audio or video that came with
    /// others has the passes of all of them.
    pub compute: Duration,
}

/// Where a segment lies in its audio or video.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// Where it begins, in seconds.
    pub start_s: f64,
    /// Where it ends, in seconds.
    pub end_s: f64,
}

/// A part of a long audio or video with its own vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Where it lies.
    pub span: Span,
    /// Its vector.
    pub embedding: Embedding,
    /// Rows that entered the backbone.
    pub tokens: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked(index: usize, logit: f32) -> Ranked {
        Scored { logit, cosine: false, tokens: 3, cut: PairCut::default(), timings: Timings::default() }.ranked(index)
    }

    #[test]
    fn the_best_document_comes_first_and_ties_keep_their_order() {
        // 30 and 40 are both 1 as a score in f32.
        let mut documents: Vec<Ranked> =
            [0.5, 30.0, -2.0, 0.5, 40.0].into_iter().enumerate().map(|(i, logit)| ranked(i, logit)).collect();
        Ranked::sort(&mut documents);
        assert_eq!(documents.iter().map(|one| one.index).collect::<Vec<_>>(), [4, 1, 0, 3, 2]);
    }

    #[test]
    fn media_without_deepstack_have_zeros_in_the_sets_of_others() {
        let plain = |value: f32| Features { width: 2, rows: vec![value; 2], deepstack: Vec::new() };
        let mut all = plain(1.0);
        all.append(Features { width: 2, rows: vec![2.0; 4], deepstack: vec![vec![3.0; 4]] });
        all.append(plain(4.0));
        assert_eq!(all.rows, [1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 4.0, 4.0]);
        assert_eq!(all.deepstack, [[0.0, 0.0, 3.0, 3.0, 3.0, 3.0, 0.0, 0.0]]);
    }

    #[test]
    fn a_score_is_the_sigmoid_of_its_logit_and_lies_between_0_and_1() {
        assert_eq!(ranked(0, 0.0).score, 0.5);
        assert!((ranked(0, 2.606).score - 0.931_25).abs() < 1e-5);
        assert_eq!([-1e30, 1e30].map(|logit| ranked(0, logit).score), [0.0, 1.0]);
    }
}
