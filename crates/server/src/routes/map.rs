//! The collection on a plane.

use std::sync::Arc;

use axum::extract::State as FromState;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use super::search::finder;
use super::shared::Shared;
use crate::error::ApiError;

/// `GET /v1/map`: the files of the index along the two principal components of their vectors.
pub(super) async fn map(FromState(state): Shared) -> Result<Response, ApiError> {
    let finder = Arc::clone(finder(&state)?);
    let map = tokio::task::spawn_blocking(move || finder.map()).await;
    let map = map.map_err(|error| ApiError::internal(&error))??;
    Ok(([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "private, no-cache")], map).into_response())
}
