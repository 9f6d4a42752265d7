//! Patterns of paths, matched the slow way too.

use crate::{fuzzing::lines, policy::path_matches};

/// The longest pattern times the longest path that are matched the slow way, which takes as many steps.
const STEPS_MAX: usize = 1 << 18;

/// What a pattern is made of.
enum Piece {
    Byte(u8),
    /// `*`
    Within,
    /// `**`
    Across,
}

/// A pattern and a path, a line each.
pub(crate) fn path_pattern(input: &[u8]) {
    let mut lines = lines(input).map(|line| std::str::from_utf8(line).unwrap_or_default());
    let mut next = || lines.next().unwrap_or_default();
    let (pattern, path) = (next(), next());
    let found = path_matches(pattern, path);
    assert!(path_matches("**", path));
    if !pattern.contains('*') {
        assert_eq!(found, pattern == path);
    }
    if pattern.len().saturating_mul(path.len()) > STEPS_MAX {
        return;
    }
    // A directory is under itself.
    let is_parent = pattern
        .strip_suffix("/**")
        .is_some_and(|parent| !parent.contains('*') && parent == path);
    let expected = is_parent || takes(&pieces(pattern.as_bytes()), path.as_bytes());
    assert_eq!(found, expected, "{pattern:?} {path:?}");
    if found {
        // What crosses segments takes whatever stays within one.
        let wider = pattern.replace("**", "*").replace('*', "**");
        assert!(path_matches(&wider, path), "{wider:?} {path:?}");
    }
}

fn pieces(mut pattern: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    while let Some((first, after)) = pattern.split_first() {
        let (piece, rest) = match (first, after) {
            (b'*', [b'*', rest @ ..]) => (Piece::Across, rest),
            (b'*', rest) => (Piece::Within, rest),
            (byte, rest) => (Piece::Byte(*byte), rest),
        };
        pieces.push(piece);
        pattern = rest;
    }
    pieces
}

/// Whether the pieces take the whole path: from the last piece to the first, which ends of the path they take.
fn takes(pieces: &[Piece], path: &[u8]) -> bool {
    let mut ends: Vec<bool> = (0..=path.len()).map(|from| from == path.len()).collect();
    for piece in pieces.iter().rev() {
        let rest = ends.clone();
        for from in (0..=path.len()).rev() {
            let byte = path.get(from);
            let after = |ends: &[bool]| byte.is_some() && ends[from + 1];
            ends[from] = match piece {
                Piece::Byte(own) => byte == Some(own) && after(&rest),
                Piece::Within => rest[from] || (byte != Some(&b'/') && after(&ends)),
                Piece::Across => rest[from] || after(&ends),
            };
        }
    }
    ends[0]
}
