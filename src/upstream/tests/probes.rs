//! What a probe must be answered, and what it proves.

use std::time::Duration;

use http::{StatusCode, Uri};
use tokio::time::Instant;

use super::{
    super::{ConnectivityOverride, ProbeConfig, ProbeError, Verified},
    support::{Bench, OK, Origin, Reply, change, config, refusing, upstream},
};
use crate::policy::Connectivity::{Connected, Disconnected};

const PORTAL: &str =
    "HTTP/1.1 302 Found\r\nlocation: http://portal.example/\r\ncontent-length: 5\r\n\r\nlogin";

fn probe(status: Option<u16>, body: Option<&str>) -> ProbeConfig {
    ProbeConfig {
        path: "/healthz".to_owned(),
        interval: Duration::from_secs(10),
        status: status.map(|status| StatusCode::from_u16(status).unwrap()),
        body: body.map(str::to_owned),
    }
}

fn bench(urls: Vec<Uri>, probe: Option<ProbeConfig>) -> Bench {
    let mut api = upstream(urls);
    api.probe = probe;
    Bench::new(config([("api", api)]))
}

#[tokio::test(start_paused = true)]
async fn a_probe_passes_with_the_expected_answer_only() {
    let check = async |reply: Reply, status: Option<u16>, body: Option<&str>, expected: &str| {
        let origin = Origin::always(reply.clone()).await;
        let bench = bench(vec![origin.url()], Some(probe(status, body)));
        let found = match bench.api().verify().await {
            Ok(Verified::Proven) => "proven".to_owned(),
            Ok(Verified::Unproven) => "unproven".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected, "{reply:?}");
        let passed = bench.upstreams.status()[0].last_probe.map(|(_, well)| well);
        assert_eq!(passed, Some(expected == "proven"), "{reply:?}");
        assert_eq!(bench.api().connectivity(), Connected);
        assert!(origin.heads()[0].starts_with("GET /healthz HTTP/1.1\r\n"));
        assert_eq!(origin.heads().len(), 1);
    };
    let lacks = "the probe's answer lacks the expected text";
    check(Reply::Answer(OK), None, None, "proven").await;
    check(Reply::Answer(PORTAL), None, None, "proven").await;
    check(Reply::Answer(OK), Some(200), Some("ok"), "proven").await;
    check(Reply::Answer(OK), None, Some("ok!"), lacks).await;
    check(Reply::Answer(PORTAL), None, Some("ok"), lacks).await;
    check(
        Reply::Answer(PORTAL),
        Some(200),
        None,
        "the probe was answered with 302 Found",
    )
    .await;
    let busy = "HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\nok";
    let unwell = "the probe was answered with 503 Service Unavailable";
    check(Reply::Answer(busy), None, Some("ok"), unwell).await;
    check(Reply::Answer(busy), Some(503), Some("ok"), "proven").await;
    // In two parts, and the text in both of them.
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nwe are we";
    let late = Reply::Late(head, Duration::from_secs(1), "ll, thanks");
    check(late, None, Some("well"), "proven").await;
    let silent = "no answer from the origin within 10s";
    check(Reply::Silence(head), None, Some("well"), silent).await;
}

#[tokio::test(start_paused = true)]
async fn of_an_answer_only_the_first_64_kib_are_searched() {
    let check = async |padding: usize, expected: bool| {
        let body = "-".repeat(padding) + "well";
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\n{body}");
        let origin = Origin::always(Reply::Silence(answer.leak())).await;
        let bench = bench(vec![origin.url()], Some(probe(None, Some("well"))));
        let start = Instant::now();
        assert_eq!(bench.api().verify().await.is_ok(), expected, "{padding}");
        assert_eq!(start.elapsed(), Duration::ZERO, "{padding}");
    };
    check(65_532, true).await;
    check(65_533, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_captive_portal_does_not_end_an_outage() {
    let (socket, url) = refusing();
    let bench = bench(vec![url], Some(probe(Some(200), Some("ok"))));
    bench.get("/").await.unwrap_err();
    let mut changes = bench.api().subscribe();
    let origin = Origin::on(
        socket.listen(16).unwrap(),
        |connection, _| match connection {
            0..4 => Reply::Answer(PORTAL),
            _ => Reply::Answer(OK),
        },
    );
    change(&mut changes).await;
    assert_eq!(bench.api().connectivity(), Connected);
    assert_eq!(origin.heads().len(), 5);
    bench.shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn without_a_probe_only_tls_proves_who_answers() {
    let check = async |urls: &[&str], expected: Verified| {
        let urls = urls.iter().map(|url| url.parse().unwrap()).collect();
        let bench = bench(urls, None);
        assert_eq!(bench.api().verify().await.unwrap(), expected);
        assert!(bench.upstreams.status()[0].last_probe.is_none());
    };
    check(&["https://a.invalid"], Verified::Proven).await;
    check(
        &["https://a.invalid", "https://b.invalid"],
        Verified::Proven,
    )
    .await;
    check(&["http://a.invalid"], Verified::Unproven).await;
    check(
        &["https://a.invalid", "http://b.invalid"],
        Verified::Unproven,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_origin_that_requests_reach_is_the_one_to_verify() {
    let (_socket, dead) = refusing();
    let portal = Origin::always(Reply::Answer(PORTAL)).await;
    let well = Origin::always(Reply::Answer(OK)).await;
    let urls = vec![dead.clone(), portal.url(), well.url()];
    let error = bench(urls, Some(probe(Some(200), None)))
        .api()
        .verify()
        .await
        .unwrap_err();
    assert!(
        matches!(error, ProbeError::Status(StatusCode::FOUND)),
        "{error}"
    );

    let urls = vec![dead.clone(), well.url()];
    let bench_of_two = bench(urls, Some(probe(Some(200), None)));
    assert_eq!(bench_of_two.api().verify().await.unwrap(), Verified::Proven);

    let nobody = bench(vec![dead], Some(probe(None, None)));
    let error = nobody.api().verify().await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    assert_eq!(nobody.api().connectivity(), Disconnected);
    for bench in [bench_of_two, nobody] {
        bench.shutdown.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_verified_against_an_operators_word() {
    let origin = Origin::always(Reply::Answer(OK)).await;
    let bench = bench(vec![origin.url()], Some(probe(None, None)));
    let word = ConnectivityOverride {
        connectivity: Disconnected,
        until: None,
        reason: None,
    };
    bench.upstreams.set_override("api", Some(word));
    let error = bench.api().verify().await.unwrap_err();
    assert!(matches!(error, ProbeError::Forbidden), "{error}");
    assert_eq!(origin.accepted(), 0);
}
