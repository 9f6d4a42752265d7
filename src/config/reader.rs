//! Reads options from the tree into their types, and collects what is wrong instead of stopping at it.

use std::ops::Deref;

use super::{
    problem::{Problem, list, nearest},
    shape::{Described, REQUIRED, Shape, Table},
    tree::{Entry, Node, Origin, Value},
};

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Sourced<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
}

impl<T> Deref for Sourced<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// The type of an option.
pub(super) trait OptionValue: Sized {
    /// What it looks like.
    fn shape() -> Shape;

    /// Reads it. `None` when it was refused; then a problem was reported.
    fn read(node: &Node, reader: &mut Reader) -> Option<Self>;

    /// What stands for an option without a default that was not written.
    fn absent() -> Option<Self> {
        None
    }
}

/// Where we are in the tree, and what was wrong so far.
#[derive(Debug, Default)]
pub(super) struct Reader {
    path: Vec<String>,
    pub(super) problems: Vec<Problem>,
}

impl Reader {
    /// The table's node if it is one; reports the keys that are no options of it.
    pub(super) fn table<'n>(&mut self, node: &'n Node, table: &Table) -> Option<&'n Node> {
        if !matches!(node.value, Value::Table(_)) {
            self.wrong_type(node, "a table");
            return None;
        }
        for entry in node.entries() {
            if table.option(&entry.name).is_none() {
                self.unknown(entry, table);
            }
        }
        Some(node)
    }

    /// One option of a table: as written, or its default.
    pub(super) fn option<T: OptionValue>(
        &mut self,
        table: &Node,
        described: &Described,
    ) -> Option<Sourced<T>> {
        self.within(described.name, |reader| match table.get(described.name) {
            Some(node) => reader.written(node, described),
            None if described.default == REQUIRED => {
                let title = format!("{}: missing", reader.name());
                reader.problems.push(
                    Problem::error(table.origin, title)
                        .label(format!("`{}` must be written here", described.name)),
                );
                None
            }
            None => reader.default(described, Origin::Default),
        })
    }

    fn written<T: OptionValue>(
        &mut self,
        node: &Node,
        described: &Described,
    ) -> Option<Sourced<T>> {
        let before = self.problems.len();
        let value = T::read(node, self);
        let origin = if self.problems.len() == before {
            node.origin
        } else {
            Origin::Refused
        };
        match value {
            Some(value) => Some(Sourced { value, origin }),
            None => self.default(described, Origin::Refused),
        }
    }

    fn default<T: OptionValue>(
        &mut self,
        described: &Described,
        origin: Origin,
    ) -> Option<Sourced<T>> {
        let value = match described.default_node() {
            Some(node) => T::read(&node, self),
            None => T::absent(),
        };
        value.map(|value| Sourced { value, origin })
    }

    /// Does `read` one step further down.
    pub(super) fn within<R>(
        &mut self,
        step: impl Into<String>,
        read: impl FnOnce(&mut Self) -> R,
    ) -> R {
        self.path.push(step.into());
        let result = read(self);
        self.path.pop();
        result
    }

    /// Reports a value of the wrong type.
    pub(super) fn wrong_type(&mut self, node: &Node, expected: &str) {
        let label = format!("this is {}", node.kind());
        self.refuse(node.origin, expected, label, None);
    }

    /// Reports a value that is not what the option takes.
    pub(super) fn refuse(
        &mut self,
        origin: Origin,
        expected: &str,
        label: impl Into<String>,
        help: Option<String>,
    ) {
        let title = format!("{}: expected {expected}", self.name());
        let problem = Problem::error(origin, title).label(label);
        self.problems.push(match help {
            Some(help) => problem.help(help),
            None => problem,
        });
    }

    fn unknown(&mut self, entry: &Entry, table: &Table) {
        let name = self.within(entry.name.as_str(), |reader| reader.name());
        let problem = Problem::error(entry.name_origin, format!("unknown option {name}"));
        if table.later.contains(&entry.name.as_str()) {
            let problem = problem.label("this version does not know it yet");
            let help = "it comes in a later version; leave it out until then";
            self.problems.push(problem.help(help));
            return;
        }
        let names = table.names();
        let problem = match nearest(&entry.name, names.iter().copied()) {
            Some(meant) => problem.label(format!("did you mean `{meant}`?")),
            None => problem.label("not an option"),
        };
        let problem = match homes(&entry.name).as_slice() {
            [] => problem,
            homes => problem.help(format!("an option of that name is {}", homes.join(", "))),
        };
        let place = self.path.join(".");
        let place = if place.is_empty() {
            "the top level".to_owned()
        } else {
            format!("`{place}`")
        };
        self.problems
            .push(problem.help(format!("{place} takes {}", list(&names))));
    }

    /// The dotted name of the option being read.
    pub(super) fn name(&self) -> String {
        format!("`{}`", self.path.join("."))
    }
}

/// Where in the configuration an option of this name exists.
fn homes(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rooms = vec![(String::new(), super::Root::TABLE)];
    while let Some((path, table)) = rooms.pop() {
        for option in table.options {
            let path = if path.is_empty() {
                option.name.to_owned()
            } else {
                format!("{path}.{}", option.name)
            };
            if option.name == name {
                found.push(format!("`{path}`"));
            }
            match (option.shape)() {
                Shape::Table(table) => rooms.push((path, table)),
                Shape::Named(table) => rooms.push((format!("{path}.NAME"), table)),
                Shape::List(item) => {
                    if let Shape::Table(table) = *item {
                        rooms.push((path, table));
                    }
                }
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// Declares a table of options once: its fields with type, default (TOML, `absent` or `required`) and documentation,
/// from which come reading, the JSON Schema, `config show` and the reference.
macro_rules! options {
    (
        $(#[doc = $table_doc:literal])+
        struct $Name:ident {
            $( $(#[doc = $doc:literal])+ $field:ident: $Type:ty = $default:tt, )+
        }
        $( later { $($later:ident),+ } )?
    ) => {
        $(#[doc = $table_doc])+
        #[derive(Clone, Debug)]
        pub(in crate::config) struct $Name {
            $( $(#[doc = $doc])+ pub(in crate::config) $field: $crate::config::reader::Sourced<$Type>, )+
        }

        impl $Name {
            /// What its options are.
            pub(in crate::config) const TABLE: &'static $crate::config::shape::Table =
                &$crate::config::shape::Table {
                    doc: concat!($($table_doc, "\n"),+),
                    options: &[$(
                        $crate::config::shape::Described::new(
                            stringify!($field),
                            concat!($($doc, "\n"),+),
                            stringify!($default),
                            <$Type as $crate::config::reader::OptionValue>::shape,
                        ),
                    )+],
                    later: &[$($(stringify!($later)),+)?],
                };
        }

        impl $crate::config::reader::OptionValue for $Name {
            fn shape() -> $crate::config::shape::Shape {
                $crate::config::shape::Shape::Table(Self::TABLE)
            }

            fn read(
                node: &$crate::config::tree::Node,
                reader: &mut $crate::config::reader::Reader,
            ) -> Option<Self> {
                let table = reader.table(node, Self::TABLE)?;
                let mut described = Self::TABLE.options.iter();
                $(
                    let $field = reader.option(table, described.next().expect("one for each field"));
                )+
                Some(Self { $( $field: $field?, )+ })
            }
        }
    };
}
pub(super) use options;
