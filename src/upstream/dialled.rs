//! A TCP connection that was opened just now, and takes its first bytes at once.
//!
//! The runtime takes a socket for connected, and for writable, when the system has told it so, for which it asks once its
//! tasks have had their turn. Where many dial in one moment, every one of them would have to dial before the first could
//! send its request: of 200 at once for an answer that may not be stored, the last was answered 7 ms later (of 66). So a
//! connection that stands as soon as it is asked for (on Linux the rule within one machine) is taken for one, and the first
//! bytes are offered to the system without asking. Over HTTP/1.1 they are the request; over TLS, and over HTTP/2, which
//! begins with its preface alone, they are what goes before.
//!
//! The first bytes go out before anybody has looked what the origin sent: one that accepts and closes at once is found out
//! when it does not answer.

use std::{
    io::{self, ErrorKind, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A connection, without Nagle's algorithm.
#[derive(Debug)]
pub(super) struct Dialled {
    stream: TcpStream,
    /// Whether no write was tried yet.
    is_untried: bool,
}

impl Dialled {
    /// Connects to `address`, however long the system takes.
    pub(super) async fn to(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        // Best effort: without it small requests wait for the peer's delayed acknowledgement.
        let _ = socket.set_tcp_nodelay(true);
        if let Err(error) = socket.connect(&address.into())
            && !is_under_way(&error)
        {
            return Err(error);
        }
        let is_connected = socket.peer_addr().is_ok();
        let stream = TcpStream::from_std(socket.into())?;
        if !is_connected {
            stream.writable().await?;
            if let Some(error) = stream.take_error()? {
                return Err(error);
            }
        }
        Ok(Self {
            stream,
            is_untried: true,
        })
    }

    /// The connection, for whoever has nothing to send at once.
    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// What came of the first write, done by `send`; `None` for a later one, or if the system takes nothing yet.
    fn write_first(
        &mut self,
        send: impl FnOnce(&Socket) -> io::Result<usize>,
    ) -> Option<io::Result<usize>> {
        if !std::mem::take(&mut self.is_untried) {
            return None;
        }
        match send(&SockRef::from(&self.stream)) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            written => Some(written),
        }
    }
}

/// Whether connecting goes on by itself (connect(2), POSIX.1-2017).
fn is_under_way(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::INPROGRESS | Errno::INTR)
    )
}

impl AsyncRead for Dialled {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Dialled {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.write_first(|socket| socket.send(bytes)) {
            Some(written) => Poll::Ready(written),
            None => Pin::new(&mut this.stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.write_first(|socket| socket.send_vectored(slices)) {
            Some(written) => Poll::Ready(written),
            None => Pin::new(&mut this.stream).poll_write_vectored(cx, slices),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::ErrorKind,
        net::SocketAddr,
        pin::Pin,
        task::{Context, Poll, Waker},
        time::Duration,
    };

    use tokio::{
        io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
        net::{TcpListener, TcpSocket, TcpStream},
    };

    use super::Dialled;

    /// What the first look at a write comes to, without a turn of the runtime.
    fn written(dialled: &mut Dialled, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(dialled).poll_write(&mut cx, bytes)
    }

    async fn pair() -> (Dialled, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = Dialled::to(listener.local_addr().unwrap()).await.unwrap();
        (dialled, listener.accept().await.unwrap().0)
    }

    // Elsewhere a connection stands a moment later.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_connection_takes_its_first_bytes_without_a_turn_of_the_runtime() {
        use std::io::IoSlice;

        let mut cx = Context::from_waker(Waker::noop());
        for (own, is_vectored) in [
            ("127.0.0.1:0", false),
            ("127.0.0.1:0", true),
            ("[::1]:0", false),
        ] {
            let Ok(listener) = TcpListener::bind(own).await else {
                assert!(own.starts_with("[::1]"), "only IPv6 may be missing");
                continue;
            };
            let mut connecting = Box::pin(Dialled::to(listener.local_addr().unwrap()));
            let Poll::Ready(dialled) = connecting.as_mut().poll(&mut cx) else {
                panic!("a connection within this machine stands at once");
            };
            let mut dialled = dialled.unwrap();
            let taken = if is_vectored {
                let slices = [IoSlice::new(b"fir"), IoSlice::new(b"st")];
                Pin::new(&mut dialled).poll_write_vectored(&mut cx, &slices)
            } else {
                written(&mut dialled, b"first")
            };
            assert!(matches!(taken, Poll::Ready(Ok(5))), "{taken:?}");
            dialled.write_all(b", second").await.unwrap();
            let (mut accepted, _) = listener.accept().await.unwrap();
            let stream = dialled.into_stream();
            assert!(stream.nodelay().unwrap());
            drop(stream);
            let mut read = String::new();
            accepted.read_to_string(&mut read).await.unwrap();
            assert_eq!(read, "first, second");
        }
    }

    /// A listener that takes no more connections until one of those is accepted.
    async fn full() -> (TcpListener, Vec<Dialled>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let full = socket.listen(1).unwrap();
        let address = full.local_addr().unwrap();
        let brief = Duration::from_millis(100);
        let mut queued = Vec::new();
        while let Ok(stream) = tokio::time::timeout(brief, Dialled::to(address)).await {
            queued.push(stream.unwrap());
        }
        (full, queued)
    }

    #[tokio::test]
    async fn a_connection_that_stands_later_is_waited_for() {
        let (full, queued) = full().await;
        let mut connecting = Box::pin(Dialled::to(full.local_addr().unwrap()));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(connecting.as_mut().poll(&mut cx).is_pending());
        for _ in &queued {
            full.accept().await.unwrap();
        }
        let writing = async { connecting.await?.write_all(b"first").await };
        // The system asks again, a second later as a rule.
        let limit = Duration::from_secs(30);
        let both = tokio::time::timeout(limit, async { tokio::try_join!(writing, full.accept()) });
        let (_, (mut accepted, _)) = both.await.unwrap().unwrap();
        let mut read = String::new();
        accepted.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "first");
    }

    #[tokio::test]
    async fn a_connection_that_is_refused_later_is_an_error() {
        let (full, _queued) = full().await;
        let mut connecting = Box::pin(Dialled::to(full.local_addr().unwrap()));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(connecting.as_mut().poll(&mut cx).is_pending());
        drop(full);
        let refused = tokio::time::timeout(Duration::from_secs(30), connecting);
        let error = refused.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_first_write_that_the_system_does_not_take_waits_like_any_other() {
        let (mut dialled, mut accepted) = pair().await;
        let mut stuffed_bytes = 0;
        while let Poll::Ready(taken) = written(&mut dialled, &[b'x'; 65_536]) {
            stuffed_bytes += taken.unwrap();
            dialled.is_untried = true;
        }
        assert!(!dialled.is_untried);
        let mut read = Vec::new();
        let writing = async move { dialled.write_all(b"first").await };
        tokio::try_join!(writing, accepted.read_to_end(&mut read)).unwrap();
        assert_eq!(read.len(), stuffed_bytes + 5);
        assert!(read.ends_with(b"xfirst"));
    }

    #[tokio::test]
    async fn a_first_write_that_is_taken_in_part_arrives_whole() {
        let (mut dialled, mut accepted) = pair().await;
        let socket = socket2::SockRef::from(&dialled.stream);
        socket.set_send_buffer_size(65_536).unwrap();
        let sent: Vec<u8> = (0..20_000_000_u32).map(|number| number as u8).collect();
        let Poll::Ready(Ok(taken)) = written(&mut dialled, &sent) else {
            panic!("a new connection takes something");
        };
        assert!((1..sent.len()).contains(&taken), "{taken}");
        let mut read = Vec::new();
        let rest = &sent[taken..];
        let writing = async move { dialled.write_all(rest).await };
        tokio::try_join!(writing, accepted.read_to_end(&mut read)).unwrap();
        assert!(read == sent);
    }

    #[tokio::test]
    async fn a_first_write_on_a_connection_that_was_reset_fails() {
        let (mut dialled, accepted) = pair().await;
        accepted.set_zero_linger().unwrap();
        drop(accepted);
        dialled.stream.readable().await.unwrap();
        let failed = written(&mut dialled, b"first");
        assert!(matches!(failed, Poll::Ready(Err(_))), "{failed:?}");
        assert!(dialled.write_all(b"first").await.is_err());
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_an_error_and_not_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Nothing listens on 127.0.0.9, and as long as this port is taken nothing will.
        let port = listener.local_addr().unwrap().port();
        let error = Dialled::to(SocketAddr::from(([127, 0, 0, 9], port)))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
}
