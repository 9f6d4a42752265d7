//! One request, one origin: what goes out, what comes back, and what may be repeated.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use super::{
    super::{ForwardError, RequestBody},
    support::{
        Bench, OK, Origin, Reply, config, full_body, get, no_body, post, read, request, upstream,
    },
};
use crate::policy::Connectivity;

#[tokio::test(start_paused = true)]
async fn the_target_goes_out_as_it_was_asked() {
    let origin = Origin::always(Reply::Answer(OK)).await;
    let bench = Bench::of(vec![origin.url()]);
    let answer = bench.get("/a/%2e%2e/b'?q=%41&r=[]").await.unwrap();
    assert_eq!(answer, (200, "ok".to_owned()));
    let expected = format!(
        "GET /a/%2e%2e/b'?q=%41&r=[] HTTP/1.1\r\nhost: {}\r\n\r\n",
        origin.address
    );
    assert_eq!(origin.heads(), [expected]);
}

#[tokio::test(start_paused = true)]
async fn connections_are_reused_for_four_seconds() {
    let origin = Origin::always(Reply::Answer(OK)).await;
    let bench = Bench::of(vec![origin.url()]);
    bench.get("/1").await.unwrap();
    tokio::time::advance(Duration::from_secs(3)).await;
    bench.get("/2").await.unwrap();
    assert_eq!(origin.accepted(), 1);
    tokio::time::advance(Duration::from_secs(5)).await;
    bench.get("/3").await.unwrap();
    assert_eq!(origin.accepted(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_an_origin_does_wrong_is_told_apart_and_does_not_disconnect() {
    let check = async |reply: Reply, expected: &str| {
        let origin = Origin::always(reply.clone()).await;
        let bench = Bench::of(vec![origin.url()]);
        let error = bench.get("/").await.unwrap_err();
        let found = match error {
            ForwardError::Broken { .. } => "broken",
            ForwardError::TimedOut { .. } => "timed out",
            _ => "something else",
        };
        assert_eq!(found, expected, "{reply:?}: {error:?}");
        assert!(!error.never_sent(), "{reply:?}");
        assert_eq!(bench.api().connectivity(), Connectivity::Connected);
        assert_eq!(
            origin.accepted(),
            1,
            "{reply:?} on a fresh connection is not repeated"
        );
    };
    check(Reply::Close(""), "broken").await;
    check(Reply::Reset, "broken").await;
    check(Reply::Close("HTTP/1.1 20"), "broken").await;
    check(Reply::Close("HTTP/1.1 200 OK\r\ncontent-le"), "broken").await;
    check(Reply::Answer("SSH-2.0-OpenSSH_9.6\r\n\r\n"), "broken").await;
    check(
        Reply::Answer("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"),
        "broken",
    )
    .await;
    check(Reply::Silence(""), "timed out").await;
    check(Reply::Silence("HTTP/1.1 20"), "timed out").await;
    check(Reply::Silence("HTTP/1.1 100 Continue\r\n\r\n"), "timed out").await;
}

#[tokio::test(start_paused = true)]
async fn the_first_byte_has_its_own_time_limit() {
    let origin = Origin::always(Reply::Late("", Duration::from_secs(6), OK)).await;
    let mut slow = upstream(vec![origin.url()]);
    slow.first_byte_timeout = Duration::from_secs(5);
    let bench = Bench::new(config([("api", slow)]));
    let start = Instant::now();
    let error = bench.get("/").await.unwrap_err();
    assert!(matches!(error, ForwardError::TimedOut { limit } if limit == Duration::from_secs(5)));
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_slow_upload_is_not_the_origins_delay() {
    let origin = Origin::always(Reply::Late("", Duration::from_secs(30), OK)).await;
    let mut slow = upstream(vec![origin.url()]);
    slow.first_byte_timeout = Duration::from_secs(5);
    let bench = Bench::new(config([("api", slow)]));
    let parts = stream::unfold(0, |part| async move {
        tokio::time::sleep(Duration::from_secs(9)).await;
        let frame = Frame::data(Bytes::from_static(b"part"));
        (part < 3).then_some((Ok::<_, super::super::BodyError>(frame), part + 1))
    });
    let body = RequestBody::new(StreamBody::new(Box::pin(parts)));
    let api = bench.api();
    // The origin answers in mid-upload; until then it waited for the client, not the client for it.
    let upload = request(&api, "POST", "/").body(body).unwrap();
    assert_eq!(api.send(upload).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_safe_request_on_a_dead_pooled_connection_is_repeated_once_on_a_fresh_one() {
    for dead in [Reply::Close(""), Reply::Reset, Reply::Close("HTTP/1.1 2")] {
        let origin = Origin::new(move |_, request| match request {
            0 => Reply::Answer(OK),
            _ => dead.clone(),
        })
        .await;
        let bench = Bench::of(vec![origin.url()]);
        bench.get("/1").await.unwrap();
        assert_eq!(bench.get("/2").await.unwrap().0, 200);
        assert_eq!(origin.accepted(), 2);
        assert_eq!(origin.heads().len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_have_been_executed_is_never_repeated() {
    let check = async |method: &str, body: RequestBody| {
        let origin = Origin::new(|_, request| match request {
            0 => Reply::Answer(OK),
            _ => Reply::Close(""),
        })
        .await;
        let bench = Bench::of(vec![origin.url()]);
        bench.get("/1").await.unwrap();
        let api = bench.api();
        let sent = request(&api, method, "/2").body(body).unwrap();
        let error = api.send(sent).await.unwrap_err();
        assert!(matches!(error, ForwardError::Broken { .. }), "{error:?}");
        assert_eq!(origin.heads().len(), 2, "{method}");
    };
    check("POST", full_body("x")).await;
    check("DELETE", no_body()).await;
    check("PUT", no_body()).await;
    check("GET", full_body("x")).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_body_that_breaks_off_is_the_clients_fault() {
    let origin = Origin::always(Reply::Silence("")).await;
    let bench = Bench::of(vec![origin.url()]);
    let parts = stream::iter([
        Ok(Frame::data(Bytes::from_static(b"part"))),
        Err(std::io::Error::other("gone").into()),
    ]);
    let api = bench.api();
    let body = RequestBody::new(StreamBody::new(parts));
    let upload = request(&api, "POST", "/").body(body).unwrap();
    let error = api.send(upload).await.unwrap_err();
    assert!(
        matches!(error, ForwardError::RequestBody { .. }),
        "{error:?}"
    );
    assert_eq!(api.connectivity(), Connectivity::Connected);
    assert_eq!(bench.upstreams.status()[0].failed, 0);
}

#[tokio::test(start_paused = true)]
async fn a_write_is_sent_with_its_body() {
    let origin = Origin::always(Reply::Answer(OK)).await;
    let bench = Bench::of(vec![origin.url()]);
    let api = bench.api();
    api.send(post(&api, "/orders", "hello")).await.unwrap();
    let heads = origin.heads();
    assert!(heads[0].contains("content-length: 5\r\n"), "{heads:?}");
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_passes_when_it_was_asked_for() {
    const SWITCH: &str =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhi";
    let origin = Origin::always(Reply::Late(SWITCH, Duration::from_millis(1), "there")).await;
    let bench = Bench::of(vec![origin.url()]);
    let api = bench.api();
    let asked = request(&api, "GET", "/ws")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .body(no_body())
        .unwrap();
    let mut response = api.send(asked).await.unwrap();
    assert_eq!(response.status(), 101);
    let mut tunnel = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    drop(response);
    assert_eq!(bench.upstreams.status()[0].in_flight, 0);
    let mut bytes = [0; 7];
    tunnel.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"hithere");
    tunnel.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    tunnel.read_exact(&mut bytes[..2]).await.unwrap();
    assert_eq!(origin.heads().len(), 2);

    let unasked = api.send(get(&api, "/")).await.unwrap_err();
    assert!(matches!(unasked, ForwardError::Broken { .. }));
}

#[tokio::test(start_paused = true)]
async fn outcomes_are_counted_per_upstream() {
    let origin = Origin::new(|_, request| match request {
        0 => Reply::Answer(OK),
        1 => Reply::Answer("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"),
        _ => Reply::Silence(""),
    })
    .await;
    let bench = Bench::of(vec![origin.url()]);
    bench.get("/").await.unwrap();
    bench.get("/").await.unwrap();
    bench.get("/").await.unwrap_err();
    let status = &bench.upstreams.status()[0];
    assert_eq!((status.succeeded, status.failed), (2, 1));
    assert!(status.latency_p50_ms.is_some());
    let (_, last_error) = status.last_error.clone().unwrap();
    assert_eq!(last_error, "no answer from the origin within 60s");
    let text = bench.metrics.encode();
    for line in [
        r#"hardtack_upstream_requests_total{upstream="api",outcome="2xx"} 1"#,
        r#"hardtack_upstream_requests_total{upstream="api",outcome="5xx"} 1"#,
        r#"hardtack_upstream_requests_total{upstream="api",outcome="timeout"} 1"#,
        r#"hardtack_upstream_requests_total{upstream="api",outcome="broken"} 0"#,
        r#"hardtack_upstream_request_duration_seconds_count{upstream="api"} 2"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_requests_at_once_are_all_answered() {
    let origin = Origin::always(Reply::Answer(OK)).await;
    let bench = Bench::of(vec![origin.url()]);
    let api = bench.api();
    let all = (0..100).map(|n| {
        let api = &api;
        async move {
            read(api.send(get(api, &format!("/{n}"))).await.unwrap())
                .await
                .0
        }
    });
    let statuses = futures_util::future::join_all(all).await;
    assert!(statuses.iter().all(|status| *status == 200));
}

#[tokio::test(start_paused = true)]
async fn bytes_left_over_after_a_response_are_never_taken_for_the_next() {
    const TWO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let origin = Origin::always(Reply::Answer(TWO)).await;
    let bench = Bench::of(vec![origin.url()]);
    for path in ["/1", "/2"] {
        assert_eq!(bench.get(path).await.unwrap(), (200, "ok".to_owned()));
    }
    assert_eq!(origin.accepted(), 2);
}
