//! What must hold for every input, as functions of bytes: one per parser and format that others can feed.
//!
//! `cargo test` replays the checked-in corpus of each target, then mutates it for a bounded number of rounds;
//! `tests/fuzz/` runs the same functions under libFuzzer for as long as one likes. A target panics where its property
//! does not hold. Inputs that are no input of the target are passed over.
//!
//! The targets stand in their modules, because what they check is not public.

use http::{HeaderMap, HeaderName, HeaderValue};

/// A target.
pub type Target = fn(&[u8]);

/// Every target, by the name of its corpus.
pub const TARGETS: [(&str, Target); 19] = [
    ("age", crate::policy::fuzzing::age),
    ("date", crate::policy::fuzzing::date),
    ("entity_tag", crate::policy::fuzzing::entity_tag),
    ("framing", crate::proxy::fuzzing::framing),
    ("hop_by_hop", crate::proxy::fuzzing::hop_by_hop),
    ("key", crate::policy::fuzzing::key),
    ("path_pattern", crate::policy::fuzzing::path_pattern),
    ("policy", crate::policy::fuzzing::policy),
    ("query", crate::policy::fuzzing::query),
    ("range", crate::policy::fuzzing::range),
    ("record", crate::store::fuzzing::record),
    ("reference", crate::policy::fuzzing::reference),
    (
        "request_directives",
        crate::policy::fuzzing::request_directives,
    ),
    (
        "response_directives",
        crate::policy::fuzzing::response_directives,
    ),
    ("row", crate::store::fuzzing::row),
    ("search", crate::policy::fuzzing::search),
    ("tags", crate::policy::fuzzing::tags),
    ("targeted", crate::policy::fuzzing::targeted),
    ("vary", crate::policy::fuzzing::vary),
];

/// Runs the target with this name. Panics where there is none.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    target.expect("the name of a target").1(input);
}

/// The parts of an input, which lines of two hyphens part.
pub(crate) fn parts(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(input);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = text.windows(4).position(|window| window == b"\n--\n");
        rest = end.map(|end| &text[end + 4..]);
        Some(&text[..end.unwrap_or(text.len())])
    })
}

/// The lines of a part.
pub(crate) fn lines(part: &[u8]) -> impl Iterator<Item = &[u8]> {
    part.split(|byte| *byte == b'\n')
}

/// The fields of a part, a line each; lines that are none are passed over.
pub(crate) fn fields(part: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines(part) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            // Beyond what a map takes there is nothing new to see.
            let _ = headers.try_append(name, value);
        }
    }
    headers
}

/// The fields with all lines of each name joined into one by `", "` (RFC 9110 section 5.3).
pub(crate) fn joined(headers: &HeaderMap) -> HeaderMap {
    let mut one_line_each = HeaderMap::new();
    for name in headers.keys() {
        let lines: Vec<&[u8]> = headers
            .get_all(name)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        let line = HeaderValue::from_bytes(&lines.join(&b", "[..]));
        one_line_each.insert(
            name,
            line.expect("field values and a comma make a field value"),
        );
    }
    one_line_each
}

/// The fields with every value changed by `change`, which keeps field values what they are.
pub(crate) fn mapped(headers: &HeaderMap, change: impl Fn(&[u8]) -> Vec<u8>) -> HeaderMap {
    let mut changed = HeaderMap::new();
    for (name, value) in headers {
        let value = HeaderValue::from_bytes(&change(value.as_bytes()));
        changed.append(name, value.expect("still a field value"));
    }
    changed
}

/// Whether every value ends outside quoted strings, with or without a backslash as an escape: only such lines mean the
/// same joined as apart.
pub(crate) fn are_closed(headers: &HeaderMap) -> bool {
    let is_closed = |value: &HeaderValue, has_escapes: bool| {
        let (mut quoted, mut escaped) = (false, false);
        for byte in value.as_bytes() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted && has_escapes => escaped = true,
                b'"' => quoted = !quoted,
                _ => {}
            }
        }
        !quoted
    };
    headers
        .values()
        .all(|value| is_closed(value, true) && is_closed(value, false))
}

#[cfg(test)]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        path::PathBuf,
        time::Duration,
    };

    use fastrand::Rng;
    use tokio::time::Instant;

    use super::{TARGETS, Target};

    /// Enough rounds to meet what a parser of one field is likely to hide, few enough for a fraction of a second.
    const ROUNDS: usize = 600;

    /// The longest input of a round; the smoke run looks at breadth, the long inputs at time.
    const MUTANT_MAX_BYTES: usize = 600;

    /// What the long inputs are repeated to: more than any head may have.
    const LONG_BYTES: usize = 64 * 1024;

    /// A long input takes some hundredths of a second in a debug build where time is linear, and minutes where it is
    /// quadratic.
    const LONG_LIMIT: Duration = Duration::from_secs(5);

    /// Pieces that parsers look for.
    const PIECES: [&[u8]; 40] = [
        b",",
        b", ",
        b"\"",
        b"\\\"",
        b"\\",
        b";",
        b"=",
        b":",
        b"/",
        b"//",
        b"..",
        b"%2e",
        b"?",
        b"#",
        b"~",
        b" ",
        b"\t",
        b"\n",
        b"\n--\n",
        b"\r\n",
        b"\r\n\r\n",
        b"*",
        b"W/",
        b"-",
        b"0",
        b"1",
        b"99999999999999999999",
        b"4294967296",
        b"2147483648",
        b"\xff",
        b"\x80",
        b"\0",
        b"max-age=",
        b"no-store",
        b"no-cache=\"",
        b"private",
        b"Vary: ",
        b"Cache-Control: ",
        b"bytes=",
        b"Transfer-Encoding: chunked\r\n",
    ];

    fn corpus(name: &str) -> Vec<Vec<u8>> {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
        let entries = std::fs::read_dir(directory.join(name)).expect("each target has a corpus");
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 3, "{name}: a corpus of {}", files.len());
        files
            .iter()
            .map(|file| std::fs::read(file).unwrap())
            .collect()
    }

    /// Runs a target, and says what the input was when it fails.
    fn check(name: &str, target: Target, input: &[u8], origin: &str) {
        if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
            let shown = &input[..input.len().min(2 * MUTANT_MAX_BYTES)];
            panic!("{name}, {origin}: \"{}\"", shown.escape_ascii());
        }
    }

    #[test]
    fn every_target_holds_on_its_corpus() {
        for (name, target) in TARGETS {
            for input in corpus(name) {
                check(name, target, &input, "from the corpus");
            }
            check(name, target, b"", "nothing");
        }
    }

    #[test]
    fn every_target_holds_on_mutants_of_its_corpus() {
        let seed = std::env::var("HARDTACK_FUZZ_SEED").map_or(3, |seed| seed.parse().unwrap());
        for (name, target) in TARGETS {
            let (corpus, mut rng) = (corpus(name), Rng::with_seed(seed));
            for round in 0..ROUNDS {
                let mutant = mutant(&corpus, &mut rng);
                check(
                    name,
                    target,
                    &mutant,
                    &format!("HARDTACK_FUZZ_SEED={seed}, round {round}"),
                );
            }
        }
    }

    #[test]
    fn no_target_takes_more_than_linear_time() {
        for (name, target) in TARGETS {
            for input in corpus(name).iter().filter(|input| !input.is_empty()) {
                // As one long line, and as many short ones.
                for end in [&b""[..], b"\n"] {
                    let piece = [input.trim_ascii_end(), end].concat();
                    let count = LONG_BYTES / piece.len().max(1);
                    let began = Instant::now();
                    check(name, target, &piece.repeat(count), "repeated");
                    let took = began.elapsed();
                    let shown = input.escape_ascii();
                    assert!(
                        took < LONG_LIMIT,
                        "{name}: {took:?} for \"{shown}\" times {count}"
                    );
                }
            }
        }
    }

    fn mutant(corpus: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
        let mut bytes = corpus[rng.usize(..corpus.len())].clone();
        for _ in 0..rng.usize(1..6) {
            let at = rng.usize(..=bytes.len());
            let end = at + rng.usize(..=(bytes.len() - at).min(16));
            match rng.u8(..6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
                1 => drop(bytes.drain(at..end)),
                2 => drop(bytes.splice(at..at, PIECES[rng.usize(..PIECES.len())].iter().copied())),
                3 => drop(bytes.splice(at..end, [rng.u8(..)])),
                4 => {
                    let again = bytes[at..end].repeat(rng.usize(1..4));
                    bytes.splice(at..at, again);
                }
                _ => {
                    let other = &corpus[rng.usize(..corpus.len())];
                    let from = rng.usize(..=other.len());
                    bytes.truncate(at);
                    bytes.extend(&other[from..]);
                }
            }
            bytes.truncate(MUTANT_MAX_BYTES);
        }
        bytes
    }
}
