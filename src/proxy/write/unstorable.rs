//! What cannot be kept for later: a signature over the request is valid for a moment, and the gateway has nothing to make
//! another one with.

use http::{HeaderMap, HeaderName, header};

/// Schemes of Authorization that sign this very request, now.
const SIGNING_SCHEMES: [&str; 4] = ["aws4-", "signature", "hawk", "digest"];

const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");
const DPOP: HeaderName = HeaderName::from_static("dpop");

/// What signs the request, if anything does: HTTP message signatures (RFC 9421), DPoP (RFC 9449), or a scheme of
/// Authorization.
pub(super) fn signature(headers: &HeaderMap) -> Option<&'static str> {
    if headers.contains_key(SIGNATURE_INPUT) {
        return Some("the request is signed");
    }
    if headers.contains_key(DPOP) {
        return Some("the request proves the possession of a key");
    }
    let scheme = headers.get(header::AUTHORIZATION)?.as_bytes();
    let signs = |known: &&str| {
        let start = scheme.get(..known.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(known.as_bytes()))
    };
    let is_signed = SIGNING_SCHEMES.iter().any(|known| signs(&known));
    is_signed.then_some("the credential signs the request")
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::signature;

    #[test]
    fn what_signs_this_very_request_is_known() {
        for (name, value, is_signed) in [
            ("authorization", "Bearer abc", false),
            ("authorization", "Basic abc", false),
            ("authorization", "AWS4-HMAC-SHA256 Credential=x", true),
            ("authorization", "Digest username=x", true),
            ("authorization", "Hawk id=x", true),
            ("signature-input", "sig1=()", true),
            ("dpop", "ey", true),
            ("x-signature", "abc", false),
        ] {
            let mut headers = HeaderMap::new();
            let name = HeaderName::from_static(name);
            headers.insert(name, HeaderValue::from_static(value));
            assert_eq!(signature(&headers).is_some(), is_signed, "{value}");
        }
    }
}
