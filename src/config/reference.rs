//! Every option there is, as text: `config reference`, and the checked-in sample.

use std::fmt::Write as _;

use super::{
    Root,
    shape::{Shape, Table},
    show::in_toml,
};

/// Every option with its documentation and its default, as a file that changes nothing. Examples are commented out
/// with a `#` that no space follows.
pub fn reference() -> String {
    let mut text = REFERENCE_HEAD.to_owned();
    options_with_docs(&mut text, "", "", Root::TABLE, "");
    for option in Root::TABLE.options {
        let name = option.name;
        match (option.shape)() {
            Shape::Table(table) => {
                section_with_docs(&mut text, table, &format!("[{name}]"), name, "");
            }
            Shape::Named(table) => {
                let header = format!("#[{name}.{EXAMPLE_NAME}]");
                section_with_docs(&mut text, table, &header, name, "#");
            }
            Shape::List(item) => {
                if let Shape::Table(table) = *item {
                    section_with_docs(&mut text, table, &format!("#[[{name}]]"), name, "#");
                }
            }
            _ => {}
        }
    }
    text
}

const REFERENCE_HEAD: &str = "\
# Every option of hardtack with its default: this file as it stands changes nothing. What is commented out without a
# space is an example. Durations: \"500ms\", \"10s\", \"5m\", \"1h30m\", \"7d\". Sizes: \"64KB\", \"256MiB\", \"10GiB\", or bytes.
#
# Each option of a table can be set in the environment too: `per_client.rate` of `[limits]` is
# HARDTACK_LIMITS__PER_CLIENT__RATE. Lists are separated by commas there. Flags come before the environment, which comes
# before the file. Relative paths in a file are taken from the directory of the file.

";

const EXAMPLE_NAME: &str = "catalog";

/// What stands in the reference for options without a default, and where an example says more than the default.
const EXAMPLES: [(&str, &str); 15] = [
    ("upstreams.url", "\"https://api.example.com\""),
    ("upstreams.probe.path", "\"/healthz\""),
    ("upstreams.probe.status", "200"),
    ("upstreams.probe.body", "\"ok\""),
    ("routes.name", "\"catalog-read\""),
    ("routes.match.host", "\"*\""),
    ("routes.match.path", "\"/v1/**\""),
    ("routes.match.methods", "[\"GET\", \"HEAD\"]"),
    ("routes.upstream", "\"catalog\""),
    ("routes.mode", "\"auto\""),
    (
        "routes.cache",
        "{ stale_while_revalidate = \"10m\", stale_if_error = \"7d\" }",
    ),
    ("routes.preserve_host", "false"),
    ("routes.write.on_stuck", "\"halt\""),
    ("queue.max_lane_items", "100000"),
    ("queue.max_client_items", "100000"),
];

fn section_with_docs(text: &mut String, table: &Table, header: &str, path: &str, comment: &str) {
    text.push('\n');
    comment_lines(text, table.doc.lines());
    let _ = writeln!(text, "{header}");
    options_with_docs(text, path, "", table, comment);
}

fn options_with_docs(text: &mut String, path: &str, prefix: &str, table: &Table, comment: &str) {
    for option in table.options {
        let place = if path.is_empty() {
            option.name.to_owned()
        } else {
            format!("{path}.{}", option.name)
        };
        let dotted = format!("{prefix}{}", option.name);
        let example = EXAMPLES.iter().find(|(name, _)| *name == place);
        match (option.shape)() {
            Shape::Table(_) | Shape::Named(_) if path.is_empty() => {}
            Shape::List(item) if matches!(*item, Shape::Table(_)) => {}
            Shape::Table(inner) if example.is_none() => {
                comment_lines(text, option.doc());
                let prefix = format!("{dotted}.");
                options_with_docs(text, &place, &prefix, inner, comment);
            }
            shape => {
                comment_lines(text, option.doc());
                let value = match (example, option.default_node()) {
                    (Some((_, example)), _) => (*example).to_owned(),
                    (None, Some(default)) => in_toml(&default, &shape),
                    (None, None) => unreachable!("`{place}` has neither default nor example"),
                };
                let _ = writeln!(text, "{comment}{dotted} = {value}");
            }
        }
    }
}

fn comment_lines<'a>(text: &mut String, lines: impl Iterator<Item = &'a str>) {
    for line in lines {
        let _ = writeln!(text, "# {}", line.trim());
    }
}
