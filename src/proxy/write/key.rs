//! Idempotency keys: a client's, or one that the gateway makes. A made key is on the first attempt already, or it would protect
//! nothing.

use http::{HeaderMap, HeaderValue};
use uuid::Builder;

use crate::queue::{Idempotency, KeyFormat, WriteSettings};

/// Keys are UUIDs and the like; a longer one is no key.
const KEY_MAX_BYTES: usize = 255;

/// The key of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// The key, without quotes.
    pub(super) text: String,
    /// Whether the client chose it.
    pub(super) is_clients: bool,
}

/// The client's key is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadKey {
    #[error("it is given more than once")]
    Repeated,
    #[error("it is not visible ASCII")]
    NotText,
    #[error("it is empty")]
    Empty,
    #[error("it is longer than {KEY_MAX_BYTES} bytes")]
    TooLong,
}

/// The key of a write with these fields; one that is made here is put into them.
///
/// # Errors
/// When the client's key cannot be one.
pub(super) fn take(
    headers: &mut HeaderMap,
    settings: &WriteSettings,
) -> Result<Option<Key>, BadKey> {
    if settings.idempotency == Idempotency::Off {
        return Ok(None);
    }
    let mut values = headers.get_all(&settings.idempotency_header).iter();
    match (values.next(), values.next()) {
        (Some(_), Some(_)) => return Err(BadKey::Repeated),
        (Some(value), None) => return of_client(value).map(Some),
        (None, _) => {}
    }
    if settings.idempotency == Idempotency::Pass {
        return Ok(None);
    }
    let text = made();
    let value = match settings.idempotency_format {
        KeyFormat::Structured => format!("\"{text}\""),
        KeyFormat::Raw => text.clone(),
    };
    let value = HeaderValue::try_from(value).expect("hexadecimal digits and quotes");
    headers.insert(settings.idempotency_header.clone(), value);
    Ok(Some(Key {
        text,
        is_clients: false,
    }))
}

fn of_client(value: &HeaderValue) -> Result<Key, BadKey> {
    let text = value.to_str().map_err(|_| BadKey::NotText)?.trim();
    let quoted = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    let text = quoted.unwrap_or(text);
    match text.len() {
        0 => Err(BadKey::Empty),
        1..=KEY_MAX_BYTES => Ok(Key {
            text: text.to_owned(),
            is_clients: true,
        }),
        _ => Err(BadKey::TooLong),
    }
}

/// A key that nobody has: a random UUID.
fn made() -> String {
    let mut random = [0; 16];
    // Without the system's randomness it is still unlikely to be anybody else's.
    if getrandom::fill(&mut random).is_err() {
        fastrand::fill(&mut random);
    }
    Builder::from_random_bytes(random).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::{BadKey, take};
    use crate::queue::{Idempotency, KeyFormat, WriteSettings};

    fn settings(idempotency: Idempotency, idempotency_format: KeyFormat) -> WriteSettings {
        WriteSettings {
            idempotency,
            idempotency_format,
            ..WriteSettings::default()
        }
    }

    fn headers(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("idempotency-key", HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_clients_key_is_understood_where_that_is_wanted() {
        let check =
            |idempotency, values: &[&'static str], expected: Result<Option<&str>, BadKey>| {
                let settings = settings(idempotency, KeyFormat::Structured);
                let found = take(&mut headers(values), &settings);
                let text = found.map(|key| key.map(|key| key.text));
                assert_eq!(
                    text,
                    expected.map(|text| text.map(str::to_owned)),
                    "{values:?}"
                );
            };
        check(Idempotency::Off, &["\"a\""], Ok(None));
        check(Idempotency::Pass, &[], Ok(None));
        check(Idempotency::Pass, &["\"a\""], Ok(Some("a")));
        check(Idempotency::Inject, &["a"], Ok(Some("a")));
        check(Idempotency::Pass, &["a", "a"], Err(BadKey::Repeated));
        check(Idempotency::Pass, &["\"\""], Err(BadKey::Empty));
    }

    #[test]
    fn a_made_key_is_sent_in_the_form_the_origin_reads() {
        for (format, is_quoted) in [(KeyFormat::Structured, true), (KeyFormat::Raw, false)] {
            let mut headers = HeaderMap::new();
            let key = take(&mut headers, &settings(Idempotency::Inject, format));
            let key = key.unwrap().unwrap();
            assert!(!key.is_clients);
            let sent = headers["idempotency-key"].to_str().unwrap();
            assert_eq!(sent.starts_with('"'), is_quoted);
            assert_eq!(sent.trim_matches('"'), key.text);
        }
    }
}
