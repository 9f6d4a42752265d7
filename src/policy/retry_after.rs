//! `Retry-After`: how long an origin asks to be left alone.

use std::time::Duration;

use http::{HeaderMap, header};

use super::{Timestamp, date::http_date};

/// How long the origin asks to be left alone (RFC 9110 section 10.2.3), in either form. Never shortened. A date is measured from
/// the answer's own `Date`, so that it does not matter how wrong our clock is; without one, from `now`.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?;
    let text = value.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a u64 has is as long as can be said.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let answered = headers.get(header::DATE).and_then(http_date);
    let wait = http_date(value)?.millis_since(answered.unwrap_or(now));
    u64::try_from(wait).ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, HeaderValue, header};

    use super::retry_after;
    use crate::policy::Timestamp;

    const NOW: Timestamp = Timestamp::from_secs(784_111_777);

    fn check(fields: &[(header::HeaderName, &'static str)], expected_secs: Option<u64>) {
        let fields = fields.iter().cloned();
        let headers = fields.map(|(name, text)| (name, HeaderValue::from_static(text)));
        let found = retry_after(&headers.collect::<HeaderMap>(), NOW);
        assert_eq!(found, expected_secs.map(Duration::from_secs));
    }

    #[test]
    fn a_wish_to_be_left_alone_is_never_shortened() {
        for (text, expected_secs) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("31536000", Some(31_536_000)),
            ("18446744073709551615", Some(u64::MAX)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", None),
            ("", None),
            ("-1", None),
            ("+5", None),
            ("1.5", None),
            ("soon", None),
        ] {
            check(&[(header::RETRY_AFTER, text)], expected_secs);
        }
        check(&[], None);
    }

    #[test]
    fn a_date_is_measured_by_the_clock_of_who_wrote_it() {
        let date = (header::DATE, "Sun, 06 Nov 2033 08:00:00 GMT");
        let until = (header::RETRY_AFTER, "Sun, 06 Nov 2033 08:01:00 GMT");
        check(&[date, until], Some(60));
    }
}
