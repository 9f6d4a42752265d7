//! How a write gets into the queue, or is refused: known already, room for it, on disk.

use super::{
    Item, LaneId, NewBody, NewWrite, Queue,
    index::{Full, Room},
    journal::{AppendError, Appended, Field, Unavailable},
};
use crate::telemetry::RefusalLabels;

/// What a record weighs beside its body and its fields.
const RECORD_BYTES: u64 = 512;

/// Why a write was not queued. Nothing of it is kept, but for what is of unknown outcome.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Its body is larger than `queue.max_item`.
    #[error("the body is larger than queue.max_item, {max_bytes} bytes")]
    TooLarge {
        /// How large it may be.
        max_bytes: u64,
    },
    /// There is no room.
    #[error("{0}")]
    Full(String),
    /// It could not be made durable.
    #[error("{0}")]
    Unavailable(Unavailable),
    /// The queue failed while it was recorded: it may be queued, and be sent after the next start.
    #[error(
        "the queue failed while the write was recorded: it may be queued, and be sent after a restart; only with an \
         Idempotency-Key is it safe to repeat it"
    )]
    Unknown,
    /// It has credentials, and there is no key to seal them with.
    #[error("the gateway has no key to seal credentials with")]
    CredentialNotStorable,
    /// Its idempotency key was used with another body.
    #[error("the idempotency key was used with another body, by {}", .0.id)]
    KeyMismatch(Box<Item>),
}

impl Queue {
    /// Whether nothing waits in this lane, so that a write may go past the queue.
    pub fn is_clear(&self, lane: LaneId) -> bool {
        self.index().lane_len(lane) == 0
    }

    /// What a write was that had this idempotency key.
    ///
    /// # Errors
    /// [`Refused::KeyMismatch`] when it had another body.
    pub async fn known(&self, write: &NewWrite) -> Result<Option<Item>, Refused> {
        let Some(key) = write.key else {
            return Ok(None);
        };
        let known = self.inner.journal.known(key, write.item.body_sha256).await;
        known.map_err(|error| self.counted(error.into()))
    }

    /// Appends a write; returns once it is on disk. A write that has been appended before, by its idempotency key, is not
    /// appended again.
    ///
    /// # Errors
    /// See [`Refused`]; nothing of the write is kept then, but for [`Refused::Unknown`].
    pub async fn append(&self, mut write: NewWrite) -> Result<Appended, Refused> {
        write.item.weight_bytes = weight_bytes(&write.item, &write.fields, write.body.bytes());
        let (origin, room) = (write.item.origin.clone(), Room::of(&write.item));
        let reserved = self.index().reserve(&origin, room);
        reserved.map_err(|full| self.counted(full.into()))?;
        if let NewBody::Spooled(file) = &mut write.body {
            file.give_back_room();
        }
        let appended = self.inner.journal.append(write).await;
        // What may be there keeps its place: nothing of its lane may go past it.
        if !matches!(appended, Ok(Appended::New(_)) | Err(AppendError::Unknown)) {
            self.index().release_reservation(room);
        }
        let appended = appended.map_err(|error| self.counted(error.into()))?;
        if let Appended::New(item) = &appended {
            self.inner.metrics.queue_accepted.inc();
            self.changed(item);
        }
        Ok(appended)
    }

    /// A refusal that was counted.
    pub(super) fn counted(&self, refused: Refused) -> Refused {
        let reason = refused.reason();
        let labels = RefusalLabels { reason };
        self.inner
            .metrics
            .queue_refused
            .get_or_create(&labels)
            .inc();
        refused
    }
}

impl Refused {
    /// The label of the metric.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too-large",
            Self::Full(_) => "full",
            Self::Unavailable(_) => "unavailable",
            Self::Unknown => "unknown",
            Self::CredentialNotStorable => "credential-not-storable",
            Self::KeyMismatch(_) => "idempotency-mismatch",
        }
    }
}

impl From<Full> for Refused {
    fn from(full: Full) -> Self {
        Self::Full(full.to_string())
    }
}

impl From<AppendError> for Refused {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::KeyMismatch(item) => Self::KeyMismatch(item),
            AppendError::CredentialNotStorable => Self::CredentialNotStorable,
            AppendError::Unavailable(why) => Self::Unavailable(why),
            AppendError::Unknown => Self::Unknown,
        }
    }
}

/// What a write counts toward `queue.max_bytes`.
pub(super) fn weight_bytes(item: &Item, fields: &[Field], body_bytes: u64) -> u64 {
    let fields = fields.iter();
    let fields: usize = fields.map(|(name, value)| name.len() + value.len()).sum();
    let texts = 2 * item.url.len() + item.lane.len();
    RECORD_BYTES + (fields + texts) as u64 + body_bytes
}
