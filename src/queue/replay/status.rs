//! How far the deliveries to each origin are, for operators.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{clock::SharedClock, policy::Timestamp, queue::Origin};

/// How far the deliveries to an origin are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginStatus {
    /// Which.
    pub origin: Origin,
    /// How far.
    pub phase: PhaseName,
    /// Since when.
    pub since: Timestamp,
    /// What was seen of what answers in its place, while it is captive.
    pub remark: Option<String>,
}

/// The phase of the deliveries to an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhaseName {
    /// The link is lost.
    Disconnected,
    /// It is back; nothing is sent yet.
    Recovering,
    /// Something else answers in its place.
    Captive,
    /// One write is tried.
    Canary,
    /// More and more lanes.
    SlowStart,
    /// Full speed.
    Steady,
}

/// The origins that have deliveries. Bounded by their number; one without work leaves.
pub(in crate::queue) struct Statuses {
    clock: SharedClock,
    by_origin: Mutex<HashMap<Origin, OriginStatus>>,
}

impl PhaseName {
    /// The name in the API and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Recovering => "recovering",
            Self::Captive => "captive",
            Self::Canary => "canary",
            Self::SlowStart => "slow-start",
            Self::Steady => "steady",
        }
    }
}

impl Statuses {
    pub(in crate::queue) fn new(clock: SharedClock) -> Self {
        Self {
            clock,
            by_origin: Mutex::default(),
        }
    }

    /// Every origin that has deliveries, by name.
    pub(in crate::queue) fn list(&self) -> Vec<OriginStatus> {
        let mut statuses: Vec<_> = self.lock().values().cloned().collect();
        statuses.sort_by(|a, b| a.origin.cmp(&b.origin));
        statuses
    }

    /// Of one.
    pub(in crate::queue) fn of(&self, origin: &Origin) -> Option<OriginStatus> {
        self.lock().get(origin).cloned()
    }

    pub(super) fn enter(&self, origin: &Origin, phase: PhaseName, remark: Option<String>) {
        let since = self.clock.now();
        let mut statuses = self.lock();
        let status = statuses.entry(origin.clone()).or_insert(OriginStatus {
            origin: origin.clone(),
            phase,
            since,
            remark: None,
        });
        if status.phase != phase {
            (status.phase, status.since) = (phase, since);
        }
        status.remark = remark;
    }

    pub(super) fn leave(&self, origin: &Origin) {
        self.lock().remove(origin);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Origin, OriginStatus>> {
        // Entries are whole, so a panic elsewhere does not spoil the map.
        self.by_origin
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
