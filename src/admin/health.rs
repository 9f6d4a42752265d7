//! Liveness, readiness and metrics: for kubelet and Prometheus, without a token.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header::CONTENT_TYPE};

use super::{
    Api, Phase,
    queue::{ENDED_STATES, age_secs},
    view::Health,
};
use crate::{
    policy::Connectivity,
    queue::{Queue, State as ItemState},
    telemetry::{QueueStateLabels, TierLabels, UpstreamLabels},
};

// What `prometheus_client::encoding::text` writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the process answers.
#[utoipa::path(get, path = "/livez", tag = "health", security(()),
    responses((status = 200, body = Health)))]
pub(super) async fn livez() -> Json<Health> {
    Json(Health {
        status: "alive".to_owned(),
        degraded: Vec::new(),
    })
}

/// Whether the gateway takes requests: stores open, listeners bound, not draining. A lost upstream, a full disk or a queue
/// that has closed itself only shows as `degraded`: reads are served all the same.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()),
    responses((status = 200, body = Health), (status = 503, body = Health)))]
pub(super) async fn readyz(State(api): State<Arc<Api>>) -> Response {
    let phase = api.readiness.phase();
    let (status, degraded) = match phase {
        Phase::Ready => (StatusCode::OK, degraded(&api)),
        Phase::Starting | Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, Vec::new()),
    };
    let health = Health {
        status: phase.as_str().to_owned(),
        degraded,
    };
    (status, Json(health)).into_response()
}

/// Every metric as OpenMetrics text.
#[utoipa::path(get, path = "/metrics", tag = "health", security(()),
    responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> impl IntoResponse {
    set_gauges(&api);
    set_queue_gauges(&api);
    ([(CONTENT_TYPE, OPEN_METRICS)], api.metrics.encode())
}

/// What is limited although the gateway serves. Names nobody: the answer needs no token.
pub(super) fn degraded(api: &Api) -> Vec<String> {
    let lost = api
        .upstreams
        .configured()
        .any(|(_, connectivity)| connectivity == Connectivity::Disconnected);
    let limits = [
        (lost, "upstream-disconnected"),
        (api.store.stats().disk_suspended, "storage-suspended"),
    ];
    held(limits.into_iter().chain(limits_of_queue(&api.queue)))
}

/// What is limited of the queue.
fn limits_of_queue(queue: &Queue) -> [(bool, &'static str); 2] {
    [
        (queue.is_suspended(), "queue-suspended"),
        (queue.is_closed(), "queue-closed"),
    ]
}

fn held(limits: impl Iterator<Item = (bool, &'static str)>) -> Vec<String> {
    let held = limits.filter(|(holds, _)| *holds);
    held.map(|(_, token)| token.to_owned()).collect()
}

/// Sets what is known only when asked. Implicit upstreams are left out: a client names them, configuration does not.
fn set_gauges(api: &Api) {
    let stats = api.store.stats();
    for (tier, entries, bytes, capacity_bytes) in [
        (
            "memory",
            stats.memory_entries,
            stats.memory_bytes,
            api.storage.memory_bytes,
        ),
        (
            "disk",
            stats.disk_entries,
            stats.disk_bytes,
            api.storage.disk_bytes,
        ),
    ] {
        let labels = TierLabels { tier };
        let metrics = &api.metrics;
        metrics
            .cache_entries
            .get_or_create(&labels)
            .set(gauge(entries));
        metrics.cache_bytes.get_or_create(&labels).set(gauge(bytes));
        metrics
            .cache_capacity_bytes
            .get_or_create(&labels)
            .set(gauge(capacity_bytes));
    }
    for (name, connectivity) in api.upstreams.configured() {
        let labels = UpstreamLabels {
            upstream: name.to_owned(),
        };
        api.metrics
            .upstream_connected
            .get_or_create(&labels)
            .set(i64::from(connectivity == Connectivity::Connected));
    }
}

fn set_queue_gauges(api: &Api) {
    let (metrics, summary) = (&api.metrics, api.queue.summary());
    let states = ItemState::NAMES.iter().zip(summary.counts);
    for (state, count) in states.take(ItemState::NAMES.len() - ENDED_STATES) {
        let labels = QueueStateLabels { state };
        let items = metrics.queue_items.get_or_create(&labels);
        items.set(gauge(count as u64));
    }
    let now = api.clock.now();
    let oldest_age = summary.oldest.map_or(0, |oldest| age_secs(oldest, now));
    metrics.queue_oldest_item_age.set(gauge(oldest_age));
    metrics.queue_bytes.set(gauge(summary.bytes));
    let capacity_bytes = api.queue.config().max_bytes;
    metrics.queue_capacity_bytes.set(gauge(capacity_bytes));
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio_util::task::TaskTracker;

    use super::{held, limits_of_queue};
    use crate::{
        clock::VirtualClock,
        policy::Timestamp,
        queue::{Config, Places, Queue, ReplayRate},
        telemetry::Metrics,
    };

    #[tokio::test]
    async fn a_queue_that_is_closed_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            dir: dir.path().to_owned(),
            max_items: 10,
            max_bytes: 1 << 20,
            max_item_bytes: 1 << 10,
            max_lane_items: 10,
            max_client_items: 10,
            max_age: std::time::Duration::from_secs(60),
            max_attempts: 5,
            replay_rate: ReplayRate {
                deliveries: 1,
                per: std::time::Duration::from_secs(1),
            },
            recovery_spread: std::time::Duration::ZERO,
            receipt_ttl: std::time::Duration::from_secs(60),
            key_file: None,
            sensitive_headers: Vec::new(),
        };
        let clock = Arc::new(VirtualClock::new(Timestamp::from_secs(1_700_000_000)));
        let tasks = TaskTracker::new();
        let queue = Queue::open(config, Places::default(), clock, Metrics::new(), &tasks);
        let queue = queue.await.unwrap();
        let degraded = || held(limits_of_queue(&queue).into_iter());
        assert!(!degraded().contains(&"queue-closed".to_owned()));
        queue.close().await;
        assert!(degraded().contains(&"queue-closed".to_owned()));
        assert!(queue.summary().is_closed);
    }
}
