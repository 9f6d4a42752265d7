//! What is known of an upstream: counts, latencies, the last error and probe.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use prometheus_client::metrics::{counter::Counter, histogram::Histogram};

use super::{connectivity::ConnectivityOverride, error::ForwardError};
use crate::{
    policy::{Connectivity, Timestamp},
    telemetry::{Metrics, OutcomeLabels, UpstreamLabels},
};

/// What is known of an upstream, for status, the admin API and metrics.
#[derive(Clone, Debug)]
pub struct UpstreamStatus {
    /// Its name; for implicit ones the scheme and authority.
    pub name: String,
    /// The origins.
    pub urls: Vec<String>,
    /// Whether it is configured, or implicit.
    pub configured: bool,
    /// Effective connectivity, with the override applied.
    pub connectivity: Connectivity,
    /// Since when the measured state holds.
    pub since: Timestamp,
    /// A runtime override, if one is in force.
    pub r#override: Option<ConnectivityOverride>,
    /// Requests in flight.
    pub in_flight: usize,
    /// Forwards that got a response head / that failed, since start.
    pub succeeded: u64,
    /// See `succeeded`.
    pub failed: u64,
    /// Time to first byte, median and 99th percentile over the last 1,024 answers, in milliseconds.
    pub latency_p50_ms: Option<f64>,
    /// See `latency_p50_ms`.
    pub latency_p99_ms: Option<f64>,
    /// The last error, as text, and when.
    pub last_error: Option<(Timestamp, String)>,
    /// The last probe, when, and whether it succeeded.
    pub last_probe: Option<(Timestamp, bool)>,
}

/// The counts of one upstream.
#[derive(Debug)]
pub(super) struct Stats {
    pub(super) series: Arc<Series>,
    succeeded: AtomicU64,
    failed: AtomicU64,
    recent: Mutex<Recent>,
}

/// The metric series of one label, looked up once. All implicit upstreams share one.
#[derive(Debug)]
pub(super) struct Series {
    outcomes: [Counter; OUTCOMES.len()],
    first_byte: Histogram,
    pub(super) disconnected_seconds: Counter,
}

/// The label of every implicit upstream.
pub(super) const FORWARD: &str = "forward";

const OUTCOMES: [&str; 11] = [
    "1xx",
    "2xx",
    "3xx",
    "4xx",
    "5xx",
    "connect",
    "timeout",
    "broken",
    "denied",
    "overloaded",
    "aborted",
];

const LATENCIES: usize = 1_024;

#[derive(Debug, Default)]
struct Recent {
    // A ring: the oldest is overwritten. Microseconds, because 1,024 are kept for each of up to 4,096 upstreams.
    latencies_micros: Vec<u32>,
    next: usize,
    last_error: Option<(Timestamp, String)>,
    last_probe: Option<(Timestamp, bool)>,
}

impl Series {
    pub(super) fn new(metrics: &Metrics, upstream: &str) -> Arc<Self> {
        let outcomes = OUTCOMES.map(|outcome| {
            metrics
                .upstream_requests
                .get_or_create_owned(&OutcomeLabels {
                    upstream: upstream.to_owned(),
                    outcome,
                })
        });
        let labels = UpstreamLabels {
            upstream: upstream.to_owned(),
        };
        Arc::new(Self {
            outcomes,
            first_byte: metrics
                .upstream_request_duration
                .get_or_create_owned(&labels),
            disconnected_seconds: metrics
                .upstream_disconnected_seconds
                .get_or_create_owned(&labels),
        })
    }

    fn count(&self, outcome: &str) {
        if let Some(position) = OUTCOMES.iter().position(|known| *known == outcome) {
            self.outcomes[position].inc();
        }
    }
}

impl Stats {
    pub(super) fn new(series: Arc<Series>) -> Self {
        Self {
            series,
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            recent: Mutex::default(),
        }
    }

    pub(super) fn answered(&self, status: StatusCode, first_byte: Duration) {
        self.succeeded.fetch_add(1, Ordering::Relaxed);
        self.series.count(status_class(status));
        self.series.first_byte.observe(first_byte.as_secs_f64());
        let micros = u32::try_from(first_byte.as_micros()).unwrap_or(u32::MAX);
        self.recent().push(micros);
    }

    pub(super) fn failed(
        &self,
        error: &ForwardError,
        text: impl FnOnce() -> String,
        at: Timestamp,
    ) {
        let Some(outcome) = outcome(error) else {
            return;
        };
        self.series.count(outcome);
        // A client that hangs up, or that we shed, says nothing about the upstream.
        if matches!(outcome, "aborted" | "overloaded") {
            return;
        }
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.recent().last_error = Some((at, text()));
    }

    pub(super) fn probed(&self, at: Timestamp, succeeded: bool, error: Option<String>) {
        let mut recent = self.recent();
        recent.last_probe = Some((at, succeeded));
        if let Some(error) = error {
            recent.last_error = Some((at, error));
        }
    }

    /// Fills in what is known here.
    pub(super) fn fill(&self, status: &mut UpstreamStatus) {
        status.succeeded = self.succeeded.load(Ordering::Relaxed);
        status.failed = self.failed.load(Ordering::Relaxed);
        let recent = self.recent();
        status.last_error.clone_from(&recent.last_error);
        status.last_probe = recent.last_probe;
        let mut latencies = recent.latencies_micros.clone();
        drop(recent);
        latencies.sort_unstable();
        status.latency_p50_ms = percentile_ms(&latencies, 50);
        status.latency_p99_ms = percentile_ms(&latencies, 99);
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    fn push(&mut self, micros: u32) {
        if self.latencies_micros.len() < LATENCIES {
            self.latencies_micros.push(micros);
        } else {
            self.latencies_micros[self.next] = micros;
            self.next = (self.next + 1) % LATENCIES;
        }
    }
}

/// The smallest value that at least `percent` of the sorted values do not exceed.
fn percentile_ms(sorted_micros: &[u32], percent: usize) -> Option<f64> {
    let rank = (sorted_micros.len() * percent).div_ceil(100).max(1);
    let micros = sorted_micros.get(rank - 1)?;
    Some(f64::from(*micros) / 1_000.0)
}

fn status_class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        // RFC 9110 section 15: a status outside the five classes is treated as a 5xx.
        _ => "5xx",
    }
}

/// The outcome as a label; `None` where nothing was tried.
fn outcome(error: &ForwardError) -> Option<&'static str> {
    Some(match error {
        ForwardError::Disconnected => return None,
        ForwardError::Connect { .. } => "connect",
        ForwardError::Denied { .. } => "denied",
        ForwardError::TimedOut { .. } => "timeout",
        ForwardError::Broken { .. } => "broken",
        ForwardError::RequestBody { .. } | ForwardError::Content { .. } => "aborted",
        ForwardError::Overloaded => "overloaded",
    })
}

#[cfg(test)]
mod tests {
    use super::{LATENCIES, Recent, percentile_ms};

    #[test]
    fn percentiles_are_of_the_last_answers_only() {
        assert_eq!(percentile_ms(&[], 50), None);
        assert_eq!(percentile_ms(&[1_000], 99), Some(1.0));
        let hundred: Vec<u32> = (1..=100).map(|n| n * 1_000).collect();
        assert_eq!(percentile_ms(&hundred, 50), Some(50.0));
        assert_eq!(percentile_ms(&hundred, 99), Some(99.0));

        let mut recent = Recent::default();
        for micros in 0..3_000 {
            recent.push(micros);
        }
        assert_eq!(recent.latencies_micros.len(), LATENCIES);
        assert_eq!(recent.latencies_micros.iter().min(), Some(&(3_000 - 1_024)));
    }
}
