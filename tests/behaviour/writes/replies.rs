//! What the origin's answer to a delivery does to the write.

use futures_util::future::join_all;

use super::{Site, write};
use crate::support::{Reply, Request, Step};

const ALWAYS: &str = r#"mode = "always", order_by = "none""#;

/// Writes that are each answered once as the test says, and well if they are sent again.
struct Replies {
    site: Site,
    /// How often the origin is to see each path in the end.
    expected: Vec<(String, usize)>,
}

/// How a write may be repeated.
#[derive(Clone, Copy)]
enum Kind {
    Plain(&'static str),
    /// A POST with an honoured key.
    Keyed,
    /// A PATCH with a condition.
    Conditional,
}

use Kind::{Conditional, Keyed, Plain};

const HARMLESS: [Kind; 4] = [Plain("PUT"), Plain("DELETE"), Keyed, Conditional];
const DOUBTFUL: [Kind; 2] = [Plain("POST"), Plain("PATCH")];

impl Replies {
    async fn new(settings: &str) -> Self {
        let route = |name: &str, path: &str, more: &str| {
            format!(
                r#"
                [[routes]]
                name = "{name}"
                match = {{ path = "{path}" }}
                upstream = "origin"
                write = {{ {ALWAYS}{settings}{more} }}"#
            )
        };
        let keyed = r#", idempotency = "inject", honoured = true"#;
        let routes = [
            route("sentinel", "/sentinel", ""),
            route("keyed", "/keyed/**", keyed),
            route("plain", "/**", ""),
        ];
        Self {
            site: Site::start_with("", &routes.join("")).await,
            expected: Vec::new(),
        }
    }

    /// Fails the test unless a write that is answered so comes to this state for this reason, sent so often.
    async fn check(&mut self, kind: Kind, reply: &Reply, expected: (&str, &str), count: usize) {
        let nth = self.expected.len();
        let path = match kind {
            Keyed => format!("/keyed/{nth}"),
            _ => format!("/plain/{nth}"),
        };
        let reply = reply.clone();
        self.site.origin.on_each(&path, move |_, nth| match nth {
            0 => reply.clone(),
            _ => Reply::ok("well"),
        });
        let request: Request = match kind {
            Plain(method) => write(method, &path),
            Keyed => write("POST", &path),
            Conditional => write("PATCH", &path).header("If-Match", "\"1\""),
        };
        let receipt = self.site.queue(request).await;
        let receipt = self.site.until(&receipt, expected.0).await;
        let reason = receipt["reason"].as_str().unwrap_or_default();
        assert_eq!(reason, expected.1, "{receipt}");
        self.expected.push((path, count));
    }

    /// Nothing is sent any more.
    async fn end(self) {
        self.site.let_deliveries_pass().await;
        for (path, count) in &self.expected {
            assert_eq!(self.site.count(path), *count, "{path}");
        }
    }
}

const DONE: (&str, &str) = ("done", "");

#[tokio::test]
async fn every_success_is_the_end() {
    let mut replies = Replies::new("").await;
    for status in [200, 201, 202, 204, 206, 226] {
        let reply = Reply::new(status, "");
        replies.check(Plain("POST"), &reply, DONE, 1).await;
    }
    replies.end().await;
}

#[tokio::test]
async fn a_conflict_waits_for_an_operator() {
    let mut replies = Replies::new("").await;
    for status in [409, 412] {
        let reply = Reply::new(status, "conflict");
        for kind in HARMLESS.into_iter().chain(DOUBTFUL) {
            let parked = ("parked", "conflict");
            replies.check(kind, &reply, parked, 1).await;
        }
    }
    replies.end().await;
}

#[tokio::test]
async fn a_key_that_is_still_worked_on_is_tried_again() {
    let mut replies = Replies::new("").await;
    let body = r#"{"title":"A request is outstanding for this Idempotency-Key"}"#;
    let outstanding = Reply::new(409, body).header("Content-Type", "application/problem+json");
    replies.check(Keyed, &outstanding, DONE, 2).await;
    // Without a key it says nothing of this write.
    let parked = ("parked", "conflict");
    replies.check(Plain("POST"), &outstanding, parked, 1).await;
    replies.end().await;
}

#[tokio::test]
async fn a_credential_that_is_refused_waits_for_an_operator() {
    let mut replies = Replies::new("").await;
    for kind in HARMLESS.into_iter().chain(DOUBTFUL) {
        let parked = ("parked", "auth");
        replies.check(kind, &Reply::new(401, ""), parked, 1).await;
    }
    replies.end().await;
}

#[tokio::test]
async fn a_final_refusal_is_a_dead_letter_at_once() {
    let mut replies = Replies::new("").await;
    let refusals = [
        300, 304, 400, 402, 403, 404, 405, 410, 413, 415, 422, 451, 501, 505,
    ];
    for status in refusals {
        for kind in HARMLESS.into_iter().chain(DOUBTFUL) {
            let dead = ("dead", "rejected");
            replies.check(kind, &Reply::new(status, ""), dead, 1).await;
        }
    }
    replies.end().await;
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
    let mut replies = Replies::new("").await;
    for status in [408, 421, 425, 429] {
        let reply = Reply::new(status, "");
        replies.check(Plain("POST"), &reply, DONE, 2).await;
    }
    let later = Reply::new(503, "").header("Retry-After", "1");
    replies.check(Plain("POST"), &later, DONE, 2).await;
    replies.end().await;

    let mut replies = Replies::new(", trust_503 = true").await;
    let unavailable = Reply::new(503, "");
    replies.check(Plain("POST"), &unavailable, DONE, 2).await;
    replies.end().await;
}

const AMBIGUOUS: (&str, &str) = ("parked", "ambiguous");

#[tokio::test]
async fn a_failure_of_the_origin_is_tried_again_where_that_does_no_harm() {
    let mut replies = Replies::new("").await;
    for status in [500, 502, 503, 504, 507] {
        let reply = Reply::new(status, "");
        for kind in HARMLESS {
            replies.check(kind, &reply, DONE, 2).await;
        }
        for kind in DOUBTFUL {
            replies.check(kind, &reply, AMBIGUOUS, 1).await;
        }
    }
    replies.end().await;
}

#[tokio::test]
async fn so_is_what_got_no_answer() {
    let faults = [
        Reply::script([Step::Close]),
        Reply::script([Step::Reset]),
        Reply::raw("HTTP/1.1 20"),
    ];
    for fault in &faults {
        // A gateway for each: on an old connection it would be sent twice in one attempt.
        join_all(HARMLESS.map(async |kind| {
            let mut replies = Replies::new("").await;
            replies.check(kind, fault, DONE, 2).await;
        }))
        .await;
        let mut replies = Replies::new("").await;
        for kind in DOUBTFUL {
            replies.check(kind, fault, AMBIGUOUS, 1).await;
        }
        replies.end().await;
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
