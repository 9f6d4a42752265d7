//! The counters of answered requests. What is looked up by labels is kept, so that whatever is answered alike, as nearly
//! everything is, finds its counters without them.

use std::{sync::OnceLock, time::Duration};

use http::StatusCode;
use prometheus_client::metrics::{counter::Counter, histogram::Histogram};

use super::access::CacheUse;
use crate::{
    policy::Reason,
    telemetry::{DecisionLabels, DurationLabels, Metrics, RequestLabels},
};

/// Kinds of answers that are kept of one route; more than most have. What finds its slots taken is looked up each time.
const SLOTS: usize = 64;

/// Slots that are looked at.
const PROBES: usize = 4;

/// What of an answered request makes its labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answered<'a> {
    /// The route's name.
    pub(crate) route: &'a str,
    /// As a label.
    pub(crate) method: &'static str,
    pub(crate) status: StatusCode,
    pub(crate) cache: CacheUse,
    pub(crate) reason: Option<Reason>,
}

/// The counters of all routes.
pub(crate) struct Counters {
    /// Of each route, and the last of requests without one.
    routes: Vec<Route>,
}

struct Route {
    hits: Series,
    slots: [OnceLock<Box<Known>>; SLOTS],
}

struct Known {
    route: String,
    answered: Answered<'static>,
    series: Series,
}

/// The counters of one kind of answer.
pub(crate) struct Series {
    requests: Counter,
    decisions: Counter,
    duration: Histogram,
}

impl Counters {
    /// For routes of these names.
    pub(crate) fn new<'a>(metrics: &Metrics, routes: impl Iterator<Item = &'a str>) -> Self {
        let routes = routes.chain(["forward"]);
        Self {
            routes: routes.map(|route| Route::new(metrics, route)).collect(),
        }
    }

    /// Those of a fresh hit of a GET.
    pub(crate) fn hits(&self, route: Option<usize>) -> &Series {
        &self.of(route).hits
    }

    /// Counts a request that took so long.
    pub(crate) fn count(
        &self,
        metrics: &Metrics,
        route: Option<usize>,
        answered: &Answered<'_>,
        took: Duration,
    ) {
        let slots = &self.of(route).slots;
        for slot in answered.slots() {
            let known = slots[slot].get_or_init(|| Box::new(Known::of(metrics, answered)));
            if known.is_of(answered) {
                known.series.count(took);
                return;
            }
        }
        Series::of(metrics, answered).count(took);
    }

    fn of(&self, route: Option<usize>) -> &Route {
        &self.routes[route.unwrap_or(self.routes.len() - 1)]
    }
}

impl Answered<'_> {
    /// Where to look for it: each part weighs so much that no two common kinds share all of their slots.
    fn slots(&self) -> impl Iterator<Item = usize> {
        let method = self
            .method
            .bytes()
            .fold(0, |sum, byte| sum * 31 + usize::from(byte));
        let reason = self.reason.map_or(0, |reason| reason as usize + 1);
        let mixed = [
            usize::from(self.status.as_u16()),
            self.cache as usize,
            method,
            reason,
        ]
        .into_iter()
        .fold(0_usize, |sum, part| {
            (sum ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        let first = mixed >> (usize::BITS - SLOTS.trailing_zeros());
        (first..first + PROBES).map(|slot| slot % SLOTS)
    }
}

impl Route {
    fn new(metrics: &Metrics, route: &str) -> Self {
        let hit = Answered {
            route,
            method: "GET",
            status: StatusCode::OK,
            cache: CacheUse::Hit,
            reason: None,
        };
        Self {
            hits: Series::of(metrics, &hit),
            slots: std::array::from_fn(|_| OnceLock::new()),
        }
    }
}

impl Known {
    fn of(metrics: &Metrics, answered: &Answered<'_>) -> Self {
        Self {
            route: answered.route.to_owned(),
            answered: Answered {
                route: "",
                ..*answered
            },
            series: Series::of(metrics, answered),
        }
    }

    fn is_of(&self, answered: &Answered<'_>) -> bool {
        let known = Answered {
            route: &self.route,
            ..self.answered
        };
        known == *answered
    }
}

impl Series {
    fn of(metrics: &Metrics, answered: &Answered<'_>) -> Self {
        let (route, cache) = (answered.route, answered.cache.as_str());
        let requests = RequestLabels {
            route: route.to_owned(),
            method: answered.method,
            code: answered.status.as_u16(),
            cache,
        };
        let duration = DurationLabels {
            route: route.to_owned(),
            cache,
        };
        let decision = DecisionLabels {
            route: route.to_owned(),
            reason: answered.reason.map_or(cache, Reason::as_str),
        };
        Self {
            requests: metrics.requests.get_or_create_owned(&requests),
            decisions: metrics.cache_decisions.get_or_create_owned(&decision),
            duration: metrics.request_duration.get_or_create_owned(&duration),
        }
    }

    /// Counts a request that took so long.
    pub(crate) fn count(&self, took: Duration) {
        self.requests.inc();
        self.decisions.inc();
        self.duration.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use http::StatusCode;

    use super::{Answered, CacheUse, Counters, Reason};
    use crate::telemetry::Metrics;

    #[test]
    fn every_kind_of_answer_is_counted_under_its_own_labels() {
        let metrics = Metrics::new();
        let counters = Counters::new(&metrics, ["api"].into_iter());
        let miss = Answered {
            route: "api",
            method: "GET",
            status: StatusCode::OK,
            cache: CacheUse::Miss,
            reason: Some(Reason::NoStore),
        };
        // Of other names without a route, and with more statuses than there are slots.
        let others = ["tunnel", "gateway", "none"].map(|route| Answered { route, ..miss });
        let statuses = (300..400).map(|status| Answered {
            status: StatusCode::from_u16(status).unwrap(),
            ..miss
        });
        let statuses: Vec<_> = statuses.collect();
        for _ in 0..2 {
            counters.count(&metrics, Some(0), &miss, Duration::ZERO);
            for other in &others {
                counters.count(&metrics, None, other, Duration::ZERO);
            }
            for status in &statuses {
                counters.count(&metrics, Some(0), status, Duration::ZERO);
            }
        }
        counters.hits(Some(0)).count(Duration::ZERO);
        let text = metrics.encode();
        let check = |route: &str, code: u16, cache: &str, count: u64| {
            let line = format!(
                "hardtack_requests_total{{route=\"{route}\",method=\"GET\",code=\"{code}\",cache=\"{cache}\"}} {count}\n"
            );
            assert!(text.contains(&line), "{line}{text}");
        };
        check("api", 200, "miss", 2);
        check("api", 200, "hit", 1);
        for other in others {
            check(other.route, 200, "miss", 2);
        }
        for status in statuses {
            check("api", status.status.as_u16(), "miss", 2);
        }
        let decisions = "hardtack_cache_decisions_total{route=\"api\",reason=\"no-store\"} 202\n";
        assert!(text.contains(decisions), "{text}");
        let durations =
            "hardtack_request_duration_seconds_count{route=\"api\",cache=\"miss\"} 202\n";
        assert!(text.contains(durations), "{text}");
    }

    #[test]
    fn what_an_origin_commonly_answers_finds_slots_of_its_own() {
        let mut taken = HashSet::new();
        for method in ["GET", "POST"] {
            for status in [200, 404] {
                for (cache, reason) in [
                    (CacheUse::Miss, None),
                    (CacheUse::Miss, Some(Reason::NoStore)),
                    (CacheUse::Miss, Some(Reason::Private)),
                    (CacheUse::Stale, Some(Reason::StaleWhileRevalidate)),
                    (CacheUse::None, Some(Reason::OfflineMiss)),
                ] {
                    let kind = Answered {
                        route: "api",
                        method,
                        status: StatusCode::from_u16(status).unwrap(),
                        cache,
                        reason,
                    };
                    let slot = kind.slots().find(|slot| !taken.contains(slot));
                    taken.insert(slot.unwrap_or_else(|| panic!("no slot for {kind:?}")));
                }
            }
        }
    }
}
