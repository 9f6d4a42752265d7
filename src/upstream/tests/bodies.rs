//! Response bodies: the permit they hold, the origin that stalls, and how their end is marked.

use std::time::Duration;

use http_body_util::BodyExt;
use tokio::time::Instant;

use super::{
    super::{ConnectivityOverride, ForwardError},
    support::{Bench, OK, Origin, Reply, config, get, no_body, request, upstream},
};
use crate::policy::Connectivity;

fn narrow(origin: &Origin) -> Bench {
    let mut config = config([("api", upstream(vec![origin.url()]))]);
    config.max_in_flight = 1;
    config.max_waiting = 1;
    Bench::new(config)
}

#[tokio::test(start_paused = true)]
async fn a_body_holds_the_permit_until_it_is_dropped() {
    let origin = Origin::always(Reply::Silence(
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
    ))
    .await;
    let bench = narrow(&origin);
    let api = bench.api();
    let first = api.send(get(&api, "/")).await.unwrap();
    assert_eq!(bench.upstreams.status()[0].in_flight, 1);
    let start = Instant::now();
    let error = api.send(get(&api, "/")).await.unwrap_err();
    assert!(matches!(error, ForwardError::Overloaded) && error.never_sent());
    assert_eq!(start.elapsed().as_secs(), 1);
    assert_eq!(origin.heads().len(), 1);
    drop(first);
    assert!(api.send(get(&api, "/")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_body_gives_the_permit_back_at_its_end_even_when_it_is_kept() {
    let origin = Origin::always(Reply::Answer(OK)).await;
    let bench = narrow(&origin);
    let api = bench.api();
    let mut response = api.send(get(&api, "/")).await.unwrap();
    // Not polled to its end: whoever knows the length stops here.
    response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(bench.upstreams.status()[0].in_flight, 0);

    let head = request(&api, "HEAD", "/").body(no_body()).unwrap();
    let _kept = api.send(head).await.unwrap();
    assert_eq!(bench.upstreams.status()[0].in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_gives_its_permit_back() {
    let origin = Origin::always(Reply::Silence("")).await;
    let bench = narrow(&origin);
    let api = bench.api();
    let limit = Duration::from_secs(1);
    let cancelled = tokio::time::timeout(limit, api.send(get(&api, "/"))).await;
    assert!(cancelled.is_err());
    assert_eq!(bench.upstreams.status()[0].in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_waited_for_a_permit_is_not_sent_to_an_upstream_that_was_lost_meanwhile() {
    let origin = Origin::always(Reply::Silence(
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
    ))
    .await;
    let bench = narrow(&origin);
    let api = bench.api();
    let first = api.send(get(&api, "/")).await.unwrap();
    let (second, ()) = tokio::join!(api.send(get(&api, "/")), async {
        tokio::task::yield_now().await;
        let word = ConnectivityOverride {
            connectivity: Connectivity::Disconnected,
            until: None,
            reason: None,
        };
        bench.upstreams.set_override("api", Some(word));
        drop(first);
    });
    assert!(matches!(second, Err(ForwardError::Disconnected)));
    assert_eq!(origin.heads().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_stalls_in_mid_body_is_given_up() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n";
    let origin = Origin::always(Reply::Late(HEAD, Duration::from_secs(50), "half")).await;
    let bench = Bench::of(vec![origin.url()]);
    let api = bench.api();
    let start = Instant::now();
    let mut body = api.send(get(&api, "/")).await.unwrap().into_body();
    let half = body.frame().await.unwrap().unwrap();
    assert_eq!(half.data_ref().unwrap(), "half");
    assert_eq!(start.elapsed().as_secs(), 50);
    // A reader that takes its time does not run the timer.
    tokio::time::advance(Duration::from_secs(600)).await;
    let start = Instant::now();
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the origin sent nothing for 60s in mid-body"
    );
    assert_eq!(start.elapsed().as_secs(), 60);
    assert!(body.frame().await.is_none());
    assert_eq!(bench.upstreams.status()[0].in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn an_event_stream_may_be_silent_for_hours() {
    let origin = Origin::always(Reply::Late(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n",
        Duration::from_secs(7_200),
        "data: 2\n\n",
    ))
    .await;
    let bench = Bench::of(vec![origin.url()]);
    let api = bench.api();
    let mut body = api.send(get(&api, "/")).await.unwrap().into_body();
    for expected in ["data: 1\n\n", "data: 2\n\n"] {
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.data_ref().unwrap(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_an_error_not_an_end() {
    let check = async |reply: &'static str| {
        let origin = Origin::always(Reply::Close(reply)).await;
        let bench = Bench::of(vec![origin.url()]);
        let api = bench.api();
        let response = api.send(get(&api, "/")).await.unwrap();
        assert!(!response.body().is_close_delimited());
        assert!(response.into_body().collect().await.is_err(), "{reply}");
    };
    check("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
    check("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    check("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\nhalf\r\n").await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_only_the_close_ends_says_so() {
    let check = async |method: &str, reply: &'static str, expected: bool| {
        let origin = Origin::always(Reply::Close(reply)).await;
        let bench = Bench::of(vec![origin.url()]);
        let api = bench.api();
        let sent = request(&api, method, "/").body(no_body()).unwrap();
        let response = api.send(sent).await.unwrap();
        assert_eq!(
            response.body().is_close_delimited(),
            expected,
            "{method} {reply}"
        );
        response.into_body().collect().await.unwrap();
    };
    check("GET", "HTTP/1.1 200 OK\r\n\r\nbody", true).await;
    check("GET", "HTTP/1.0 200 OK\r\n\r\nbody", true).await;
    check(
        "GET",
        "HTTP/1.0 200 OK\r\ncontent-length: 4\r\n\r\nbody",
        false,
    )
    .await;
    check("GET", OK, false).await;
    check(
        "GET",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        false,
    )
    .await;
    check("GET", "HTTP/1.1 204 No Content\r\n\r\n", false).await;
    check("GET", "HTTP/1.1 304 Not Modified\r\n\r\n", false).await;
    check("HEAD", "HTTP/1.1 200 OK\r\n\r\n", false).await;
}
