//! The paths of text-embeddings-inference.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Request as HttpRequest, State as FromState};
use axum::response::{IntoResponse, Response};
use omniburn::{Input, OutputKind, Priority, Request, Role, TextToken, Truncation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::shared::{Asked, Batch, Shared, timed};
use crate::calls::expected_wait;
use crate::error::ApiError;
use crate::item::OneOrMany;
use crate::state::State;
use crate::vector::{Encoded, Encoding};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EmbedBody {
    inputs: OneOrMany<String>,
    #[serde(default)]
    truncate: Option<bool>,
    #[serde(default)]
    truncation_direction: Option<Direction>,
    #[serde(default)]
    normalize: Option<bool>,
    #[serde(default)]
    dimensions: Option<u32>,
    #[serde(default)]
    prompt_name: Option<String>,
}

impl EmbedBody {
    fn split(self) -> (OneOrMany<String>, Cut) {
        let Self { inputs, truncate, truncation_direction, normalize, dimensions, prompt_name } = self;
        (inputs, Cut { truncate, truncation_direction, normalize, dimensions, prompt_name })
    }
}

/// Which end of a long text is cut, and whether.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Cut {
    #[serde(default)]
    truncate: Option<bool>,
    #[serde(default)]
    truncation_direction: Option<Direction>,
    #[serde(default)]
    normalize: Option<bool>,
    #[serde(default)]
    dimensions: Option<u32>,
    /// `query`, `document` or a name of the record's tasks.
    #[serde(default)]
    prompt_name: Option<String>,
}

#[derive(Deserialize, Clone, Copy)]
enum Direction {
    #[serde(alias = "left")]
    Left,
    #[serde(alias = "right")]
    Right,
}

impl Cut {
    fn request(&self, role: Role, priority: Option<Priority>) -> Result<Request, ApiError> {
        if self.normalize == Some(false) {
            return Err(ApiError::field("normalize", "vectors are of unit length; others are not given"));
        }
        let role = match self.prompt_name.as_deref() {
            None => role,
            Some("query") => Role::Query,
            Some("document" | "passage") => Role::Document,
            Some("none" | "") => Role::None,
            Some(other) => {
                let message = format!("no prompt `{other}`: expected query, document or none");
                return Err(ApiError::field("prompt_name", message));
            }
        };
        let mut request = Request::new(role);
        if self.truncate == Some(true) {
            request = request.truncation(match self.truncation_direction {
                Some(Direction::Left) => Truncation::Left,
                _ => Truncation::Right,
            });
        }
        if let Some(dim) = self.dimensions {
            request = request.dim(dim as usize);
        }
        if let Some(priority) = priority {
            request = request.priority(priority);
        }
        Ok(request)
    }
}

fn texts(texts: OneOrMany<String>, base: &Request, state: &State) -> Result<Batch, ApiError> {
    let texts = texts.into_vec();
    Batch::check(texts.len(), "inputs", state)?;
    Ok(Batch { inputs: texts.into_iter().map(|text| (Input::text(text), base.clone())).collect(), field: "inputs" })
}

/// Vectors of texts, as a list of lists of numbers.
pub(super) async fn embed(FromState(state): Shared, request: HttpRequest) -> Result<Response, ApiError> {
    let begun = Instant::now();
    let Asked { body, priority } = Asked::<EmbedBody>::read(&state, request).await?;
    let (inputs, how) = body.split();
    let base = how.request(Role::Document, priority)?;
    let lease = state.models.get(None).await?;
    lease.engine().embed_with(&[], &base)?;
    let results = texts(inputs, &base, &state)?.embed(&state, lease).await?;
    let timings: Vec<_> = results.iter().map(|result| result.timings).collect();
    let vectors: Vec<Encoded> = results.into_iter().map(|result| Encoding::Float.of(result.embedding)).collect();
    Ok(timed(timings.into_iter(), begun, vectors))
}

#[derive(Serialize)]
struct Weight {
    index: u32,
    value: f32,
}

/// Weights of tokens of texts.
pub(super) async fn embed_sparse(FromState(state): Shared, request: HttpRequest) -> Result<Response, ApiError> {
    let begun = Instant::now();
    let Asked { body, priority } = Asked::<EmbedBody>::read(&state, request).await?;
    let (inputs, how) = body.split();
    let base = how.request(Role::Document, priority)?.outputs([OutputKind::Sparse]);
    let lease = state.models.get(None).await?;
    lease.engine().embed_with(&[], &base)?;
    let results = texts(inputs, &base, &state)?.embed(&state, lease).await?;
    let timings: Vec<_> = results.iter().map(|result| result.timings).collect();
    let weights = results.into_iter().map(|result| {
        let sparse = result.sparse.unwrap_or_default();
        sparse.indices.into_iter().zip(sparse.values).map(|(index, value)| Weight { index, value }).collect::<Vec<_>>()
    });
    Ok(timed(timings.into_iter(), begun, weights.collect::<Vec<_>>()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SimilarityBody {
    inputs: Sentences,
    #[serde(default)]
    parameters: Option<Cut>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sentences {
    source_sentence: String,
    sentences: Vec<String>,
}

/// The cosine of a text with each of others.
pub(super) async fn similarity(FromState(state): Shared, request: HttpRequest) -> Result<Response, ApiError> {
    let begun = Instant::now();
    let Asked { body, priority } = Asked::<SimilarityBody>::read(&state, request).await?;
    let base = body.parameters.unwrap_or_default().request(Role::Document, priority)?;
    let lease = state.models.get(None).await?;
    lease.engine().embed_with(&[], &base)?;
    let Sentences { source_sentence, sentences } = body.inputs;
    Batch::check(sentences.len(), "inputs.sentences", &state)?;
    let inputs = std::iter::once(source_sentence).chain(sentences).map(|text| (Input::text(text), base.clone()));
    let results = Batch { inputs: inputs.collect(), field: "inputs" }.embed(&state, lease).await?;
    let timings: Vec<_> = results.iter().map(|result| result.timings).collect();
    let cosines: Vec<f32> = results[1..].iter().map(|result| results[0].embedding.cosine(&result.embedding)).collect();
    Ok(timed(timings.into_iter(), begun, cosines))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenizeBody {
    inputs: OneOrMany<String>,
    /// Whether the special tokens around a text are counted; they are by default.
    #[serde(default)]
    add_special_tokens: Option<bool>,
    /// `query`, `document` or `none`: what is put in front of the text, as [`embed`] does.
    #[serde(default)]
    prompt_name: Option<String>,
}

/// A token; places are characters of the text behind its prompt's beginning.
#[derive(Serialize)]
struct Token {
    id: u32,
    text: String,
    special: bool,
    start: Option<usize>,
    stop: Option<usize>,
}

/// The tokens of texts as the model's tokenizer gives them.
pub(super) async fn tokenize(FromState(state): Shared, request: HttpRequest) -> Result<Response, ApiError> {
    let Asked { body, priority } = Asked::<TokenizeBody>::read(&state, request).await?;
    let how = Cut { prompt_name: body.prompt_name, ..Cut::default() }.request(Role::Document, priority)?;
    let texts = body.inputs.into_vec();
    Batch::check(texts.len(), "inputs", &state)?;
    let specials = body.add_special_tokens.unwrap_or(true);
    let lease = state.models.get(None).await?;
    let tokens = state.calls.run(lease, move |lease, cancel| {
        let request = how.cancel(cancel);
        let wait = expected_wait(&lease.engine().metrics(), Priority::Background);
        let of = |(index, text): (usize, &String)| {
            let found = lease.engine().tokens(text, &request, specials);
            let whole = [lease.engine().prefix(&request), text].concat();
            let named = found.map_err(|error| ApiError::item(format!("inputs[{index}]"), &error, wait));
            named.map(|found| shown(&whole, found))
        };
        texts.iter().enumerate().map(of).collect::<Result<Vec<_>, ApiError>>()
    });
    Ok(Json(tokens.await??).into_response())
}

/// Tokens with their own part of the text in place of their name in the vocabulary.
fn shown(text: &str, tokens: Vec<TextToken>) -> Vec<Token> {
    // Where each character begins, so that a long text is not walked through for each of its tokens.
    let begins: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let part = |chars: &std::ops::Range<usize>| {
        let at = |place: usize| begins.get(place).copied().unwrap_or(text.len());
        text.get(at(chars.start)..at(chars.end)).unwrap_or_default().to_owned()
    };
    let one = |TextToken { id, token, chars }: TextToken| match chars {
        None => Token { id, text: token, special: true, start: None, stop: None },
        Some(chars) => {
            Token { id, text: part(&chars), special: false, start: Some(chars.start), stop: Some(chars.end) }
        }
    };
    tokens.into_iter().map(one).collect()
}

/// What is served, in the words of text-embeddings-inference.
pub(super) async fn info(FromState(state): Shared) -> Result<Json<Value>, ApiError> {
    let lease = state.models.get(None).await?;
    Ok(Json(about(&state, lease.name(), lease.engine())))
}

fn about(state: &Arc<State>, name: &str, engine: &omniburn::Engine) -> Value {
    let profile = engine.profile();
    let kind = match profile.outputs.contains(&"score") {
        true => json!({"reranker": {"id2label": {"0": "score"}, "label2id": {"score": 0}}}),
        false => json!({"embedding": {"pooling": "as the record says"}}),
    };
    json!({
        "model_id": name,
        "model_sha": profile.identity,
        "model_dtype": profile.dtype.to_string(),
        "model_type": kind,
        "max_concurrent_requests": state.options.max_queue,
        "max_input_length": profile.max_tokens,
        "max_batch_tokens": profile.max_tokens * state.options.max_inputs,
        "max_client_batch_size": state.options.max_inputs,
        "auto_truncate": false,
        "tokenization_workers": profile.threads,
        "version": env!("CARGO_PKG_VERSION"),
    })
}
