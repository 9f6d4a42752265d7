//! Fuzz targets of the message layer; see [`crate::fuzzing`].

use http::{HeaderName, header};

use super::{framing::Framing, outgoing::remove_hop_by_hop};
use crate::fuzzing::fields;

/// The bytes of a connection: where reads are cut does not matter.
pub(crate) fn framing(input: &[u8]) {
    let mut whole = Framing::default();
    whole.follow(input);
    let mut bytewise = Framing::default();
    input
        .iter()
        .for_each(|byte| bytewise.follow(std::slice::from_ref(byte)));
    let mut halves = Framing::default();
    let (first, second) = input.split_at(input.len() / 2);
    halves.follow(first);
    halves.follow(second);
    for other in [bytewise, halves] {
        assert_eq!(other.position(), whole.position());
        assert_eq!(other.heads(), whole.heads());
        assert_eq!(other.saw_ambiguity(), whole.saw_ambiguity());
    }
    // Every head has an end of its own.
    let ends = input.iter().filter(|byte| **byte == b'\n').count();
    assert!(whole.heads() <= ends as u64);
}

/// A head: what concerns one connection is gone, what it may not take with it is not.
pub(crate) fn hop_by_hop(input: &[u8]) {
    let received = fields(input);
    let mut headers = received.clone();
    remove_hop_by_hop(&mut headers);
    let again = {
        let mut again = headers.clone();
        remove_hop_by_hop(&mut again);
        again
    };
    assert_eq!(again, headers);
    for name in [
        header::CONNECTION,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::PROXY_AUTHORIZATION,
        HeaderName::from_static("keep-alive"),
    ] {
        assert!(!headers.contains_key(&name), "{name}");
    }
    for name in [
        header::AUTHORIZATION,
        header::COOKIE,
        header::HOST,
        header::CACHE_CONTROL,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::VARY,
        header::SET_COOKIE,
    ] {
        assert!(
            headers
                .get_all(&name)
                .iter()
                .eq(received.get_all(&name).iter()),
            "{name}"
        );
    }
    // Nothing is added, and what stays stays whole and in order.
    for name in headers.keys() {
        assert!(
            headers
                .get_all(name)
                .iter()
                .eq(received.get_all(name).iter()),
            "{name}"
        );
    }
}
