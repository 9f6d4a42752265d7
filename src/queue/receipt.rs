//! What is known of a write that was accepted: for receipts, whoever waits for it, and taking it back.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{
    Answer, Claim, Item, ItemId, Queue, State,
    index::Unclaimable,
    journal::{Change, JournalError},
};

/// Where a write is in its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// So many are before it; `None` when it is in none.
    pub position: Option<usize>,
    /// The head, if that is another.
    pub blocked_by: Option<ItemId>,
}

/// Why a write cannot be taken back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CancelError {
    /// There is no such write.
    #[error("there is no such write")]
    Unknown,
    /// It is on its way, was on it, or has come to its end.
    #[error("it is {}, and cannot be taken back", .0.as_str())]
    TooLate(State),
    /// It could not be recorded.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl Queue {
    /// A write by its id, ended ones included as long as their receipts are kept.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn item(&self, id: ItemId) -> Result<Option<Item>, JournalError> {
        // Before the record, which may be newer then, but never a mixture of what was and what is.
        let is_sending = self.index().state(id) == Some(State::Sending);
        let item = self.inner.journal.item(id).await?;
        let item = item.map(|item| self.inner.places.follow(item));
        Ok(item.map(|item| match item.state.is_pending() {
            // It is so in memory before, or without, being so on disk.
            true if is_sending => Item {
                state: State::Sending,
                ..item
            },
            _ => item,
        }))
    }

    /// The origin's answer to a write that was answered.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn answer(&self, id: ItemId) -> Result<Option<Answer>, JournalError> {
        self.inner.journal.answer(id).await
    }

    /// Where a write is in its lane.
    pub fn place(&self, id: ItemId) -> Place {
        let index = self.index();
        Place {
            position: index.position(id),
            blocked_by: index.blocked_by(id),
        }
    }

    /// The head of the lane of a write, if that is another.
    pub fn blocked_by(&self, id: ItemId) -> Option<ItemId> {
        self.index().blocked_by(id)
    }

    /// Takes back what has not been sent.
    ///
    /// # Errors
    /// See [`CancelError`].
    pub async fn cancel(&self, id: ItemId) -> Result<Item, CancelError> {
        // What was tried may have been executed: that it was taken back would not be true.
        let claimed = self.index().claim(id, |state| state == State::Queued);
        match claimed {
            Ok(_) => {}
            Err(Unclaimable::Claimed) => return Err(CancelError::TooLate(State::Sending)),
            Err(Unclaimable::NotAllowed(state)) => return Err(CancelError::TooLate(state)),
            Err(Unclaimable::Unknown) => {
                let ended = self.inner.journal.item(id).await?;
                return Err(ended.map_or(CancelError::Unknown, |item| {
                    CancelError::TooLate(item.state)
                }));
            }
        }
        let claim = Claim { queue: self, id };
        let item = self.inner.journal.claimed(id).await?;
        let item = Item {
            state: State::Cancelled,
            ended_at: Some(self.inner.clock.now()),
            ..self.inner.places.follow(item)
        };
        let change = Change::End {
            item: item.clone(),
            answer: None,
        };
        self.inner.journal.record(change).await?;
        claim.settle();
        self.changed(&item);
        Ok(item)
    }

    /// Waits until a write is answered, ended, or stuck, at most so long; what it is then.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn until_settled(
        &self,
        id: ItemId,
        limit: Duration,
    ) -> Result<Option<Item>, JournalError> {
        let deadline = Instant::now() + limit;
        // Beyond the bound nobody waits: the client asks again.
        let Some(waiter) = self.inner.changes.wait_for(id) else {
            return self.item(id).await;
        };
        loop {
            // Before the look, so that no change is missed.
            let changed = waiter.next();
            let item = self.item(id).await?;
            let is_settled = |item: &Item| item.state.is_ended() || item.state.is_stuck();
            if item.as_ref().is_none_or(is_settled) {
                return Ok(item);
            }
            if timeout_at(deadline, changed).await.is_err() {
                return Ok(item);
            }
        }
    }
}
