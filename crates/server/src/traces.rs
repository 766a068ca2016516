//! The spans of a request. [`in_log`] is there at every level, so that each line that the log has of a request has its id. What
//! engines do for it (`tokenise`, `decode`, `queue`, `compute`) is below the other; none of them says what an input holds.

use axum::extract::Request;
use tracing::Span;

/// What lines of the log about a request stand in: `request{id=7}`.
pub(crate) fn in_log(id: u64) -> Span {
    tracing::error_span!("request", id)
}

/// The span that is exported of a request, with the id that stands in the log and in `x-request-id`. Where spans are exported, it belongs to the
/// trace that a `traceparent` header names.
pub(crate) fn of_request(request: &Request, route: &str, id: u64) -> Span {
    let span = tracing::trace_span!(
        "exchange",
        id,
        otel.name = %format_args!("{} {route}", request.method()),
        otel.kind = "server",
        http.request.method = %request.method(),
        http.route = route,
        http.response.status_code = tracing::field::Empty,
    );
    #[cfg(feature = "otel")]
    remote::join(&span, request.headers());
    span
}

/// Traces that began elsewhere.
#[cfg(feature = "otel")]
mod remote {
    use axum::http::HeaderMap;
    use opentelemetry::global;
    use opentelemetry::propagation::Extractor;
    use tracing::Span;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    struct Headers<'a>(&'a HeaderMap);

    impl Extractor for Headers<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.get(key)?.to_str().ok()
        }

        fn keys(&self) -> Vec<&str> {
            self.0.keys().map(|name| name.as_str()).collect()
        }
    }

    /// Puts a span into the trace that the headers of its request name, where they name one.
    pub(super) fn join(span: &Span, headers: &HeaderMap) {
        if span.is_disabled() || !headers.contains_key("traceparent") {
            return;
        }
        let parent = global::get_text_map_propagator(|propagator| propagator.extract(&Headers(headers)));
        // Refused only where nobody exports.
        let _ = span.set_parent(parent);
    }
}
