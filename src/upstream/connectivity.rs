//! Whether an upstream can be reached: what was measured, an operator's override, and a channel of the changes.
//!
//! Invariants: reading costs two atomic loads as long as no override is on (it is on the way of a hit); at most one
//! prober runs per upstream; a change is reported to exactly one caller, which logs it.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    clock::SharedClock,
    policy::{Connectivity, Timestamp},
};

// Overrides end by the wall clock, which may be set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// An operator's word that an upstream is online or offline, whatever was measured.
#[derive(Clone, Debug)]
pub struct ConnectivityOverride {
    /// What it is taken for.
    pub connectivity: Connectivity,
    /// Until when; `None`: until it is taken back.
    pub until: Option<Timestamp>,
    /// Why, for the record.
    pub reason: Option<String>,
}

/// An upstream that was lost or is back, or that an operator spoke about.
#[derive(Clone, Debug)]
pub struct Transition {
    /// Name of the upstream.
    pub upstream: String,
    /// What it is taken for now.
    pub connectivity: Connectivity,
    /// Whether by an operator's word.
    pub overridden: bool,
}

/// The state of one upstream.
pub(super) struct Link {
    clock: SharedClock,
    connected: AtomicBool,
    has_override: AtomicBool,
    record: Mutex<Record>,
    changes: watch::Sender<Connectivity>,
    awaited: AtomicUsize,
}

/// Somebody waits for the upstream to be connected, until this is dropped.
struct Awaited<'a>(&'a AtomicUsize);

/// What a caller that found an upstream unreachable has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Nothing: it was known.
    Known,
    /// Say so.
    Now,
    /// Say so, and start the prober.
    NowWithoutProber,
}

struct Record {
    since: Timestamp,
    r#override: Option<ConnectivityOverride>,
    /// When the outage began, while disconnected.
    outage: Option<Instant>,
    counted_secs: u64,
    has_prober: bool,
}

impl Link {
    pub(super) fn new(clock: SharedClock) -> Self {
        let record = Record {
            since: clock.now(),
            r#override: None,
            outage: None,
            counted_secs: 0,
            has_prober: false,
        };
        Self {
            clock,
            connected: AtomicBool::new(true),
            has_override: AtomicBool::new(false),
            record: Mutex::new(record),
            changes: watch::Sender::new(Connectivity::Connected),
            awaited: AtomicUsize::new(0),
        }
    }

    /// What counts: the override's word, else what was measured.
    pub(super) fn effective(&self) -> Connectivity {
        match self.override_in_force() {
            Some(word) => word.connectivity,
            None => self.measured(),
        }
    }

    pub(super) fn measured(&self) -> Connectivity {
        if self.connected.load(Ordering::Acquire) {
            Connectivity::Connected
        } else {
            Connectivity::Disconnected
        }
    }

    pub(super) fn override_in_force(&self) -> Option<ConnectivityOverride> {
        if !self.has_override.load(Ordering::Acquire) {
            return None;
        }
        let word = self.record().r#override.clone()?;
        let in_force = word.until.is_none_or(|until| self.clock.now() < until);
        in_force.then_some(word)
    }

    pub(super) fn set_override(&self, word: Option<ConnectivityOverride>) {
        self.has_override.store(word.is_some(), Ordering::Release);
        self.record().r#override = word;
        self.publish();
    }

    /// Since when the measured state holds.
    pub(super) fn since(&self) -> Timestamp {
        self.record().since
    }

    /// Changes of the effective state. An override that runs out is seen at the next change or read.
    pub(super) fn subscribe(&self) -> watch::Receiver<Connectivity> {
        self.changes.subscribe()
    }

    /// Returns once the upstream is taken for disconnected.
    pub(super) async fn disconnected(&self) {
        let mut changes = self.subscribe();
        while self.effective() == Connectivity::Connected {
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Returns once the upstream is taken for connected, also when only an override that says otherwise runs out.
    pub(super) async fn connected(&self) {
        let _awaited = Awaited::of(&self.awaited);
        let mut changes = self.subscribe();
        while self.effective() == Connectivity::Disconnected {
            // Nothing announces the end of an override.
            let look_again = async {
                match self.override_ends_in() {
                    Some(pause) => sleep(pause.min(LOOK_AGAIN)).await,
                    None => std::future::pending().await,
                }
            };
            // Both may be dropped: the loop looks at the state itself.
            tokio::select! {
                changed = changes.changed() => changed.expect("the sender is ours"),
                () = look_again => {}
            }
        }
    }

    /// Whether somebody waits in [`Self::connected`].
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed) > 0
    }

    fn override_ends_in(&self) -> Option<Duration> {
        let until = self.override_in_force()?.until?;
        let millis = until.millis_since(self.clock.now());
        Some(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
    }

    /// Notes that no origin can be connected to.
    pub(super) fn lose(&self) -> Lost {
        let mut record = self.record();
        if !self.connected.swap(false, Ordering::AcqRel) {
            return Lost::Known;
        }
        record.since = self.clock.now();
        record.outage = Some(Instant::now());
        record.counted_secs = 0;
        let had_prober = std::mem::replace(&mut record.has_prober, true);
        drop(record);
        self.publish();
        if had_prober {
            Lost::Now
        } else {
            Lost::NowWithoutProber
        }
    }

    /// Notes that an origin answered. Returns the outage's length when this ended one.
    pub(super) fn recover(&self) -> Option<Duration> {
        if self.connected.load(Ordering::Acquire) {
            return None;
        }
        let mut record = self.record();
        if self.connected.swap(true, Ordering::AcqRel) {
            return None;
        }
        record.since = self.clock.now();
        let outage = record.outage.take().map(|start| start.elapsed());
        drop(record);
        self.publish();
        outage
    }

    /// Claims the prober's place.
    pub(super) fn claim_prober(&self) {
        self.record().has_prober = true;
    }

    /// Gives the prober's place back, unless the upstream is disconnected (again).
    pub(super) fn release_prober(&self) -> bool {
        let mut record = self.record();
        let may_end = self.connected.load(Ordering::Acquire);
        record.has_prober = !may_end;
        may_end
    }

    /// Whole seconds of the present outage that were not returned before.
    pub(super) fn uncounted_secs(&self) -> u64 {
        let mut record = self.record();
        let Some(start) = record.outage else {
            return 0;
        };
        let total = start.elapsed().as_secs();
        total - std::mem::replace(&mut record.counted_secs, total)
    }

    fn publish(&self) {
        let effective = self.effective();
        self.changes
            .send_if_modified(|published| std::mem::replace(published, effective) != effective);
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Awaited<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::time::Instant;

    use super::{ConnectivityOverride, Link, Lost};
    use crate::{
        clock::VirtualClock,
        policy::{
            Connectivity::{self, Connected, Disconnected},
            Timestamp,
        },
    };

    fn link() -> (Link, Arc<VirtualClock>) {
        let clock = Arc::new(VirtualClock::new(Timestamp::from_secs(1_000)));
        (Link::new(clock.clone()), clock)
    }

    fn word(connectivity: Connectivity, until: Option<i64>) -> Option<ConnectivityOverride> {
        Some(ConnectivityOverride {
            connectivity,
            until: until.map(Timestamp::from_secs),
            reason: None,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_reported_once_and_with_its_length() {
        let (link, clock) = link();
        clock.step_secs(5);
        assert_eq!(link.lose(), Lost::NowWithoutProber);
        assert_eq!(link.lose(), Lost::Known);
        assert_eq!(link.since(), Timestamp::from_secs(1_005));
        tokio::time::advance(Duration::from_millis(2_700)).await;
        assert_eq!(link.uncounted_secs(), 2);
        tokio::time::advance(Duration::from_millis(300)).await;
        assert_eq!(link.uncounted_secs(), 1);
        assert_eq!(link.recover(), Some(Duration::from_secs(3)));
        assert_eq!(link.recover(), None);
    }

    #[test]
    fn the_prober_stays_when_the_link_is_lost_again_before_it_ends() {
        let (link, _) = link();
        assert_eq!(link.lose(), Lost::NowWithoutProber);
        link.recover();
        assert_eq!(link.lose(), Lost::Now);
        assert!(!link.release_prober());
        link.recover();
        assert!(link.release_prober());
        assert_eq!(link.lose(), Lost::NowWithoutProber);
    }

    #[test]
    fn an_override_outranks_what_was_measured_until_it_runs_out() {
        let (link, clock) = link();
        link.set_override(word(Disconnected, Some(1_010)));
        assert_eq!(link.effective(), Disconnected);
        assert_eq!(link.measured(), Connected);
        clock.step_secs(10);
        assert_eq!(link.effective(), Connected);
        link.lose();
        assert_eq!(link.effective(), Disconnected);
        link.set_override(word(Connected, None));
        assert_eq!(link.effective(), Connected);
        link.set_override(None);
        assert_eq!(link.effective(), Disconnected);
    }

    #[tokio::test]
    async fn changes_of_the_effective_state_are_announced() {
        let (link, _) = link();
        let mut changes = link.subscribe();
        link.lose();
        changes.changed().await.unwrap();
        assert_eq!(*changes.borrow_and_update(), Disconnected);
        link.set_override(word(Connected, None));
        assert_eq!(*changes.borrow_and_update(), Connected);
        link.recover();
        assert!(!changes.has_changed().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_a_connected_link_sees_an_override_run_out() {
        let (link, clock) = link();
        link.connected().await;
        link.set_override(word(Disconnected, Some(1_600)));
        let (start, waiting) = (Instant::now(), link.connected());
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert!(link.is_awaited());
        // The wall clock is set: the word runs out early.
        clock.step_secs(600);
        waiting.await;
        assert!(start.elapsed() <= super::LOOK_AGAIN);
        assert!(!link.is_awaited());
    }

    #[tokio::test]
    async fn whoever_waits_for_a_connected_link_is_told_by_the_change() {
        let (link, _) = link();
        link.lose();
        tokio::join!(link.connected(), async {
            assert!(link.is_awaited());
            link.recover();
        });
        link.lose();
        tokio::join!(link.connected(), async {
            link.set_override(word(Connected, None));
        });
    }
}
