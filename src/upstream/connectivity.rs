//! Whether an upstream can be reached: what was measured, an operator's override, and a channel of the changes.
//!
//! Invariants: reading costs two atomic loads as long as no override is on (it is on the way of a hit); at most one
//! prober runs per upstream; a change is reported to exactly one caller, which logs it.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::{
    clock::SharedClock,
    policy::{Connectivity, Timestamp},
};

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

/// The state of one upstream.
pub(super) struct Link {
    clock: SharedClock,
    connected: AtomicBool,
    has_override: AtomicBool,
    record: Mutex<Record>,
    changes: watch::Sender<Connectivity>,
}

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

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

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
}
