//! What the server says of itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::{Path, State as FromState};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::shared::Shared;
use crate::error::ApiError;
use crate::models::Slot;
use crate::state::State;

/// The description of every path.
const OPENAPI: &str = include_str!("../openapi.json");

/// The page of `/`, its style and its script.
const PAGE: &str = include_str!("../page.html");
const ICON: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="7" cy="7" r="4.5" fill="none" stroke="#d9601a" stroke-width="2.5"/><path d="m10.5 10.5 4 4" stroke="#d9601a" stroke-width="2.5" stroke-linecap="round"/></svg>"##;
const PAGE_STYLE: &str = include_str!("../page.css");
const PAGE_SCRIPT: &str = include_str!("../page.js");

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
    part_of_page("text/html; charset=utf-8", PAGE)
}

/// Its style.
pub(super) async fn page_style() -> Response {
    part_of_page("text/css; charset=utf-8", PAGE_STYLE)
}

/// Its script.
pub(super) async fn page_script() -> Response {
    part_of_page("text/javascript; charset=utf-8", PAGE_SCRIPT)
}

/// Its icon.
pub(super) async fn icon() -> Response {
    part_of_page("image/svg+xml", ICON)
}

fn part_of_page(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
        (HeaderName::from_static("referrer-policy"), "no-referrer"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}
