//! Counts and durations in Prometheus' text form.

use std::fmt;
use std::time::Duration;

use omniburn::{ClassStats, DurationStats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::models::Models;

/// What the server counts.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    seconds: Family<Route, Histogram>,
    inputs: Family<Kind, Counter>,
    in_work: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// Upper ends of the classes of durations of requests, in seconds.
const SECONDS: [f64; 12] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

impl Metrics {
    pub(crate) fn new(models: Models) -> Self {
        let mut registry = Registry::with_prefix("omniburn");
        let requests = Family::<Answered, Counter>::default();
        registry.register("requests", "Requests answered", requests.clone());
        let seconds = Family::<Route, Histogram>::new_with_constructor(|| Histogram::new(SECONDS));
        registry.register("request_seconds", "From the head of a request to the head of its answer", seconds.clone());
        let inputs = Family::<Kind, Counter>::default();
        registry.register("inputs", "Inputs embedded or scored, by kind", inputs.clone());
        let in_work = Gauge::default();
        registry.register("calls_in_work", "Calls of engines in work, waiting ones included", in_work.clone());
        registry.register_collector(Box::new(Engines(models)));
        Self { registry, requests, seconds, inputs, in_work }
    }

    pub(crate) fn answered(&self, route: &str, status: u16, elapsed: Duration) {
        self.requests.get_or_create(&Answered { route: route.to_owned(), status }).inc();
        self.seconds.get_or_create(&Route { route: route.to_owned() }).observe(elapsed.as_secs_f64());
    }

    pub(crate) fn inputs(&self, kind: &'static str, count: u64) {
        self.inputs.get_or_create(&Kind { kind }).inc_by(count);
    }

    /// The page of `/metrics`.
    pub(crate) fn page(&self, in_work: usize) -> Result<String, fmt::Error> {
        self.in_work.set(i64::try_from(in_work).unwrap_or(i64::MAX));
        let mut page = String::new();
        text::encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

/// The figures that engines keep themselves.
#[derive(Debug)]
struct Engines(Models);

impl fmt::Debug for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.slots().iter().map(|slot| slot.name())).finish()
    }
}

impl Collector for Engines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let opened: Vec<_> = self.0.slots().iter().map(|slot| (slot.name(), slot.opened())).collect();
        let mut gauge = |name: &str, help: &str, values: Vec<(Vec<(&str, String)>, f64)>| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (labels, value) in values {
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
            Ok::<(), fmt::Error>(())
        };
        let of_models = |value: &dyn Fn(&omniburn::Engine) -> f64| -> Vec<(Vec<(&str, String)>, f64)> {
            let values = opened
                .iter()
                .filter_map(|(name, engine)| Some((vec![("model", (*name).to_owned())], value(engine.as_ref()?))));
            values.collect()
        };
        let loaded = opened
            .iter()
            .map(|(name, engine)| (vec![("model", (*name).to_owned())], f64::from(u8::from(engine.is_some()))));
        gauge("model_loaded", "Whether a model is open", loaded.collect())?;
        gauge("memory_bytes", "Memory that calls hold of the budget", of_models(&|e| e.memory_in_use().0 as f64))?;
        gauge("memory_budget_bytes", "The budget", of_models(&|e| e.memory_in_use().1 as f64))?;
        let mut durations = Vec::new();
        for (name, engine) in &opened {
            let Some(metrics) = engine.as_ref().map(omniburn::Engine::metrics) else { continue };
            for (class, stats) in [("interactive", metrics.interactive), ("background", metrics.background)] {
                let ClassStats { waits, slices, computes } = stats;
                for (what, stats) in [("queue", waits), ("slice", slices), ("compute", computes)] {
                    durations.push((*name, class, what, stats));
                }
            }
        }
        let labels = |model: &str, class: &str, what: &str| {
            vec![("model", model.to_owned()), ("class", class.to_owned()), ("what", what.to_owned())]
        };
        let mut quantiles = Vec::new();
        for (model, class, what, stats) in &durations {
            let DurationStats { p50, p95, p99, max, .. } = stats;
            for (quantile, value) in [("0.5", p50), ("0.95", p95), ("0.99", p99), ("1", max)] {
                let mut labels = labels(model, class, what);
                labels.push(("quantile", quantile.to_owned()));
                quantiles.push((labels, value.as_secs_f64()));
            }
        }
        gauge("device_seconds", "Waits for the device, its time slices, and what passes computed", quantiles)?;
        let mut counter = |name: &str, help: &str, value: &dyn Fn(&DurationStats) -> f64| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (model, class, what, stats) in &durations {
                ConstCounter::new(value(stats)).encode(family.encode_family(&labels(model, class, what))?)?;
            }
            Ok::<(), fmt::Error>(())
        };
        counter("device_seconds_sum", "Sum of the same", &|stats| stats.sum.as_secs_f64())?;
        counter("device_count", "How many of the same", &|stats| stats.count as f64)
    }
}
