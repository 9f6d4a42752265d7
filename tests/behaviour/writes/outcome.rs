//! What becomes of a write whose first attempt fails: the table of the queue, each row with each kind of write.

mod http2;

use futures_util::future::join_all;

use super::{Site, location, write};
use crate::support::{Answer, Cue, Origin, Reply, Request, Step};

/// A kind of write.
struct Kind {
    method: &'static str,
    path: &'static str,
    fields: &'static [(&'static str, &'static str)],
    group: Group,
}

/// What a second execution would do.
#[derive(Clone, Copy)]
enum Group {
    /// Nothing.
    Harmless,
    /// Perhaps a second effect.
    Doubtful,
    /// Nothing, as the origin sees the key or the condition.
    Guarded,
}

const KINDS: [Kind; 8] = [
    Kind::new("PUT", "/plain/put", &[], Group::Harmless),
    Kind::new("DELETE", "/plain/delete", &[], Group::Harmless),
    Kind::new("POST", "/plain/post", &[], Group::Doubtful),
    Kind::new("PATCH", "/plain/patch", &[], Group::Doubtful),
    Kind::new("POST", "/keyed/post", &[], Group::Guarded),
    Kind::new("PATCH", "/keyed/patch", &[], Group::Guarded),
    Kind::new("POST", "/plain/if/post", IF_MATCH, Group::Guarded),
    Kind::new("PATCH", "/plain/if/patch", IF_MATCH, Group::Guarded),
];

const IF_MATCH: &[(&str, &str)] = &[("If-Match", "\"1\"")];

/// What a client gets.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Got {
    /// 202, and the write is delivered later.
    Queued,
    /// A problem with this status; nobody knows, and nothing is sent again.
    Unknown(u16),
    /// The origin's answer with this status.
    Answer(u16),
}

use Got::{Queued, Unknown};

impl Kind {
    const fn new(
        method: &'static str,
        path: &'static str,
        fields: &'static [(&'static str, &'static str)],
        group: Group,
    ) -> Self {
        Self {
            method,
            path,
            fields,
            group,
        }
    }

    fn request(&self) -> Request {
        let fields = self.fields.iter();
        fields.fold(write(self.method, self.path), |request, (name, value)| {
            request.header(name, value)
        })
    }

    /// Of what is said of harmless, doubtful and guarded writes.
    fn of(&self, expected: [Got; 3]) -> Got {
        expected[self.group as usize]
    }
}

/// Writes have no order, so that none waits for another.
const WRITE: &str = r#"mode = "on-failure", order_by = "none""#;

async fn site(write: &str, upstream: &str) -> Site {
    let more = format!(
        r#"
        [upstreams.origin]
        {upstream}
        [[routes]]
        name = "sentinel"
        match = {{ path = "/sentinel" }}
        upstream = "origin"
        write = {{ mode = "always" }}
        [[routes]]
        name = "keyed"
        match = {{ path = "/keyed/**" }}
        upstream = "origin"
        write = {{ {write}, idempotency = "inject", honoured = true }}
        [[routes]]
        name = "plain"
        upstream = "origin"
        write = {{ {write} }}
        "#
    );
    Site::start_with(write, &more).await
}

async fn ask_each(site: &Site) -> Vec<Answer> {
    join_all(KINDS.iter().map(|kind| site.ask(kind.request()))).await
}

/// Each kind of write meets this fault at its first attempt, and an origin that is well afterwards.
async fn check(site: &Site, fault: Reply, expected: [Got; 3]) {
    for kind in &KINDS {
        let fault = fault.clone();
        site.origin.on_each(kind.path, move |_, nth| match nth {
            0 => fault.clone(),
            _ => Reply::ok("well"),
        });
    }
    let answers = ask_each(site).await;
    for (kind, answer) in KINDS.iter().zip(&answers) {
        check_one(site, kind, answer, kind.of(expected), 1).await;
    }
    site.let_deliveries_pass().await;
    for kind in &KINDS {
        let count = 1 + usize::from(kind.of(expected) == Queued);
        assert_eq!(site.count(kind.path), count, "{}", kind.path);
    }
}

fn got(answer: &Answer, what: &str) -> Got {
    match answer.status {
        202 => Queued,
        status if answer.header("content-type") == Some("application/problem+json") => {
            assert_eq!(answer.problem(), "outcome-unknown", "{what}");
            Unknown(status)
        }
        status => Got::Answer(status),
    }
}

/// `first`: how many requests of the first attempt the origin has read.
async fn check_one(site: &Site, kind: &Kind, answer: &Answer, expected: Got, first: usize) {
    let what = format!("{} {}: {answer:?}", kind.method, kind.path);
    assert_eq!(got(answer, &what), expected, "{what}");
    if expected != Queued {
        return;
    }
    let location = location(answer);
    site.until(&location, "done").await;
    let seen = site.origin.seen_at(kind.path);
    assert_eq!(seen.len(), first + 1, "{what}");
    let replay = &seen[first];
    assert_eq!(
        String::from_utf8_lossy(&replay.body),
        format!("to {}", kind.path)
    );
    for seen in &seen {
        assert_eq!(seen.method, kind.method, "{what}");
        for (name, value) in kind.fields {
            assert_eq!(seen.header(name), Some(*value), "{what}");
        }
        let key = seen.header("idempotency-key");
        assert_eq!(key.is_some(), kind.path.starts_with("/keyed/"), "{what}");
        assert_eq!(key, replay.header("idempotency-key"), "{what}");
    }
}

/// A fault that leaves open whether the write was executed.
async fn check_doubt(fault: Reply, status: u16) {
    let site = site(WRITE, "").await;
    check(&site, fault, [Queued, Unknown(status), Queued]).await;
}

#[tokio::test]
async fn a_write_that_is_read_whole_and_gets_no_answer_may_have_been_executed() {
    check_doubt(Reply::script([Step::Close]), 502).await;
}

#[tokio::test]
async fn so_may_one_whose_connection_is_reset() {
    check_doubt(Reply::script([Step::Reset]), 502).await;
}

#[tokio::test]
async fn so_may_one_with_half_a_status_line_for_an_answer() {
    check_doubt(Reply::raw("HTTP/1.1 20"), 502).await;
}

#[tokio::test]
async fn so_may_one_with_garbage_for_an_answer() {
    check_doubt(Reply::raw("220 mail.example ESMTP\r\n"), 502).await;
}

#[tokio::test]
async fn so_may_one_whose_answer_does_not_come_in_time() {
    let site = site(WRITE, r#"first_byte_timeout = "1500ms""#).await;
    let never = Cue::new();
    let fault = Reply::script([Step::Await(never.clone())]);
    check(&site, fault, [Queued, Unknown(504), Queued]).await;
}

#[tokio::test]
async fn so_may_one_that_nobody_reads_as_bytes_of_it_were_written() {
    let site = site(WRITE, "").await;
    for kind in &KINDS {
        site.origin.on(kind.path, Reply::ok("well"));
    }
    // What is queued first must not be delivered while the others are snubbed.
    site.hold_deliveries("pause").await;
    site.origin.snub(true);
    let answers = ask_each(&site).await;
    site.origin.snub(false);
    site.hold_deliveries("resume").await;
    let expected = [Queued, Unknown(502), Queued];
    for (kind, answer) in KINDS.iter().zip(&answers) {
        check_one(&site, kind, answer, kind.of(expected), 0).await;
        if kind.of(expected) == Queued {
            let replay = &site.origin.seen_at(kind.path)[0];
            assert_eq!(replay.header("hardtack-attempt"), Some("2"));
        }
    }
    site.let_deliveries_pass().await;
    for kind in &KINDS {
        let count = usize::from(kind.of(expected) == Queued);
        assert_eq!(site.count(kind.path), count, "{}", kind.path);
    }
}

#[tokio::test]
async fn an_origin_that_refuses_connections_was_not_sent_anything() {
    let site = site(WRITE, "").await;
    for kind in &KINDS {
        site.origin.on(kind.path, Reply::ok("well"));
    }
    site.origin.kill().await;
    // The first finds the origin gone; the others find that known.
    let answers = ask_each(&site).await;
    site.origin.revive();
    for (kind, answer) in KINDS.iter().zip(&answers) {
        check_one(&site, kind, answer, Queued, 0).await;
        let replay = &site.origin.seen_at(kind.path)[0];
        assert_eq!(replay.header("hardtack-attempt"), Some("1"));
        assert_eq!(site.receipt(&location(answer)).await["attempts"], 1);
    }
}

#[tokio::test]
async fn what_finds_no_address_and_what_is_no_tls_was_not_sent_either() {
    let nameless = site(WRITE, "url = \"http://nobody.invalid\"").await;
    for kind in &KINDS {
        let answer = nameless.ask(kind.request()).await;
        let receipt = nameless.receipt(&location(&answer)).await;
        assert_eq!(receipt["attempts"], 0, "{receipt}");
    }
    let plain = Origin::start().await;
    let url = format!("url = \"https://{}\"", plain.address());
    let secure = site(WRITE, &url).await;
    for kind in &KINDS {
        location(&secure.ask(kind.request()).await);
    }
    assert!(plain.seen().is_empty());
}

#[tokio::test]
async fn answers_that_say_not_executed_are_queued_for() {
    for status in [408, 421, 425, 429] {
        let site = site(WRITE, "").await;
        check(&site, Reply::new(status, "not now"), [Queued; 3]).await;
    }
}

#[tokio::test]
async fn a_503_is_queued_for_where_that_does_no_harm() {
    let site = site(WRITE, "").await;
    let busy = Reply::new(503, "busy");
    check(&site, busy, [Queued, Got::Answer(503), Queued]).await;
}

#[tokio::test]
async fn a_503_that_says_when_to_come_back_was_not_executed() {
    let site = site(WRITE, "").await;
    let busy = Reply::new(503, "busy").header("Retry-After", "1");
    check(&site, busy, [Queued; 3]).await;
}

#[tokio::test]
async fn a_503_is_trusted_where_the_operator_says_so() {
    let site = site(&format!("{WRITE}, trust_503 = true"), "").await;
    check(&site, Reply::new(503, "busy"), [Queued; 3]).await;
}

#[tokio::test]
async fn a_gateways_word_on_a_silent_origin_is_queued_for_where_that_does_no_harm() {
    for status in [502, 504] {
        let site = site(WRITE, "").await;
        let fault = Reply::new(status, "no answer").header("Retry-After", "1");
        check(&site, fault, [Queued, Got::Answer(status), Queued]).await;
    }
}

#[tokio::test]
async fn every_other_answer_is_the_clients() {
    for status in [
        200, 201, 302, 400, 401, 404, 409, 412, 422, 500, 501, 505, 507,
    ] {
        let site = site(WRITE, "").await;
        for kind in &KINDS {
            let reply = Reply::new(status, "the origin's").header("X-Origin", "yes");
            site.origin.on(kind.path, reply);
        }
        for (kind, answer) in KINDS.iter().zip(&ask_each(&site).await) {
            let got = (answer.status, answer.text(), answer.header("x-origin"));
            assert_eq!(got, (status, "the origin's", Some("yes")), "{}", kind.path);
        }
        site.let_deliveries_pass().await;
        for kind in &KINDS {
            assert_eq!(site.count(kind.path), 1, "{} after {status}", kind.path);
        }
    }
}

#[tokio::test]
async fn a_pooled_connection_that_dies_costs_no_write_and_sends_none_twice() {
    let site = site(WRITE, "").await;
    site.origin.on(
        "/warm",
        Reply::script([
            Step::Send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwarm".into()),
            Step::ResetUnread,
        ]),
    );
    for kind in &KINDS {
        site.origin.on(kind.path, Reply::ok("well"));
        assert_eq!(site.gateway.client.get("/warm").await.text(), "warm");
        // What may be repeated is, at once; what may not be was not sent on an old connection in the first place.
        let answer = site.ask(kind.request()).await;
        assert_eq!(
            (answer.status, answer.text()),
            (200, "well"),
            "{}",
            kind.path
        );
    }
    site.let_deliveries_pass().await;
    for kind in &KINDS {
        assert_eq!(site.count(kind.path), 1, "{}", kind.path);
    }
}

#[tokio::test]
async fn an_ambiguous_write_is_parked_once_the_origin_may_have_forgotten_its_key() {
    let write =
        format!("{WRITE}, idempotency = \"inject\", honoured = true, idempotency_ttl = \"1h\"");
    let site = Site::start(&write).await;
    site.origin.on("/a", Reply::script([Step::Close]));
    let receipt = site.queue(super::write("POST", "/a")).await;
    site.gateway.clock.step_secs(3_700);
    assert_eq!(site.until(&receipt, "parked").await["reason"], "ambiguous");
    site.origin.on("/a", Reply::ok("well"));
    let count = site.count("/a");
    site.let_deliveries_pass().await;
    assert_eq!(site.count("/a"), count);
}
