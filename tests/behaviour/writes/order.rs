//! Lanes: what is delivered in order of acceptance, and what is not held up by what.

use futures_util::future::join_all;

use super::{Site, location, write};
use crate::support::{Cue, Reply, Request};

fn on_failure(order_by: &str) -> String {
    format!("mode = \"on-failure\", order_by = \"{order_by}\"")
}

fn of_tenant(path: &str, tenant: &str) -> Request {
    write("POST", path).header("X-Tenant", tenant)
}

#[tokio::test]
async fn a_lane_with_something_in_it_takes_later_writes_though_the_origin_is_up() {
    let site = Site::start(&on_failure("route")).await;
    let cue = Cue::new();
    let held = cue.clone();
    site.origin.on_each("/a", move |_, nth| match nth {
        0 => Reply::new(429, "not now"),
        _ => Reply::ok("made").held(&held),
    });
    site.origin.on("/b", Reply::ok("made"));
    let first = site.queue(write("PUT", "/a")).await;
    site.origin.sees("/a", 2).await;
    let second = site.queue(write("PUT", "/b")).await;
    let third = site.queue(write("POST", "/b")).await;
    assert_eq!(site.receipt(&third).await["position"], 2);
    assert_eq!(site.count("/b"), 0, "it would be out of order");
    // Neither a read nor what may not be stored is in the lane.
    assert_eq!(site.gateway.client.get("/b").await.text(), "made");
    let unqueued = write("POST", "/b").header("Hardtack-Queue", "never");
    assert_eq!(site.ask(unqueued).await.status, 200);

    cue.open();
    for receipt in [&first, &second, &third] {
        site.until(receipt, "done").await;
    }
    let delivered = site.origin.seen_at("/b");
    let methods: Vec<_> = delivered.iter().map(|seen| seen.method.as_str()).collect();
    assert_eq!(methods, ["GET", "POST", "PUT", "POST"]);

    // Empty again, it lets writes pass.
    assert_eq!(site.ask(write("PUT", "/b")).await.status, 200);
}

/// Queues writes while the origin is away, and has them all delivered: the targets in the order of the origin.
async fn delivered(order_by: &str, requests: Vec<Request>, paths: &[&str]) -> Vec<String> {
    let site = Site::start(&on_failure(order_by)).await;
    for path in paths {
        site.origin.on(path, Reply::ok("made"));
    }
    site.lose_origin().await;
    let mut receipts = Vec::new();
    for request in requests {
        receipts.push(site.queue(request).await);
    }
    site.origin.revive();
    for receipt in &receipts {
        site.until(receipt, "done").await;
    }
    let written = site.written();
    assert_eq!(written.len(), receipts.len());
    written
}

#[tokio::test]
async fn a_routes_and_an_origins_writes_are_delivered_in_the_order_of_their_acceptance() {
    let paths = ["/a", "/b", "/c", "/d"];
    let expected: Vec<_> = (0..24).map(|nth| paths[nth * 7 % 4]).collect();
    for order_by in ["route", "origin"] {
        let requests = expected.iter().map(|path| write("POST", path));
        let written = delivered(order_by, requests.collect(), &paths).await;
        assert_eq!(written, expected, "{order_by}");
    }
}

#[tokio::test]
async fn the_writes_of_one_value_of_a_field_are_delivered_in_order() {
    let paths: Vec<_> = (0..18).map(|nth| format!("/{nth}")).collect();
    let names: Vec<_> = paths.iter().map(String::as_str).collect();
    let requests = (0..18).map(|nth| of_tenant(names[nth], ["x", "y", "z"][nth % 3]));
    let written = delivered("header:x-tenant", requests.collect(), &names).await;
    for tenant in 0..3 {
        let own = |target: &&String| target[1..].parse::<usize>().unwrap() % 3 == tenant;
        let seen: Vec<_> = written.iter().filter(own).collect();
        let expected: Vec<_> = paths.iter().filter(own).collect();
        assert_eq!(seen, expected);
    }
}

/// Two writes whose first is stuck at the origin with its answer held: whether the second is delivered meanwhile.
async fn overtakes(order_by: &str, first: Request, second: Request) -> bool {
    let site = Site::start(&format!("mode = \"always\", order_by = \"{order_by}\"")).await;
    let cue = Cue::new();
    site.origin.on("/held", Reply::ok("made").held(&cue));
    site.origin.on("/next", Reply::ok("made"));
    site.reach_full_speed().await;
    let first = site.queue(first).await;
    site.origin.sees("/held", 1).await;
    let second = site.queue(second).await;
    // A lane of its own, queued last: when it is done the second has had its chance.
    site.let_deliveries_pass().await;
    let overtook = site.count("/next") == 1;
    cue.open();
    site.until(&first, "done").await;
    site.until(&second, "done").await;
    assert_eq!((site.count("/held"), site.count("/next")), (1, 1));
    overtook
}

#[tokio::test]
async fn one_lane_waits_for_its_head_and_others_do_not() {
    let (held, next) = (|| write("POST", "/held"), || write("POST", "/next"));
    assert!(!overtakes("route", held(), next()).await);
    assert!(!overtakes("origin", held(), next()).await);
    assert!(overtakes("path", held(), next()).await);
    assert!(overtakes("none", held(), next()).await);
    let tenant = "header:x-tenant";
    assert!(!overtakes(tenant, of_tenant("/held", "x"), of_tenant("/next", "x")).await);
    assert!(overtakes(tenant, of_tenant("/held", "x"), of_tenant("/next", "y")).await);
}

#[tokio::test]
async fn routes_to_one_origin_share_a_lane_where_the_order_is_the_origins() {
    let route = |name: &str| {
        format!(
            r#"
            [[routes]]
            name = "{name}"
            match = {{ path = "/{name}/**" }}
            upstream = "origin"
            write = {{ mode = "always", order_by = "origin" }}"#
        )
    };
    let more = [route("a"), route("b")].join("");
    let site = Site::start_with("", &more).await;
    site.origin.on("/a/1", Reply::ok(""));
    site.origin.on("/b/1", Reply::ok(""));
    site.origin.kill().await;
    let mut last = String::new();
    for nth in 0..12 {
        let path = ["/a/1", "/b/1"][nth % 2];
        let answer = site.ask(write("POST", path)).await;
        assert_eq!(answer.json()["position"], nth);
        last = location(&answer);
    }
    site.origin.revive();
    site.until(&last, "done").await;
    assert_eq!(site.written(), ["/a/1", "/b/1"].repeat(6));
}

/// A head that the origin says conflicts, and a write behind it: whether that is delivered.
async fn goes_on(write: &str, head: u16) -> bool {
    let site = Site::start(&format!("mode = \"always\", {write}")).await;
    site.origin
        .on_each("/a", move |seen, _| match seen.method.as_str() {
            "PUT" => Reply::new(head, "no"),
            _ => Reply::ok("made"),
        });
    let stuck = site.queue(super::write("PUT", "/a")).await;
    let behind = site.queue(super::write("DELETE", "/a")).await;
    let state = if head == 409 { "parked" } else { "dead" };
    site.until(&stuck, state).await;
    site.let_deliveries_pass().await;
    let goes_on = site.count("/a") == 2;
    if goes_on {
        site.until(&behind, "done").await;
    } else {
        let receipt = site.receipt(&behind).await;
        assert_eq!(receipt["state"], "queued");
        assert_eq!(receipt["blocked_by"], site.receipt(&stuck).await["id"]);
    }
    goes_on
}

#[tokio::test]
async fn a_stuck_head_halts_its_lane_or_does_not() {
    for head in [409, 422] {
        for (write, expected) in [
            (r#"order_by = "route""#, false),
            (r#"order_by = "path""#, false),
            (r#"order_by = "header:x""#, false),
            (r#"order_by = "origin""#, true),
            (r#"order_by = "route", on_stuck = "continue""#, true),
            (r#"order_by = "origin", on_stuck = "halt""#, false),
        ] {
            assert_eq!(goes_on(write, head).await, expected, "{write} after {head}");
        }
    }
}

#[tokio::test]
async fn a_halted_lane_takes_further_writes_and_holds_up_no_read() {
    let site = Site::start(&on_failure("route")).await;
    site.origin
        .on_each("/a", |seen, _| match seen.method.as_str() {
            "PUT" => Reply::new(409, "conflict"),
            _ => Reply::ok("read").cache_control("no-store"),
        });
    let stuck = site
        .queue(write("PUT", "/a").header("Prefer", "respond-async"))
        .await;
    site.until(&stuck, "parked").await;
    let queued = site.queue(write("POST", "/a")).await;
    for _ in 0..3 {
        let answer = site.gateway.client.get("/a").await;
        assert_eq!((answer.status, answer.text()), (200, "read"));
    }
    site.let_deliveries_pass().await;
    assert_eq!(site.receipt(&queued).await["state"], "queued");
}

#[tokio::test]
async fn many_at_once_are_delivered_in_the_order_of_their_ids() {
    let site = Site::start(&on_failure("route")).await;
    site.lose_origin().await;
    let paths: Vec<_> = (0..40).map(|nth| format!("/{nth}")).collect();
    for path in &paths {
        site.origin.on(path, Reply::ok("made"));
    }
    let answers = join_all(paths.iter().map(|path| site.ask(write("POST", path)))).await;
    let mut accepted: Vec<_> = answers.iter().map(location).zip(&paths).collect();
    accepted.sort();
    site.origin.revive();
    for (receipt, _) in &accepted {
        site.until(receipt, "done").await;
    }
    let expected: Vec<_> = accepted.iter().map(|(_, path)| (*path).clone()).collect();
    assert_eq!(site.written(), expected);
}

#[tokio::test]
async fn a_client_that_writes_through_outages_has_its_writes_executed_once_each_in_their_order() {
    let site = Site::start(&on_failure("route")).await;
    let mut expected = Vec::new();
    let mut last = None;
    let mut passed = 0;
    for nth in 0..120 {
        match nth % 30 {
            6 => site.origin.kill().await,
            14 => site.origin.revive(),
            _ => {}
        }
        let path = format!("/{nth}");
        site.origin.on(&path, Reply::ok("made"));
        let answer = site.ask(write("POST", &path)).await;
        if answer.status == 200 {
            passed += 1;
        } else {
            last = Some(location(&answer));
        }
        expected.push(path);
        if nth % 30 == 22 {
            // The lane is empty again, and the next write is passed on.
            site.until(&last.take().expect("a queued write"), "done")
                .await;
        }
    }
    assert_eq!(site.written(), expected);
    assert!(passed >= 4 * 13, "{passed} of {}", expected.len());
}
