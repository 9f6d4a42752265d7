//! What the frames of an HTTP/2 connection say about the requests on it: which the origin has taken notice of.
//!
//! The library ends requests with "the origin said GOAWAY", but not only those above the last stream that the origin may
//! have processed: where GOAWAY arrives just as a request is handed over, that one is ended too, though the origin may
//! execute it. So the two numbers that tell them apart are read off the wire: the last stream that we opened, and the last
//! one that the origin admits to. A request that was ended by mistake is the last that was opened, hence never above it;
//! where nothing was opened above it, nothing is proven.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

// RFC 9113 sections 3.4, 4.1, 6.2 and 6.8.
const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;
const HEADERS: u8 = 0x1;
const GOAWAY: u8 = 0x7;
const GOAWAY_BYTES: usize = 8;
const RESERVED_BIT: u32 = 1 << 31;

/// The streams of one connection.
#[derive(Debug)]
pub(super) struct Streams {
    /// The last that we opened.
    opened: AtomicU32,
    /// The last that the origin has processed, or may yet process.
    admitted: AtomicU32,
}

/// A connection whose frames are noted in passing.
pub(super) struct Watched<T> {
    io: T,
    sent: Frames,
    received: Frames,
    streams: Arc<Streams>,
}

/// Finds the frames in a stream of bytes, however it is cut.
#[derive(Debug)]
struct Frames {
    /// What of the stream is to be passed over before the next head.
    skip_bytes: usize,
    /// The head of a frame, and of GOAWAY the stream that it names too.
    head: [u8; HEAD_BYTES + 4],
    filled_bytes: usize,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            opened: AtomicU32::new(0),
            admitted: AtomicU32::new(u32::MAX),
        }
    }
}

impl Streams {
    /// Whether the origin has disowned streams that we opened (RFC 9113 section 6.8).
    pub(super) fn some_are_disowned(&self) -> bool {
        self.admitted.load(Ordering::Acquire) < self.opened.load(Ordering::Acquire)
    }

    fn note_opened(&self, stream: u32) {
        self.opened.fetch_max(stream, Ordering::AcqRel);
    }

    fn note_admitted(&self, stream: u32) {
        self.admitted.fetch_min(stream, Ordering::AcqRel);
    }
}

impl<T> Watched<T> {
    /// Watches a connection on which nothing was sent yet.
    pub(super) fn new(io: T, streams: Arc<Streams>) -> Self {
        Self {
            io,
            sent: Frames::after(PREFACE_BYTES),
            received: Frames::after(0),
            streams,
        }
    }

    fn note_sent(&mut self, bytes: &[u8]) {
        let streams = &self.streams;
        self.sent.feed(bytes, |kind, stream, _| {
            if kind == HEADERS {
                streams.note_opened(stream);
            }
        });
    }

    fn note_received(&mut self, bytes: &[u8]) {
        let streams = &self.streams;
        self.received.feed(bytes, |kind, _, named| {
            if let (GOAWAY, Some(named)) = (kind, named) {
                streams.note_admitted(named);
            }
        });
    }
}

impl Frames {
    fn after(skip_bytes: usize) -> Self {
        Self {
            skip_bytes,
            head: [0; HEAD_BYTES + 4],
            filled_bytes: 0,
        }
    }

    /// Calls `note` with the kind of each frame, its stream, and the stream that it names if it is a GOAWAY.
    fn feed(&mut self, mut bytes: &[u8], mut note: impl FnMut(u8, u32, Option<u32>)) {
        while !bytes.is_empty() {
            let skipped = self.skip_bytes.min(bytes.len());
            self.skip_bytes -= skipped;
            bytes = &bytes[skipped..];
            let taken = (self.wanted_bytes() - self.filled_bytes).min(bytes.len());
            let (head, rest) = bytes.split_at(taken);
            self.head[self.filled_bytes..][..taken].copy_from_slice(head);
            self.filled_bytes += taken;
            bytes = rest;
            if self.filled_bytes == self.wanted_bytes() {
                let [_, _, _, kind, _, stream @ .., _, _, _, _] = self.head;
                let number = |bytes| u32::from_be_bytes(bytes) & !RESERVED_BIT;
                let named = self.head[HEAD_BYTES..self.filled_bytes].try_into();
                note(kind, number(stream), named.ok().map(number));
                self.skip_bytes = self.length_bytes() - (self.filled_bytes - HEAD_BYTES);
                self.filled_bytes = 0;
            }
        }
    }

    fn wanted_bytes(&self) -> usize {
        let is_goaway = self.filled_bytes >= HEAD_BYTES && self.head[3] == GOAWAY;
        // One that is too short is the library's to refuse.
        if is_goaway && self.length_bytes() >= GOAWAY_BYTES {
            HEAD_BYTES + 4
        } else {
            HEAD_BYTES
        }
    }

    fn length_bytes(&self) -> usize {
        let [high, middle, low, ..] = self.head;
        usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
        this.note_received(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.io).poll_write(cx, bytes))?;
        this.note_sent(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, slices))?;
        let mut rest = count;
        for slice in slices {
            let written = rest.min(slice.len());
            this.note_sent(&slice[..written]);
            rest -= written;
        }
        Poll::Ready(Ok(count))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{GOAWAY, HEADERS, PREFACE_BYTES, Streams, Watched};

    fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, 0]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    fn goaway(last: u32) -> Vec<u8> {
        frame(GOAWAY, 0, &[last.to_be_bytes(), [0; 4]].concat())
    }

    #[test]
    fn streams_are_disowned_only_above_the_last_that_the_origin_admits_to() {
        let preface = vec![b'P'; PREFACE_BYTES];
        let opened = |stream| frame(HEADERS, stream, b"fields");
        let data = frame(0, 1, &[GOAWAY; 300]);
        let check = |sent: &[Vec<u8>], received: &[Vec<u8>], expected: bool| {
            let sent = [preface.clone(), sent.concat()].concat();
            let received = received.concat();
            for piece_bytes in [1, 2, 7, 13, 1_000] {
                let streams = Arc::new(Streams::default());
                let mut watched = Watched::new((), Arc::clone(&streams));
                for piece in sent.chunks(piece_bytes) {
                    watched.note_sent(piece);
                }
                for piece in received.chunks(piece_bytes) {
                    watched.note_received(piece);
                }
                assert_eq!(streams.some_are_disowned(), expected, "{received:?}");
            }
        };
        check(&[opened(1)], &[], false);
        check(&[opened(1)], std::slice::from_ref(&data), false);
        check(&[opened(1)], &[goaway(0)], true);
        check(&[opened(1)], &[goaway(1)], false);
        check(
            &[opened(1), data.clone(), opened(3)],
            &[data, goaway(1)],
            true,
        );
        check(&[opened(1)], &[goaway((1 << 31) - 1)], false);
        // Shutdown in two steps, as RFC 9113 section 6.8 advises; the highest bit means nothing.
        check(
            &[opened(5)],
            &[goaway((1 << 31) - 1), goaway(3 | 1 << 31)],
            true,
        );
        // Malformed, with what follows it still found.
        check(&[opened(1)], &[frame(GOAWAY, 0, &[0; 4])], false);
        check(&[opened(1)], &[frame(GOAWAY, 0, b""), goaway(0)], true);
    }
}
