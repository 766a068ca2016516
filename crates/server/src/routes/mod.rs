//! The interfaces: which path is answered by whom.

mod about;
mod embeddings;
mod rerank;
pub(crate) mod search;
mod shared;
mod tei;

use std::sync::Arc;

use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Router, middleware};

use crate::error::ApiError;
use crate::guard::guard;
use crate::state::State;

/// Every path.
pub(crate) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/v1/embeddings", post(embeddings::embeddings))
        .route("/embed", post(tei::embed))
        // huggingface_hub's client posts to the address it was given.
        .route("/", get(about::page).post(tei::embed))
        .route("/embed_sparse", post(tei::embed_sparse))
        .route("/similarity", post(tei::similarity))
        .route("/info", get(tei::info))
        .route("/rerank", post(rerank::rerank))
        .route("/v1/rerank", post(rerank::rerank))
        .route("/v2/rerank", post(rerank::rerank))
        .route("/v1/search", get(search::by_url).post(search::by_body))
        .route("/v1/index", get(search::status))
        .route("/v1/items/{id}", get(search::item))
        .route("/v1/items/{id}/thumbnail", get(search::thumbnail))
        .route("/icon.svg", get(about::icon))
        .route("/page.css", get(about::page_style))
        .route("/page.js", get(about::page_script))
        .route("/v1/models", get(about::models))
        .route("/v1/models/{*name}", get(about::model))
        .route("/health", get(about::health))
        .route("/ready", get(about::ready))
        .route("/metrics", get(about::metrics))
        .route("/openapi.json", get(about::openapi))
        .route_service("/mcp", crate::mcp::over_http(&state))
        .fallback(absent)
        .method_not_allowed_fallback(other_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&state), guard))
        .with_state(state)
}

async fn absent() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such path; GET /openapi.json lists them")
}

async fn other_method() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path is asked by another method")
}
