//! What the client of a queued write gets: 202 with the receipt, the route's own answer, or the origin's.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::prefer::{PREFERENCE_APPLIED, Preferences};
use crate::{
    policy::{Reason, Timestamp},
    proxy::{Gateway, access::CacheUse, body::Body, respond::Reply},
    queue::{Answer, Item, ResponseTemplate, WriteSettings},
};

/// Where receipts are, on the proxy listener, whatever the host.
pub(super) const PATH: &str = "/.well-known/hardtack/queue/";

/// `?1`: the body is only the beginning of the origin's.
const HARDTACK_TRUNCATED: HeaderName = HeaderName::from_static("hardtack-truncated");

/// They are of the whole content.
const DIGESTS: [HeaderName; 3] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
];

/// Whoever asks for a receipt again waits this long at least.
const RETRY_AFTER_MIN_SECS: u64 = 1;
/// And this long at most: a receipt costs little.
const RETRY_AFTER_MAX_SECS: u64 = 60;

/// The answer to a write that is in the queue, with its idempotency key as it was sent.
pub(super) fn accepted(
    gateway: &Gateway,
    item: &Item,
    preferences: Preferences,
    settings: &WriteSettings,
    key: Option<&HeaderValue>,
) -> Reply {
    let mut response = match &settings.response {
        Some(template) => filled(template, item),
        None => Receipt::of(gateway, item).into_response(StatusCode::ACCEPTED),
    };
    let headers = response.headers_mut();
    // What the route's own answer says goes before.
    for (name, value) in [
        (header::LOCATION, location(item)),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ] {
        if !headers.contains_key(&name) {
            set(headers, name, &value);
        }
    }
    let now = gateway.clock.now();
    headers
        .entry(header::RETRY_AFTER)
        .or_insert_with(|| HeaderValue::from(retry_after_secs(item, now)));
    if let Some(key) = key {
        headers.insert(settings.idempotency_header.clone(), key.clone());
    }
    apply(headers, preferences);
    reply(response, item)
}

/// The origin's answer, for a client that waited for it.
pub(super) fn answered(item: &Item, answer: &Answer, preferences: Preferences) -> Reply {
    let mut response = of_origin(answer);
    let headers = response.headers_mut();
    // Where the origin says where its new resource is, that is what the client wants to know.
    if !headers.contains_key(header::LOCATION) {
        set(headers, header::CONTENT_LOCATION, &location(item));
    }
    apply(headers, preferences);
    reply(response, item)
}

/// The origin's answer as it is kept, which says so where that is not all of it.
pub(super) fn of_origin(answer: &Answer) -> Response<Body> {
    let mut response = Response::new(Body::whole(answer.body.clone()));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    for (name, value) in &answer.fields {
        // Lengths are of the body as it is sent.
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_bytes(value),
        ) && name != header::CONTENT_LENGTH
        {
            response.headers_mut().append(name, value);
        }
    }
    if answer.is_truncated {
        let headers = response.headers_mut();
        for name in DIGESTS {
            headers.remove(name);
        }
        headers.insert(HARDTACK_TRUNCATED, HeaderValue::from_static("?1"));
    }
    response
}

/// A receipt, as JSON. What is not known, or does not apply, is left out.
#[derive(Serialize)]
pub(super) struct Receipt<'a> {
    id: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    accepted_at: String,
    method: &'a str,
    url: &'a str,
    lane: &'a str,
    position: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked_by: Option<String>,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Last<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<Head<'a>>,
    links: Links,
}

/// The last attempt.
#[derive(Serialize)]
struct Last<'a> {
    at: String,
    status: Option<u16>,
    error: Option<&'a str>,
}

/// The head of the origin's answer.
#[derive(Serialize)]
struct Head<'a> {
    status: u16,
    /// Names and values.
    headers: Vec<(&'a str, Cow<'a, str>)>,
    /// Whether only the beginning of its body is kept.
    truncated: bool,
}

#[derive(Serialize)]
struct Links {
    #[serde(rename = "self")]
    itself: String,
    response: String,
}

impl<'a> Receipt<'a> {
    /// As it stands now.
    pub(super) fn of(gateway: &Gateway, item: &'a Item) -> Self {
        let location = location(item);
        let place = gateway.queue.place(item.id);
        Self {
            id: item.id.to_string(),
            state: item.state.as_str(),
            reason: item.state.reason(),
            accepted_at: item.accepted_at.rfc3339(),
            method: &item.method,
            url: &item.url,
            lane: &item.lane,
            position: place.position,
            blocked_by: place.blocked_by.map(|id| id.to_string()),
            attempts: item.attempts,
            next_at: item.state.is_pending().then(|| item.next_at.rfc3339()),
            last: item.last.as_ref().map(|last| Last {
                at: last.at.rfc3339(),
                status: last.status,
                error: last.error.as_deref(),
            }),
            ended_at: item.ended_at.map(Timestamp::rfc3339),
            response: None,
            links: Links {
                response: format!("{location}/response"),
                itself: location,
            },
        }
    }

    /// With the head of the origin's answer.
    pub(super) fn answered(self, answer: &'a Answer) -> Self {
        let fields = answer.fields.iter();
        let fields = fields.map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value)));
        Self {
            response: Some(Head {
                status: answer.status,
                headers: fields.collect(),
                truncated: answer.is_truncated,
            }),
            ..self
        }
    }

    /// A JSON answer that nobody stores.
    pub(super) fn into_response(self, status: StatusCode) -> Response<Body> {
        let mut text = serde_json::to_vec(&self).expect("names and texts are JSON");
        text.push(b'\n');
        let mut response = Response::new(Body::whole(Bytes::from(text)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// Where the receipt of a write is.
pub(super) fn location(item: &Item) -> String {
    format!("{PATH}{}", item.id)
}

/// When it is worth asking for the receipt again.
pub(super) fn retry_after_secs(item: &Item, now: Timestamp) -> u64 {
    let millis = item.next_at.millis_since(now).max(0).unsigned_abs();
    Duration::from_millis(millis.saturating_add(999))
        .as_secs()
        .clamp(RETRY_AFTER_MIN_SECS, RETRY_AFTER_MAX_SECS)
}

fn filled(template: &ResponseTemplate, item: &Item) -> Response<Body> {
    let fill = |text: &str| {
        text.replace("{id}", &item.id.to_string())
            .replace("{location}", &location(item))
            .replace("{lane}", &item.lane)
            .replace("{accepted_at}", &item.accepted_at.rfc3339())
    };
    let mut response = Response::new(Body::whole(Bytes::from(fill(&template.body))));
    *response.status_mut() = template.status;
    for (name, value) in &template.headers {
        let text = value.to_str().map(fill);
        let filled = text.ok().and_then(|text| HeaderValue::try_from(text).ok());
        let value = filled.unwrap_or_else(|| value.clone());
        response.headers_mut().append(name.clone(), value);
    }
    response
}

fn apply(headers: &mut HeaderMap, preferences: Preferences) {
    if let Some(applied) = preferences.applied() {
        set(headers, PREFERENCE_APPLIED, &applied);
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

fn reply(mut response: Response<Body>, item: &Item) -> Reply {
    // For the access event.
    response.extensions_mut().insert(item.id);
    Reply {
        response,
        cache: CacheUse::None,
        reason: Some(Reason::Queued),
    }
}
