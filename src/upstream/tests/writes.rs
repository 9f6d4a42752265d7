//! Writes: what may be sent twice, what is known of one that failed, and content that lies in a file.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Uri};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
    time::Instant,
};

use super::{
    super::{ForwardError, Patience, Repeat, Sending, Upstream, WriteBody},
    support::{
        Bench, OK, Origin, Reply, config, get, read, read_head, refusing, request, upstream,
    },
};
use crate::policy::Connectivity;

const ONCE: Sending = Sending {
    repeat: Repeat::Once,
    patience: Patience::Wait,
};

const NEVER: Sending = Sending {
    repeat: Repeat::Never,
    patience: Patience::Wait,
};

fn write(upstream: &Upstream, method: &str, body: WriteBody) -> Request<WriteBody> {
    request(upstream, method, "/order").body(body).unwrap()
}

fn memory(text: &'static str) -> WriteBody {
    WriteBody::Memory(Bytes::from_static(text.as_bytes()))
}

fn file(path: &Path, length_bytes: u64) -> WriteBody {
    WriteBody::File {
        path: path.to_owned(),
        length_bytes,
    }
}

/// A file with bytes that differ from place to place.
fn spooled(directory: &tempfile::TempDir, length_bytes: usize) -> (PathBuf, Vec<u8>) {
    let mut bytes = vec![0; length_bytes];
    fastrand::Rng::with_seed(7).fill(&mut bytes);
    let path = directory.path().join("content");
    fs::write(&path, &bytes).unwrap();
    (path, bytes)
}

/// Reads a request with its content.
async fn read_whole(stream: &mut TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    let begin = loop {
        if let Some(at) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
        assert!(stream.read_buf(&mut received).await.unwrap() > 0);
    };
    let head = String::from_utf8(received[..begin].to_vec()).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    while received.len() < begin + length {
        assert!(stream.read_buf(&mut received).await.unwrap() > 0);
    }
    received.split_off(begin)
}

#[tokio::test(start_paused = true)]
async fn a_write_that_failed_was_never_sent_only_where_that_is_proven() {
    let check = async |url: Uri, expected: &str, never_sent: bool, what: &str| {
        for (method, sending) in [("POST", NEVER), ("PUT", ONCE)] {
            let bench = Bench::of(vec![url.clone()]);
            let api = bench.api();
            let sent = write(&api, method, memory("one"));
            let error = api.send_write(sent, sending).await.unwrap_err();
            let kind = match error {
                ForwardError::Connect { .. } => "connect",
                ForwardError::TimedOut { .. } => "timed out",
                ForwardError::Broken { .. } => "broken",
                _ => "something else",
            };
            assert_eq!(kind, expected, "{what}: {error:?}");
            assert_eq!(error.never_sent(), never_sent, "{what}: {error:?}");
        }
    };
    let (_socket, url) = refusing();
    check(url, "connect", true, "refused").await;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Written, but not read: to us the same as executed.
            stream.peek(&mut [0]).await.unwrap();
            drop(stream);
        }
    });
    check(url.parse().unwrap(), "broken", false, "closed unread").await;

    let origin = Origin::always(Reply::Close("SSH-2.0-OpenSSH_9.6\r\n")).await;
    let tls = format!("https://{}", origin.address).parse().unwrap();
    check(tls, "connect", true, "no TLS").await;

    for (reply, expected) in [
        (Reply::Close(""), "broken"),
        (Reply::Reset, "broken"),
        (Reply::Close("HTTP/1.1 20"), "broken"),
        (Reply::Silence(""), "timed out"),
        (Reply::Silence("HTTP/1.1 20"), "timed out"),
    ] {
        let what = format!("{reply:?}");
        let origin = Origin::always(reply).await;
        check(origin.url(), expected, false, &what).await;
        // Once the POST and once the PUT, whose connection was fresh.
        assert_eq!(origin.heads().len(), 2, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_executed_twice_goes_on_a_fresh_connection() {
    for dead in [Reply::Close(""), Reply::Reset, Reply::Close("HTTP/1.1 2")] {
        let origin = Origin::new(move |_, request| match request {
            0 => Reply::Answer(OK),
            _ => dead.clone(),
        })
        .await;
        let bench = Bench::of(vec![origin.url()]);
        bench.get("/").await.unwrap();
        let api = bench.api();
        for count in 2..4 {
            let sent = write(&api, "POST", memory("one"));
            let response = api.send_write(sent, NEVER).await.unwrap();
            assert_eq!(read(response).await.0, 200);
            assert_eq!((origin.accepted(), origin.heads().len()), (count, count));
        }
    }
}

#[tokio::test]
async fn a_write_without_content_says_so() {
    let origin = Origin::new(|_, _| Reply::Answer(OK)).await;
    let bench = Bench::of(vec![origin.url()]);
    let api = bench.api();
    for (method, expected) in [
        ("POST", true),
        ("PUT", true),
        ("PATCH", true),
        ("DELETE", false),
    ] {
        let sent = write(&api, method, memory(""));
        assert_eq!(api.send_write(sent, NEVER).await.unwrap().status(), 200);
        let heads = origin.heads();
        let head = heads.last().unwrap();
        assert_eq!(head.contains("content-length: 0\r\n"), expected, "{head}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_be_executed_twice_is_repeated_once_when_its_pooled_connection_is_dead() {
    for dead in [Reply::Close(""), Reply::Reset, Reply::Close("HTTP/1.1 2")] {
        let origin = Origin::new({
            let dead = dead.clone();
            move |_, request| match request {
                0 => Reply::Answer(OK),
                _ => dead.clone(),
            }
        })
        .await;
        let bench = Bench::of(vec![origin.url()]);
        bench.get("/").await.unwrap();
        let api = bench.api();
        let response = api
            .send_write(write(&api, "PUT", memory("one")), ONCE)
            .await;
        assert_eq!(read(response.unwrap()).await.0, 200);
        assert_eq!((origin.accepted(), origin.heads().len()), (2, 3));
        assert!(origin.heads()[1..].iter().all(|head| head.ends_with("one")));

        // The repetition was the last: what it meets is told.
        let origin = Origin::new(move |connection, request| match (connection, request) {
            (0, 0) => Reply::Answer(OK),
            _ => dead.clone(),
        })
        .await;
        let bench = Bench::of(vec![origin.url()]);
        bench.get("/").await.unwrap();
        let api = bench.api();
        let sent = write(&api, "PUT", memory("one"));
        let error = api.send_write(sent, ONCE).await.unwrap_err();
        assert!(matches!(error, ForwardError::Broken { .. }) && !error.never_sent());
        assert_eq!(origin.heads().len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_is_silent_is_not_asked_twice() {
    let origin = Origin::new(|_, request| match request {
        0 => Reply::Answer(OK),
        _ => Reply::Silence(""),
    })
    .await;
    let bench = Bench::of(vec![origin.url()]);
    bench.get("/").await.unwrap();
    let api = bench.api();
    let sent = write(&api, "PUT", memory("one"));
    let error = api.send_write(sent, ONCE).await.unwrap_err();
    assert!(matches!(error, ForwardError::TimedOut { .. }) && !error.never_sent());
    assert_eq!(origin.heads().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn live_traffic_goes_before_what_does_not_wait() {
    let origin = Origin::always(Reply::Silence(
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
    ))
    .await;
    let mut narrow = config([("api", upstream(vec![origin.url()]))]);
    narrow.max_in_flight = 1;
    let bench = Bench::new(narrow);
    let api = bench.api();
    assert_eq!(api.max_in_flight(), 1);
    let held = api.send(get(&api, "/")).await.unwrap();
    let start = Instant::now();
    let at_once = Sending {
        patience: Patience::AtOnce,
        ..NEVER
    };
    let sent = write(&api, "POST", memory("one"));
    let error = api.send_write(sent, at_once).await.unwrap_err();
    assert!(matches!(error, ForwardError::Overloaded) && error.never_sent());
    assert_eq!(start.elapsed(), Duration::ZERO);
    let shed = r#"upstream_requests_total{upstream="api",outcome="overloaded"} 0"#;
    assert!(bench.metrics.encode().contains(shed), "it was no overload");
    drop(held);
    let sent = write(&api, "POST", memory("one"));
    assert!(api.send_write(sent, at_once).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn content_in_a_file_is_sent_whole_by_every_attempt() {
    let directory = tempfile::tempdir().unwrap();
    let (path, bytes) = spooled(&directory, 200_000);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let bench = Bench::of(vec![url.parse().unwrap()]);
    let api = bench.api();
    let origin = async {
        let (mut first, _) = listener.accept().await.unwrap();
        read_whole(&mut first).await;
        first.write_all(OK.as_bytes()).await.unwrap();
        let dead = read_whole(&mut first).await;
        drop(first);
        let (mut second, _) = listener.accept().await.unwrap();
        let repeated = read_whole(&mut second).await;
        second.write_all(OK.as_bytes()).await.unwrap();
        (dead, repeated)
    };
    let client = async {
        bench.get("/").await.unwrap();
        let sent = write(&api, "PUT", file(&path, 200_000));
        api.send_write(sent, ONCE).await
    };
    let (response, (dead, repeated)) = tokio::join!(client, origin);
    assert_eq!(read(response.unwrap()).await.0, 200);
    assert!(dead == bytes && repeated == bytes);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_not_what_it_should_be_is_found_before_anything_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let (path, _) = spooled(&directory, 100);
    let origin = Origin::always(Reply::Answer(OK)).await;
    let bench = Bench::of(vec![origin.url()]);
    let api = bench.api();
    let missing = directory.path().join("missing");
    for content in [file(&path, 99), file(&path, 101), file(&missing, 100)] {
        let sent = write(&api, "PUT", content);
        let error = api.send_write(sent, ONCE).await.unwrap_err();
        assert!(matches!(error, ForwardError::Content { .. }), "{error:?}");
        assert!(error.never_sent());
    }
    assert_eq!(origin.accepted(), 0);
    fs::write(&path, "").unwrap();
    let sent = write(&api, "PUT", file(&path, 0));
    assert_eq!(api.send_write(sent, ONCE).await.unwrap().status(), 200);
}

// In real time: virtual time would run on while so much is under way.
#[tokio::test]
async fn a_file_that_ends_too_early_is_our_fault_and_not_the_origins() {
    // More than the buffers of a connection take.
    const LENGTH_BYTES: u64 = 64 * 1024 * 1024;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("content");
    fs::File::create(&path)
        .unwrap()
        .set_len(LENGTH_BYTES)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let bench = Bench::of(vec![url.parse().unwrap()]);
    let api = bench.api();
    let (begun, has_begun) = oneshot::channel();
    let (cut, is_cut) = oneshot::channel();
    let origin = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await.unwrap();
        begun.send(()).unwrap();
        is_cut.await.unwrap();
        let mut received = 0;
        let mut chunk = vec![0; 65_536];
        while let Ok(count @ 1..) = stream.read(&mut chunk).await {
            received += count;
        }
        received
    };
    let cutting = async {
        has_begun.await.unwrap();
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(1)
            .unwrap();
        cut.send(()).unwrap();
    };
    let sent = write(&api, "PUT", file(&path, LENGTH_BYTES));
    let (answer, received, ()) = tokio::join!(api.send_write(sent, ONCE), origin, cutting);
    let error = answer.unwrap_err();
    assert!(matches!(error, ForwardError::Content { .. }), "{error:?}");
    assert!(!error.never_sent());
    assert!((received as u64) < LENGTH_BYTES);
    assert_eq!(api.connectivity(), Connectivity::Connected);
    assert_eq!(bench.upstreams.status()[0].failed, 0);
}
