//! The lanes: which write is whose head, and what is due when.

use std::{
    collections::{BTreeSet, VecDeque, hash_map::Entry as MapEntry},
    sync::Arc,
};

use super::{Entry, Index};
use crate::{
    policy::Timestamp,
    queue::{ItemId, LaneId, Origin, State},
};

/// Writes and lanes that are looked at in one go when the old are looked for: for so long nobody else has the index.
const LOOKS_MAX: usize = 2_048;

#[derive(Debug)]
pub(super) struct Lane {
    origin: Arc<Origin>,
    items: VecDeque<ItemId>,
    /// Appends on their way to the disk.
    pub(super) reserved: usize,
    /// Its first, as long as that is among the heads.
    head: Option<ItemId>,
    /// When its head is due, as long as it is in the origin's set.
    due: Option<Due>,
    /// The one that is claimed for a delivery: until it is given back no other of the lane is due.
    in_flight: Option<ItemId>,
}

/// When a lane's head is due. The earlier accepted goes first among those that are due together.
type Due = (Timestamp, ItemId, LaneId);

/// The lanes of one origin.
#[derive(Debug, Default)]
pub(super) struct OriginLanes {
    /// In the order of their list.
    lanes: BTreeSet<LaneId>,
    due: BTreeSet<Due>,
    pending: usize,
}

/// A lane as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::queue) struct LaneFacts {
    pub(in crate::queue) lane: LaneId,
    pub(in crate::queue) origin: Origin,
    pub(in crate::queue) items: usize,
    pub(in crate::queue) head: ItemId,
    pub(in crate::queue) head_state: State,
    pub(in crate::queue) oldest: Timestamp,
    pub(in crate::queue) next_at: Timestamp,
}

/// How far the old were looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::queue) struct Cursor {
    /// Of the lane.
    head: ItemId,
    item: ItemId,
}

/// Some of the writes that are old.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::queue) struct Old {
    pub(in crate::queue) writes: Vec<ItemId>,
    /// Where to go on, when there may be more.
    pub(in crate::queue) next: Option<Cursor>,
}

impl Index {
    /// Claims the head of the lane of this origin that has been due longest.
    pub(in crate::queue) fn take_due(&mut self, origin: &Origin, now: Timestamp) -> Option<ItemId> {
        let lanes = self.origins.get(origin)?;
        let (at, id, _) = *lanes.due.first()?;
        if at > now {
            return None;
        }
        self.claim_for_delivery(id)
    }

    /// Like [`Self::take_due`], of the heads that do no harm when they are sent twice. Looks at everything that is due.
    pub(in crate::queue) fn take_due_repeatable(
        &mut self,
        origin: &Origin,
        now: Timestamp,
    ) -> Option<ItemId> {
        let due = &self.origins.get(origin)?.due;
        let mut heads = due.iter().take_while(|(at, _, _)| *at <= now);
        let is_repeatable = |id| {
            self.entries
                .get(id)
                .is_some_and(|entry| entry.is_repeatable)
        };
        let (_, id, _) = *heads.find(|(_, id, _)| is_repeatable(id))?;
        self.claim_for_delivery(id)
    }

    /// When the next head of this origin that nobody works on is due.
    pub(in crate::queue) fn next_due_at(&self, origin: &Origin) -> Option<Timestamp> {
        let lanes = self.origins.get(origin)?;
        lanes.due.first().map(|(at, _, _)| *at)
    }

    /// The origins that have pending writes.
    pub(in crate::queue) fn origins(&self) -> Vec<Origin> {
        let with_pending = self.origins.iter().filter(|(_, lanes)| lanes.pending > 0);
        with_pending
            .map(|(origin, _)| Origin::clone(origin))
            .collect()
    }

    /// The lane of a write that has not come to its end.
    pub(in crate::queue) fn lane_of(&self, id: ItemId) -> Option<LaneId> {
        self.entries.get(&id).map(|entry| entry.lane)
    }

    /// How many writes are in a lane, those on their way to the disk included.
    pub(in crate::queue) fn lane_len(&self, lane: LaneId) -> usize {
        let lane = self.lanes.get(&lane);
        lane.map_or(0, |lane| lane.items.len() + lane.reserved)
    }

    /// Where in its lane a write is: so many are before it.
    pub(in crate::queue) fn position(&self, id: ItemId) -> Option<usize> {
        let lane = self.lanes.get(&self.entries.get(&id)?.lane)?;
        lane.items.binary_search(&id).ok()
    }

    /// The head of the lane of a write, if that is another.
    pub(in crate::queue) fn blocked_by(&self, id: ItemId) -> Option<ItemId> {
        let entry = self.entries.get(&id)?;
        let head = *self.lanes.get(&entry.lane)?.items.front()?;
        (entry.is_in_lane && head != id).then_some(head)
    }

    /// When the first accepted of the writes in lanes was accepted.
    pub(in crate::queue) fn oldest(&self) -> Option<Timestamp> {
        let entry = self.entries.get(self.heads.first()?)?;
        Some(entry.accepted_at)
    }

    /// Pending writes that were accepted by this, and not revived since, from a place on: at most `limit`.
    pub(in crate::queue) fn accepted_by(
        &self,
        by: Timestamp,
        from: Option<Cursor>,
        limit: usize,
    ) -> Old {
        let mut old = Old::default();
        let mut left = LOOKS_MAX;
        for head in self.heads_from(from) {
            let lane = self.lane_of(*head).and_then(|lane| self.lanes.get(&lane));
            let Some(lane) = lane else { continue };
            let done = from.filter(|from| from.head == *head);
            let begin = done.map_or(0, |from| {
                lane.items.partition_point(|item| *item <= from.item)
            });
            for item in lane.items.range(begin..) {
                let Some(entry) = self.entries.get(item) else {
                    continue;
                };
                // A lane is in order of acceptance: behind the first that is young enough there are no old ones.
                if entry.accepted_at > by {
                    break;
                }
                if self.waits_since_by(*item, entry, by) {
                    old.writes.push(*item);
                }
                left -= 1;
                if old.writes.len() == limit || left == 0 {
                    old.next = Some(Cursor {
                        head: *head,
                        item: *item,
                    });
                    return old;
                }
            }
            left -= 1;
            if left == 0 {
                let item = lane.items.back().copied().unwrap_or(*head);
                old.next = Some(Cursor { head: *head, item });
                return old;
            }
        }
        old
    }

    fn waits_since_by(&self, id: ItemId, entry: &Entry, by: Timestamp) -> bool {
        let waits_since = self.revived.get(&id).unwrap_or(&entry.accepted_at);
        entry.state.is_pending() && !entry.is_claimed && *waits_since <= by
    }

    /// The next lanes that are not empty, of all origins or `of` one, by origin and then by id: at most `limit`, behind this one.
    /// Looks at no others, but for those where the first write is on its way to the disk.
    pub(in crate::queue) fn lanes(
        &self,
        of: Option<&Origin>,
        after: Option<(&Origin, LaneId)>,
        limit: usize,
    ) -> Vec<LaneFacts> {
        use std::ops::Bound::{Excluded, Included, Unbounded};

        let first = of.or(after.map(|(origin, _)| origin));
        let begin = first.map_or(Unbounded, Included);
        let end = of.map_or(Unbounded, Included);
        let origins = self.origins.range::<Origin, _>((begin, end));
        let lanes = origins.flat_map(|(origin, lanes)| {
            let reached = after.filter(|(reached, _)| **reached == **origin);
            let begin = reached.map_or(Unbounded, |(_, lane)| Excluded(lane));
            lanes.lanes.range((begin, Unbounded))
        });
        let facts = lanes.filter_map(|lane| self.lane_facts(*lane));
        facts.take(limit).collect()
    }

    fn lane_facts(&self, id: LaneId) -> Option<LaneFacts> {
        let lane = self.lanes.get(&id)?;
        let head = *lane.items.front()?;
        let entry = self.entries.get(&head)?;
        Some(LaneFacts {
            lane: id,
            origin: Origin::clone(&lane.origin),
            items: lane.items.len(),
            head,
            head_state: entry.state,
            oldest: entry.accepted_at,
            next_at: entry.next_at,
        })
    }

    fn heads_from(&self, from: Option<Cursor>) -> impl Iterator<Item = &ItemId> {
        use std::ops::Bound::{Included, Unbounded};

        let begin = from.map_or(Unbounded, |from| Included(from.head));
        self.heads.range((begin, Unbounded))
    }

    fn claim_for_delivery(&mut self, id: ItemId) -> Option<ItemId> {
        self.claim(id, State::is_pending).ok()?;
        let lane = self.entries.get(&id)?.lane;
        self.lanes.get_mut(&lane)?.in_flight = Some(id);
        self.settle_lane(lane);
        Some(id)
    }

    /// Says that a delivery, if it was one, is over.
    pub(super) fn land(&mut self, lane: LaneId, id: ItemId) {
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.in_flight.take_if(|in_flight| *in_flight == id);
        }
    }

    /// Puts a write where it belongs in its lane; its lane is to be settled then.
    pub(super) fn line_up(&mut self, id: ItemId, origin: &Origin, entry: &Entry) {
        if entry.is_in_lane {
            let lane = self.lane(origin, entry.lane);
            // Almost always the last; one that an operator revives goes back to where it was accepted.
            let at = lane.items.partition_point(|other| *other < id);
            lane.items.insert(at, id);
        }
        // A pending write is in its lane, and so its origin is known.
        if entry.state.is_pending()
            && let Some(lanes) = self.origins.get_mut(origin)
        {
            lanes.pending += 1;
        }
    }

    /// Takes a write out of its lane; its lane is to be settled then.
    pub(super) fn step_out(&mut self, id: ItemId, entry: &Entry) {
        self.land(entry.lane, id);
        let Some(lane) = self.lanes.get_mut(&entry.lane) else {
            return;
        };
        if let Ok(at) = lane.items.binary_search(&id) {
            lane.items.remove(at);
        }
        if entry.state.is_pending()
            && let Some(lanes) = self.origins.get_mut(&lane.origin)
        {
            lanes.pending -= 1;
        }
    }

    /// Brings a lane's place among the heads and among those that are due up to date, and forgets it when it is empty.
    pub(super) fn settle_lane(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return;
        };
        let head = lane.items.front().copied();
        if head != lane.head {
            if let Some(before) = &lane.head {
                self.heads.remove(before);
            }
            self.heads.extend(head);
            lane.head = head;
        }
        let entry = head.and_then(|head| Some((head, self.entries.get(&head)?)));
        let due = entry
            .filter(|(_, entry)| entry.state.is_pending() && !entry.is_claimed)
            .filter(|_| lane.in_flight.is_none())
            .map(|(head, entry)| (entry.next_at, head, id));
        if due != lane.due
            && let Some(lanes) = self.origins.get_mut(&lane.origin)
        {
            if let Some(before) = &lane.due {
                lanes.due.remove(before);
            }
            lanes.due.extend(due);
            lane.due = due;
        }
        if lane.items.is_empty() && lane.reserved == 0 {
            self.forget_lane(id);
        }
    }

    fn forget_lane(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.remove(&id) else {
            return;
        };
        if let Some(lanes) = self.origins.get_mut(&lane.origin) {
            lanes.lanes.remove(&id);
            if lanes.lanes.is_empty() {
                self.origins.remove(&lane.origin);
            }
        }
    }

    pub(super) fn lane(&mut self, origin: &Origin, id: LaneId) -> &mut Lane {
        match self.lanes.entry(id) {
            MapEntry::Occupied(lane) => lane.into_mut(),
            MapEntry::Vacant(place) => {
                let known = self.origins.get_key_value(origin);
                let origin =
                    known.map_or_else(|| Arc::new(origin.clone()), |(known, _)| Arc::clone(known));
                let lanes = self.origins.entry(Arc::clone(&origin)).or_default();
                lanes.lanes.insert(id);
                place.insert(Lane {
                    origin,
                    items: VecDeque::new(),
                    reserved: 0,
                    head: None,
                    due: None,
                    in_flight: None,
                })
            }
        }
    }
}
