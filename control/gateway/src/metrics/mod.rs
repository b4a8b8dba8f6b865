//! The gateway's metrics in the text format of Prometheus (OpenMetrics 1.0), made anew for every scrape.
//!
//! A scrape reads what workers publish; nothing is kept between two of them. Names follow the conventions of
//! Prometheus (<https://prometheus.io/docs/practices/naming/>): base units, `_total` for counters; a test holds them to
//! the rules of `promtool check metrics`. Peers are bounded by [`PEERS_MAX`], rules by [`RULES_MAX`], and a path has at
//! most 50 series.

mod families;
#[cfg(test)]
pub mod lint;
mod server;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

pub use families::families;
pub use server::MetricsServer;

/// The most peers that a scrape tells of; `patronus_peers_left_out` counts the others.
pub const PEERS_MAX: usize = 1024;
/// The most rules that a scrape tells of: those that refused the most.
pub const RULES_MAX: usize = 256;
/// The media type of a scrape's answer.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Who has metrics beside those of workers, peers and paths: the pre-filter, for one.
pub trait MetricSource: Send + Sync {
    /// What it has to tell at this moment.
    fn families(&self) -> Vec<Family>;
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows; its name gets `_total`.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A value as exact as it was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A count.
    Count(u64),
    /// A measure.
    Real(f64),
}

/// All series of one name.
#[derive(Clone, Debug)]
pub struct Family {
    /// Its name, without `_total`.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    /// What kind.
    pub kind: Kind,
    /// Labels and value.
    pub series: Vec<(Vec<Label>, Value)>,
}

/// A label and its value.
pub type Label = (&'static str, String);

impl Family {
    /// A counter without series yet.
    pub fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Counter)
    }

    /// A gauge without series yet.
    pub fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Gauge)
    }

    fn new(name: &'static str, help: &'static str, kind: Kind) -> Self {
        Self {
            name,
            help,
            kind,
            series: Vec::new(),
        }
    }

    /// Adds a count.
    pub fn count(&mut self, labels: &[(&'static str, &str)], value: u64) {
        self.add(labels, Value::Count(value));
    }

    /// Adds a measure; what is no number is left out.
    pub fn real(&mut self, labels: &[(&'static str, &str)], value: f64) {
        if value.is_finite() {
            self.add(labels, Value::Real(value));
        }
    }

    /// Adds a measure where there is one.
    pub fn maybe(&mut self, labels: &[(&'static str, &str)], value: Option<f64>) {
        if let Some(value) = value {
            self.real(labels, value);
        }
    }

    fn add(&mut self, labels: &[(&'static str, &str)], value: Value) {
        let labels = labels.iter();
        let labels = labels.map(|(name, value)| (*name, (*value).to_owned()));
        self.series.push((labels.collect(), value));
    }
}

/// A scrape's answer.
///
/// # Errors
/// None in practice: a string takes everything.
pub fn to_text(families: Vec<Family>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Told(families)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Told(Vec<Family>);

impl Collector for Told {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for family in &self.0 {
            if family.series.is_empty() {
                continue;
            }
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut encoder = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (labels, value) in &family.series {
                if labels.is_empty() {
                    // The only one of its name, and no braces behind it.
                    put(encoder, family.kind, *value)?;
                    break;
                }
                put(encoder.encode_family(labels)?, family.kind, *value)?;
            }
        }
        Ok(())
    }
}

fn put(encoder: MetricEncoder<'_>, kind: Kind, value: Value) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Count(it)) => ConstCounter::new(it).encode(encoder),
        (Kind::Counter, Value::Real(it)) => ConstCounter::new(it).encode(encoder),
        (Kind::Gauge, Value::Count(it)) => {
            ConstGauge::new(i64::try_from(it).unwrap_or(i64::MAX)).encode(encoder)
        }
        (Kind::Gauge, Value::Real(it)) => ConstGauge::new(it).encode(encoder),
    }
}
