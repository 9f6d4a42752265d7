//! What operators see of the queue, and do to it.
//!
//! Invariants: a write is changed by whoever has claimed it, and by nobody else; every change is recorded together with who
//! made it (`audit`), or not at all; nothing that was sealed is ever shown in the clear. Only an explicit drop removes what was
//! acknowledged. Bounds: pages, rows looked at for one page, plans.
//!
//! The changes are not cancel-safe: what is recorded cannot be taken back, so whoever asks for one lets it come to its end.
//!
//! In reading order: `view` lists and shows, `change` retries, drops, resolves and edits one write, `redrive` sets many on
//! their way again, `transfer` takes writes out of one queue and into another, `record` is how a write is written down for that.

mod change;
mod edit;
mod record;
mod redrive;
#[cfg(test)]
mod tests;
mod transfer;
mod view;

use tracing::info;

pub(super) use self::redrive::Redrives;
pub use self::{
    edit::{Edit, EditedBody, EditedKey},
    record::{ImportError, Record},
    redrive::{Operation, OperationState},
    transfer::{Import, Imported},
    view::{
        Audit, Filter, Inspected, LaneListed, LanePlace, Listed, NoLanePlace, Page, PauseListed,
        Shown, Summary,
    },
};
use super::{
    Claim, Item, ItemId, JournalError, Queue, State,
    index::Unclaimable,
    journal::{AuditEntry, Change},
};

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperateError {
    /// There is no such write, nor a receipt of one.
    #[error("there is no queued write `{id}`")]
    Unknown {
        /// Which was asked for.
        id: String,
    },
    /// Not in this state.
    #[error("the write is {}; that can only be done while it is {allowed}", state.as_str())]
    NotAllowed {
        /// In which it is.
        state: State,
        /// In which it would have to be.
        allowed: &'static str,
    },
    /// Somebody works on it.
    #[error("the write is being delivered or changed just now")]
    InUse,
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A body is larger than a queued write's may be.
    #[error("a body may have {limit_bytes} bytes (queue.max_item)")]
    TooLarge {
        /// How large it may be.
        limit_bytes: u64,
    },
    /// There are as many plans as there may be.
    #[error("there are {limit} plans and running operations already; a plan expires after 10 min")]
    TooManyPlans {
        /// How many there may be.
        limit: usize,
    },
    /// It has fields that must be sealed, and there is no key to seal them with.
    #[error("there is no key to seal its credentials with (queue.key_file)")]
    CredentialNotStorable,
    /// It could not be recorded, or read.
    #[error("the queue's journal is not available: {0}")]
    Unavailable(String),
}

impl From<JournalError> for OperateError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::CredentialNotStorable => Self::CredentialNotStorable,
            error => Self::Unavailable(error.to_string()),
        }
    }
}

/// The states from which something can be done.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    names: &'static str,
    is_allowed: fn(State) -> bool,
}

/// What needs an operator.
const STUCK: Allowed = Allowed {
    names: "parked or dead",
    is_allowed: State::is_stuck,
};

/// What waits for its time, or for an operator.
const NOT_SENDING: Allowed = Allowed {
    names: "queued, waiting, parked or dead",
    is_allowed: |state| !state.is_ended() && !matches!(state, State::Sending),
};

impl Queue {
    /// Claims a write and reads it.
    async fn take(&self, id: ItemId, allowed: Allowed) -> Result<(Claim<'_>, Item), OperateError> {
        let not_allowed = |state| OperateError::NotAllowed {
            state,
            allowed: allowed.names,
        };
        let claimed = self.index().claim(id, allowed.is_allowed);
        match claimed {
            Ok(_) => {}
            Err(Unclaimable::Claimed) => return Err(OperateError::InUse),
            Err(Unclaimable::NotAllowed(state)) => return Err(not_allowed(state)),
            Err(Unclaimable::Unknown) => {
                let ended = self.inner.journal.item(id).await?;
                return Err(ended.map_or_else(|| unknown(id), |item| not_allowed(item.state)));
            }
        }
        let claim = Claim { queue: self, id };
        let item = self.inner.journal.claimed(id).await?;
        Ok((claim, self.inner.places.follow(item)))
    }

    /// Records a change of a claimed write, which gives the claim back.
    async fn settle(
        &self,
        claim: Claim<'_>,
        change: Change,
        audit: Option<AuditEntry>,
    ) -> Result<(), OperateError> {
        let told = audit.clone();
        match audit {
            Some(audit) => self.inner.journal.record_audited(change, audit).await?,
            None => self.inner.journal.record(change).await?,
        }
        claim.settle();
        if let Some(entry) = told {
            tell(&entry);
        }
        Ok(())
    }

    /// Who does what to a write.
    fn entry(&self, by: &str, action: &str, item: Option<ItemId>, detail: String) -> AuditEntry {
        AuditEntry {
            at: self.inner.clock.now(),
            actor: by.to_owned(),
            action: action.to_owned(),
            item,
            detail,
        }
    }

    /// Writes down what an operator did elsewhere in the gateway.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub async fn note(&self, by: &str, action: &str, detail: String) -> Result<(), OperateError> {
        let entry = self.entry(by, action, None, detail);
        Ok(self
            .inner
            .journal
            .record_audited(Change::Note, entry)
            .await?)
    }
}

/// What an operator did, in the log as in the audit.
fn tell(entry: &AuditEntry) {
    info!(
        operator = entry.actor,
        action = entry.action,
        item = entry.item.map(tracing::field::display),
        detail = entry.detail,
        "An operator changed the queue."
    );
}

fn unknown(id: ItemId) -> OperateError {
    OperateError::Unknown { id: id.to_string() }
}
