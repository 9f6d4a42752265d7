//! The write queue: a write answered with 202 is delivered, or shown to an operator as parked or dead; never dropped, never
//! silently sent twice, never silently out of order within its lane.
//!
//! Delivery is at-least-once for what may be repeated ([`Repeat`]), at-most-once-then-ask for the rest. It survives kill -9, a
//! full disk and a restart; it does not survive the loss of the disk.
//!
//! In reading order: [`item`](Item) says what a queued write is, `lane` what order it keeps, `journal` how it is kept on disk,
//! `index` what is known of it in memory, `replay` how it is delivered, [`Outlet`] the seam to the origins.
//! Deliberately absent: HTTP (the proxy's), connectivity and permits (upstream's), stored responses (the store's).

mod changed;
mod index;
mod item;
mod journal;
mod lane;
mod outcome;
mod outlet;
mod replay;
mod seal;
mod settings;
mod verdict;

#[cfg(test)]
mod tests;

pub use self::{
    changed::Changed,
    item::{
        Answer, Attempt, Content, Dead, Done, Item, ItemId, OnStuck, Origin, Parked, PendingReads,
        Repeat, Revival, Sealed, State, StoredBody,
    },
    journal::OpenError,
    lane::LaneId,
    outcome::{Observation, Outcome, outcome},
    outlet::{Delivery, DeliveryBody, Outlet, Proof, Received, SendError},
    replay::{OriginStatus, PhaseName},
    seal::{KeyFileError, check_key_file},
    settings::{
        Config, Idempotency, KeyFormat, OrderBy, ReplayRate, ResponseTemplate, WriteMode,
        WriteSettings,
    },
};
