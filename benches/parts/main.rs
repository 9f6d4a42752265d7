//! What the parts of a request cost: `cargo bench`, or `cargo bench -- decide` for some.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

mod contention;

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use divan::{Bencher, black_box};
use hardtack::{
    benchmarks,
    clock::VirtualClock,
    policy::{
        CacheKey, Connectivity, Decision, Lookup, Mode, RequestHead, ResponseHead, Reuse, Settings,
        StoredHead, Timestamp, decide,
    },
    store::{Config, Store, StoredResponse},
    telemetry::Metrics,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::runtime::Runtime;
use tokio_util::task::TaskTracker;

/// When the stored responses were received.
const RECEIVED: Timestamp = Timestamp::from_secs(1_000_000);

/// Enough keys that most are in no cache of the processor.
const MANY_KEYS: usize = 100_000;

fn main() {
    divan::main();
}

#[divan::bench]
fn decide_on_a_fresh_response(bencher: Bencher<'_, '_>) {
    let stored = stored_head();
    bencher.bench_local(|| decided(black_box(Lookup::Stored(&stored))));
}

#[divan::bench]
fn decide_on_nothing_stored(bencher: Bencher<'_, '_>) {
    bencher.bench_local(|| decided(black_box(Lookup::Nothing)));
}

#[divan::bench]
fn write_a_key(bencher: Bencher<'_, '_>) {
    let mut text = String::with_capacity(256);
    bencher.bench_local(|| {
        text.clear();
        CacheKey::write(
            &mut text,
            black_box(None),
            black_box("http"),
            black_box("origin.example:8080"),
            black_box("/orders/1234?page=5"),
        );
        text.len()
    });
}

#[divan::bench]
fn peek_at_one_key(bencher: Bencher<'_, '_>) {
    bencher.bench(|| FILLED.store.peek(black_box(FILLED.keys[0].as_str())));
}

/// Each a key that was not asked for lately.
#[divan::bench]
fn peek_at_100_000_keys(bencher: Bencher<'_, '_>) {
    let mut at = 0;
    bencher.bench_local(|| {
        // A step without common factors with the count reaches all of them, and is none that the processor foresees.
        at = (at + 61_803) % MANY_KEYS;
        FILLED.store.peek(FILLED.keys[at].as_str())
    });
}

#[divan::bench]
fn peek_at_nothing(bencher: Bencher<'_, '_>) {
    bencher.bench(|| FILLED.store.peek(black_box("http://origin.example/absent")));
}

#[divan::bench]
fn respond_in_full(bencher: Bencher<'_, '_>) {
    respond(bencher, &request_fields());
}

#[divan::bench]
fn respond_with_304(bencher: Bencher<'_, '_>) {
    let mut headers = request_fields();
    headers.insert(
        http::header::IF_NONE_MATCH,
        HeaderValue::from_static("\"one\""),
    );
    respond(bencher, &headers);
}

#[divan::bench(args = [1_024, 65_536])]
fn encode(bencher: Bencher<'_, '_>, body_bytes: usize) {
    let (head, body) = (stored_head(), vec![7; body_bytes]);
    bencher.bench_local(|| benchmarks::encode(&FILLED.keys[0], black_box(&head), &body));
}

#[divan::bench(args = [1_024, 65_536])]
fn decode(bencher: Bencher<'_, '_>, body_bytes: usize) {
    let record = benchmarks::encode(&FILLED.keys[0], &stored_head(), &vec![7; body_bytes]);
    bencher.bench_local(|| benchmarks::decode(black_box(&record)));
}

/// The answer to a request without conditions.
fn respond_with(key: &CacheKey, stored: &StoredResponse) -> impl Sized + use<> {
    static HEADERS: LazyLock<HeaderMap> = LazyLock::new(request_fields);
    let Decision::Reuse(reuse) = decided(Lookup::Stored(&stored.head)) else {
        panic!("it is fresh");
    };
    benchmarks::respond(&FILLED.store, key, &request(&HEADERS), stored, &reuse)
}

fn respond(bencher: Bencher<'_, '_>, headers: &HeaderMap) {
    let key = &FILLED.keys[0];
    let resource = FILLED.store.peek(key.as_str()).unwrap();
    let stored: &StoredResponse = &resource.variants[0];
    let Decision::Reuse(reuse) = decided(Lookup::Stored(&stored.head)) else {
        panic!("it is fresh");
    };
    let reuse: &Reuse = &reuse;
    let request = request(headers);
    bencher.bench_local(|| {
        benchmarks::respond(&FILLED.store, key, black_box(&request), stored, reuse)
    });
}

fn decided(lookup: Lookup<'_>) -> Decision {
    static HEADERS: LazyLock<HeaderMap> = LazyLock::new(request_fields);
    static SETTINGS: LazyLock<Settings> = LazyLock::new(Settings::default);
    decide(
        &request(&HEADERS),
        lookup,
        Connectivity::Connected,
        Mode::default(),
        &SETTINGS,
        RECEIVED.plus(Duration::from_secs(60)),
    )
}

/// A store without a disk tier that is full of small responses.
struct Filled {
    store: Store,
    keys: Vec<CacheKey>,
    // Its tasks end with it.
    _runtime: Runtime,
}

static FILLED: LazyLock<Filled> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    // For the lock of the data directory only, which nobody else looks for; gone when the store is open.
    let directory = tempfile::tempdir().unwrap();
    let config = Config {
        dir: directory.path().to_owned(),
        memory_bytes: 1 << 30,
        disk_bytes: 0,
        max_object_bytes: 1 << 20,
        disk_free_min_bytes: 0,
    };
    let clock = Arc::new(VirtualClock::new(RECEIVED));
    let tasks = TaskTracker::new();
    let opening = Store::open(config, clock, Metrics::new(), &tasks);
    let store = runtime.block_on(opening).unwrap();
    let keys: Vec<CacheKey> = (0..MANY_KEYS)
        .map(|number| CacheKey::from_text(&format!("http://origin.example/orders/{number}")))
        .collect();
    for key in &keys {
        store.publish(
            store.ticket(),
            key,
            stored_head(),
            Bytes::from_static(&[7; 1_024]),
        );
    }
    Filled {
        store,
        keys,
        _runtime: runtime,
    }
});

fn request(headers: &HeaderMap) -> RequestHead<'_> {
    RequestHead::new(&Method::GET, headers, false)
}

fn request_fields() -> HeaderMap {
    fields([
        ("host", "gateway.example"),
        ("user-agent", "benchmark/1"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip"),
    ])
}

fn stored_head() -> StoredHead {
    let headers = fields([
        ("content-type", "application/json"),
        ("cache-control", "public, max-age=86400"),
        ("etag", "\"one\""),
        ("last-modified", "Sat, 01 Jan 2000 00:00:00 GMT"),
        ("vary", "accept-encoding"),
        // Names that are no constants of the HTTP library, as origins add.
        ("x-request-id", "3f1a"),
        ("x-served-by", "one"),
    ]);
    let response = ResponseHead {
        status: StatusCode::OK,
        headers: &headers,
        request_time: RECEIVED,
        response_time: RECEIVED,
    };
    StoredHead::new(&request(&request_fields()), &response, &Settings::default())
}

fn fields<const COUNT: usize>(lines: [(&'static str, &'static str); COUNT]) -> HeaderMap {
    let fields = lines.map(|(name, value)| {
        (
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_static(value),
        )
    });
    fields.into_iter().collect()
}
