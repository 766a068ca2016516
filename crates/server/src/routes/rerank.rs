//! Documents in the order of a reranker: Cohere's and Jina's shape, and text-embeddings-inference's, recognised by their fields.

use std::time::Instant;

use axum::extract::{Request as HttpRequest, State as FromState};
use axum::response::Response;
use omniburn::{Input, Priority, Ranked, Request, Role, Truncation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::embeddings::Usage;
use super::shared::{Asked, Batch, Shared, timed};
use crate::calls::expected_wait;
use crate::error::ApiError;
use crate::ids::next_id;
use crate::item::Item;
use crate::state::State;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    query: Item,
    /// Cohere's and Jina's.
    #[serde(default)]
    documents: Option<Vec<Item>>,
    /// text-embeddings-inference's.
    #[serde(default)]
    texts: Option<Vec<String>>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    top_n: Option<usize>,
    #[serde(default)]
    return_documents: Option<bool>,
    #[serde(default)]
    return_text: Option<bool>,
    #[serde(default)]
    raw_scores: Option<bool>,
    #[serde(default)]
    truncate: Option<bool>,
    #[serde(default)]
    truncation_direction: Option<Value>,
    #[serde(default)]
    instruction: Option<String>,
    /// Cohere's: pairs are cut where the model ends, not before.
    #[serde(default)]
    max_tokens_per_doc: Option<usize>,
    #[serde(default)]
    priority: Option<usize>,
}

#[derive(Serialize)]
struct Answer {
    id: String,
    object: &'static str,
    model: String,
    results: Vec<Scored>,
    usage: Usage,
    meta: Value,
}

#[derive(Serialize)]
struct Scored {
    index: usize,
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Value>,
}

#[derive(Serialize)]
struct TeiScored {
    index: usize,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// Documents, the best first.
pub(super) async fn rerank(FromState(state): Shared, request: HttpRequest) -> Result<Response, ApiError> {
    let begun = Instant::now();
    let Asked { body, priority } = Asked::<Body>::read(&state, request).await?;
    if body.max_tokens_per_doc.is_some() {
        return Err(ApiError::field(
            "max_tokens_per_doc",
            "pairs are cut where the model ends: cut documents before they are sent",
        ));
    }
    if body.priority.is_some() {
        return Err(ApiError::field("priority", "use the header x-omniburn-priority: interactive or background"));
    }
    if body.truncation_direction.as_ref().is_some_and(|side| !matches!(side.as_str(), Some("Right" | "right"))) {
        return Err(ApiError::field("truncation_direction", "of a pair the document is cut on the right"));
    }
    if body.top_n == Some(0) {
        return Err(ApiError::field("top_n", "at least 1"));
    }
    match (body.documents, body.texts) {
        (Some(documents), None) => {
            let shown: Vec<Option<Value>> = match body.return_documents {
                Some(true) => {
                    documents.iter().map(text_of).map(|text| text.map(|text| json!({"text": text}))).collect()
                }
                _ => vec![None; documents.len()],
            };
            let asked = Query {
                query: body.query,
                documents,
                field: "documents",
                model: body.model,
                truncate: body.truncate.unwrap_or(true),
                instruction: body.instruction,
                priority,
            };
            let (model, ranked) = asked.run(&state).await?;
            let tokens = ranked.iter().map(|one| one.tokens).sum();
            let timings: Vec<_> = ranked.iter().map(|one| one.timings).collect();
            let best = ranked.into_iter().take(body.top_n.unwrap_or(usize::MAX));
            let results = best.map(|one| Scored {
                index: one.index,
                relevance_score: one.score,
                document: shown[one.index].clone(),
            });
            let answer = Answer {
                id: format!("rerank-{}", next_id()),
                object: "list",
                model,
                results: results.collect(),
                usage: Usage { prompt_tokens: tokens, total_tokens: tokens },
                meta: json!({"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}),
            };
            Ok(timed(timings.into_iter(), begun, answer))
        }
        (None, Some(texts)) => {
            let (raw, shown) = (body.raw_scores == Some(true), body.return_text == Some(true));
            let kept = if shown { texts.clone() } else { Vec::new() };
            let asked = Query {
                query: body.query,
                documents: texts.into_iter().map(Item::Text).collect(),
                field: "texts",
                model: body.model,
                truncate: body.truncate.unwrap_or(false),
                instruction: body.instruction,
                priority,
            };
            let (_, ranked) = asked.run(&state).await?;
            let timings: Vec<_> = ranked.iter().map(|one| one.timings).collect();
            let scores = ranked.into_iter().map(|one| TeiScored {
                index: one.index,
                score: if raw { one.logit } else { one.score },
                text: kept.get(one.index).cloned(),
            });
            Ok(timed(timings.into_iter(), begun, scores.collect::<Vec<_>>()))
        }
        _ => Err(ApiError::field(
            "documents",
            "either `documents` (Cohere, Jina) or `texts` (text-embeddings-inference)",
        )),
    }
}

fn text_of(item: &Item) -> Option<String> {
    match item {
        Item::Text(text) => Some(text.clone()),
        Item::Typed(typed) => typed.text.clone(),
        Item::Tokens(_) => None,
    }
}

struct Query {
    query: Item,
    documents: Vec<Item>,
    field: &'static str,
    model: Option<String>,
    truncate: bool,
    instruction: Option<String>,
    priority: Option<Priority>,
}

impl Query {
    async fn run(self, state: &State) -> Result<(String, Vec<Ranked>), ApiError> {
        let Query { query, documents, field, model, truncate, instruction, priority } = self;
        Batch::check(documents.len(), field, state)?;
        let lease = state.models.get(model.as_deref()).await?;
        let mut request = Request::new(Role::Query);
        if truncate {
            request = request.truncation(Truncation::Right);
        }
        if let Some(instruction) = instruction {
            request = request.instruction(instruction);
        }
        if let Some(priority) = priority {
            request = request.priority(priority);
        }
        lease.engine().rerank_with("", &[] as &[Input], &request)?;
        let query = query.input("query")?;
        let documents = documents.into_iter().enumerate();
        let documents: Vec<Input> =
            documents.map(|(i, one)| one.input(&format!("{field}[{i}]"))).collect::<Result<_, _>>()?;
        state.metrics.inputs("pair", documents.len() as u64);
        let name = lease.name().to_owned();
        let call = state.calls.run(lease, move |lease, cancel| {
            let results = lease.engine().rerank_with(query, &documents, &request.cancel(cancel))?;
            let wait = expected_wait(&lease.engine().metrics(), Priority::Interactive);
            let named = results.into_iter().enumerate();
            let named =
                named.map(|(i, one)| one.map_err(|error| ApiError::item(format!("{field}[{i}]"), &error, wait)));
            named.collect::<Result<Vec<Ranked>, ApiError>>()
        });
        let mut ranked = call.await??;
        Ranked::sort(&mut ranked);
        Ok((name, ranked))
    }
}
