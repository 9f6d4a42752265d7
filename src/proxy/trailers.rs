//! Trailer sections (RFC 9110 section 6.5) on their way from an origin to the clients that follow its answer.
//!
//! They go to whoever takes them: HTTP/2 clients, and HTTP/1.1 clients that say `TE: trailers`; to these only the fields
//! that the origin's `Trailer` names before the body, because hyper's server writes no others. A client's `TE: trailers`
//! is said to the origin as the gateway's own ([`super::request`]).
//!
//! The store discards them, which RFC 9111 section 3.1 leaves to a cache, and they never become fields of a head: a hit
//! has none, and no `Trailer` that would promise some.
//!
//! Bounds: hyper's client reads at most 16 KiB and 100 fields of them; beyond that the body has broken off.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, Version, header};
use http_body::{Body, Frame};

/// Fields that must be known before the content, or that would change what was decided by the head (RFC 9110 section
/// 6.5.1): framing, routing, controls of caches and requests, authentication, the format of the content.
const FORBIDDEN: [HeaderName; 40] = [
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TRAILER,
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::HOST,
    header::LOCATION,
    header::VIA,
    header::FORWARDED,
    header::MAX_FORWARDS,
    header::EXPECT,
    header::CACHE_CONTROL,
    header::PRAGMA,
    header::AGE,
    header::EXPIRES,
    header::DATE,
    header::VARY,
    header::WARNING,
    header::RETRY_AFTER,
    HeaderName::from_static("cache-status"),
    HeaderName::from_static("surrogate-control"),
    HeaderName::from_static("no-vary-search"),
    HeaderName::from_static("clear-site-data"),
    header::RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::AUTHORIZATION,
    header::WWW_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
    header::COOKIE,
    header::SET_COOKIE,
    header::CONTENT_RANGE,
    header::CONTENT_ENCODING,
];

fn is_forbidden(name: &HeaderName) -> bool {
    FORBIDDEN.contains(name)
        || *name == header::CONTENT_TYPE
        // Targeted fields (RFC 9213).
        || name.as_str().ends_with("-cache-control")
}

/// A trailer section without the fields that may not stand there; `None` when nothing is left.
pub(crate) fn permitted(mut trailers: HeaderMap) -> Option<HeaderMap> {
    let names: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| is_forbidden(name))
        .cloned()
        .collect();
    for name in names {
        trailers.remove(name);
    }
    (!trailers.is_empty()).then_some(trailers)
}

/// A frame of an origin's body as a client gets it; `None` when it was the last one, and nothing of it may pass.
pub(crate) fn pass(frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
    match frame.into_trailers() {
        Ok(trailers) => permitted(trailers).map(Frame::trailers),
        Err(frame) => Some(frame),
    }
}

/// The fields an origin's head promises for the end, as far as they may stand there.
pub(crate) fn promised(headers: &HeaderMap) -> Option<HeaderValue> {
    // Hardly any head has the field, so nothing is gathered before one does.
    if !headers.contains_key(header::TRAILER) {
        return None;
    }
    let names: Vec<HeaderName> = headers
        .get_all(header::TRAILER)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| !is_forbidden(name))
        .collect();
    let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
    HeaderValue::try_from(names.join(", "))
        .ok()
        .filter(|promise| !promise.is_empty())
}

/// Puts what is promised into the head of an answer, if this client takes trailers and the body can have some.
pub(crate) fn promise<B: Body>(
    response: &mut Response<B>,
    promised: Option<HeaderValue>,
    version: Version,
    request: &HeaderMap,
) {
    response.headers_mut().remove(header::TRAILER);
    let body = response.body();
    // A body of known length has no chunks, so HTTP/1 has no place for them.
    let may_follow = !body.is_end_stream() && body.size_hint().exact().is_none();
    if let Some(promised) = promised
        && may_follow
        && are_taken(version, request)
    {
        response.headers_mut().insert(header::TRAILER, promised);
    }
}

fn are_taken(version: Version, request: &HeaderMap) -> bool {
    version == Version::HTTP_2 || (version == Version::HTTP_11 && are_asked_for(request))
}

/// Whether the request says `TE: trailers` (RFC 9110 section 10.1.4).
pub(crate) fn are_asked_for(request: &HeaderMap) -> bool {
    request
        .get_all(header::TE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|member| member.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderName, HeaderValue, Response, Version};
    use http_body::Body;
    use http_body_util::{Empty, Full, StreamBody};

    use super::{are_asked_for, permitted, promise, promised};

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_the_head_decided_cannot_be_changed_at_the_end() {
        let mut trailers = fields(&[("grpc-status", "0"), ("etag", "\"a\""), ("x-sum", "1")]);
        for name in [
            "content-length",
            "transfer-encoding",
            "host",
            "location",
            "cache-control",
            "cdn-cache-control",
            "vary",
            "age",
            "authorization",
            "set-cookie",
            "content-type",
            "content-encoding",
            "trailer",
        ] {
            trailers.insert(name, HeaderValue::from_static("x"));
        }
        let left = permitted(trailers).unwrap();
        let mut names: Vec<&str> = left.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["etag", "grpc-status", "x-sum"]);
        assert!(permitted(fields(&[("set-cookie", "a=b")])).is_none());
    }

    #[test]
    fn only_what_may_come_is_promised() {
        let check = |lines: &[(&'static str, &'static str)], expected: Option<&str>| {
            let promised = promised(&fields(lines));
            let promised = promised.as_ref().map(|value| value.to_str().unwrap());
            assert_eq!(promised, expected, "{lines:?}");
        };
        check(&[], None);
        check(
            &[("trailer", "X-Sum , set-cookie"), ("trailer", "ETag")],
            Some("x-sum, etag"),
        );
        check(&[("trailer", "Content-Length")], None);
        check(&[("trailer", ", b@d,")], None);
    }

    #[test]
    fn a_promise_is_made_where_it_can_be_kept() {
        fn check(body: impl Body, version: Version, te: &'static str, expected: bool) {
            let mut response = Response::new(body);
            let stale = HeaderValue::from_static("x-stale");
            response.headers_mut().insert("trailer", stale);
            let promised = Some(HeaderValue::from_static("x-sum"));
            promise(&mut response, promised, version, &fields(&[("te", te)]));
            let made = response.headers().get("trailer");
            assert_eq!(made.is_some(), expected, "{version:?} {te}");
            assert!(made.is_none_or(|made| made == "x-sum"));
        }
        let streamed = || {
            let frames =
                futures_util::stream::empty::<Result<http_body::Frame<Bytes>, std::io::Error>>();
            StreamBody::new(frames)
        };
        check(streamed(), Version::HTTP_11, "gzip, Trailers", true);
        check(streamed(), Version::HTTP_11, "gzip", false);
        check(streamed(), Version::HTTP_10, "trailers", false);
        check(streamed(), Version::HTTP_2, "gzip", true);
        check(
            Full::new(Bytes::from_static(b"x")),
            Version::HTTP_2,
            "trailers",
            false,
        );
        check(Empty::<Bytes>::new(), Version::HTTP_2, "trailers", false);
    }

    #[test]
    fn trailers_are_asked_for_by_name() {
        let check = |te: &'static str, expected: bool| {
            assert_eq!(are_asked_for(&fields(&[("te", te)])), expected, "{te}");
        };
        check("trailers", true);
        check("deflate;q=0.5, TRAILERS", true);
        check("deflate", false);
        check("trailers;q=0", false);
    }
}
