//! The dependency rule, and which module wraps which library, read from the sources.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// Each module and the modules of ours that it may use: only what stands above it.
const MAY_USE: [(&str, &[&str]); 17] = [
    ("policy", &["fuzzing"]),
    ("clock", &["policy"]),
    ("database", &[]),
    ("modes", &["policy"]),
    ("telemetry", &["policy", "clock"]),
    (
        "store",
        &["policy", "clock", "database", "telemetry", "fuzzing"],
    ),
    ("upstream", &["policy", "clock", "modes", "telemetry"]),
    (
        "protect",
        &["policy", "clock", "telemetry", "store", "upstream"],
    ),
    ("queue", &["policy", "clock", "database", "telemetry"]),
    (
        "proxy",
        &[
            "policy",
            "clock",
            "modes",
            "telemetry",
            "store",
            "upstream",
            "protect",
            "queue",
            "fuzzing",
        ],
    ),
    (
        "admin",
        &[
            "policy",
            "clock",
            "modes",
            "telemetry",
            "store",
            "upstream",
            "protect",
            "queue",
        ],
    ),
    (
        "config",
        &[
            "policy",
            "telemetry",
            "store",
            "upstream",
            "protect",
            "queue",
            "proxy",
            "admin",
        ],
    ),
    // Calls the targets in their modules, which share its reading of inputs.
    ("fuzzing", &["policy", "store", "proxy"]),
    ("benchmarks", &["policy", "store", "proxy"]),
    ("app", EVERYTHING),
    ("cli", EVERYTHING),
    ("main", EVERYTHING),
];

const EVERYTHING: &[&str] = &[
    "policy",
    "clock",
    "modes",
    "telemetry",
    "store",
    "upstream",
    "protect",
    "queue",
    "proxy",
    "admin",
    "config",
    "app",
    "cli",
];

/// Each library that one module wraps, so that it can be replaced there.
const WRAPPED: [(&str, &[&str]); 8] = [
    ("redb", &["database", "store", "queue"]),
    ("moka", &["store"]),
    ("postcard", &["store", "queue"]),
    ("governor", &["protect"]),
    ("tokio_rustls", &["upstream"]),
    ("h2", &["upstream"]),
    ("annotate_snippets", &["config"]),
    ("anyhow", &["main"]),
];

#[test]
fn modules_use_only_what_stands_above_them() {
    for file in sources() {
        let module = module_of(&file);
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
            assert_eq!(
                module,
                "lib",
                "{}: a module without a place",
                file.display()
            );
            continue;
        };
        for used in modules_used(&code(&file)) {
            assert!(
                used == module || allowed.contains(&used.as_str()),
                "{}: `{module}` may not use `{used}`",
                file.display()
            );
        }
    }
}

#[test]
fn libraries_are_named_only_by_the_module_that_wraps_them() {
    // Tests of a module may check what it promises to a library, such as that its types survive encoding.
    let is_test = |file: &PathBuf| file.components().any(|part| part.as_os_str() == "tests");
    let below_src = |file: &PathBuf| file.strip_prefix(root()).unwrap().to_owned();
    for file in sources()
        .into_iter()
        .filter(|file| !is_test(&below_src(file)))
    {
        let (module, code) = (module_of(&file), code(&file));
        for (library, wrappers) in WRAPPED {
            assert!(
                wrappers.contains(&module.as_str()) || !names(&code, library),
                "{}: only {wrappers:?} may name `{library}`",
                file.display()
            );
        }
    }
}

#[test]
fn only_the_clock_reads_the_clock() {
    for file in sources() {
        let code = code(&file);
        for call in ["SystemTime::now(", "std::time::Instant"] {
            assert!(
                module_of(&file) == "clock" || !code.contains(call),
                "{}: {call}",
                file.display()
            );
        }
    }
}

#[test]
fn uses_are_found_in_every_form() {
    let code = "use crate::{\n    a::B,\n    c::{self, D::{E, F}},\n    g,\n};\nuse crate::h;\nfn f(x: crate::i::J) {}";
    let found: Vec<_> = modules_used(code).into_iter().collect();
    assert_eq!(found, ["a", "c", "g", "h", "i"]);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![root()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 20, "looked in the wrong place");
    found
}

/// The first part of the path below `src`: `store` for `src/store/disk.rs`, `clock` for `src/clock.rs`.
fn module_of(file: &Path) -> String {
    let below = file.strip_prefix(root());
    let first = below.unwrap().components().next().unwrap();
    let first = first.as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The text without comments: documentation may point anywhere.
fn code(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let without = text.lines().map(|line| match line.find("//") {
        // A URL in a string has a colon before it.
        Some(at) if !line[..at].ends_with(':') => &line[..at],
        _ => line,
    });
    without.collect::<Vec<_>>().join("\n")
}

/// Every `x` of `crate::x` and `crate::{x, ...}`.
fn modules_used(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        // `pub(crate)::` does not exist; a name that only ends so is another crate's.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + found.len()..];
        match rest.strip_prefix('{') {
            Some(group) => used.extend(first_names(group)),
            None => used.extend(first_name(rest)),
        }
    }
    used
}

/// The first names of the items of a `{...}` group, whose opening brace is gone.
fn first_names(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut depth, mut begin) = (0, 0);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' => {
                names.extend(first_name(&group[begin..at]));
                break;
            }
            ',' if depth == 0 => {
                names.extend(first_name(&group[begin..at]));
                begin = at + 1;
            }
            _ => {}
        }
    }
    names
}

fn first_name(path: &str) -> Option<String> {
    let path = path.trim_start();
    let end = path.find(|c: char| !c.is_alphanumeric() && c != '_');
    let name = &path[..end.unwrap_or(path.len())];
    // Types re-exported at the root do not exist; a macro or an empty item is no module.
    (!name.is_empty() && name.starts_with(char::is_lowercase)).then(|| name.to_owned())
}

fn names(code: &str, library: &str) -> bool {
    code.match_indices(library).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let is_start = before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '.');
        is_start && code[at + library.len()..].starts_with("::")
    })
}
