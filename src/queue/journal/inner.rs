//! What the handle, the writer and the readers of one journal share.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::HeaderName;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        index::{Index, Unclaimable},
        item::{Content, Item, ItemId, StoredBody},
        seal::Keyring,
        timeline::Timeline,
    },
    batch::{self, ReceiptLimits},
    change::{Field, NewBody, Pause},
    disk::Disk,
    space::Space,
    spool::Spool,
};
use crate::{
    clock::SharedClock,
    policy::Timestamp,
    telemetry::{Metrics, OperationLabels},
};

/// What the handle, the writer and the readers share.
pub(super) struct Inner {
    pub(super) disk: Disk,
    pub(super) spool: Spool,
    pub(super) space: Space,
    pub(super) keyring: Keyring,
    pub(super) sensitive: Vec<HeaderName>,
    pub(super) limits: ReceiptLimits,
    pub(super) index: Arc<Mutex<Index>>,
    pub(super) clock: SharedClock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) pauses: Mutex<Vec<Pause>>,
    pub(super) timeline: Mutex<Timeline>,
    pub(super) closing: CancellationToken,
    pub(super) ended: CancellationToken,
}

impl Inner {
    /// Makes a body durable before a record names it.
    pub(super) async fn sync(&self, body: &mut NewBody) -> io::Result<()> {
        body.sync().await.inspect_err(|error| {
            self.count_error("write");
            tracing::error!(%error, "Cannot sync a spool file.");
        })
    }

    /// Whether everything that must be sealed can be.
    pub(super) fn is_storable(&self, fields: &[Field]) -> bool {
        !self.keyring.is_empty() || !fields.iter().any(|(name, _)| self.is_sensitive(name))
    }

    pub(super) fn is_sensitive(&self, name: &str) -> bool {
        name.eq_ignore_ascii_case("authorization")
            || name.eq_ignore_ascii_case("cookie")
            || self
                .sensitive
                .iter()
                .any(|sensitive| name.eq_ignore_ascii_case(sensitive.as_str()))
    }

    /// Whether a field of an answer gives who has it what is another's.
    pub(super) fn is_secret_answer(&self, name: &str) -> bool {
        name.eq_ignore_ascii_case("set-cookie") || self.is_sensitive(name)
    }

    pub(super) fn seal(&self, id: ItemId, fields: Vec<Field>, body: StoredBody) -> Option<Content> {
        batch::sealed_content(id, fields, body, &self.keyring, |name| {
            self.is_sensitive(name)
        })
    }

    pub(super) fn ago(&self, age: Duration) -> Timestamp {
        let (now, steady) = (self.clock.now(), self.clock.steady());
        let mut timeline = self.timeline();
        timeline.look(now, steady);
        timeline.ago(now, age)
    }

    pub(super) fn timeline(&self) -> MutexGuard<'_, Timeline> {
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_pauses(&self, pauses: Vec<Pause>) {
        *self.pauses.lock().unwrap_or_else(PoisonError::into_inner) = pauses;
    }

    /// The writes that have not ended.
    pub(super) fn indexed(&self) -> Vec<ItemId> {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        index.ids().collect()
    }

    /// Brings the index in line with what was made again. Whoever works on a write records what becomes of it.
    pub(super) fn note_salvaged(&self, rebuilt: &[Item]) {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        for item in rebuilt {
            // Whose client was not told that it was taken: it is removed, or appended again.
            if self.disk.is_unconfirmed(item.id) {
                continue;
            }
            match index.claim(item.id, |_| true) {
                Ok(_) => index.change(item),
                // One that was thought to be over.
                Err(Unclaimable::Unknown) => index.load(item),
                Err(Unclaimable::Claimed | Unclaimable::NotAllowed(_)) => {}
            }
        }
    }

    pub(super) fn count_error(&self, op: &'static str) {
        let labels = OperationLabels { op };
        self.metrics.storage_errors.get_or_create(&labels).inc();
    }
}
