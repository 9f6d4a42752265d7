//! HTTP/2 to an origin that is made of raw frames, because a library would refuse to misbehave.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, future::join_all, stream};
use http::{Request, Uri};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Instant,
};

use super::{
    super::{BodyError, ForwardError, Patience, Repeat, RequestBody, Sending, Upstream, WriteBody},
    support::{Bench, OK, Origin, Reply, config, get, no_body, read, request, upstream},
};
use crate::policy::Connectivity;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const ACK: u8 = 0x1;

const INTERNAL_ERROR: u32 = 0x2;
const REFUSED_STREAM: u32 = 0x7;
const CANCEL: u32 = 0x8;
const HTTP_1_1_REQUIRED: u32 = 0xd;

/// `:status: 200`, by its place in the table of RFC 7541.
const STATUS_200: &[u8] = &[0x88];

const LAST_OF_ALL: u32 = (1 << 31) - 1;

/// An origin that hands out its connections.
struct Http2Origin(TcpListener);

/// One of them, after its preface.
struct Connection {
    stream: TcpStream,
    pings: Pings,
}

#[derive(Clone, Copy, PartialEq)]
enum Pings {
    Answered,
    Ignored,
}

struct Received {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Http2Origin {
    async fn new() -> (Self, Bench) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        (Self(listener), bench(url.parse().unwrap()))
    }

    async fn accept(&self) -> Connection {
        let (mut stream, _) = self.0.accept().await.unwrap();
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface).await.unwrap();
        assert_eq!(preface, PREFACE);
        let mut connection = Connection {
            stream,
            pings: Pings::Answered,
        };
        connection.send(SETTINGS, 0, 0, b"").await;
        connection
    }
}

impl Connection {
    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        // To a client that has closed, or after we have, there is nothing to say.
        let _ = self.stream.write_all(&frame).await;
    }

    async fn reset(&mut self, stream: u32, reason: u32) {
        self.send(RST_STREAM, 0, stream, &reason.to_be_bytes())
            .await;
    }

    async fn go_away(&mut self, last: u32) {
        let payload = [last.to_be_bytes(), [0; 4]].concat();
        self.send(GOAWAY, 0, 0, &payload).await;
    }

    async fn answer(&mut self, stream: u32) {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, STATUS_200)
            .await;
    }

    /// The next frame that is neither SETTINGS nor PING, which are acknowledged; `None` at the end.
    async fn next(&mut self) -> Option<Received> {
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await.ok()?;
            let [a, b, c, kind, flags, stream @ ..] = head;
            let length = u32::from_be_bytes([0, a, b, c]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            self.stream.read_exact(&mut payload).await.ok()?;
            let is_ack = flags & ACK != 0;
            match kind {
                // Until then our windows are the smallest.
                SETTINGS if !is_ack => self.send(SETTINGS, ACK, 0, b"").await,
                PING if !is_ack && self.pings == Pings::Answered => {
                    self.send(PING, ACK, 0, &payload).await;
                }
                SETTINGS | PING => {}
                _ => {
                    return Some(Received {
                        kind,
                        stream: u32::from_be_bytes(stream),
                        payload,
                    });
                }
            }
        }
    }

    async fn next_of(&mut self, kind: u8) -> Received {
        loop {
            let received = self.next().await.expect("the connection goes on");
            if received.kind == kind {
                return received;
            }
        }
    }

    /// The stream of the next request.
    async fn request(&mut self) -> u32 {
        self.next_of(HEADERS).await.stream
    }

    /// Reads until the client closes.
    async fn until_closed(mut self) {
        while self.next().await.is_some() {}
    }
}

fn bench(url: Uri) -> Bench {
    let mut api = upstream(vec![url]);
    api.http2 = true;
    Bench::new(config([("api", api)]))
}

fn write(api: &Upstream, method: &str) -> Request<WriteBody> {
    let body = WriteBody::Memory(Bytes::from_static(b"one"));
    request(api, method, "/order").body(body).unwrap()
}

const fn sending(repeat: Repeat) -> Sending {
    Sending {
        repeat,
        patience: Patience::Wait,
    }
}

/// What the origin does with a request.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Reset(u32),
    GoAway(u32),
    Close,
    Silence(Duration),
    Death(Duration),
}

#[tokio::test(start_paused = true)]
async fn a_request_was_never_sent_only_where_the_origin_disowns_it() {
    let check = async |deed: Deed, expected: &str, never_sent: bool| {
        let (origin, bench) = Http2Origin::new().await;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connection = origin.accept().await;
            let stream = connection.request().await;
            match deed {
                Deed::Reset(reason) => connection.reset(stream, reason).await,
                Deed::GoAway(last) => {
                    connection.go_away(last).await;
                    connection.stream.shutdown().await.unwrap();
                }
                Deed::Close => connection.stream.shutdown().await.unwrap(),
                Deed::Silence(_) => {}
                Deed::Death(_) => connection.pings = Pings::Ignored,
            }
            // A close with something unread would take back what was sent.
            connection.until_closed().await;
        });
        let api = bench.api();
        let start = Instant::now();
        let sent = api.send_write(write(&api, "POST"), sending(Repeat::Never));
        let error = sent.await.unwrap_err();
        let kind = match error {
            ForwardError::Broken { .. } => "broken",
            ForwardError::TimedOut { .. } => "timed out",
            _ => "something else",
        };
        assert_eq!(kind, expected, "{deed:?}: {error:?}");
        assert_eq!(error.never_sent(), never_sent, "{deed:?}: {error:?}");
        if let Deed::Silence(expected) | Deed::Death(expected) = deed {
            assert_eq!(start.elapsed().as_secs(), expected.as_secs(), "{deed:?}");
        }
        assert_eq!(api.connectivity(), Connectivity::Connected);
    };
    check(Deed::Reset(REFUSED_STREAM), "broken", true).await;
    check(Deed::Reset(INTERNAL_ERROR), "broken", false).await;
    check(Deed::Reset(CANCEL), "broken", false).await;
    check(Deed::Reset(HTTP_1_1_REQUIRED), "broken", false).await;
    check(Deed::GoAway(0), "broken", true).await;
    // It may go on with ours, and then the connection ends.
    check(Deed::GoAway(1), "broken", false).await;
    check(Deed::GoAway(LAST_OF_ALL), "broken", false).await;
    check(Deed::Close, "broken", false).await;
    check(Deed::Silence(Duration::from_secs(60)), "timed out", false).await;
    check(Deed::Death(Duration::from_secs(10)), "broken", false).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_origin_disowns_is_repeated_once_on_a_fresh_connection() {
    for deed in [Deed::Reset(REFUSED_STREAM), Deed::GoAway(1), Deed::Close] {
        let (origin, bench) = Http2Origin::new().await;
        let origin = async {
            let mut connection = origin.accept().await;
            let first = connection.request().await;
            connection.answer(first).await;
            let second = connection.request().await;
            match deed {
                Deed::GoAway(last) => connection.go_away(last).await,
                Deed::Reset(reason) => connection.reset(second, reason).await,
                _ => drop(connection),
            }
            let mut connection = origin.accept().await;
            let repeated = connection.request().await;
            assert_eq!(connection.next_of(DATA).await.payload, b"one");
            connection.answer(repeated).await;
            (first, second, repeated)
        };
        let client = async {
            bench.get("/").await.unwrap();
            let api = bench.api();
            let sent = api.send_write(write(&api, "PUT"), sending(Repeat::Once));
            sent.await.unwrap().status()
        };
        let (status, streams) = tokio::join!(client, origin);
        assert_eq!((status.as_u16(), streams), (200, (1, 3, 1)), "{deed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_passed_write_is_repeated_only_where_its_content_is_still_there() {
    for is_streamed in [false, true] {
        let (origin, bench) = Http2Origin::new().await;
        let requests = async {
            let mut connection = origin.accept().await;
            let stream = connection.request().await;
            if is_streamed {
                connection.next_of(DATA).await;
            }
            connection.reset(stream, REFUSED_STREAM).await;
            if is_streamed {
                return;
            }
            let mut connection = origin.accept().await;
            let stream = connection.request().await;
            connection.answer(stream).await;
        };
        let api = bench.api();
        let body = if is_streamed {
            let parts = stream::once(async { Ok(Frame::data(Bytes::from_static(b"part"))) });
            let open = parts.chain(stream::pending());
            RequestBody::new(StreamBody::new(Box::pin(open)))
        } else {
            no_body()
        };
        let sent = request(&api, "POST", "/").body(body).unwrap();
        let (answer, ()) = tokio::join!(api.send(sent), requests);
        match answer {
            Ok(response) => assert!(!is_streamed && response.status() == 200),
            Err(error) => assert!(is_streamed && error.never_sent(), "{error:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn requests_share_a_connection() {
    let (origin, bench) = Http2Origin::new().await;
    let origin = async {
        let mut connection = origin.accept().await;
        let first = connection.request().await;
        connection.answer(first).await;
        let mut streams = Vec::new();
        while streams.len() < 3 {
            streams.push(connection.request().await);
        }
        // In the order in which nobody asked.
        for stream in streams.iter().rev() {
            connection.answer(*stream).await;
        }
        streams
    };
    let client = async {
        bench.get("/").await.unwrap();
        join_all((0..3).map(|_| bench.get("/"))).await
    };
    let (answers, streams) = tokio::join!(client, origin);
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_ref().unwrap().0 == 200)
    );
    assert_eq!(streams, [3, 5, 7]);
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_goes_away_in_order_is_asked_on_a_new_connection() {
    let (origin, bench) = Http2Origin::new().await;
    let origin = async {
        let mut connection = origin.accept().await;
        let stream = connection.request().await;
        connection.go_away(stream).await;
        connection.answer(stream).await;
        let mut connection = origin.accept().await;
        let stream = connection.request().await;
        connection.answer(stream).await;
    };
    let client = async {
        assert_eq!(bench.get("/").await.unwrap().0, 200);
        assert_eq!(bench.get("/").await.unwrap().0, 200);
    };
    tokio::join!(client, origin);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_takes_no_other_with_it() {
    let (origin, bench) = Http2Origin::new().await;
    let origin = async {
        let mut connection = origin.accept().await;
        let first = connection.request().await;
        let second = connection.request().await;
        let reset = connection.next_of(RST_STREAM).await;
        assert_eq!(reset.payload, CANCEL.to_be_bytes());
        connection.answer(second).await;
        (first, second, reset.stream)
    };
    let api = bench.api();
    let client = async {
        let limit = Duration::from_secs(1);
        let given_up = tokio::time::timeout(limit, api.send(get(&api, "/1")));
        let (given_up, answer) = tokio::join!(given_up, async {
            while api.permits.in_flight() == 0 {
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(limit / 2).await;
            bench.get("/2").await
        });
        assert!(given_up.is_err());
        answer
    };
    let (answer, (first, second, reset)) = tokio::join!(client, origin);
    assert_eq!(answer.unwrap().0, 200);
    assert_eq!((first, second, reset), (1, 3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_request_body_that_breaks_off_is_the_clients_fault_over_http2_too() {
    let (origin, bench) = Http2Origin::new().await;
    let parts = stream::iter([
        Ok(Frame::data(Bytes::from_static(b"part"))),
        Err(BodyError::from("gone")),
    ]);
    let api = bench.api();
    let body = RequestBody::new(StreamBody::new(parts));
    let upload = request(&api, "POST", "/").body(body).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { origin.accept().await.until_closed().await });
    let error = api.send(upload).await.unwrap_err();
    assert!(
        matches!(error, ForwardError::RequestBody { .. }),
        "{error:?}"
    );
    assert!(!error.never_sent());
}

// In real time: virtual time would run on while so much is under way.
#[tokio::test]
async fn a_slow_reader_holds_up_nobody_else_on_its_connection() {
    // The window of a response, before its reader asks for more.
    const AHEAD_BYTES: usize = 256 * 1024;
    let (origin, bench) = Http2Origin::new().await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connection = origin.accept().await;
        for _ in 0..30 {
            let stream = connection.request().await;
            connection
                .send(HEADERS, END_HEADERS, stream, STATUS_200)
                .await;
            for _ in 0..AHEAD_BYTES / 16_384 {
                connection.send(DATA, 0, stream, &[0; 16_384]).await;
            }
        }
        let last = connection.request().await;
        connection
            .send(HEADERS, END_HEADERS, last, STATUS_200)
            .await;
        connection.send(DATA, END_STREAM, last, b"at once").await;
        connection.until_closed().await;
    });
    let api = bench.api();
    let mut unread = Vec::new();
    for _ in 0..30 {
        unread.push(api.send(get(&api, "/")).await.unwrap());
    }
    assert_eq!(bench.get("/").await.unwrap().1, "at once");
    assert_eq!(api.permits.in_flight(), 30);
    for response in unread {
        let mut body = response.into_body();
        let mut read_bytes = 0;
        while read_bytes < AHEAD_BYTES {
            let frame = body.frame().await.unwrap().unwrap();
            read_bytes += frame.data_ref().map_or(0, Bytes::len);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_body_over_http2_is_marked_without_a_length() {
    let (origin, bench) = Http2Origin::new().await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connection = origin.accept().await;
        let stream = connection.request().await;
        connection
            .send(HEADERS, END_HEADERS, stream, STATUS_200)
            .await;
        connection.send(DATA, END_STREAM, stream, b"whole").await;
        let stream = connection.request().await;
        connection
            .send(HEADERS, END_HEADERS, stream, STATUS_200)
            .await;
        connection.send(DATA, 0, stream, b"half").await;
    });
    let api = bench.api();
    let response = api.send(get(&api, "/")).await.unwrap();
    assert!(!response.body().is_close_delimited());
    assert_eq!(read(response).await.1, "whole");
    let response = api.send(get(&api, "/")).await.unwrap();
    assert!(response.into_body().collect().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_goes_over_http1() {
    let switch =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let origin = Origin::always(Reply::Answer(switch)).await;
    let bench = bench(origin.url());
    let api = bench.api();
    let asked = request(&api, "GET", "/ws")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .body(no_body())
        .unwrap();
    assert_eq!(api.send(asked).await.unwrap().status(), 101);
    assert!(origin.heads()[0].contains("connection: upgrade\r\n"));
}

#[tokio::test(start_paused = true)]
async fn an_origin_without_http2_is_a_broken_one_and_not_gone() {
    let origin = Origin::always(Reply::Close(OK)).await;
    let bench = bench(origin.url());
    let error = bench.get("/").await.unwrap_err();
    assert!(matches!(error, ForwardError::Broken { .. }), "{error:?}");
    assert_eq!(bench.api().connectivity(), Connectivity::Connected);
}
