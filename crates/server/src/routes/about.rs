//! What the server says of itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State as FromState;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::shared::{InPath, Shared};
use crate::error::ApiError;
use crate::models::Slot;
use crate::state::State;

/// The description of every path.
pub(super) const OPENAPI: &str = include_str!("../openapi.json");

/// The page of `/`, and that of `/docs`.
const PAGE: &str = include_str!("../page.html");
const DOCS: &str = include_str!("../docs.html");

/// A file that a page asks for.
pub(super) struct Part {
    pub path: &'static str,
    pub kind: &'static str,
    pub text: &'static str,
}

/// Scripts, styles and the icon of the pages.
pub(super) const PARTS: [Part; 5] = [
    Part { path: "/icon.svg", kind: "image/svg+xml", text: include_str!("../icon.svg") },
    Part { path: "/page.css", kind: "text/css; charset=utf-8", text: include_str!("../page.css") },
    Part { path: "/page.js", kind: "text/javascript; charset=utf-8", text: include_str!("../page.js") },
    Part { path: "/map.js", kind: "text/javascript; charset=utf-8", text: include_str!("../map.js") },
    Part { path: "/docs.js", kind: "text/javascript; charset=utf-8", text: include_str!("../docs.js") },
];

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
pub(super) async fn model(FromState(state): Shared, InPath(name): InPath) -> Result<Json<Value>, ApiError> {
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

/// The description of the interface as a page.
pub(super) async fn docs() -> Response {
    part_of_page("text/html; charset=utf-8", DOCS)
}

/// What a model that generates would answer: none of those served does.
pub(super) async fn no_text() -> ApiError {
    let message = "no model served here generates text or transcribes: those served give vectors or scores";
    ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message).of("model")
}

pub(super) fn part_of_page(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
        (HeaderName::from_static("referrer-policy"), "no-referrer"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}
