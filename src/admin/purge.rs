//! `cache/purge`: by URL, prefix, host or tag; soft or hard; or only counted.

use std::sync::Arc;

use axum::{Json, extract::State};
use http::{Uri, uri::Authority};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;
use utoipa::ToSchema;

use super::{
    Api, UrlMap, audit,
    events::Kind,
    extract::JsonBody,
    operator::Operator,
    problem::{Document, Problem},
    view::Purged,
};
use crate::{
    policy::CacheKey,
    store::{PurgeKind, Selector},
};

/// Longer than any tag that is kept: longer ones still select what counts as tagged with everything.
const TAG_BYTES_MAX: usize = 1_024;

/// What to purge: exactly one of `url`, `prefix`, `host` and `tag`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Every variant of this URL: the effective upstream URI, or the client's. Also what is stored under another URL and
    /// says that it answers this one too (`No-Vary-Search`).
    url: Option<String>,
    /// Every URL that starts so.
    prefix: Option<String>,
    /// Every URL of this host: `host` (any port) or `host:port`.
    host: Option<String>,
    /// Whatever its origin tagged so, in the fields of `cache.tags_header`. A response with more tags than are kept counts
    /// as tagged with every one.
    tag: Option<String>,
    /// Mark stale instead of removing: stale reuse stays possible while the origin is gone.
    #[serde(default = "soft_by_default")]
    #[schema(default = true)]
    soft: bool,
    /// Only count.
    #[serde(default)]
    dry_run: bool,
}

const fn soft_by_default() -> bool {
    true
}

/// Purges what is selected in both tiers, durably.
#[utoipa::path(post, path = "/api/v1/cache/purge", tag = "cache", request_body = Wanted,
    responses((status = 200, body = Purged), (status = 400, body = Document)))]
pub(super) async fn purge(
    State(api): State<Arc<Api>>,
    operator: Operator,
    JsonBody(wanted): JsonBody<Wanted>,
) -> Result<Json<Purged>, Problem> {
    let selector = wanted.selector(&api.map_url)?;
    let kind = wanted.kind();
    let purged = api.store.purge(&selector, kind).await?;
    if kind != PurgeKind::DryRun {
        info!(
            ?selector,
            ?kind,
            count = purged.count,
            "An operator purged."
        );
        let event = event(&selector, kind, purged.count);
        let detail = event.to_string();
        api.events.add(Kind::Purge, event);
        audit::note(&api, operator, "purge", detail).await;
    }
    Ok(Json(Purged {
        count: purged.count,
        sample: purged.sample,
    }))
}

fn event(selector: &Selector, kind: PurgeKind, count: u64) -> Value {
    let (name, value) = match selector {
        Selector::Url(url) => ("url", url),
        Selector::Prefix(prefix) => ("prefix", prefix),
        Selector::Host(host) => ("host", host),
        Selector::Tag(tag) => ("tag", tag),
    };
    json!({ name: value, "soft": kind == PurgeKind::Soft, "count": count })
}

impl Wanted {
    const fn kind(&self) -> PurgeKind {
        match (self.dry_run, self.soft) {
            (true, _) => PurgeKind::DryRun,
            (false, true) => PurgeKind::Soft,
            (false, false) => PurgeKind::Hard,
        }
    }

    fn selector(&self, map_url: &UrlMap) -> Result<Selector, Problem> {
        match (&self.url, &self.prefix, &self.host, &self.tag) {
            (Some(url), None, None, None) => effective_url(url, map_url).map(Selector::Url),
            (None, Some(prefix), None, None) => {
                effective_prefix(prefix, map_url).map(Selector::Prefix)
            }
            (None, None, Some(host), None) => host_name(host).map(Selector::Host),
            (None, None, None, Some(tag)) => tag_name(tag).map(Selector::Tag),
            _ => Err(Problem::bad_request(
                "give exactly one of `url`, `prefix`, `host` and `tag`",
            )),
        }
    }
}

/// The text of the key of a URL: the effective upstream URI's, or the one a reverse route makes of the client's.
fn effective_url(url: &str, map_url: &UrlMap) -> Result<String, Problem> {
    let without_fragment = url.split('#').next().unwrap_or(url);
    normalised(&map_url(without_fragment).unwrap_or_else(|| without_fragment.to_owned()))
        .ok_or_else(|| Problem::bad_request("`url` is an absolute http or https URL"))
}

fn effective_prefix(prefix: &str, map_url: &UrlMap) -> Result<String, Problem> {
    // Half a query is not a query: no rule for parameters applies to what may end within one.
    let (path, query) = prefix.split_at(prefix.find('?').unwrap_or(prefix.len()));
    let mapped = map_url(path).unwrap_or_else(|| path.to_owned());
    let prefix = mapped + query;
    let problem = || {
        Problem::bad_request(
            "`prefix` is an absolute http or https URL without its end, at least with a host",
        )
    };
    let (scheme, rest) = prefix.split_once("://").ok_or_else(problem)?;
    if rest.contains('/') {
        return normalised(&prefix).ok_or_else(problem);
    }
    // A host's own beginning (`http://api.`) is a prefix too; what has no host at all would be everything.
    let scheme = scheme.to_ascii_lowercase();
    let known = matches!(&*scheme, "http" | "https");
    if !known || rest.is_empty() || rest.contains(['@', '?', '#']) {
        return Err(problem());
    }
    Ok(format!("{scheme}://{}", rest.to_ascii_lowercase()))
}

fn normalised(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let authority = uri.authority()?;
    if !matches!(&*scheme, "http" | "https") || authority.as_str().contains('@') {
        return None;
    }
    let path_and_query = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut text = String::with_capacity(url.len() + 1);
    CacheKey::write(&mut text, None, &scheme, authority.as_str(), path_and_query);
    Some(text)
}

fn host_name(host: &str) -> Result<String, Problem> {
    match host.parse::<Authority>() {
        Ok(authority) if !host.contains('@') && !authority.host().is_empty() => {
            Ok(host.to_ascii_lowercase())
        }
        _ => Err(Problem::bad_request("`host` is a host, or `host:port`")),
    }
}

/// A tag as an origin can send it: case matters, and all but control characters.
pub(super) fn tag_name(tag: &str) -> Result<String, Problem> {
    if tag.is_empty() || tag.len() > TAG_BYTES_MAX || tag.contains(char::is_control) {
        return Err(Problem::bad_request(format!(
            "`tag` is a tag of 1 to {TAG_BYTES_MAX} bytes, without control characters"
        )));
    }
    Ok(tag.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::{UrlMap, Wanted};
    use crate::store::{PurgeKind, Selector};

    /// A reverse route of the gateway on `gateway:8080`.
    fn map_url() -> UrlMap {
        Arc::new(|url| {
            let path = url.strip_prefix("http://gateway:8080")?;
            Some(format!("https://API.example:443/base{path}"))
        })
    }

    fn check(wanted: serde_json::Value, expected: Option<Selector>) {
        let selector = serde_json::from_value::<Wanted>(wanted.clone())
            .ok()
            .and_then(|wanted| wanted.selector(&map_url()).ok());
        assert_eq!(selector, expected, "{wanted}");
    }

    #[test]
    fn what_is_purged_is_named_as_the_key_is() {
        let url = |url: &str| Some(Selector::Url(url.to_owned()));
        let prefix = |prefix: &str| Some(Selector::Prefix(prefix.to_owned()));
        let host = |host: &str| Some(Selector::Host(host.to_owned()));
        check(
            json!({"url": "HTTP://A.example:80"}),
            url("http://a.example/"),
        );
        check(
            json!({"url": "http://a.example/X?Y=%2f#z"}),
            url("http://a.example/X?Y=%2f"),
        );
        check(
            json!({"url": "http://gateway:8080/x"}),
            url("https://api.example/base/x"),
        );
        check(
            json!({"prefix": "http://A.example:80/V1/"}),
            prefix("http://a.example/V1/"),
        );
        check(json!({"prefix": "http://A."}), prefix("http://a."));
        check(
            json!({"prefix": "http://gateway:8080/x"}),
            prefix("https://api.example/base/x"),
        );
        check(json!({"host": "A.example"}), host("a.example"));
        check(json!({"host": "[::1]:81"}), host("[::1]:81"));
        let tag = |tag: &str| Some(Selector::Tag(tag.to_owned()));
        check(json!({"tag": "Blog é, 7"}), tag("Blog é, 7"));
    }

    #[test]
    fn what_selects_nothing_or_too_much_is_refused() {
        for wrong in [
            json!({}),
            json!({"url": "http://a/", "host": "a"}),
            json!({"url": "/x"}),
            json!({"url": "a.example/x"}),
            json!({"url": "ftp://a.example/x"}),
            json!({"url": "http://u@a.example/x"}),
            json!({"url": ""}),
            json!({"prefix": ""}),
            json!({"prefix": "http"}),
            json!({"prefix": "http://"}),
            json!({"prefix": "https:///"}),
            json!({"prefix": "x://a"}),
            json!({"host": ""}),
            json!({"host": "a/b"}),
            json!({"host": "u@a"}),
            json!({"tag": ""}),
            json!({"tag": "a\u{0}b"}),
            json!({"tag": "a".repeat(1_025)}),
            json!({"tag": "a", "host": "a"}),
            json!({"host": "a", "softly": true}),
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn a_purge_is_soft_unless_told_otherwise() {
        for (wanted, expected) in [
            (json!({"host": "a"}), PurgeKind::Soft),
            (json!({"host": "a", "soft": false}), PurgeKind::Hard),
            (json!({"host": "a", "dry_run": true}), PurgeKind::DryRun),
            (
                json!({"host": "a", "soft": false, "dry_run": true}),
                PurgeKind::DryRun,
            ),
        ] {
            assert_eq!(
                serde_json::from_value::<Wanted>(wanted).unwrap().kind(),
                expected
            );
        }
    }
}
