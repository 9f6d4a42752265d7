//! `status`: the gateway at a glance.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};

use super::{
    Api, health, mode, queue, text,
    upstreams::connectivity_name,
    view::{Cache, Configuration, Connectivity, Status, Storage, TierUse},
};

// Configured upstreams come first; thousands of implicit ones would hide everything else.
const SHOWN_UPSTREAMS: usize = 100;

/// Version, uptime, mode, connectivity, what is stored.
#[utoipa::path(get, path = "/api/v1/status", tag = "status", responses((status = 200, body = Status)))]
pub(super) async fn status(State(api): State<Arc<Api>>) -> Json<Status> {
    let now = api.clock.now();
    let stats = api.store.stats();
    Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: api.readiness.phase().as_str().to_owned(),
        degraded: health::degraded(&api),
        uptime_secs: api.started.elapsed().as_secs(),
        now: text::rfc3339(now),
        mode: mode::view(&api, now),
        upstreams: upstreams(&api),
        cache: Cache {
            memory: TierUse {
                entries: stats.memory_entries,
                bytes: stats.memory_bytes,
                capacity_bytes: api.storage.memory_bytes,
            },
            disk: TierUse {
                entries: stats.disk_entries,
                bytes: stats.disk_bytes,
                capacity_bytes: api.storage.disk_bytes,
            },
            requests: requests_by_cache(&api.metrics.encode()),
        },
        queue: queue::summary(&api, now),
        storage: Storage {
            dir: api.storage.dir.display().to_string(),
            suspended: stats.disk_suspended,
        },
        config: Configuration {
            file: api
                .config_file
                .as_ref()
                .map(|file| file.display().to_string()),
        },
        authentication_failures: api.metrics.admin_authentication_failures.get(),
    })
}

fn upstreams(api: &Api) -> Vec<Connectivity> {
    let all = api.upstreams.status().into_iter();
    all.take(SHOWN_UPSTREAMS)
        .map(|upstream| Connectivity {
            connectivity: connectivity_name(upstream.connectivity).to_owned(),
            since: text::rfc3339(upstream.since),
            overridden: upstream.r#override.is_some(),
            name: upstream.name,
        })
        .collect()
}

/// Sums `hardtack_requests_total` by its label `cache`. Read from the exposition, since a family of metrics cannot be
/// walked otherwise.
fn requests_by_cache(exposition: &str) -> BTreeMap<String, u64> {
    let samples = exposition
        .lines()
        .filter_map(|line| line.strip_prefix("hardtack_requests_total{"));
    let mut sums = BTreeMap::new();
    for (labels, count) in samples.filter_map(|sample| sample.rsplit_once("} ")) {
        // Values of this label come from our own closed list; a route's name may hold anything but an unescaped quote.
        let cache = labels
            .rsplit_once("cache=\"")
            .and_then(|(_, rest)| rest.split('"').next());
        if let (Some(cache), Ok(count)) = (cache, count.parse::<u64>()) {
            *sums.entry(cache.to_owned()).or_default() += count;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::requests_by_cache;
    use crate::telemetry::{Metrics, RequestLabels};

    #[test]
    fn answered_requests_are_summed_by_what_the_cache_did() {
        let metrics = Metrics::new();
        for (route, code, cache, count) in [
            ("a", 200, "hit", 3),
            ("b", 404, "hit", 2),
            ("cache=\"miss\"} 7", 200, "stale", 1),
        ] {
            let labels = RequestLabels {
                route: route.to_owned(),
                method: "GET",
                code,
                cache,
            };
            metrics.requests.get_or_create(&labels).inc_by(count);
        }
        let sums = requests_by_cache(&metrics.encode());
        let sums: Vec<_> = sums
            .iter()
            .map(|(cache, count)| (cache.as_str(), *count))
            .collect();
        assert_eq!(sums, [("hit", 5), ("stale", 1)]);
    }
}
