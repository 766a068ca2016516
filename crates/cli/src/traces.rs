//! Spans of requests to an OpenTelemetry collector, over OTLP/HTTP.
//!
//! What is sent is what stands in [`SPANS`]: names, times, ids and counts. Neither a text nor a file name is in any of them.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::failure::Failure;

/// The spans that are sent: a request, and what engines do for it.
const SPANS: [&str; 6] = ["exchange", "tokenise", "decode", "unit", "queue", "compute"];
/// The path of traces below the address of a collector.
const PATH: &str = "/v1/traces";
/// How long a collector may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last spans may take when the program ends.
const LAST: Duration = Duration::from_secs(5);

/// Sends what is left when it goes.
pub struct Traces(SdkTracerProvider);

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST) {
            tracing::warn!("the last spans were not sent: {error}");
        }
    }
}

/// The layer that sends spans to a collector: `endpoint` is its address, `http://localhost:4318`, with or without the path
/// `/v1/traces`.
///
/// # Errors
/// A usage failure for what is no such address.
pub fn layer<S>(endpoint: &str) -> Result<(impl Layer<S>, Traces), Failure>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let refused = |why: &str| Failure::usage(format!("--otlp-endpoint {endpoint}: {why}"));
    let rest = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
    if rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/')) {
        return Err(refused("expected an address such as http://localhost:4318"));
    }
    let address = endpoint.trim_end_matches('/');
    let address = if address.ends_with(PATH) { address.to_owned() } else { format!("{address}{PATH}") };
    let agent = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Client(agent.into()))
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(address)
        .with_timeout(TIMEOUT)
        .build()
        .map_err(|error| refused(&error.to_string()))?;
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_service_name("omniburn").with_attribute(version).build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let spans =
        filter_fn(|about| about.is_span() && about.target().starts_with("omniburn") && SPANS.contains(&about.name()));
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("omniburn"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(spans);
    Ok((layer, Traces(provider)))
}

/// Sends from the exporter's own thread, which may block.
#[derive(Debug)]
struct Client(ureq::Agent);

impl HttpClient for Client {
    fn send_bytes<'life0, 'async_trait>(
        &'life0 self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let answer = self.0.run(Request::from_parts(head, body.to_vec()))?;
            let (head, mut body) = answer.into_parts();
            Ok(Response::from_parts(head, Bytes::from(body.read_to_vec()?)))
        })
    }
}
