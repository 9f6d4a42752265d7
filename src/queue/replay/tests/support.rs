//! A queue whose origins answer as a test says, on tokio's clock.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

use crate::{
    clock::Clock,
    policy::{Connectivity, Timestamp},
    queue::{
        Answer, Delivery, Item, ItemId, Occasion, Origin, Outlet, Proof, Received, SendError,
        Unverified,
    },
};

/// Wall-clock time that goes with tokio's, until it is set.
pub(super) struct Wall {
    start: Instant,
    offset_millis: AtomicI64,
}

impl Wall {
    pub(super) const BEGIN: Timestamp = Timestamp::from_secs(1_000_000);

    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            offset_millis: AtomicI64::new(0),
        })
    }

    /// Sets the clock, forwards or backwards.
    pub(super) fn step_secs(&self, secs: i64) {
        self.offset_millis
            .fetch_add(secs * 1_000, Ordering::Relaxed);
    }
}

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        let offset = self.offset_millis.load(Ordering::Relaxed);
        Timestamp::from_millis(Self::BEGIN.as_millis() + offset).plus(self.start.elapsed())
    }

    fn steady(&self) -> Duration {
        self.start.elapsed()
    }
}

/// What an origin does with a delivery.
#[derive(Clone, Debug)]
pub(super) enum Does {
    /// Answers with a status and fields.
    Answer(u16, Vec<(&'static str, String)>),
    /// Executes it, and the answer gets lost.
    Lose,
    /// Hands it back.
    HandBack,
    /// No permit is free.
    Busy,
    /// The link is found lost.
    Disconnect,
    /// It can never be sent.
    Refuse,
    /// Never answers.
    Hang,
    /// Panics.
    Panic,
}

/// A delivery as its origin saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) at: Instant,
    pub(super) origin: Origin,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    /// How many were in flight at this origin, with this one.
    pub(super) in_flight: usize,
    /// Whether it had an effect, or may have had.
    pub(super) is_executed: bool,
}

type Script = Box<dyn FnMut(&Seen) -> Does + Send>;

/// Origins that do as they are told, and remember what they saw.
#[derive(Clone)]
pub(super) struct Origins(Arc<Told>);

struct Told {
    script: Mutex<Script>,
    seen: Mutex<Vec<Seen>>,
    in_flight: Mutex<HashMap<Origin, usize>>,
    links: Mutex<HashMap<Origin, watch::Sender<Connectivity>>>,
    proof: Mutex<Result<Proof, Unverified>>,
    verified: Mutex<Vec<Instant>>,
    delivered: Mutex<Vec<ItemId>>,
    latency: Mutex<Duration>,
    share: Mutex<usize>,
    has_credential_source: Mutex<bool>,
    changed: Notify,
}

/// In flight as long as it lives: a delivery may be cut.
struct InFlight<'a>(&'a Told, Origin);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn ok() -> Does {
    Does::Answer(200, Vec::new())
}

pub(super) fn status(status: u16) -> Does {
    Does::Answer(status, Vec::new())
}

pub(super) fn with(status: u16, name: &'static str, value: impl Into<String>) -> Does {
    Does::Answer(status, vec![(name, value.into())])
}

impl Origins {
    pub(super) fn new() -> Self {
        Self(Arc::new(Told {
            script: Mutex::new(Box::new(|_| ok())),
            seen: Mutex::default(),
            in_flight: Mutex::default(),
            links: Mutex::default(),
            proof: Mutex::new(Ok(Proof::Proven)),
            verified: Mutex::default(),
            delivered: Mutex::default(),
            latency: Mutex::new(Duration::from_millis(1)),
            share: Mutex::new(16),
            has_credential_source: Mutex::new(false),
            changed: Notify::new(),
        }))
    }

    /// What is done from now on.
    pub(super) fn do_as(&self, script: impl FnMut(&Seen) -> Does + Send + 'static) {
        *lock(&self.0.script) = Box::new(script);
    }

    /// Everything is answered so from now on.
    pub(super) fn always(&self, does: Does) {
        self.do_as(move |_| does.clone());
    }

    /// These, one after the other, and then 200.
    pub(super) fn in_turn(&self, turns: impl IntoIterator<Item = Does>) {
        let mut turns: Vec<_> = turns.into_iter().collect();
        turns.reverse();
        self.do_as(move |_| turns.pop().unwrap_or_else(ok));
    }

    pub(super) fn set_link(&self, origin: &Origin, link: Connectivity) {
        self.link(origin).send_replace(link);
    }

    pub(super) fn set_proof(&self, proof: Result<Proof, Unverified>) {
        *lock(&self.0.proof) = proof;
    }

    pub(super) fn set_latency(&self, latency: Duration) {
        *lock(&self.0.latency) = latency;
    }

    pub(super) fn set_share(&self, share: usize) {
        *lock(&self.0.share) = share;
    }

    pub(super) fn set_credential_source(&self) {
        *lock(&self.0.has_credential_source) = true;
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        lock(&self.0.seen).clone()
    }

    pub(super) fn paths(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.path).collect()
    }

    pub(super) fn verified(&self) -> Vec<Instant> {
        lock(&self.0.verified).clone()
    }

    pub(super) fn delivered(&self) -> Vec<ItemId> {
        lock(&self.0.delivered).clone()
    }

    /// Returns once so many deliveries were seen.
    pub(super) async fn have_seen(&self, count: usize) -> Vec<Seen> {
        let seen = async {
            loop {
                let changed = self.0.changed.notified();
                let seen = self.seen();
                if seen.len() >= count {
                    return seen;
                }
                changed.await;
            }
        };
        let waited = timeout(Duration::from_secs(1_000_000), seen).await;
        waited.unwrap_or_else(|_| panic!("only {:?} were seen", self.paths()))
    }

    fn link(&self, origin: &Origin) -> watch::Sender<Connectivity> {
        let mut links = lock(&self.0.links);
        let connected = || watch::Sender::new(Connectivity::Connected);
        links
            .entry(origin.clone())
            .or_insert_with(connected)
            .clone()
    }
}

impl<'a> InFlight<'a> {
    fn enter(told: &'a Told, origin: Origin) -> (Self, usize) {
        let mut in_flight = lock(&told.in_flight);
        let count = in_flight.entry(origin.clone()).or_default();
        *count += 1;
        (Self(told, origin), *count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some(count) = lock(&self.0.in_flight).get_mut(&self.1) {
            *count -= 1;
        }
    }
}

impl Outlet for Origins {
    fn connectivity(&self, origin: &Origin) -> Connectivity {
        *self.link(origin).borrow()
    }

    async fn connected(&self, origin: &Origin) {
        let mut link = self.link(origin).subscribe();
        let connected = |link: &Connectivity| *link == Connectivity::Connected;
        link.wait_for(connected).await.unwrap();
    }

    fn share(&self, _: &Origin) -> NonZeroUsize {
        NonZeroUsize::new(*lock(&self.0.share)).unwrap()
    }

    fn has_credential_source(&self, _: &str) -> bool {
        *lock(&self.0.has_credential_source)
    }

    async fn verify(&self, _: &Origin, occasion: Occasion) -> Result<Proof, Unverified> {
        lock(&self.0.verified).push(Instant::now());
        match lock(&self.0.proof).clone() {
            // Nothing is asked then.
            Err(Unverified::Portal(_)) if occasion == Occasion::Begin => Ok(Proof::Unproven),
            verified => verified,
        }
    }

    async fn send(&self, delivery: Delivery) -> Result<Received, SendError> {
        let (_in_flight, count) = InFlight::enter(&self.0, delivery.origin.clone());
        let mut seen = Seen {
            at: Instant::now(),
            is_executed: false,
            path: delivery.uri.path().to_owned(),
            origin: delivery.origin,
            headers: delivery.headers,
            in_flight: count,
        };
        let does = (lock(&self.0.script))(&seen);
        seen.is_executed = matches!(does, Does::Answer(..) | Does::Lose | Does::Hang);
        let origin = seen.origin.clone();
        lock(&self.0.seen).push(seen);
        self.0.changed.notify_waiters();
        let latency = *lock(&self.0.latency);
        sleep(latency).await;
        match does {
            Does::Answer(status, fields) => Ok(received(status, &fields)),
            Does::Lose => Err(SendError::Unknown("the connection was reset".to_owned())),
            Does::HandBack => Err(SendError::NotSent("refused stream".to_owned())),
            Does::Busy => Err(SendError::Busy),
            Does::Disconnect => {
                self.set_link(&origin, Connectivity::Disconnected);
                Err(SendError::Disconnected("connection refused".to_owned()))
            }
            Does::Refuse => Err(SendError::Impossible("no such upstream".to_owned())),
            Does::Hang => std::future::pending().await,
            Does::Panic => panic!("as the script says"),
        }
    }

    async fn delivered(&self, item: &Item, _: &Answer) {
        lock(&self.0.delivered).push(item.id);
    }
}

fn received(status: u16, fields: &[(&'static str, String)]) -> Received {
    let field = |(name, value): &(&'static str, String)| {
        let name = HeaderName::from_static(name);
        (name, HeaderValue::from_str(value).unwrap())
    };
    Received {
        answer: Answer {
            status,
            fields: Vec::new(),
            body: Bytes::new(),
            is_truncated: false,
        },
        headers: fields.iter().map(field).collect(),
    }
}
