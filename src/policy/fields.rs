//! The grammar that cache fields share: lists, quoted strings, delta-seconds, weights.
//!
//! Everything works on the bytes of one field line and allocates nothing: request fields are read on the way of a hit.
//! Each function takes time linear in its input, whatever a client or an origin sends.

use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};

/// The fields of a message, whichever way they are kept.
pub trait FieldLines {
    /// The values of this name, in their order.
    fn lines(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]>;
}

impl FieldLines for HeaderMap {
    fn lines(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        self.get_all(name).iter().map(HeaderValue::as_bytes)
    }
}

/// The largest delta-seconds a cache calculates with (RFC 9111 section 1.2.2): larger values mean this one.
pub(super) const DELTA_SECONDS_MAX: u32 = 1 << 31;

/// The members of one line of a list field: split at commas outside quoted strings, trimmed, empty ones left out.
///
/// A quote without its closing one is an ordinary character, so that `x="a, no-store` cannot hide the rest of the line.
pub(super) fn members(line: &[u8]) -> Members<'_> {
    Members {
        rest: Some(line),
        quotes: Quotes::Escaping,
    }
}

/// The members of one line of entity tags, in which a backslash escapes nothing (RFC 9110 section 8.8.3).
pub(super) fn entity_tag_members(line: &[u8]) -> Members<'_> {
    Members {
        rest: Some(line),
        quotes: Quotes::Verbatim,
    }
}

/// The members of every line of a list field.
pub(super) fn all_members<'a>(
    fields: &'a impl FieldLines,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> {
    fields.lines(name).flat_map(members)
}

/// Whether the content is of this media type, given in lower case, whatever its parameters.
pub(super) fn has_media_type(fields: &impl FieldLines, name: &[u8]) -> bool {
    fields.lines(&CONTENT_TYPE).next().is_some_and(|value| {
        let media_type = value.split(|byte| *byte == b';').next();
        media_type.is_some_and(|own| own.trim_ascii().eq_ignore_ascii_case(name))
    })
}

/// See [`members`].
pub(super) struct Members<'a> {
    rest: Option<&'a [u8]>,
    quotes: Quotes,
}

/// What a quote means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    /// It opens a string in which a backslash escapes.
    Escaping,
    /// It opens a string without escapes.
    Verbatim,
    /// Nothing: an earlier one had no end, so this one has none either, and looking for it again and again would take
    /// quadratic time.
    Ordinary,
}

impl<'a> Members<'a> {
    fn next_raw(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let mut at = 0;
        while at < rest.len() {
            match rest[at] {
                b',' => {
                    self.rest = Some(&rest[at + 1..]);
                    return Some(&rest[..at]);
                }
                b'"' if self.quotes != Quotes::Ordinary => match self.quoted_end(&rest[at..]) {
                    Some(length) => at += length,
                    None => {
                        self.quotes = Quotes::Ordinary;
                        at += 1;
                    }
                },
                _ => at += 1,
            }
        }
        self.rest = None;
        Some(rest)
    }

    fn quoted_end(&self, text: &[u8]) -> Option<usize> {
        match self.quotes {
            Quotes::Escaping => quoted_end(text),
            Quotes::Verbatim => Some(text[1..].iter().position(|byte| *byte == b'"')? + 2),
            Quotes::Ordinary => None,
        }
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let member = self.next_raw()?.trim_ascii();
            if !member.is_empty() {
                return Some(member);
            }
        }
    }
}

/// The length of the quoted string at the start of `text`, both quotes included.
fn quoted_end(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    None
}

/// What is between the quotes, if `text` is exactly one quoted string.
pub(super) fn unquoted(text: &[u8]) -> Option<&[u8]> {
    let whole = text.first() == Some(&b'"') && quoted_end(text) == Some(text.len());
    whole.then(|| &text[1..text.len() - 1])
}

/// A non-negative integer of seconds, capped at [`DELTA_SECONDS_MAX`]; `None` for anything else.
pub(super) fn delta_seconds(text: &[u8]) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    let mut seconds: u32 = 0;
    for byte in text {
        let digit = char::from(*byte).to_digit(10)?;
        seconds = seconds
            .saturating_mul(10)
            .saturating_add(digit)
            .min(DELTA_SECONDS_MAX);
    }
    Some(seconds)
}

/// The weight of a list member in thousandths (RFC 9110 section 12.4.2), and the member without it; `None` when what
/// looks like a weight is not one.
pub(super) fn weighted(member: &[u8]) -> Option<(&[u8], u16)> {
    let Some(semicolon) = member.iter().position(|byte| *byte == b';') else {
        return Some((member, 1_000));
    };
    let parameter = member[semicolon + 1..].trim_ascii();
    let weight = parameter
        .strip_prefix(b"q=")
        .or_else(|| parameter.strip_prefix(b"Q="))?;
    Some((member[..semicolon].trim_ascii(), thousandths(weight)?))
}

fn thousandths(weight: &[u8]) -> Option<u16> {
    let (whole, fraction) = match weight {
        [whole @ (b'0' | b'1')] => (*whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', fraction @ ..] if fraction.len() <= 3 => (*whole, fraction),
        _ => return None,
    };
    let mut value = u16::from(whole - b'0') * 1_000;
    for (digit, unit) in fraction.iter().zip([100, 10, 1]) {
        value += u16::try_from(char::from(*digit).to_digit(10)?).ok()? * unit;
    }
    (value <= 1_000).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::{delta_seconds, entity_tag_members, members, unquoted, weighted};

    fn list(line: &str) -> Vec<&str> {
        members(line.as_bytes())
            .map(|member| std::str::from_utf8(member).unwrap())
            .collect()
    }

    #[test]
    fn members_are_split_at_commas_outside_quotes() {
        assert_eq!(list("a, b ,c"), ["a", "b", "c"]);
        assert_eq!(list(" , ,a,,"), ["a"]);
        assert_eq!(list(""), [""; 0]);
        assert_eq!(list(r#"a="b, c", d"#), [r#"a="b, c""#, "d"]);
        assert_eq!(list(r#"a="b\", c", d"#), [r#"a="b\", c""#, "d"]);
        // Without its end a quote is nothing special.
        assert_eq!(list(r#"a="b, c"#), [r#"a="b"#, "c"]);
        assert_eq!(list(r#""a, b", "c, d"#), [r#""a, b""#, r#""c"#, "d"]);
        let tags: Vec<&[u8]> = entity_tag_members(br#""a\", W/"b,c", d"#).collect();
        assert_eq!(tags, [&br#""a\""#[..], br#"W/"b,c""#, b"d"]);
    }

    #[test]
    fn a_line_of_escaped_quotes_takes_linear_time() {
        // Looked for anew at each of them, the missing end would take 10^12 steps.
        let line = r#"\""#.repeat(2_000_000);
        assert_eq!(members(line.as_bytes()).count(), 1);
    }

    #[test]
    fn numbers_are_digits_and_nothing_else() {
        for (text, expected) in [
            ("0", Some(0)),
            ("003600", Some(3_600)),
            ("2147483647", Some(2_147_483_647)),
            ("2147483648", Some(2_147_483_648)),
            ("99999999999999999999999", Some(2_147_483_648)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.0", None),
            ("1 ", None),
            ("1s", None),
        ] {
            assert_eq!(delta_seconds(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn weights_are_thousandths() {
        for (text, expected) in [
            ("de", Some(("de", 1_000))),
            ("de;q=0.5", Some(("de", 500))),
            ("de ; Q=0.123", Some(("de", 123))),
            ("de;q=1.000", Some(("de", 1_000))),
            ("de;q=0", Some(("de", 0))),
            ("de;q=1.001", None),
            ("de;q=2", None),
            ("de;q=0.1234", None),
            ("de;q=.5", None),
            ("de;q=", None),
            ("de;level=1", None),
        ] {
            let expected = expected.map(|(name, weight)| (name.as_bytes(), weight));
            assert_eq!(weighted(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn only_a_whole_quoted_string_is_unquoted() {
        assert_eq!(unquoted(br#""a""#), Some(&b"a"[..]));
        assert_eq!(unquoted(br#""""#), Some(&b""[..]));
        assert_eq!(unquoted(br#"""#), None);
        assert_eq!(unquoted(br#""a"b"#), None);
        assert_eq!(unquoted(br#"a"#), None);
        assert_eq!(unquoted(br#""a\""#), None);
    }
}
