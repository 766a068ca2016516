//! What the interfaces share: JSON with its headers, inputs as a batch, answers with where the time went.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, Path, Request as HttpRequest, State as FromState};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use omniburn::{Embedded, Input, ItemError, Priority, Request, Timings};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::body;
use crate::calls::expected_wait;
use crate::error::ApiError;
use crate::models::Lease;
use crate::state::State;

pub(crate) type Shared = FromState<Arc<State>>;

/// The one part of a path that is a name or an id.
pub(crate) struct InPath(pub String);

impl<S: Send + Sync> FromRequestParts<S> for InPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let part = Path::<String>::from_request_parts(parts, state).await;
        let Path(part) = part.map_err(|error| ApiError::field("path", error.body_text()))?;
        Ok(Self(part))
    }
}

/// A request's JSON and what its headers say.
pub(crate) struct Asked<T> {
    pub body: T,
    /// The class that a header asks for.
    pub priority: Option<Priority>,
}

impl<T: DeserializeOwned> Asked<T> {
    pub(crate) async fn read(state: &State, request: HttpRequest) -> Result<Self, ApiError> {
        let (parts, incoming) = request.into_parts();
        let priority = priority(&parts.headers)?;
        let options = &state.options;
        let bytes = body::read(incoming, &parts.headers, options.max_body, options.read_timeout).await?;
        Ok(Self { body: body::json(&parts.headers, &bytes)?, priority })
    }
}

fn priority(headers: &HeaderMap) -> Result<Option<Priority>, ApiError> {
    let Some(value) = headers.get("x-omniburn-priority") else { return Ok(None) };
    match value.to_str() {
        Ok("interactive") => Ok(Some(Priority::Interactive)),
        Ok("background") => Ok(Some(Priority::Background)),
        _ => Err(ApiError::field("x-omniburn-priority", "expected interactive or background")),
    }
}

/// Inputs of a request with what each is treated by, and what they are called in it.
pub(crate) struct Batch {
    pub inputs: Vec<(Input, Request)>,
    pub field: &'static str,
}

impl Batch {
    /// # Errors
    /// 400 for none, 413 for more than the server takes.
    pub(crate) fn check(count: usize, field: &'static str, state: &State) -> Result<(), ApiError> {
        let most = state.options.max_inputs;
        if count == 0 {
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "empty", "at least one input").of(field));
        }
        if count > most {
            let message = format!("{count} inputs, a request has at most {most}");
            return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message).of(field));
        }
        Ok(())
    }

    /// A vector for each, or the error of the first that has none.
    ///
    /// # Errors
    /// As the input's error.
    pub(crate) async fn embed(self, state: &State, lease: Lease) -> Result<Vec<Embedded>, ApiError> {
        let Batch { inputs, field } = self;
        for (input, _) in &inputs {
            state.metrics.inputs(input.modality().name(), 1);
        }
        let outcome = state.calls.run(lease, move |lease, cancel| {
            let inputs: Vec<(Input, Request)> =
                inputs.into_iter().map(|(input, request)| (input, request.cancel(cancel.clone()))).collect();
            let results = lease.engine().embed_each(&inputs);
            let wait = expected_wait(&lease.engine().metrics(), Priority::Background);
            all(results, field, wait)
        });
        outcome.await?
    }
}

/// Every result, or the error of the first input that failed.
fn all(results: Vec<Result<Embedded, ItemError>>, field: &str, wait: Duration) -> Result<Vec<Embedded>, ApiError> {
    let named = results
        .into_iter()
        .enumerate()
        .map(|(index, result)| result.map_err(|error| ApiError::item(format!("{field}[{index}]"), &error, wait)));
    named.collect()
}

/// JSON with where the time went: `Server-Timing`, and the headers of text-embeddings-inference, in milliseconds.
pub(crate) fn timed(
    timings: impl Iterator<Item = Timings>,
    begun: std::time::Instant,
    value: impl Serialize,
) -> Response {
    let longest = timings.fold(Timings::default(), |a, b| Timings {
        tokenise: a.tokenise.max(b.tokenise),
        queue: a.queue.max(b.queue),
        compute: a.compute.max(b.compute),
    });
    let mut response = Json(value).into_response();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let timing = format!(
        "tokenise;dur={:.3}, queue;dur={:.3}, compute;dur={:.3}",
        ms(longest.tokenise),
        ms(longest.queue),
        ms(longest.compute)
    );
    let headers = response.headers_mut();
    let mut add = |name: &'static str, value: String| {
        let value = HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static(""));
        headers.insert(HeaderName::from_static(name), value);
    };
    add("server-timing", timing);
    for (name, time) in [
        ("x-tokenization-time", longest.tokenise),
        ("x-queue-time", longest.queue),
        ("x-inference-time", longest.compute),
        ("x-total-time", begun.elapsed()),
    ] {
        add(name, (ms(time).round() as u64).to_string());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_one_of_two() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-omniburn-priority", value.parse().unwrap());
            priority(&headers)
        };
        assert_eq!(with("interactive").unwrap(), Some(Priority::Interactive));
        assert_eq!(with("background").unwrap(), Some(Priority::Background));
        assert_eq!(with("urgent").unwrap_err().status, StatusCode::BAD_REQUEST);
        assert_eq!(priority(&HeaderMap::new()).unwrap(), None);
    }
}
