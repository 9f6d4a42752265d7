//! Records: a stored response as one value of the disk tier.
//!
//! ```text
//! version u8 | length of the head u32 | key, terms, head, variant (postcard) | inline body | xxh3-64 of the record's name and all before
//! ```
//!
//! Everything is little-endian. The name takes part in the checksum, so a record that turns up under another name is
//! corrupt too. What changes more often than the response (marks, use) is not in here but in its usage row.

use bytes::Bytes;
use http::{StatusCode, header::SET_COOKIE};
use serde::{Deserialize, Serialize, Serializer};
use xxhash_rust::xxh3::Xxh3;

use super::{
    id::RecordId,
    resource::{BLOCK_BYTES, BodyFile},
};
use crate::policy::{CacheKey, Mark, StoredFields, StoredHead, Terms, Timestamp, VariantKey};

/// The version of the layout above, and of what postcard makes of the types in it.
const VERSION: u8 = 2;

const PREFIX_BYTES: usize = 1 + 4;
const CHECKSUM_BYTES: usize = 8;

/// A decoded record.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) key: CacheKey,
    /// Its mark is [`Mark::None`]: the usage row has the mark.
    pub(super) head: StoredHead,
    pub(super) body: RecordBody,
}

/// The body, or where it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RecordBody {
    Inline(Bytes),
    File(BodyFile),
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CodecError {
    #[error("the checksum does not match")]
    Checksum,
    #[error("record version {0} is not known")]
    Version(u8),
    #[error("the record is malformed")]
    Malformed,
}

#[derive(Serialize, Deserialize)]
struct HeadOnDisk<'a> {
    status: u16,
    #[serde(borrow)]
    fields: Vec<(&'a str, Raw<'a>)>,
    request_time: Timestamp,
    response_time: Timestamp,
    authorized: bool,
    body: BodyOnDisk,
}

#[derive(Serialize, Deserialize)]
enum BodyOnDisk {
    Inline,
    File { id: u64, len: u64, blocks: Vec<u64> },
}

/// Bytes in one piece; serde would take `&[u8]` for a sequence of numbers.
#[derive(Deserialize)]
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// The record of a response with its body inline.
pub(super) fn encode_inline(
    id: RecordId,
    key: &CacheKey,
    head: &StoredHead,
    body: &[u8],
) -> Vec<u8> {
    encode(id, key, head, BodyOnDisk::Inline, body)
}

/// The record of a response whose body is in a file.
pub(super) fn encode_with_file(
    id: RecordId,
    key: &CacheKey,
    head: &StoredHead,
    file: &BodyFile,
) -> Vec<u8> {
    let body = BodyOnDisk::File {
        id: file.id,
        len: file.len,
        blocks: file.blocks.to_vec(),
    };
    encode(id, key, head, body, &[])
}

fn encode(
    id: RecordId,
    key: &CacheKey,
    head: &StoredHead,
    body: BodyOnDisk,
    inline: &[u8],
) -> Vec<u8> {
    let on_disk = HeadOnDisk {
        status: head.status.as_u16(),
        fields: head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), Raw(value)))
            .collect(),
        request_time: head.request_time,
        response_time: head.response_time,
        authorized: head.authorized,
        body,
    };
    let mut record = Vec::with_capacity(inline.len() + 1024);
    record.push(VERSION);
    record.extend([0; 4]);
    // Each on its own, and first what `filed` needs, which then need not decode the rest.
    record = append(record, &key.as_str());
    record = append(record, &head.terms);
    record = append(record, &on_disk);
    record = append(record, &head.variant);
    let head_len = u32::try_from(record.len() - PREFIX_BYTES).expect("heads are far below 4 GiB");
    record[1..PREFIX_BYTES].copy_from_slice(&head_len.to_le_bytes());
    record.extend(inline);
    let checksum = checksum(id, &record);
    record.extend(checksum);
    record
}

fn append<T: Serialize>(record: Vec<u8>, value: &T) -> Vec<u8> {
    postcard::to_extend(value, record).expect("plain data without maps always serialises")
}

/// The record in `bytes`, found under the name `id`.
pub(super) fn decode(id: RecordId, bytes: &[u8]) -> Result<Record, CodecError> {
    let (version, content) = verified(id, bytes)?;
    if version != VERSION {
        return Err(CodecError::Version(version));
    }
    let (head, inline) = split_head(content).ok_or(CodecError::Malformed)?;
    decode_content(head, inline).ok_or(CodecError::Malformed)
}

/// The key and the terms of a record, unverified: to find its other rows when it is removed.
pub(super) fn filed(bytes: &[u8]) -> Option<(CacheKey, Terms)> {
    let (head, _) = split_head(bytes.get(1..)?)?;
    let (key, terms, _) = decode_filed(head)?;
    Some((CacheKey::from_text(key), terms))
}

/// The key, the terms, and what follows them.
fn decode_filed(head: &[u8]) -> Option<(&str, Terms, &[u8])> {
    let (key, rest) = postcard::take_from_bytes::<&str>(head).ok()?;
    let (terms, rest) = postcard::take_from_bytes::<Terms>(rest).ok()?;
    Some((key, terms, rest))
}

/// The version and what stands between it and the checksum, which is right.
fn verified(id: RecordId, bytes: &[u8]) -> Result<(u8, &[u8]), CodecError> {
    let (content, expected) = bytes
        .split_last_chunk::<CHECKSUM_BYTES>()
        .ok_or(CodecError::Malformed)
        .map(|(content, expected)| (content, *expected))?;
    if checksum(id, content) != expected {
        return Err(CodecError::Checksum);
    }
    let (version, content) = content.split_first().ok_or(CodecError::Malformed)?;
    Ok((*version, content))
}

fn split_head(content: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head_len, rest) = content.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*head_len)).ok()?)
}

fn decode_content(head: &[u8], inline: &[u8]) -> Option<Record> {
    let (key, terms, rest) = decode_filed(head)?;
    let (on_disk, rest) = postcard::take_from_bytes::<HeadOnDisk<'_>>(rest).ok()?;
    let (variant, rest) = postcard::take_from_bytes::<VariantKey>(rest).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let body = decode_body(on_disk.body, inline)?;
    let lines = on_disk.fields.iter().map(|(name, value)| (*name, value.0));
    let headers = StoredFields::from_lines(lines)?;
    let head = StoredHead {
        status: StatusCode::from_u16(on_disk.status).ok()?,
        sets_cookie: headers.contains_key(SET_COOKIE),
        headers,
        request_time: on_disk.request_time,
        response_time: on_disk.response_time,
        variant,
        authorized: on_disk.authorized,
        mark: Mark::None,
        terms,
    };
    Some(Record {
        key: CacheKey::from_text(key),
        head,
        body,
    })
}

fn decode_body(body: BodyOnDisk, inline: &[u8]) -> Option<RecordBody> {
    let BodyOnDisk::File { id, len, blocks } = body else {
        return Some(RecordBody::Inline(Bytes::copy_from_slice(inline)));
    };
    let blocks_expected = len.div_ceil(BLOCK_BYTES as u64);
    (inline.is_empty() && blocks_expected == blocks.len() as u64).then(|| {
        RecordBody::File(BodyFile {
            id,
            len,
            blocks: blocks.into(),
        })
    })
}

fn checksum(id: RecordId, content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = Xxh3::new();
    hasher.update(&id.0);
    hasher.update(content);
    hasher.digest().to_le_bytes()
}

/// `content` as it would be with a checksum of ours, whatever it is: to look behind the checksum.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn sealed(id: RecordId, content: &[u8]) -> Vec<u8> {
    [content, &checksum(id, content)].concat()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, StatusCode};
    use proptest::{collection::vec, prelude::*};

    use super::{CodecError, Record, RecordBody, decode, encode_inline, encode_with_file, filed};
    use crate::{
        policy::{
            CacheKey, Mark, Settings, StoredFields, StoredHead, Terms, Timestamp, VariantKey,
        },
        store::{
            id::RecordId,
            resource::{BLOCK_BYTES, BodyFile},
        },
    };

    const ID: RecordId = RecordId([3; 24]);

    fn key() -> CacheKey {
        CacheKey::from_text("~p http://a.example/?q")
    }

    fn head(fields: &[(&str, &[u8])]) -> StoredHead {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        let (status, time) = (StatusCode::IM_A_TEAPOT, Timestamp::from_secs(1_000));
        StoredHead {
            status,
            request_time: Timestamp::from_millis(-7),
            response_time: Timestamp::from_millis(i64::MAX),
            variant: VariantKey::default(),
            authorized: true,
            sets_cookie: headers.contains_key("set-cookie"),
            mark: Mark::Invalid,
            terms: Terms::parse(status, &headers, &Settings::default(), time, time),
            headers: StoredFields::from(&headers),
        }
    }

    fn check(record: &Record, head: &StoredHead) {
        assert_eq!(record.key, key());
        assert_eq!(record.head.status, head.status);
        assert_eq!(record.head.headers, head.headers);
        assert_eq!(record.head.request_time, head.request_time);
        assert_eq!(record.head.response_time, head.response_time);
        assert_eq!(record.head.variant, head.variant);
        assert_eq!(record.head.authorized, head.authorized);
        assert_eq!(record.head.sets_cookie, head.sets_cookie);
        assert_eq!(record.head.mark, Mark::None, "the usage row has it");
        assert_eq!(record.head.terms, head.terms);
    }

    fn body_file() -> BodyFile {
        BodyFile {
            id: 5,
            len: BLOCK_BYTES as u64 + 1,
            blocks: [1, u64::MAX].into(),
        }
    }

    #[test]
    fn a_record_gives_back_what_it_was_made_of() {
        let head = head(&[("a", b"1"), ("b", b""), ("a", b"\xff\x80 2")]);
        let record = decode(ID, &encode_inline(ID, &key(), &head, b"body")).unwrap();
        check(&record, &head);
        assert_eq!(record.body, RecordBody::Inline(Bytes::from("body")));
        let record = decode(ID, &encode_with_file(ID, &key(), &head, &body_file())).unwrap();
        check(&record, &head);
        assert_eq!(record.body, RecordBody::File(body_file()));
    }

    #[test]
    fn a_record_gives_back_what_its_fields_mean_for_caching() {
        let head = head(&[
            ("cache-control", b"max-age=60, stale-if-error=5, no-cache"),
            ("age", b"7"),
            ("etag", b"\"x\""),
            ("surrogate-key", b"a \xff b"),
            ("cache-groups", b"\"g\", \"h\""),
            ("no-vary-search", b"key-order, params=(\"utm\")"),
        ]);
        assert_eq!(head.terms.tags.tags.listed().len(), 3);
        assert_eq!(head.terms.tags.groups.listed().len(), 2);
        assert!(head.terms.search.is_some() && head.terms != Terms::default());
        let record = encode_inline(ID, &key(), &head, b"body");
        check(&decode(ID, &record).unwrap(), &head);
        assert_eq!(filed(&record), Some((key(), head.terms.clone())));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let head = head(&[("etag", b"\"x\""), ("vary", b"accept")]);
        for record in [
            encode_inline(ID, &key(), &head, b"a body"),
            encode_with_file(ID, &key(), &head, &body_file()),
        ] {
            for bit in 0..record.len() * 8 {
                let mut record = record.clone();
                record[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(
                    decode(ID, &record).unwrap_err(),
                    CodecError::Checksum,
                    "{bit}"
                );
            }
            for len in 0..record.len() {
                assert!(decode(ID, &record[..len]).is_err(), "{len}");
            }
            assert!(decode(RecordId([4; 24]), &record).is_err(), "another name");
        }
    }

    #[test]
    fn what_it_is_filed_under_is_found_without_the_rest() {
        let head = head(&[]);
        let record = encode_inline(ID, &key(), &head, b"body");
        assert_eq!(filed(&record), Some((key(), head.terms)));
        assert_eq!(filed(b""), None);
    }

    #[test]
    fn another_version_is_told_from_corruption() {
        let mut record = encode_inline(ID, &key(), &head(&[]), b"body");
        record[0] = 9;
        let end = record.len() - super::CHECKSUM_BYTES;
        let checksum = super::checksum(ID, &record[..end]);
        record[end..].copy_from_slice(&checksum);
        assert_eq!(decode(ID, &record).unwrap_err(), CodecError::Version(9));
    }

    proptest! {
        #[test]
        fn bytes_that_are_no_record_are_refused_and_nothing_worse(mut bytes in vec(any::<u8>(), 0..400)) {
            prop_assert!(decode(ID, &bytes).is_err());
            let _ = filed(&bytes);
            // Past the checksum, where decoding begins.
            if let Some(first) = bytes.first_mut() {
                *first = super::VERSION;
            }
            let checksum = super::checksum(ID, &bytes);
            bytes.extend(checksum);
            let _ = decode(ID, &bytes);
        }

        #[test]
        fn a_record_altered_under_its_checksum_is_refused_or_read_but_never_panics(
            at in 0_usize..300,
            new in any::<u8>(),
        ) {
            let head = head(&[("etag", b"\"x\""), ("x", b"y")]);
            let mut record = encode_with_file(ID, &key(), &head, &body_file());
            let end = record.len() - super::CHECKSUM_BYTES;
            record[at % end] = new;
            let checksum = super::checksum(ID, &record[..end]);
            record[end..].copy_from_slice(&checksum);
            let _ = decode(ID, &record);
        }

        #[test]
        fn any_fields_and_body_survive(
            fields in vec(("[a-z][a-z0-9-]{0,8}", vec(0x20_u8..0x7f, 0..30)), 0..20),
            body in vec(any::<u8>(), 0..500),
        ) {
            let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), &value[..])).collect();
            let head = head(&fields);
            let record = decode(ID, &encode_inline(ID, &key(), &head, &body)).unwrap();
            check(&record, &head);
            prop_assert_eq!(record.body, RecordBody::Inline(body.into()));
        }
    }
}
