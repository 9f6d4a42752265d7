//! The codec, for the micro-benchmarks; see [`crate::benchmarks`].

use super::{
    codec::{self, CodecError, Record},
    id::RecordId,
};
use crate::policy::{CacheKey, StoredHead};

const ID: RecordId = RecordId([7; 24]);

pub(crate) fn encode(key: &CacheKey, head: &StoredHead, body: &[u8]) -> Vec<u8> {
    codec::encode_inline(ID, key, head, body)
}

pub(crate) fn decode(record: &[u8]) -> impl Sized + use<> {
    let found: Result<Record, CodecError> = codec::decode(ID, record);
    found.expect("the record was made here")
}
