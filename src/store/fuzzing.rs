//! Fuzz targets of the formats on disk; see [`crate::fuzzing`].

use http::Method;

pub(crate) use super::disk::fuzzing::row;
use super::{
    codec::{self, CodecError, Record, RecordBody},
    id::RecordId,
    resource::{BLOCK_BYTES, BodyFile},
};
use crate::{
    fuzzing::{fields, parts},
    policy::{CacheKey, RequestHead, ResponseHead, Settings, StoredHead, Timestamp},
};

const ID: RecordId = RecordId([7; 24]);

/// Records. Of a request's fields, a response's and a body, a record is made that gives them back and bears no flipped
/// bit; and bytes that only claim to be a record are refused or read, and what was read is written again alike.
pub(crate) fn record(input: &[u8]) {
    let mut parts = parts(input);
    let request = fields(parts.next().unwrap_or_default());
    let response = fields(parts.next().unwrap_or_default());
    let body = parts.next().unwrap_or_default();
    let head = StoredHead::new(
        &RequestHead::new(&Method::GET, &request, false),
        &ResponseHead {
            status: http::StatusCode::OK,
            headers: &response,
            request_time: Timestamp::from_millis(i64::MIN),
            response_time: Timestamp::from_millis(-1),
        },
        &Settings::default(),
    );
    let key = CacheKey::from_text(&format!("http://a.example/{}", body.escape_ascii()));
    let file = BodyFile {
        id: body.len() as u64,
        len: (BLOCK_BYTES * body.len().min(9)) as u64,
        blocks: body.iter().take(9).map(|byte| u64::from(*byte)).collect(),
    };
    for record in [
        codec::encode_inline(ID, &key, &head, body),
        codec::encode_with_file(ID, &key, &head, &file),
    ] {
        check(&record, &key, &head);
    }
    claimed(input);
}

fn check(record: &[u8], key: &CacheKey, head: &StoredHead) {
    let found = codec::decode(ID, record).expect("a record is one");
    assert_eq!(&found.key, key);
    let filed = codec::filed(record).expect("a record says where it is filed");
    assert_eq!((&filed.0, &filed.1), (key, &head.terms));
    assert_eq!(found.head.headers, head.headers);
    assert_eq!(found.head.variant, head.variant);
    assert_eq!(found.head.terms, head.terms);
    assert_eq!(found.head.response_time, head.response_time);
    assert_eq!(encoded(&found), record);
    assert!(
        codec::decode(RecordId([8; 24]), record).is_err(),
        "another name"
    );
    // A handful of places is enough here; every bit of one record is a test of the codec's.
    for at in (0..record.len()).step_by(record.len().div_ceil(13)) {
        let mut altered = record.to_vec();
        altered[at] ^= 1 << (at % 8);
        assert_eq!(
            codec::decode(ID, &altered).expect_err("an altered record"),
            CodecError::Checksum,
            "{at}"
        );
        assert!(codec::decode(ID, &record[..at]).is_err(), "{at}");
    }
}

fn claimed(bytes: &[u8]) {
    let _ = codec::filed(bytes);
    assert!(codec::decode(ID, bytes).is_err());
    let sealed = codec::sealed(ID, bytes);
    if let Ok(found) = codec::decode(ID, &sealed) {
        let again = codec::decode(ID, &encoded(&found)).expect("what was read can be written");
        assert_eq!(again.key, found.key);
        assert_eq!(again.head.headers, found.head.headers);
        assert_eq!(again.body, found.body);
    }
}

fn encoded(record: &Record) -> Vec<u8> {
    match &record.body {
        RecordBody::Inline(body) => codec::encode_inline(ID, &record.key, &record.head, body),
        RecordBody::File(file) => codec::encode_with_file(ID, &record.key, &record.head, file),
    }
}
