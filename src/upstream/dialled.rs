//! A TCP connection that was opened just now, and takes its first bytes at once.
//!
//! The runtime takes a socket for connected, and for writable, when the system has told it so, for which it asks once its
//! tasks have had their turn. Where many dial in one moment, every one of them would have to dial before the first could
//! send its request. So a connection that stands as soon as it is asked for (the rule on one machine) is taken for one, and
//! the first bytes are offered to the system without asking.

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
    /// Whether nothing was written yet.
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
        match socket.connect(&address.into()) {
            Err(error) if !is_under_way(&error) => return Err(error),
            _ => {}
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

    /// The connection, where the first bytes are no hurry.
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
    [Errno::INPROGRESS, Errno::INTR]
        .into_iter()
        .any(|under_way| error.raw_os_error() == Some(under_way.raw_os_error()))
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
        io::{ErrorKind, IoSlice},
        pin::Pin,
        task::{Context, Poll, Waker},
    };

    use tokio::{
        io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
        net::TcpListener,
    };

    use super::Dialled;

    /// What the first look at a write comes to, without a turn of the runtime.
    fn written(dialled: &mut Dialled, bytes: &[u8]) -> Poll<usize> {
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(dialled)
            .poll_write(&mut cx, bytes)
            .map(Result::unwrap)
    }

    #[tokio::test]
    async fn a_connection_takes_its_first_bytes_without_a_turn_of_the_runtime() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        for is_vectored in [false, true] {
            let mut connecting = Box::pin(Dialled::to(address));
            let Poll::Ready(dialled) = connecting.as_mut().poll(&mut cx) else {
                panic!("a connection on this machine stands at once");
            };
            let mut dialled = dialled.unwrap();
            let count = if is_vectored {
                let slices = [IoSlice::new(b"fir"), IoSlice::new(b"st")];
                Pin::new(&mut dialled)
                    .poll_write_vectored(&mut cx, &slices)
                    .map(Result::unwrap)
            } else {
                written(&mut dialled, b"first")
            };
            assert_eq!(count, Poll::Ready(5));
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

    #[tokio::test]
    async fn a_first_write_that_the_system_does_not_take_waits_like_any_other() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut dialled = Dialled::to(listener.local_addr().unwrap()).await.unwrap();
        let (mut accepted, _) = listener.accept().await.unwrap();
        dialled.stream.writable().await.unwrap();
        let mut stuffed = 0;
        while let Ok(count) = dialled.stream.try_write(&[b'x'; 65_536]) {
            stuffed += count;
        }
        assert_eq!(written(&mut dialled, b"first"), Poll::Pending);
        let mut read = Vec::new();
        let writing = async move { dialled.write_all(b"first").await };
        tokio::try_join!(writing, accepted.read_to_end(&mut read)).unwrap();
        assert_eq!(read.len(), stuffed + 5);
        assert!(read.ends_with(b"xfirst"));
    }

    #[tokio::test]
    async fn a_larger_first_write_arrives_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut dialled = Dialled::to(listener.local_addr().unwrap()).await.unwrap();
        let (mut accepted, _) = listener.accept().await.unwrap();
        let sent: Vec<u8> = (0..20_000_000_u32).map(|number| number as u8).collect();
        let mut read = Vec::new();
        let whole = &sent;
        let writing = async move { dialled.write_all(whole).await };
        tokio::try_join!(writing, accepted.read_to_end(&mut read)).unwrap();
        assert!(read == sent);
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_an_error_and_not_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = Dialled::to(address).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
}
