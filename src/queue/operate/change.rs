//! One write: tried again, dropped, declared done; and deliveries held back.

use super::{
    super::{
        Done, Item, ItemId, Origin, Parked, Queue, Repeat, Revival, State,
        journal::{Change, Pause},
    },
    Allowed, NOT_SENDING, OperateError, STUCK, tell,
    view::PauseListed,
};
use crate::policy::Timestamp;

/// Pauses at once: as many as there are likely origins, and few enough for one small record.
const MAX_PAUSES: usize = 256;

/// What can be tried now: what waits for its time, or for an operator.
const RETRIABLE: Allowed = Allowed {
    names: "waiting, parked or dead",
    is_allowed: |state| state.is_stuck() || matches!(state, State::Waiting),
};

impl Queue {
    /// Sets a write on its way again, at once: when its lane comes to it and its origin can be reached. That it may have been
    /// executed counts no longer: to ask for this is the word that a second sending is fine.
    ///
    /// # Errors
    /// See [`OperateError`].
    pub async fn retry(&self, id: ItemId, by: &str) -> Result<Item, OperateError> {
        self.revive(id, Some(by)).await
    }

    /// As [`Queue::retry`]; without a name, for one of many that are accounted for together.
    pub(super) async fn revive(&self, id: ItemId, by: Option<&str>) -> Result<Item, OperateError> {
        let (claim, before) = self.take(id, RETRIABLE).await?;
        let item = revived(&before, self.inner.clock.now());
        let audit = by.map(|by| self.entry(by, "retry", Some(id), was(&before)));
        self.settle(claim, Change::Update(item.clone()), audit)
            .await?;
        self.changed(&item);
        Ok(item)
    }

    /// Removes a write for good, with its receipt. The only way in which something acknowledged is lost.
    ///
    /// # Errors
    /// See [`OperateError`].
    pub async fn drop_item(&self, id: ItemId, by: &str) -> Result<Item, OperateError> {
        let (claim, before) = self.take(id, NOT_SENDING).await?;
        let detail = format!("{} {} {}", was(&before), before.method, before.url);
        let audit = self.entry(by, "drop", Some(id), detail);
        self.settle(claim, Change::Remove(id), Some(audit)).await?;
        let item = Item {
            state: State::Cancelled,
            ended_at: Some(self.inner.clock.now()),
            ..before
        };
        self.changed(&item);
        Ok(item)
    }

    /// Declares a write done: the operator knows that what it was to bring about is so.
    ///
    /// # Errors
    /// See [`OperateError`].
    pub async fn resolve(
        &self,
        id: ItemId,
        reason: Option<&str>,
        by: &str,
    ) -> Result<Item, OperateError> {
        let (claim, before) = self.take(id, STUCK).await?;
        let audit = self.entry(by, "resolve", Some(id), with_reason(was(&before), reason));
        let item = Item {
            state: State::Done(Done::Resolved),
            ended_at: Some(self.inner.clock.now()),
            remark: reason.map(str::to_owned).or(before.remark),
            ..before
        };
        let change = Change::End {
            item: item.clone(),
            answer: None,
        };
        self.settle(claim, change, Some(audit)).await?;
        self.changed(&item);
        Ok(item)
    }

    /// Holds deliveries back, to one origin or everywhere, also across restarts. What is in flight comes to its end.
    ///
    /// # Errors
    /// See [`OperateError`].
    pub async fn pause(
        &self,
        origin: Option<&str>,
        reason: Option<String>,
        by: &str,
    ) -> Result<Vec<PauseListed>, OperateError> {
        let origin = origin.map(Origin::from_shown);
        let _one_at_a_time = self.inner.pausing.acquire().await;
        let mut pauses = self.inner.journal.pauses();
        pauses.retain(|pause| pause.origin != origin);
        if pauses.len() >= MAX_PAUSES {
            let limit = format!("at most {MAX_PAUSES} origins can be paused at once");
            return Err(OperateError::Invalid(limit));
        }
        let detail = with_reason(place(origin.as_ref()), reason.as_deref());
        pauses.push(Pause {
            origin,
            since: self.inner.clock.now(),
            reason,
        });
        self.hold(pauses, by, "pause", detail).await
    }

    /// Lets deliveries go on, to one origin or everywhere. A pause of one origin outlives the end of the one of them all.
    ///
    /// # Errors
    /// See [`OperateError`].
    pub async fn resume(
        &self,
        origin: Option<&str>,
        by: &str,
    ) -> Result<Vec<PauseListed>, OperateError> {
        let origin = origin.map(Origin::from_shown);
        let _one_at_a_time = self.inner.pausing.acquire().await;
        let mut pauses = self.inner.journal.pauses();
        pauses.retain(|pause| pause.origin != origin);
        let detail = place(origin.as_ref());
        self.hold(pauses, by, "resume", detail).await
    }

    async fn hold(
        &self,
        pauses: Vec<Pause>,
        by: &str,
        action: &str,
        detail: String,
    ) -> Result<Vec<PauseListed>, OperateError> {
        let audit = self.entry(by, action, None, detail);
        let change = Change::Pause(pauses.clone());
        let told = audit.clone();
        self.inner.journal.record_audited(change, audit).await?;
        tell(&told);
        self.inner.wake.notify_one();
        Ok(pauses.into_iter().map(PauseListed::from).collect())
    }
}

/// The write as it is tried again.
pub(super) fn revived(before: &Item, now: Timestamp) -> Item {
    // Whether an earlier attempt was executed still tells what the origin's answer means, where repeating does no harm.
    let is_told_by_answer = matches!(before.repeat, Repeat::Harmless | Repeat::Conditional);
    Item {
        state: State::Waiting,
        next_at: now,
        floor_until: None,
        ambiguous_since: before.ambiguous_since.filter(|_| is_told_by_answer),
        remark: Some(format!("an operator retried it; {}", was(before))),
        revived: Some(Revival {
            at: now,
            attempts: before.attempts,
        }),
        ..before.clone()
    }
}

/// The write as an operator keeps it back.
pub(super) fn parked(before: Item) -> Item {
    Item {
        state: State::Parked(Parked::Operator),
        ..before
    }
}

/// What it was, in a sentence.
pub(super) fn was(item: &Item) -> String {
    let state = item.state.as_str();
    match item.state.reason() {
        Some(reason) => format!("was {state} ({reason}) after {} attempts", item.attempts),
        None => format!("was {state} after {} attempts", item.attempts),
    }
}

fn with_reason(what: String, reason: Option<&str>) -> String {
    match reason {
        Some(reason) => format!("{what}; {reason}"),
        None => what,
    }
}

fn place(origin: Option<&Origin>) -> String {
    origin.map_or_else(|| "everywhere".to_owned(), Origin::to_string)
}
