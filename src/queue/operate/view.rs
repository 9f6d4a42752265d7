//! Lists of writes and lanes, one write with everything that may be shown of it, and the queue at a glance.

use std::{fmt, str::FromStr};

use super::{
    super::{
        Answer, Content, Item, ItemId, LaneId, Origin, OriginStatus, Queue, State,
        journal::{AuditEntry, Pause},
    },
    OperateError, unknown,
};
use crate::policy::Timestamp;

/// Rows read at a time.
const ROWS_AT_ONCE: usize = 1_000;
/// Rows looked at for one page, which may then be short.
const MAX_SCANNED: usize = 20_000;

/// Which writes; every filter has to hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// In one of these states, by name; `None`: not ended.
    pub states: Option<Vec<&'static str>>,
    /// Of this origin, as it is shown.
    pub origin: Option<String>,
    /// In the lane of this name, or of this id.
    pub lane: Option<String>,
    /// Accepted before this.
    pub accepted_before: Option<Timestamp>,
    /// With this text in the method, URL, lane, id or reason.
    pub text: Option<String>,
}

/// A page of a list, and where the next one begins.
#[derive(Clone, Debug)]
pub struct Page<T, C = ItemId> {
    /// In order.
    pub items: Vec<T>,
    /// Behind which the next page begins; `None` on the last one.
    pub next: Option<C>,
}

/// A write as it is listed.
pub type Listed = Page<Shown>;

/// A write, and what is known of it in memory.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The write.
    pub item: Item,
    /// The head of its lane, if that is another.
    pub blocked_by: Option<ItemId>,
}

/// A write with everything that may be shown of it.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// The write.
    pub shown: Shown,
    /// Its request, credentials sealed; `None` when it has ended, or is damaged.
    pub content: Option<Content>,
    /// What the origin answered in the end.
    pub answer: Option<Answer>,
}

/// A lane as it is listed.
#[derive(Clone, Debug)]
pub struct LaneListed {
    /// Its identity.
    pub id: LaneId,
    /// Its name.
    pub name: String,
    /// Where it goes.
    pub origin: Origin,
    /// How many writes are in it.
    pub items: usize,
    /// Its head.
    pub head: ItemId,
    /// The state of its head.
    pub head_state: State,
    /// When its head was accepted.
    pub oldest: Timestamp,
    /// Before when its head is not tried.
    pub next_at: Timestamp,
}

/// Where a lane is in the list of them: its origin, and its id among those of one origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanePlace {
    origin: Origin,
    lane: LaneId,
}

/// What is no [`LanePlace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a place in the list of lanes")]
pub struct NoLanePlace;

/// Deliveries that are held back.
#[derive(Clone, Debug)]
pub struct PauseListed {
    /// To where; `None`: all of them.
    pub origin: Option<Origin>,
    /// Since when.
    pub since: Timestamp,
    /// Why, for the record.
    pub reason: Option<String>,
}

/// Who changed what, when.
#[derive(Clone, Debug)]
pub struct Audit {
    /// Its running number.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// Who, as far as is known.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To which write.
    pub item: Option<ItemId>,
    /// In a sentence.
    pub detail: String,
}

/// The queue at a glance.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Writes by state, in the order of [`State::NAMES`]; ended ones are not counted.
    pub counts: [usize; State::NAMES.len()],
    /// What they weigh.
    pub bytes: u64,
    /// When the oldest was accepted.
    pub oldest: Option<Timestamp>,
    /// What is held back.
    pub pauses: Vec<PauseListed>,
    /// How far the deliveries to each origin are.
    pub origins: Vec<OriginStatus>,
    /// Records and bodies that turned out damaged, since the start.
    pub damaged: u64,
    /// Whether nothing is appended because the disk is full, or nearly.
    pub is_suspended: bool,
    /// Whether nothing is appended, or recorded of what is delivered, before a restart.
    pub is_closed: bool,
    /// Whether there is a key to seal credentials with: without one, writes that have some are refused.
    pub can_seal: bool,
}

impl Queue {
    /// The writes that match, in order of acceptance, behind the one with this id. At most 20,000 are looked at: a page may
    /// be short, even empty, and still have a next one.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn list(
        &self,
        filter: &Filter,
        after: Option<ItemId>,
        limit: usize,
    ) -> Result<Listed, OperateError> {
        let mut page = Page {
            items: Vec::new(),
            next: after,
        };
        let mut scanned = 0;
        while scanned < MAX_SCANNED {
            let rows = self.inner.journal.page(page.next, ROWS_AT_ONCE).await?;
            let is_last = rows.len() < ROWS_AT_ONCE;
            scanned += rows.len();
            let mut rows = self.shown(rows).into_iter();
            for shown in rows.by_ref() {
                page.next = Some(shown.item.id);
                if filter.matches(&shown.item) {
                    page.items.push(shown);
                }
                if page.items.len() == limit {
                    break;
                }
            }
            if is_last && rows.len() == 0 {
                page.next = None;
                break;
            }
            if page.items.len() == limit {
                break;
            }
        }
        Ok(page)
    }

    /// One write, with its request.
    ///
    /// # Errors
    /// When there is none of this id, or the journal cannot be read.
    pub async fn inspect(&self, id: ItemId) -> Result<Inspected, OperateError> {
        let journal = &self.inner.journal;
        let item = journal.item(id).await?.ok_or_else(|| unknown(id))?;
        let content = journal.stored_content(id).await?;
        let answer = journal.answer(id).await?;
        let shown = self.shown(vec![item]).pop();
        Ok(Inspected {
            shown: shown.ok_or_else(|| unknown(id))?,
            content,
            answer,
        })
    }

    /// The lanes that are not empty, by origin, behind this place in that order.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn lanes(
        &self,
        origin: Option<&str>,
        after: Option<&LanePlace>,
        limit: usize,
    ) -> Result<Page<LaneListed, LanePlace>, OperateError> {
        let origin = origin.map(Origin::from_shown);
        let after = after.map(|place| (&place.origin, place.lane));
        // One more than is shown tells whether there is a next page.
        let mut lanes = self.index().lanes(origin.as_ref(), after, limit + 1);
        let has_more = lanes.len() > limit;
        lanes.truncate(limit);
        let mut items = Vec::new();
        for lane in lanes {
            let head = self.inner.journal.item(lane.head).await?;
            items.push(LaneListed {
                id: lane.lane,
                // Its head may have left meanwhile; the lane is still worth its line.
                name: head.map_or_else(String::new, |head| head.lane),
                origin: lane.origin,
                items: lane.items,
                head: lane.head,
                head_state: lane.head_state,
                oldest: lane.oldest,
                next_at: lane.next_at,
            });
        }
        let last = items.last().filter(|_| has_more);
        let next = last.map(|lane| LanePlace {
            origin: lane.origin.clone(),
            lane: lane.id,
        });
        Ok(Page { items, next })
    }

    /// Who changed what, the newest first, before the entry with this number.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn audit(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<Audit, u64>, OperateError> {
        // One more than is shown tells whether there is a next page.
        let mut entries = self.inner.journal.audit(before, limit + 1).await?;
        let has_more = entries.len() > limit;
        entries.truncate(limit);
        let items: Vec<_> = entries.into_iter().map(Audit::from).collect();
        let next = items.last().filter(|_| has_more).map(|entry| entry.number);
        Ok(Page { items, next })
    }

    /// The queue at a glance.
    pub fn summary(&self) -> Summary {
        let pauses = self.inner.journal.pauses();
        let (counts, usage, oldest) = {
            let index = self.index();
            (index.counts(), index.usage(), index.oldest())
        };
        Summary {
            counts,
            bytes: usage.bytes,
            oldest,
            pauses: pauses.into_iter().map(PauseListed::from).collect(),
            origins: self.inner.statuses.list(),
            damaged: self.inner.journal.damage(),
            is_suspended: self.is_suspended(),
            is_closed: self.is_closed(),
            can_seal: self.inner.journal.can_seal(),
        }
    }

    /// Whether nothing is appended because the disk is full, or nearly.
    pub fn is_suspended(&self) -> bool {
        self.inner.journal.is_low_on_space()
    }

    /// Whether nothing is appended, or recorded of what is delivered, before a restart: the gateway ends, or the journal's
    /// writer has panicked.
    pub fn is_closed(&self) -> bool {
        self.inner.journal.is_closed()
    }

    /// Adds what is known in memory.
    fn shown(&self, items: Vec<Item>) -> Vec<Shown> {
        let index = self.index();
        let shown = items.into_iter().map(|item| {
            // What is on its way may not be so on disk; of a record that was read before the last change nothing else is told.
            let is_sending = index.state(item.id) == Some(State::Sending);
            let state = match item.state.is_pending() && is_sending {
                true => State::Sending,
                false => item.state,
            };
            let item = self.inner.places.follow(item);
            Shown {
                blocked_by: index.blocked_by(item.id),
                item: Item { state, ..item },
            }
        });
        shown.collect()
    }
}

impl Filter {
    /// Whether a write is meant.
    pub fn matches(&self, item: &Item) -> bool {
        let in_state = match &self.states {
            Some(names) => names.contains(&item.state.as_str()),
            None => !item.state.is_ended(),
        };
        in_state
            && self.is_of_origin(item)
            && self.is_in_lane(item)
            && self
                .accepted_before
                .is_none_or(|before| item.accepted_at < before)
            && self.has_text(item)
    }

    fn is_of_origin(&self, item: &Item) -> bool {
        let origin = self.origin.as_ref();
        origin.is_none_or(|origin| item.origin.to_string() == *origin)
    }

    fn is_in_lane(&self, item: &Item) -> bool {
        let lane = self.lane.as_ref();
        lane.is_none_or(|lane| item.lane == *lane || item.lane_id.to_string() == *lane)
    }

    fn has_text(&self, item: &Item) -> bool {
        let Some(text) = &self.text else {
            return true;
        };
        let id = item.id.to_string();
        let reason = item.state.reason().unwrap_or_default();
        [&*item.method, &item.url, &item.lane, &id, reason]
            .iter()
            .any(|place| place.contains(text.as_str()))
    }
}

impl fmt::Display for LanePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.origin, self.lane)
    }
}

impl FromStr for LanePlace {
    type Err = NoLanePlace;

    fn from_str(text: &str) -> Result<Self, NoLanePlace> {
        let (origin, lane) = text.rsplit_once('/').ok_or(NoLanePlace)?;
        Ok(Self {
            origin: Origin::from_shown(origin),
            lane: lane.parse().map_err(|_| NoLanePlace)?,
        })
    }
}

impl From<Pause> for PauseListed {
    fn from(pause: Pause) -> Self {
        Self {
            origin: pause.origin,
            since: pause.since,
            reason: pause.reason,
        }
    }
}

impl From<(u64, AuditEntry)> for Audit {
    fn from((number, entry): (u64, AuditEntry)) -> Self {
        Self {
            number,
            at: entry.at,
            actor: entry.actor,
            action: entry.action,
            item: entry.item,
            detail: entry.detail,
        }
    }
}
