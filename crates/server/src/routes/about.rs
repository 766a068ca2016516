//! What the server says of itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::{Path, State as FromState};
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Shared;
use crate::error::ApiError;
use crate::models::Slot;
use crate::state::State;

/// The description of every path.
const OPENAPI: &str = include_str!("../openapi.json");

/// The page of `/`.
const PAGE: &str = include_str!("../page.html");

/// The process answers.
pub(super) async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// Whether requests would be answered now: a model that was unloaded comes back by itself.
pub(super) async fn ready(FromState(state): Shared) -> Result<Json<Value>, ApiError> {
    if state.draining.load(Ordering::SeqCst) {
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the server is stopping"));
    }
    Ok(Json(json!({"status": "ready"})))
}

/// Figures for Prometheus.
pub(super) async fn metrics(FromState(state): Shared) -> Result<Response, ApiError> {
    let page = state.metrics.page(state.calls.in_work()).map_err(|error| ApiError::internal(&error))?;
    let header = (CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    Ok(([header], page).into_response())
}

/// The models served.
pub(super) async fn models(FromState(state): Shared) -> Json<Value> {
    let data: Vec<Value> = state.models.slots().iter().map(|slot| about(&state, slot)).collect();
    Json(json!({"object": "list", "data": data}))
}

/// One of them.
pub(super) async fn model(FromState(state): Shared, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let slot = state.models.find(&name)?;
    Ok(Json(about(&state, slot)))
}

fn about(state: &Arc<State>, slot: &Slot) -> Value {
    let mut about = json!({
        "id": slot.name(),
        "object": "model",
        "created": state.started,
        "owned_by": "omniburn",
        "loaded": false,
    });
    if let Some(engine) = slot.opened() {
        let profile = engine.profile();
        let modalities: Vec<String> = profile.modalities.iter().map(ToString::to_string).collect();
        let more = json!({
            "loaded": true,
            "identity": profile.identity,
            "modalities": modalities,
            "outputs": profile.outputs,
            "dimensions": profile.dims,
            "tasks": profile.tasks,
            "max_tokens": profile.max_tokens,
            "device": profile.device,
            "dtype": profile.dtype.to_string(),
        });
        if let (Value::Object(about), Value::Object(more)) = (&mut about, more) {
            about.extend(more);
        }
    }
    about
}

/// The description of the interface, OpenAPI 3.1.
pub(super) async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

/// A page for people.
pub(super) async fn page() -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, "default-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
    ];
    (headers, PAGE).into_response()
}
