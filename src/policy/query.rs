//! Which parameters of a query count, as the operator says: `ignore_query` and `sort_query`.
//!
//! What is ignored is taken out of what is forwarded, not only out of the key: an origin that never sees a parameter cannot
//! write it into an answer that others get. Parameters stand between `&`, as forms write them; a `;` is part of a name or
//! a value. Names are compared as a form decodes them (`%75tm_id` is `utm_id`, `+` a space), because an origin knows no
//! difference either; what stays is left as it is, byte for byte. Takes time in proportion to the query and the rules.

use std::borrow::Cow;

use smallvec::SmallVec;

/// The longest pattern, in bytes.
const PATTERN_MAX_BYTES: usize = 128;

/// What is done to the query of a read before it is forwarded and filed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryRules {
    /// Parameters that do not count.
    pub ignored: Vec<ParameterPattern>,
    /// Whether the others are sorted by name; those of one name stay in their order.
    pub sorted: bool,
}

/// Names of parameters: one, or with one `*` in it all that begin and end so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterPattern {
    start: Box<str>,
    /// What follows the star, where there is one.
    end: Option<Box<str>>,
}

impl QueryRules {
    /// Whether they leave every query as it is.
    pub fn is_empty(&self) -> bool {
        self.ignored.is_empty() && !self.sorted
    }

    /// The path and query under these rules; `None`: as it is. A query of which nothing is left goes with its `?`; an
    /// empty one has nothing to lose and stays.
    pub fn apply(&self, path_and_query: &str) -> Option<String> {
        if self.is_empty() {
            return None;
        }
        let (path, query) = path_and_query.split_once('?')?;
        let mut kept: SmallVec<[&str; 16]> = query
            .split('&')
            .filter(|parameter| !self.ignores(parameter))
            .collect();
        if self.sorted {
            kept.sort_by_cached_key(|parameter| name_of(parameter));
        }
        let mut text = path.to_owned();
        for (position, parameter) in kept.into_iter().enumerate() {
            text.push(if position == 0 { '?' } else { '&' });
            text.push_str(parameter);
        }
        (text != path_and_query).then_some(text)
    }

    fn ignores(&self, parameter: &str) -> bool {
        if self.ignored.is_empty() {
            return false;
        }
        let name = name_of(parameter);
        self.ignored.iter().any(|pattern| pattern.matches(&name))
    }
}

impl ParameterPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Says what is wrong with it, in a few words.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("this is empty".to_owned());
        }
        if text.len() > PATTERN_MAX_BYTES {
            return Err(format!("longer than {PATTERN_MAX_BYTES} bytes"));
        }
        if let Some(other) = text.chars().find(|c| "&=?#".contains(*c) || c.is_control()) {
            return Err(format!("{other:?} is not part of a name"));
        }
        let (start, end) = match text.split_once('*') {
            None => (text, None),
            Some((_, end)) if end.contains('*') => return Err("more than one `*`".to_owned()),
            Some((start, end)) => (start, Some(end)),
        };
        Ok(Self {
            start: start.into(),
            end: end.map(Into::into),
        })
    }

    fn matches(&self, name: &[u8]) -> bool {
        let start = self.start.as_bytes();
        match &self.end {
            None => name == start,
            Some(end) => name
                .strip_prefix(start)
                .is_some_and(|rest| rest.ends_with(end.as_bytes())),
        }
    }
}

/// The name of a parameter, decoded as of a form. A `%` that begins no code stands for itself.
fn name_of(parameter: &str) -> Cow<'_, [u8]> {
    let name = parameter.split('=').next().unwrap_or(parameter).as_bytes();
    if !name.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(name);
    }
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let [first, after @ ..] = rest {
        (rest, _) = match (first, code(after)) {
            (b'%', Some(byte)) => (&after[2..], decoded.push(byte)),
            (b'+', _) => (after, decoded.push(b' ')),
            _ => (after, decoded.push(*first)),
        };
    }
    Cow::Owned(decoded)
}

/// The byte that two hexadecimal digits at the start of `text` mean.
fn code(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    u8::try_from(digit(0)? << 4 | digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::{ParameterPattern, QueryRules};

    fn rules(ignored: &str, sorted: bool) -> QueryRules {
        let names = ignored.split_whitespace();
        QueryRules {
            ignored: names
                .map(|name| ParameterPattern::parse(name).unwrap())
                .collect(),
            sorted,
        }
    }

    #[test]
    fn what_is_ignored_is_taken_out_and_the_rest_left_as_it_is() {
        for (ignored, target, expected) in [
            ("utm_*", "/a?utm_source=x&b=1&utm_id=2", "/a?b=1"),
            ("utm_*", "/a?utm_source=x", "/a"),
            ("utm_*", "/a?utm_source", "/a"),
            ("utm_*", "/a?UTM_source=x", "/a?UTM_source=x"),
            ("utm_*", "/a?b=utm_source", "/a?b=utm_source"),
            // As an origin decodes it.
            ("utm_*", "/a?%75tm%5Fsource=x&b=%75", "/a?b=%75"),
            ("utm_*", "/a?utm%5fsource=x", "/a"),
            ("a_b", "/a?a_b=1", "/a"),
            ("x%z", "/a?x%z=1&x%25z=2&x%2=3", "/a?x%2=3"),
            // Only `&` parts parameters.
            ("utm_*", "/a?b=1;utm_source=x", "/a?b=1;utm_source=x"),
            ("utm_*", "/a?utm_source=1;b=2&c", "/a?c"),
            ("utm_*", "/a?b=1&utm_a=x=y&c=2", "/a?b=1&c=2"),
            // Nothing of what stays is tidied up.
            ("utm_*", "/a?", "/a?"),
            ("utm_*", "/a??utm_a=1", "/a??utm_a=1"),
            ("utm_*", "/a?&&b&utm_a&", "/a?&&b&"),
            ("utm_*", "/a", "/a"),
            ("utm_*", "/utm_a?b=%7e+", "/utm_a?b=%7e+"),
            ("session", "/a?session=1&sessions=2", "/a?sessions=2"),
            ("*_token", "/a?_token=1&a_token=2&token=3", "/a?token=3"),
            ("a*a", "/a?a=1&aa=2", "/a?a=1"),
            ("*", "/a?a=1&b", "/a"),
            ("a b", "/a?a=1", "/a"),
        ] {
            let applied = rules(ignored, false).apply(target);
            assert_eq!(applied.as_deref().unwrap_or(target), expected, "{target}");
            assert_eq!(applied.is_some(), target != expected, "{target}");
        }
    }

    #[test]
    fn sorting_goes_by_decoded_names_and_keeps_the_order_of_the_values_of_one() {
        for (target, expected) in [
            ("/a?b=1&a=2", "/a?a=2&b=1"),
            ("/a?b=2&a=9&b=1", "/a?a=9&b=2&b=1"),
            ("/a?b=1&%61=2&a=1", "/a?%61=2&a=1&b=1"),
            ("/a?x+y=2&x%20y=1", "/a?x+y=2&x%20y=1"),
            ("/a?b&a", "/a?a&b"),
            ("/a?a=1&&", "/a?&&a=1"),
            ("/a?a=1&b=2", "/a?a=1&b=2"),
            ("/a?", "/a?"),
        ] {
            let applied = rules("", true).apply(target);
            assert_eq!(applied.as_deref().unwrap_or(target), expected, "{target}");
        }
        let both = rules("utm_*", true).apply("/a?c&utm_x=1&b").unwrap();
        assert_eq!(both, "/a?b&c");
    }

    #[test]
    fn no_rules_leave_everything_as_it_is() {
        assert!(QueryRules::default().is_empty());
        assert_eq!(rules("", false).apply("/a?b&a&utm_x"), None);
    }

    #[test]
    fn a_pattern_is_a_name_with_at_most_one_star() {
        let long = "x".repeat(129);
        for text in ["", "a*b*", "a=b", "a&b", "?a", "a\n", &long] {
            assert!(ParameterPattern::parse(text).is_err(), "{text}");
        }
    }
}
