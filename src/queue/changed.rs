//! What is told when a queued write changes: to those who wait for its end, and to operators who watch.

use super::{
    item::{Item, ItemId, Origin, State},
    lane::LaneId,
};

/// A queued write came to another state. Told after the journal has recorded it, but for `sending`, which a harmless repetition
/// need not record.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// Which.
    pub id: ItemId,
    /// Its running number.
    pub seq: u64,
    /// Its state now.
    pub state: State,
    /// Where it goes.
    pub origin: Origin,
    /// The route that took it.
    pub route: String,
    /// Its lane.
    pub lane_id: LaneId,
    /// Attempts until now.
    pub attempts: u32,
}

impl From<&Item> for Changed {
    fn from(item: &Item) -> Self {
        Self {
            id: item.id,
            seq: item.seq,
            state: item.state,
            origin: item.origin.clone(),
            route: item.route.clone(),
            lane_id: item.lane_id,
            attempts: item.attempts,
        }
    }
}
