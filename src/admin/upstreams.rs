//! `upstreams`: what is known of them, and an operator's word that one is online or offline.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Deserialize;
use tracing::info;
use utoipa::{IntoParams, ToSchema};

use super::{
    Api, audit,
    entries::limit,
    expiry,
    extract::{JsonBody, Parameters, Segment},
    operator::Operator,
    problem::{Document, Problem},
    text,
    view::{Event, Page, Upstream, UpstreamOverride},
};
use crate::{
    policy::{Connectivity, Timestamp},
    upstream::{ConnectivityOverride, UpstreamStatus},
};

/// Paging.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Paging {
    /// At most this many items: 1 to 1000, 100 without it.
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// An override to put on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetOverride {
    /// What the upstream is taken for, whatever was measured. Also accepted as `connectivity`.
    #[serde(alias = "connectivity")]
    mode: Word,
    /// For how long, such as `30m`.
    #[serde(rename = "for")]
    duration: Option<String>,
    /// Until when (RFC 3339).
    until: Option<String>,
    /// Why, for the record.
    reason: Option<String>,
}

/// An operator's word.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Word {
    Online,
    Offline,
}

/// Every upstream: the configured ones by name, then the implicit ones by name.
#[utoipa::path(get, path = "/api/v1/upstreams", tag = "upstreams", params(Paging),
    responses((status = 200, body = Page<Upstream>)))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Parameters(paging): Parameters<Paging>,
) -> Result<Json<Page<Upstream>>, Problem> {
    let limit = limit(paging.limit)?;
    Ok(Json(page(
        api.upstreams.status(),
        paging.cursor.as_deref(),
        limit,
    )))
}

/// Takes an upstream for online or offline.
#[utoipa::path(put, path = "/api/v1/upstreams/{name}/override", tag = "upstreams",
    params(("name" = String, Path, description = "percent-encoded")), request_body = SetOverride,
    responses((status = 200, body = Upstream), (status = 404, body = Document)))]
pub(super) async fn set(
    State(api): State<Arc<Api>>,
    operator: Operator,
    Segment(name): Segment,
    JsonBody(wanted): JsonBody<SetOverride>,
) -> Result<Json<Upstream>, Problem> {
    let now = api.clock.now();
    let new = ConnectivityOverride {
        connectivity: match wanted.mode {
            Word::Online => Connectivity::Connected,
            Word::Offline => Connectivity::Disconnected,
        },
        until: expiry::until(wanted.duration.as_deref(), wanted.until.as_deref(), now)?,
        reason: expiry::reason(wanted.reason)?,
    };
    change(&api, operator, &name, Some(new)).await
}

/// Takes the override back: what is measured counts again.
#[utoipa::path(delete, path = "/api/v1/upstreams/{name}/override", tag = "upstreams",
    params(("name" = String, Path, description = "percent-encoded")),
    responses((status = 200, body = Upstream), (status = 404, body = Document)))]
pub(super) async fn unset(
    State(api): State<Arc<Api>>,
    operator: Operator,
    Segment(name): Segment,
) -> Result<Json<Upstream>, Problem> {
    change(&api, operator, &name, None).await
}

async fn change(
    api: &Api,
    operator: Operator,
    name: &str,
    new: Option<ConnectivityOverride>,
) -> Result<Json<Upstream>, Problem> {
    let word = new.as_ref().map_or("auto", |new| word(new.connectivity));
    let reason = new.as_ref().and_then(|new| new.reason.clone());
    let none = || Problem::not_found(format!("there is no upstream `{name}`"));
    if !api.upstreams.set_override(name, new) {
        return Err(none());
    }
    info!(
        upstream = name,
        mode = word,
        reason,
        "An operator set an upstream's connectivity."
    );
    let reason = reason.map_or_else(String::new, |reason| format!("; {reason}"));
    let detail = format!("{name} {word}{reason}");
    audit::note(api, operator, "override", detail).await;
    let status = api
        .upstreams
        .status()
        .into_iter()
        .find(|upstream| upstream.name == name);
    status.map(view).map(Json).ok_or_else(none)
}

fn page(mut all: Vec<UpstreamStatus>, cursor: Option<&str>, limit: usize) -> Page<Upstream> {
    all.sort_by_cached_key(position);
    let start = cursor.map_or(0, |cursor| {
        all.partition_point(|upstream| *position(upstream) <= *cursor)
    });
    let more = all.len() > start + limit;
    let items: Vec<_> = all.into_iter().skip(start).take(limit).collect();
    let next_cursor = items.last().filter(|_| more).map(position);
    Page {
        items: items.into_iter().map(view).collect(),
        next_cursor,
    }
}

/// The place in the list, which is also the cursor.
fn position(upstream: &UpstreamStatus) -> String {
    let class = if upstream.configured { 'c' } else { 'i' };
    format!("{class}:{}", upstream.name)
}

fn view(upstream: UpstreamStatus) -> Upstream {
    let event = |(at, what): (Timestamp, String)| Event {
        at: text::rfc3339(at),
        what,
    };
    let probe = |(at, succeeded): (Timestamp, bool)| {
        let what = if succeeded { "succeeded" } else { "failed" };
        Event {
            at: text::rfc3339(at),
            what: what.to_owned(),
        }
    };
    Upstream {
        connectivity: connectivity_name(upstream.connectivity).to_owned(),
        since: text::rfc3339(upstream.since),
        r#override: upstream.r#override.map(|found| UpstreamOverride {
            mode: word(found.connectivity).to_owned(),
            until: found.until.map(text::rfc3339),
            reason: found.reason,
        }),
        name: upstream.name,
        urls: upstream.urls,
        configured: upstream.configured,
        in_flight: upstream.in_flight as u64,
        succeeded: upstream.succeeded,
        failed: upstream.failed,
        latency_p50_ms: upstream.latency_p50_ms,
        latency_p99_ms: upstream.latency_p99_ms,
        last_error: upstream.last_error.map(event),
        last_probe: upstream.last_probe.map(probe),
    }
}

pub(super) const fn connectivity_name(connectivity: Connectivity) -> &'static str {
    match connectivity {
        Connectivity::Connected => "connected",
        Connectivity::Disconnected => "disconnected",
    }
}

const fn word(connectivity: Connectivity) -> &'static str {
    match connectivity {
        Connectivity::Connected => "online",
        Connectivity::Disconnected => "offline",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{SetOverride, page};
    use crate::{
        policy::{Connectivity, Timestamp},
        upstream::UpstreamStatus,
    };

    fn upstream(name: &str, configured: bool) -> UpstreamStatus {
        UpstreamStatus {
            name: name.to_owned(),
            urls: Vec::new(),
            configured,
            connectivity: Connectivity::Connected,
            since: Timestamp::from_secs(0),
            r#override: None,
            in_flight: 0,
            succeeded: 0,
            failed: 0,
            latency_p50_ms: None,
            latency_p99_ms: None,
            last_error: None,
            last_probe: None,
        }
    }

    #[test]
    fn pages_of_every_size_join_to_the_whole_list() {
        let all = || {
            let implicit = ["http://b", "http://a"].map(|name| upstream(name, false));
            let configured = ["z", "http://b", "y"].map(|name| upstream(name, true));
            implicit.into_iter().chain(configured).collect::<Vec<_>>()
        };
        for limit in 1..=6 {
            let mut names = Vec::new();
            let mut cursor = None;
            loop {
                let page = page(all(), cursor.as_deref(), limit);
                names.extend(page.items.into_iter().map(|upstream| upstream.name));
                cursor = page.next_cursor;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(
                names,
                ["http://b", "y", "z", "http://a", "http://b"],
                "limit {limit}"
            );
        }
    }

    #[test]
    fn an_override_is_online_or_offline() {
        for (body, valid) in [
            (json!({"mode": "offline"}), true),
            (
                json!({"connectivity": "online", "for": "30m", "reason": "drill"}),
                true,
            ),
            (json!({"mode": "auto"}), false),
            (json!({"until": "2030-01-01T00:00:00Z"}), false),
            (json!({"mode": "offline", "fro": "30m"}), false),
        ] {
            let parsed = serde_json::from_value::<SetOverride>(body.clone());
            assert_eq!(parsed.is_ok(), valid, "{body}");
        }
    }
}
