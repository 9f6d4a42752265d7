//! What is known of the queue in memory: which writes there are, in which lanes, what is due when, and who works on what.
//!
//! Invariants: it says of a write what the journal has committed, but for one that is claimed, on which somebody works; a write
//! is claimed by one at a time; of a lane only the head is ever due. Bounds: about 200 bytes for a write, and as many again for
//! a lane; their number is bounded by `queue.max_items`. No I/O, no time of its own.

use std::{
    collections::{BTreeSet, HashMap, VecDeque, hash_map::Entry as MapEntry},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Config,
    item::{Item, ItemId, Origin, State},
    lane::LaneId,
};
use crate::policy::Timestamp;

/// The writes of the queue, in memory.
#[derive(Debug)]
pub(super) struct Index {
    limits: Limits,
    entries: HashMap<ItemId, Entry>,
    lanes: HashMap<LaneId, Lane>,
    origins: HashMap<Arc<Origin>, OriginLanes>,
    /// Until when origins asked, of one of their writes, to be left alone.
    floors: HashMap<Arc<Origin>, BTreeSet<(Timestamp, ItemId)>>,
    /// Pending writes by the hash of the key their target is stored under, in order of acceptance.
    urls: HashMap<u64, SmallVec<[ItemId; 1]>>,
    /// How many these are, for those who only want to know that there are none.
    pending_urls: Arc<AtomicUsize>,
    clients: HashMap<u64, usize>,
    counts: [usize; State::NAMES.len()],
    usage: Usage,
}

/// How much there may be.
#[derive(Clone, Copy, Debug)]
struct Limits {
    items: usize,
    bytes: u64,
    lane_items: usize,
    client_items: usize,
}

/// How much there is, with what is reserved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Writes that have not come to their end.
    pub(super) items: usize,
    /// What they weigh.
    pub(super) bytes: u64,
}

#[derive(Debug)]
struct Entry {
    lane: LaneId,
    state: State,
    is_in_lane: bool,
    is_claimed: bool,
    weight_bytes: u64,
    accepted_at: Timestamp,
    waits_since: Timestamp,
    next_at: Timestamp,
    is_repeatable: bool,
    /// Until when its origin asked, of it, to be left alone.
    floor: Option<(Arc<Origin>, Timestamp)>,
    url: u64,
    client: u64,
}

#[derive(Debug)]
struct Lane {
    origin: Arc<Origin>,
    items: VecDeque<ItemId>,
    /// Appends on their way to the disk.
    reserved: usize,
    /// When its head is due, as long as it is in the origin's set.
    due: Option<Due>,
    /// The one that is claimed for a delivery: until it is given back no other of the lane is due.
    in_flight: Option<ItemId>,
}

/// When a lane's head is due. The earlier accepted goes first among those that are due together.
type Due = (Timestamp, ItemId, LaneId);

/// The lanes of one origin.
#[derive(Debug, Default)]
struct OriginLanes {
    lanes: usize,
    due: BTreeSet<Due>,
    pending: usize,
}

/// The room a write has been promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) lane: LaneId,
    pub(super) client: u64,
    pub(super) weight_bytes: u64,
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    #[error("the queue holds as many writes as it may")]
    Items,
    #[error("the queue holds as many bytes as it may")]
    Bytes,
    #[error("the lane holds as many writes as it may")]
    Lane,
    #[error("this client has as many writes in the queue as it may")]
    Client,
}

/// Why a write cannot be worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unclaimable {
    /// There is none of this id that has not come to its end.
    Unknown,
    /// Somebody works on it.
    Claimed,
    /// Not in this state.
    NotAllowed(State),
}

/// A lane as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LaneFacts {
    pub(super) lane: LaneId,
    pub(super) origin: Origin,
    pub(super) items: usize,
    pub(super) head: ItemId,
    pub(super) head_state: State,
    pub(super) oldest: Timestamp,
    pub(super) next_at: Timestamp,
}

impl Index {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            limits: Limits {
                items: config.max_items,
                bytes: config.max_bytes,
                lane_items: config.max_lane_items,
                client_items: config.max_client_items,
            },
            entries: HashMap::new(),
            lanes: HashMap::new(),
            origins: HashMap::new(),
            floors: HashMap::new(),
            urls: HashMap::new(),
            pending_urls: Arc::default(),
            clients: HashMap::new(),
            counts: [0; State::NAMES.len()],
            usage: Usage::default(),
        }
    }

    /// Promises room for a write that is about to be appended. From here on its lane is not empty.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn reserve(&mut self, origin: &Origin, room: Room) -> Result<(), Full> {
        let Limits {
            items,
            bytes,
            lane_items,
            client_items,
        } = self.limits;
        if self.usage.items >= items {
            return Err(Full::Items);
        }
        if self.usage.bytes.saturating_add(room.weight_bytes) > bytes {
            return Err(Full::Bytes);
        }
        if self.lane_len(room.lane) >= lane_items {
            return Err(Full::Lane);
        }
        if self.client_items(room.client) >= client_items {
            return Err(Full::Client);
        }
        self.take(room);
        self.lane(origin, room.lane).reserved += 1;
        Ok(())
    }

    /// Takes the promise back: nothing was appended.
    pub(super) fn release_reservation(&mut self, room: Room) {
        self.give_back(room);
        if let Some(lane) = self.lanes.get_mut(&room.lane) {
            lane.reserved = lane.reserved.saturating_sub(1);
        }
        self.settle_lane(room.lane);
    }

    /// Puts in what was appended into the room reserved for it, after the commit.
    pub(super) fn add(&mut self, item: &Item) {
        if let Some(lane) = self.lanes.get_mut(&item.lane_id) {
            lane.reserved = lane.reserved.saturating_sub(1);
        }
        self.insert(item);
    }

    /// Puts in what was found on disk at start, whatever the limits are now.
    pub(super) fn load(&mut self, item: &Item) {
        if item.state.is_ended() {
            return;
        }
        self.take(Room::of(item));
        self.insert(item);
    }

    /// Says what has become of a write, after the commit, and gives the claim on it back, unless it is on its way now.
    pub(super) fn change(&mut self, item: &Item) {
        if item.state.is_ended() {
            self.remove(item.id);
        } else if item.state == State::Sending {
            self.mark_sending(item.id);
        } else if let Some(before) = self.take_out(item.id) {
            // An edit may have changed what it weighs.
            self.give_back(before.room());
            self.take(Room::of(item));
            self.insert(item);
            if before.lane != item.lane_id {
                self.settle_lane(before.lane);
            }
        }
    }

    /// Forgets a write that came to its end or was removed.
    pub(super) fn remove(&mut self, id: ItemId) {
        if let Some(entry) = self.take_out(id) {
            self.give_back(entry.room());
            self.settle_lane(entry.lane);
        }
    }

    /// Claims a write that is in one of the states allowed.
    ///
    /// # Errors
    /// See [`Unclaimable`].
    pub(super) fn claim(
        &mut self,
        id: ItemId,
        is_allowed: impl Fn(State) -> bool,
    ) -> Result<State, Unclaimable> {
        let entry = self.entries.get_mut(&id).ok_or(Unclaimable::Unknown)?;
        if entry.is_claimed {
            return Err(Unclaimable::Claimed);
        }
        if !is_allowed(entry.state) {
            return Err(Unclaimable::NotAllowed(entry.state));
        }
        entry.is_claimed = true;
        let (state, lane) = (entry.state, entry.lane);
        self.settle_lane(lane);
        Ok(state)
    }

    /// Gives a claim back; nothing was changed.
    pub(super) fn release(&mut self, id: ItemId) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.is_claimed = false;
        let lane = entry.lane;
        self.land(lane, id);
        self.settle_lane(lane);
    }

    /// Claims the head of the lane of this origin that has been due longest.
    pub(super) fn take_due(&mut self, origin: &Origin, now: Timestamp) -> Option<ItemId> {
        let lanes = self.origins.get(origin)?;
        let (at, id, _) = *lanes.due.first()?;
        if at > now {
            return None;
        }
        self.claim_for_delivery(id)
    }

    /// Like [`Self::take_due`], of the heads that do no harm when they are sent twice. Looks at everything that is due.
    pub(super) fn take_due_repeatable(
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
    pub(super) fn next_due_at(&self, origin: &Origin) -> Option<Timestamp> {
        let lanes = self.origins.get(origin)?;
        lanes.due.first().map(|(at, _, _)| *at)
    }

    /// Until when an origin asked to be left alone, as long as a write keeps it.
    pub(super) fn floor_until(&self, origin: &Origin) -> Option<Timestamp> {
        self.floors.get(origin)?.last().map(|(until, _)| *until)
    }

    /// The origins that have pending writes.
    pub(super) fn origins(&self) -> Vec<Origin> {
        let with_pending = self.origins.iter().filter(|(_, lanes)| lanes.pending > 0);
        with_pending
            .map(|(origin, _)| Origin::clone(origin))
            .collect()
    }

    /// The lane of a write that has not come to its end.
    pub(super) fn lane_of(&self, id: ItemId) -> Option<LaneId> {
        self.entries.get(&id).map(|entry| entry.lane)
    }

    /// How many writes are in a lane, those on their way to the disk included.
    pub(super) fn lane_len(&self, lane: LaneId) -> usize {
        let lane = self.lanes.get(&lane);
        lane.map_or(0, |lane| lane.items.len() + lane.reserved)
    }

    /// Where in its lane a write is: so many are before it.
    pub(super) fn position(&self, id: ItemId) -> Option<usize> {
        let lane = self.lanes.get(&self.entries.get(&id)?.lane)?;
        lane.items.binary_search(&id).ok()
    }

    /// The head of the lane of a write, if that is another.
    pub(super) fn blocked_by(&self, id: ItemId) -> Option<ItemId> {
        let entry = self.entries.get(&id)?;
        let head = *self.lanes.get(&entry.lane)?.items.front()?;
        (entry.is_in_lane && head != id).then_some(head)
    }

    /// The writes to what is stored under a key that are pending, in order of acceptance. A hash of it is compared: whoever must be sure looks into
    /// the items.
    pub(super) fn pending(&self, url: &str) -> &[ItemId] {
        let found = self.urls.get(&url_hash(url));
        found.map_or(&[], SmallVec::as_slice)
    }

    /// How many URLs have pending writes: may be read without the index.
    pub(super) fn pending_urls(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.pending_urls)
    }

    /// The state in memory: what is claimed for a delivery is `sending` there before it is on disk.
    pub(super) fn state(&self, id: ItemId) -> Option<State> {
        self.entries.get(&id).map(|entry| entry.state)
    }

    /// Says that a claimed write is on its way.
    pub(super) fn mark_sending(&mut self, id: ItemId) {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.is_claimed) else {
            return;
        };
        self.counts[position_of(entry.state)] -= 1;
        entry.state = State::Sending;
        self.counts[position_of(State::Sending)] += 1;
    }

    /// Writes by state, in the order of [`State::NAMES`]; ended ones are not here.
    pub(super) fn counts(&self) -> [usize; State::NAMES.len()] {
        self.counts
    }

    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// When the oldest pending write was accepted. Looks at every lane.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        let heads = self.lanes.values().filter_map(|lane| lane.items.front());
        let accepted = heads.filter_map(|id| self.entries.get(id));
        accepted.map(|entry| entry.accepted_at).min()
    }

    /// Pending writes that were accepted by this, and not revived since, at most `limit`.
    pub(super) fn accepted_by(&self, by: Timestamp, limit: usize) -> Vec<ItemId> {
        let entry = |id: &ItemId| self.entries.get(id);
        let is_old = |id: &&ItemId| entry(id).is_some_and(|entry| entry.accepted_at <= by);
        let waits = |id: &ItemId| {
            entry(id).is_some_and(|entry| {
                entry.state.is_pending() && !entry.is_claimed && entry.waits_since <= by
            })
        };
        // A lane is in order of acceptance: behind the first that is young enough there are no old ones.
        let lanes = self.lanes.values();
        let old = lanes.flat_map(|lane| lane.items.iter().take_while(is_old).copied());
        old.filter(waits).take(limit).collect()
    }

    /// When the newest of the writes was accepted that were accepted before this. Looks at every write.
    pub(super) fn newest_before(&self, before: Timestamp) -> Option<Timestamp> {
        let accepted = self.entries.values().map(|entry| entry.accepted_at);
        accepted.filter(|at| *at < before).max()
    }

    /// Every lane that is not empty, in no order.
    pub(super) fn lanes(&self) -> Vec<LaneFacts> {
        let facts = |(id, lane): (&LaneId, &Lane)| {
            let head = *lane.items.front()?;
            let entry = self.entries.get(&head)?;
            Some(LaneFacts {
                lane: *id,
                origin: Origin::clone(&lane.origin),
                items: lane.items.len(),
                head,
                head_state: entry.state,
                oldest: entry.accepted_at,
                next_at: entry.next_at,
            })
        };
        self.lanes.iter().filter_map(facts).collect()
    }

    fn claim_for_delivery(&mut self, id: ItemId) -> Option<ItemId> {
        self.claim(id, State::is_pending).ok()?;
        let lane = self.entries.get(&id)?.lane;
        self.lanes.get_mut(&lane)?.in_flight = Some(id);
        self.settle_lane(lane);
        Some(id)
    }

    /// Says that a delivery, if it was one, is over.
    fn land(&mut self, lane: LaneId, id: ItemId) {
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.in_flight.take_if(|in_flight| *in_flight == id);
        }
    }

    fn insert(&mut self, item: &Item) {
        let mut entry = Entry::of(item);
        self.counts[position_of(item.state)] += 1;
        if entry.is_in_lane {
            let lane = self.lane(&item.origin, item.lane_id);
            // Almost always the last; one that an operator revives goes back to where it was accepted.
            let at = lane.items.partition_point(|other| *other < item.id);
            lane.items.insert(at, item.id);
        }
        self.keep_floor(item, &mut entry);
        if item.state.is_pending() {
            // A pending write is in its lane, and so its origin is known.
            if let Some(lanes) = self.origins.get_mut(&item.origin) {
                lanes.pending += 1;
            }
            let pending = self.urls.entry(entry.url).or_default();
            let at = pending.partition_point(|other| *other < item.id);
            pending.insert(at, item.id);
            self.pending_urls.store(self.urls.len(), Ordering::Relaxed);
        }
        self.entries.insert(item.id, entry);
        self.settle_lane(item.lane_id);
    }

    fn keep_floor(&mut self, item: &Item, entry: &mut Entry) {
        let Some(until) = item.floor_until else {
            return;
        };
        let known = self.floors.get_key_value(&item.origin);
        let origin = known.map_or_else(
            || Arc::new(item.origin.clone()),
            |(known, _)| Arc::clone(known),
        );
        let floors = self.floors.entry(Arc::clone(&origin)).or_default();
        floors.insert((until, item.id));
        entry.floor = Some((origin, until));
    }

    fn take_out(&mut self, id: ItemId) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.counts[position_of(entry.state)] -= 1;
        self.land(entry.lane, id);
        if let Some((origin, until)) = &entry.floor
            && let Some(floors) = self.floors.get_mut(origin)
        {
            floors.remove(&(*until, id));
            if floors.is_empty() {
                self.floors.remove(origin);
            }
        }
        if let Some(lane) = self.lanes.get_mut(&entry.lane) {
            if let Ok(at) = lane.items.binary_search(&id) {
                lane.items.remove(at);
            }
            if entry.state.is_pending()
                && let Some(lanes) = self.origins.get_mut(&lane.origin)
            {
                lanes.pending -= 1;
            }
        }
        if let MapEntry::Occupied(mut pending) = self.urls.entry(entry.url) {
            if let Ok(at) = pending.get().binary_search(&id) {
                pending.get_mut().remove(at);
            }
            if pending.get().is_empty() {
                pending.remove();
            }
            self.pending_urls.store(self.urls.len(), Ordering::Relaxed);
        }
        Some(entry)
    }

    /// Brings a lane's place among those that are due up to date, and forgets it when it is empty.
    fn settle_lane(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return;
        };
        let head = lane.items.front().copied();
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
            lanes.lanes -= 1;
            if lanes.lanes == 0 {
                self.origins.remove(&lane.origin);
            }
        }
    }

    fn lane(&mut self, origin: &Origin, id: LaneId) -> &mut Lane {
        match self.lanes.entry(id) {
            MapEntry::Occupied(lane) => lane.into_mut(),
            MapEntry::Vacant(place) => {
                let known = self.origins.get_key_value(origin);
                let origin =
                    known.map_or_else(|| Arc::new(origin.clone()), |(known, _)| Arc::clone(known));
                self.origins.entry(Arc::clone(&origin)).or_default().lanes += 1;
                place.insert(Lane {
                    origin,
                    items: VecDeque::new(),
                    reserved: 0,
                    due: None,
                    in_flight: None,
                })
            }
        }
    }

    fn client_items(&self, client: u64) -> usize {
        self.clients.get(&client).copied().unwrap_or(0)
    }

    fn take(&mut self, room: Room) {
        self.usage.items += 1;
        self.usage.bytes = self.usage.bytes.saturating_add(room.weight_bytes);
        *self.clients.entry(room.client).or_default() += 1;
    }

    fn give_back(&mut self, room: Room) {
        self.usage.items = self.usage.items.saturating_sub(1);
        self.usage.bytes = self.usage.bytes.saturating_sub(room.weight_bytes);
        if let MapEntry::Occupied(mut items) = self.clients.entry(room.client) {
            *items.get_mut() -= 1;
            if *items.get() == 0 {
                items.remove();
            }
        }
    }
}

impl Entry {
    fn of(item: &Item) -> Self {
        Self {
            lane: item.lane_id,
            state: item.state,
            is_in_lane: item.is_in_lane(),
            is_claimed: false,
            weight_bytes: item.weight_bytes,
            accepted_at: item.accepted_at,
            waits_since: item.waits_since(),
            next_at: item.next_at,
            is_repeatable: item.repeat.is_allowed(),
            floor: None,
            url: url_hash(&item.stored_under),
            client: item.client,
        }
    }

    const fn room(&self) -> Room {
        Room {
            lane: self.lane,
            client: self.client,
            weight_bytes: self.weight_bytes,
        }
    }
}

impl Room {
    /// What a write takes.
    pub(super) const fn of(item: &Item) -> Self {
        Self {
            lane: item.lane_id,
            client: item.client,
            weight_bytes: item.weight_bytes,
        }
    }
}

fn position_of(state: State) -> usize {
    match state {
        State::Queued => 0,
        State::Sending => 1,
        State::Waiting => 2,
        State::Parked(_) => 3,
        State::Dead(_) => 4,
        State::Done(_) => 5,
        State::Cancelled => 6,
    }
}

fn url_hash(url: &str) -> u64 {
    xxh3_64(url.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::{Full, Index, Room, Unclaimable};
    use crate::{
        policy::Timestamp,
        queue::{
            Dead, Item, ItemId, LaneId, OnStuck, Origin, Parked, Repeat, Revival, State,
            tests::{config, item},
        },
    };

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn origin(name: &str) -> Origin {
        Origin::Upstream(name.to_owned())
    }

    fn id(number: u8) -> ItemId {
        ItemId::from_bytes([number; 16])
    }

    /// Write number so and so, in a lane of an origin.
    fn write(number: u8, at: &str, lane: &str) -> Item {
        Item {
            id: id(number),
            origin: origin(at),
            lane: lane.to_owned(),
            lane_id: LaneId::new(&origin(at), lane),
            next_at: NOW,
            ..item()
        }
    }

    fn index(items: &[Item]) -> Index {
        let mut index = Index::new(&config());
        for item in items {
            index.reserve(&item.origin, Room::of(item)).unwrap();
            index.add(item);
        }
        index
    }

    #[test]
    fn of_a_lane_the_head_is_due_and_the_next_when_it_has_ended() {
        let items = [write(1, "a", "x"), write(2, "a", "x"), write(3, "a", "y")];
        let mut index = index(&items);
        let a = origin("a");
        assert_eq!(index.take_due(&a, NOW), Some(id(1)));
        assert_eq!(index.take_due(&a, NOW), Some(id(3)));
        assert_eq!(index.take_due(&a, NOW), None);
        assert_eq!(index.next_due_at(&a), None);
        index.remove(id(1));
        assert_eq!(index.take_due(&a, NOW), Some(id(2)));
        assert_eq!(index.take_due(&origin("b"), NOW), None);
    }

    #[test]
    fn a_head_that_waits_holds_its_lane() {
        let items = [write(1, "a", "x"), write(2, "a", "x")];
        let mut index = index(&items);
        let a = origin("a");
        assert_eq!(index.take_due(&a, NOW), Some(id(1)));
        let later = Timestamp::from_secs(1_010);
        index.change(&Item {
            state: State::Waiting,
            next_at: later,
            ..items[0].clone()
        });
        assert_eq!(index.take_due(&a, NOW), None);
        assert_eq!(index.next_due_at(&a), Some(later));
        assert_eq!(index.take_due(&a, later), Some(id(1)));
    }

    #[test]
    fn a_stuck_head_halts_its_lane_or_leaves_it() {
        for (on_stuck, expected) in [(OnStuck::Halt, None), (OnStuck::Continue, Some(id(2)))] {
            let mut items = [write(1, "a", "x"), write(2, "a", "x")];
            items[0].on_stuck = on_stuck;
            let mut index = index(&items);
            index.take_due(&origin("a"), NOW);
            items[0].state = State::Parked(Parked::Conflict);
            index.change(&items[0]);
            assert_eq!(index.take_due(&origin("a"), NOW), expected);
            let blocked = (on_stuck == OnStuck::Halt).then_some(id(1));
            assert_eq!(index.blocked_by(id(2)), blocked);
        }
    }

    #[test]
    fn what_an_operator_revives_goes_back_to_its_place() {
        let mut items = [write(1, "a", "x"), write(2, "a", "x")];
        items[0].on_stuck = OnStuck::Continue;
        let mut index = index(&items);
        items[0].state = State::Dead(Dead::Rejected);
        index.change(&items[0]);
        assert_eq!(index.position(id(2)), Some(0));
        items[0].state = State::Waiting;
        index.change(&items[0]);
        assert_eq!(index.position(id(2)), Some(1));
        assert_eq!(index.take_due(&origin("a"), NOW), Some(id(1)));
    }

    #[test]
    fn what_is_revived_before_one_in_flight_waits_for_it() {
        for is_given_back in [true, false] {
            let mut items = [write(1, "a", "x"), write(2, "a", "x")];
            items[0].on_stuck = OnStuck::Continue;
            items[0].state = State::Dead(Dead::Rejected);
            let mut index = index(&items);
            let a = origin("a");
            assert_eq!(index.take_due(&a, NOW), Some(id(2)));
            items[0].state = State::Waiting;
            index.change(&items[0]);
            assert_eq!(
                (index.take_due(&a, NOW), index.next_due_at(&a)),
                (None, None)
            );
            index.mark_sending(id(2));
            assert_eq!(index.take_due(&a, NOW), None);
            if is_given_back {
                index.release(id(2));
            } else {
                index.remove(id(2));
            }
            assert_eq!(index.take_due(&a, NOW), Some(id(1)));
        }
    }

    #[test]
    fn a_head_that_moves_to_another_lane_leaves_its_own_to_the_next() {
        let items = [write(1, "a", "x"), write(2, "a", "x")];
        let mut index = index(&items);
        index.claim(id(1), State::is_pending).unwrap();
        index.change(&write(1, "b", "y"));
        assert_eq!(index.take_due(&origin("a"), NOW), Some(id(2)));
        assert_eq!(index.take_due(&origin("b"), NOW), Some(id(1)));
    }

    #[test]
    fn a_stranger_is_shown_what_does_no_harm_twice() {
        let mut items = [write(1, "a", "x"), write(2, "a", "y")];
        items[1].repeat = Repeat::Harmless;
        let mut index = index(&items);
        let a = origin("a");
        assert_eq!(index.take_due_repeatable(&a, NOW), Some(id(2)));
        assert_eq!(index.take_due_repeatable(&a, NOW), None);
        assert_eq!(index.take_due(&a, NOW), Some(id(1)));
    }

    #[test]
    fn one_at_a_time_works_on_a_write() {
        let mut index = index(&[write(1, "a", "x")]);
        let pending = State::is_pending;
        assert_eq!(index.claim(id(1), pending), Ok(State::Queued));
        assert_eq!(index.claim(id(1), pending), Err(Unclaimable::Claimed));
        index.release(id(1));
        let stuck = index.claim(id(1), State::is_stuck);
        assert_eq!(stuck, Err(Unclaimable::NotAllowed(State::Queued)));
        assert_eq!(index.claim(id(9), pending), Err(Unclaimable::Unknown));
        assert_eq!(index.take_due(&origin("a"), NOW), Some(id(1)));
    }

    #[test]
    fn room_is_promised_within_every_limit() {
        let mut config = config();
        (
            config.max_items,
            config.max_lane_items,
            config.max_client_items,
        ) = (3, 2, 2);
        config.max_bytes = 100;
        let mut index = Index::new(&config);
        let a = origin("a");
        let room = |lane: &str, client, weight_bytes| Room {
            lane: LaneId::new(&a, lane),
            client,
            weight_bytes,
        };
        assert_eq!(index.reserve(&a, room("x", 1, 101)), Err(Full::Bytes));
        assert_eq!(index.reserve(&a, room("x", 1, 40)), Ok(()));
        assert_eq!(index.reserve(&a, room("x", 1, 61)), Err(Full::Bytes));
        assert_eq!(index.reserve(&a, room("x", 1, 1)), Ok(()));
        assert_eq!(index.reserve(&a, room("y", 1, 1)), Err(Full::Client));
        assert_eq!(index.reserve(&a, room("x", 2, 1)), Err(Full::Lane));
        assert_eq!(index.reserve(&a, room("y", 2, 1)), Ok(()));
        assert_eq!(index.reserve(&a, room("z", 3, 1)), Err(Full::Items));
        index.release_reservation(room("x", 1, 40));
        assert_eq!(index.reserve(&a, room("z", 3, 1)), Ok(()));
    }

    #[test]
    fn everything_is_given_back_at_the_end() {
        let mut items = [write(1, "a", "x"), write(2, "b", "y")];
        items[1].floor_until = Some(NOW);
        let mut index = index(&items);
        assert_eq!(index.floor_until(&origin("b")), Some(NOW));
        assert_eq!((index.usage().items, index.counts()[0]), (2, 2));
        assert_eq!(index.pending(&items[0].stored_under), [id(1), id(2)]);
        for item in &items {
            index.change(&Item {
                state: State::Cancelled,
                ..item.clone()
            });
        }
        assert_eq!(index.usage(), super::Usage::default());
        assert_eq!(index.counts(), [0; 7]);
        assert!(index.lanes.is_empty() && index.origins.is_empty());
        assert!(index.floors.is_empty());
        assert!(index.urls.is_empty() && index.clients.is_empty());
    }

    #[test]
    fn a_lane_is_not_empty_while_a_write_is_on_its_way_to_the_disk() {
        let item = write(1, "a", "x");
        let mut index = Index::new(&config());
        index.reserve(&item.origin, Room::of(&item)).unwrap();
        assert_eq!(index.lane_len(item.lane_id), 1);
        index.add(&item);
        assert_eq!(index.lane_len(item.lane_id), 1);
        index.remove(item.id);
        assert_eq!(index.lane_len(item.lane_id), 0);
    }

    #[test]
    fn the_old_are_found_behind_a_stuck_head_too() {
        let mut items = [write(1, "a", "x"), write(2, "a", "x"), write(3, "a", "x")];
        for (item, secs) in items.iter_mut().zip([1, 2, 50]) {
            item.accepted_at = Timestamp::from_secs(secs);
        }
        items[0].state = State::Parked(Parked::Auth);
        let index = index(&items);
        let old = index.accepted_by(Timestamp::from_secs(10), 9);
        assert_eq!(old, [id(2)]);
        let old = index.accepted_by(Timestamp::from_secs(59), 9);
        assert_eq!(old, [id(2), id(3)]);
        assert_eq!(index.oldest(), Some(Timestamp::from_secs(1)));
        items[1].revived = Some(Revival {
            at: Timestamp::from_secs(60),
            attempts: 3,
        });
        let index = self::index(&items);
        let old = index.accepted_by(Timestamp::from_secs(59), 9);
        assert_eq!(old, [id(3)], "a revived one counts anew");
    }
}
