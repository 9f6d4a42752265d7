//! Until when origins asked, of one of their writes, to be left alone. Few writes have such a wish.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    policy::Timestamp,
    queue::{ItemId, Origin},
};

#[derive(Debug, Default)]
pub(super) struct Floors {
    by_origin: HashMap<Arc<Origin>, BTreeSet<(Timestamp, ItemId)>>,
    by_item: HashMap<ItemId, (Arc<Origin>, Timestamp)>,
}

impl Floors {
    /// The longest wish that a write keeps.
    pub(super) fn until(&self, origin: &Origin) -> Option<Timestamp> {
        self.by_origin.get(origin)?.last().map(|(until, _)| *until)
    }

    pub(super) fn keep(&mut self, id: ItemId, origin: &Origin, until: Timestamp) {
        let known = self.by_origin.get_key_value(origin);
        let origin = known.map_or_else(|| Arc::new(origin.clone()), |(known, _)| Arc::clone(known));
        let floors = self.by_origin.entry(Arc::clone(&origin)).or_default();
        floors.insert((until, id));
        self.by_item.insert(id, (origin, until));
    }

    pub(super) fn drop(&mut self, id: ItemId) {
        if self.by_item.is_empty() {
            return;
        }
        let Some((origin, until)) = self.by_item.remove(&id) else {
            return;
        };
        if let Some(floors) = self.by_origin.get_mut(&origin) {
            floors.remove(&(until, id));
            if floors.is_empty() {
                self.by_origin.remove(&origin);
            }
        }
    }
}
