//! Fuzz targets of the policy; see [`crate::fuzzing`].

mod path_pattern;
mod search;
mod tags;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH, RANGE},
    uri::{Authority, PathAndQuery},
};

pub(crate) use self::{path_pattern::path_pattern, search::search, tags::tags};
use super::{
    Answer, CacheKey, Connectivity, Decision, Judgement, Lookup, Mark, Mode, ParameterPattern,
    QueryRules, RequestHead, ResponseHead, Selection, Settings, StoredHead, Terms, Timestamp,
    VariantKey, answer_conditionally,
    date::{format_http_date, http_date},
    decide,
    directives::{CacheFields, FieldNames, RequestDirectives},
    entity_tag::{EntityTag, any_matches},
    fields::DELTA_SECONDS_MAX,
    invalidation::same_origin_target,
    judge, on_failure, select, select_bytes,
};
use crate::fuzzing::{are_closed, fields, joined, lines, mapped, parts};

const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// `Cache-Control` and `Pragma` of a request: one reading, however they are written, and the most restrictive one.
pub(crate) fn request_directives(input: &[u8]) {
    let headers = fields(input);
    let found = RequestDirectives::parse(&headers);
    assert_eq!(
        RequestDirectives::parse(&mapped(&headers, <[u8]>::to_ascii_uppercase)),
        found
    );
    assert_eq!(RequestDirectives::parse(&reversed(&headers)), found);
    if are_closed(&headers) {
        assert_eq!(RequestDirectives::parse(&joined(&headers)), found);
    }
    for seconds in [found.max_age, found.min_fresh, found.stale_if_error] {
        assert!(seconds.is_none_or(|seconds| seconds <= DELTA_SECONDS_MAX));
    }
    let mut stricter = headers.clone();
    stricter.append(
        CACHE_CONTROL,
        HeaderValue::from_static("no-store, max-age=0"),
    );
    let stricter = RequestDirectives::parse(&stricter);
    assert!(stricter.no_store && stricter.max_age == Some(0));
}

/// `Cache-Control` and `Pragma` of a response.
pub(crate) fn response_directives(input: &[u8]) {
    let headers = fields(input);
    let found = sorted(CacheFields::parse(&headers, &[]));
    let upper = mapped(&headers, <[u8]>::to_ascii_uppercase);
    assert_eq!(sorted(CacheFields::parse(&upper, &[])), found);
    assert_eq!(sorted(CacheFields::parse(&reversed(&headers), &[])), found);
    if are_closed(&headers) {
        assert_eq!(sorted(CacheFields::parse(&joined(&headers), &[])), found);
    }
    assert!(!found.targeted);
    assert_bounded(&found);
    let mut stricter = headers.clone();
    stricter.append(
        CACHE_CONTROL,
        HeaderValue::from_static("private, s-maxage=0"),
    );
    let stricter = CacheFields::parse(&stricter, &[]).directives;
    assert!(stricter.private && stricter.s_maxage == Some(0));
}

/// A targeted field beside `Cache-Control`: one of them counts, whole.
pub(crate) fn targeted(input: &[u8]) {
    let headers = fields(input);
    let found = sorted(CacheFields::parse(&headers, &[CDN_CACHE_CONTROL]));
    assert_bounded(&found);
    let mut without = headers.clone();
    if found.targeted {
        without.remove(CACHE_CONTROL);
        without.remove(http::header::PRAGMA);
    } else {
        without.remove(CDN_CACHE_CONTROL);
    }
    assert_eq!(
        sorted(CacheFields::parse(&without, &[CDN_CACHE_CONTROL])),
        found
    );
    // A structured field is what its lines are together, whatever their quotes (RFC 8941 section 4.2).
    let one_line = joined(&headers).remove(CDN_CACHE_CONTROL);
    if let Some(line) = one_line {
        let mut headers = headers;
        headers.insert(CDN_CACHE_CONTROL, line);
        assert_eq!(
            sorted(CacheFields::parse(&headers, &[CDN_CACHE_CONTROL])),
            found
        );
    }
}

/// A date, a line each.
pub(crate) fn date(input: &[u8]) {
    for value in lines(input).filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        let Some(moment) = http_date(&value) else {
            continue;
        };
        for other in [
            value.as_bytes().to_ascii_uppercase(),
            value.as_bytes().to_ascii_lowercase(),
            [b" ", value.as_bytes(), b"\t"].concat(),
        ] {
            let other = HeaderValue::from_bytes(&other).expect("still a field value");
            assert_eq!(http_date(&other), Some(moment), "{other:?}");
        }
        let formatted = format_http_date(moment);
        assert_eq!(formatted.len(), 29, "{formatted:?}");
        // Years before 1970 have no IMF-fixdate of ours.
        if moment >= Timestamp::from_secs(0) {
            assert_eq!(http_date(&formatted), Some(moment));
        }
        let theirs = value
            .to_str()
            .ok()
            .and_then(|text| httpdate::parse_http_date(text).ok());
        assert!(
            theirs.is_none_or(|theirs| Timestamp::from(theirs) == moment),
            "{value:?}"
        );
    }
}

/// Age and lifetime of a response that was received and is looked at when its `at` fields say.
pub(crate) fn age(input: &[u8]) {
    let headers = fields(input);
    let at = |name| Timestamp::from_millis(number(&headers, name));
    let (requested, received, now) = (at("x-requested-at"), at("x-received-at"), at("x-now"));
    let settings = Settings::default();
    let terms = Terms::parse(StatusCode::OK, &headers, &settings, requested, received);
    let lifetime_secs = terms.lifetime_secs(&settings);
    assert!(lifetime_secs <= DELTA_SECONDS_MAX.into());
    let head = StoredHead {
        request_time: requested,
        response_time: received,
        terms,
        ..stored(headers)
    };
    let freshness = head.freshness(&settings, now);
    assert_eq!(freshness.is_fresh(), freshness.ttl_secs() > 0);
    if freshness.age_is_known() {
        let (age, lifetime) = (i128::from(freshness.age_secs()), i128::from(lifetime_secs));
        assert_eq!(age + i128::from(freshness.ttl_secs()), lifetime);
        let at_first = head.freshness(&settings, received);
        assert!(at_first.age_secs() <= freshness.age_secs());
        assert!(at_first.is_fresh() || !freshness.is_fresh());
    } else {
        // A clock stepped back: stale, never newborn.
        assert!(!freshness.is_fresh() && freshness.age_secs() >= lifetime_secs);
    }
}

/// Entity tags: the request's conditions, then the response's fields.
pub(crate) fn entity_tag(input: &[u8]) {
    let mut parts = parts(input).map(fields);
    let request = parts.next().unwrap_or_default();
    let Some(tag) = parts
        .next()
        .and_then(|response| response.get(ETAG).cloned())
    else {
        return;
    };
    let own = EntityTag::of(&tag);
    assert!(own.matches_weakly(own));
    assert_eq!(own.matches_strongly(own), own.is_strong());
    for known in request.get_all(IF_NONE_MATCH).iter().map(EntityTag::of) {
        assert_eq!(known.matches_weakly(own), own.matches_weakly(known));
        assert_eq!(known.matches_strongly(own), own.matches_strongly(known));
        assert!(known.matches_weakly(own) || !known.matches_strongly(own));
    }
    let matches = |headers: &HeaderMap| {
        any_matches(headers, &IF_NONE_MATCH, |known| known.matches_weakly(own))
    };
    assert_eq!(matches(&reversed(&request)), matches(&request));
    if are_closed(&request) {
        assert_eq!(matches(&joined(&request)), matches(&request));
    }
    let stored = stored(HeaderMap::from_iter([(ETAG, tag.clone())]));
    let answered = |headers: &HeaderMap| answer_conditionally(&get(headers), &stored);
    // No other condition, and no malformed one either, takes a match away.
    let mut known = request.clone();
    known.append(IF_NONE_MATCH, HeaderValue::from_static("*"));
    assert!(matches(&known));
    assert_ne!(answered(&known), Answer::Full);
    if own.is_strong() {
        let exactly = HeaderMap::from_iter([(IF_NONE_MATCH, tag)]);
        assert_eq!(answered(&exactly), Answer::NotModified);
    }
}

/// A request's range, then the fields of a whole stored response or (`x-status: 206`) of a part: never a byte that is not
/// there, and none twice.
pub(crate) fn range(input: &[u8]) {
    let mut parts = parts(input).map(fields);
    let request = parts.next().unwrap_or_default();
    let head = stored(parts.next().unwrap_or_default());
    for body_bytes in [0, 1, 10, 1 << 40, u64::MAX] {
        let stretches = match select_bytes(&get(&request), &head, body_bytes) {
            Selection::One(stretch) => vec![stretch],
            Selection::Several(stretches) => stretches,
            Selection::Unsatisfiable(_) => {
                assert!(request.contains_key(RANGE));
                continue;
            }
            Selection::Whole | Selection::Missing => continue,
        };
        assert!(request.contains_key(RANGE) && (1..=16).contains(&stretches.len()));
        let mut bytes: Vec<_> = stretches.into_iter().map(|stretch| stretch.body).collect();
        bytes.sort_by_key(|range| range.start);
        let (first, last) = (bytes[0].start, bytes[bytes.len() - 1].end);
        assert!(
            first <= last && last <= body_bytes,
            "{bytes:?} of {body_bytes}"
        );
        assert!(
            bytes.iter().all(|range| range.start <= range.end),
            "{bytes:?}"
        );
        assert!(
            bytes.is_sorted_by(|one, next| one.end <= next.start),
            "{bytes:?}"
        );
    }
}

/// Variants: a request, the response to it, another request.
pub(crate) fn vary(input: &[u8]) {
    let mut parts = parts(input).map(fields);
    let mut next = || parts.next().unwrap_or_default();
    let (first, response, second) = (next(), next(), next());
    let key = VariantKey::new(&first, &response);
    assert_eq!(key.matches(&first, &response), !key.never_matches());
    let again = VariantKey::new(&mapped(&first, <[u8]>::to_vec), &reversed(&response));
    assert_eq!(again, key, "the order of Vary lines");
    let other = VariantKey::new(&second, &response);
    if key == other {
        assert_eq!(key.matches(&second, &response), !key.never_matches());
    }
    // Fields that Vary does not name tell nothing apart.
    let mut more = first.clone();
    more.insert("x-not-nominated", HeaderValue::from_static("1"));
    let vary: Vec<u8> = joined(&response)
        .get(http::header::VARY)
        .map_or_else(Vec::new, |vary| vary.as_bytes().to_ascii_lowercase());
    if !vary.windows(15).any(|window| window == b"x-not-nominated") {
        assert_eq!(VariantKey::new(&more, &response), key);
    }
    // A plain field is compared member by member.
    let plain = HeaderName::from_static("x-plain");
    let nominates = VariantKey::new(&HeaderMap::new(), &response)
        .matches(&HeaderMap::new(), &response)
        && vary
            .split(|byte| *byte == b',')
            .any(|name| name.trim_ascii() == b"x-plain");
    if nominates && are_closed(&response) && key.matches(&second, &response) {
        let members = |headers: &HeaderMap| -> Vec<Vec<u8>> {
            super::fields::all_members(headers, &plain)
                .map(<[u8]>::to_vec)
                .collect()
        };
        assert_eq!(members(&first), members(&second));
    }
}

/// Two keys, each of a partition, a scheme, an authority and a target, a line each.
pub(crate) fn key(input: &[u8]) {
    let mut parts = parts(input);
    let first = parts.next().and_then(KeyParts::parse);
    let second = parts.next().and_then(KeyParts::parse);
    let texts = [&first, &second].map(|parts| parts.as_ref().map(KeyParts::check));
    if let [Some(one), Some(other)] = texts {
        let (first, second) = (first.map(KeyParts::normal), second.map(KeyParts::normal));
        assert_eq!(one == other, first == second, "{one:?} and {other:?}");
    }
}

/// What a key is made of, as the proxy makes it: everything but the partition has come through `http`'s parsers.
#[derive(PartialEq, Eq)]
struct KeyParts {
    partition: Option<String>,
    scheme: &'static str,
    authority: String,
    target: String,
}

impl KeyParts {
    fn parse(part: &[u8]) -> Option<Self> {
        let mut lines = lines(part).map(|line| std::str::from_utf8(line).ok());
        let partition = lines.next()??;
        let is_partition = partition.bytes().all(|byte| byte.is_ascii_graphic());
        let scheme = match lines.next()?? {
            "https" => "https",
            _ => "http",
        };
        let authority = Authority::try_from(lines.next()??).ok()?;
        // What `refuse` lets through: no userinfo, a host, and a port that is a number or missing.
        let is_port = |port: &str| port.is_empty() || port.bytes().all(|b| b.is_ascii_digit());
        let rest = authority.as_str().strip_prefix(authority.host())?;
        let has_port = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
        let target = PathAndQuery::try_from(lines.next()??).ok()?;
        let valid = is_partition && has_port && !authority.host().is_empty();
        // `*` is for OPTIONS, which nothing is stored for.
        (valid && target.as_str() != "*").then(|| Self {
            partition: (!partition.is_empty()).then(|| partition.to_owned()),
            scheme,
            authority: authority.as_str().to_owned(),
            target: target.as_str().to_owned(),
        })
    }

    /// The text of the key, from which every part is found again.
    fn check(&self) -> String {
        let mut text = String::new();
        let partition = self.partition.as_deref();
        CacheKey::write(
            &mut text,
            partition,
            self.scheme,
            &self.authority,
            &self.target,
        );
        let key = CacheKey::from_text(&text);
        assert_eq!(key.partition(), partition);
        assert!(key.uri().starts_with(self.scheme));
        assert!(key.authority().len() <= self.authority.len());
        assert!(key.path_and_query().starts_with('/'));
        assert!(key.path_and_query().ends_with(&self.target));
        let mut again = String::new();
        let (authority, target) = (key.authority(), key.path_and_query());
        CacheKey::write(&mut again, partition, self.scheme, authority, target);
        assert_eq!(again, text);
        text
    }

    /// Two with the same of these are the same effective URI.
    fn normal(mut self) -> Self {
        self.authority.make_ascii_lowercase();
        let port = match self.scheme {
            "https" => ":443",
            _ => ":80",
        };
        if let Some(host) = self.authority.strip_suffix(port) {
            self.authority = host.to_owned();
        }
        if !self.target.starts_with('/') {
            self.target.insert(0, '/');
        }
        self
    }
}

/// A URI reference in the answer of a resource: a key's text, then the reference.
pub(crate) fn reference(input: &[u8]) {
    let mut lines = lines(input);
    let base = lines
        .next()
        .and_then(|line| std::str::from_utf8(line).ok())
        .and_then(key_of);
    let reference = lines
        .next()
        .and_then(|line| HeaderValue::from_bytes(line).ok());
    let (Some(base), Some(reference)) = (base, reference) else {
        return;
    };
    let Some(target) = same_origin_target(&base, &reference, &QueryRules::default()) else {
        return;
    };
    assert_eq!(target.partition(), base.partition());
    assert_eq!(target.authority(), base.authority());
    assert!(!target.path_and_query().contains('#'));
    if target == base {
        return;
    }
    let path = target
        .path_and_query()
        .split('?')
        .next()
        .unwrap_or_default();
    let is_dots = |segment: &str| matches!(segment, "." | "..");
    // A reference that is a query alone leaves the path of the base as it is.
    let base_path = base.path_and_query().split('?').next().unwrap_or_default();
    assert!(path == base_path || !path.split('/').any(is_dots), "{path}");
    // What is resolved is what it is, written whole; but a reference has no white space at its ends.
    let whole = HeaderValue::from_str(target.uri()).expect("a URI is a field value");
    // Nor has it anything but ASCII, which paths that clients ask for may have.
    let is_reference = target.uri().is_ascii() && target.uri().trim_end() == target.uri();
    if is_reference && path != base_path {
        assert_eq!(
            same_origin_target(&base, &whole, &QueryRules::default()),
            Some(target)
        );
    }
}

/// The key with this text, if [`CacheKey::write`] could have written it.
fn key_of(text: &str) -> Option<CacheKey> {
    let key = CacheKey::from_text(text);
    let uri: http::Uri = key.uri().parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?.as_str());
    let target = uri.path_and_query()?.as_str();
    let mut again = String::new();
    CacheKey::write(&mut again, key.partition(), scheme, authority, target);
    let is_own = again == text && !authority.contains('@');
    (is_own && matches!(scheme, "http" | "https")).then_some(key)
}

/// Rules for a query, then a target: patterns of what is ignored on the first line, whether the rest is sorted on the
/// second (`sorted`).
pub(crate) fn query(input: &[u8]) {
    let mut lines = lines(input).map(|line| std::str::from_utf8(line).unwrap_or_default());
    let mut next = || lines.next().unwrap_or_default();
    let patterns = next()
        .split(' ')
        .filter_map(|text| ParameterPattern::parse(text).ok());
    let rules = QueryRules {
        ignored: patterns.collect(),
        sorted: next() == "sorted",
    };
    let target = next();
    let Some(kept) = rules.apply(target) else {
        return;
    };
    assert_ne!(kept, target);
    assert!(!rules.is_empty());
    assert_eq!(rules.apply(&kept), None, "once is enough: {kept}");
    let path = |text: &str| text.split('?').next().map(str::to_owned);
    assert_eq!(path(&kept), path(target));
    // Nothing is added, and without patterns nothing is lost.
    let parameters = |text: &str| -> Vec<String> {
        let query = text.split_once('?').map_or("", |(_, query)| query);
        let mut all: Vec<String> = query.split('&').map(str::to_owned).collect();
        all.sort();
        all
    };
    let (before, after) = (parameters(target), parameters(&kept));
    assert!(
        after
            .iter()
            .all(|parameter| parameter.is_empty() || before.contains(parameter))
    );
    assert!(!rules.ignored.is_empty() || before == after);
}

/// The whole: a request, its answer, another request, the next answer. `x-status`, `x-method` and `x-now` (seconds) say
/// what a head is besides fields.
pub(crate) fn policy(input: &[u8]) {
    let mut parts = parts(input).map(fields);
    let mut next = || parts.next().unwrap_or_default();
    let (first, answer, second, newer) = (next(), next(), next(), next());
    let settings = Settings::default();
    let answered = response(&answer, 0);
    let Judgement::Store(head) = judge(&get(&first), &answered, None, &settings) else {
        return;
    };
    // Whoever was answered would be answered so again.
    assert_eq!(select(&first, [head.as_ref()].into_iter()), Some(0));
    let directives = CacheFields::parse(&answer, &settings.targeted_fields).directives;
    assert!(!directives.private, "in a shared cache");
    assert!(!directives.no_store || directives.must_understand);
    assert!(!RequestDirectives::parse(&first).no_store);
    let (method, now) = (
        method(&second),
        Timestamp::from_secs(number(&second, "x-now")),
    );
    let asked = RequestHead::new(&method, &second, false);
    let decision = decide(
        &asked,
        Lookup::Stored(&head),
        Connectivity::Connected,
        Mode::Auto,
        &settings,
        now,
    );
    if let Decision::Reuse(reuse) = decision {
        assert!(method == Method::GET || method == Method::HEAD);
        assert!(!directives.no_cache);
        assert!(reuse.detail.is_some() || head.freshness(&settings, now).is_fresh());
        assert!(reuse.ttl_secs > 0 || !directives.must_revalidate);
        let invalid = StoredHead {
            mark: Mark::Invalid,
            ..(*head).clone()
        };
        let lookup = Lookup::Stored(&invalid);
        let mode = Mode::PreferCache;
        let decision = decide(
            &asked,
            lookup,
            Connectivity::Disconnected,
            mode,
            &settings,
            now,
        );
        assert!(
            !matches!(decision, Decision::Reuse(_)),
            "invalidated, yet reused"
        );
    }
    let _ = on_failure(&asked, super::Failure::Broken, Some(&head), &settings, now);
    let newer_head = response(&newer, now.as_secs());
    if let Judgement::Freshen(fresh) = judge(&asked, &newer_head, Some(&head), &settings) {
        assert_eq!(newer_head.status, StatusCode::NOT_MODIFIED);
        assert_eq!(fresh.status, head.status);
        for name in ["content-length", "content-encoding", "content-range"] {
            assert_eq!(fresh.headers.get(name), head.headers.get(name), "{name}");
        }
    }
}

fn get(headers: &HeaderMap) -> RequestHead<'_> {
    RequestHead::new(&Method::GET, headers, false)
}

fn response(headers: &HeaderMap, at_secs: i64) -> ResponseHead<'_> {
    let status = u16::try_from(number(headers, "x-status")).ok();
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    ResponseHead {
        status: status.unwrap_or(StatusCode::OK),
        headers,
        request_time: Timestamp::from_secs(at_secs),
        response_time: Timestamp::from_secs(at_secs),
    }
}

fn stored(headers: HeaderMap) -> StoredHead {
    let request = HeaderMap::new();
    StoredHead::new(&get(&request), &response(&headers, 0), &Settings::default())
}

fn method(headers: &HeaderMap) -> Method {
    let name = headers.get("x-method").map(HeaderValue::as_bytes);
    name.and_then(|name| Method::from_bytes(name).ok())
        .unwrap_or(Method::GET)
}

/// The number in a field; 0 where there is none.
fn number(headers: &HeaderMap, name: &str) -> i64 {
    let text = headers.get(name).and_then(|value| value.to_str().ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The fields with their lines in the opposite order.
fn reversed(headers: &HeaderMap) -> HeaderMap {
    let mut lines: Vec<_> = headers.iter().collect();
    lines.reverse();
    lines
        .into_iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Field names are a set: their order and repetition say nothing.
fn sorted(mut fields: CacheFields) -> CacheFields {
    for names in [&mut fields.unvalidated, &mut fields.private] {
        let mut set: Vec<HeaderName> = names.drain(..).collect();
        set.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        set.dedup();
        *names = FieldNames::from(set);
    }
    fields
}

fn assert_bounded(fields: &CacheFields) {
    let directives = &fields.directives;
    for seconds in [
        directives.max_age,
        directives.s_maxage,
        directives.stale_while_revalidate,
        directives.stale_if_error,
    ] {
        assert!(seconds.is_none_or(|seconds| seconds <= DELTA_SECONDS_MAX));
    }
}
