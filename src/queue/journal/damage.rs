//! What was found damaged: counted once each, and said.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use xxhash_rust::xxh3::xxh3_64;

use super::tables::{meta, name};
use crate::telemetry::{Metrics, OperationLabels};

/// Damaged records that are remembered, so that reading one again counts nothing. Beyond this they count each time.
const REMEMBERED_MAX: usize = 4_096;

/// The damage found since the start.
pub(super) struct Damage {
    metrics: Arc<Metrics>,
    records: AtomicU64,
    seen: Mutex<HashSet<u64>>,
}

impl Damage {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            records: AtomicU64::new(0),
            seen: Mutex::new(HashSet::new()),
        }
    }

    /// How many records were lost or damaged.
    pub(super) fn count(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// A record that is not what was written, or is not there.
    pub(super) fn note_record(&self, table: &'static str, key: &[u8]) {
        let name = xxh3_64(&[table.as_bytes(), key].concat());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.contains(&name) {
            return;
        }
        if seen.len() < REMEMBERED_MAX {
            seen.insert(name);
        }
        drop(seen);
        self.add(1);
        tracing::error!(table, "A record of the write queue is damaged.");
    }

    /// What was paused, where nothing says it any more.
    pub(super) fn note_pauses(&self) {
        self.note_record(name::META, meta::PAUSES.as_bytes());
        tracing::error!("What was paused is not known any more; nothing is held back.");
    }

    /// So many records, of which no more is known.
    pub(super) fn note_lost(&self, records: u64, what: &str) {
        self.add(records);
        tracing::error!(records, "Records of the write queue are lost: {what}.");
    }

    fn add(&self, records: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        let labels = OperationLabels { op: "corrupt" };
        self.metrics
            .storage_errors
            .get_or_create(&labels)
            .inc_by(records);
    }
}
