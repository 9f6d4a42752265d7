//! The values in force, as text: `config show`.

use std::fmt::Write as _;

use super::{
    Root,
    shape::{Described, Shape, Table},
    tree::{Node, Origin, Source, SourceName, Value},
};

/// What `config show` says beside each value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Annotate {
    /// Nothing.
    Nothing,
    /// Where it comes from: `default`, `file:line`, the variable, or the flag.
    Origins,
}

/// The values in force, as TOML, secrets masked.
pub(super) fn show(tree: &Node, sources: &[Source], annotate: Annotate) -> String {
    let mut page = Page {
        sources,
        annotate,
        text: String::new(),
    };
    page.options("", Root::TABLE, tree);
    for option in Root::TABLE.options {
        page.sections(option, tree.get(option.name));
    }
    page.text
}

struct Page<'a> {
    sources: &'a [Source],
    annotate: Annotate,
    text: String,
}

impl Page<'_> {
    /// The sections of a top-level option, if it is a table or several.
    fn sections(&mut self, option: &Described, node: Option<&Node>) {
        let name = option.name;
        let nothing = Node::table(Origin::Default);
        match (option.shape)() {
            Shape::Table(table) => {
                self.section(&format!("[{name}]"), table, node.unwrap_or(&nothing));
            }
            Shape::Named(table) => {
                for entry in node.map_or(&[][..], Node::entries) {
                    let key = key(&entry.name);
                    self.section(&format!("[{name}.{key}]"), table, &entry.node);
                }
            }
            Shape::List(item) => {
                if let (Shape::Table(table), Some(node)) = (*item, node) {
                    for item in node.items() {
                        self.section(&format!("[[{name}]]"), table, item);
                    }
                }
            }
            _ => {}
        }
    }

    fn section(&mut self, header: &str, table: &Table, node: &Node) {
        let _ = writeln!(self.text, "\n{header}");
        self.options("", table, node);
    }

    /// The options of a table; those of tables in it under dotted keys.
    fn options(&mut self, prefix: &str, table: &Table, node: &Node) {
        for option in table.options {
            let dotted = format!("{prefix}{}", option.name);
            let default = option.default_node();
            let Some(value) = node.get(option.name).or(default.as_ref()) else {
                continue;
            };
            match (option.shape)() {
                // Sections of their own.
                Shape::Table(_) | Shape::Named(_) if std::ptr::eq(table, Root::TABLE) => {}
                Shape::List(item) if matches!(*item, Shape::Table(_)) => {}
                Shape::Table(inner) => self.options(&format!("{dotted}."), inner, value),
                shape => self.line(&dotted, &in_toml(value, &shape), value.origin),
            }
        }
    }

    fn line(&mut self, name: &str, value: &str, origin: Origin) {
        let line = format!("{name} = {value}");
        let _ = match self.annotate {
            Annotate::Nothing => writeln!(self.text, "{line}"),
            // Wide enough for all but a few.
            Annotate::Origins => writeln!(self.text, "{line:<44}  # {}", self.origin(origin)),
        };
    }

    fn origin(&self, origin: Origin) -> String {
        let Origin::At { source, start, .. } = origin else {
            return "default".to_owned();
        };
        let Source { name, text } = &self.sources[source];
        match name {
            SourceName::File(_) => {
                let line = text
                    .bytes()
                    .take(start)
                    .filter(|byte| *byte == b'\n')
                    .count()
                    + 1;
                format!("{name}:{line}")
            }
            SourceName::Variable(_) | SourceName::Flag(_) => name.to_string(),
        }
    }
}

/// A value as TOML on one line, masked if it is secret.
pub(super) fn in_toml(node: &Node, shape: &Shape) -> String {
    match &node.value {
        Value::Array(items) if items.is_empty() => "[]".to_owned(),
        _ if shape.is_secret() => "[\"***\"]".to_owned(),
        _ => toml_value(node).to_string(),
    }
}

fn toml_value(node: &Node) -> toml::Value {
    match &node.value {
        Value::Untyped(text) | Value::Text(text) => toml::Value::String(text.clone()),
        Value::Integer(integer) => {
            toml::Value::Integer(i64::try_from(*integer).unwrap_or(i64::MAX))
        }
        Value::Boolean(boolean) => toml::Value::Boolean(*boolean),
        Value::Array(items) => toml::Value::Array(items.iter().map(toml_value).collect()),
        Value::Table(entries) => {
            let pair = |entry: &super::tree::Entry| (entry.name.clone(), toml_value(&entry.node));
            toml::Value::Table(entries.iter().map(pair).collect())
        }
        Value::Other(kind) => toml::Value::String((*kind).to_owned()),
    }
}

fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if !name.is_empty() && name.chars().all(bare) {
        return name.to_owned();
    }
    toml::Value::String(name.to_owned()).to_string()
}
