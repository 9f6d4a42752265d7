//! Writes out of one queue and into another: an export reads, an import appends what is not there yet.
//!
//! An imported write keeps its id, and with it its place in the order of acceptance; its number for people is new, and its
//! lane is the one of its origin and its lane's name, whatever the line says, so that no line holds up another origin. Bounds: one
//! import at a time, 64 writes at once, those of one lane one after the other.

use std::collections::HashMap;

use futures_util::future::join_all;

use super::{
    super::{
        DeliveryBody, Item, ItemId, LaneId, Parked, Queue, State, StoredBody,
        index::Room,
        journal::{Change, JournalError},
        weight_bytes,
    },
    ImportError, OperateError, Record,
};
use crate::policy::Timestamp;

// A gateway with a clock a little ahead is not a forger.
const CLOCK_SKEW: std::time::Duration = std::time::Duration::from_secs(60 * 60);

/// The name of the lane of what has no order (`order_by = "none"`). No other lane has it: theirs say what makes their order.
const UNORDERED_LANE: &str = "none";

/// Lines of an import, each with its number.
pub type Import = Vec<(u64, Record)>;

/// What became of a line of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imported {
    /// It is in the queue now.
    New,
    /// It was there already, or its receipt is.
    Known,
}

impl Queue {
    /// A write, whole; `None` when it has left the queue meanwhile.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub async fn record(&self, id: ItemId) -> Result<Option<Record>, OperateError> {
        let journal = &self.inner.journal;
        let Some(item) = journal.item(id).await? else {
            return Ok(None);
        };
        if item.state.is_ended() {
            return Ok(None);
        }
        let Some(content) = journal.stored_content(id).await? else {
            let damaged = format!("the request of {id} is damaged");
            return Err(OperateError::Unavailable(damaged));
        };
        let body = self.whole_body(id, content.body.clone()).await?;
        Ok(Some(Record::new(item, &content, &body)))
    }

    /// Appends the writes that are not there yet, in the order of their lines within each lane. What became of each line.
    pub async fn import(&self, lines: Import) -> Vec<(u64, Result<Imported, ImportError>)> {
        let _one_at_a_time = self.inner.importing.acquire().await;
        let mut lanes: HashMap<LaneId, Import> = HashMap::new();
        for (number, mut record) in lines {
            record.item.lane_id = lane_id(&record.item);
            let lane = lanes.entry(record.item.lane_id).or_default();
            lane.push((number, record));
        }
        let lanes = lanes.into_values().map(|lane| self.import_lane(lane));
        let mut outcomes: Vec<_> = join_all(lanes).await.into_iter().flatten().collect();
        outcomes.sort_by_key(|(number, _)| *number);
        outcomes
    }

    /// Accounts for an import that has come to its end.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub async fn note_import(&self, by: &str, counts: String) -> Result<(), OperateError> {
        self.note(by, "import", counts).await
    }

    async fn import_lane(&self, lane: Import) -> Vec<(u64, Result<Imported, ImportError>)> {
        let mut outcomes = Vec::new();
        for (number, record) in lane {
            outcomes.push((number, self.import_one(record).await));
        }
        outcomes
    }

    async fn import_one(&self, record: Record) -> Result<Imported, ImportError> {
        let (item, content, body) = record.take_apart()?;
        let id = item.id;
        let journal = &self.inner.journal;
        let now = self.inner.clock.now();
        if item.accepted_at.max(id.accepted_at()) > now.plus(CLOCK_SKEW) {
            return Err(ImportError::Future);
        }
        let is_in_queue = self.index().state(id).is_some();
        if is_in_queue || journal.item(id).await.map_err(failed)?.is_some() {
            return Ok(Imported::Known);
        }
        let fields = journal.opened(id, &content);
        let fields = fields.map_err(|error| ImportError::Sealed(error.to_string()))?;
        let mut item = not_sending(item, now);
        let body = self.new_body(&mut item, body).await.map_err(failed)?;
        item.weight_bytes = weight_bytes(&item, &fields, item.body_bytes);
        let room = Room::of(&item);
        let reserved = self.index().reserve(&item.origin, room);
        reserved.map_err(|full| ImportError::Full(full.to_string()))?;
        let change = Change::Import {
            item: item.clone(),
            fields,
            body,
        };
        let recorded = journal.record(change).await;
        if recorded.is_err() {
            self.index().release_reservation(room);
        }
        match recorded {
            Ok(()) => {
                self.changed(&item);
                Ok(Imported::New)
            }
            // The same write in another lane of the same file.
            Err(JournalError::Exists) => Ok(Imported::Known),
            Err(error) => Err(failed(error)),
        }
    }

    /// A body in memory: at most `queue.max_item` of the queue that accepted it.
    pub(super) async fn whole_body(
        &self,
        id: ItemId,
        body: StoredBody,
    ) -> Result<bytes::Bytes, OperateError> {
        let body = self.inner.journal.body(id, body).await;
        let body = body.map_err(|error| OperateError::Unavailable(error.to_string()))?;
        match body {
            DeliveryBody::Whole(bytes) => Ok(bytes),
            DeliveryBody::File { path, .. } => {
                let read = tokio::fs::read(path).await;
                let read = read.map_err(|error| OperateError::Unavailable(error.to_string()))?;
                Ok(read.into())
            }
        }
    }
}

/// The lane of this name at its origin; one of its own for what has no order.
fn lane_id(item: &Item) -> LaneId {
    match item.lane.as_str() {
        UNORDERED_LANE => LaneId::unordered(),
        name => LaneId::new(&item.origin, name),
    }
}

/// What was on its way there may have been executed.
fn not_sending(mut item: Item, now: Timestamp) -> Item {
    if item.state != State::Sending {
        return item;
    }
    item.ambiguous_since.get_or_insert(now);
    if item.repeat.is_allowed() {
        item.state = State::Waiting;
    } else {
        item.state = State::Parked(Parked::Ambiguous);
        item.remark = Some("it was being sent when it was exported".to_owned());
    }
    item
}

fn failed(error: impl std::fmt::Display) -> ImportError {
    ImportError::Journal(error.to_string())
}
