//! The types that options are made of: plain values, and what is composed of them.

use super::{
    problem::{list, nearest},
    reader::{OptionValue, Reader, Sourced},
    shape::{Secrecy, Shape},
    tree::{Node, Origin, Value},
};

/// A value that is written as a string.
pub(super) trait TextValue: Sized {
    /// What is expected, after "expected".
    const EXPECTED: &'static str;
    /// Every text it takes, where these can be listed.
    const CHOICES: &'static [&'static str] = &[];
    /// Whether it may be shown.
    const SECRECY: Secrecy = Secrecy::Open;

    /// Parses it.
    ///
    /// # Errors
    /// Says what is wrong with it, in a few words beside the caret.
    fn parse(text: &str) -> Result<Self, String>;
}

impl<T: TextValue> OptionValue for T {
    fn shape() -> Shape {
        Shape::Text {
            expected: T::EXPECTED,
            choices: T::CHOICES,
            secrecy: T::SECRECY,
        }
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Value::Text(text) = &node.value else {
            reader.wrong_type(node, T::EXPECTED);
            return None;
        };
        T::parse(text)
            .map_err(|label| {
                let label = match nearest(text, T::CHOICES.iter().copied()) {
                    Some(meant) => format!("did you mean \"{meant}\"?"),
                    None => label,
                };
                reader.refuse(node.origin, T::EXPECTED, label, None);
            })
            .ok()
    }
}

impl OptionValue for bool {
    fn shape() -> Shape {
        Shape::Boolean
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Value::Boolean(value) = node.value else {
            reader.wrong_type(node, "true or false");
            return None;
        };
        Some(value)
    }
}

/// An integer from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Integer<const MIN: i64, const MAX: i64>(i64);

impl<const MIN: i64, const MAX: i64> Integer<MIN, MAX> {
    /// As the number it is.
    pub(super) fn get<N: TryFrom<i64>>(self) -> N {
        let Ok(number) = N::try_from(self.0) else {
            unreachable!("the bounds {MIN} to {MAX} are within the type's")
        };
        number
    }
}

impl<const MIN: i64, const MAX: i64> OptionValue for Integer<MIN, MAX> {
    fn shape() -> Shape {
        Shape::Integer { min: MIN, max: MAX }
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let expected = if MIN == MAX {
            format!("the integer {MIN}")
        } else {
            format!("an integer from {MIN} to {MAX}")
        };
        let Value::Integer(written) = node.value else {
            reader.wrong_type(node, &expected);
            return None;
        };
        match i64::try_from(written) {
            Ok(number) if (MIN..=MAX).contains(&number) => Some(Self(number)),
            _ => {
                let label = if written < MIN.into() {
                    "too small"
                } else {
                    "too large"
                };
                reader.refuse(node.origin, &expected, label, None);
                None
            }
        }
    }
}

/// A path; empty: none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FilePath(pub(super) Option<std::path::PathBuf>);

impl OptionValue for FilePath {
    fn shape() -> Shape {
        Shape::Path
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Value::Text(text) = &node.value else {
            reader.wrong_type(node, "a path");
            return None;
        };
        Some(Self((!text.is_empty()).then(|| text.into())))
    }
}

impl<T: OptionValue> OptionValue for Option<T> {
    fn shape() -> Shape {
        T::shape()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        T::read(node, reader).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: OptionValue> OptionValue for Sourced<T> {
    fn shape() -> Shape {
        T::shape()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let value = T::read(node, reader)?;
        Some(Sourced {
            value,
            origin: node.origin,
        })
    }
}

/// Items that were refused are left out; they were reported.
impl<T: OptionValue> OptionValue for Vec<T> {
    fn shape() -> Shape {
        Shape::List(Box::new(T::shape()))
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Value::Array(items) = &node.value else {
            reader.wrong_type(node, "a list");
            return None;
        };
        let read = |(position, item): (usize, &Node)| {
            reader.within(position.to_string(), |reader| T::read(item, reader))
        };
        Some(items.iter().enumerate().filter_map(read).collect())
    }
}

/// A list of at least one item, or that item alone.
#[derive(Clone, Debug)]
pub(super) struct OneOrMany<T>(pub(super) Vec<Sourced<T>>);

impl<T: OptionValue> OptionValue for OneOrMany<T> {
    fn shape() -> Shape {
        Shape::OneOrMany(Box::new(T::shape()))
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        match &node.value {
            Value::Array(items) if items.is_empty() => {
                reader.refuse(node.origin, "at least one", "this list is empty", None);
                None
            }
            Value::Array(_) => Vec::read(node, reader).map(Self),
            _ => Sourced::read(node, reader).map(|item| Self(vec![item])),
        }
    }
}

/// Tables under names of the operator's choice.
#[derive(Clone, Debug)]
pub(super) struct Named<T>(pub(super) Vec<NamedTable<T>>);

/// One of them, and where its name was written.
#[derive(Clone, Debug)]
pub(super) struct NamedTable<T> {
    pub(super) name: String,
    pub(super) origin: Origin,
    pub(super) table: T,
}

impl<T: OptionValue> OptionValue for Named<T> {
    fn shape() -> Shape {
        match T::shape() {
            Shape::Table(table) => Shape::Named(table),
            other => unreachable!("only tables have names, not {other:?}"),
        }
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Value::Table(entries) = &node.value else {
            reader.wrong_type(node, "a table");
            return None;
        };
        let mut named = Vec::new();
        for entry in entries {
            reader.within(entry.name.as_str(), |reader| {
                let name = Name::parse(&entry.name).map_err(|label| {
                    reader.refuse(entry.name_origin, Name::EXPECTED, label, None);
                });
                if let (Ok(Name(name)), Some(table)) = (name, T::read(&entry.node, reader)) {
                    let origin = entry.name_origin;
                    named.push(NamedTable {
                        name,
                        origin,
                        table,
                    });
                }
            });
        }
        Some(Self(named))
    }
}

/// The name of an upstream or a route: a metrics label and a log field, so short and plain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name(pub(super) String);

impl TextValue for Name {
    const EXPECTED: &'static str = "a name of at most 64 letters, digits, `-`, `_` and `.`";

    fn parse(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if text.is_empty() {
            return Err("this is empty".to_owned());
        }
        if text.len() > 64 {
            return Err(format!("this has {}", text.len()));
        }
        match text.chars().find(|c| !plain(*c)) {
            Some(other) => Err(format!("{other:?} is none of these")),
            None => Ok(Self(text.to_owned())),
        }
    }
}

/// Any text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text(pub(super) String);

impl TextValue for Text {
    const EXPECTED: &'static str = "a string";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }
}

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials(pub(super) String);

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(***)")
    }
}

impl TextValue for Credentials {
    const EXPECTED: &'static str = "`user:password`";
    const SECRECY: Secrecy = Secrecy::Secret;

    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None => Err("no `:` in it".to_owned()),
            Some(("", _)) => Err("no user before the `:`".to_owned()),
            Some((_, "")) => Err("no password after the `:`".to_owned()),
            Some(_) if text.chars().any(char::is_control) => {
                Err("a control character in it".to_owned())
            }
            Some(_) => Ok(Self(text.to_owned())),
        }
    }
}

/// Makes a closed list of words an option.
macro_rules! choices {
    ($Type:ty, $expected:literal, [$($text:literal => $value:expr),+ $(,)?]) => {
        impl $crate::config::value::TextValue for $Type {
            const EXPECTED: &'static str = $expected;
            const CHOICES: &'static [&'static str] = &[$($text),+];

            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok($value),)+
                    _ => Err("none of these".to_owned()),
                }
            }
        }
    };
}
pub(super) use choices;

/// What is wrong with a value that was given, with its choices: for the few that are no plain option.
pub(super) fn no_such(kind: &str, written: &str, known: &[&str]) -> (String, String) {
    let label = match nearest(written, known.iter().copied()) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!("no such {kind}"),
    };
    let help = if known.is_empty() {
        format!("there is no {kind} at all")
    } else {
        format!("there is {}", list(known))
    };
    (label, help)
}
