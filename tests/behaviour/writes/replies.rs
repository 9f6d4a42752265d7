//! What the origin's answer to a delivery does to the write.

use futures_util::future::join_all;

use super::{Site, write};
use crate::support::{Reply, Request, Step};

const ALWAYS: &str = r#"mode = "always", order_by = "none""#;

fn problem(title: &str) -> Reply {
    let body = format!("{{\"title\":\"{title}\"}}");
    Reply::new(409, body).header("Content-Type", "application/problem+json")
}

/// A write that is answered so, and well if it is sent again: its state, its reason, and how often it was sent in the end.
async fn becomes(settings: &str, request: Request, reply: Reply, state: &str) -> (String, usize) {
    let site = Site::start(&format!("{ALWAYS}, {settings}")).await;
    site.origin.on_each("/a", move |_, nth| match nth {
        0 => reply.clone(),
        _ => Reply::ok("well"),
    });
    let receipt = site.queue(request).await;
    let receipt = site.until(&receipt, state).await;
    site.let_deliveries_pass().await;
    let reason = receipt["reason"].as_str().unwrap_or_default().to_owned();
    (reason, site.count("/a"))
}

const PLAIN: &str = "trust_503 = false";
const KEYED: &str = r#"idempotency = "inject", honoured = true"#;

#[tokio::test]
async fn every_success_is_the_end() {
    for status in [200, 201, 202, 204, 206, 226] {
        let found = becomes(PLAIN, write("POST", "/a"), Reply::new(status, ""), "done").await;
        assert_eq!(found, (String::new(), 1), "{status}");
    }
}

#[tokio::test]
async fn a_conflict_waits_for_an_operator() {
    for status in [409, 412] {
        for (settings, method) in [(PLAIN, "PUT"), (PLAIN, "POST"), (KEYED, "POST")] {
            let reply = Reply::new(status, "conflict");
            let found = becomes(settings, write(method, "/a"), reply, "parked").await;
            assert_eq!(found, ("conflict".to_owned(), 1), "{status} to {method}");
        }
    }
}

#[tokio::test]
async fn a_key_that_is_still_worked_on_is_tried_again() {
    let outstanding = || problem("A request is outstanding for this Idempotency-Key");
    let found = becomes(KEYED, write("POST", "/a"), outstanding(), "done").await;
    assert_eq!(found, (String::new(), 2));
    // Without a key it says nothing of this write.
    let found = becomes(PLAIN, write("POST", "/a"), outstanding(), "parked").await;
    assert_eq!(found, ("conflict".to_owned(), 1));
}

#[tokio::test]
async fn a_credential_that_is_refused_waits_for_an_operator() {
    let found = becomes(PLAIN, write("PUT", "/a"), Reply::new(401, ""), "parked").await;
    assert_eq!(found, ("auth".to_owned(), 1));
}

#[tokio::test]
async fn a_final_refusal_is_a_dead_letter_at_once() {
    for status in [
        300, 304, 400, 402, 403, 404, 405, 410, 413, 415, 422, 451, 501, 505,
    ] {
        for method in ["PUT", "POST", "DELETE"] {
            let found = becomes(PLAIN, write(method, "/a"), Reply::new(status, ""), "dead").await;
            assert_eq!(found, ("rejected".to_owned(), 1), "{status} to {method}");
        }
    }
}

#[tokio::test]
async fn redirects_are_never_followed() {
    for status in [301, 302, 303, 307, 308] {
        let site = Site::start(ALWAYS).await;
        site.origin
            .on("/a", Reply::new(status, "").header("Location", "/b"));
        site.origin.on("/b", Reply::ok("there"));
        let receipt = site.queue(write("POST", "/a")).await;
        let receipt = site.until(&receipt, "dead").await;
        assert_eq!(
            (&receipt["reason"], &receipt["last"]["status"]),
            (&"rejected".into(), &status.into())
        );
        assert_eq!(site.written(), ["/a"], "{status}");
    }
}

#[tokio::test]
async fn what_says_not_executed_is_tried_again() {
    for status in [408, 421, 425, 429] {
        let found = becomes(PLAIN, write("POST", "/a"), Reply::new(status, ""), "done").await;
        assert_eq!(found, (String::new(), 2), "{status}");
    }
    let later = Reply::new(503, "").header("Retry-After", "1");
    let found = becomes(PLAIN, write("POST", "/a"), later, "done").await;
    assert_eq!(found, (String::new(), 2));
    let found = becomes(
        "trust_503 = true",
        write("POST", "/a"),
        Reply::new(503, ""),
        "done",
    )
    .await;
    assert_eq!(found, (String::new(), 2));
}

#[tokio::test]
async fn a_failure_of_the_origin_is_tried_again_where_that_does_no_harm() {
    let faults = [
        ("500", Reply::new(500, "")),
        ("502", Reply::new(502, "")),
        ("503", Reply::new(503, "")),
        ("504", Reply::new(504, "")),
        ("507", Reply::new(507, "")),
        ("no answer", Reply::script([Step::Close])),
        ("reset", Reply::script([Step::Reset])),
        ("half a status line", Reply::raw("HTTP/1.1 20")),
    ];
    let conditional = || write("PATCH", "/a").header("If-Match", "\"1\"");
    for (what, fault) in &faults {
        let harmless = [
            (PLAIN, write("PUT", "/a")),
            (PLAIN, write("DELETE", "/a")),
            (KEYED, write("POST", "/a")),
            (PLAIN, conditional()),
        ];
        let harmless = harmless
            .into_iter()
            .map(|(settings, request)| becomes(settings, request, fault.clone(), "done"));
        for found in join_all(harmless).await {
            assert_eq!(found, (String::new(), 2), "{what}");
        }
        for method in ["POST", "PATCH"] {
            let found = becomes(PLAIN, write(method, "/a"), fault.clone(), "parked").await;
            assert_eq!(found, ("ambiguous".to_owned(), 1), "{what} to {method}");
        }
    }
}

#[tokio::test]
async fn a_deleted_target_is_what_an_ambiguous_delete_was_for() {
    for gone in [404, 410] {
        let site = Site::start(ALWAYS).await;
        site.origin.on_each("/a", move |_, nth| match nth {
            0 => Reply::script([Step::Close]),
            _ => Reply::new(gone, "gone"),
        });
        let receipt = site.queue(write("DELETE", "/a")).await;
        let receipt = site.until(&receipt, "done").await;
        assert_eq!(receipt["reason"], "assumed");
        assert_eq!(site.count("/a"), 2);
    }
}

#[tokio::test]
async fn a_conflict_after_an_ambiguous_attempt_may_be_our_own() {
    let site = Site::start(ALWAYS).await;
    site.origin.on_each("/a", move |_, nth| match nth {
        0 => Reply::script([Step::Close]),
        _ => Reply::new(412, "changed"),
    });
    let request = write("PUT", "/a").header("If-Match", "\"1\"");
    let receipt = site.queue(request).await;
    let receipt = site.until(&receipt, "parked").await;
    assert_eq!(receipt["reason"], "conflict");
    let id = receipt["id"].as_str().unwrap();
    let item = site
        .gateway
        .admin
        .get(&format!("/api/v1/queue/items/{id}"))
        .await;
    assert!(item.text().contains("our own"), "{}", item.text());
}

#[tokio::test]
async fn an_answer_that_breaks_off_after_its_head_is_an_answer() {
    let site = Site::start(ALWAYS).await;
    let reply = Reply::new(201, "a body of two parts").ends_early(Step::Reset);
    site.origin.on("/a", reply);
    let receipt = site.queue(write("POST", "/a")).await;
    site.until(&receipt, "done").await;
    site.let_deliveries_pass().await;
    assert_eq!(site.count("/a"), 1);
}
