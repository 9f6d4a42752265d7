//! Until when an override holds, and why: what every override has in common.

use super::{problem::Problem, text};
use crate::policy::Timestamp;

// A sentence, not a document: it is kept in memory and shown in lists.
const MAX_REASON_CHARS: usize = 500;

/// The end of an override from `for` or `until`; `None`, without either: when it is taken back.
pub(super) fn until(
    duration: Option<&str>,
    until: Option<&str>,
    now: Timestamp,
) -> Result<Option<Timestamp>, Problem> {
    let end = match (duration, until) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(Problem::bad_request(
                "give either `for` or `until`, not both",
            ));
        }
        (Some(duration), None) => text::parse_duration(duration).map(|duration| now.plus(duration)),
        (None, Some(until)) => text::parse_rfc3339(until),
    };
    match end {
        None => Err(Problem::bad_request(
            "`for` is a duration such as `30m` or `1h30m`, `until` a time such as `2030-01-31T08:00:00Z`",
        )),
        Some(end) if end <= now => Err(Problem::bad_request("`until` is in the past")),
        end => Ok(end),
    }
}

/// The reason as it was given, unless it is too long to keep.
pub(super) fn reason(reason: Option<String>) -> Result<Option<String>, Problem> {
    let too_long = reason
        .as_ref()
        .is_some_and(|reason| reason.chars().count() > MAX_REASON_CHARS);
    if too_long {
        return Err(Problem::bad_request(format!(
            "`reason` may have {MAX_REASON_CHARS} characters"
        )));
    }
    Ok(reason)
}

#[cfg(test)]
mod tests {
    use super::{MAX_REASON_CHARS, reason, until};
    use crate::policy::Timestamp;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    #[test]
    fn an_override_ends_when_one_of_two_fields_says() {
        for (duration, time, expected) in [
            (None, None, Some(None)),
            (Some("30m"), None, Some(Some(2_800))),
            (None, Some("1970-01-01T00:16:41Z"), Some(Some(1_001))),
            (None, Some("1970-01-01T00:16:40Z"), None),
            (Some("30"), None, None),
            (None, Some("soon"), None),
            (Some("30m"), Some("1970-01-01T00:16:41Z"), None),
        ] {
            let found = until(duration, time, NOW).ok();
            let expected = expected.map(|end: Option<i64>| end.map(Timestamp::from_secs));
            assert_eq!(found, expected, "{duration:?} {time:?}");
        }
    }

    #[test]
    fn a_reason_is_a_sentence() {
        let longest = "\u{e9}".repeat(MAX_REASON_CHARS);
        assert_eq!(
            reason(Some(longest.clone())).ok(),
            Some(Some(longest.clone()))
        );
        assert!(reason(Some(longest + "!")).is_err());
    }
}
