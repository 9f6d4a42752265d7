//! What a client prefers (RFC 7240), as far as it concerns writes and receipts.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

/// The field.
const PREFER: HeaderName = HeaderName::from_static("prefer");
/// What of it was done.
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Nobody is kept waiting longer.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What a client prefers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Preferences {
    /// `respond-async`: rather a receipt than an answer.
    pub(crate) respond_async: bool,
    /// `wait`: how long it would wait for the answer, at most a minute.
    pub(crate) wait: Option<Duration>,
}

impl Preferences {
    /// Of a request. Of a preference that is said twice the first counts; what is not understood is ignored.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        let lines = headers.get_all(PREFER).iter();
        let members = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        for member in members {
            // Parameters of a preference come after a semicolon.
            let preference = member.split(|byte| *byte == b';').next();
            let Ok(preference) = std::str::from_utf8(preference.unwrap_or_default()) else {
                continue;
            };
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "respond-async" => found.respond_async = true,
                "wait" if found.wait.is_none() => found.wait = wait(value),
                _ => {}
            }
        }
        found
    }

    /// What to say of what was done.
    pub(crate) fn applied(self) -> Option<String> {
        let wait = self.wait.map(|wait| format!("wait={}", wait.as_secs()));
        let respond_async = self.respond_async.then(|| "respond-async".to_owned());
        let applied: Vec<String> = respond_async.into_iter().chain(wait).collect();
        (!applied.is_empty()).then(|| applied.join(", "))
    }
}

fn wait(value: &str) -> Option<Duration> {
    let secs: u64 = value.trim().trim_matches('"').parse().ok()?;
    Some(Duration::from_secs(secs).min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::Preferences;

    #[test]
    fn preferences_are_read_as_far_as_they_are_understood() {
        for (lines, respond_async, wait_secs, applied) in [
            (&[][..], false, None, None),
            (&["respond-async"], true, None, Some("respond-async")),
            (
                &["respond-async, wait=10"],
                true,
                Some(10),
                Some("respond-async, wait=10"),
            ),
            (&["Wait = \"7\"; x=1"], false, Some(7), Some("wait=7")),
            (&["wait=600"], false, Some(60), Some("wait=60")),
            (&["wait=5", "wait=9"], false, Some(5), Some("wait=5")),
            (&["wait=soon, return=minimal"], false, None, None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("prefer", HeaderValue::from_static(line));
            }
            let found = Preferences::of(&headers);
            assert_eq!(found.respond_async, respond_async, "{lines:?}");
            let secs = found.wait.map(|wait| wait.as_secs());
            assert_eq!(secs, wait_secs, "{lines:?}");
            assert_eq!(found.applied().as_deref(), applied, "{lines:?}");
        }
    }
}
