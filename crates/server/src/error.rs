//! The error a client gets: OpenAI's envelope.

use std::time::Duration;

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use omniburn::{EngineError, ErrorKind, ItemError};
use serde::Serialize;

/// A failed request: a status and OpenAI's error object.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub status: StatusCode,
    /// A word for programs.
    pub code: &'static str,
    /// The field concerned.
    pub param: Option<String>,
    pub message: String,
    pub retry_after: Option<Duration>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: ErrorObject<'a>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: &'static str,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, param: None, message: message.into(), retry_after: None }
    }

    /// A field whose value is not taken.
    pub(crate) fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_value", message).of(param)
    }

    /// Concerning a field.
    pub(crate) fn of(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// More calls than are taken at once.
    pub(crate) fn overloaded(message: impl Into<String>, retry_after: Duration) -> Self {
        let retry_after = Some(retry_after);
        Self { retry_after, ..Self::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", message) }
    }

    /// A fault of this side: the client gets a number to ask about, the log the fault.
    pub(crate) fn internal(what: &dyn std::fmt::Display) -> Self {
        let id = crate::ids::next_id();
        tracing::error!(id, "{what}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", format!("internal error {id}; the log says more"))
    }

    /// An input that failed, by its place in the request.
    pub(crate) fn item(param: impl Into<String>, error: &ItemError, retry_after: Duration) -> Self {
        let kind = error.kind();
        let status = match kind {
            ErrorKind::ModalityAbsent => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ErrorKind::TooLarge | ErrorKind::OverBudget => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::Overloaded => return Self::overloaded(error.to_string(), retry_after),
            ErrorKind::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Panicked | ErrorKind::Device | ErrorKind::NotFinite => return Self::internal(error),
            _ if matches!(error, ItemError::Record(_)) => return Self::internal(error),
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, kind.name(), error.to_string()).of(param)
    }

    fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 | 403 => "authentication_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let param = match &error {
            EngineError::UnknownTask { .. } => "task",
            EngineError::UnknownDim { .. } => "dimensions",
            EngineError::UnknownOutput { .. } => "output",
            EngineError::NoInstruction { .. } => "instruction",
            EngineError::NoLateChunks { .. } => "late_chunking",
            EngineError::OutputAbsent { .. } => "model",
            _ => return Self::internal(&error),
        };
        Self::field(param, error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let error =
            ErrorObject { message: &self.message, kind: self.kind(), param: self.param.as_deref(), code: self.code };
        let mut response = (self.status, axum::Json(Envelope { error })).into_response();
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_items_have_the_promised_statuses() {
        let status = |error: ItemError| ApiError::item("input[0]", &error, Duration::from_secs(1)).status.as_u16();
        let absent = ItemError::ModalityAbsent { modality: omniburn::Modality::Audio, reason: "no audio tower".into() };
        assert_eq!(status(absent), 415);
        assert_eq!(status(ItemError::TooLong { tokens: 9, limit: 8 }), 400);
        assert_eq!(status(ItemError::OverBudget { needed: 9, budget: 8 }), 413);
        assert_eq!(status(ItemError::Overloaded { priority: omniburn::Priority::Background, limit: 1 }), 429);
        assert_eq!(status(ItemError::Cancelled), 503);
        let hidden = ItemError::Panicked { message: "index out of bounds".into() };
        let shown = ApiError::item("input[0]", &hidden, Duration::ZERO);
        assert!(shown.status.as_u16() == 500 && !shown.message.contains("bounds"), "{}", shown.message);
    }

    #[test]
    fn a_wait_is_told_in_whole_seconds_of_at_least_one() {
        for (wait, shown) in [(0, "1"), (900, "1"), (1_001, "2")] {
            let response = ApiError::overloaded("full", Duration::from_millis(wait)).into_response();
            assert_eq!(response.headers()[RETRY_AFTER], shown);
        }
    }
}
