//! Documents scored beside each other: several share a prompt with the query, and each has the cosine of its vector and the query's.

use std::sync::Arc;

use omniburn_media::PairCut;
use omniburn_models::family::ListPrompt;

use super::open::Session;
use super::stream::answers;
use crate::call::{Answer, Input, Listed, Request, Scored};
use crate::embedding::EmbeddingError;
use crate::error::ItemError;
use crate::prepare::ListTexts;

/// One score a document, in order. What a document's prompt cannot be read for is its own fault; a journal does not record lists.
pub(crate) fn list_scores(
    session: &Arc<Session>,
    prompt: &ListPrompt,
    query: &Input,
    documents: &[Input],
    request: &Request,
) -> Vec<Result<Scored, ItemError>> {
    let ListTexts { query, documents, blocks } = match session.preparer.list_texts(prompt, query, documents, request) {
        Ok(texts) => texts,
        Err(e) => return documents.iter().map(|_| Err(e.clone())).collect(),
    };
    let texts = |block: &Vec<usize>| {
        let texts = block.iter().filter_map(|&at| documents[at].as_ref().ok());
        Input::list(&query.text, texts.map(|document| document.text.clone()))
    };
    let inputs: Vec<Input> = blocks.iter().map(texts).collect();
    let request = Request { observer: None, ..request.clone() };
    let found: Vec<Result<Listed, ItemError>> =
        answers(session, inputs.into_iter(), request).map(|answer| answer.map(Answer::into_list)).collect();
    let of_all = query_vector(&found);
    let mut scores: Vec<Result<Scored, ItemError>> = documents
        .iter()
        .map(|document| match document {
            Ok(_) => Err(ItemError::Request { reason: "a document is in no prompt".into() }),
            Err(e) => Err(e.clone()),
        })
        .collect();
    for (block, found) in blocks.iter().zip(&found) {
        for (place, &at) in block.iter().enumerate() {
            scores[at] = found.as_ref().map_err(Clone::clone).and_then(|found| {
                let cosine = cosine(&found.documents[place], &of_all);
                let cosine = cosine.ok_or(EmbeddingError::NotFinite { index: place })?;
                let cut = PairCut { query: query.cut, document: documents[at].as_ref().is_ok_and(|one| one.cut) };
                Ok(Scored { logit: cosine, cosine: true, tokens: found.tokens, cut, timings: found.timings })
            });
        }
    }
    scores
}

/// The query's vector over all prompts, each with the weight of its best document.
///
/// # Source
/// jinaai/jina-reranker-v3, `JinaForRanking.rerank`: `block_weights`.
fn query_vector(found: &[Result<Listed, ItemError>]) -> Vec<f32> {
    let found: Vec<&Listed> = found.iter().flatten().collect();
    if let [one] = found.as_slice() {
        return one.query.clone();
    }
    let width = found.first().map_or(0, |one| one.query.len());
    let (mut sum, mut total) = (vec![0.0f64; width], 0.0f64);
    for one in found {
        let best = one.documents.iter().filter_map(|document| cosine(document, &one.query)).fold(-1.0, f32::max);
        let weight = f64::from((1.0 + best) / 2.0);
        total += weight;
        sum.iter_mut().zip(&one.query).for_each(|(sum, value)| *sum += weight * f64::from(*value));
    }
    sum.into_iter().map(|value| (value / total) as f32).collect()
}

/// The cosine of two vectors, summed in f64; `None` where it is not finite.
fn cosine(one: &[f32], other: &[f32]) -> Option<f32> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let cosine = dot(one, other) / (dot(one, one).sqrt() * dot(other, other).sqrt());
    cosine.is_finite().then_some(cosine as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Timings;

    #[test]
    fn the_query_of_several_prompts_has_the_weights_of_their_best_documents() {
        let listed = |query: [f32; 2], documents: &[[f32; 2]]| {
            let documents = documents.iter().map(|one| one.to_vec()).collect();
            Ok(Listed { query: query.to_vec(), documents, tokens: 3, timings: Timings::default() })
        };
        let refused = || Err(ItemError::Request { reason: "no".into() });
        let one = listed([2.0, 0.0], &[[0.0, 1.0]]);
        assert_eq!(query_vector(std::slice::from_ref(&one)), [2.0, 0.0]);
        // The first has the weight 1/2 of a cosine of 0, the second that of 1.
        let two = [one, refused(), listed([0.0, 3.0], &[[1.0, -1.0], [0.0, 9.0]])];
        let got = query_vector(&two);
        assert!((got[0] - 2.0 / 3.0).abs() < 1e-6 && (got[1] - 2.0).abs() < 1e-6, "{got:?}");
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 0.0]), None);
    }
}
