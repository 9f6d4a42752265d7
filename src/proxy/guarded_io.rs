//! The socket of a client under our own timers, which hyper does not have: idle between requests, time to finish a
//! head, progress of a body, a reader that stalls. At the end the close lingers, so that a client that still sends gets
//! to read why it was refused. Interim responses, which hyper cannot send, go out at its flushes ([`super::interim`]).
//!
//! One deadline is in force at a time, chosen by where in a message the connection is ([`super::framing`]) and by
//! whether a request is being answered. The timer is set again only when it fires or when an earlier deadline is due,
//! so a busy connection pays one clock reading per read and per write.
//!
//! Other things than HTTP/1 messages have no timers here, but that an HTTP/2 client, too, has to take what it is sent:
//! streams are timed one by one ([`super::progress`]), tunnels by whoever copies ([`super::tunnel`]).

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{
    framing::{Framing, Position},
    progress::Pace,
    shared::{Became, Shared},
};
use crate::upstream::Timer;

/// From accept to the end of the first head, TLS and preface included; also for a head once it has begun.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// From the last byte of an answer to the first one of the next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// A client that takes no byte of an answer for so long is cut.
const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long, and for how many bytes, a close waits for the client to have read the answer.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024;

/// The guarded socket.
#[derive(Debug)]
pub(crate) struct GuardedIo<I> {
    io: I,
    shared: Arc<Shared>,
    // What was read while the protocol was being found out.
    prefix: Bytes,
    framing: Framing,
    position: Position,
    position_since: Instant,
    // When bytes last moved, either way: a stored response may be read for longer than a client may idle.
    last_moved: Instant,
    body: Pace,
    saw_end: bool,
    read_timer: Timer,
    write_timer: Timer,
    write_stalled_since: Option<Instant>,
    linger: Linger,
}

#[derive(Debug)]
enum Linger {
    NotYet,
    Draining { until: Instant, left: usize },
    Over,
}

impl<I> GuardedIo<I> {
    /// Guards `io`, of which `prefix` was read already.
    pub(crate) fn new(io: I, prefix: Bytes, shared: Arc<Shared>) -> Self {
        let accepted = shared.opened();
        Self {
            io,
            shared,
            prefix,
            framing: Framing::default(),
            position: Position::Between,
            position_since: accepted,
            last_moved: accepted,
            body: Pace::default(),
            saw_end: false,
            read_timer: Timer::default(),
            write_timer: Timer::default(),
            write_stalled_since: None,
            linger: Linger::NotYet,
        }
    }

    /// Requests whose heads have been read to their ends; `None` while one is under way, or what comes is no HTTP/1.
    pub(crate) fn heads_between(&self) -> Option<u64> {
        let between = self.position == Position::Between && self.shared.carries_http1();
        between.then(|| self.framing.heads())
    }

    /// Takes note of what [`Self::poll_read_unnoted`] read, which follows what was noted before.
    pub(crate) fn note_read(&mut self, bytes: &[u8]) {
        if self.shared.became().is_some() {
            self.framing.stop();
            self.position = Position::Unfollowed;
            return;
        }
        let now = Instant::now();
        self.last_moved = now;
        self.saw_end = bytes.is_empty();
        let heads = self.framing.heads();
        self.framing.follow(bytes);
        if self.framing.saw_ambiguity() {
            self.shared.note_ambiguity();
        }
        let position = self.framing.position();
        // One read may hold a whole head, and more: the position alone does not tell that time began anew.
        if position != self.position || self.framing.heads() != heads {
            self.position = position;
            self.position_since = now;
            self.body = Pace::default();
        }
        if position == Position::Body {
            self.body.came(bytes.len(), now);
        }
    }

    /// Takes note of the same where it is known to be one whole head of a message without a body.
    pub(crate) fn note_head(&mut self, now: Instant) {
        self.framing.note_head();
        (self.last_moved, self.position_since) = (now, now);
    }

    /// When the read that is pending becomes too late, if ever.
    fn read_deadline(&mut self, now: Instant) -> Option<Instant> {
        match self.position {
            Position::Unfollowed => None,
            Position::Between if self.framing.heads() == 0 => {
                Some(self.position_since + HEAD_TIMEOUT)
            }
            // While a request is answered nobody waits for the next one.
            Position::Between if self.shared.in_flight() > 0 => None,
            Position::Between => Some(self.last_moved.max(self.shared.answered()) + IDLE_TIMEOUT),
            Position::Head => Some(self.position_since + HEAD_TIMEOUT),
            Position::Body => Some(self.body.wait(now)),
        }
    }

    fn check_read_timer(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        // A client that is answered meanwhile may have made the deadline move; look again at least this often.
        const LOOK_AGAIN: Duration = Duration::from_secs(30);
        if self.shared.became().is_some() {
            return Poll::Pending;
        }
        loop {
            let now = Instant::now();
            let deadline = self.read_deadline(now);
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the client took too long to send",
                ));
            }
            ready!(
                self.read_timer
                    .poll_at(cx, deadline.unwrap_or(now + LOOK_AGAIN))
            );
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for GuardedIo<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(this.poll_read_unnoted(cx, buf))?;
        this.note_read(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + Unpin> GuardedIo<I> {
    /// Reads; before the next read, what was read is to be noted.
    pub(crate) fn poll_read_unnoted(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let taken = self.prefix.split_to(self.prefix.len().min(buf.remaining()));
            buf.put_slice(&taken);
            return Poll::Ready(Ok(()));
        }
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => self.check_read_timer(cx).map(Err),
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> GuardedIo<I> {
    fn guard_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.write_stalled_since = None;
            return polled;
        }
        if self.shared.became() == Some(Became::Tunnel) {
            return Poll::Pending;
        }
        let since = *self.write_stalled_since.get_or_insert_with(Instant::now);
        let deadline = since + WRITE_STALL_TIMEOUT;
        loop {
            if deadline <= Instant::now() {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the client took too long to read",
                )));
            }
            ready!(self.write_timer.poll_at(cx, deadline));
        }
    }

    fn note_write(&mut self, polled: &Poll<io::Result<usize>>) {
        if matches!(polled, Poll::Ready(Ok(1..))) {
            self.last_moved = Instant::now();
        }
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>, until: Instant, mut left: usize) -> Poll<()> {
        let mut scratch = [0_u8; 4 * 1024];
        while left > 0 && !self.saw_end {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    left = left.saturating_sub(buf.filled().len());
                    self.linger = Linger::Draining { until, left };
                }
                Poll::Ready(_) => break,
                Poll::Pending if Instant::now() >= until => break,
                Poll::Pending => {
                    ready!(self.read_timer.poll_at(cx, until));
                }
            }
        }
        self.linger = Linger::Over;
        Poll::Ready(())
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for GuardedIo<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.note_write(&polled);
        this.guard_write(cx, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write_vectored(cx, slices);
        this.note_write(&polled);
        this.guard_write(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Only here: between two messages, as hyper flushes when it has nothing of its own left.
        while this.shared.interim.waits() {
            let polled = this.shared.interim.poll_write(&mut this.io, cx);
            this.note_write(&polled);
            ready!(this.guard_write(cx, polled))?;
        }
        let polled = Pin::new(&mut this.io).poll_flush(cx);
        this.guard_write(cx, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if matches!(this.linger, Linger::NotYet) {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            if this.shared.became().is_some() {
                this.linger = Linger::Over;
                return Poll::Ready(Ok(()));
            }
            this.linger = Linger::Draining {
                until: Instant::now() + LINGER_TIMEOUT,
                left: LINGER_BYTES,
            };
        }
        match this.linger {
            Linger::Draining { until, left } => this.poll_linger(cx, until, left).map(Ok),
            Linger::NotYet | Linger::Over => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use bytes::Bytes;
    use futures_util::FutureExt;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::{Instant, timeout},
    };

    use super::{GuardedIo, Shared};

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    fn guarded() -> (DuplexStream, GuardedIo<DuplexStream>, Arc<Shared>) {
        let (client, io) = duplex(64 * 1024);
        let shared = Arc::new(Shared::new(Instant::now()));
        let guarded = GuardedIo::new(io, Bytes::new(), Arc::clone(&shared));
        (client, guarded, shared)
    }

    /// Reads what is there, then waits for more: for how long, in whole seconds, until the client is cut.
    async fn cut_after(io: &mut GuardedIo<DuplexStream>) -> u64 {
        let mut buffer = [0; 1_024];
        let began = Instant::now();
        loop {
            match timeout(Duration::from_secs(3_600), io.read(&mut buffer)).await {
                Ok(Ok(1..)) => {}
                Ok(_) => return began.elapsed().as_secs(),
                Err(_) => return u64::MAX,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_nothing_or_half_a_head_is_cut_after_ten_seconds() {
        for sent in [&b""[..], b"GET / HTTP/1.1\r\nHo"] {
            let (mut client, mut io, _) = guarded();
            client.write_all(sent).await.unwrap();
            assert_eq!(cut_after(&mut io).await, 10, "{sent:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answered_client_may_idle_for_a_minute() {
        let (mut client, mut io, _) = guarded();
        client.write_all(HEAD).await.unwrap();
        assert_eq!(cut_after(&mut io).await, 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_waits_for_a_slow_answer_is_not_cut() {
        let (mut client, mut io, shared) = guarded();
        let _answering = shared.answering();
        client.write_all(HEAD).await.unwrap();
        assert_eq!(cut_after(&mut io).await, u64::MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn the_idle_time_begins_with_the_end_of_the_answer() {
        let (mut client, mut io, shared) = guarded();
        client.write_all(HEAD).await.unwrap();
        let answering = shared.answering();
        let ended = async {
            tokio::time::advance(Duration::from_secs(500)).await;
            drop(answering);
        };
        let (after, ()) = tokio::join!(cut_after(&mut io), ended);
        assert!((560..=590).contains(&after), "{after}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_taken_slowly_is_no_idling() {
        let (mut client, mut io, _) = guarded();
        client.write_all(HEAD).await.unwrap();
        // Every 20 s the client makes room for as much as is written at once, for ten minutes: an answer that nobody
        // counts as being answered.
        let slowly = async {
            let mut taken = vec![0; 64 * 1024];
            for _ in 0..30 {
                tokio::time::sleep(Duration::from_secs(20)).await;
                client.read_exact(&mut taken).await.unwrap();
            }
        };
        let (read, write) = tokio::io::split(&mut io);
        let cut = async {
            let mut read = read;
            let began = Instant::now();
            let mut buffer = [0; 1_024];
            while matches!(read.read(&mut buffer).await, Ok(1..)) {}
            began.elapsed().as_secs()
        };
        let answer = async {
            let mut write = write;
            write.write_all(&vec![0; 30 * 64 * 1024]).await.unwrap();
        };
        let ((), after, ()) = tokio::join!(slowly, cut, answer);
        assert!((630..=660).contains(&after), "{after}");
    }

    #[tokio::test(start_paused = true)]
    async fn flushing_nothing_is_idling() {
        let (mut client, io, _) = guarded();
        client.write_all(HEAD).await.unwrap();
        let (mut read, mut write) = tokio::io::split(io);
        let flushing = async {
            loop {
                tokio::time::sleep(Duration::from_secs(5)).await;
                write.flush().await.unwrap();
            }
        };
        let cut = async {
            let mut buffer = [0; 1_024];
            while matches!(read.read(&mut buffer).await, Ok(1..)) {}
        };
        let began = Instant::now();
        tokio::select! {
            () = timeout(Duration::from_secs(3_600), cut).map(drop) => {}
            () = flushing => unreachable!("it flushes for ever"),
        }
        assert_eq!(began.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_tunnel_is_not_cut_whatever_was_waited_for_before() {
        // Nothing, half of what looks like a head, and a whole one: each arms another timer.
        for said in [&b""[..], b"\x16\x03\x01 no head", HEAD] {
            let (mut client, mut io, shared) = guarded();
            client.write_all(HEAD).await.unwrap();
            client.write_all(said).await.unwrap();
            let later = async {
                tokio::time::sleep(Duration::from_secs(5)).await;
                shared.become_raw();
                tokio::time::sleep(Duration::from_secs(300)).await;
                client.write_all(b"still a tunnel\n").await.unwrap();
                tokio::time::sleep(Duration::from_secs(300)).await;
            };
            tokio::select! {
                after = cut_after(&mut io) => panic!("cut after {after} s, having said {said:?}"),
                () = later => {}
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_waits_for_its_reader_but_http2_does_not() {
        for (is_http2, expected) in [(false, 3_600), (true, 30)] {
            let (_client, mut io, shared) = guarded();
            if is_http2 {
                shared.become_http2();
            }
            // A tunnel in one of its streams does not make a tunnel of an HTTP/2 connection.
            shared.become_raw();
            let began = Instant::now();
            let _ = timeout(Duration::from_secs(3_600), io.write_all(&vec![0; 1 << 20])).await;
            assert_eq!(began.elapsed().as_secs(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_head_that_is_not_finished_is_cut_after_ten_seconds() {
        let (mut client, mut io, _) = guarded();
        client.write_all(HEAD).await.unwrap();
        client.write_all(b"GET /").await.unwrap();
        assert_eq!(cut_after(&mut io).await, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_must_make_progress() {
        let (mut client, mut io, _) = guarded();
        client
            .write_all(b"POST / HTTP/1.1\r\nContent-Length: 99999\r\n\r\n")
            .await
            .unwrap();
        // A large first part earns patience on average, but never more than 15 s without a byte.
        client.write_all(&[0; 20_000]).await.unwrap();
        assert_eq!(cut_after(&mut io).await, 15);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_too_slowly_on_average_is_cut() {
        let (mut client, mut io, _) = guarded();
        client
            .write_all(b"POST / HTTP/1.1\r\nContent-Length: 99999\r\n\r\n")
            .await
            .unwrap();
        let drip = async {
            while client.write_all(b"x").await.is_ok() {
                tokio::time::advance(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            after = cut_after(&mut io) => assert!((9..=12).contains(&after), "{after}"),
            () = drip => unreachable!("the client never ends by itself"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_cut() {
        let (_client, mut io, _) = guarded();
        let began = Instant::now();
        let error = io.write_all(&vec![0; 1 << 20]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_lingers_for_a_client_that_still_sends_but_not_for_ever() {
        let (mut client, mut io, _) = guarded();
        client.write_all(&[0; 30_000]).await.unwrap();
        let began = Instant::now();
        io.shutdown().await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 1);
        let (client, mut io, _) = guarded();
        drop(client);
        let began = Instant::now();
        io.shutdown().await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 0);
    }
}
