//! `POST /v1/embeddings`: OpenAI's, and Jina's on the same path.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request as HttpRequest, State as FromState};
use axum::response::Response;
use omniburn::{Input, OutputKind, Request, Role, Truncation};
use serde::{Deserialize, Serialize};

use super::shared::{Asked, Batch, Shared, timed};
use crate::error::ApiError;
use crate::item::{Item, OneOrMany, RoleName, with_task};
use crate::models::Lease;
use crate::state::State;
use crate::vector::{Encoded, Encoding};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    input: OneOrMany<Item>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    dimensions: Option<u32>,
    #[serde(default)]
    encoding_format: Option<Encoding>,
    /// Whom the caller asks for; not used.
    #[serde(default, rename = "user")]
    _user: Option<String>,
    /// Jina's name of `encoding_format`.
    #[serde(default)]
    embedding_type: Option<OneOrMany<Encoding>>,
    /// Jina's: a task of the record, or `retrieval.query` and `retrieval.passage`.
    #[serde(default)]
    task: Option<String>,
    /// What the inputs are for: `query`, `document` (the default) or `none`.
    #[serde(default, alias = "role")]
    input_type: Option<RoleName>,
    #[serde(default)]
    instruction: Option<String>,
    #[serde(default)]
    normalized: Option<bool>,
    #[serde(default)]
    late_chunking: Option<bool>,
    #[serde(default)]
    return_multivector: Option<bool>,
    #[serde(default)]
    truncate: Option<bool>,
}

#[derive(Serialize)]
struct Answer {
    object: &'static str,
    data: Vec<Datum>,
    model: String,
    usage: Usage,
}

#[derive(Serialize)]
struct Datum {
    object: &'static str,
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<Encoded>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embeddings: Option<Vec<Encoded>>,
}

/// Rows that entered the model.
#[derive(Serialize)]
pub(super) struct Usage {
    pub prompt_tokens: usize,
    pub total_tokens: usize,
}

/// Vectors of inputs, in their order.
pub(super) async fn embeddings(FromState(state): Shared, request: HttpRequest) -> Result<Response, ApiError> {
    let begun = Instant::now();
    let Asked { body, priority } = Asked::<Body>::read(&state, request).await?;
    answer(&state, body, priority, begun).await
}

async fn answer(
    state: &Arc<State>,
    body: Body,
    priority: Option<omniburn::Priority>,
    begun: Instant,
) -> Result<Response, ApiError> {
    let encoding = encoding(body.encoding_format, body.embedding_type)?;
    if body.normalized == Some(false) {
        return Err(ApiError::field("normalized", "vectors are of unit length; others are not given"));
    }
    let lease = state.models.get(body.model.as_deref()).await?;
    let mut base = Request::new(body.input_type.map_or(Role::Document, Role::from));
    if let Some(task) = &body.task {
        base = with_task(base, task, lease.engine(), "task")?;
        // What the caller says of the role counts more than what the task's name says.
        if let Some(role) = body.input_type {
            base = base.role(role.into());
        }
    }
    if let Some(dim) = body.dimensions {
        base = base.dim(dim as usize);
    }
    if let Some(instruction) = body.instruction {
        base = base.instruction(instruction);
    }
    if body.truncate == Some(true) {
        base = base.truncation(Truncation::Right);
    }
    if let Some(priority) = priority {
        base = base.priority(priority);
    }
    let multi = body.return_multivector == Some(true);
    if multi && body.late_chunking == Some(true) {
        return Err(ApiError::field("return_multivector", "of late chunks each has one vector"));
    }
    if multi {
        base = base.outputs([OutputKind::Multi]);
    }
    let items = body.input.into_vec();
    Batch::check(items.len(), "input", state)?;
    if body.late_chunking == Some(true) {
        return late_chunks(state, lease, items, base, encoding, begun).await;
    }
    lease.engine().embed_with(&[], &base)?;
    let inputs = items.into_iter().enumerate();
    let inputs = inputs.map(|(index, item)| item.read(&format!("input[{index}]"), lease.engine(), &base));
    let batch = Batch { inputs: inputs.collect::<Result<_, _>>()?, field: "input" };
    let model = lease.name().to_owned();
    let results = batch.embed(state, lease).await?;
    let tokens = results.iter().map(|result| result.tokens).sum();
    let timings: Vec<_> = results.iter().map(|result| result.timings).collect();
    let data = results.into_iter().enumerate().map(|(index, result)| {
        let many = result.multi.filter(|_| multi);
        Datum {
            object: "embedding",
            index,
            embedding: many.is_none().then(|| encoding.of(result.embedding)),
            embeddings: many.map(|rows| rows.into_iter().map(|row| encoding.of(row)).collect()),
        }
    });
    let answer = Answer {
        object: "list",
        data: data.collect(),
        model,
        usage: Usage { prompt_tokens: tokens, total_tokens: tokens },
    };
    Ok(timed(timings.into_iter(), begun, answer))
}

/// Jina's: the inputs are chunks of one text, which is read whole, with a space between two of them where none is. Each gets
/// the mean of its own rows.
async fn late_chunks(
    state: &Arc<State>,
    lease: Lease,
    items: Vec<Item>,
    base: Request,
    encoding: Encoding,
    begun: Instant,
) -> Result<Response, ApiError> {
    let (mut text, mut starts) = (String::new(), Vec::with_capacity(items.len()));
    for (index, item) in items.into_iter().enumerate() {
        let at = format!("input[{index}]");
        let (Some(chunk), _) = item.text_or_media(&at)? else {
            return Err(ApiError::field(at, "chunks of one text are texts"));
        };
        if !text.is_empty() && !text.ends_with(char::is_whitespace) && !chunk.starts_with(char::is_whitespace) {
            text.push(' ');
        }
        starts.push(text.len());
        text.push_str(&chunk);
    }
    let request = base.late_chunks_at(starts);
    lease.engine().embed_with(&[], &request)?;
    let model = lease.name().to_owned();
    let batch = Batch { inputs: vec![(Input::text(text), request)], field: "input" };
    // What is wrong with the whole text is of none of its chunks.
    let results = batch.embed(state, lease).await.map_err(|error| match error.param.as_deref() {
        Some("input[0]") => error.of("input"),
        _ => error,
    })?;
    let tokens = results.iter().map(|result| result.tokens).sum();
    let timings: Vec<_> = results.iter().map(|result| result.timings).collect();
    let data = results.into_iter().flat_map(|result| result.chunks).enumerate().map(|(index, chunk)| {
        let embedding = Some(encoding.of(chunk.embedding));
        Datum { object: "embedding", index, embedding, embeddings: None }
    });
    let usage = Usage { prompt_tokens: tokens, total_tokens: tokens };
    let answer = Answer { object: "list", data: data.collect(), model, usage };
    Ok(timed(timings.into_iter(), begun, answer))
}

fn encoding(format: Option<Encoding>, kind: Option<OneOrMany<Encoding>>) -> Result<Encoding, ApiError> {
    let kinds = kind.map(OneOrMany::into_vec).unwrap_or_default();
    let asked: Vec<Encoding> = format.into_iter().chain(kinds).collect();
    match asked[..] {
        [] => Ok(Encoding::Float),
        [first, ref others @ ..] if others.iter().all(|other| *other == first) => Ok(first),
        _ => Err(ApiError::field("embedding_type", "one encoding an answer: float, base64, binary or ubinary")),
    }
}
