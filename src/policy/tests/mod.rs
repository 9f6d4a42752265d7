//! Tests of the policy as a whole: tables of one-line cases, properties, and a differential oracle.
//!
//! Heads are written as text: `Cache-Control: max-age=60 | ETag: "a"`. A value `@-3600` is an HTTP date that many seconds
//! from [`START`]; `-` stands for no fields. Responses get `Date: @0` unless they say otherwise; `Date: none` leaves it out.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::{
    CacheKind, ClientCacheControl, Connectivity, CookiePolicy, Decision, Judgement, Lookup, Mark,
    Mode, Overridable, Overrides, RequestHead, ResponseHead, Settings, StoredHead, Timestamp,
    VariantKey, decide, judge, select,
};

mod deciding;
mod freshening;
mod judging;
mod lifetimes;
mod oracle;
mod properties;
mod ranges;
mod suite;

/// Wed, 06 Nov 2024 09:02:57 GMT.
pub(super) const START: Timestamp = Timestamp::from_secs(1_730_883_777);

pub(super) fn after(secs: i64) -> Timestamp {
    Timestamp::from_secs(START.as_secs() + secs)
}

/// See the module documentation.
pub(super) fn headers(text: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in text.split(" | ").filter(|line| !matches!(*line, "" | "-")) {
        let (name, value) = line.split_once(':').expect("name: value");
        let value = match value.trim().strip_prefix('@') {
            Some(offset) => super::date::format_http_date(after(offset.parse().unwrap())),
            None => HeaderValue::from_bytes(value.trim().as_bytes()).unwrap(),
        };
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
    }
    headers
}

pub(super) fn response_headers(text: &str) -> HeaderMap {
    let mut headers = headers(text);
    if headers.get("date").is_some_and(|date| date == "none") {
        headers.remove("date");
    } else if !headers.contains_key("date") {
        headers.insert("date", super::date::format_http_date(START));
    }
    headers
}

/// The cases of a table: its lines, but for empty ones and comments.
pub(super) fn cases(table: &str) -> impl Iterator<Item = &str> {
    table
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
}

/// A request that owns its parts.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) has_body: bool,
}

impl Request {
    /// `GET` with these fields, or another method: `HEAD: Name: value`, `POST+body:`.
    pub(super) fn new(text: &str) -> Self {
        let (method, fields) = match text.split_once(": ") {
            Some((method, fields)) if is_method(method) => (method, fields),
            _ if is_method(text) => (text, ""),
            _ => ("GET", text),
        };
        let (method, has_body) = match method.strip_suffix("+body") {
            Some(method) => (method, true),
            None => (method, false),
        };
        Self {
            method: method.parse().unwrap(),
            headers: headers(fields),
            has_body,
        }
    }

    pub(super) fn head(&self) -> RequestHead<'_> {
        RequestHead::new(&self.method, &self.headers, self.has_body)
    }
}

fn is_method(text: &str) -> bool {
    let name = text.strip_suffix("+body").unwrap_or(text);
    let upper = |byte: u8| byte.is_ascii_uppercase() || byte == b'-';
    name.len() > 2 && name.bytes().all(upper)
}

/// A response received at [`START`] plus some seconds; `404 Name: value` sets the status.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) at: Timestamp,
}

impl Response {
    pub(super) fn new(text: &str) -> Self {
        Self::at(text, 0)
    }

    pub(super) fn at(text: &str, secs: i64) -> Self {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (status, fields) = text.split_at(digits);
        let status = if digits == 0 { "200" } else { status };
        Self {
            status: status.parse().unwrap(),
            headers: response_headers(fields.trim()),
            at: after(secs),
        }
    }

    pub(super) fn head(&self) -> ResponseHead<'_> {
        ResponseHead {
            status: self.status,
            headers: &self.headers,
            request_time: self.at,
            response_time: self.at,
        }
    }
}

/// What [`judge`] makes of a response when nothing is stored.
pub(super) fn judged(request: &str, response: &str, settings: &Settings) -> Judgement {
    judge(
        &Request::new(request).head(),
        &Response::new(response).head(),
        None,
        settings,
    )
}

/// The stored head of a response received at [`START`]. Panics where it is not stored.
pub(super) fn stored_for(request: &str, response: &str, settings: &Settings) -> StoredHead {
    match judged(request, response, settings) {
        Judgement::Store(head) => *head,
        other => panic!("{response} is not stored: {other:?}"),
    }
}

pub(super) fn stored(response: &str) -> StoredHead {
    stored_for("", response, &Settings::default())
}

/// The circumstances of a decision.
#[derive(Clone, Debug)]
pub(super) struct Circumstances {
    pub(super) connectivity: Connectivity,
    pub(super) mode: Mode,
    pub(super) settings: Settings,
    /// What was said about the stored response.
    pub(super) mark: Mark,
}

impl Default for Circumstances {
    fn default() -> Self {
        Self::new("")
    }
}

impl Circumstances {
    /// The default ones but for these words: `disconnected`, a mode, `private` (the kind), `stale` or `invalid` (the
    /// mark), `ttl=`, `negative=`, `swr=`, `sie=` and `offline=` in seconds, `ahead=` in percent, `ignore-client`,
    /// `cookie=strip` or `cookie=store`, and `override=` with directives in commas.
    pub(super) fn new(words: &str) -> Self {
        let mut found = Self {
            connectivity: Connectivity::Connected,
            mode: Mode::Auto,
            settings: Settings::default(),
            mark: Mark::None,
        };
        let settings = &mut found.settings;
        for word in words.split_whitespace() {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let seconds = || Duration::from_secs(value.parse().unwrap());
            match name {
                "disconnected" => found.connectivity = Connectivity::Disconnected,
                "private" => settings.kind = CacheKind::Private,
                "stale" => found.mark = Mark::Stale,
                "invalid" => found.mark = Mark::Invalid,
                "ttl" => settings.default_ttl = seconds(),
                "swr" => settings.stale_while_revalidate = seconds(),
                "sie" => settings.stale_if_error = seconds(),
                "offline" if !value.is_empty() => settings.max_stale_offline = seconds(),
                "negative" => settings.negative_ttl = seconds(),
                "ignore-client" => settings.client_cache_control = ClientCacheControl::Ignore,
                "cookie" if value == "strip" => settings.set_cookie = CookiePolicy::Strip,
                "cookie" if value == "store" => settings.set_cookie = CookiePolicy::Store,
                "ahead" => settings.refresh_ahead_percent = value.parse().unwrap(),
                "override" => settings.overrides = overrides(value),
                mode => found.mode = mode.parse().unwrap(),
            }
        }
        found
    }

    /// A stored response under these settings and this mark.
    pub(super) fn stored(&self, request: &str, response: &str) -> StoredHead {
        StoredHead {
            mark: self.mark,
            ..stored_for(request, response, &self.settings)
        }
    }

    pub(super) fn decide(&self, request: &str, lookup: Lookup<'_>, secs: i64) -> Decision {
        let request = Request::new(request);
        decide(
            &request.head(),
            lookup,
            self.connectivity,
            self.mode,
            &self.settings,
            after(secs),
        )
    }
}

fn overrides(names: &str) -> Overrides {
    names.split(',').fold(Overrides::default(), |set, name| {
        let directive = Overridable::ALL
            .into_iter()
            .find(|known| known.as_str() == name);
        set.with(directive.expect("the name of an overridable directive"))
    })
}

/// A decision as one short line: `hit`, `stale stale-while-revalidate behind`, `fwd stale validate collapse`, `504
/// offline-miss`.
pub(super) fn describe(decision: &Decision) -> String {
    match decision {
        Decision::Reuse(reuse) => {
            let mut text = match reuse.detail {
                Some(detail) => format!("reuse {detail}"),
                None => "hit".to_owned(),
            };
            if reuse.validate_behind {
                text.push_str(" behind");
            }
            if reuse.validate_ahead {
                text.push_str(" ahead");
            }
            text
        }
        Decision::Forward(forward) => {
            let mut text = format!("fwd {}", forward.why.as_str());
            if forward.validate {
                text.push_str(" validate");
            }
            if forward.collapse {
                text.push_str(" collapse");
            }
            if forward.fill_behind {
                text.push_str(" behind");
            }
            text
        }
        Decision::Unsatisfiable(reason) => format!("504 {reason}"),
    }
}

#[test]
fn reasons_are_unique_kebab_case_tokens() {
    let mut seen = std::collections::HashSet::new();
    for reason in super::Reason::ALL {
        let token = reason.as_str();
        assert!(seen.insert(token), "{token} twice");
        assert!(
            token.starts_with(|c: char| c.is_ascii_lowercase())
                && !token.ends_with('-')
                && !token.contains("--")
                && token.chars().all(|c| c.is_ascii_lowercase() || c == '-'),
            "{token}"
        );
    }
}

#[test]
fn stored_parts_survive_a_round_trip_through_the_disk_format() {
    let head = stored_for(
        "Accept-Language: en | Cookie: a=b",
        "Cache-Control: max-age=60, stale-if-error=9 | Vary: Accept-Language, Cookie | ETag: \"x\"",
        &Settings::default(),
    );
    let bytes = postcard::to_stdvec(&(&head.terms, &head.variant)).unwrap();
    let (terms, variant): (super::Terms, VariantKey) = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(terms, head.terms);
    assert_eq!(variant, head.variant);
    assert_eq!(select(&headers("Cookie: a=b"), [&head].into_iter()), None);
}
