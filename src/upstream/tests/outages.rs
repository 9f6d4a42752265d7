//! Becoming disconnected, what it costs, and coming back.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::{net::TcpListener, time::Instant};

use super::{
    super::{ConnectivityOverride, ForwardError, ProbeConfig},
    support::{Bench, OK, Origin, Reply, change, config, get, post, read, refusing, upstream},
};
use crate::{
    modes::ModeOverride,
    policy::{
        Connectivity::{self, Connected, Disconnected},
        Mode, Timestamp,
    },
};

fn word(connectivity: Connectivity, until_secs: i64) -> Option<ConnectivityOverride> {
    Some(ConnectivityOverride {
        connectivity,
        until: Some(Timestamp::from_secs(until_secs)),
        reason: None,
    })
}

#[tokio::test(start_paused = true)]
async fn the_request_that_finds_an_origin_gone_is_told_why_and_the_next_ones_cost_nothing() {
    let (_socket, url) = refusing();
    let bench = Bench::of(vec![url]);
    let found = bench.get("/").await.unwrap_err();
    assert!(matches!(found, ForwardError::Connect { .. }) && found.never_sent());
    assert_eq!(bench.api().connectivity(), Disconnected);
    let start = Instant::now();
    for _ in 0..100 {
        let error = bench.get("/").await.unwrap_err();
        assert!(matches!(error, ForwardError::Disconnected) && error.never_sent());
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(bench.tasks.len(), 1, "one prober");
    let status = &bench.upstreams.status()[0];
    assert_eq!(status.failed, 1);
    let (_, last_error) = status.last_error.clone().unwrap();
    assert!(last_error.contains("refused"), "{last_error}");
}

#[tokio::test(start_paused = true)]
async fn the_prober_finds_an_origin_that_is_back() {
    let (socket, url) = refusing();
    let bench = Bench::of(vec![url]);
    let mut changes = bench.api().subscribe();
    bench.get("/").await.unwrap_err();
    change(&mut changes).await;
    // Long enough for several probes in vain.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.api().connectivity(), Disconnected);
    assert_eq!(
        bench.upstreams.status()[0].last_probe.map(|(_, well)| well),
        Some(false)
    );

    let origin = Origin::on(socket.listen(16).unwrap(), |_, _| Reply::Answer(OK));
    change(&mut changes).await;
    assert_eq!(bench.api().connectivity(), Connected);
    assert_eq!(
        bench.upstreams.status()[0].last_probe.map(|(_, well)| well),
        Some(true)
    );
    assert_eq!(origin.heads().len(), 0, "the probe only connected");
    assert_eq!(bench.get("/").await.unwrap().0, 200);
    let text = bench.metrics.encode();
    let seconds = text
        .lines()
        .find_map(|line| {
            line.strip_prefix(r#"hardtack_upstream_disconnected_seconds_total{upstream="api"} "#)
        })
        .unwrap();
    assert!(seconds.parse::<u64>().unwrap() >= 5);
    bench.tasks.close();
    bench.tasks.wait().await;
}

#[tokio::test(start_paused = true)]
async fn while_disconnected_only_the_prober_connects() {
    let origin = Origin::always(Reply::Answer(OK)).await;
    let bench = Bench::of(vec![origin.url()]);
    bench
        .upstreams
        .set_override("api", word(Disconnected, 2_000));
    for _ in 0..50 {
        let error = bench.get("/").await.unwrap_err();
        assert!(matches!(error, ForwardError::Disconnected));
    }
    assert_eq!(origin.accepted(), 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_probed_in_the_mode_offline() {
    let (socket, url) = refusing();
    let bench = Bench::of(vec![url]);
    bench.get("/").await.unwrap_err();
    let offline = ModeOverride {
        mode: Mode::Offline,
        until: None,
        reason: None,
    };
    bench.modes.set(None, Some(offline));
    let origin = Origin::on(socket.listen(16).unwrap(), |_, _| Reply::Answer(OK));
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(origin.accepted(), 0);
    let mut changes = bench.api().subscribe();
    bench.modes.set(None, None);
    change(&mut changes).await;
    assert_eq!(bench.api().connectivity(), Connected);
}

#[tokio::test(start_paused = true)]
async fn a_silent_handshake_or_a_full_backlog_is_an_unreachable_origin() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let bench = Bench::of(vec![url.parse().unwrap()]);
    let start = Instant::now();
    let error = bench.get("/").await.unwrap_err();
    assert!(matches!(error, ForwardError::Connect { .. }), "{error:?}");
    assert_eq!(start.elapsed().as_secs(), 3, "the handshake's limit");
    assert_eq!(bench.api().connectivity(), Disconnected);

    let full = tokio::net::TcpSocket::new_v4().unwrap();
    full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = full.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut queued = Vec::new();
    let brief = Duration::from_millis(10);
    while let Ok(stream) =
        tokio::time::timeout(brief, tokio::net::TcpStream::connect(address)).await
    {
        queued.push(stream.unwrap());
    }
    let bench = Bench::of(vec![format!("http://{address}").parse().unwrap()]);
    let start = Instant::now();
    let error = bench.get("/").await.unwrap_err();
    assert!(matches!(error, ForwardError::Connect { .. }), "{error:?}");
    assert_eq!(start.elapsed().as_secs(), 2, "the connect timeout");
    assert_eq!(bench.api().connectivity(), Disconnected);
}

#[tokio::test(start_paused = true)]
async fn nobody_goes_on_waiting_for_a_connect_once_the_upstream_is_lost() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let bench = Bench::of(vec![url.parse().unwrap()]);
    let first = bench.get("/1");
    let late = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let start = Instant::now();
        let error = bench.get("/2").await.unwrap_err();
        assert!(matches!(error, ForwardError::Disconnected), "{error:?}");
        assert!(
            start.elapsed() < Duration::from_millis(1_100),
            "{:?}",
            start.elapsed()
        );
    };
    let (first, ()) = tokio::join!(first, late);
    assert!(matches!(first, Err(ForwardError::Connect { .. })));
}

#[tokio::test(start_paused = true)]
async fn the_next_origin_is_tried_when_one_cannot_be_connected_to() {
    let (socket, dead) = refusing();
    let alive = Origin::always(Reply::Answer(OK)).await;
    let bench = Bench::of(vec![dead, alive.url()]);
    let api = bench.api();
    assert_eq!(bench.get("/read").await.unwrap().0, 200);
    assert_eq!(api.connectivity(), Connected);
    // The body was kept for the origin that took it, and Host is the authority of the origin that was asked.
    let answer = read(api.send(post(&api, "/write", "hello")).await.unwrap()).await;
    assert_eq!(answer.0, 200);
    let heads = alive.heads();
    assert!(heads[1].contains("content-length: 5"), "{heads:?}");
    for head in &heads {
        assert!(
            head.contains(&format!("host: {}\r\n", alive.address)),
            "{head}"
        );
    }
    // For a while the dead one is tried last.
    let first = Origin::on(socket.listen(16).unwrap(), |_, _| Reply::Answer(OK));
    bench.get("/held").await.unwrap();
    assert_eq!(first.heads().len(), 0);
    tokio::time::sleep(Duration::from_secs(6)).await;
    bench.get("/back").await.unwrap();
    assert_eq!(first.heads().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_preserved_host_is_kept_on_every_origin() {
    let (_socket, dead) = refusing();
    let alive = Origin::always(Reply::Answer(OK)).await;
    let bench = Bench::of(vec![dead, alive.url()]);
    let api = bench.api();
    let mut request = get(&api, "/");
    request
        .headers_mut()
        .insert("host", "shop.example".parse().unwrap());
    api.send(request).await.unwrap();
    assert!(alive.heads()[0].contains("host: shop.example\r\n"));
}

#[tokio::test(start_paused = true)]
async fn an_operators_word_outranks_what_was_measured_until_it_runs_out() {
    let (socket, url) = refusing();
    let bench = Bench::of(vec![url]);
    bench.get("/").await.unwrap_err();
    assert!(bench.upstreams.set_override("api", word(Connected, 1_060)));
    assert!(!bench.upstreams.set_override("nobody", None));
    let error = bench.get("/").await.unwrap_err();
    assert!(
        matches!(error, ForwardError::Connect { .. }),
        "requests try: {error:?}"
    );
    bench.clock.step_secs(60);
    let error = bench.get("/").await.unwrap_err();
    assert!(matches!(error, ForwardError::Disconnected));

    // Offline by word: not even the prober touches the link.
    bench
        .upstreams
        .set_override("api", word(Disconnected, 2_000));
    let origin = Origin::on(socket.listen(16).unwrap(), |_, _| Reply::Answer(OK));
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(origin.accepted(), 0);
    let status = &bench.upstreams.status()[0];
    assert!(status.r#override.is_some());
    bench.upstreams.set_override("api", None);
    let mut changes = bench.api().subscribe();
    change(&mut changes).await;
    assert_eq!(bench.api().connectivity(), Connected);
}

#[tokio::test(start_paused = true)]
async fn any_whole_response_head_reconnects() {
    let (socket, url) = refusing();
    let bench = Bench::of(vec![url]);
    bench.get("/").await.unwrap_err();
    let _origin = Origin::on(socket.listen(16).unwrap(), |_, _| {
        Reply::Answer("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n")
    });
    bench.upstreams.set_override("api", word(Connected, 2_000));
    assert_eq!(bench.get("/").await.unwrap().0, 503);
    bench.upstreams.set_override("api", None);
    assert_eq!(bench.api().connectivity(), Connected);
}

#[tokio::test(start_paused = true)]
async fn an_active_probe_finds_out_before_a_request_does() {
    let origin = Origin::new(|connection, _| match connection {
        // Unwell is not gone.
        0 => Reply::Answer("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"),
        _ => Reply::Answer(OK),
    })
    .await;
    let address = origin.address;
    let mut probed = upstream(vec![origin.url()]);
    probed.probe = Some(ProbeConfig {
        path: "/healthz?deep".to_owned(),
        interval: Duration::from_secs(10),
        status: None,
        body: None,
    });
    let bench = Bench::new(config([("api", probed)]));
    let mut changes = bench.api().subscribe();
    tokio::time::sleep(Duration::from_secs(25)).await;
    let heads = origin.heads();
    assert_eq!(heads.len(), 2);
    assert!(
        heads[0].starts_with("GET /healthz?deep HTTP/1.1\r\n"),
        "{heads:?}"
    );
    assert!(!changes.has_changed().unwrap());

    drop(origin);
    change(&mut changes).await;
    assert_eq!(*changes.borrow_and_update(), Disconnected);
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let _origin = Origin::on(socket.listen(16).unwrap(), |_, _| Reply::Answer(OK));
    change(&mut changes).await;
    assert_eq!(*changes.borrow_and_update(), Connected);

    bench.shutdown.cancel();
    bench.tasks.close();
    bench.tasks.wait().await;
}

#[tokio::test(start_paused = true)]
async fn the_prober_of_a_forward_target_that_nobody_asks_for_ends() {
    let (_socket, url) = refusing();
    let mut config = config([]);
    config.allow_networks = vec!["127.0.0.0/8".parse().unwrap()];
    let bench = Bench::new(config);
    let implicit = || {
        bench
            .upstreams
            .implicit(url.scheme().unwrap(), url.authority().unwrap())
    };
    let error = implicit().send(get(&implicit(), "/")).await.unwrap_err();
    assert!(matches!(error, ForwardError::Connect { .. }), "{error:?}");
    assert_eq!(bench.tasks.len(), 1);
    tokio::time::sleep(Duration::from_secs(500)).await;
    assert_eq!(implicit().connectivity(), Disconnected);
    tokio::time::sleep(Duration::from_secs(500)).await;
    assert_eq!(
        implicit().connectivity(),
        Disconnected,
        "it was asked for meanwhile"
    );
    bench.tasks.close();
    bench.tasks.wait().await;
    assert_eq!(
        implicit().connectivity(),
        Connected,
        "the next request finds out itself"
    );
    let error = implicit().send(get(&implicit(), "/")).await.unwrap_err();
    assert!(matches!(error, ForwardError::Connect { .. }));
}

#[tokio::test(start_paused = true)]
async fn the_prober_of_a_forward_target_that_is_waited_for_goes_on() {
    let (socket, url) = refusing();
    let mut config = config([]);
    config.allow_networks = vec!["127.0.0.0/8".parse().unwrap()];
    let bench = Bench::new(config);
    let (scheme, authority) = (url.scheme().unwrap(), url.authority().unwrap());
    let implicit = bench.upstreams.implicit(scheme, authority);
    implicit.send(get(&implicit, "/")).await.unwrap_err();
    let start = Instant::now();
    let (_origin, ()) = tokio::join!(
        async {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
            assert_eq!(implicit.connectivity(), Disconnected);
            Origin::on(socket.listen(16).unwrap(), |_, _| Reply::Answer(OK))
        },
        implicit.connected(),
    );
    assert_eq!(start.elapsed().as_secs() / 60, 60, "found by the prober");
    assert_eq!(implicit.connectivity(), Connected);
    bench.tasks.close();
    bench.tasks.wait().await;
}

#[tokio::test(start_paused = true)]
async fn many_requests_that_find_out_together_start_one_prober() {
    let (_socket, url) = refusing();
    let bench = Bench::of(vec![url]);
    let api = bench.api();
    let all = join_all((0..50).map(|_| api.send(get(&api, "/")))).await;
    assert!(all.iter().all(Result::is_err));
    assert_eq!(bench.tasks.len(), 1);
}
