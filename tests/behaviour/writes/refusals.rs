//! Writes that are not queued: no room, or nothing that could be kept. Nothing of them is sent, and nothing stored.

use super::{Site, location, write};
use crate::support::{Answer, Connection, Reply, Request, eventually, noise};

const ALWAYS: &str = r#"mode = "always", order_by = "path""#;

#[track_caller]
fn assert_full(answer: &Answer) {
    answer.assert_problem(503, "queue-full");
    let retry_after = answer.header("retry-after").expect("when to come back");
    assert!((1..=60).contains(&retry_after.parse::<u64>().unwrap()));
}

/// With room for so much: whether each of the writes is taken, while the origin is away and after it has come back.
async fn check(queue: &str, requests: Vec<(Request, bool)>) {
    let site = Site::start_with(ALWAYS, &format!("[queue]\n{queue}")).await;
    for path in ["/a", "/b", "/c"] {
        site.origin.on(path, Reply::ok("made"));
    }
    site.lose_origin().await;
    let mut receipts = Vec::new();
    for (request, is_taken) in &requests {
        let answer = site.ask(request.clone()).await;
        if *is_taken {
            receipts.push(location(&answer));
        } else {
            assert_full(&answer);
        }
    }
    assert!(!site.gateway.has_on_disk(b"refused"));
    site.origin.revive();
    for receipt in &receipts {
        site.until(receipt, "done").await;
    }
    // There is room again.
    let (refused, _) = requests.iter().find(|(_, is_taken)| !is_taken).unwrap();
    site.until(&site.queue(refused.clone()).await, "done").await;
    assert_eq!(site.written().len(), receipts.len() + 1);
}

fn refused(path: &str) -> Request {
    Request::new("POST", path).body("refused")
}

#[tokio::test]
async fn there_is_room_for_so_many_writes() {
    check(
        "max_items = 2",
        vec![
            (write("POST", "/a"), true),
            (write("POST", "/b"), true),
            (refused("/c"), false),
        ],
    )
    .await;
}

#[tokio::test]
async fn there_is_room_for_so_many_bytes() {
    let large = |path| Request::new("PUT", path).body(vec![b'x'; 20_000]);
    check(
        "max_item = \"32KiB\"\nmax_bytes = \"48KiB\"",
        vec![
            (large("/a"), true),
            (large("/b"), true),
            (
                Request::new("PUT", "/c").body(b"refused".repeat(3_000)),
                false,
            ),
            (write("POST", "/c"), true),
        ],
    )
    .await;
}

#[tokio::test]
async fn there_is_room_for_so_many_writes_of_a_lane() {
    check(
        "max_lane_items = 1",
        vec![
            (write("POST", "/a"), true),
            (refused("/a"), false),
            (write("POST", "/b"), true),
        ],
    )
    .await;
}

#[tokio::test]
async fn there_is_room_for_so_many_writes_of_a_client() {
    check(
        "max_client_items = 1",
        vec![(write("POST", "/a"), true), (refused("/b"), false)],
    )
    .await;
}

#[tokio::test]
async fn a_client_that_makes_up_credentials_gets_no_more_room() {
    let more = "[queue]\nmax_client_items = 2\n[limits]\ntrusted_proxies = [\"127.0.0.0/8\"]";
    let (_dir, site) = Site::start_with_key(ALWAYS, more).await;
    site.lose_origin().await;
    let from = |address: &str, cookie: &str| {
        write("POST", "/a")
            .header("X-Forwarded-For", address)
            .header("Cookie", cookie)
    };
    for (address, cookie, is_taken) in [
        ("192.0.2.1", "a=1", true),
        ("192.0.2.1", "a=2", true),
        ("192.0.2.1", "a=3", false),
        ("192.0.2.2", "a=3", true),
        ("2001:db8::1", "a=4", true),
        ("2001:db8::2", "a=5", true),
        ("2001:db8::3", "a=6", false),
        ("2001:db8:0:1::1", "a=6", true),
        // A credential counts wherever it is used.
        ("192.0.2.3", "a=3", true),
        ("192.0.2.4", "a=3", false),
    ] {
        let answer = site.ask(from(address, cookie)).await;
        match is_taken {
            true => drop(location(&answer)),
            false => assert_full(&answer),
        }
    }
    // Who is behind a trusted proxy that does not say is told apart by the credential alone.
    for cookie in ["a=7", "a=8", "a=9"] {
        site.queue(write("POST", "/a").header("Cookie", cookie))
            .await;
    }
}

#[tokio::test]
async fn a_full_queue_refuses_nothing_that_can_be_passed_on() {
    let site = Site::start_with(
        r#"mode = "on-failure", order_by = "path""#,
        "[queue]\nmax_items = 1",
    )
    .await;
    for path in ["/a", "/b"] {
        site.origin.on(path, Reply::new(201, "made"));
    }
    site.lose_origin().await;
    let first = site.queue(write("PUT", "/a")).await;
    assert_full(&site.ask(write("PUT", "/b")).await);
    site.origin.revive();
    site.until(&first, "done").await;
    assert_eq!(site.ask(write("PUT", "/b")).await.status, 201);
    assert_eq!(site.count("/b"), 1);
}

#[tokio::test]
async fn a_queue_that_is_full_of_bytes_refuses_no_large_body_that_can_be_passed_on() {
    let site = Site::start_with(
        r#"mode = "on-failure", order_by = "path""#,
        "[queue]\nmax_item = \"512KiB\"\nmax_bytes = \"1MiB\"",
    )
    .await;
    site.origin.on("/parked", Reply::new(409, "conflict"));
    site.lose_origin().await;
    for path in ["/parked", "/parked"] {
        site.queue(Request::new("PUT", path).body(noise(500_000)))
            .await;
    }
    assert_full(
        &site
            .ask(Request::new("PUT", "/a").body(noise(100_000)))
            .await,
    );
    site.origin.revive();
    site.origin.on("/a", Reply::new(201, "made"));
    let answer = eventually("the origin is known to be back", || async {
        let answer = site
            .ask(Request::new("PUT", "/a").body(noise(100_000)))
            .await;
        site.gateway.clock.step_secs(1);
        (answer.status != 503).then_some(answer)
    })
    .await;
    assert_eq!(answer.status, 201, "{answer:?}");
}

#[tokio::test]
async fn bodies_that_are_being_read_take_room_and_give_it_back() {
    let site = Site::start_with(
        ALWAYS,
        "[queue]\nmax_item = \"512KiB\"\nmax_bytes = \"4MiB\"",
    )
    .await;
    site.origin.on("/a", Reply::ok("made"));
    site.origin.on("/small", Reply::ok("made"));
    let (first, second) = (
        begin_upload(&site, 500_000).await,
        begin_upload(&site, 499_999).await,
    );
    // There is room for two of them, and nobody has been answered yet.
    let refused = Request::new("PUT", "/a").body(b"refused".repeat(20_000));
    assert_full(&site.ask(refused.clone()).await);
    assert_eq!(
        site.gateway.spooled_bytes(),
        999_999,
        "nothing is left of it"
    );
    // What is small needs none of it.
    let small = site.queue(write("PUT", "/small")).await;
    site.until(&small, "done").await;
    drop(first);
    let receipt = eventually("there is room again", || async {
        let answer = site.ask(refused.clone()).await;
        (answer.status == 202).then(|| location(&answer))
    })
    .await;
    site.until(&receipt, "done").await;
    // What was begun is finished, and takes the room that it has.
    let mut second = second;
    second.send(b"!").await;
    let receipt = location(&second.answer("PUT").await);
    site.until(&receipt, "done").await;
}

/// Sends all of a body but its last byte, until it is on the disk.
async fn begin_upload(site: &Site, sent: usize) -> Connection {
    let before_bytes = site.gateway.spooled_bytes();
    let mut connection = site.gateway.client.connect().await;
    let length = (sent + 1).to_string();
    let request = Request::new("PUT", "/a").header("Content-Length", &length);
    connection.send_request(&request).await;
    connection.send(&noise(sent)).await;
    eventually("the body is on the disk", || {
        let is_there = site.gateway.spooled_bytes() == before_bytes + sent as u64;
        async move { is_there.then_some(()) }
    })
    .await;
    connection
}

#[tokio::test]
async fn a_parked_write_takes_its_room_until_an_operator_has_seen_to_it() {
    let site = Site::start_with(ALWAYS, "[queue]\nmax_items = 1").await;
    site.origin.on("/a", Reply::new(409, "conflict"));
    let parked = site.queue(write("PUT", "/a")).await;
    site.until(&parked, "parked").await;
    assert_full(&site.ask(write("PUT", "/b")).await);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_at_once_or_when_it_shows() {
    let site = Site::start_with(ALWAYS, "[queue]\nmax_item = \"100KiB\"").await;
    site.origin.on("/a", Reply::ok("made"));
    let declared = Request::new("PUT", "/a").header("Content-Length", "102401");
    site.ask(declared)
        .await
        .assert_problem(413, "body-too-large");

    let chunk = format!("{:x}\r\n{}\r\n", 51_201, "x".repeat(51_201));
    let mut connection = site.gateway.client.connect().await;
    let chunked = Request::new("PUT", "/a").header("Transfer-Encoding", "chunked");
    connection.send_request(&chunked).await;
    connection.send(chunk.repeat(2).as_bytes()).await;
    let answer = connection.answer("PUT").await;
    answer.assert_problem(413, "body-too-large");

    let just_fits = Request::new("PUT", "/a").body(vec![b'y'; 102_400]);
    site.until(&site.queue(just_fits).await, "done").await;
    assert_eq!(site.count("/a"), 1);
}

#[tokio::test]
async fn a_body_that_breaks_off_reaches_no_origin() {
    for write in [ALWAYS, r#"mode = "on-failure""#] {
        // In memory, and in a file already.
        for sent in [10, 200_000] {
            let site = Site::start(write).await;
            site.origin.on("/a", Reply::ok("made"));
            let mut connection = site.gateway.client.connect().await;
            let request = Request::new("PUT", "/a").header("Content-Length", "300000");
            connection.send_request(&request).await;
            connection.send(&vec![b'x'; sent]).await;
            drop(connection);
            break_off_chunked(&site).await;
            site.let_deliveries_pass().await;
            assert_eq!(site.count("/a"), 0);
            assert!(!site.gateway.has_on_disk(b"xxxxxxxxxx"));
        }
    }
}

async fn break_off_chunked(site: &Site) {
    let mut connection: Connection = site.gateway.client.connect().await;
    let request = Request::new("POST", "/a").header("Transfer-Encoding", "chunked");
    connection.send_request(&request).await;
    connection.send(b"5\r\nxxxxx\r\nno chunk\r\n").await;
    connection
        .answer("POST")
        .await
        .assert_problem(400, "bad-request");
}
