//! One tree of values from every source, each value with the place it was written at.

use std::{fmt, ops::Range, path::PathBuf};

use toml::{Spanned, de::DeValue};

/// A text that configuration was read from.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) name: SourceName,
    /// What is shown above a caret: the file, `NAME=value`, or `--flag value`.
    pub(super) text: String,
}

/// What kind of text, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SourceName {
    File(PathBuf),
    Variable(String),
    Flag(&'static str),
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceName::File(path) => write!(f, "{}", path.display()),
            SourceName::Variable(name) => f.write_str(name),
            SourceName::Flag(name) => f.write_str(name),
        }
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nobody wrote it.
    Default,
    /// Bytes `start..end` of the source at this position.
    At {
        source: usize,
        start: usize,
        end: usize,
    },
    /// What was written was refused and reported; the value is a stand-in, and checks between options skip it.
    Refused,
}

impl Origin {
    pub(super) fn at(source: usize, span: Range<usize>) -> Self {
        Origin::At {
            source,
            start: span.start,
            end: span.end,
        }
    }

    /// The same place of a part of it, `span` counted from its start.
    pub(super) fn part(self, span: Range<usize>) -> Self {
        match self {
            Origin::At { source, start, .. } => {
                Origin::at(source, start + span.start..start + span.end)
            }
            other => other,
        }
    }
}

/// A value and where it comes from.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// A value as it was written.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// From a variable or a flag: which type it has is the option's to say (see `shape::settle`).
    Untyped(String),
    Text(String),
    Integer(i128),
    Boolean(bool),
    Array(Vec<Node>),
    /// In the order written.
    Table(Vec<Entry>),
    /// What no option takes; the words name it in an error.
    Other(&'static str),
}

/// One key of a table.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) name_origin: Origin,
    pub(super) node: Node,
}

impl Node {
    pub(super) fn table(origin: Origin) -> Self {
        Self {
            value: Value::Table(Vec::new()),
            origin,
        }
    }

    pub(super) fn untyped(text: &str, origin: Origin) -> Self {
        Self {
            value: Value::Untyped(text.to_owned()),
            origin,
        }
    }

    /// From parsed TOML; `place` says where a span is.
    pub(super) fn from_toml(
        value: Spanned<DeValue<'_>>,
        place: &impl Fn(Range<usize>) -> Origin,
    ) -> Self {
        let origin = place(value.span());
        let value = match value.into_inner() {
            DeValue::String(text) => Value::Text(text.into_owned()),
            DeValue::Integer(integer) => i128::from_str_radix(integer.as_str(), integer.radix())
                .map_or(Value::Other("an integer out of range"), Value::Integer),
            DeValue::Boolean(boolean) => Value::Boolean(boolean),
            DeValue::Float(_) => Value::Other("a float"),
            DeValue::Datetime(_) => Value::Other("a date or time"),
            DeValue::Array(items) => Value::Array(
                items
                    .into_iter()
                    .map(|item| Node::from_toml(item, place))
                    .collect(),
            ),
            DeValue::Table(table) => {
                let mut keys: Vec<_> = table.into_iter().collect();
                keys.sort_by_key(|(name, _)| name.span().start);
                Value::Table(
                    keys.into_iter()
                        .map(|(name, value)| Entry {
                            name_origin: place(name.span()),
                            name: name.into_inner().into_owned(),
                            node: Node::from_toml(value, place),
                        })
                        .collect(),
                )
            }
        };
        Self { value, origin }
    }

    /// The keys of a table; none for anything else.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Table(entries) => entries,
            _ => &[],
        }
    }

    pub(super) fn entries_mut(&mut self) -> &mut [Entry] {
        match &mut self.value {
            Value::Table(entries) => entries,
            _ => &mut [],
        }
    }

    /// The items of an array; none for anything else.
    pub(super) fn items(&self) -> &[Node] {
        match &self.value {
            Value::Array(items) => items,
            _ => &[],
        }
    }

    pub(super) fn items_mut(&mut self) -> &mut [Node] {
        match &mut self.value {
            Value::Array(items) => items,
            _ => &mut [],
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        self.entries()
            .iter()
            .find(|entry| entry.name == name)
            .map(|entry| &entry.node)
    }

    /// Lays `over` on top: tables key by key, anything else replaces. A table never replaces what is no table; where
    /// it would, its origin is pushed to `misplaced`.
    pub(super) fn merge(&mut self, over: Node, misplaced: &mut Vec<Origin>) {
        match (&mut self.value, over.value) {
            (Value::Table(entries), Value::Table(new)) => {
                for entry in new {
                    merge_entry(entries, entry, misplaced);
                }
            }
            (_, Value::Table(_)) => misplaced.push(over.origin),
            (_, value) => {
                self.value = value;
                self.origin = over.origin;
            }
        }
    }

    /// What it is, for an error.
    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            Value::Untyped(_) | Value::Text(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Boolean(_) => "a boolean",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
            Value::Other(kind) => kind,
        }
    }
}

fn merge_entry(entries: &mut Vec<Entry>, new: Entry, misplaced: &mut Vec<Origin>) {
    match entries
        .iter_mut()
        .find(|entry| same_name(&entry.name, &new.name))
    {
        Some(entry) => entry.node.merge(new.node, misplaced),
        None => entries.push(new),
    }
}

/// Names of upstreams may hold capitals and dashes, names of variables may not: `MY_API` is `my-api`.
fn same_name(one: &str, other: &str) -> bool {
    let fold = |byte: u8| match byte {
        b'-' => b'_',
        other => other.to_ascii_lowercase(),
    };
    one.bytes().map(fold).eq(other.bytes().map(fold))
}
