//! What cannot be kept for later: a signature over the request is valid for a moment, and the gateway has nothing to make
//! another one with.

use crate::queue::Field;

/// Schemes of Authorization that sign this very request, now.
const SIGNING_SCHEMES: [&str; 4] = ["aws4-", "signature", "hawk", "digest"];

/// What signs the request of these fields, if anything does: HTTP message signatures (RFC 9421), DPoP (RFC 9449), or a scheme of
/// Authorization.
pub(super) fn signature(fields: &[Field]) -> Option<&'static str> {
    fields.iter().find_map(|(name, value)| match name.as_str() {
        "signature-input" => Some("the request is signed"),
        "dpop" => Some("the request proves the possession of a key"),
        "authorization" if is_signing(value) => Some("the credential signs the request"),
        _ => None,
    })
}

fn is_signing(credential: &[u8]) -> bool {
    SIGNING_SCHEMES.iter().any(|scheme| {
        let start = credential.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
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
            let fields = [(name.to_owned(), value.as_bytes().to_vec())];
            assert_eq!(signature(&fields).is_some(), is_signed, "{value}");
        }
    }
}
