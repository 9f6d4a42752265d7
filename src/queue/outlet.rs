//! The seam to the origins: how a delivery leaves, and what is known of where it goes.

use std::{future::Future, num::NonZeroUsize, path::PathBuf};

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};

use super::item::{Answer, Item, Origin};
use crate::policy::Connectivity;

/// The way of deliveries to their origins. Two implementations: the proxy's, over HTTP; and a scripted one in tests, for
/// answers that get lost and links that drop on cue.
pub trait Outlet: Send + Sync + 'static {
    /// What is known of the origin now. An operator's word counts, and the mode `offline` is a lost link.
    fn connectivity(&self, origin: &Origin) -> Connectivity;

    /// Returns once the origin is, or may be, connected. Keeps its prober going meanwhile.
    fn connected(&self, origin: &Origin) -> impl Future<Output = ()> + Send;

    /// How many deliveries the origin may have at once: a quarter of its permits.
    fn share(&self, origin: &Origin) -> NonZeroUsize;

    /// Whether the deliveries of a route get their credential from a source that may have a newer one later.
    fn has_credential_source(&self, route: &str) -> bool;

    /// Whether whoever answers at the origin's address is the origin. Changes nothing there.
    ///
    /// # Errors
    /// See [`Unverified`].
    fn verify(
        &self,
        origin: &Origin,
        occasion: Occasion,
    ) -> impl Future<Output = Result<Proof, Unverified>> + Send;

    /// Sends one delivery, once, and returns when the answer is complete (as far as it is kept).
    ///
    /// # Errors
    /// See [`SendError`].
    fn send(&self, delivery: Delivery) -> impl Future<Output = Result<Received, SendError>> + Send;

    /// Sees to it that nothing stored hides what the delivered write has changed. Called before the write is recorded as done.
    fn delivered(&self, item: &Item, answer: &Answer) -> impl Future<Output = ()> + Send;
}

/// Why it is asked who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// Deliveries begin; nothing speaks against the origin.
    Begin,
    /// After an outage, or after an answer that may be somebody else's.
    Doubt,
}

/// How sure one is that whoever answers is the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Its certificate or the configured probe says so: no answer can be a captive portal's.
    Proven,
    /// Nothing says so.
    Unproven,
}

/// Why it cannot be said that the origin answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// Something that is not the origin answers whatever is asked.
    #[error("{0}")]
    Portal(String),
    /// The configured probe failed, or nothing answered.
    #[error("{0}")]
    Failed(String),
}

/// One attempt to deliver a write.
#[derive(Debug)]
pub struct Delivery {
    /// Where to.
    pub origin: Origin,
    /// Name of the route that took it.
    pub route: String,
    /// The method.
    pub method: Method,
    /// The effective upstream URI.
    pub uri: Uri,
    /// The key of the cache under which its target is stored.
    pub stored_under: String,
    /// Every field to send, credentials included.
    pub headers: HeaderMap,
    /// The body.
    pub body: DeliveryBody,
    /// Whether it may be sent a second time at once, when a pooled connection turns out dead.
    pub repeatable: bool,
    /// The number of this attempt, from 1.
    pub attempt: u32,
}

/// The body of a delivery. Its checksum was verified.
#[derive(Clone, Debug)]
pub enum DeliveryBody {
    /// In memory.
    Whole(Bytes),
    /// In a file.
    File {
        /// Which.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
}

/// An answer of the origin.
#[derive(Clone, Debug)]
pub struct Received {
    /// The answer, as it is kept.
    pub answer: Answer,
    /// The fields, for whoever reads `Retry-After` or `Location`.
    pub headers: HeaderMap,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No connection; nothing was sent.
    #[error("disconnected: {0}")]
    Disconnected(String),
    /// No permit was free; nothing was sent.
    #[error("the origin has no room")]
    Busy,
    /// Connected, but provably nothing was executed.
    #[error("not sent: {0}")]
    NotSent(String),
    /// Some of it may have been sent, and executed.
    #[error("no answer: {0}")]
    Unknown(String),
    /// Not now, for a reason of this write alone; nothing was sent.
    #[error("not now: {0}")]
    Deferred(String),
    /// It can never be sent: the origin is no longer configured, or the address is forbidden.
    #[error("cannot be sent: {0}")]
    Impossible(String),
}
