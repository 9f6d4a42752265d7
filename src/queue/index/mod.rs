//! What is known of the queue in memory: which writes there are, in which lanes, what is due when, and who works on what.
//!
//! Invariants: it says of a write what the journal has committed, but for one that is claimed, on which somebody works; a write
//! is claimed by one at a time; of a lane only the head is ever due. Bounds: about 200 bytes for a write, and as many again for
//! a lane; their number is bounded by `queue.max_items`. Whoever has the index looks at a few things, not at all, but at
//! start. No I/O, no time of its own.
//!
//! In reading order: here room, claims and states; `lanes` the order, `floors` wishes of origins, `pending` what reads ask.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry as MapEntry},
    sync::Arc,
};

mod floors;
mod lanes;
mod pending;

use self::{
    floors::Floors,
    lanes::{Lane, OriginLanes},
    pending::UrlHash,
};
pub(super) use self::{lanes::Cursor, pending::PendingUrls};
use super::{
    Config,
    item::{Item, ItemId, Origin, State},
    lane::LaneId,
    places::Places,
};
use crate::policy::Timestamp;

/// The writes of the queue, in memory.
#[derive(Debug)]
pub(super) struct Index {
    limits: Limits,
    places: Arc<Places>,
    entries: HashMap<ItemId, Entry>,
    lanes: HashMap<LaneId, Lane>,
    /// In the order of their list.
    origins: BTreeMap<Arc<Origin>, OriginLanes>,
    /// The first of every lane that is not empty.
    heads: BTreeSet<ItemId>,
    floors: Floors,
    /// Since when writes wait that an operator has revived.
    revived: HashMap<ItemId, Timestamp>,
    pending: Arc<PendingUrls>,
    /// By the hash of a principal, and by that of an address.
    clients: HashMap<ClientHash, usize>,
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

/// What is known of a write that has not come to its end. There may be a million.
#[derive(Debug)]
struct Entry {
    lane: LaneId,
    accepted_at: Timestamp,
    next_at: Timestamp,
    url: UrlHash,
    client: ClientHash,
    address: ClientHash,
    weight_bytes: u32,
    state: State,
    is_in_lane: bool,
    is_claimed: bool,
    is_repeatable: bool,
}

/// Whom a write counts for. Two that have the same of four thousand million share a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClientHash(u32);

/// The room a write has been promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) lane: LaneId,
    pub(super) client: ClientHash,
    pub(super) address: ClientHash,
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

impl Index {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            limits: Limits {
                items: config.max_items,
                bytes: config.max_bytes,
                lane_items: config.max_lane_items,
                client_items: config.max_client_items,
            },
            places: Arc::default(),
            entries: HashMap::new(),
            lanes: HashMap::new(),
            origins: BTreeMap::new(),
            heads: BTreeSet::new(),
            floors: Floors::default(),
            revived: HashMap::new(),
            pending: Arc::default(),
            clients: HashMap::new(),
            counts: [0; State::NAMES.len()],
            usage: Usage::default(),
        }
    }

    /// Where the upstreams of the writes are. Before any write is put in.
    #[must_use]
    pub(super) fn at(self, places: Arc<Places>) -> Self {
        Self { places, ..self }
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
        if room
            .clients()
            .any(|client| self.client_items(client) >= client_items)
        {
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
            // Last, so that no read finds nothing pending meanwhile.
            if before.url != self.url_of(item) || !item.state.is_pending() {
                self.pending.remove(before.url, item.id);
            }
            if before.lane != item.lane_id {
                self.settle_lane(before.lane);
            }
        }
    }

    /// Forgets a write that came to its end or was removed.
    pub(super) fn remove(&mut self, id: ItemId) {
        if let Some(entry) = self.take_out(id) {
            self.pending.remove(entry.url, id);
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

    /// Until when an origin asked to be left alone, as long as a write keeps it.
    pub(super) fn floor_until(&self, origin: &Origin) -> Option<Timestamp> {
        self.floors.until(origin)
    }

    /// What reads ask, without the index.
    pub(super) fn pending(&self) -> Arc<PendingUrls> {
        Arc::clone(&self.pending)
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

    /// Every write.
    pub(super) fn ids(&self) -> impl Iterator<Item = ItemId> {
        self.entries.keys().copied()
    }

    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// When the newest of the writes was accepted that were accepted before this. Looks at every write.
    pub(super) fn newest_before(&self, before: Timestamp) -> Option<Timestamp> {
        let accepted = self.entries.values().map(|entry| entry.accepted_at);
        accepted.filter(|at| *at < before).max()
    }

    fn insert(&mut self, item: &Item) {
        let entry = Entry::of(item, self.url_of(item));
        self.counts[position_of(item.state)] += 1;
        self.line_up(item.id, &item.origin, &entry);
        if let Some(until) = item.floor_until {
            self.floors.keep(item.id, &item.origin, until);
        }
        if item.waits_since() != item.accepted_at {
            self.revived.insert(item.id, item.waits_since());
        }
        if item.state.is_pending() {
            self.pending.insert(entry.url, item.id);
        }
        self.entries.insert(item.id, entry);
        self.settle_lane(item.lane_id);
    }

    /// What reads of its target ask for.
    fn url_of(&self, item: &Item) -> UrlHash {
        UrlHash::of(&self.places.key(item))
    }

    /// All but what reads ask for.
    fn take_out(&mut self, id: ItemId) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.counts[position_of(entry.state)] -= 1;
        self.step_out(id, &entry);
        self.floors.drop(id);
        self.revived.remove(&id);
        Some(entry)
    }

    fn client_items(&self, client: ClientHash) -> usize {
        self.clients.get(&client).copied().unwrap_or(0)
    }

    fn take(&mut self, room: Room) {
        self.usage.items += 1;
        self.usage.bytes = self.usage.bytes.saturating_add(room.weight_bytes);
        for client in room.clients() {
            *self.clients.entry(client).or_default() += 1;
        }
    }

    fn give_back(&mut self, room: Room) {
        self.usage.items = self.usage.items.saturating_sub(1);
        self.usage.bytes = self.usage.bytes.saturating_sub(room.weight_bytes);
        for client in room.clients() {
            if let MapEntry::Occupied(mut items) = self.clients.entry(client) {
                *items.get_mut() -= 1;
                if *items.get() == 0 {
                    items.remove();
                }
            }
        }
    }
}

impl Entry {
    fn of(item: &Item, url: UrlHash) -> Self {
        Self {
            lane: item.lane_id,
            accepted_at: item.accepted_at,
            next_at: item.next_at,
            url,
            client: item.client.into(),
            address: item.address.into(),
            weight_bytes: counted_bytes(item),
            state: item.state,
            is_in_lane: item.is_in_lane(),
            is_claimed: false,
            is_repeatable: item.repeat.is_allowed(),
        }
    }

    fn room(&self) -> Room {
        Room {
            lane: self.lane,
            client: self.client,
            address: self.address,
            weight_bytes: u64::from(self.weight_bytes),
        }
    }
}

impl Room {
    /// What a write takes.
    pub(super) fn of(item: &Item) -> Self {
        Self {
            lane: item.lane_id,
            client: item.client.into(),
            address: item.address.into(),
            weight_bytes: u64::from(counted_bytes(item)),
        }
    }

    /// Whom it counts for, each once.
    fn clients(self) -> impl Iterator<Item = ClientHash> {
        let address = (self.address != self.client).then_some(self.address);
        std::iter::once(self.client).chain(address)
    }
}

impl From<u64> for ClientHash {
    fn from(hash: u64) -> Self {
        let [a, b, c, d, ..] = hash.to_le_bytes();
        Self(u32::from_le_bytes([a, b, c, d]))
    }
}

/// Of a write of more than 4 GiB so much counts.
fn counted_bytes(item: &Item) -> u32 {
    u32::try_from(item.weight_bytes).unwrap_or(u32::MAX)
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

#[cfg(test)]
mod tests;
