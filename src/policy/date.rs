//! HTTP dates (RFC 9110 section 5.6.7): three forms in, one out.
//!
//! Lenient where nothing can be misread: the names of days, months and the zone in any case, and a day of the week that
//! is not the date's. Strict in everything else, as an invalid date has a meaning of its own (RFC 9111 section 5.3).

use std::time::SystemTime;

use http::HeaderValue;

use super::Timestamp;

/// The longest form: "Wednesday, 18-Aug-50 02:01:18 GMT".
const LONGEST: usize = 33;

const DAYS: [&str; 7] = [
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
];

const MONTHS: [&[u8]; 12] = [
    b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec",
];

/// The moment that a field value names in any of the three forms; allocates nothing.
pub(super) fn http_date(value: &(impl AsRef<[u8]> + ?Sized)) -> Option<Timestamp> {
    let text = value.as_ref().trim_ascii();
    let mut buffer = [0; LONGEST];
    let lower = buffer.get_mut(..text.len())?;
    lower.copy_from_slice(text);
    lower.make_ascii_lowercase();
    let (day_name, rest) = lower.split_at(lower.iter().position(|byte| b", ".contains(byte))?);
    let is_day = |name: &&str| name.as_bytes() == day_name;
    let is_short_day = DAYS.iter().any(|name| is_day(&&name[..3]));
    if is_short_day {
        imf_fixdate(rest).or_else(|| asctime(rest))
    } else {
        DAYS.iter().find(|name| is_day(name))?;
        rfc850(rest)
    }
}

/// The moment as an IMF-fixdate; clamped to the years it can express.
pub(super) fn format_http_date(moment: Timestamp) -> HeaderValue {
    const LAST_SECOND_OF_9999: i64 = 253_402_300_799;
    let secs = moment.as_secs().clamp(0, LAST_SECOND_OF_9999);
    let text = httpdate::fmt_http_date(SystemTime::from(Timestamp::from_secs(secs)));
    HeaderValue::try_from(text).expect("an IMF-fixdate is ASCII")
}

/// `, 06 nov 1994 08:49:37 gmt`
fn imf_fixdate(text: &[u8]) -> Option<Timestamp> {
    let text = text.strip_prefix(b", ")?.strip_suffix(b" gmt")?;
    let [
        d1,
        d2,
        b' ',
        m1,
        m2,
        m3,
        b' ',
        y1,
        y2,
        y3,
        y4,
        b' ',
        time @ ..,
    ] = text
    else {
        return None;
    };
    let year = number(&[*y1, *y2, *y3, *y4])?;
    moment(year, &[*m1, *m2, *m3], number(&[*d1, *d2])?, time)
}

/// `, 06-nov-94 08:49:37 gmt`
fn rfc850(text: &[u8]) -> Option<Timestamp> {
    let text = text.strip_prefix(b", ")?.strip_suffix(b" gmt")?;
    let [d1, d2, b'-', m1, m2, m3, b'-', y1, y2, b' ', time @ ..] = text else {
        return None;
    };
    // Years up to 50 ahead are meant (RFC 9110 section 5.6.7); without a clock, those since the epoch.
    let year = match number(&[*y1, *y2])? {
        year if year < 70 => 2_000 + year,
        year => 1_900 + year,
    };
    moment(year, &[*m1, *m2, *m3], number(&[*d1, *d2])?, time)
}

/// ` nov  6 08:49:37 1994`
fn asctime(text: &[u8]) -> Option<Timestamp> {
    let [b' ', m1, m2, m3, b' ', d1, d2, b' ', rest @ ..] = text else {
        return None;
    };
    let (time, year) = rest.split_at_checked(8)?;
    let year = year.strip_prefix(b" ").filter(|year| year.len() == 4)?;
    let tens = if *d1 == b' ' { b'0' } else { *d1 };
    moment(number(year)?, &[*m1, *m2, *m3], number(&[tens, *d2])?, time)
}

/// `time` is `08:49:37`; a leap second is the one before it.
fn moment(year: i64, month: &[u8; 3], day: i64, time: &[u8]) -> Option<Timestamp> {
    let month = MONTHS.iter().position(|name| *name == month)?;
    let [h1, h2, b':', m1, m2, b':', s1, s2] = time else {
        return None;
    };
    let (hour, minute) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
    let second = number(&[*s1, *s2])?;
    if day < 1 || day > days_in(year, month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_before(year, month) + day - 1;
    let secs = ((days * 24 + hour) * 60 + minute) * 60 + second.min(59);
    Some(Timestamp::from_secs(secs))
}

/// Digits only.
fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |value, byte| {
        let digit = char::from(*byte).to_digit(10)?;
        Some(value * 10 + i64::from(digit))
    })
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// `month` counts from 0.
fn days_in(year: i64, month: usize) -> i64 {
    match month {
        1 if is_leap(year) => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

/// Days from the UNIX epoch to the first of the month, in the Gregorian calendar; negative before it.
fn days_before(year: i64, month: usize) -> i64 {
    const LEAP_YEARS_BEFORE_1970: i64 = 477;
    let past = year - 1;
    let leap_years =
        past.div_euclid(4) - past.div_euclid(100) + past.div_euclid(400) - LEAP_YEARS_BEFORE_1970;
    let months: i64 = (0..month).map(|month| days_in(year, month)).sum();
    (year - 1_970) * 365 + leap_years + months
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::{Timestamp, format_http_date, http_date};

    #[test]
    fn three_forms_are_read_and_nothing_else() {
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("sun, 06 nOV 1994 08:49:37 gmt", Some(784_111_777)),
            ("Mon, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Wed, 31 Dec 1969 23:59:59 GMT", Some(-1)),
            ("Thu, 29 Feb 2024 00:00:00 GMT", Some(1_709_164_800)),
            ("Sat, 31 Dec 2016 23:59:60 GMT", Some(1_483_228_799)),
            ("Wed, 29 Feb 2023 00:00:00 GMT", None),
            ("Sun, 00 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 24:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37 +0000", None),
            ("Sun, 06 Nov 1994 08:49:37", None),
            ("Sunday, 06 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06-Nov-94 08:49:37 GMT", None),
            ("Xyz, 06 Nov 1994 08:49:37 GMT", None),
            ("Sun Nov 6 08:49:37 1994", None),
            ("784111777", None),
            ("-1", None),
            ("", None),
        ] {
            let value = HeaderValue::from_static(text);
            let found = http_date(&value).map(Timestamp::as_secs);
            assert_eq!(found, expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_date_survives_its_text(secs in 0_i64..253_402_300_799) {
            let moment = Timestamp::from_secs(secs);
            prop_assert_eq!(http_date(&format_http_date(moment)), Some(moment));
        }

        #[test]
        fn the_calendar_is_that_of_httpdate(text in "(Mon|Thu), [0-3][0-9] (Jan|Feb|Nov) [0-9]{4} 0[0-9]:00:00 GMT") {
            let Ok(theirs) = httpdate::parse_http_date(&text) else { return Ok(()) };
            let ours = http_date(&HeaderValue::try_from(text).unwrap());
            prop_assert_eq!(ours.map(SystemTime::from), Some(theirs));
        }

        #[test]
        fn no_text_makes_it_panic(text in proptest::collection::vec(0x20_u8..0xff, 0..40)) {
            if let Ok(value) = HeaderValue::from_bytes(&text) {
                let _ = http_date(&value);
            }
        }
    }
}
