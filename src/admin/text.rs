//! Times and durations as the API writes and reads them: RFC 3339, and numbers with units.

use std::time::Duration;

use crate::policy::{Timestamp, civil_from_days};

const SECS_PER_DAY: i64 = 86_400;
// A longer override is a configuration.
const MAX_DURATION_SECS: u64 = 366 * 86_400;

/// RFC 3339 in UTC, whole seconds, rounded down: `2025-11-21T11:28:55Z`.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    time.rfc3339()
}

/// Reads RFC 3339 with `Z` or an offset; fractions of a second are dropped.
pub(super) fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = rest.split_at(zone_at);
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    // A leap second counts as the second after it.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_from_civil(year, month, day);
    if civil_from_days(days) != (year, month, day) {
        return None;
    }
    let secs = days * SECS_PER_DAY + hour * 3_600 + minute * 60 + second;
    Some(Timestamp::from_secs(secs - offset_secs(zone)?))
}

fn offset_secs(zone: &str) -> Option<i64> {
    let sign = match zone.as_bytes() {
        [b'Z' | b'z'] => return Some(0),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        _ => return None,
    };
    let [hours, minutes] = numbers(zone.get(1..)?, ':', [2, 2])?;
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3_600 + minutes * 60))
}

/// Exactly `N` numbers of these widths.
fn numbers<const N: usize>(text: &str, separator: char, widths: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut found = [0; N];
    for (number, width) in found.iter_mut().zip(widths) {
        let part = parts.next()?;
        if part.len() != width || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar. Years are counted from March, so that the leap
/// day is the last of its year.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Reads a duration such as `90s`, `30m`, `1h30m`, `7d`; more than zero, at most 366 days.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut secs = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|found: char| !found.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit_secs = match rest.as_bytes()[digits] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3_600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return None,
        };
        secs = secs.checked_add(number.checked_mul(unit_secs)?)?;
        rest = &rest[digits + 1..];
    }
    (1..=MAX_DURATION_SECS)
        .contains(&secs)
        .then(|| Duration::from_secs(secs))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;

    use super::{parse_duration, parse_rfc3339, rfc3339};
    use crate::policy::Timestamp;

    #[test]
    fn times_are_written_in_rfc_3339() {
        for (secs, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_763_724_535, "2025-11-21T11:28:55Z"),
        ] {
            assert_eq!(rfc3339(Timestamp::from_secs(secs)), expected);
        }
    }

    #[test]
    fn times_are_read_with_offsets_and_nothing_else_is() {
        for (text, expected) in [
            ("2025-11-21T11:28:55Z", Some(1_763_724_535)),
            ("2025-11-21t11:28:55.999z", Some(1_763_724_535)),
            ("2025-11-21 12:28:55+01:00", Some(1_763_724_535)),
            ("2025-11-21T05:58:55-05:30", Some(1_763_724_535)),
            ("2025-02-29T00:00:00Z", None),
            ("2025-13-01T00:00:00Z", None),
            ("2025-11-21T24:00:00Z", None),
            ("2025-11-21T11:28:55", None),
            ("2025-11-21T11:28:55.Z", None),
            ("2025-11-21", None),
            ("tomorrow", None),
            ("", None),
            ("2025-11-21T11:28:55+0100", None),
            ("2025-11-21T11:28:55\u{1f552}", None),
        ] {
            assert_eq!(
                parse_rfc3339(text),
                expected.map(Timestamp::from_secs),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn the_calendar_agrees_with_http_dates(secs in 0_i64..253_402_300_799) {
            let time = Timestamp::from_secs(secs);
            let text = rfc3339(time);
            prop_assert_eq!(parse_rfc3339(&text), Some(time));
            let http = httpdate::fmt_http_date(SystemTime::from(time));
            prop_assert_eq!(&text[..4], &http[12..16]);
            prop_assert_eq!(&text[8..10], &http[5..7]);
            prop_assert_eq!(&text[11..19], &http[17..25]);
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in "\\PC{0,24}") {
            let _ = parse_rfc3339(&text);
            let _ = parse_duration(&text);
        }
    }

    #[test]
    fn durations_have_units() {
        for (text, expected) in [
            ("90s", Some(90)),
            ("30m", Some(1_800)),
            ("1h30m", Some(5_400)),
            ("2d", Some(172_800)),
            ("1w", Some(604_800)),
            ("30", None),
            ("", None),
            ("0s", None),
            ("m", None),
            ("-5m", None),
            ("5 m", None),
            ("1.5h", None),
            ("9999d", None),
            ("99999999999999999999d", None),
            ("5ö", None),
        ] {
            assert_eq!(
                parse_duration(text),
                expected.map(Duration::from_secs),
                "{text}"
            );
        }
    }
}
