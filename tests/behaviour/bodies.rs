//! Whatever goes wrong, a body that looks whole is byte for byte what the origin sent for the entity tag it carries.
//!
//! An origin serves changing versions of a few resources; a body follows from its entity tag, so that a reader
//! can check every byte. Clients read whole and in parts, forward and reverse, with conditions and without,
//! and hang up in the middle; the origin breaks off, closes early and changes; the operator purges; writes invalidate;
//! the clock runs; memory is too small, so that much is read from disk; and the gateway starts anew in between.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use fastrand::Rng;
use tokio::task::JoinSet;

use crate::support::{
    Answer, Client, Cue, Gateway, Origin, Reply, Request, Seen, Step, reverse_to,
};

/// Resources, and the size of their bodies: small, in one record, in a body file, and in several blocks of one.
const SIZES: [usize; 6] = [0, 1, 5_000, 40_000, 140_000, 300_000];

const CLIENTS: usize = 12;
const REQUESTS_PER_CLIENT: usize = 25;

/// A body takes more than an eighth of this only if it is to be read from disk.
const STORAGE: &str = "[storage]\nmemory = \"1MiB\"\ndisk = \"32MiB\"\nmax_object = \"8MiB\"\n[cache]\nstale_if_error = \"1h\"\n";

/// The origin's side: which version each resource has.
#[derive(Default)]
struct Versions([AtomicU64; SIZES.len()]);

/// What the readers found.
#[derive(Default)]
struct Tally {
    whole: AtomicUsize,
    parts: AtomicUsize,
    broken: AtomicUsize,
    hits: AtomicUsize,
}

#[tokio::test]
async fn every_body_that_looks_whole_is_what_the_origin_sent_for_its_entity_tag() {
    let seed = std::env::var("HARDTACK_BODIES_SEED").map_or(9, |seed| seed.parse().unwrap());
    println!("HARDTACK_BODIES_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let (origin, versions, tally) = (Origin::start().await, Arc::default(), Arc::default());
    let go = Cue::new();
    go.open();
    for resource in 0..SIZES.len() {
        serve(&origin, &versions, resource, &go);
    }
    let config = format!("{STORAGE}{}", reverse_to(origin.address()));
    let host = origin.address().to_string();
    let mut gateway = Gateway::start(&config).await;
    for _ in 0..2 {
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let reader = Reader {
                client: gateway.client.clone(),
                forward: origin.url(""),
                tally: Arc::clone(&tally),
                rng: rng.fork(),
            };
            clients.spawn(reader.read());
        }
        while !clients.is_empty() {
            disturb(&gateway, &host, &versions, &mut rng).await;
            while let Some(done) = clients.try_join_next() {
                done.unwrap();
            }
        }
        gateway = gateway.restart(&config).await;
        newest_after_a_change(&gateway, &host, &versions).await;
    }
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    let (whole, parts) = (count(&tally.whole), count(&tally.parts));
    let (broken, hits) = (count(&tally.broken), count(&tally.hits));
    // Each of the ways must have been gone, or nothing was shown.
    assert!(
        whole > 200 && parts > 50 && broken > 10 && hits > 100,
        "{whole} whole, {parts} parts, {broken} broken off, {hits} hits"
    );
}

/// The body with this entity tag.
fn body(resource: usize, version: u64) -> Vec<u8> {
    let mut body = vec![0; size(resource, version)];
    Rng::with_seed(version << 8 | resource as u64).fill(&mut body);
    body
}

/// Versions differ in length too, so that a mixed body does not fit.
fn size(resource: usize, version: u64) -> usize {
    SIZES[resource] + usize::try_from(version % 5).unwrap()
}

fn serve(origin: &Origin, versions: &Arc<Versions>, resource: usize, go: &Cue) {
    let (versions, go) = (Arc::clone(versions), go.clone());
    let path = format!("/{resource}");
    origin.on_each(&path, move |seen, nth| {
        answer(seen, nth, resource, &versions, &go)
    });
}

/// Every tenth answer breaks off, in one of several ways.
fn answer(seen: &Seen, nth: usize, resource: usize, versions: &Versions, go: &Cue) -> Reply {
    let version = &versions.0[resource];
    if seen.method == "POST" {
        version.fetch_add(1, Ordering::Relaxed);
        return Reply::new(204, "");
    }
    let version = version.load(Ordering::Relaxed);
    let terms = match resource % 3 {
        0 => "max-age=60",
        1 => "max-age=5, stale-while-revalidate=600",
        _ => "no-cache",
    };
    let reply = Reply::ok(body(resource, version))
        .etag(&format!("\"{resource}-{version}\""))
        .cache_control(terms);
    let reply = if nth.is_multiple_of(3) {
        reply.chunked()
    } else {
        reply
    };
    match nth % 10 {
        3 => reply.ends_early(Step::Close),
        6 => reply.ends_early(Step::Reset),
        9 if nth % 20 == 9 => Reply::new(503, "down"),
        9 => Reply::script([Step::Reset]),
        _ => {
            // Two writes, so that readers follow a body that grows.
            reply.dripped(2, go)
        }
    }
}

/// One of the things that operators, writers and time do.
async fn disturb(gateway: &Gateway, host: &str, versions: &Versions, rng: &mut Rng) {
    let resource = rng.usize(..SIZES.len());
    match rng.u8(..8) {
        0 | 1 => drop(versions.0[resource].fetch_add(1, Ordering::Relaxed)),
        2 => purge(gateway, host, rng.bool()).await,
        3 => {
            let write = Request::new("POST", &format!("/{resource}")).body("x");
            gateway.client.ask(write).await;
        }
        4 => gateway.clock.step_secs(rng.i64(1..8)),
        _ => {
            whole(&gateway.client, resource).await;
        }
    }
}

/// The answer, if all of it comes.
async fn whole(client: &Client, resource: usize) -> Option<Answer> {
    let mut connection = client.connect().await;
    connection
        .send_request(&Request::get(&format!("/{resource}")))
        .await;
    let head = connection.try_head().await?;
    let answer = connection.rest_of(head, "GET").await;
    answer.is_complete.then_some(answer)
}

async fn purge(gateway: &Gateway, host: &str, soft: bool) {
    let body = format!(r#"{{"host": "{host}", "soft": {soft}}}"#);
    let request = Request::new("POST", "/api/v1/cache/purge")
        .header("Content-Type", "application/json")
        .body(body);
    let answer = gateway.admin.ask(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// After a purge, and after a write, nothing older than what the origin has now is served.
async fn newest_after_a_change(gateway: &Gateway, host: &str, versions: &Versions) {
    for (resource, version) in versions.0.iter().enumerate() {
        if resource % 2 == 0 {
            version.fetch_add(1, Ordering::Relaxed);
            purge(gateway, host, false).await;
        } else {
            let write = Request::new("POST", &format!("/{resource}")).body("x");
            assert_eq!(gateway.client.ask(write).await.status, 204);
        }
        let version = version.load(Ordering::Relaxed);
        // The origin breaks off now and then.
        for _ in 0..4 {
            let answer = whole(&gateway.client, resource).await;
            if let Some(answer) = answer.filter(|answer| answer.status == 200) {
                let expected = format!("\"{resource}-{version}\"");
                assert_eq!(answer.header("etag"), Some(expected.as_str()));
                break;
            }
        }
    }
}

/// A client that reads this and that, and checks every byte.
struct Reader {
    client: Client,
    forward: String,
    tally: Arc<Tally>,
    rng: Rng,
}

impl Reader {
    async fn read(mut self) {
        let mut known: Option<String> = None;
        for _ in 0..REQUESTS_PER_CLIENT {
            let resource = self.rng.usize(..SIZES.len());
            let base = if self.rng.bool() { "" } else { &self.forward };
            let mut request = Request::get(&format!("{base}/{resource}"));
            if self.rng.u8(..3) == 0 {
                let first = self.rng.usize(..=SIZES[resource]);
                let last = first + self.rng.usize(..2_000);
                request = request.header("Range", &format!("bytes={first}-{last}"));
            }
            if let Some(tag) = known.as_ref().filter(|_| self.rng.u8(..3) == 0) {
                let name = ["If-None-Match", "If-Range"][self.rng.usize(..2)];
                request = request.header(name, tag);
            }
            let mut connection = self.client.connect().await;
            connection.send_request(&request).await;
            // An answer whose body breaks off at once may not even have a head.
            let Some(head) = connection.try_head().await else {
                self.tally.broken.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            if self.rng.u8(..10) == 0 {
                // Hangs up with the body on its way.
                continue;
            }
            let answer = connection.rest_of(head, "GET").await;
            known = self.check(resource, &answer).or(known);
        }
    }

    /// The entity tag, if there was one.
    fn check(&self, resource: usize, answer: &Answer) -> Option<String> {
        let tally = &self.tally;
        if answer.header("cache-status").is_some() && answer.says("hit") {
            tally.hits.fetch_add(1, Ordering::Relaxed);
        }
        if !answer.is_complete {
            tally.broken.fetch_add(1, Ordering::Relaxed);
        }
        let tag = answer.header("etag")?.to_owned();
        let (of, version) = tag
            .trim_matches('"')
            .split_once('-')
            .expect("a tag of ours");
        assert_eq!(of, resource.to_string(), "another resource's answer");
        let version = version.parse().unwrap();
        let first = match answer.status {
            200 => 0,
            206 => first_byte(answer, size(resource, version)),
            _ => return Some(tag),
        };
        // What came of a body that broke off is right as well, as far as it came.
        let sent = &body(resource, version)[first..];
        assert!(sent.starts_with(&answer.body), "{} {tag}", answer.status);
        match (answer.status, answer.is_complete) {
            (200, true) => {
                assert_eq!(answer.body.len(), size(resource, version), "{tag}");
                tally.whole.fetch_add(1, Ordering::Relaxed);
            }
            (206, true) => drop(tally.parts.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
        Some(tag)
    }
}

/// Where a part begins. It must be as long as it says, and of a whole that is as long as it says.
fn first_byte(answer: &Answer, size: usize) -> usize {
    let range = answer.header("content-range").expect("a Content-Range");
    let (range, whole) = range
        .strip_prefix("bytes ")
        .unwrap()
        .split_once('/')
        .unwrap();
    let (first, last) = range.split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    assert_eq!(whole, size.to_string());
    assert!(!answer.is_complete || answer.body.len() == last - first + 1);
    first
}
