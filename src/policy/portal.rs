//! Captive portals: networks that answer in an origin's place until somebody logs in. Their answers say nothing of the origin.

use http::{HeaderMap, header};

/// What makes an answer look like a captive portal's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// 511 (RFC 6585 section 6).
    NetworkAuthentication,
    /// A redirect to another host or scheme.
    RedirectElsewhere,
    /// HTML, where the route's answers are not.
    Html,
}

/// Why an answer with this status and these fields, to a request for `url`, looks like a captive portal's. HTML counts with a
/// success or a refusal; whether the origin's own answers may be HTML is the caller's to know.
pub fn suspicion(status: u16, headers: &HeaderMap, url: &str) -> Option<Suspicion> {
    match status {
        511 => Some(Suspicion::NetworkAuthentication),
        301 | 302 | 303 | 307 | 308 if leads_elsewhere(headers, url) => {
            Some(Suspicion::RedirectElsewhere)
        }
        200..=299 | 400..=499 if has_html(headers) => Some(Suspicion::Html),
        _ => None,
    }
}

/// Whether a request asks for HTML by name; `*/*` does not.
pub fn accepts_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(is_html)
}

impl Suspicion {
    /// As a sentence about what answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NetworkAuthentication => "it answered 511",
            Self::RedirectElsewhere => "it redirected to another host or scheme",
            Self::Html => "it answered with HTML, which this route's answers are not",
        }
    }
}

fn has_html(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    let media_type = content_type.and_then(|value| value.to_str().ok());
    media_type.is_some_and(is_html)
}

/// Whether a media type, parameters and all, is HTML or XHTML.
fn is_html(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("text/html")
        || essence.eq_ignore_ascii_case("application/xhtml+xml")
}

/// Whether a redirect names another host or scheme than the request went to.
fn leads_elsewhere(headers: &HeaderMap, url: &str) -> bool {
    let Some(location) = headers.get(header::LOCATION) else {
        return false;
    };
    let location = String::from_utf8_lossy(location.as_bytes());
    let (scheme, host) = scheme_and_host(location.trim());
    let (our_scheme, our_host) = scheme_and_host(url);
    let differs = |theirs: Option<&str>, ours: Option<&str>| {
        theirs.is_some_and(|theirs| !ours.is_some_and(|ours| theirs.eq_ignore_ascii_case(ours)))
    };
    differs(scheme, our_scheme) || differs(host, our_host)
}

/// The scheme and the host that a URI reference names (RFC 3986 section 4.1), as far as it does.
fn scheme_and_host(reference: &str) -> (Option<&str>, Option<&str>) {
    let hierarchy_at = reference.find(['/', '?', '#']).unwrap_or(reference.len());
    let (scheme, rest) = match reference.find(':') {
        Some(colon) if colon < hierarchy_at => (Some(&reference[..colon]), &reference[colon + 1..]),
        _ => (None, reference),
    };
    let host = rest.strip_prefix("//").map(|rest| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host_and_port = authority.rsplit('@').next().unwrap_or_default();
        match host_and_port.find(']') {
            Some(end) => &host_and_port[..=end],
            None => host_and_port.split(':').next().unwrap_or_default(),
        }
    });
    (scheme, host)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{Suspicion, accepts_html, suspicion};

    fn check(status: u16, field: (&'static str, &'static str), expected: Option<Suspicion>) {
        let name = HeaderName::from_static(field.0);
        let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(field.1))]);
        let found = suspicion(status, &headers, "http://api.example:8080/orders");
        assert_eq!(found, expected, "{status} {field:?}");
    }

    #[test]
    fn what_a_portal_answers_is_known() {
        let html = ("content-type", "text/html; charset=utf-8");
        for status in [200, 204, 299, 400, 404, 429] {
            check(status, html, Some(Suspicion::Html));
            check(status, ("content-type", "application/json"), None);
        }
        for status in [301, 302, 303, 307, 308] {
            let elsewhere = Some(Suspicion::RedirectElsewhere);
            check(status, ("location", "http://login.example/"), elsewhere);
            check(status, ("location", "//login.example"), elsewhere);
            check(status, ("location", "https://api.example/"), elsewhere);
            check(status, ("location", "/login"), None);
            check(status, ("location", "http://API.example/login"), None);
        }
        check(511, html, Some(Suspicion::NetworkAuthentication));
        check(500, html, None);
        check(304, html, None);
    }

    #[test]
    fn only_who_names_html_asks_for_it() {
        let accepts = |value: &'static str| {
            let value = HeaderValue::from_static(value);
            accepts_html(&HeaderMap::from_iter([(http::header::ACCEPT, value)]))
        };
        assert!(accepts("application/json, text/html;q=0.5"));
        assert!(accepts("APPLICATION/XHTML+XML"));
        assert!(!accepts("*/*") && !accepts("text/*") && !accepts("application/json"));
        assert!(!accepts_html(&HeaderMap::new()));
    }
}
