//! What operators see of queued writes, and do to them, before a real gateway and a real origin.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    get, send,
    support::{
        Answer, Client, Connection, Gateway, Origin, Reply, Request, eventually, reverse_to,
    },
};

const KEY: &str = "a-key-that-seals-credentials-0123456789";

/// Everything goes to the origin; writes are queued as `mode` says. The key file is in the directory.
fn config(origin: &Origin, keys: &TempDir, mode: &str) -> String {
    let key_file = keys.path().join("queue.key");
    std::fs::write(&key_file, KEY).unwrap();
    let reverse = reverse_to(origin.address());
    format!(
        r#"
        {reverse}
        write = {{ mode = "{mode}", idempotency = "inject", honoured = true, order_by = "path" }}
        [queue]
        key_file = "{}"
        recovery_spread = "0s"
        "#,
        key_file.display()
    )
}

struct Bench {
    origin: Origin,
    gateway: Gateway,
    keys: TempDir,
    config: String,
}

impl Bench {
    async fn new(mode: &str) -> Self {
        let (origin, keys) = (Origin::start().await, tempfile::tempdir().unwrap());
        let config = config(&origin, &keys, mode);
        let gateway = Gateway::start(&config).await;
        Self {
            origin,
            gateway,
            keys,
            config,
        }
    }

    /// With an origin that is gone.
    async fn offline() -> Self {
        let bench = Self::new("on-failure").await;
        bench.origin.kill().await;
        bench
    }

    async fn restarted(self) -> Self {
        let gateway = self.gateway.restart(&self.config).await;
        Self { gateway, ..self }
    }

    /// Has a write queued; its id.
    async fn post(&self, path: &str, body: &str) -> String {
        let request = Request::new("POST", path)
            .header("Content-Type", "text/plain")
            .header("Authorization", "Bearer top-secret")
            .body(body.to_owned());
        let answer = self.gateway.client.ask(request).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    async fn show(&self, id: &str) -> Value {
        get(&self.gateway, &format!("queue/items/{id}")).await
    }

    /// Waits until a write is in this state.
    async fn until(&self, id: &str, state: &str) -> Value {
        eventually(&format!("{id} is {state}"), async || {
            let item = self.show(id).await;
            (item["state"] == state).then_some(item)
        })
        .await
    }

    async fn act(&self, target: &str, body: Value) -> Answer {
        send(&self.gateway, "POST", target, &body).await
    }

    async fn done(&self, target: &str, body: Value) -> Value {
        let answer = self.act(target, body).await;
        assert!(matches!(answer.status, 200 | 202), "{target}: {answer:?}");
        answer.json()
    }

    async fn paths(&self, query: &str) -> Vec<String> {
        let page = get(&self.gateway, &format!("queue/items?{query}")).await;
        let items = page["items"].as_array().unwrap().iter();
        let root = self.origin.url("");
        items
            .map(|item| item["url"].as_str().unwrap().replace(&root, ""))
            .collect()
    }

    async fn audited(&self) -> Vec<String> {
        let page = get(&self.gateway, "audit").await;
        let entries = page["items"].as_array().unwrap().iter();
        entries
            .map(|entry| {
                let actor = entry["actor"].as_str().unwrap();
                assert_eq!(actor, "admin token from 127.0.0.1");
                entry["action"].as_str().unwrap().to_owned()
            })
            .collect()
    }
}

/// The bodies that came to a path, in order.
fn bodies(origin: &Origin, path: &str) -> Vec<String> {
    let seen = origin.seen_at(path).into_iter();
    seen.map(|seen| String::from_utf8(seen.body).unwrap())
        .collect()
}

/// All pages of a list.
async fn joined(bench: &Bench, target: &str) -> Vec<Value> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get(&bench.gateway, &format!("{target}{cursor}")).await;
        found.extend(page["items"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

#[tokio::test]
async fn queued_writes_are_listed_filtered_and_paged() {
    let bench = Bench::offline().await;
    for path in ["/a", "/b", "/a", "/c"] {
        bench.post(path, "x").await;
    }
    assert_eq!(bench.paths("").await, ["/a", "/b", "/a", "/c"]);
    assert_eq!(bench.paths("q=/b").await, ["/b"]);
    assert_eq!(bench.paths("lane=path:/a").await.len(), 2);
    assert_eq!(bench.paths("state=dead,parked").await.len(), 0);
    assert_eq!(bench.paths("origin=origin&state=queued").await.len(), 4);
    assert_eq!(bench.paths("age=1m").await.len(), 0);
    bench.gateway.clock.step_secs(61);
    assert_eq!(bench.paths("age=1m").await.len(), 4);
    let found = joined(&bench, "queue/items?limit=3").await;
    assert_eq!(found.len(), 4);
    assert_eq!(found[2]["blocked_by"], found[0]["id"]);
    assert_eq!(found[3]["seq"], 4);
    let lanes = get(&bench.gateway, "queue/lanes").await;
    let lanes = lanes["items"].as_array().unwrap();
    let sizes: Vec<_> = lanes.iter().map(|lane| lane["items"].as_u64()).collect();
    assert_eq!(sizes.iter().flatten().sum::<u64>(), 4);
    assert_eq!(lanes.len(), 3);
    for limit in 1..=4 {
        let target = format!("queue/lanes?limit={limit}");
        assert_eq!(joined(&bench, &target).await, *lanes);
    }
    let elsewhere = get(&bench.gateway, "queue/lanes?origin=elsewhere").await;
    assert!(elsewhere["items"].as_array().unwrap().is_empty());
    let wrong = bench
        .gateway
        .admin
        .get("/api/v1/queue/lanes?cursor=!")
        .await;
    wrong.assert_problem(400, "bad-request");
    for wrong in ["state=old", "limit=0", "age=1", "cursor=!", "colour=red"] {
        let target = format!("/api/v1/queue/items?{wrong}");
        let answer = bench.gateway.admin.get(&target).await;
        answer.assert_problem(400, "bad-request");
    }
}

#[tokio::test]
async fn a_queued_write_is_shown_without_its_secrets() {
    let bench = Bench::offline().await;
    let id = bench.post("/a", "hello").await;
    let target = format!("/api/v1/queue/items/{id}");
    let answer = bench.gateway.admin.get(&target).await;
    assert!(!answer.text().contains("top-secret"), "{}", answer.text());
    let item = answer.json();
    let sealed = json!({"name": "authorization", "value": "[sealed]"});
    assert!(item["headers"].as_array().unwrap().contains(&sealed));
    assert_eq!(item["method"], "POST");
    assert_eq!(item["body_bytes"], 5);
    // SHA-256 of `hello`.
    let digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    assert_eq!(item["body_sha256"], digest);
    assert!(item["idempotency_key"].is_string());
    assert_eq!(
        item["links"]["drop"],
        format!("/api/v1/queue/items/{id}/drop")
    );
    assert_eq!(item["links"]["edit"], Value::Null, "only when it is stuck");
    assert!(!bench.gateway.has_on_disk(b"top-secret"));
    let unknown = bench.gateway.admin.get("/api/v1/queue/items/none").await;
    unknown.assert_problem(404, "not-found");

    let status = get(&bench.gateway, "status").await;
    assert_eq!(status["queue"]["items"]["queued"], 1);
    assert!(status["queue"]["bytes"].as_u64().unwrap() > 5);
    let metrics = bench.gateway.admin.get("/metrics").await;
    for line in [
        "hardtack_queue_items{state=\"queued\"} 1",
        "hardtack_queue_items{state=\"dead\"} 0",
        "hardtack_queue_accepted_total 1",
        "hardtack_queue_capacity_bytes 1073741824",
        "hardtack_queue_oldest_item_age_seconds 0",
    ] {
        assert!(metrics.text().contains(line), "{line}\n{}", metrics.text());
    }
}

#[tokio::test]
async fn a_rejected_write_is_retried_and_delivered() {
    let bench = Bench::new("always").await;
    bench.origin.on_each("/a", |_, before| match before {
        0 => Reply::new(400, "no"),
        _ => Reply::new(201, "yes"),
    });
    let id = bench.post("/a", "x").await;
    let dead = bench.until(&id, "dead").await;
    assert_eq!(
        (&dead["reason"], &dead["last"]["status"]),
        (&json!("rejected"), &json!(400))
    );
    assert_eq!(bench.paths("state=dead").await, ["/a"]);
    let retried = bench
        .done(&format!("queue/items/{id}/retry"), json!({}))
        .await;
    assert_eq!(retried["state"], "waiting");
    let done = bench.until(&id, "done").await;
    assert_eq!(done["answer"]["status"], 201);
    let seen = bench.origin.seen_at("/a");
    let keys: Vec<_> = seen
        .iter()
        .map(|seen| seen.header("idempotency-key"))
        .collect();
    assert!(
        keys.len() == 2 && keys[0].is_some() && keys[0] == keys[1],
        "{keys:?}"
    );
    let again = bench
        .act(&format!("queue/items/{id}/retry"), json!({}))
        .await;
    again.assert_problem(409, "not-in-this-state");
    assert!(bench.paths("").await.is_empty());
    assert_eq!(bench.paths("state=done").await, ["/a"]);
}

#[tokio::test]
async fn what_became_of_writes_is_counted() {
    let bench = Bench::new("always").await;
    bench.origin.on_each("/a", |_, before| match before {
        0 => Reply::new(429, "not now"),
        _ => Reply::ok("made"),
    });
    bench.origin.on("/b", Reply::new(422, "never"));
    let keyed = |body: &'static str| {
        let request = Request::new("POST", "/a").header("Idempotency-Key", "\"k\"");
        request.body(body)
    };
    let accepted = bench.gateway.client.ask(keyed("x")).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let mismatch = bench.gateway.client.ask(keyed("y")).await;
    mismatch.assert_problem(422, "idempotency-mismatch");
    let id = accepted.json()["id"].as_str().unwrap().to_owned();
    bench.until(&id, "waiting").await;
    bench.gateway.clock.step_secs(600);
    bench.until(&id, "done").await;
    let rejected = bench.post("/b", "x").await;
    bench.until(&rejected, "dead").await;
    let metrics = bench.gateway.admin.get("/metrics").await;
    for line in [
        "hardtack_queue_accepted_total 2",
        "hardtack_queue_refused_total{reason=\"idempotency-mismatch\"} 1",
        "hardtack_queue_attempts_total{outcome=\"retry\"} 1",
        "hardtack_queue_attempts_total{outcome=\"done\"} 1",
        "hardtack_queue_attempts_total{outcome=\"dead\"} 1",
        "hardtack_queue_delivery_delay_seconds_count 1",
        "hardtack_queue_items{state=\"dead\"} 1",
    ] {
        assert!(metrics.text().contains(line), "{line}\n{}", metrics.text());
    }
}

#[tokio::test]
async fn an_edited_write_goes_out_as_another_one() {
    let bench = Bench::new("always").await;
    bench.origin.on("/a", Reply::new(409, "conflict"));
    bench.origin.on("/b?x=1", Reply::new(201, "yes"));
    let id = bench.post("/a", "wrong").await;
    bench.until(&id, "parked").await;
    let edit = json!({
        "path": "/b?x=1", "body": "right", "headers": {"content-type": "application/json", "x-new": "1"},
    });
    bench.done(&format!("queue/items/{id}/edit"), edit).await;
    bench.until(&id, "done").await;
    let (before, after) = (bench.origin.seen_at("/a"), bench.origin.seen_at("/b?x=1"));
    let [before, after] = [&before[0], &after[0]];
    assert_eq!(after.body, b"right");
    assert_eq!(after.header("content-length"), Some("5"));
    assert_eq!(after.header("content-type"), Some("application/json"));
    assert_eq!(after.header("x-new"), Some("1"));
    assert_eq!(after.header("authorization"), Some("Bearer top-secret"));
    let key = "idempotency-key";
    assert!(after.header(key).is_some() && after.header(key) != before.header(key));
    assert_eq!(bench.audited().await, ["edit"]);
}

#[tokio::test]
async fn a_wrong_edit_changes_nothing() {
    let bench = Bench::new("always").await;
    bench.origin.on("/a", Reply::new(409, "conflict"));
    let id = bench.post("/a", "x").await;
    let before = bench.until(&id, "parked").await;
    for wrong in [
        json!({"path": "b"}),
        json!({"headers": {"host": "evil.example"}}),
        json!({"body": "x", "body_base64": "eA=="}),
        json!({"body_base64": "!"}),
        json!({"key": "old"}),
        json!({"method": "DELETE"}),
    ] {
        let answer = bench.act(&format!("queue/items/{id}/edit"), wrong).await;
        answer.assert_problem(400, "bad-request");
    }
    assert_eq!(bench.show(&id).await, before);
    assert!(bench.audited().await.is_empty());
}

#[tokio::test]
async fn a_lane_goes_on_behind_what_was_dropped_or_resolved() {
    let bench = Bench::new("always").await;
    bench
        .origin
        .on_each("/a", |seen, _| match seen.body.as_slice() {
            b"good" => Reply::new(204, ""),
            _ => Reply::new(409, "no"),
        });
    let dropped = bench.post("/a", "bad 1").await;
    let resolved = bench.post("/a", "bad 2").await;
    let good = bench.post("/a", "good").await;
    bench.until(&dropped, "parked").await;
    let lanes = get(&bench.gateway, "queue/lanes").await;
    let lane = &lanes["items"][0];
    assert_eq!((&lane["halted"], &lane["items"]), (&json!(true), &json!(3)));
    bench
        .done(&format!("queue/items/{dropped}/drop"), json!({}))
        .await;
    let gone = bench
        .act(&format!("queue/items/{dropped}/drop"), json!({}))
        .await;
    gone.assert_problem(404, "not-found");
    bench.until(&resolved, "parked").await;
    let reason = json!({"reason": "seen there"});
    let item = bench
        .done(&format!("queue/items/{resolved}/resolve"), reason)
        .await;
    assert_eq!(
        (&item["state"], &item["reason"]),
        (&json!("done"), &json!("resolved"))
    );
    bench.until(&good, "done").await;
    assert_eq!(bodies(&bench.origin, "/a"), ["bad 1", "bad 2", "good"]);
    assert_eq!(bench.audited().await, ["resolve", "drop"]);
}

#[tokio::test]
async fn many_are_redriven_in_two_steps() {
    let bench = Bench::new("always").await;
    let mut ids = Vec::new();
    for number in 0..5 {
        let path = format!("/{number}");
        bench.origin.on_each(&path, |_, before| match before {
            0 => Reply::new(400, "no"),
            _ => Reply::new(201, "yes"),
        });
        ids.push(bench.post(&path, "x").await);
    }
    for id in &ids {
        bench.until(id, "dead").await;
    }
    let filter = json!({"filter": {"state": "dead"}, "dry_run": true});
    let plan = bench.done("queue/redrive", filter).await;
    assert_eq!(
        (&plan["state"], &plan["total"]),
        (&json!("planned"), &json!(5))
    );
    assert_eq!(plan["sample"], json!(ids));
    bench
        .done(&format!("queue/items/{}/drop", ids[0]), json!({}))
        .await;
    let running = bench
        .done("queue/redrive", json!({"plan": plan["id"]}))
        .await;
    let target = format!("operations/{}", running["id"].as_str().unwrap());
    let ended = eventually("the operation ends", async || {
        let operation = get(&bench.gateway, &target).await;
        (operation["state"] == "ended").then_some(operation)
    })
    .await;
    assert_eq!((&ended["done"], &ended["failed"]), (&json!(4), &json!(1)));
    assert_eq!(ended["failures"][0]["id"], ids[0]);
    for id in &ids[1..] {
        bench.until(id, "done").await;
    }
    for wrong in [json!({}), json!({"plan": "x", "dry_run": true})] {
        let answer = bench.act("queue/redrive", wrong).await;
        answer.assert_problem(400, "bad-request");
    }
    let unknown = bench.act("queue/redrive", json!({"plan": "x"})).await;
    unknown.assert_problem(404, "not-found");
}

#[tokio::test]
async fn a_pause_holds_deliveries_back_also_across_a_restart() {
    let bench = Bench::new("always").await;
    bench.origin.on("/a", Reply::new(204, ""));
    bench.done("queue/pause", json!({"reason": "drill"})).await;
    bench.done("queue/pause", json!({"origin": "origin"})).await;
    let typo = bench.act("queue/pause", json!({"origin": "orgin"})).await;
    typo.assert_problem(404, "not-found");
    let id = bench.post("/a", "x").await;
    let bench = bench.restarted().await;
    let status = get(&bench.gateway, "status").await;
    assert_eq!(status["queue"]["pauses"][0]["reason"], "drill");
    assert_eq!(status["queue"]["pauses"][1]["origin"], "origin");
    bench.done("queue/resume", json!({})).await;
    assert_eq!(
        bench.show(&id).await["state"],
        "queued",
        "one pause is left"
    );
    assert!(bench.origin.seen().is_empty());
    let left = bench
        .done("queue/resume", json!({"origin": "origin"}))
        .await;
    assert_eq!(left["pauses"], json!([]));
    bench.until(&id, "done").await;
}

/// An export, line by line.
async fn exported(bench: &Bench, query: &str) -> String {
    let target = format!("/api/v1/queue/export?{query}");
    let answer = bench.gateway.admin.get(&target).await;
    assert!(answer.status == 200 && answer.is_complete);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    answer.text().to_owned()
}

async fn imported(bench: &Bench, lines: &str) -> Value {
    let request = Request::new("POST", "/api/v1/queue/import")
        .header("Content-Type", "application/x-ndjson")
        .body(lines.to_owned());
    let answer = bench.gateway.admin.ask(request).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[tokio::test]
async fn an_export_is_delivered_by_the_gateway_that_imports_it() {
    let first = Bench::offline().await;
    let large = "y".repeat(200_000);
    for body in ["one", "two", large.as_str()] {
        first.post("/a", body).await;
    }
    let lines = exported(&first, "").await;
    assert_eq!(lines.lines().count(), 3);
    assert!(!lines.contains("top-secret"));
    assert_eq!(exported(&first, "state=dead").await, "");

    let second = Bench::new("always").await;
    second.origin.on("/a", Reply::new(204, ""));
    // The same upstream, as it is known there.
    let with_damage = format!("{lines}\n{{\"format\":2}}\nnonsense\n");
    let there = first.origin.address().to_string();
    let here = second.origin.address().to_string();
    let lines = lines.replace(&there, &here);
    let outcome = imported(&second, &with_damage.replace(&there, &here)).await;
    assert_eq!(
        (&outcome["imported"], &outcome["refused"]),
        (&json!(3), &json!(2))
    );
    assert_eq!(outcome["refusals"][0]["line"], 5);
    second.origin.sees("/a", 3).await;
    assert_eq!(bodies(&second.origin, "/a"), ["one", "two", &large]);
    let seen = second.origin.seen_at("/a");
    assert_eq!(seen[0].header("authorization"), Some("Bearer top-secret"));
    let again = imported(&second, &lines).await;
    assert_eq!(
        (&again["imported"], &again["known"]),
        (&json!(0), &json!(3))
    );
    assert_eq!(second.origin.seen_at("/a").len(), 3);

    let other_key = Bench::offline().await;
    std::fs::write(
        other_key.keys.path().join("queue.key"),
        KEY.replace('a', "b"),
    )
    .unwrap();
    let other_key = Bench {
        gateway: other_key.gateway.restart(&other_key.config).await,
        ..other_key
    };
    let refused = imported(&other_key, &lines).await;
    assert_eq!(refused["refused"], 3);
    assert!(
        refused["refusals"][0]["why"]
            .as_str()
            .unwrap()
            .contains("key_file")
    );
}

#[tokio::test]
async fn the_audit_says_who_changed_what() {
    let bench = Bench::offline().await;
    let id = bench.post("/a", "x").await;
    let mode = json!({"mode": "prefer-cache", "reason": "drill"});
    send(&bench.gateway, "PUT", "mode", &mode).await;
    let word = json!({"mode": "offline"});
    send(&bench.gateway, "PUT", "upstreams/origin/override", &word).await;
    bench
        .done("cache/purge", json!({"host": "a.example"}))
        .await;
    bench
        .done(&format!("queue/items/{id}/drop"), json!({}))
        .await;
    let bench = bench.restarted().await;
    assert_eq!(bench.audited().await, ["drop", "purge", "override", "mode"]);
    let page = get(&bench.gateway, "audit?limit=3").await;
    assert_eq!(page["items"][0]["item"], id);
    let cursor = page["next_cursor"].as_str().unwrap();
    let page = get(&bench.gateway, &format!("audit?limit=3&cursor={cursor}")).await;
    assert_eq!(page["items"][0]["action"], "mode");
    assert!(
        page["items"][0]["detail"]
            .as_str()
            .unwrap()
            .contains("drill")
    );
    assert_eq!(page["next_cursor"], Value::Null);
}

#[tokio::test]
async fn without_a_token_nothing_is_said_and_a_get_changes_nothing() {
    let bench = Bench::offline().await;
    let id = bench.post("/a", "x").await;
    let stranger = Client::new(bench.gateway.admin.address);
    for (method, target) in [
        ("GET", "queue/items".to_owned()),
        ("GET", format!("queue/items/{id}")),
        ("GET", "queue/lanes".to_owned()),
        ("GET", "queue/export".to_owned()),
        ("GET", "events".to_owned()),
        ("GET", "audit".to_owned()),
        ("POST", format!("queue/items/{id}/drop")),
        ("POST", "queue/import".to_owned()),
        ("POST", "queue/pause".to_owned()),
        ("POST", "queue/redrive".to_owned()),
    ] {
        let target = format!("/api/v1/{target}");
        let answer = stranger.ask(Request::new(method, &target)).await;
        answer.assert_problem(401, "unauthorized");
        if method == "POST" {
            let answer = bench.gateway.admin.get(&target).await;
            answer.assert_problem(405, "method-not-allowed");
        }
    }
    assert_eq!(bench.paths("state=queued").await, ["/a"]);
    assert!(bench.audited().await.is_empty());
}

/// A stream of events, and what came of it so far.
struct Events {
    connection: Connection,
    text: String,
}

impl Events {
    fn request(gateway: &Gateway, query: &str) -> Request {
        let token = gateway.admin.bearer();
        let token = token.expect("the admin client has a token");
        let request = Request::get(&format!("/api/v1/events{query}"));
        request.header("Authorization", &format!("Bearer {token}"))
    }

    async fn open(gateway: &Gateway, query: &str, last: Option<&str>) -> Self {
        let mut request = Self::request(gateway, query);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let mut connection = gateway.admin.connect().await;
        connection.send_request(&request).await;
        let head = connection.head().await;
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        Self {
            connection,
            text: String::new(),
        }
    }

    /// The next event of this type: its id and its data.
    async fn next(&mut self, kind: &str) -> (String, Value) {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let event: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name));
                    line.map(|value| value.trim_start().to_owned())
                };
                if field("event:").as_deref() == Some(kind) {
                    let data = field("data:").unwrap();
                    return (field("id:").unwrap(), serde_json::from_str(&data).unwrap());
                }
            }
            let (byte, is_whole) = self.connection.take(1).await;
            assert!(is_whole, "the stream ended: {}", self.text);
            self.text.push(char::from(byte[0]));
        }
    }
}

#[tokio::test]
async fn events_tell_what_happens_and_go_on_where_a_client_was_cut() {
    let bench = Bench::new("on-failure").await;
    let mut events = Events::open(&bench.gateway, "", None).await;
    bench.origin.kill().await;
    let id = bench.post("/a", "x").await;
    let (_, lost) = events.next("upstream").await;
    assert_eq!(
        (&lost["upstream"], &lost["connectivity"]),
        (&json!("origin"), &json!("disconnected"))
    );
    let (last, queued) = events.next("queue").await;
    assert_eq!(
        (&queued["id"], &queued["state"]),
        (&json!(id), &json!("queued"))
    );
    drop(events);

    let mode = json!({"mode": "prefer-cache"});
    send(&bench.gateway, "PUT", "mode", &mode).await;
    bench
        .done("cache/purge", json!({"host": "a.example"}))
        .await;
    bench
        .done(&format!("queue/items/{id}/drop"), json!({}))
        .await;

    let mut events = Events::open(&bench.gateway, "", Some(&last)).await;
    assert_eq!(events.next("mode").await.1["mode"], "prefer-cache");
    assert_eq!(events.next("purge").await.1["host"], "a.example");
    let mut only = Events::open(&bench.gateway, "?types=queue", Some(&last)).await;
    assert_eq!(only.next("queue").await.1["state"], "cancelled");
    assert!(!only.text.contains("purge"));

    // The ids of another run say so.
    let bench = bench.restarted().await;
    let mut events = Events::open(&bench.gateway, "", Some("1-5")).await;
    assert_eq!(events.next("lost").await.1["missed"], Value::Null);
    for (query, last) in [("?types=everything", None), ("", Some("x"))] {
        let mut request = Request::get(&format!("/api/v1/events{query}"));
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let answer = bench.gateway.admin.ask(request).await;
        answer.assert_problem(400, "bad-request");
    }
}

#[tokio::test]
async fn there_are_so_many_streams_of_events_and_a_place_is_given_back() {
    let bench = Bench::new("on-failure").await;
    let mut streams = Vec::new();
    for _ in 0..64 {
        streams.push(Events::open(&bench.gateway, "", None).await);
    }
    let beyond = bench.gateway.admin.get("/api/v1/events").await;
    beyond.assert_problem(503, "overloaded");
    streams.truncate(60);
    eventually("a place is free", async || {
        let mut connection = bench.gateway.admin.connect().await;
        connection
            .send_request(&Events::request(&bench.gateway, ""))
            .await;
        (connection.head().await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stream_of_events_does_not_hold_up_the_end() {
    let bench = Bench::new("on-failure").await;
    let mut events = Events::open(&bench.gateway, "", None).await;
    bench.gateway.stop().await;
    let rest = events.connection.until_end().await;
    assert!(rest.ends_with(b"0\r\n\r\n"), "it ended in order");
}
