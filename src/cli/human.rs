//! Sizes, times and counts for people.

const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// Bytes with a binary unit: `1.5 KiB`.
pub(super) fn size(bytes: u64) -> String {
    let mut unit = 0;
    let mut value = bytes as f64;
    // Not 1024: what would be rounded to 1024.0 belongs to the next unit.
    while value >= 1_023.95 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ if value >= 100.0 => format!("{value:.0} {}", UNITS[unit]),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

/// Seconds in the two largest units that matter: `1h 5m`.
pub(super) fn duration(secs: u64) -> String {
    let (days, hours) = (secs / 86_400, secs / 3_600 % 24);
    let (minutes, seconds) = (secs / 60 % 60, secs % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => two(minutes, "m", seconds, "s"),
        (0, _, _) => two(hours, "h", minutes, "m"),
        _ => two(days, "d", hours, "h"),
    }
}

fn two(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 {
        return format!("{large}{large_unit}");
    }
    format!("{large}{large_unit} {small}{small_unit}")
}

/// Seconds with a sign.
pub(super) fn signed_duration(secs: i64) -> String {
    let sign = if secs < 0 { "-" } else { "" };
    format!("{sign}{}", duration(secs.unsigned_abs()))
}

/// `1 stored response`, `2 stored responses`.
pub(super) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::{count, duration, signed_duration, size};

    #[test]
    fn sizes_have_binary_units() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            (102_400, "100 KiB"),
            (1_048_575, "1.0 MiB"),
            (256 << 20, "256 MiB"),
            (10 << 30, "10.0 GiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(size(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn durations_have_their_two_largest_units() {
        for (secs, expected) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (192, "3m 12s"),
            (3_600, "1h"),
            (3_659, "1h"),
            (7_500, "2h 5m"),
            (86_400, "1d"),
            (356_400, "4d 3h"),
        ] {
            assert_eq!(duration(secs), expected, "{secs}");
        }
        assert_eq!(signed_duration(-192), "-3m 12s");
        assert_eq!(
            signed_duration(i64::MIN),
            format!("-{}", duration(i64::MIN.unsigned_abs()))
        );
    }

    #[test]
    fn one_is_singular() {
        assert_eq!(count(1, "entry"), "1 entry");
        assert_eq!(count(0, "upstream"), "0 upstreams");
    }
}
