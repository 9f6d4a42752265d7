//! CONNECT: bytes both ways, or, for clients that send plain HTTP through a tunnel, requests served like any other.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, BytesMut};
use http::{Request, Response, uri::Authority};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    Gateway,
    access::CacheUse,
    arrival::Arrival,
    body::Body,
    connection::{self, Peer},
    failure::Failed,
    guarded_io::HEAD_TIMEOUT,
    respond::Reply,
};
use crate::upstream::ForwardError;

/// A tunnel in which nothing moves for so long is closed. Long enough for a quiet WebSocket or a database connection
/// with keep-alives, short enough that dead peers do not pile up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// What is read at once.
const COPY_BYTES: usize = 16 * 1024;
/// A tunnel that still moves bytes when the gateway drains may go on, up to the grace, until it pauses this long.
const DRAIN_PAUSE: Duration = Duration::from_secs(1);
/// How long the rest of a method may take after its first byte: whoever then waits for the origin does not speak HTTP.
const METHOD_TIMEOUT: Duration = Duration::from_secs(1);
/// The first byte of a TLS record that begins a handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Answers a CONNECT.
pub(crate) async fn answer(
    gateway: &Arc<Gateway>,
    peer: &Peer,
    arrival: &Arrival,
    authority: &Authority,
    mut request: Request<Incoming>,
) -> Reply {
    let tunnelled = authority
        .port_u16()
        .is_some_and(|port| gateway.forward.connect_ports.contains(&port));
    let origin = match open(gateway, authority, tunnelled).await {
        Ok(origin) => origin,
        Err(error) => return Reply::problem(Failed::from(error).to_problem(None), arrival.id),
    };
    let client_side = hyper::upgrade::on(&mut request);
    let task = Tunnel {
        gateway: Arc::clone(gateway),
        peer: peer.clone(),
        authority: authority.clone(),
    };
    gateway.tasks.spawn(async move {
        let Ok(client) = client_side.await else {
            return;
        };
        let client = TokioIo::new(client);
        match origin {
            Some(origin) => task.run(client, origin).await,
            None => task.plain_http_only(client).await,
        }
    });
    Reply {
        response: Response::new(Body::empty()),
        cache: CacheUse::None,
        reason: None,
    }
}

/// The origin's end of the tunnel. To a port that is not tunnelled only plain HTTP is spoken inside, and those requests
/// are dialled by themselves: `None`, once the address filter has passed it.
async fn open(
    gateway: &Gateway,
    authority: &Authority,
    tunnelled: bool,
) -> Result<Option<TcpStream>, ForwardError> {
    if tunnelled {
        return gateway.upstreams.dial(authority).await.map(Some);
    }
    gateway.upstreams.check(authority).await.map(|()| None)
}

struct Tunnel {
    gateway: Arc<Gateway>,
    peer: Peer,
    authority: Authority,
}

impl Tunnel {
    /// Whoever speaks first tells what is spoken: an origin that does, or a client whose bytes begin no request, gets a
    /// tunnel.
    async fn run<C>(self, mut client: C, mut origin: TcpStream)
    where
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut client_said = BytesMut::with_capacity(4 * 1024);
        let mut origin_said = BytesMut::with_capacity(4 * 1024);
        let mut deadline = Instant::now() + IDLE_TIMEOUT;
        while origin_said.is_empty() && language_of(&client_said) == Language::Undecided {
            tokio::select! {
                read = client.read_buf(&mut client_said) => match read {
                    Ok(1..) => deadline = deadline.min(Instant::now() + METHOD_TIMEOUT),
                    Ok(0) if !client_said.is_empty() => break,
                    _ => return,
                },
                read = origin.read_buf(&mut origin_said) => if !matches!(read, Ok(1..)) {
                    return;
                },
                () = sleep_until(deadline) => if client_said.is_empty() {
                    return;
                } else {
                    break;
                },
                () = self.gateway.draining.cancelled() => return,
            }
        }
        if origin_said.is_empty() && language_of(&client_said) == Language::Http {
            drop(origin);
            return self.serve(client, client_said).await;
        }
        let client = End {
            io: client,
            said: client_said,
        };
        let origin = End {
            io: origin,
            said: origin_said,
        };
        join_ends(client, origin, &self.gateway.draining).await;
    }

    async fn plain_http_only<C>(self, mut client: C)
    where
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut said = BytesMut::with_capacity(4 * 1024);
        let read = tokio::select! {
            biased;
            read = timeout(HEAD_TIMEOUT, client.read_buf(&mut said)) => read,
            () = self.gateway.draining.cancelled() => return,
        };
        if !matches!(read, Ok(Ok(1..))) {
            return;
        }
        // Nothing else can be spoken here, so that any method will do, and a malformed one gets its 400.
        if said.first().is_some_and(u8::is_ascii_uppercase) {
            return self.serve(client, said).await;
        }
        info!(
            authority = %self.authority,
            tls = said.first() == Some(&TLS_HANDSHAKE),
            "Closed a tunnel to a port that is not in forward.connect_ports: only plain HTTP is served there."
        );
    }

    /// Serves plain HTTP inside the tunnel as requests to the authority that the CONNECT named.
    async fn serve<C>(self, client: C, said: BytesMut)
    where
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let peer = self.peer.inside(self.authority);
        connection::serve(self.gateway, client, said, peer).await;
    }
}

/// What a client speaks, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    /// HTTP/1, or HTTP/2 with prior knowledge.
    Http,
    Other,
    /// It may still become a request: at most eleven bytes.
    Undecided,
}

/// Only methods that are worth a cache are looked for; a request with another one passes through the tunnel as it is.
fn language_of(said: &[u8]) -> Language {
    const BEGINNINGS: [&[u8]; 10] = [
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"PUT ",
        b"DELETE ",
        b"PATCH ",
        b"OPTIONS ",
        b"QUERY ",
        b"PRI * HTTP/2",
        b"TRACE ",
    ];
    if BEGINNINGS.iter().any(|method| said.starts_with(method)) {
        return Language::Http;
    }
    if BEGINNINGS.iter().any(|method| method.starts_with(said)) {
        return Language::Undecided;
    }
    Language::Other
}

/// One end of a tunnel, and what was already read from it.
struct End<I> {
    io: I,
    said: BytesMut,
}

impl<I> From<I> for End<I> {
    fn from(io: I) -> Self {
        let said = BytesMut::new();
        Self { io, said }
    }
}

/// Copies bytes both ways until both sides have ended, one fails, nothing moves for [`IDLE_TIMEOUT`], or the gateway
/// drains and nothing moves for [`DRAIN_PAUSE`].
pub(crate) async fn join<A, B>(a: A, b: B, draining: &CancellationToken)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    join_ends(a.into(), b.into(), draining).await;
}

async fn join_ends<A, B>(a: End<A>, b: End<B>, draining: &CancellationToken)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let moved = Moved {
        began: Instant::now(),
        last_millis: AtomicU64::new(0),
    };
    let (a_read, mut a_write) = tokio::io::split(a.io);
    let (b_read, mut b_write) = tokio::io::split(b.io);
    let both = async {
        tokio::try_join!(
            copy(a.said, a_read, &mut b_write, &moved),
            copy(b.said, b_read, &mut a_write, &moved)
        )
    };
    let drained = async {
        draining.cancelled().await;
        moved.paused(DRAIN_PAUSE).await;
    };
    tokio::select! {
        _ = both => {}
        () = moved.paused(IDLE_TIMEOUT) => {}
        () = drained => {}
    }
}

/// When bytes last moved, in either direction.
struct Moved {
    began: Instant,
    last_millis: AtomicU64,
}

impl Moved {
    fn now(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_millis.store(millis, Ordering::Relaxed);
    }

    /// Returns when nothing has moved for `limit`.
    async fn paused(&self, limit: Duration) {
        loop {
            let last = self.began + Duration::from_millis(self.last_millis.load(Ordering::Relaxed));
            let deadline = last + limit;
            if deadline <= Instant::now() {
                return;
            }
            sleep_until(deadline).await;
        }
    }
}

/// Copies `said`, then what `from` still has.
async fn copy(
    said: BytesMut,
    mut from: impl AsyncRead + Unpin,
    to: &mut (impl AsyncWrite + Unpin),
    moved: &Moved,
) -> io::Result<()> {
    let mut buffer = said;
    loop {
        while buffer.has_remaining() {
            to.write_buf(&mut buffer).await?;
            moved.now();
        }
        to.flush().await?;
        buffer.clear();
        buffer.reserve(COPY_BYTES);
        if from.read_buf(&mut buffer).await? == 0 {
            break;
        }
        moved.now();
    }
    // The other direction may go on: an end of one side is only half a close.
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::BytesMut;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::{Instant, sleep},
    };
    use tokio_util::sync::CancellationToken;

    use super::{End, Language, join, join_ends, language_of};

    #[test]
    fn the_first_bytes_tell_what_a_client_speaks() {
        let check = |said: &[u8], expected: Language| {
            assert_eq!(language_of(said), expected, "{said:?}");
        };
        check(b"GET / HTTP/1.1", Language::Http);
        check(b"PRI * HTTP/2.0\r\n", Language::Http);
        check(b"", Language::Undecided);
        check(b"G", Language::Undecided);
        check(b"GET", Language::Undecided);
        check(b"PRI * HTTP/", Language::Undecided);
        check(b"PROPFIND / HTTP/1.1", Language::Other);
        check(b"GETS", Language::Other);
        check(&[super::TLS_HANDSHAKE, 3, 1], Language::Other);
        check(b"SSH-2.0-x", Language::Other);
        check(b"get /", Language::Other);
    }

    #[tokio::test]
    async fn what_was_read_before_comes_first_on_either_side() {
        let ((mut client, a), (mut origin, b)) = (duplex(1_024), duplex(1_024));
        let said = |io, said: &[u8]| End {
            io,
            said: BytesMut::from(said),
        };
        client.write_all(b" again").await.unwrap();
        origin.write_all(b" later").await.unwrap();
        client.shutdown().await.unwrap();
        origin.shutdown().await.unwrap();
        join_ends(
            said(a, b"hello"),
            said(b, b"220"),
            &CancellationToken::new(),
        )
        .await;
        let (mut heard_by_client, mut heard_by_origin) = (String::new(), String::new());
        client.read_to_string(&mut heard_by_client).await.unwrap();
        origin.read_to_string(&mut heard_by_origin).await.unwrap();
        assert_eq!(heard_by_client, "220 later");
        assert_eq!(heard_by_origin, "hello again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_greeting_that_nobody_takes_ends_with_the_drain_or_the_idle_limit() {
        for (drained_after, ended_after) in [(100, 100), (100_000, 15 * 60)] {
            let ((_client, a), (_origin, b)) = (duplex(16), duplex(16));
            let draining = CancellationToken::new();
            let origin = End {
                io: b,
                said: BytesMut::from(&[b'x'; 1_024][..]),
            };
            let began = Instant::now();
            let joined = async {
                join_ends(a.into(), origin, &draining).await;
                began.elapsed().as_secs()
            };
            let drain = async {
                sleep(Duration::from_secs(drained_after)).await;
                draining.cancel();
            };
            assert_eq!(tokio::join!(joined, drain).0, ended_after);
        }
    }

    /// A tunnel in which a byte comes every half second up to `busy`, and a drain that begins after five seconds: when
    /// it ended.
    async fn drained_with_bytes_up_to(busy: Duration) -> Duration {
        let ((mut client, a), (mut origin, b)) = (duplex(1_024), duplex(1_024));
        let draining = CancellationToken::new();
        let began = Instant::now();
        let bytes = async {
            while began.elapsed() < busy {
                origin.write_all(b"x").await.unwrap();
                client.read_u8().await.unwrap();
                sleep(Duration::from_millis(500)).await;
            }
        };
        let drain = async {
            sleep(Duration::from_secs(5)).await;
            draining.cancel();
        };
        let joined = async {
            join(a, b, &draining).await;
            began.elapsed()
        };
        tokio::join!(joined, bytes, drain).0
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_lets_a_tunnel_go_on_until_it_pauses() {
        let quiet = drained_with_bytes_up_to(Duration::from_secs(2)).await;
        assert_eq!(quiet.as_millis(), 5_000);
        let busy = drained_with_bytes_up_to(Duration::from_secs(12)).await;
        assert!((12_000..13_000).contains(&busy.as_millis()), "{busy:?}");
    }
}
