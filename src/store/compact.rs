//! Fields in memory of their own. As they come from the HTTP library each value is a slice of the connection's read
//! buffer and keeps the whole of it alive: 8 KiB for a head of 200 bytes.

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue};

/// Fields that an answer has besides those stored: Age, Cache-Status, Via, and the length.
const ADDED_FIELDS: usize = 4;

/// The same fields, with all values in one allocation of exactly their size. A copy takes [`ADDED_FIELDS`] more without
/// being hashed anew.
pub(super) fn compact(fields: &HeaderMap) -> HeaderMap {
    let size = fields.values().map(HeaderValue::len).sum();
    let mut buffer = BytesMut::with_capacity(size);
    for value in fields.values() {
        buffer.extend_from_slice(value.as_bytes());
    }
    let mut buffer = buffer.freeze();
    let mut compact = HeaderMap::with_capacity(fields.len() + ADDED_FIELDS);
    for (name, value) in fields {
        let own = buffer.split_to(value.len());
        let mut own =
            HeaderValue::from_maybe_shared(own).expect("it was the value of a field before");
        own.set_sensitive(value.is_sensitive());
        compact.append(name, own);
    }
    // A clone keeps the room of the index, which is small, and not that of the fields.
    compact.clone()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, header};

    use super::compact;

    #[test]
    fn every_field_stays_in_its_order_and_none_shares_the_buffer_it_came_in() {
        let read = Bytes::from(vec![b'v'; 8 * 1024]);
        let mut fields = HeaderMap::new();
        fields.append(
            header::ETAG,
            HeaderValue::from_maybe_shared(read.slice(0..3)).unwrap(),
        );
        fields.append("x-own", HeaderValue::from_static("1"));
        fields.append(header::VARY, HeaderValue::from_static("a"));
        fields.append(header::VARY, HeaderValue::from_static("b"));
        fields.append("x-empty", HeaderValue::from_static(""));
        let compacted = compact(&fields);
        assert_eq!(compacted, fields);
        let varied: Vec<_> = compacted.get_all(header::VARY).iter().collect();
        assert_eq!(varied, ["a", "b"]);
        drop(fields);
        assert!(read.is_unique(), "the read buffer is still alive");
    }
}
