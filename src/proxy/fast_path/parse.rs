//! Reads a head that the fast path may answer, with the parser that hyper reads it with.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::Empty;
use httparse::{EMPTY_HEADER, Status};

/// What a request has that is answered here.
pub(super) type NoBody = Empty<Bytes>;

/// Fields of a head; one with more is hyper's.
const FIELDS_MAX: usize = 32;

/// Room for fields that a connection keeps.
const KEPT_FIELDS: usize = 16;

/// Reads into `request`, which is empty, what is one whole head of a GET or HEAD without body, after which the connection
/// stays as it is. `None` for anything else, and then something may be in `request`.
pub(super) fn request(read: &[u8], request: &mut Request<NoBody>) -> Option<()> {
    // Whatever else was read, told without the parser.
    if !(read.starts_with(b"GET ") || read.starts_with(b"HEAD ")) || !read.ends_with(b"\r\n\r\n") {
        return None;
    }
    // One copy, of which all values are slices.
    let text = Bytes::copy_from_slice(read);
    let mut lines = [EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut lines);
    let Ok(Status::Complete(end)) = parsed.parse(&text) else {
        return None;
    };
    if end != text.len() || parsed.version != Some(1) {
        return None;
    }
    *request.method_mut() = match parsed.method? {
        "GET" => Method::GET,
        "HEAD" => Method::HEAD,
        _ => return None,
    };
    *request.uri_mut() = Uri::from_maybe_shared(text.slice_ref(parsed.path?.as_bytes())).ok()?;
    for line in parsed.headers {
        let name = HeaderName::from_bytes(line.name.as_bytes()).ok()?;
        if !is_of_a_bare_read(&name, line.value) {
            return None;
        }
        let value = HeaderValue::from_maybe_shared(text.slice_ref(line.value)).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(())
}

/// Lets go of what was read, which is a copy of the whole head.
pub(super) fn clear(request: &mut Request<NoBody>) {
    let headers = request.headers_mut();
    if headers.capacity() > KEPT_FIELDS {
        *headers = HeaderMap::new();
    }
    headers.clear();
    *request.uri_mut() = Uri::default();
}

/// Whether a field leaves the framing and the connection as they are.
fn is_of_a_bare_read(name: &HeaderName, value: &[u8]) -> bool {
    match name.as_str() {
        "connection" => value.eq_ignore_ascii_case(b"keep-alive"),
        "content-length" | "transfer-encoding" | "expect" | "upgrade" => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Request};

    use super::{FIELDS_MAX, NoBody, clear, request};

    fn read(head: &str) -> Option<Request<NoBody>> {
        let mut read = Request::new(NoBody::new());
        request(head.replace('\n', "\r\n").as_bytes(), &mut read).map(|()| read)
    }

    #[test]
    fn a_bare_read_is_read_whole() {
        let read = read(
            "HEAD http://a.example/b?c HTTP/1.1\nHost: x\nConnection: Keep-Alive\nA: 1\na:  2 \nB:\n\n",
        );
        let mut read = read.unwrap();
        assert_eq!(*read.method(), Method::HEAD);
        assert_eq!(read.uri(), "http://a.example/b?c");
        assert_eq!(read.headers()["host"], "x");
        assert_eq!(read.headers()["b"], "");
        let values: Vec<_> = read.headers().get_all("a").iter().collect();
        assert_eq!(values, ["1", "2"]);
        clear(&mut read);
        assert!(read.headers().is_empty() && read.uri() == "/");
    }

    #[test]
    fn whatever_else_it_is_is_left_to_the_library() {
        let check = |head: &str, expected: bool| {
            assert_eq!(read(head).is_some(), expected, "{head:?}");
        };
        let with = |fields: &str| format!("GET /a HTTP/1.1\nHost: a\n{fields}\n");
        check(&with(""), true);
        check(&with("Connection: keep-alive\n"), true);
        for fields in [
            "Connection: close\n",
            "Connection: keep-alive, x\n",
            "Connection: keep-alive\nConnection: close\n",
            "Content-Length: 0\n",
            "Content-Length: 3\n\nabc",
            "Transfer-Encoding: chunked\n",
            "Expect: 100-continue\n",
            "Upgrade: x\n",
            "A : 1\n",
            "A: 1\n 2\n",
            "A: \u{0}\n",
            "A\n",
        ] {
            check(&with(fields), false);
        }
        check(&with("").replace("1.1", "1.0"), false);
        check(&with("").replace("GET", "POST"), false);
        check(&with("").replace("GET", "GETS"), false);
        check(&with("").replace("/a", "//[ a"), false);
        check(&format!("\n{}", with("")), false);
        check(&(with("") + &with("")), false);
        check(with("").trim_end(), false);
        check("", false);
        check(&with(&"A: 1\n".repeat(FIELDS_MAX - 1)), true);
        check(&with(&"A: 1\n".repeat(FIELDS_MAX)), false);
    }
}
