//! A claim that cannot be lost.

use std::sync::{Arc, Mutex, PoisonError};

use crate::queue::{ItemId, index::Index};

/// The claim on a write. Dropped, it is given back, unless the journal has it: from then on the record of the change does.
pub(super) struct Claim {
    index: Arc<Mutex<Index>>,
    id: ItemId,
    is_ours: bool,
}

impl Claim {
    /// On what was claimed in the index a moment ago.
    pub(super) fn of(index: &Arc<Mutex<Index>>, id: ItemId) -> Self {
        Self {
            index: Arc::clone(index),
            id,
            is_ours: true,
        }
    }

    /// Says that whoever changes the index next gives it back.
    pub(super) fn hand_over(&mut self) {
        self.is_ours = false;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.is_ours {
            let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
            index.release(self.id);
        }
    }
}
