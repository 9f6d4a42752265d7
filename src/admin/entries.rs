//! `cache/entries`: what is stored.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{
    HeaderName, HeaderValue,
    header::{
        CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
        LAST_MODIFIED, SET_COOKIE,
    },
};
use serde::Deserialize;
use serde_json::json;
use tracing::info;
use utoipa::IntoParams;

use super::{
    Api, audit,
    events::Kind,
    extract::{Parameters, Segment},
    facts,
    operator::Operator,
    problem::{Document, Problem},
    purge::tag_name,
    text,
    view::{self, EntryDetail, Field, Page, Purged, State as Freshness, Validators},
};
use crate::{
    policy::{Mark, Names, StoredFields, Timestamp},
    store::{Entry, Listing, Sort, StoredBody, Tier},
};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;
// A filter on freshness is applied behind the store. So much is looked at for one page, which may then be short.
const MAX_SCANNED: usize = 10_000;
const MAX_SCANS: usize = 50;

/// Filters, all of which must hold, and paging.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filters {
    /// `host` (any port) or `host:port`.
    host: Option<String>,
    /// The path starts so.
    path_prefix: Option<String>,
    /// The origin tagged it so.
    tag: Option<String>,
    /// The URL contains this text.
    q: Option<String>,
    /// `memory`, `disk`, or both with a comma.
    tier: Option<String>,
    /// `fresh`, `stale`, or both with a comma.
    state: Option<String>,
    /// `-hits` (most first), `age` (oldest first) or `size` (largest first); by key without it.
    sort: Option<String>,
    /// At most this many items: 1 to 1000, 100 without it.
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// What is stored, page by page.
#[utoipa::path(get, path = "/api/v1/cache/entries", tag = "cache", params(Filters),
    responses((status = 200, body = Page<view::Entry>), (status = 400, body = Document)))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Parameters(filters): Parameters<Filters>,
) -> Result<Json<Page<view::Entry>>, Problem> {
    let state = filters.state()?;
    let limit = limit(filters.limit)?;
    let mut listing = filters.listing()?;
    let now = api.clock.now();
    let mut page = Page {
        items: Vec::new(),
        next_cursor: None,
    };
    let mut scanned = 0;
    for _ in 0..MAX_SCANS {
        // Never more than fits, because a cursor stands at the end of a page of the store only.
        listing.limit = limit - page.items.len();
        let found = api.store.list(&listing).await?;
        scanned += found.items.len();
        let shown = found.items.iter().map(|entry| entry_view(&api, entry, now));
        page.items
            .extend(shown.filter(|entry| state.is_none_or(|state| state == entry.state)));
        page.next_cursor.clone_from(&found.next_cursor);
        listing.cursor = found.next_cursor;
        if listing.cursor.is_none() || page.items.len() >= limit || scanned >= MAX_SCANNED {
            break;
        }
    }
    Ok(Json(page))
}

/// One stored response.
#[utoipa::path(get, path = "/api/v1/cache/entries/{id}", tag = "cache", params(("id" = String, Path)),
    responses((status = 200, body = EntryDetail), (status = 404, body = Document)))]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Segment(id): Segment,
) -> Result<Json<EntryDetail>, Problem> {
    let variants = api.store.entry(&id).await?;
    let Some(entry) = variants.first() else {
        return Err(none_stored(&id));
    };
    let now = api.clock.now();
    let lines = entry.head.headers.iter();
    let lines = lines.map(|(name, value)| (name.as_str(), value));
    Ok(Json(EntryDetail {
        entry: entry_view(&api, entry, now),
        mark: mark_name(entry.head.mark).to_owned(),
        authorized: entry.head.authorized,
        validators: Validators {
            etag: field(&entry.head.headers, ETAG),
            last_modified: field(&entry.head.headers, LAST_MODIFIED),
        },
        windows: facts::windows(&entry.key, &entry.head, &api.settings),
        tags: names(&entry.head.terms.tags.tags),
        groups: names(&entry.head.terms.tags.groups),
        headers: fields(lines),
        variants: variants
            .iter()
            .map(|variant| entry_view(&api, variant, now))
            .collect(),
    }))
}

/// The bytes of a stored response as they are stored, whatever their content coding.
#[utoipa::path(get, path = "/api/v1/cache/entries/{id}/body", tag = "cache", params(("id" = String, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, body = Document)))]
pub(super) async fn body(
    State(api): State<Arc<Api>>,
    Segment(id): Segment,
) -> Result<Response, Problem> {
    let entry = api.store.entry(&id).await?.into_iter().next();
    let entry = entry.ok_or_else(|| none_stored(&id))?;
    let resource = api.store.lookup(&entry.key).await?;
    let stored = resource
        .as_ref()
        .and_then(|resource| {
            resource
                .variants
                .iter()
                .find(|stored| stored.head.variant == entry.head.variant)
        })
        .ok_or_else(|| none_stored(&id))?;
    let length = HeaderValue::from(entry.body_bytes);
    let body = match &stored.body {
        StoredBody::Memory(bytes) => Body::from(bytes.clone()),
        StoredBody::File(_) => Body::from_stream(api.store.read_body(&entry.key, stored)),
    };
    // An origin's page must not run as a page of the admin listener.
    let inert = [
        (
            CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (CONTENT_DISPOSITION, HeaderValue::from_static("attachment")),
        (
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("sandbox; default-src 'none'"),
        ),
        (CONTENT_LENGTH, length),
    ];
    Ok((inert, body).into_response())
}

/// Removes one stored response.
#[utoipa::path(delete, path = "/api/v1/cache/entries/{id}", tag = "cache", params(("id" = String, Path)),
    responses((status = 200, body = Purged), (status = 404, body = Document)))]
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    operator: Operator,
    Segment(id): Segment,
) -> Result<Json<Purged>, Problem> {
    let removed = api
        .store
        .remove(&id)
        .await?
        .ok_or_else(|| none_stored(&id))?;
    info!(key = %removed.key, "An operator removed a stored response.");
    let url = removed.key.uri();
    let event = json!({ "url": url, "soft": false, "count": 1 });
    api.events.add(Kind::Purge, event);
    audit::note(&api, operator, "purge", format!("removed {url}")).await;
    Ok(Json(Purged {
        count: 1,
        sample: vec![removed.key.uri().to_owned()],
    }))
}

fn none_stored(id: &str) -> Problem {
    Problem::not_found(format!("there is no stored response with the id `{id}`"))
}

impl Filters {
    fn listing(self) -> Result<Listing, Problem> {
        Ok(Listing {
            tier: self.tier()?,
            sort: self.sort()?,
            host: self.host.map(|host| host.to_ascii_lowercase()),
            path_prefix: self.path_prefix,
            contains: self.q,
            tag: self.tag.as_deref().map(tag_name).transpose()?,
            cursor: self.cursor,
            limit: DEFAULT_LIMIT,
        })
    }

    fn state(&self) -> Result<Option<Freshness>, Problem> {
        one_of("state", self.state.as_deref(), |name| match name {
            "fresh" => Some(Freshness::Fresh),
            "stale" => Some(Freshness::Stale),
            _ => None,
        })
    }

    fn tier(&self) -> Result<Option<Tier>, Problem> {
        one_of("tier", self.tier.as_deref(), |name| match name {
            "memory" => Some(Tier::Memory),
            "disk" => Some(Tier::Disk),
            _ => None,
        })
    }

    fn sort(&self) -> Result<Sort, Problem> {
        match self.sort.as_deref() {
            None => Ok(Sort::Key),
            Some("-hits") => Ok(Sort::Hits),
            Some("age") => Ok(Sort::Age),
            Some("size") => Ok(Sort::Size),
            Some(_) => Err(Problem::bad_request("`sort` is one of -hits, age, size")),
        }
    }
}

/// A comma list of a kind with two values: one of them, or, with none or both, no filter.
fn one_of<T: PartialEq>(
    name: &str,
    list: Option<&str>,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Problem> {
    let mut only = None;
    let mut several = false;
    for value in list.into_iter().flat_map(|list| list.split(',')) {
        let Some(value) = parse(value.trim()) else {
            return Err(Problem::bad_request(format!(
                "`{value}` is no value of `{name}`"
            )));
        };
        several |= only.as_ref().is_some_and(|only| *only != value);
        only = Some(value);
    }
    Ok(only.filter(|_| !several))
}

/// Items of a page: 1 to 1,000.
pub(super) fn limit(wanted: Option<usize>) -> Result<usize, Problem> {
    match wanted {
        None => Ok(DEFAULT_LIMIT),
        Some(limit @ 1..=MAX_LIMIT) => Ok(limit),
        Some(_) => Err(Problem::bad_request(format!("`limit` is 1 to {MAX_LIMIT}"))),
    }
}

fn entry_view(api: &Api, entry: &Entry, now: Timestamp) -> view::Entry {
    let freshness = facts::freshness(&entry.key, &entry.head, &api.settings, now);
    view::Entry {
        id: entry.id.clone(),
        method: facts::method(&entry.key).to_string(),
        url: entry.key.uri().to_owned(),
        partition: entry.key.partition().map(str::to_owned),
        status: entry.head.status.as_u16(),
        content_type: field(&entry.head.headers, CONTENT_TYPE),
        state: facts::state(freshness),
        age_secs: freshness.age_secs(),
        ttl_secs: freshness.ttl_secs(),
        tier: match entry.tier {
            Tier::Memory => view::Tier::Memory,
            Tier::Disk => view::Tier::Disk,
        },
        size_bytes: entry.body_bytes,
        hits: entry.hits,
        stored_at: text::rfc3339(entry.head.response_time),
    }
}

const fn mark_name(mark: Mark) -> &'static str {
    match mark {
        Mark::None => "none",
        Mark::Stale => "stale",
        Mark::Invalid => "invalid",
    }
}

/// The names in the order of the fields; `*` where it counts as having every one.
fn names(names: &Names) -> Vec<String> {
    match names {
        Names::Listed(names) => {
            let shown = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
            names.iter().map(|name| shown(name)).collect()
        }
        Names::Every => vec!["*".to_owned()],
    }
}

fn field(headers: &StoredFields, name: HeaderName) -> Option<String> {
    headers.get(name).map(shown)
}

pub(super) fn fields<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<Field> {
    let fields = headers.map(|(name, value)| Field {
        name: name.to_owned(),
        value: if name == SET_COOKIE {
            "(hidden)".to_owned()
        } else {
            shown(value)
        },
    });
    fields.collect()
}

fn shown(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::{Filters, Freshness, Sort, Tier, fields, limit};

    #[test]
    fn filters_take_comma_lists_and_nothing_unknown() {
        let state = |list: &str| {
            let filters = Filters {
                state: Some(list.to_owned()),
                ..Filters::default()
            };
            filters.state().ok()
        };
        assert_eq!(state("fresh"), Some(Some(Freshness::Fresh)));
        assert_eq!(state("stale"), Some(Some(Freshness::Stale)));
        assert_eq!(state("stale, stale"), Some(Some(Freshness::Stale)));
        assert_eq!(state("fresh,stale"), Some(None));
        assert_eq!(state("fresh,old"), None);
        assert_eq!(state(""), None);
        let tier = Filters {
            tier: Some("disk".to_owned()),
            ..Filters::default()
        };
        assert_eq!(tier.tier().ok(), Some(Some(Tier::Disk)));
        let sort = |sort: &str| Filters {
            sort: Some(sort.to_owned()),
            ..Filters::default()
        };
        assert_eq!(sort("-hits").sort().ok(), Some(Sort::Hits));
        assert!(sort("hits").sort().is_err());
    }

    #[test]
    fn pages_have_1_to_1000_items() {
        assert_eq!(limit(None).ok(), Some(100));
        assert_eq!(limit(Some(1_000)).ok(), Some(1_000));
        assert!(limit(Some(0)).is_err());
        assert!(limit(Some(1_001)).is_err());
    }

    #[test]
    fn cookies_are_hidden_and_odd_bytes_shown() {
        let mut headers = HeaderMap::new();
        headers.append("set-cookie", HeaderValue::from_static("secret=1"));
        headers.append("set-cookie", HeaderValue::from_static("secret=2"));
        headers.append("x-odd", HeaderValue::from_bytes(b"caf\xe9").unwrap());
        let shown: Vec<_> = fields(
            headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_bytes())),
        )
        .into_iter()
        .map(|field| field.value)
        .collect();
        assert_eq!(shown, ["(hidden)", "(hidden)", "caf\u{fffd}"]);
    }
}
