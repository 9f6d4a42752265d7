//! What a hit shares with those on other cores, by one thread and by two: from the difference `tests/bench` tells what
//! many cores would wait for each other (`run.sh scaling`).

use std::{
    cell::Cell,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    sync::{
        LazyLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use divan::{Bencher, black_box};
use hardtack::{
    benchmarks::Counting,
    protect::{Admission, Config, RateConfig},
};

use super::{FILLED, MANY_KEYS, respond_with};

/// Few would be told from none only where there are as many cores.
const THREADS: [usize; 2] = [1, 2];

/// Operations that are timed together: threads that begin at different moments still meet.
const SAMPLE: u32 = 20_000;

/// More requests a second than any thread makes here.
const UNLIMITED: NonZeroU32 = NonZeroU32::MAX;

/// What any counter costs that all increment.
#[divan::bench(threads = THREADS, sample_size = SAMPLE)]
fn one_counter(bencher: Bencher<'_, '_>) {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    bencher.bench(|| COUNTER.fetch_add(1, Ordering::Relaxed));
}

/// The counters and the histogram of a route's hits.
#[divan::bench(threads = THREADS, sample_size = SAMPLE)]
fn count_a_hit(bencher: Bencher<'_, '_>) {
    static COUNTING: LazyLock<Counting> = LazyLock::new(Counting::new);
    LazyLock::force(&COUNTING);
    bencher.bench(|| COUNTING.count_hit(black_box(Duration::from_micros(50))));
}

/// The rate of one client.
#[divan::bench(threads = THREADS, sample_size = SAMPLE)]
fn limit_one_client(bencher: Bencher<'_, '_>) {
    let client = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    LazyLock::force(&ADMISSION);
    bencher.bench(|| ADMISSION.check(client, client).unwrap());
}

/// A rate for each thread.
#[divan::bench(threads = THREADS, sample_size = SAMPLE)]
fn limit_own_client(bencher: Bencher<'_, '_>) {
    LazyLock::force(&ADMISSION);
    bencher.bench(|| {
        let client = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + thread() as u32));
        ADMISSION.check(client, client).unwrap();
    });
}

/// Looked up, its use counted, and the answer made of it.
#[divan::bench(threads = THREADS, sample_size = SAMPLE)]
fn answer_from_one_object(bencher: Bencher<'_, '_>) {
    // Filled before anything is timed.
    LazyLock::force(&FILLED);
    bencher.bench(|| answer(0));
}

/// An object for each thread.
#[divan::bench(threads = THREADS, sample_size = SAMPLE)]
fn answer_from_own_object(bencher: Bencher<'_, '_>) {
    // Filled before anything is timed.
    LazyLock::force(&FILLED);
    bencher.bench(|| answer(thread() * 997 % MANY_KEYS));
}

fn answer(number: usize) -> impl Sized {
    let key = &FILLED.keys[number];
    let resource = FILLED.store.peek(black_box(key.as_str())).unwrap();
    let stored = &resource.variants[0];
    FILLED.store.touch(&resource, stored);
    respond_with(key, stored)
}

/// Which thread this is: a small number.
fn thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    NUMBER.get()
}

static ADMISSION: LazyLock<Admission> = LazyLock::new(|| {
    Admission::new(Config {
        per_client: Some(RateConfig {
            per_second: UNLIMITED,
            burst: UNLIMITED,
        }),
        exempt_loopback: true,
        max_connections: 1,
        max_connections_per_client: 1,
        max_head_bytes: 1,
        trusted_proxies: Vec::new(),
    })
});
