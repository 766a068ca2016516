//! Bodies of requests within their limits, and JSON with the name of the field that is wrong.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use crate::error::ApiError;

/// Reads a whole body of at most `limit` bytes, each piece of it within `timeout`.
///
/// # Errors
/// 413 as soon as it is longer, before it is read where its length is declared; 408 where it stops coming; 400 where it breaks off.
pub(crate) async fn read(
    mut body: Body,
    headers: &HeaderMap,
    limit: usize,
    timeout: Duration,
) -> Result<Bytes, ApiError> {
    let too_large =
        || ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", format!("a body has at most {limit} bytes"));
    let declared =
        headers.get(axum::http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|declared| declared > limit as u64) {
        return Err(too_large());
    }
    let mut read = BytesMut::new();
    loop {
        let frame = tokio::time::timeout(timeout, body.frame()).await.map_err(|_| {
            let message = format!("the body stopped coming for {} s", timeout.as_secs());
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", message)
        })?;
        let Some(frame) = frame else { return Ok(read.freeze()) };
        let frame = frame
            .map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "bad_body", "the body could not be read to its end"))?;
        if let Some(data) = frame.data_ref() {
            if read.len() + data.len() > limit {
                return Err(too_large());
            }
            read.extend_from_slice(data);
        }
    }
}

/// JSON into a request. Nesting is limited to 128 by the parser.
///
/// # Errors
/// 415 for another content type, 400 for what is not JSON, 422 with the field for JSON of another shape.
pub(crate) fn json<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<T, ApiError> {
    let named = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default().to_ascii_lowercase());
    // A client that says nothing means JSON: there is nothing else to mean.
    if named.as_deref().is_some_and(|named| !named.split(';').next().is_some_and(|kind| kind.trim().ends_with("json")))
    {
        let message = format!("the content type is `{}`, expected application/json", named.unwrap_or_default());
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unknown_format", message));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value: T = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data => {
                let error = ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_value", inner.to_string());
                if path == "." { error } else { error.of(path) }
            }
            _ => ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", format!("the body is not JSON: {inner}")),
        }
    })?;
    reader.end().map_err(|error| {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", format!("the body goes on after its JSON: {error}"))
    })?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        #[serde(default)]
        dimensions: Option<u32>,
    }

    #[test]
    fn a_wrong_field_is_named() {
        let parsed = |text: &str| json::<Asked>(&HeaderMap::new(), text.as_bytes()).map(|asked| asked.dimensions);
        assert_eq!(parsed("{\"dimensions\": 3}").unwrap(), Some(3));
        let error = parsed("{\"dimensions\": \"x\"}").unwrap_err();
        assert_eq!((error.status.as_u16(), error.param.as_deref()), (422, Some("dimensions")));
        let error = parsed("{\"dimension\": 3}").unwrap_err();
        assert!(error.status.as_u16() == 422 && error.message.contains("`dimension`"), "{}", error.message);
        for broken in ["", "{", "{} {}", "[1", "nul"] {
            assert_eq!(parsed(broken).unwrap_err().status.as_u16(), 400, "{broken}");
        }
        let deep = "[".repeat(10_000);
        assert_eq!(json::<serde_json::Value>(&HeaderMap::new(), deep.as_bytes()).unwrap_err().status.as_u16(), 400);
    }

    #[test]
    fn another_content_type_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "text/plain".parse().unwrap());
        assert_eq!(json::<Asked>(&headers, b"{}").unwrap_err().status.as_u16(), 415);
        headers.insert(CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap());
        assert!(json::<Asked>(&headers, b"{}").is_ok());
    }
}
