//! The head of a hit as it goes over the wire: what [`respond`] makes of a stored response and the HTTP library then writes,
//! without a table of fields in between.

use bytes::BufMut;
use http::{StatusCode, Version, header};

use crate::{
    policy::{Answer, RequestHead, StoredHead, answer_conditionally},
    proxy::{cache_status::CACHE_STATUS, hit::Found, identity::via_downstream, respond},
};

/// How a stored response answers, if that is written here.
pub(super) fn answer(request: &RequestHead<'_>, stored: &StoredHead) -> Option<Answer> {
    if stored.is_part() || stored.status == StatusCode::NO_CONTENT {
        return None;
    }
    let answer = answer_conditionally(request, stored);
    (answer != Answer::PreconditionFailed).then_some(answer)
}

/// Writes the head of the whole response, whose body has so many bytes, or of the 304; its status.
pub(super) fn write_head(
    out: &mut Vec<u8>,
    answer: Answer,
    found: &Found,
    body_bytes: usize,
) -> StatusCode {
    let stored = &found.stored().head;
    let is_full = answer == Answer::Full;
    let status = if is_full {
        stored.status
    } else {
        StatusCode::NOT_MODIFIED
    };
    status_line(out, status);
    for (name, value) in stored.headers.iter() {
        let is_replaced = *name == header::AGE || *name == header::CONTENT_LENGTH;
        if !is_replaced && (is_full || !respond::OF_CONTENT.contains(name)) {
            line(out, name.as_str(), value);
        }
    }
    let mut digits = itoa::Buffer::new();
    if is_full {
        line(out, "content-length", digits.format(body_bytes).as_bytes());
    }
    line(out, "age", digits.format(found.reuse.age_secs).as_bytes());
    out.put_slice(CACHE_STATUS.as_str().as_bytes());
    out.put_slice(b": ");
    found.cache_status().write(out);
    out.put_slice(b"\r\n");
    line(out, "via", via_downstream(Version::HTTP_11).as_bytes());
    out.put_slice(b"\r\n");
    status
}

fn status_line(out: &mut Vec<u8>, status: StatusCode) {
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    // As the HTTP library writes it for a status without a name.
    let reason = status.canonical_reason().unwrap_or("<none>");
    out.put_slice(reason.as_bytes());
    out.put_slice(b"\r\n");
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}
