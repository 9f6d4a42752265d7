//! A captive portal is not the origin: what it answers to a write says nothing of the write.

use super::{Site, write};
use crate::support::{Cue, Reply, Request, eventually};

const ALWAYS: &str = r#"mode = "always""#;

fn html(status: u16) -> Reply {
    let page = Reply::new(status, "<html>Welcome to the hotel</html>");
    page.header("Content-Type", "text/html; charset=utf-8")
}

/// A portal answers a write that may be repeated so for a while, and then the origin itself does.
async fn check(portal: Reply) {
    let site = Site::start(ALWAYS).await;
    site.origin.on("/a", portal);
    site.lose_origin().await;
    let receipt = site.queue(write("PUT", "/a")).await;
    let behind = site.queue(write("PUT", "/b")).await;
    site.origin.revive();
    // Tried again and again, it stays what it is.
    site.origin.sees("/a", 2).await;
    eventually("it is as if it had not been tried", || async {
        let receipt = site.receipt(&receipt).await;
        let found = (&receipt["state"], &receipt["attempts"]);
        (found == (&"queued".into(), &0.into())).then_some(())
    })
    .await;
    assert_eq!(site.count("/b"), 0);

    site.origin.on("/a", Reply::ok("the origin"));
    site.origin.on("/b", Reply::ok("the origin"));
    let done = site.until(&receipt, "done").await;
    assert_eq!(done["attempts"], 1);
    let answer = site
        .gateway
        .client
        .get(&format!("{receipt}/response"))
        .await;
    assert_eq!(answer.text(), "the origin");
    site.until(&behind, "done").await;
}

#[tokio::test]
async fn a_page_instead_of_the_origins_answer_is_a_portals() {
    check(html(200)).await;
}

#[tokio::test]
async fn so_is_a_redirect_to_another_host() {
    let portal = "http://portal.example/login?from=a";
    check(Reply::new(302, "").header("Location", portal)).await;
}

#[tokio::test]
async fn so_is_511() {
    check(html(511)).await;
}

#[tokio::test]
async fn so_is_a_page_that_refuses_after_an_outage() {
    check(html(403)).await;
}

/// After an outage: whoever is there is looked at first.
#[tokio::test]
async fn a_portal_that_answers_every_path_does_not_get_the_write() {
    let elsewhere = Reply::new(302, "").header("Location", "http://portal.example/login");
    for portal in [html(200), elsewhere, html(511)] {
        let site = Site::start(ALWAYS).await;
        site.origin.on("/a", Reply::ok("the origin"));
        site.lose_origin().await;
        let receipt = site.queue(write("POST", "/a")).await;
        site.origin.replaced_by(Some(portal));
        site.origin.revive();
        eventually("it was looked at twice", || async {
            let looks = site.origin.seen().into_iter();
            let looks = looks.filter(|seen| seen.target.starts_with("/.well-known/hardtack-look-"));
            (looks.count() >= 2).then_some(())
        })
        .await;
        assert_eq!(site.count("/a"), 0);
        let found = site.receipt(&receipt).await;
        let found = (&found["state"], &found["attempts"]);
        assert_eq!(found, (&"queued".into(), &0.into()));
        site.origin.replaced_by(None);
        site.until(&receipt, "done").await;
        assert_eq!(site.count("/a"), 1);
    }
}

/// Without an outage the write is the first to meet it.
#[tokio::test]
async fn a_write_that_must_not_be_executed_twice_waits_when_a_portal_has_answered_it() {
    let site = Site::start(ALWAYS).await;
    site.origin.on("/a", Reply::ok("the origin"));
    site.until(&site.queue(write("POST", "/a")).await, "done")
        .await;
    site.origin.replaced_by(Some(html(200)));
    let receipt = site.queue(write("POST", "/a")).await;
    site.origin.sees("/a", 2).await;
    eventually("it is as if it had not been tried", || async {
        let receipt = site.receipt(&receipt).await;
        let found = (&receipt["state"], &receipt["attempts"]);
        (found == (&"queued".into(), &0.into())).then_some(())
    })
    .await;
    site.origin.replaced_by(None);
    site.until(&receipt, "done").await;
    assert_eq!(site.count("/a"), 3);
}

/// Whether it was the origin after all nobody knows, and a second time might do harm.
#[tokio::test]
async fn a_page_that_only_one_write_gets_is_shown_to_an_operator() {
    let site = Site::start(ALWAYS).await;
    site.origin.on("/a", html(200));
    site.lose_origin().await;
    let receipt = site.queue(write("POST", "/a")).await;
    site.origin.revive();
    let parked = site.until(&receipt, "parked").await;
    assert_eq!(parked["reason"], "ambiguous");
    assert_eq!(site.count("/a"), 1);
}

#[tokio::test]
async fn where_html_is_expected_it_is_the_origins() {
    for (settings, accept) in [
        (r#"mode = "always", answers_html = true"#, "*/*"),
        (ALWAYS, "text/html,application/xhtml+xml,*/*;q=0.8"),
    ] {
        let site = Site::start(settings).await;
        site.origin.on("/a", html(200));
        let receipt = site
            .queue(write("POST", "/a").header("Accept", accept))
            .await;
        site.until(&receipt, "done").await;
        assert_eq!(site.count("/a"), 1);
    }
}

/// An origin with a page for every path it has not was a portal for ever.
#[tokio::test]
async fn where_html_is_expected_a_page_for_every_path_is_the_origins_after_an_outage_too() {
    let site = Site::start(r#"mode = "always", answers_html = true"#).await;
    site.lose_origin().await;
    let receipt = site.queue(write("POST", "/a")).await;
    site.origin.replaced_by(Some(html(200)));
    site.origin.revive();
    site.until(&receipt, "done").await;
    assert_eq!(site.count("/a"), 1);
}

#[tokio::test]
async fn while_a_portal_answers_a_new_write_is_not_tried() {
    let site = Site::start(r#"mode = "on-failure", order_by = "path""#).await;
    let cue = Cue::new();
    let held = cue.clone();
    site.origin.on_each("/a", move |_, nth| match nth {
        0 => html(200),
        1 => html(200).held(&held),
        _ => Reply::ok("the origin"),
    });
    site.origin.on("/b", Reply::ok("the origin"));
    site.lose_origin().await;
    let first = site.queue(write("PUT", "/a")).await;
    site.origin.revive();
    // Also while it is found out whether the portal is still there.
    site.origin.sees("/a", 2).await;
    let second = site.queue(write("POST", "/b")).await;
    assert_eq!(site.count("/b"), 0);
    cue.open();
    site.until(&first, "done").await;
    site.until(&second, "done").await;
    assert_eq!((site.count("/a"), site.count("/b")), (3, 1));
}

#[tokio::test]
async fn a_probe_must_pass_before_anything_is_delivered() {
    let more = r#"[upstreams.origin]
        probe = { path = "/healthz", interval = "1h", status = 200, body = "all well" }"#;
    let site = Site::start_with(ALWAYS, more).await;
    site.origin
        .on("/healthz", Reply::ok("welcome to the hotel"));
    site.origin.on("/a", Reply::ok("looks like the origin"));
    site.lose_origin().await;
    let receipt = site.queue(write("POST", "/a")).await;
    site.origin.revive();
    site.origin.sees("/healthz", 2).await;
    let found = site.receipt(&receipt).await;
    assert_eq!(
        (&found["state"], &found["attempts"]),
        (&"queued".into(), &0.into())
    );
    assert_eq!(site.count("/a"), 0, "nobody knows who answers");

    site.origin.on("/healthz", Reply::ok("all well here"));
    site.until(&receipt, "done").await;
    assert_eq!(site.count("/a"), 1);
}

#[tokio::test]
async fn what_a_proven_origin_answers_counts() {
    let more = r#"[upstreams.origin]
        probe = { path = "/healthz", interval = "1h", body = "all well" }"#;
    let site = Site::start_with(ALWAYS, more).await;
    site.origin.on("/healthz", Reply::ok("all well"));
    site.origin.on("/a", html(200));
    let receipt = site.queue(Request::new("POST", "/a").body("x")).await;
    site.until(&receipt, "done").await;
    eventually("nothing is pending", || async {
        let marked = site.gateway.client.get("/a").await;
        marked
            .header("hardtack-pending-writes")
            .is_none()
            .then_some(())
    })
    .await;
}
