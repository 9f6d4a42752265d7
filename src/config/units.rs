//! Quantities with a unit: durations, sizes, rates, shares.

use std::{
    num::{NonZeroU32, NonZeroU64},
    time::Duration,
};

use crate::telemetry::Sampling;

use super::value::TextValue;

// Longer is not meant: and sums of a time and a duration stay far from overflow.
const LONGEST_MILLIS: u64 = 36_500 * 86_400_000;

const DURATION_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

const SIZE_UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("B", 1),
    ("KB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
];

/// `"500ms"`, `"10s"`, `"1h30m"`.
impl TextValue for Duration {
    const EXPECTED: &'static str = r#"a duration such as "500ms", "10s", "5m", "1h30m" or "7d""#;

    fn parse(text: &str) -> Result<Self, String> {
        let mut millis: u64 = 0;
        let mut rest = Some(text);
        while let Some(parts) = rest {
            let (number, unit, after) = number_and_unit(parts)?;
            let (_, factor) = DURATION_UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(|| unknown_unit(unit, "ms, s, m, h and d"))?;
            millis = number
                .checked_mul(*factor)
                .and_then(|part| millis.checked_add(part))
                .filter(|sum| *sum <= LONGEST_MILLIS)
                .ok_or("longer than a hundred years")?;
            rest = Some(after).filter(|after| !after.is_empty());
        }
        Ok(Duration::from_millis(millis))
    }
}

/// A duration that is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timeout(pub(super) Duration);

impl TextValue for Timeout {
    const EXPECTED: &'static str = r#"a duration above zero, such as "500ms", "10s" or "5m""#;

    fn parse(text: &str) -> Result<Self, String> {
        match Duration::parse(text)? {
            Duration::ZERO => Err("this is zero".to_owned()),
            duration => Ok(Self(duration)),
        }
    }
}

/// A size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ByteSize(pub(super) u64);

impl TextValue for ByteSize {
    const EXPECTED: &'static str = r#"a size such as "64KB", "256MiB" or "10GiB""#;

    fn parse(text: &str) -> Result<Self, String> {
        let (number, unit, rest) = number_and_unit(text)?;
        if !rest.is_empty() {
            return Err(format!("`{rest}` after the unit"));
        }
        let (_, factor) = SIZE_UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .ok_or_else(|| unknown_unit(unit, "B, KB, KiB, MB, MiB, GB, GiB, TB and TiB"))?;
        // Signed 64 bits at most: what every file system and counter takes.
        number
            .checked_mul(*factor)
            .filter(|bytes| i64::try_from(*bytes).is_ok())
            .map(Self)
            .ok_or_else(|| "more than 8 EiB".to_owned())
    }
}

/// A size that is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget(pub(super) NonZeroU64);

impl TextValue for Budget {
    const EXPECTED: &'static str = r#"a size above zero, such as "64KB", "256MiB" or "10GiB""#;

    fn parse(text: &str) -> Result<Self, String> {
        let ByteSize(bytes) = ByteSize::parse(text)?;
        NonZeroU64::new(bytes)
            .map(Self)
            .ok_or_else(|| "this is zero".to_owned())
    }
}

/// `"100/s"`, or `"off"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate(pub(super) Option<NonZeroU32>);

impl TextValue for Rate {
    const EXPECTED: &'static str = r#"a rate such as "100/s", or "off""#;

    fn parse(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let (number, unit) = text.split_once('/').ok_or("no `/s` at its end")?;
        if unit != "s" {
            return Err(format!("`/{unit}` is not per second, `/s`"));
        }
        let per_second = number
            .parse::<u32>()
            .map_err(|_| format!("`{number}` is not a whole number below 2^32"))?;
        NonZeroU32::new(per_second)
            .map(|rate| Self(Some(rate)))
            .ok_or_else(|| r#"a rate of zero lets nobody in; "off" is no limit"#.to_owned())
    }
}

impl TextValue for Sampling {
    const EXPECTED: &'static str = r#""all", "none", or a share such as "1/100""#;

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "none" => return Ok(Sampling::None),
            "all" => return Ok(Sampling::OneIn(NonZeroU32::MIN)),
            _ => {}
        }
        let number = text.strip_prefix("1/").ok_or("none of these")?;
        number
            .parse::<NonZeroU32>()
            .map(Sampling::OneIn)
            .map_err(|_| format!("`{number}` is not a whole number from 1 up"))
    }
}

/// Splits the first number, its unit, and what follows.
fn number_and_unit(text: &str) -> Result<(u64, &str, &str), String> {
    let digits = end_of(text, |c| c.is_ascii_digit());
    if digits == 0 {
        return Err(if text.is_empty() {
            "this is empty".to_owned()
        } else {
            "it must start with a whole number".to_owned()
        });
    }
    let (number, rest) = text.split_at(digits);
    let (unit, after) = rest.split_at(end_of(rest, |c| !c.is_ascii_digit()));
    let number = number
        .parse()
        .map_err(|_| format!("`{number}` is too large"))?;
    Ok((number, unit, after))
}

fn end_of(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

fn unknown_unit(unit: &str, units: &str) -> String {
    if unit.is_empty() {
        format!("the unit is missing: {units}")
    } else {
        format!("`{unit}` is not a unit; units are {units}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: TextValue + std::fmt::Debug>(text: &str, expected: Result<&str, &str>) {
        match (T::parse(text), expected) {
            (Ok(value), Ok(expected)) => assert_eq!(format!("{value:?}"), expected, "{text:?}"),
            (Err(error), Err(part)) => assert!(error.contains(part), "{text:?}: {error}"),
            (result, _) => panic!("{text:?} gave {result:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn durations_have_units_and_may_be_compound() {
        check::<Duration>("500ms", Ok("500ms"));
        check::<Duration>("10s", Ok("10s"));
        check::<Duration>("1h30m", Ok("5400s"));
        check::<Duration>("7d", Ok("604800s"));
        check::<Duration>("0s", Ok("0ns"));
        check::<Duration>("", Err("empty"));
        check::<Duration>("10", Err("unit is missing"));
        check::<Duration>("10sec", Err("`sec` is not a unit"));
        check::<Duration>("-1s", Err("start with a whole number"));
        check::<Duration>("1.5s", Err("`.` is not a unit"));
        check::<Duration>("99999999999999999999s", Err("too large"));
        check::<Duration>("36501d", Err("hundred years"));
        check::<Timeout>("0ms", Err("zero"));
    }

    #[test]
    fn sizes_are_decimal_or_binary() {
        check::<ByteSize>("64KB", Ok("ByteSize(64000)"));
        check::<ByteSize>("256MiB", Ok("ByteSize(268435456)"));
        check::<ByteSize>("10gib", Ok("ByteSize(10737418240)"));
        check::<ByteSize>("1024", Ok("ByteSize(1024)"));
        check::<ByteSize>("0", Ok("ByteSize(0)"));
        check::<ByteSize>("1 MiB", Err("` MiB` is not a unit"));
        check::<ByteSize>("1M", Err("`M` is not a unit"));
        check::<ByteSize>("1KiB2", Err("`2` after the unit"));
        check::<ByteSize>("9999999TiB", Err("8 EiB"));
        check::<Budget>("0B", Err("zero"));
    }

    #[test]
    fn rates_and_shares_are_whole() {
        check::<Rate>("100/s", Ok("Rate(Some(100))"));
        check::<Rate>("off", Ok("Rate(None)"));
        check::<Rate>("0/s", Err("\"off\""));
        check::<Rate>("100/m", Err("per second"));
        check::<Rate>("fast", Err("no `/s`"));
        check::<Sampling>("all", Ok("OneIn(1)"));
        check::<Sampling>("1/100", Ok("OneIn(100)"));
        check::<Sampling>("none", Ok("None"));
        check::<Sampling>("1/0", Err("from 1 up"));
        check::<Sampling>("2/3", Err("none of these"));
    }
}
