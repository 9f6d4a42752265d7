//! Follows the framing of HTTP/1 requests as their bytes pass, beside hyper's parser.
//!
//! hyper drops a Content-Length that stands with a Transfer-Encoding (and closes afterwards), so the handler cannot see
//! that the message was ambiguous. RFC 9112 section 6.3 lets a server refuse such a message, and we do. The follower
//! also says where in a message the connection is, which the timers need. It decides nothing else: should it ever lose
//! the thread it stops following, and hyper's own rules remain.

use memchr::memchr;

/// Where in a message the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// Between messages: no byte of the next one has come.
    Between,
    /// In a head.
    Head,
    /// In a body.
    Body,
    /// Not followed: upgraded, HTTP/2, or malformed.
    Unfollowed,
}

/// The follower. Bounds: it keeps one line of at most [`LINE_MAX`] bytes.
#[derive(Debug)]
pub(crate) struct Framing {
    state: State,
    line: Vec<u8>,
    content_length: Option<u64>,
    chunked: bool,
    head_bytes: usize,
    heads: u64,
    ambiguous: bool,
}

/// Only the beginning of a line matters: a field name and a number, or a chunk size.
const LINE_MAX: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Sized(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    Lost,
}

impl Default for Framing {
    fn default() -> Self {
        Self {
            state: State::Head,
            line: Vec::new(),
            content_length: None,
            chunked: false,
            head_bytes: 0,
            heads: 0,
            ambiguous: false,
        }
    }
}

impl Framing {
    /// Where the connection is after the bytes seen so far.
    pub(crate) const fn position(&self) -> Position {
        match self.state {
            State::Head if self.head_bytes == 0 => Position::Between,
            State::Head => Position::Head,
            State::Lost => Position::Unfollowed,
            _ => Position::Body,
        }
    }

    /// Heads that have been read to their end.
    pub(crate) const fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether any message on this connection had both a Content-Length and a Transfer-Encoding.
    pub(crate) const fn saw_ambiguity(&self) -> bool {
        self.ambiguous
    }

    /// Stops following: the connection no longer carries HTTP/1 messages.
    pub(crate) fn stop(&mut self) {
        self.state = State::Lost;
    }

    /// Takes in one whole head of a message without a body, between two others.
    pub(crate) fn note_head(&mut self) {
        self.heads += 1;
    }

    /// Takes in bytes in the order they came.
    pub(crate) fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Lost => return,
                State::Sized(left) => self.skip(bytes, left, State::Sized, State::Head),
                State::ChunkData(left) => self.skip(bytes, left, State::ChunkData, State::ChunkEnd),
                State::Head | State::ChunkSize | State::ChunkEnd | State::Trailers => {
                    self.take_line(bytes)
                }
            };
        }
    }

    fn skip<'a>(
        &mut self,
        bytes: &'a [u8],
        left: u64,
        more: fn(u64) -> State,
        then: State,
    ) -> &'a [u8] {
        let here = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let left = left - here as u64;
        self.state = if left == 0 { then } else { more(left) };
        &bytes[here..]
    }

    fn take_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let end = memchr(b'\n', bytes);
        let (part, rest) = end.map_or((bytes, &[][..]), |end| (&bytes[..end], &bytes[end + 1..]));
        if self.state == State::Head {
            self.head_bytes += bytes.len() - rest.len();
        }
        if end.is_some() && self.line.is_empty() && part.len() <= LINE_MAX {
            self.line_ended(part);
            return rest;
        }
        self.keep(part);
        if end.is_some() {
            let line = std::mem::take(&mut self.line);
            self.line_ended(&line);
            self.line = line;
            self.line.clear();
        }
        rest
    }

    /// Keeps the beginning of a line that is long or comes in several reads. Padding before a number is not kept: it would push the
    /// number out of reach, and the follower off the thread.
    fn keep(&mut self, part: &[u8]) {
        for byte in part {
            if self.line.len() == LINE_MAX {
                return;
            }
            let is_padding = match (self.state, self.line.as_slice()) {
                (State::Head, [.., b':']) => byte.is_ascii_whitespace(),
                (State::Head, [.., b':', b'0']) | (State::ChunkSize, [b'0']) => *byte == b'0',
                _ => false,
            };
            if !is_padding {
                self.line.push(*byte);
            }
        }
    }

    fn line_ended(&mut self, line: &[u8]) {
        // To the library this is no end of the trailers, but the beginning of another one.
        if self.state == State::Trailers && line.is_empty() {
            self.state = State::Lost;
            return;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match self.state {
            State::Head if line.is_empty() => self.head_ended(),
            State::Head => self.field(line),
            State::ChunkSize => {
                self.state = match chunk_size(line) {
                    Some(0) => State::Trailers,
                    Some(size) => State::ChunkData(size),
                    None => State::Lost,
                }
            }
            State::ChunkEnd => self.state = State::ChunkSize,
            State::Trailers if line.is_empty() => self.state = State::Head,
            _ => {}
        }
    }

    fn field(&mut self, line: &[u8]) {
        // Every line of every head comes by.
        if !matches!(line.first(), Some(b'c' | b'C' | b't' | b'T')) {
            return;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let value = std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse().ok());
            self.content_length = Some(value.unwrap_or(0));
        }
    }

    fn head_ended(&mut self) {
        // An empty line before a request line is skipped (RFC 9112 section 2.2).
        let was_blank = self.head_bytes <= 2;
        self.head_bytes = 0;
        if was_blank {
            return;
        }
        self.heads += 1;
        self.ambiguous |= self.chunked && self.content_length.is_some();
        self.state = match (
            std::mem::take(&mut self.chunked),
            self.content_length.take(),
        ) {
            (true, _) => State::ChunkSize,
            (false, Some(length)) if length > 0 => State::Sized(length),
            _ => State::Head,
        };
    }
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or(line)
        .trim_ascii();
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::{Framing, Position};

    /// Feeds the text whole and then byte by byte: where reads are cut must not matter.
    fn check(text: &str, position: Position, ambiguous: bool) {
        let mut whole = Framing::default();
        whole.follow(text.as_bytes());
        let mut bytewise = Framing::default();
        for byte in text.as_bytes() {
            bytewise.follow(std::slice::from_ref(byte));
        }
        for framing in [whole, bytewise] {
            assert_eq!(framing.position(), position, "{text:?}");
            assert_eq!(framing.saw_ambiguity(), ambiguous, "{text:?}");
        }
    }

    #[test]
    fn the_position_in_a_message_is_known() {
        check("", Position::Between, false);
        check("GET / HTTP/1.1\r\nHost: a\r\n", Position::Head, false);
        check(
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            Position::Between,
            false,
        );
        check(
            "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc",
            Position::Body,
            false,
        );
        check(
            "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde",
            Position::Between,
            false,
        );
        check(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nabcde\r\n",
            Position::Body,
            false,
        );
        check(
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nT: v\r\n\r\n",
            Position::Between,
            false,
        );
        check(
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            Position::Unfollowed,
            false,
        );
        check(
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\n",
            Position::Unfollowed,
            false,
        );
        check("\r\nGET / HTTP/1.1\r\n", Position::Head, false);
    }

    #[test]
    fn a_body_that_looks_like_a_head_is_not_taken_for_one() {
        check(
            "POST / HTTP/1.1\r\nContent-Length: 48\r\n\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nGET",
            Position::Head,
            false,
        );
    }

    #[test]
    fn padding_hides_no_number() {
        // A line cut between two reads was kept without its number, and the body taken for the next head.
        for padding in [
            " ".repeat(200),
            "0".repeat(200),
            " ".repeat(100) + &"0".repeat(100),
        ] {
            let sized = format!("POST / HTTP/1.1\r\nContent-Length:{padding}9\r\n\r\nabc");
            check(&sized, Position::Body, false);
        }
        let zeros = "0".repeat(200);
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(
            &format!("{chunked}{zeros}3\r\nabc\r\n"),
            Position::Body,
            false,
        );
        check(
            &format!("{chunked}{zeros}\r\n\r\n"),
            Position::Between,
            false,
        );
    }

    #[test]
    fn two_framings_in_one_message_are_seen_in_either_order() {
        check(
            "P / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            Position::Body,
            true,
        );
        check(
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            Position::Body,
            true,
        );
        let pipelined = "GET / HTTP/1.1\r\nHost: a\r\n\r\nP / HTTP/1.1\r\nTransfer-Encoding: chunked\r\ncontent-length: 1\r\n\r\n";
        check(pipelined, Position::Body, true);
    }
}
