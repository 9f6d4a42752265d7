//! Fuzz target of the fixed-size rows and of the index of URIs; see [`crate::fuzzing`].

use super::{
    State, Usage, parse_uri_row,
    tables::{recency_id, recency_row, uri_row},
};
use crate::{
    fuzzing::parts,
    policy::{CacheKey, Mark},
    store::id::{RECORD_ID_BYTES, RecordId},
};

const ID: RecordId = RecordId([7; RECORD_ID_BYTES]);

/// Rows are read as they were written, or not at all. Of a URI and a partition a row of the index is made.
pub(crate) fn row(input: &[u8]) {
    numbers(input);
    if let Some((key, id)) = parse_uri_row(input)
        && is_graphic(key.uri())
        && is_graphic(key.partition().unwrap_or_default())
    {
        assert_eq!(parse_uri_row(&uri_row(&key, id)), Some((key, id)));
    }
    let mut parts = parts(input).filter_map(|part| std::str::from_utf8(part).ok());
    let (Some(uri), Some(partition)) = (parts.next(), parts.next()) else {
        return;
    };
    if is_graphic(uri) && is_graphic(partition) {
        let key = match partition {
            "" => CacheKey::from_text(uri),
            partition => CacheKey::from_text(&format!("~{partition} {uri}")),
        };
        let row = uri_row(&key, ID);
        assert!(row.starts_with(uri.as_bytes()), "found by prefix");
        assert_eq!(parse_uri_row(&row), Some((key, ID)));
    }
}

/// Whether it is as the proxy makes URIs and partitions: without white space or controls. No scheme begins with a tilde.
fn is_graphic(text: &str) -> bool {
    !text.starts_with('~') && text.bytes().all(|byte| byte > b' ' && byte != 0x7f)
}

fn numbers(input: &[u8]) {
    let mut words = input
        .chunks_exact(8)
        .filter_map(|word| word.first_chunk::<8>());
    let mut word = || words.next().map_or(0, |word| u64::from_le_bytes(*word));
    let usage = Usage {
        turn: word(),
        hits: word(),
        stored_at: word().cast_signed(),
        cost: word(),
        body_bytes: word(),
        body_file: word(),
        mark: match input.len() % 3 {
            0 => Mark::None,
            1 => Mark::Stale,
            _ => Mark::Invalid,
        },
    };
    let row = usage.encode(ID);
    assert_eq!(Usage::decode(ID, &row), Some(usage));
    let state = State {
        seed: word(),
        bytes: word(),
        turn: usage.turn,
    };
    let state_row = state.encode();
    assert_eq!(State::decode(&state_row), Some(state));
    let bit = input.iter().map(|byte| usize::from(*byte)).sum::<usize>();
    assert_eq!(Usage::decode(ID, &flipped(row, bit)), None);
    assert_eq!(State::decode(&flipped(state_row, bit)), None);
    assert_eq!(recency_id(&recency_row(usage.turn, ID)), ID);
}

fn flipped<const N: usize>(mut row: [u8; N], bit: usize) -> [u8; N] {
    let bit = bit % (N * 8);
    row[bit / 8] ^= 1 << (bit % 8);
    row
}
