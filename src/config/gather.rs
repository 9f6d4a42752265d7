//! Brings the file, the environment and the flags together in one tree: defaults < file < environment < flags.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};

use super::{
    Flags, Root, Sources,
    problem::{Problem, nearest},
    reader::OptionValue,
    shape::{Shape, settle},
    tree::{Entry, Node, Origin, Source, SourceName, Value},
};

/// Everything that was written, in one tree.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) tree: Node,
    /// The texts that origins point into, secrets masked.
    pub(super) sources: Vec<Source>,
    pub(super) problems: Vec<Problem>,
    /// Lines of the file that are not TOML: bytes from their start to their end.
    pub(super) broken_lines: Vec<Range<usize>>,
}

/// Reads every source. What cannot be read is a problem, and missing from the tree.
pub(super) fn gather(sources: &Sources, user_data_dir: Option<PathBuf>) -> Gathered {
    let mut gathered = Gathered {
        tree: Node::table(Origin::Default),
        sources: Vec::new(),
        problems: Vec::new(),
        broken_lines: Vec::new(),
    };
    if let Some((path, text)) = &sources.file {
        gathered.file(SourceName::File(path.clone()), text);
    }
    gathered.environment(&sources.environment);
    gathered.flags(&sources.flags);
    settle(&mut gathered.tree, &Root::shape(), &gathered.sources);
    inherit_cache(&mut gathered.tree);
    if let Some(dir) = user_data_dir {
        gathered.default_dir(&dir);
    }
    let mut secrets = Vec::new();
    find_secrets(&gathered.tree, &Root::shape(), &mut secrets);
    for secret in secrets {
        gathered.mask(secret);
    }
    gathered
}

impl Gathered {
    fn file(&mut self, name: SourceName, text: &str) {
        let source = self.add(name, text.to_owned());
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let span = error.span().unwrap_or_default();
            self.broken_lines.push(line_of(text, &span));
            let title = format!("this is not TOML: {}", error.message());
            self.problems
                .push(Problem::error(Origin::at(source, span), title));
        }
        let table = toml::Spanned::new(table.span(), DeValue::Table(table.into_inner()));
        let place = |span| Origin::at(source, span);
        self.lay(Node::from_toml(table, &place));
    }

    /// Only names with `__` are configuration: others are reserved, or put there by an orchestrator for a service that
    /// happens to be called hardtack.
    fn environment(&mut self, variables: &[(String, String)]) {
        let mut variables: Vec<_> = variables
            .iter()
            .filter_map(|(name, value)| {
                let path = name.strip_prefix("HARDTACK_")?;
                path.contains("__").then_some((name, path, value))
            })
            .collect();
        // A table before the options in it, whatever the order of the environment.
        variables.sort();
        for (name, path, value) in variables {
            self.variable(name, path, value);
        }
    }

    fn variable(&mut self, name: &str, path: &str, value: &str) {
        let source = self.add(
            SourceName::Variable(name.to_owned()),
            format!("{name}={value}"),
        );
        let offset = name.len() + 1;
        let place =
            move |span: Range<usize>| Origin::at(source, span.start + offset..span.end + offset);
        let mut node = inline_toml(value, &place)
            .unwrap_or_else(|| Node::untyped(value, place(0..value.len())));
        let mut end = name.len();
        for step in path.rsplit("__") {
            let start = end - step.len();
            node = holding(
                step.to_ascii_lowercase(),
                Origin::at(source, start..end),
                node,
            );
            end = start.saturating_sub(2);
        }
        self.lay(node);
    }

    fn flags(&mut self, flags: &Flags) {
        let options: [(&'static str, &[&str], &Option<String>); 5] = [
            ("--listen", &["listen", "proxy"], &flags.listen),
            ("--admin", &["listen", "admin"], &flags.admin),
            ("--data-dir", &["storage", "dir"], &flags.data_dir),
            ("--mode", &["mode"], &flags.mode),
            (
                "--log-format",
                &["telemetry", "log", "format"],
                &flags.log_format,
            ),
        ];
        for (flag, path, value) in options {
            if let Some(value) = value {
                let origin = self.flag(flag, value);
                self.set(path, Node::untyped(value, origin));
            }
        }
        if let Some(url) = &flags.upstream {
            let origin = self.flag("--upstream", url);
            self.upstream_flag(url, origin);
        }
    }

    fn flag(&mut self, flag: &'static str, value: &str) -> Origin {
        let text = format!("{flag} {value}");
        let span = flag.len() + 1..text.len();
        Origin::at(self.add(SourceName::Flag(flag), text), span)
    }

    /// `--upstream URL`: an upstream `default`, and a route `default` after all others that sends it everything.
    fn upstream_flag(&mut self, url: &str, origin: Origin) {
        let named = self.tree.get("upstreams");
        if named.is_some_and(|named| named.get("default").is_some()) {
            let title = "--upstream: there is an upstream `default` already";
            let problem = Problem::error(origin, title).label("this would be another one");
            self.problems
                .push(problem.help("rename `upstreams.default`, or leave out --upstream"));
            return;
        }
        let text = |text: &str| Node {
            value: Value::Text(text.to_owned()),
            origin,
        };
        self.set(&["upstreams", "default", "url"], text(url));
        let option = |name: &str| Entry {
            name: name.to_owned(),
            name_origin: origin,
            node: text("default"),
        };
        let route = Node {
            value: Value::Table(vec![option("name"), option("upstream")]),
            origin,
        };
        let mut routes = Node {
            value: Value::Array(Vec::new()),
            origin,
        };
        if let Some(written) = self.tree.get("routes") {
            routes.clone_from(written);
        }
        // Routes that are no list are a mistake of the file, and reported there.
        if let Value::Array(items) = &mut routes.value {
            items.push(route);
        }
        self.set(&["routes"], routes);
    }

    /// The data directory where none is named.
    fn default_dir(&mut self, dir: &Path) {
        let named = self
            .tree
            .get("storage")
            .and_then(|storage| storage.get("dir"));
        let named =
            named.is_some_and(|dir| !matches!(&dir.value, Value::Text(text) if text.is_empty()));
        if let (false, Some(dir)) = (named, dir.to_str()) {
            let node = Node {
                value: Value::Text(dir.to_owned()),
                origin: Origin::Default,
            };
            self.set(&["storage", "dir"], node);
        }
    }

    fn set(&mut self, path: &[&str], node: Node) {
        let origin = node.origin;
        let wrap = |node, step: &&str| holding((*step).to_owned(), origin, node);
        self.lay(path.iter().rev().fold(node, wrap));
    }

    /// Lays a source on top of those before it.
    fn lay(&mut self, node: Node) {
        let mut misplaced = Vec::new();
        self.tree.merge(node, &mut misplaced);
        for origin in misplaced {
            let problem =
                Problem::error(origin, "this is for an option inside of what is no table");
            self.problems
                .push(problem.label("it was set to something else before"));
        }
    }

    fn add(&mut self, name: SourceName, text: String) -> usize {
        self.sources.push(Source { name, text });
        self.sources.len() - 1
    }

    /// Whether it is on a line that is not TOML, and so was perhaps misread.
    pub(super) fn is_broken_at(&self, origin: Origin) -> bool {
        let Origin::At { source, start, .. } = origin else {
            return false;
        };
        matches!(self.sources[source].name, SourceName::File(_))
            && self.broken_lines.iter().any(|line| line.contains(&start))
    }

    fn mask(&mut self, origin: Origin) {
        if let Origin::At { source, start, end } = origin {
            let text = &mut self.sources[source].text;
            let hide = |c: char| match c {
                // Places of everything else stay as they are.
                '\n' | ' ' | '"' | '\'' | '[' | ']' | ',' => c.to_string(),
                other => "*".repeat(other.len_utf8()),
            };
            let masked: String = text[start..end].chars().map(hide).collect();
            text.replace_range(start..end, &masked);
        }
    }
}

/// A table with one key.
fn holding(name: String, name_origin: Origin, node: Node) -> Node {
    Node {
        origin: node.origin,
        value: Value::Table(vec![Entry {
            name,
            name_origin,
            node,
        }]),
    }
}

/// A variable may hold an inline table or an array. `[::1]:8080` is neither, and stays text.
fn inline_toml(text: &str, place: &impl Fn(Range<usize>) -> Origin) -> Option<Node> {
    if !text.starts_with(['{', '[']) {
        return None;
    }
    let value = DeValue::parse(text).ok()?;
    Some(Node::from_toml(value, place))
}

fn line_of(text: &str, span: &Range<usize>) -> Range<usize> {
    let before = text.as_bytes().get(..span.start).unwrap_or_default();
    let start = before
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let after = text.as_bytes().get(span.end..).unwrap_or_default();
    let length = after
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(after.len());
    start..span.end + length
}

/// A route's `cache` is `[cache]` with the route's own options on top.
fn inherit_cache(tree: &mut Node) {
    let Some(cache) = tree.get("cache").cloned() else {
        return;
    };
    let routes = tree
        .entries_mut()
        .iter_mut()
        .filter(|entry| entry.name == "routes");
    for route in routes.flat_map(|entry| entry.node.items_mut()) {
        if let Value::Table(options) = &mut route.value {
            inherit(options, &cache);
        }
    }
}

fn inherit(route: &mut Vec<Entry>, cache: &Node) {
    match route.iter_mut().find(|option| option.name == "cache") {
        Some(own) => {
            let mut whole = cache.clone();
            // What is no table on either side is reported when it is read.
            whole.merge(own.node.clone(), &mut Vec::new());
            own.node = whole;
        }
        None => route.push(Entry {
            name: "cache".to_owned(),
            name_origin: cache.origin,
            node: cache.clone(),
        }),
    }
}

/// The places of every value that must not be shown, and of what looks like a misspelt one.
fn find_secrets(node: &Node, shape: &Shape, secrets: &mut Vec<Origin>) {
    if shape.is_secret() {
        secrets.push(node.origin);
        return;
    }
    match (shape, &node.value) {
        (Shape::Table(table), Value::Table(entries)) => {
            for entry in entries {
                let meant = table
                    .option(&entry.name)
                    .or_else(|| table.option(nearest(&entry.name, table.names())?));
                if let Some(option) = meant {
                    find_secrets(&entry.node, &(option.shape)(), secrets);
                }
            }
        }
        (Shape::Named(table), Value::Table(entries)) => {
            for entry in entries {
                find_secrets(&entry.node, &Shape::Table(table), secrets);
            }
        }
        (Shape::List(item), Value::Array(items)) => {
            for node in items {
                find_secrets(node, item, secrets);
            }
        }
        // A URL with a password in it is refused, but then shown.
        (Shape::Text { .. }, Value::Text(text)) if text.contains('@') => secrets.push(node.origin),
        _ => {}
    }
}
