//! Who may ask: the `Host` and `Origin` of a request, its key, and one line in the log for each.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request as HttpRequest, State as FromState};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, HOST,
    ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tracing::Instrument;

use crate::error::ApiError;
use crate::ids::next_id;
use crate::options::Options;
use crate::state::State;
use crate::traces;

/// Checks a request before anything of its body is read, and logs it after it is answered: method, path, status, time; never
/// what it holds.
pub(crate) async fn guard(FromState(state): FromState<Arc<State>>, request: HttpRequest, next: Next) -> Response {
    let (begun, id) = (Instant::now(), next_id());
    let method = request.method().clone();
    // The path as it is written in the table: names that callers make up do not become labels.
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let logged = traces::in_log(id);
    let span = logged.in_scope(|| traces::of_request(&request, &route, id));
    let origin = request.headers().get(ORIGIN).cloned();
    let mut response = match check(&state, &request, &route) {
        Err(error) => error.into_response(),
        Ok(()) if method == Method::OPTIONS => preflight(),
        Ok(()) => next.run(request).instrument(span.clone()).instrument(logged).await,
    };
    if let Some(origin) = origin.filter(|_| response.status() != StatusCode::FORBIDDEN) {
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        response.headers_mut().append(VARY, HeaderValue::from_static("origin"));
    }
    response.headers_mut().insert("x-request-id", HeaderValue::from(id));
    let (status, elapsed) = (response.status().as_u16(), begun.elapsed());
    span.record("http.response.status_code", status);
    state.metrics.answered(&route, status, elapsed);
    tracing::info!(id, %method, route, status, ms = elapsed.as_secs_f64() * 1e3, "request");
    response
}

fn preflight() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    let allowed = "authorization, content-type, x-api-key, x-omniburn-priority";
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(allowed));
    response
}

fn check(state: &State, request: &HttpRequest, route: &str) -> Result<(), ApiError> {
    let (options, headers) = (&state.options, request.headers());
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).or_else(|| request.uri().host());
    if options.keys.is_empty() && !host.is_some_and(|host| allowed_host(host, options)) {
        let message = "this `Host` is not served: name it with --allow-host, or ask for a key with --api-key-file";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "host_refused", message));
    }
    if let Some(origin) = headers.get(ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        let own = host.is_some_and(|host| origin.split_once("://").is_some_and(|(_, rest)| rest == host));
        if !own && !options.allow_origins.iter().any(|allowed| allowed == origin || allowed == "*") {
            let message = "pages of this `Origin` may not call: name it with --allow-origin";
            return Err(ApiError::new(StatusCode::FORBIDDEN, "origin_refused", message));
        }
    }
    // What says that the process lives is asked by those who have no key.
    let open = matches!(route, "/health" | "/ready") || request.method() == Method::OPTIONS;
    if !open && !options.keys.is_empty() && !has_key(headers, &options.keys) {
        let message = "a key is needed: `Authorization: Bearer KEY`";
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message));
    }
    if !open && state.draining.load(Ordering::SeqCst) {
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the server is stopping"));
    }
    Ok(())
}

/// Whether a name cannot be another site's that was made to point here.
fn allowed_host(host: &str, options: &Options) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let named = |allowed: &String| allowed == "*" || allowed.eq_ignore_ascii_case(name);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok() || options.allow_hosts.iter().any(named)
}

/// Whether one of the keys was brought. Digests are compared, all of them, in a time that does not depend on how many bytes
/// are right.
fn has_key(headers: &HeaderMap, keys: &[String]) -> bool {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    let Some(given) = bearer.or_else(|| headers.get("x-api-key").and_then(|value| value.to_str().ok())) else {
        return false;
    };
    let given = Sha256::digest(given.as_bytes());
    let same = |key: &String| Sha256::digest(key.as_bytes()).ct_eq(&given);
    keys.iter().map(same).fold(subtle::Choice::from(0), |any, one| any | one).into()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn only_names_that_no_other_site_can_have_are_hosts() {
        let mut options = Options::new(SocketAddr::from(([127, 0, 0, 1], 0)), Vec::new());
        for good in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:80", "[::1]", "192.168.1.2"] {
            assert!(allowed_host(good, &options), "{good}");
        }
        for bad in ["example.org", "localhost.example.org:80", "127.0.0.1.example.org", "", "[example]:1"] {
            assert!(!allowed_host(bad, &options), "{bad}");
        }
        options.allow_hosts.push("search.internal".into());
        assert!(allowed_host("search.internal:8080", &options));
    }

    #[test]
    fn a_key_is_taken_from_either_header() {
        let keys = vec!["one".to_owned(), "two".to_owned()];
        let with = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            has_key(&headers, &keys)
        };
        assert!(with("authorization", "Bearer two") && with("authorization", "bearer one") && with("x-api-key", "one"));
        assert!(!with("authorization", "Bearer three") && !with("authorization", "two") && !with("x-api-key", ""));
        assert!(!has_key(&HeaderMap::new(), &keys));
    }
}
