//! The time that a log line says, `2025-11-21T11:28:55.775347Z`, written by hand: every line has one.

use std::time::Duration;

use crate::policy::civil_from_days;

const SECS_PER_DAY: u64 = 86_400;

/// A moment as text.
pub(super) struct Stamp([u8; Stamp::BYTES]);

impl Stamp {
    const BYTES: usize = 27;

    /// So long after the UNIX epoch. Beyond the year 9999 the first digit of the year is missing.
    pub(super) fn new(since_epoch: Duration) -> Self {
        let secs = since_epoch.as_secs();
        let days = i64::try_from(secs / SECS_PER_DAY).unwrap_or(i64::MAX);
        let (year, month, day) = civil_from_days(days);
        let of_day = secs % SECS_PER_DAY;
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        for (at, digits, value) in [
            (0, 4, year.unsigned_abs()),
            (5, 2, month.unsigned_abs()),
            (8, 2, day.unsigned_abs()),
            (11, 2, of_day / 3_600),
            (14, 2, of_day / 60 % 60),
            (17, 2, of_day % 60),
            (20, 6, u64::from(since_epoch.subsec_micros())),
        ] {
            write_digits(&mut text[at..at + digits], value);
        }
        Self(text)
    }

    /// As text.
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("digits and punctuation")
    }
}

/// The last digits of `value`, as many as there is room for.
fn write_digits(room: &mut [u8], mut value: u64) {
    for digit in room.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Stamp;

    #[test]
    fn a_moment_is_written_with_six_digits_of_a_second() {
        for (secs, micros, expected) in [
            (0, 0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, 999_999, "2000-02-28T23:59:59.999999Z"),
            (1_763_724_535, 75_347, "2025-11-21T11:28:55.075347Z"),
            (4_107_542_400, 1, "2100-03-01T00:00:00.000001Z"),
        ] {
            let since_epoch = Duration::new(secs, micros * 1_000);
            assert_eq!(Stamp::new(since_epoch).as_str(), expected);
        }
    }
}
