//! Byte ranges: any of them from what is stored, parts that are stored and completed, and never a mixture.

use crate::support::{
    Answer, Cue, Gateway, Origin, Reply, Request, Seen, Step, digest, eventually, noise,
};

const TERMS: &str = "max-age=60";

/// Over this a body goes to a file on disk.
const LARGE: usize = 300_000;

fn ranged(url: &str, range: &str) -> Request {
    Request::get(url).header("Range", &format!("bytes={range}"))
}

/// What an origin that does ranges answers for `body` with this strong tag.
fn serve(body: &[u8], tag: &str, seen: &Seen) -> Reply {
    let reply = |reply: Reply| reply.cache_control(TERMS).header("ETag", tag);
    if seen.header("if-none-match") == Some(tag) {
        return reply(Reply::new(304, ""));
    }
    let is_current = seen.header("if-range").is_none_or(|known| known == tag);
    let range = seen
        .header("range")
        .filter(|_| is_current)
        .and_then(|range| range.strip_prefix("bytes="))
        .filter(|range| !range.contains(','));
    let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
        return reply(Reply::ok(body.to_vec()));
    };
    let (first, end) = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), last) => (
            first,
            last.map_or(body.len(), |last| (last + 1).min(body.len())),
        ),
        (Err(_), last) => (body.len() - last.unwrap().min(body.len()), body.len()),
    };
    if first >= end {
        return reply(Reply::new(416, ""))
            .header("Content-Range", &format!("bytes */{}", body.len()));
    }
    reply(Reply::new(206, body[first..end].to_vec())).header(
        "Content-Range",
        &format!("bytes {first}-{}/{}", end - 1, body.len()),
    )
}

/// An origin that serves `body` at `/a`, and a gateway.
async fn serving(body: &[u8], config: &str) -> (Origin, Gateway, String) {
    let (origin, gateway) = (Origin::start().await, Gateway::start(config).await);
    let served = body.to_vec();
    origin.on_each("/a", move |seen, _| serve(&served, "\"1\"", seen));
    let url = origin.url("/a");
    (origin, gateway, url)
}

/// The `Range` and the `If-Range` of the last request that the origin saw.
fn last_asked(origin: &Origin) -> (String, String) {
    let seen = origin.seen_at("/a").pop().expect("a request");
    let field = |name| seen.header(name).unwrap_or("none").to_owned();
    (field("range"), field("if-range"))
}

/// Fails the test unless the answer is this range of `body`.
#[track_caller]
fn assert_range(answer: &Answer, body: &[u8], first: usize, end: usize) {
    assert_eq!(answer.status, 206, "{:?}", answer.headers);
    let place = format!("bytes {first}-{}/{}", end - 1, body.len());
    assert_eq!(answer.header("content-range"), Some(place.as_str()));
    assert!(answer.is_complete);
    assert_eq!(digest(&answer.body), digest(&body[first..end]));
}

#[track_caller]
fn assert_whole(answer: &Answer, body: &[u8]) {
    assert_eq!((answer.status, answer.header("content-range")), (200, None));
    assert!(answer.is_complete);
    assert_eq!(digest(&answer.body), digest(body));
}

/// The parts of a multipart answer: the place and the bytes of each.
fn parts(answer: &Answer) -> Vec<(String, Vec<u8>)> {
    assert!(answer.is_complete);
    let media_type = answer.header("content-type").unwrap();
    let boundary = media_type
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let delimiter = format!("--{boundary}");
    let find = |from: usize, needle: &[u8]| {
        let rest = &answer.body[from..];
        from + rest
            .windows(needle.len())
            .position(|w| w == needle)
            .unwrap()
    };
    let (mut at, mut found) = (find(0, delimiter.as_bytes()), Vec::new());
    loop {
        at += delimiter.len();
        if answer.body[at..].starts_with(b"--") {
            return found;
        }
        let head_end = find(at, b"\r\n\r\n");
        let head = String::from_utf8(answer.body[at..head_end].to_vec()).unwrap();
        let place = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Range: bytes "));
        let end = find(head_end, format!("\r\n{delimiter}").as_bytes());
        found.push((
            place.unwrap().to_owned(),
            answer.body[head_end + 4..end].to_vec(),
        ));
        at = end + 2;
    }
}

#[tokio::test]
async fn several_ranges_come_as_parts_from_memory_and_from_a_body_file() {
    let body = noise(LARGE);
    let (origin, gateway, url) = serving(&body, "").await;
    gateway.client.get(&url).await;
    let set = "1000-1009, 270000-270009, 0-9, -10";
    let from_memory = gateway.client.ask(ranged(&url, set)).await;
    let gateway = gateway.restart("").await;
    let from_disk = gateway.client.ask(ranged(&url, set)).await;
    let expected: Vec<_> = [1_000, 270_000, 0, LARGE - 10]
        .into_iter()
        .map(|first| {
            let place = format!("{first}-{}/{LARGE}", first + 9);
            (place, body[first..first + 10].to_vec())
        })
        .collect();
    for answer in [&from_memory, &from_disk] {
        assert_eq!(answer.status, 206);
        assert_eq!(answer.header("content-range"), None);
        answer.assert_says(&["hit"]);
        assert_eq!(parts(answer), expected);
    }
    assert_ne!(
        from_memory.header("content-type"),
        from_disk.header("content-type"),
        "a boundary that can be foreseen"
    );
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn of_several_ranges_those_that_can_be_had_are_answered() {
    let body = noise(5_000);
    let (_origin, gateway, url) = serving(&body, "").await;
    gateway.client.get(&url).await;
    let ask = |set: &str| gateway.client.ask(ranged(&url, set));
    assert_range(&ask("9000-, 10-19").await, &body, 10, 20);
    assert_range(&ask("15-40, 10-19").await, &body, 10, 41);
    assert_range(&ask("-100").await, &body, 4_900, 5_000);
    for set in ["5000-", "9000-, 5000-6000", "-0"] {
        let none = ask(set).await;
        assert_eq!((none.status, &none.body[..]), (416, &b""[..]));
        assert_eq!(none.header("content-range"), Some("bytes */5000"));
    }
    // What a hostile client asks for is answered with no more than there is.
    let flood: Vec<_> = (0..1_000).map(|at| format!("{at}-")).collect();
    assert_whole(&ask(&flood.join(",")).await, &body);
    let overlapping = ["0-"; 16].join(",");
    assert_range(&ask(&overlapping).await, &body, 0, 5_000);
    let head = Request::new("HEAD", &url).header("Range", "bytes=0-9");
    let head = gateway.client.ask(head).await;
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("5000"))
    );
}

#[tokio::test]
async fn a_range_counts_only_while_the_representation_is_the_one_the_client_knows() {
    let body = noise(5_000);
    let (origin, gateway, url) = serving(&body, "").await;
    gateway.client.get(&url).await;
    let ask = |tag: &str| {
        gateway
            .client
            .ask(ranged(&url, "10-19").header("If-Range", tag))
    };
    assert_range(&ask("\"1\"").await, &body, 10, 20);
    for other in ["\"2\"", "W/\"1\"", "Wed, 06 Nov 2024 09:02:57 GMT"] {
        assert_whole(&ask(other).await, &body);
    }
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn a_part_answers_what_it_covers() {
    let body = noise(5_000);
    let (origin, gateway, url) = serving(&body, "").await;
    let ask = |set: &str| gateway.client.ask(ranged(&url, set));
    let first = ask("1000-1999").await;
    assert_range(&first, &body, 1_000, 2_000);
    first.assert_says(&["fwd=uri-miss", "fwd-status=206", "stored"]);
    for (set, first, end) in [("1000-1999", 1_000, 2_000), ("1500-1500", 1_500, 1_501)] {
        let answer = ask(set).await;
        assert_range(&answer, &body, first, end);
        answer.assert_says(&["hit", "ttl=60"]);
        assert_eq!(answer.header("age"), Some("0"));
    }
    let both = ask("1000-1009, 1990-1999").await;
    assert_eq!(parts(&both).len(), 2);
    assert_eq!(
        ask("5000-").await.header("content-range"),
        Some("bytes */5000")
    );
    assert_eq!(origin.seen().len(), 1);

    // A HEAD is about the whole.
    let head = gateway.client.ask(Request::new("HEAD", &url)).await;
    head.assert_says(&["fwd=partial"]);
    assert_eq!(head.header("content-length"), Some("5000"));
}

#[tokio::test]
async fn a_part_stands_in_for_an_origin_that_is_gone_or_fails() {
    let body = noise(5_000);
    let (origin, gateway, url) = serving(&body, "").await;
    gateway.client.ask(ranged(&url, "1000-1999")).await;
    gateway.clock.step_secs(100);
    origin.on("/a", Reply::new(503, "no"));
    let failing = gateway.client.ask(ranged(&url, "1200-1299")).await;
    assert_range(&failing, &body, 1_200, 1_300);
    failing.assert_says(&["fwd=stale", "fwd-status=503", "detail=stale-if-error"]);

    origin.kill().await;
    gateway.clock.step_secs(60);
    let found_out = gateway.client.ask(ranged(&url, "1200-1299")).await;
    found_out.assert_says(&["fwd=stale", "detail=disconnected"]);
    let known = gateway.client.ask(ranged(&url, "1200-1299")).await;
    assert_range(&known, &body, 1_200, 1_300);
    known.assert_says(&["hit", "detail=disconnected"]);
    gateway
        .client
        .get(&url)
        .await
        .assert_problem(504, "offline-miss");
    let outside = gateway.client.ask(ranged(&url, "0-9")).await;
    outside.assert_problem(504, "offline-miss");
}

#[tokio::test]
async fn a_stale_part_is_validated_with_the_range_that_is_asked_for() {
    let body = noise(5_000);
    let (origin, gateway, url) = serving(&body, "").await;
    gateway.client.ask(ranged(&url, "1000-1999")).await;
    gateway.clock.step_secs(61);
    let validated = gateway.client.ask(ranged(&url, "1200-1299")).await;
    assert_range(&validated, &body, 1_200, 1_300);
    validated.assert_says(&["fwd=stale", "fwd-status=304", "stored", "ttl=60"]);
    let seen = origin.seen_at("/a").pop().unwrap();
    assert_eq!(seen.header("if-none-match"), Some("\"1\""));
    assert_eq!(seen.header("range"), Some("bytes=1200-1299"));
    let fresh = gateway.client.ask(ranged(&url, "1900-1999")).await;
    assert_range(&fresh, &body, 1_900, 2_000);
    fresh.assert_says(&["hit"]);

    // Changed: the new range takes the old one's place.
    gateway.clock.step_secs(61);
    let other = noise(6_000);
    let served = other.clone();
    origin.on_each("/a", move |seen, _| serve(&served, "\"2\"", seen));
    for says in ["fwd-status=206", "hit"] {
        let answer = gateway.client.ask(ranged(&url, "1200-1299")).await;
        assert_range(&answer, &other, 1_200, 1_300);
        answer.assert_says(&[says]);
    }
    let outside = gateway.client.ask(ranged(&url, "1000-1099")).await;
    assert_range(&outside, &other, 1_000, 1_100);
}

#[tokio::test]
async fn behind_a_stale_part_its_range_is_validated_and_not_the_whole_fetched() {
    let body = noise(5_000);
    let config = "[cache]\nstale_while_revalidate = \"10m\"";
    let (origin, gateway, url) = serving(&body, config).await;
    gateway.client.ask(ranged(&url, "1000-1999")).await;
    gateway.clock.step_secs(61);
    let stale = gateway.client.ask(ranged(&url, "1200-1299")).await;
    assert_range(&stale, &body, 1_200, 1_300);
    stale.assert_says(&["hit", "detail=stale-while-revalidate"]);
    eventually("the part is fresh again", || async {
        let answer = gateway.client.ask(ranged(&url, "1200-1299")).await;
        answer.says("ttl=60").then_some(())
    })
    .await;
    assert_eq!(origin.seen().len(), 2);
    assert_eq!(last_asked(&origin).0, "bytes=1200-1299");
}

#[tokio::test]
async fn a_stale_complete_response_is_freshened_for_a_range_and_no_part_replaces_it() {
    let body = noise(5_000);
    let (origin, gateway, url) = serving(&body, "").await;
    gateway.client.get(&url).await;
    gateway.clock.step_secs(61);
    let range = gateway.client.ask(ranged(&url, "10-19")).await;
    assert_range(&range, &body, 10, 20);
    range.assert_says(&["fwd=stale", "fwd-status=304"]);
    let whole = gateway.client.get(&url).await;
    assert_whole(&whole, &body);
    whole.assert_says(&["hit"]);

    // The client insists, so the origin sends the range alone.
    let insisting = ranged(&url, "10-19")
        .header("Cache-Control", "no-cache")
        .header("If-Modified-Since", "Wed, 06 Nov 2024 09:02:57 GMT");
    let range = gateway.client.ask(insisting).await;
    assert_range(&range, &body, 10, 20);
    range.assert_says(&["fwd=request", "fwd-status=206"]);
    let whole = gateway.client.get(&url).await;
    assert_whole(&whole, &body);
    whole.assert_says(&["hit"]);
    assert_eq!(origin.seen().len(), 3);
}

#[tokio::test]
async fn a_range_of_another_version_tells_that_the_complete_response_is_outdated() {
    let (old, new) = (noise(5_000), noise(6_000));
    let (origin, gateway, url) = serving(&old, "").await;
    gateway.client.get(&url).await;
    let served = new.clone();
    origin.on_each("/a", move |seen, _| serve(&served, "\"2\"", seen));
    let insisting = ranged(&url, "10-19").header("Cache-Control", "no-cache");
    assert_range(&gateway.client.ask(insisting).await, &new, 10, 20);
    let whole = gateway.client.get(&url).await;
    assert_whole(&whole, &new);
    whole.assert_says(&["fwd=stale", "fwd-status=200"]);
}

#[tokio::test]
async fn a_part_is_completed_by_asking_for_the_rest() {
    let body = noise(5_000);
    for (held, rest) in [("0-1999", "bytes=2000-"), ("2000-", "bytes=0-1999")] {
        let (origin, gateway, url) = serving(&body, "").await;
        gateway.client.ask(ranged(&url, held)).await;
        let whole = gateway.client.get(&url).await;
        assert_whole(&whole, &body);
        assert_eq!(whole.header("content-length"), Some("5000"));
        whole.assert_says(&["fwd=partial", "fwd-status=206", "stored", "ttl=60"]);
        let asked = (rest.to_owned(), "\"1\"".to_owned());
        assert_eq!(last_asked(&origin), asked);
        let again = gateway.client.get(&url).await;
        assert_whole(&again, &body);
        again.assert_says(&["hit"]);
        let range = gateway.client.ask(ranged(&url, "1990-2009")).await;
        assert_range(&range, &body, 1_990, 2_010);
        range.assert_says(&["hit"]);
        assert_eq!(origin.seen().len(), 2);
    }
}

#[tokio::test]
async fn those_who_wait_for_a_completion_share_it() {
    let body = noise(LARGE);
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let (cue, served) = (Cue::new(), body.clone());
    let hold = cue.clone();
    origin.on_each("/a", move |seen, nth| {
        let reply = serve(&served, "\"1\"", seen);
        if nth == 0 {
            reply
        } else {
            reply.dripped(2, &hold)
        }
    });
    let url = origin.url("/a");
    gateway.client.ask(ranged(&url, "0-99999")).await;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let mut connection = gateway.client.connect().await;
        connection.send_request(&Request::get(&url)).await;
        let head = connection.head().await;
        // The stored bytes come at once.
        let (stored, is_whole) = connection.take(100_000).await;
        assert!(is_whole);
        assert_eq!(digest(&stored), digest(&body[..100_000]));
        waiting.push((connection, head));
    }
    cue.open();
    for (mut connection, head) in waiting {
        assert_eq!(head.header("content-length"), Some("300000"));
        let (rest, is_whole) = connection.take(200_000).await;
        assert!(is_whole);
        assert_eq!(digest(&rest), digest(&body[100_000..]));
    }
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn a_part_on_disk_survives_a_restart_and_is_completed() {
    let body = noise(2 * LARGE);
    let (origin, gateway, url) = serving(&body, "").await;
    gateway.client.ask(ranged(&url, "0-299999")).await;
    let gateway = gateway.restart("").await;
    let range = gateway.client.ask(ranged(&url, "262000-262999")).await;
    assert_range(&range, &body, 262_000, 263_000);
    range.assert_says(&["hit"]);
    let whole = gateway.client.get(&url).await;
    assert_whole(&whole, &body);
    whole.assert_says(&["fwd=partial", "stored"]);
    assert_eq!(last_asked(&origin).0, "bytes=300000-");
    let gateway = gateway.restart("").await;
    let whole = gateway.client.get(&url).await;
    assert_whole(&whole, &body);
    whole.assert_says(&["hit"]);
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn a_part_on_disk_grows_by_what_touches_it() {
    let body = noise(2 * LARGE);
    let (origin, gateway, url) = serving(&body, "[storage]\nmax_object = \"1MiB\"").await;
    gateway.client.ask(ranged(&url, "100000-399999")).await;
    let gateway = gateway.restart("[storage]\nmax_object = \"1MiB\"").await;
    // What is stored is read from disk to be joined, which the client does not wait for.
    let is_stored = async |set: &str| {
        eventually("the parts are joined", || async {
            let only = ranged(&url, set).header("Cache-Control", "only-if-cached");
            let answer = gateway.client.ask(only).await;
            (answer.status == 206).then_some(answer)
        })
        .await
    };
    gateway.client.ask(ranged(&url, "400000-449999")).await;
    is_stored("100000-449999").await;
    gateway.client.ask(ranged(&url, "50000-99999")).await;
    let all = is_stored("50000-449999").await;
    assert_range(&all, &body, 50_000, 450_000);
    all.assert_says(&["hit"]);
    assert_eq!(origin.seen().len(), 3);
}

#[tokio::test]
async fn a_representation_that_changed_is_not_put_together_with_an_old_part() {
    let (old, new) = (noise(5_000), noise(6_000));
    // One origin heeds If-Range; the other sends the range all the same, under its new tag, or a weak one, or none.
    for (tag, heeds, requests) in [
        (Some("\"2\""), true, 2),
        (Some("\"2\""), false, 3),
        (Some("W/\"1\""), false, 3),
        (None, false, 3),
    ] {
        let (origin, gateway, url) = serving(&old, "").await;
        gateway.client.ask(ranged(&url, "0-1999")).await;
        let served = new.clone();
        origin.on_each("/a", move |seen, _| {
            let mut seen = seen.clone();
            if !heeds {
                seen.headers
                    .retain(|(name, _)| !name.eq_ignore_ascii_case("if-range"));
            }
            let reply = serve(&served, "\"2\"", &seen);
            match tag {
                Some("\"2\"") => reply,
                // The last tag counts for nobody: there are two then, or a weak one.
                Some(other) => reply.header("ETag", other),
                None => reply.header("ETag", "\"1\""),
            }
        });
        let whole = gateway.client.get(&url).await;
        assert_whole(&whole, &new);
        whole.assert_says(&["fwd=partial", "fwd-status=200", "stored"]);
        assert_eq!(origin.seen().len(), requests, "{tag:?} {heeds}");
    }
}

#[tokio::test]
async fn an_unusable_answer_for_the_rest_leads_to_one_request_for_the_whole() {
    let body = noise(5_000);
    let shorter = noise(1_000);
    for (status, place) in [
        (206, "bytes 2001-4999/5000"),
        (206, "bytes 2000-4998/5000"),
        (206, "bytes 2000-4999/6000"),
        (206, "nonsense"),
        (416, "bytes */1000"),
    ] {
        let (origin, gateway, url) = serving(&body, "").await;
        gateway.client.ask(ranged(&url, "0-1999")).await;
        let served = shorter.clone();
        origin.on_each("/a", move |seen, _| match seen.header("range") {
            Some(_) => Reply::new(status, "x")
                .cache_control(TERMS)
                .header("ETag", "\"1\"")
                .header("Content-Range", place),
            None => serve(&served, "\"3\"", seen),
        });
        assert_whole(&gateway.client.get(&url).await, &shorter);
        assert_eq!(last_asked(&origin), ("none".to_owned(), "none".to_owned()));
        assert_eq!(origin.seen().len(), 3, "{status} {place}");
        gateway.client.get(&url).await.assert_says(&["hit"]);
    }
}

#[tokio::test]
async fn a_part_without_a_strong_validator_or_with_too_few_bytes_is_reused_and_never_joined() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let url = origin.url("/a");
    origin.on_each("/a", |seen, _| match seen.header("range") {
        Some(_) => Reply::new(206, "01234")
            .cache_control(TERMS)
            .header("Content-Range", "bytes 0-4/10"),
        None => Reply::ok("abcdefghij").cache_control(TERMS),
    });
    gateway.client.ask(ranged(&url, "0-4")).await;
    let part = gateway.client.ask(ranged(&url, "1-3")).await;
    assert_eq!((part.status, part.text()), (206, "123"));
    assert_eq!(gateway.client.get(&url).await.text(), "abcdefghij");
    // Asked for the rest, which came and was not used, and then for the whole.
    assert_eq!(origin.seen().len(), 3);

    origin.on_each("/b", |seen, _| match seen.header("range") {
        Some(_) => Reply::new(206, "01234")
            .cache_control(TERMS)
            .header("ETag", "\"1\"")
            .header("Content-Range", "bytes 4-9/10"),
        None => Reply::ok("abcdefghij").cache_control(TERMS),
    });
    let url = origin.url("/b");
    gateway.client.ask(ranged(&url, "-5")).await;
    for (set, expected, place) in [
        ("6-8", "234", "bytes 6-8/10"),
        ("6-", "234", "bytes 6-8/10"),
        ("-1", "4", "bytes 8-8/10"),
        ("-5", "01234", "bytes 4-8/10"),
    ] {
        let answer = gateway.client.ask(ranged(&url, set)).await;
        assert_eq!((answer.status, answer.text()), (206, expected), "{set}");
        assert_eq!(answer.header("content-range"), Some(place));
        answer.assert_says(&["hit"]);
    }
    assert_eq!(gateway.client.get(&url).await.text(), "abcdefghij");
    assert_eq!(origin.seen_at("/b").len(), 2);
}

#[tokio::test]
async fn a_completion_that_breaks_off_is_seen_by_the_client_and_stored_nowhere() {
    let body = noise(LARGE);
    for (chunked, end) in [
        (false, Step::Reset),
        (false, Step::Close),
        (true, Step::Close),
    ] {
        let (origin, gateway, url) = serving(&body, "").await;
        gateway.client.ask(ranged(&url, "0-99999")).await;
        let served = body.clone();
        origin.on_each("/a", move |seen, _| {
            let reply = serve(&served, "\"1\"", seen).ends_early(end.clone());
            if chunked { reply.chunked() } else { reply }
        });
        let broken = gateway.client.get(&url).await;
        assert_eq!(broken.status, 200);
        assert!(!broken.is_complete);
        assert!(body.starts_with(&broken.body));

        let served = body.clone();
        origin.on_each("/a", move |seen, _| serve(&served, "\"1\"", seen));
        let next = gateway.client.get(&url).await;
        assert_whole(&next, &body);
        next.assert_says(&["fwd=partial", "fwd-status=206"]);
        assert_eq!(last_asked(&origin).0, "bytes=100000-");
    }
}

#[tokio::test]
async fn a_rest_of_another_length_than_it_says_is_not_taken_for_the_whole() {
    let body = noise(5_000);
    let (origin, gateway, url) = serving(&body, "").await;
    gateway.client.ask(ranged(&url, "0-1999")).await;
    let rest = body[2_000..4_000].to_vec();
    origin.on_each("/a", move |seen, _| match seen.header("range") {
        Some(_) => Reply::new(206, rest.clone())
            .chunked()
            .cache_control(TERMS)
            .header("ETag", "\"1\"")
            .header("Content-Range", "bytes 2000-4999/5000"),
        None => Reply::ok("whole"),
    });
    let broken = gateway.client.get(&url).await;
    assert!(
        !broken.is_complete,
        "{} {:?} {}",
        broken.status,
        broken.headers,
        broken.body.len()
    );
    origin.on("/a", Reply::ok("whole"));
    assert_eq!(gateway.client.get(&url).await.text(), "whole");
}

#[tokio::test]
async fn a_purge_during_a_completion_wins() {
    let body = noise(LARGE);
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let (cue, served) = (Cue::new(), body.clone());
    let hold = cue.clone();
    origin.on_each("/a", move |seen, nth| {
        let reply = serve(&served, "\"1\"", seen);
        if nth == 1 {
            reply.dripped(2, &hold)
        } else {
            reply
        }
    });
    let url = origin.url("/a");
    gateway.client.ask(ranged(&url, "0-99999")).await;
    let mut connection = gateway.client.connect().await;
    connection.send_request(&Request::get(&url)).await;
    let head = connection.head().await;
    connection.first_byte().await;

    let purge = serde_json::json!({"url": url, "soft": false}).to_string();
    let purge = Request::new("POST", "/api/v1/cache/purge")
        .header("Content-Type", "application/json")
        .body(purge);
    assert_eq!(gateway.admin.ask(purge).await.json()["count"], 1);
    cue.open();
    let answer = connection.rest_of(head, "GET").await;
    assert_eq!(digest(&answer.body), digest(&body));

    let next = gateway.client.get(&url).await;
    next.assert_says(&["fwd=uri-miss"]);
    assert_eq!(last_asked(&origin).0, "none");
}

#[tokio::test]
async fn a_download_is_resumed_from_the_part_and_the_origin() {
    let body = noise(5_000);
    let (origin, gateway, url) = serving(&body, "").await;
    gateway.client.ask(ranged(&url, "0-1999")).await;
    // As `curl -C - -o file` does, which has less than the gateway has.
    let resumed = gateway.client.ask(ranged(&url, "1500-")).await;
    assert_range(&resumed, &body, 1_500, 5_000);
    resumed.assert_says(&["fwd=partial", "fwd-status=206", "stored"]);
    assert_eq!(
        last_asked(&origin),
        ("bytes=2000-".to_owned(), "\"1\"".to_owned())
    );
    // The part has become the whole.
    let whole = gateway.client.get(&url).await;
    assert_whole(&whole, &body);
    whole.assert_says(&["hit"]);
    // And as it does when nothing is left to do.
    let done = gateway.client.ask(ranged(&url, "5000-")).await;
    assert_eq!(
        (done.status, done.header("content-range")),
        (416, Some("bytes */5000"))
    );
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn an_error_takes_no_parts_place() {
    let body = noise(5_000);
    let (origin, gateway, url) = serving(&body, "").await;
    gateway.client.ask(ranged(&url, "0-1999")).await;
    origin.on("/a", Reply::new(503, "no").cache_control("max-age=600"));
    assert_eq!(gateway.client.get(&url).await.status, 503);
    assert_eq!(gateway.client.ask(ranged(&url, "1500-")).await.status, 503);
    let part = gateway.client.ask(ranged(&url, "0-1999")).await;
    assert_range(&part, &body, 0, 2_000);
    part.assert_says(&["hit"]);
}

#[tokio::test]
async fn an_origin_that_does_no_ranges_fills_the_store_with_the_whole() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on("/a", Reply::ok("0123456789").cache_control(TERMS));
    let url = origin.url("/a");
    assert_eq!(
        gateway.client.ask(ranged(&url, "2-3")).await.text(),
        "0123456789"
    );
    let range = gateway.client.ask(ranged(&url, "2-3")).await;
    assert_eq!((range.status, range.text()), (206, "23"));
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn the_second_range_miss_starts_one_fill_of_the_whole() {
    let body = noise(50_000);
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let (cue, served) = (Cue::new(), body.clone());
    let hold = cue.clone();
    origin.on_each("/a", move |seen, _| {
        let reply = serve(&served, "\"1\"", seen);
        // A fill of the rest asks for what lies between.
        if seen.header("range") == Some("bytes=1000-") {
            reply.held(&hold)
        } else {
            reply
        }
    });
    let url = origin.url("/a");
    gateway.client.ask(ranged(&url, "0-999")).await;
    assert_eq!(
        origin.seen().len(),
        1,
        "a first miss fetches no more than is asked for"
    );
    for first in [10_000, 20_000, 30_000] {
        let set = format!("{first}-{}", first + 99);
        let answer = gateway.client.ask(ranged(&url, &set)).await;
        assert_range(&answer, &body, first, first + 100);
        answer.assert_says(&["fwd=partial", "fwd-status=206"]);
    }
    origin.sees("/a", 5).await;
    cue.open();
    let whole = eventually("the whole is stored", || async {
        let only = Request::get(&url).header("Cache-Control", "only-if-cached");
        let answer = gateway.client.ask(only).await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_whole(&whole, &body);
    assert_eq!(origin.seen().len(), 5);
}

#[tokio::test]
async fn what_is_large_is_not_fetched_whole_for_two_ranges() {
    let body = noise(50_000);
    // A sixteenth of it is less than the body has.
    let (origin, gateway, url) = serving(&body, "[storage]\nmax_object = \"500KiB\"").await;
    for first in [0, 10_000, 20_000, 30_000] {
        let set = format!("{first}-{}", first + 99);
        let answer = gateway.client.ask(ranged(&url, &set)).await;
        assert_range(&answer, &body, first, first + 100);
    }
    assert_eq!(origin.seen().len(), 4);
    assert!(
        origin
            .seen()
            .iter()
            .all(|seen| seen.header("range").is_some())
    );
}

#[tokio::test]
async fn an_answer_to_one_range_or_condition_is_not_the_answer_to_everybody() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on_each("/a", |seen, _| {
        let reply = match (seen.header("range"), seen.header("if-match")) {
            (Some("bytes=99-"), _) => Reply::new(416, "past the end"),
            (Some(_), _) => Reply::new(206, "--x\r\n\r\n--x--")
                .header("Content-Type", "multipart/byteranges; boundary=x"),
            (_, Some(_)) => Reply::new(412, "not that"),
            _ => return Reply::ok("whole").cache_control("no-store"),
        };
        reply.cache_control("max-age=600")
    });
    let url = origin.url("/a");
    for (request, status) in [
        (ranged(&url, "99-"), 416),
        (ranged(&url, "0-1,3-4"), 206),
        (Request::get(&url).header("If-Match", "\"x\""), 412),
    ] {
        assert_eq!(gateway.client.ask(request).await.status, status);
        assert_eq!(gateway.client.get(&url).await.text(), "whole");
    }
}

#[tokio::test]
async fn a_rest_that_is_longer_than_it_says_breaks_off_before_its_readers_take_it_for_more() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let cue = Cue::new();
    let hold = cue.clone();
    origin.on_each("/a", move |seen, _| {
        let part = |place: &str, body: &'static str| {
            let reply = Reply::new(206, body).cache_control(TERMS).chunked();
            reply.header("ETag", "\"1\"").header("Content-Range", place)
        };
        match seen.header("range") {
            Some("bytes=5-9") => part("bytes 5-9/10", "56789"),
            Some(_) => part("bytes 0-4/10", "01234XXXXX").dripped(2, &hold),
            None => Reply::ok("0123456789"),
        }
    });
    let url = origin.url("/a");
    gateway.client.ask(ranged(&url, "5-9")).await;
    let mut client = gateway.client.connect().await;
    client.send_request(&Request::get(&url)).await;
    let head = client.head().await;
    client.first_byte().await;
    cue.open();
    let whole = client.rest_of(head, "GET").await;
    assert!(!whole.is_complete, "{}", whole.text());
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn a_few_bytes_more_are_not_worth_the_copy_of_many() {
    let body = noise(10_000);
    // Too small for a fill of the whole that nobody asked for.
    let config = "[storage]\nmax_object = \"100KiB\"";
    let (origin, gateway, url) = serving(&body, config).await;
    gateway.client.ask(ranged(&url, "0-7999")).await;
    for (range, is_kept) in [
        ("8000-8000", false),
        ("8000-8998", false),
        ("8000-8999", true),
        ("9000-9999", true),
    ] {
        let first = gateway.client.ask(ranged(&url, range)).await;
        assert_eq!(first.status, 206, "{range}");
        let again = gateway.client.ask(ranged(&url, range)).await;
        assert_eq!(again.says("hit"), is_kept, "{range}");
        assert_eq!(digest(&first.body), digest(&again.body), "{range}");
    }
    let whole = gateway.client.get(&url).await;
    whole.assert_says(&["hit"]);
    assert_eq!(digest(&whole.body), digest(&body));
    assert!(
        origin
            .seen()
            .iter()
            .all(|seen| seen.header("range").is_some())
    );
}
