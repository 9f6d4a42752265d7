//! What an option takes: one description from which come reading, `config show`, the JSON Schema and the reference.

use std::path::Path;

use super::tree::{Node, Origin, Source, SourceName, Value};

/// The options of one table.
#[derive(Debug)]
pub(super) struct Table {
    /// What the table is about.
    pub(super) doc: &'static str,
    /// In the order of the documentation.
    pub(super) options: &'static [Described],
    /// Names that a later version takes: refused, but said so.
    pub(super) later: &'static [&'static str],
}

/// One option.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) name: &'static str,
    doc: &'static str,
    /// TOML, or [`ABSENT`], or [`REQUIRED`].
    pub(super) default: &'static str,
    pub(super) shape: fn() -> Shape,
}

/// The default of an option that may be missing.
pub(super) const ABSENT: &str = "absent";
/// In place of a default: the option must be written.
pub(super) const REQUIRED: &str = "required";

/// What a value looks like.
#[derive(Debug)]
pub(super) enum Shape {
    Boolean,
    Integer {
        min: i64,
        max: i64,
    },
    Text {
        expected: &'static str,
        choices: &'static [&'static str],
        secrecy: Secrecy,
    },
    /// A path: one from the file is taken from the directory the file is in.
    Path,
    List(Box<Shape>),
    /// A list, or its only item.
    OneOrMany(Box<Shape>),
    Table(&'static Table),
    /// Tables under names of the operator's choice.
    Named(&'static Table),
}

/// Whether a value may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrecy {
    Open,
    Secret,
}

impl Described {
    pub(super) const fn new(
        name: &'static str,
        doc: &'static str,
        default: &'static str,
        shape: fn() -> Shape,
    ) -> Self {
        Self {
            name: bare(name),
            doc,
            default,
            shape,
        }
    }

    /// The lines of its documentation.
    pub(super) fn doc(&self) -> impl Iterator<Item = &'static str> {
        self.doc.lines().map(str::trim)
    }

    /// The default as a value, if there is one.
    pub(super) fn default_node(&self) -> Option<Node> {
        if [ABSENT, REQUIRED].contains(&self.default) {
            return None;
        }
        let value = toml::de::DeValue::parse(self.default).expect("a default is TOML");
        Some(Node::from_toml(value, &|_| Origin::Default))
    }
}

impl Table {
    pub(super) fn option(&self, name: &str) -> Option<&'static Described> {
        self.options.iter().find(|option| option.name == name)
    }

    pub(super) fn names(&self) -> Vec<&'static str> {
        self.options.iter().map(|option| option.name).collect()
    }
}

impl Shape {
    /// Whether values of it are never shown.
    pub(super) fn is_secret(&self) -> bool {
        match self {
            Shape::Text { secrecy, .. } => *secrecy == Secrecy::Secret,
            Shape::List(item) | Shape::OneOrMany(item) => item.is_secret(),
            _ => false,
        }
    }
}

/// `r#match` is the option `match`.
const fn bare(name: &'static str) -> &'static str {
    let [b'r', b'#', rest @ ..] = name.as_bytes() else {
        return name;
    };
    match std::str::from_utf8(rest) {
        Ok(rest) => rest,
        Err(_) => name,
    }
}

/// Gives untyped values the type of their option, and roots the paths of the file in the file's directory.
pub(super) fn settle(node: &mut Node, shape: &Shape, sources: &[Source]) {
    if let Value::Untyped(text) = &node.value {
        node.value = typed(text, node.origin, shape);
    }
    match shape {
        Shape::Table(table) => {
            for entry in node.entries_mut() {
                if let Some(option) = table.option(&entry.name) {
                    settle(&mut entry.node, &(option.shape)(), sources);
                }
            }
        }
        Shape::Named(table) => {
            for entry in node.entries_mut() {
                settle(&mut entry.node, &Shape::Table(table), sources);
            }
        }
        Shape::List(item) => node
            .items_mut()
            .iter_mut()
            .for_each(|node| settle(node, item, sources)),
        Shape::OneOrMany(item) => match &mut node.value {
            Value::Array(items) => items
                .iter_mut()
                .for_each(|node| settle(node, item, sources)),
            _ => settle(node, item, sources),
        },
        Shape::Path => root(node, sources),
        Shape::Boolean | Shape::Integer { .. } | Shape::Text { .. } => {}
    }
}

fn typed(text: &str, origin: Origin, shape: &Shape) -> Value {
    let plain = || Value::Text(text.to_owned());
    match shape {
        Shape::Boolean => text.parse().map_or_else(|_| plain(), Value::Boolean),
        Shape::Integer { .. } => text.parse().map_or_else(|_| plain(), Value::Integer),
        Shape::List(_) => Value::Array(items(text, origin)),
        Shape::OneOrMany(_) if text.contains(',') => Value::Array(items(text, origin)),
        _ => plain(),
    }
}

/// `a, b` as a list, each item with its own place.
fn items(text: &str, origin: Origin) -> Vec<Node> {
    let mut start = 0;
    let mut items = Vec::new();
    for piece in text.split(',') {
        let trimmed = piece.trim();
        let from = start + (piece.len() - piece.trim_start().len());
        if !trimmed.is_empty() {
            items.push(Node::untyped(
                trimmed,
                origin.part(from..from + trimmed.len()),
            ));
        }
        start += piece.len() + 1;
    }
    items
}

fn root(node: &mut Node, sources: &[Source]) {
    let Origin::At { source, .. } = node.origin else {
        return;
    };
    if let (Value::Text(text), SourceName::File(file)) = (&mut node.value, &sources[source].name)
        && !text.is_empty()
        && let Some(rooted) = file.parent().unwrap_or(Path::new("")).join(&*text).to_str()
    {
        *text = rooted.to_owned();
    }
}
