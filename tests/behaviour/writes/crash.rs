//! The gateway stops, or is killed: what was acknowledged is still there, and what was being sent is not sent twice unasked.

use serde_json::Value;
use tokio::net::TcpStream;

use super::{Site, config, location, write};
use crate::support::{Client, Cue, Origin, Process, Reply, Request, eventually, noise, reverse_to};

const ALWAYS: &str = r#"mode = "always", order_by = "none""#;

#[tokio::test]
async fn queued_writes_are_delivered_after_a_restart_in_their_order() {
    let settings = r#"mode = "always", order_by = "route""#;
    let site = Site::start(settings).await;
    site.lose_origin().await;
    let paths: Vec<_> = (0..20).map(|nth| format!("/{nth}")).collect();
    let mut receipts = Vec::new();
    for path in &paths {
        site.origin.on(path, Reply::new(201, "made"));
        receipts.push(site.queue(write("POST", path)).await);
    }
    let before = site.receipt(&receipts[7]).await;
    let site = site.restart(settings, "").await;
    assert_eq!(site.receipt(&receipts[7]).await, before);

    site.origin.revive();
    for receipt in &receipts {
        site.until(receipt, "done").await;
    }
    assert_eq!(site.written(), paths);
    // What has ended is remembered too.
    let site = site.restart(settings, "").await;
    assert_eq!(site.receipt(&receipts[0]).await["state"], "done");
    let response = format!("{}/response", receipts[0]);
    assert_eq!(site.operator.get(&response).await.text(), "made");
    site.let_deliveries_pass().await;
    assert_eq!(site.count("/0"), 1);
}

#[tokio::test]
async fn what_is_on_its_way_comes_to_its_end_before_the_gateway_does() {
    let site = Site::start(ALWAYS).await;
    let cue = Cue::new();
    site.origin.on("/a", Reply::ok("made").held(&cue));
    let receipt = site.queue(write("POST", "/a")).await;
    site.origin.sees("/a", 1).await;
    let listener = site.gateway.client.address;
    let opening = async {
        eventually("the gateway drains", || async {
            TcpStream::connect(listener).await.is_err().then_some(())
        })
        .await;
        cue.open();
    };
    let config = config(site.origin.address(), ALWAYS, "");
    let Site {
        origin, gateway, ..
    } = site;
    let (gateway, ()) = tokio::join!(gateway.restart(&config), opening);
    let site = Site::of(origin, gateway);
    site.until(&receipt, "done").await;
    assert_eq!(site.count("/a"), 1);
}

/// Deliveries outlast the last request. The gateway was gone by then: what they changed was not invalidated, and those that
/// were about to begin found no upstream and were parked.
#[tokio::test]
async fn what_comes_to_its_end_while_the_gateway_stops_still_invalidates() {
    let site = Site::start(ALWAYS).await;
    let page = Reply::ok("old").cache_control("max-age=600");
    site.origin.on("/a", page);
    assert_eq!(site.gateway.client.get("/a").await.text(), "old");
    let cue = Cue::new();
    site.origin.on("/a", Reply::ok("new").held(&cue));
    let receipt = site.queue(write("PUT", "/a")).await;
    site.origin.sees("/a", 2).await;
    let listener = site.gateway.client.address;
    let opening = async {
        eventually("the gateway drains", || async {
            TcpStream::connect(listener).await.is_err().then_some(())
        })
        .await;
        cue.open();
    };
    let config = config(site.origin.address(), ALWAYS, "");
    let Site {
        origin, gateway, ..
    } = site;
    let (gateway, ()) = tokio::join!(gateway.restart(&config), opening);
    let site = Site::of(origin, gateway);
    site.until(&receipt, "done").await;
    assert_eq!(site.gateway.client.get("/a").await.text(), "new");
}

/// The receipt, by the operator, once it is in this state.
async fn until(operator: &Client, location: &str, state: &str) -> Value {
    eventually(&format!("the write is {state}"), || async {
        let receipt = operator.get(location).await.json();
        (receipt["state"] == state).then_some(receipt)
    })
    .await
}

fn operator(process: &Process) -> Client {
    process.admin.at(process.client.address)
}

#[tokio::test]
async fn an_acknowledged_write_survives_kill_9() {
    let origin = Origin::start().await;
    let process = Process::start(&config(origin.address(), ALWAYS, "")).await;
    origin.kill().await;
    let mut receipts = Vec::new();
    for nth in 0..5 {
        let path = format!("/{nth}");
        origin.on(&path, Reply::ok("made"));
        let body = noise(nth * 50_000);
        let request = Request::new("POST", &path).body(body);
        receipts.push(location(&process.client.ask(request).await));
    }
    // Killed with the last acknowledgement barely read.
    let process = process.kill().await.start().await;
    origin.revive();
    for (nth, receipt) in receipts.iter().enumerate() {
        until(&operator(&process), receipt, "done").await;
        let seen = origin.seen_at(&format!("/{nth}"));
        assert_eq!(seen.len(), 1);
        assert!(seen[0].body == noise(nth * 50_000));
    }
}

#[tokio::test]
async fn what_was_being_sent_when_the_gateway_was_killed_is_sent_again_where_that_does_no_harm() {
    let origin = Origin::start().await;
    let process = Process::start(&config(origin.address(), ALWAYS, "")).await;
    let never = Cue::new();
    for path in ["/post", "/put"] {
        let never = never.clone();
        origin.on_each(path, move |_, nth| match nth {
            0 => Reply::ok("lost").held(&never),
            _ => Reply::ok("made"),
        });
    }
    // After some success, several are on their way at once.
    origin.on("/sentinel", Reply::ok("seen"));
    for _ in 0..4 {
        let sentinel = location(&process.client.ask(write("POST", "/sentinel")).await);
        until(&operator(&process), &sentinel, "done").await;
    }
    let post = location(&process.client.ask(write("POST", "/post")).await);
    let put = location(&process.client.ask(write("PUT", "/put")).await);
    origin.sees("/post", 1).await;
    origin.sees("/put", 1).await;

    let process = process.kill().await.start().await;
    let receipt = until(&operator(&process), &post, "parked").await;
    assert_eq!(receipt["reason"], "ambiguous");
    until(&operator(&process), &put, "done").await;
    assert_eq!(
        (origin.seen_at("/post").len(), origin.seen_at("/put").len()),
        (1, 2)
    );
}

#[tokio::test]
async fn a_forward_proxied_write_is_delivered_after_a_restart_as_well() {
    let more = "[[routes]]\nname = \"all\"\nwrite = { mode = \"on-failure\" }";
    let site = Site::start_with("", more).await;
    let url = site.origin.url("/a");
    site.origin.kill().await;
    let receipt = site.queue(write("POST", &url)).await;
    let site = site.restart("", more).await;
    site.origin.on("/a", Reply::ok("made"));
    site.origin.revive();
    site.until(&receipt, "done").await;
    assert_eq!(site.count("/a"), 1);
    assert_eq!(
        site.origin.seen_at("/a")[0].body,
        format!("to {url}").as_bytes()
    );
}

#[tokio::test]
async fn a_write_whose_upstream_is_configured_no_longer_waits_for_an_operator() {
    let site = Site::start(ALWAYS).await;
    site.lose_origin().await;
    let receipt = site.queue(write("POST", "/a")).await;
    site.origin.revive();
    let other = Origin::start().await;
    let without = reverse_to(other.address()).replace("origin", "other");
    let Site {
        origin, gateway, ..
    } = site;
    let site = Site::of(origin, gateway.restart(&without).await);
    assert_eq!(site.until(&receipt, "parked").await["reason"], "operator");
    assert!(site.written().is_empty() && other.seen().is_empty());
}
