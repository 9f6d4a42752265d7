//! A queued write as the journal keeps it: the small record that changes ([`Item`]), the large one that does not
//! ([`Content`]), and what the origin said at the end ([`Answer`]).

use std::{fmt, str::FromStr, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::lane::LaneId;
use crate::policy::Timestamp;

/// Clocks are kept right by less than this.
const CLOCK_SLACK_MILLIS: i64 = 60_000;

/// The id of a queued write: a UUIDv7 (RFC 9562 section 5.7). Ids increase in order of acceptance, strictly, also across
/// restarts and when the clock steps back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ItemId(Uuid);

/// Where a write goes. Its text is the upstream's name, or `scheme://authority` of a forward-proxied request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// A configured upstream.
    Upstream(String),
    /// The implicit upstream of a forward-proxied request.
    Forward {
        /// `http` or `https`.
        scheme: String,
        /// Host and port.
        authority: String,
    },
}

/// What sending a write more than once may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Repeat {
    /// No harm: PUT and DELETE (RFC 9110 section 9.2.2).
    Harmless,
    /// No harm as long as the origin remembers the idempotency key.
    Keyed,
    /// No harm: the write is conditional (`If-Match`), so that a second execution fails.
    Conditional,
    /// Perhaps a second effect.
    Doubtful,
}

/// Where a write is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Never tried.
    Queued,
    /// On its way: an answer is awaited.
    Sending,
    /// Tried, and to be tried again at [`Item::next_at`].
    Waiting,
    /// Waits for an operator.
    Parked(Parked),
    /// Given up; an operator may revive it.
    Dead(Dead),
    /// Delivered.
    Done(Done),
    /// Taken back by its client, or dropped by an operator.
    Cancelled,
}

/// Why a write is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Parked {
    /// The origin said 409 or 412.
    Conflict,
    /// It may have been executed, and a second time might do harm.
    Ambiguous,
    /// The origin said 401, or the sealed credential cannot be opened.
    Auth,
    /// An operator parked it.
    Operator,
}

/// Why a write is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dead {
    /// The origin refused it for good.
    Rejected,
    /// `queue.max_attempts` were made.
    Attempts,
    /// It waited longer than `queue.max_age`.
    Expired,
    /// Its record or its body is damaged.
    Corrupt,
}

/// How a write came to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Done {
    /// The origin answered with success.
    Answered,
    /// What it was to bring about was so already: 404 or 410 to a DELETE that may have been executed before.
    Assumed,
    /// An operator said so.
    Resolved,
}

/// What a parked or dead write does to its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnStuck {
    /// The lane stands until an operator has seen to it.
    Halt,
    /// The lane goes on without it.
    Continue,
}

/// What reads of a URL with pending writes are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PendingReads {
    /// How many writes are pending.
    Mark,
    /// What they will find once these are delivered, where that is known (read-your-writes).
    Overlay,
}

/// The part of a queued write that changes, with everything lists, lanes and start-up need.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Given by the journal when it is committed.
    pub id: ItemId,
    /// Running number in order of acceptance, for people.
    pub seq: u64,
    /// Where it is on its way.
    pub state: State,
    /// Where it goes.
    pub origin: Origin,
    /// Name of the route that took it.
    pub route: String,
    /// Name of its lane, unique within the origin only: see [`LaneId`].
    pub lane: String,
    /// The lane's identity.
    pub lane_id: LaneId,
    /// What it does to its lane when it is parked or dead.
    pub on_stuck: OnStuck,
    /// `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: String,
    /// The effective upstream URI.
    pub url: String,
    /// The key of the cache under which its target is stored: what reads of the target ask for, partition included, which need
    /// not be the URL as it is sent.
    pub stored_under: String,
    /// Path of its upstream's `url`, without a trailing slash, under which that URL is: what does not come along when the
    /// upstream moves. Empty where there is none.
    pub base_path: String,
    /// Who may read its receipt and sees its overlay: keyed hash of the client's credential.
    pub principal: String,
    /// Hash of whom it counts for (`queue.max_client_items`): the principal.
    pub client: u64,
    /// Hash of the address that it counts for as well, or `client` again where none is known: a client that makes up
    /// credentials is still at one address.
    pub address: u64,
    /// Length of the body.
    pub body_bytes: u64,
    /// SHA-256 of the body.
    pub body_sha256: [u8; 32],
    /// What it counts toward `queue.max_bytes`: body, fields and records.
    pub weight_bytes: u64,
    /// What a second sending may do.
    pub repeat: Repeat,
    /// The idempotency key it is sent with, as text without quotes.
    pub idempotency_key: Option<String>,
    /// Whether the client chose that key itself.
    pub is_client_key: bool,
    /// Whether the origin executes a key once only.
    pub is_key_honoured: bool,
    /// How long the origin remembers a key.
    pub idempotency_ttl: Duration,
    /// Whether a 503 proves that the write was not executed.
    pub trust_503: bool,
    /// Whether the route's answers may be HTML, so that HTML does not mean a captive portal.
    pub answers_html: bool,
    /// What reads of its URL are told.
    pub pending_reads: PendingReads,
    /// When the client's request was accepted.
    pub accepted_at: Timestamp,
    /// Attempts that reached the origin, the client's own first one included.
    pub attempts: u32,
    /// Since when it may have been executed without our knowing; `None`: it was not.
    pub ambiguous_since: Option<Timestamp>,
    /// Not to be tried before this.
    pub next_at: Timestamp,
    /// Until when the origin asked (`Retry-After`) not to be tried at all.
    pub floor_until: Option<Timestamp>,
    /// The last attempt.
    pub last: Option<Attempt>,
    /// What an operator should know, in a sentence.
    pub remark: Option<String>,
    /// When it came to its end: done, cancelled.
    pub ended_at: Option<Timestamp>,
    /// The last time an operator set it on its way again.
    pub revived: Option<Revival>,
}

/// An operator's word that a write shall be tried again. What limits its life counts from here, or it would be dead again at
/// once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revival {
    /// When.
    pub at: Timestamp,
    /// How many attempts had been made by then.
    pub attempts: u32,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it began.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub took_millis: u64,
    /// The origin's status, if it answered.
    pub status: Option<u16>,
    /// What went wrong, if it did not.
    pub error: Option<String>,
}

/// The part of a queued write that never changes (an operator's edit makes a new one).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// The fields to send, in order, without those that are sealed. Names are lower case.
    pub fields: Vec<(String, Vec<u8>)>,
    /// Sealed fields.
    pub sealed: Option<Sealed>,
    /// The body.
    pub body: StoredBody,
}

/// Fields that are never stored in the clear: an AEAD's nonce and ciphertext, with the id as associated data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sealed {
    /// Names of the sealed fields, for views.
    pub names: Vec<String>,
    /// First bytes of the hash of the key that opens it.
    pub key_id: [u8; 8],
    /// 96 bits.
    pub nonce: [u8; 12],
    /// The fields, encoded and encrypted.
    pub ciphertext: Vec<u8>,
}

/// A body, or where it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StoredBody {
    /// Up to 64 KiB.
    Inline(Bytes),
    /// In a file of the spool directory.
    File {
        /// Its name there.
        name: String,
        /// Its length.
        bytes: u64,
        /// XXH3-64 of its content.
        checksum: u64,
    },
}

/// What the origin answered in the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Fields, without hop-by-hop ones.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The beginning of the body, up to 64 KiB.
    pub body: Bytes,
    /// Whether there was more of the body than was kept.
    pub is_truncated: bool,
}

impl ItemId {
    /// From its bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// When it was given, by the clock of that time.
    pub fn accepted_at(&self) -> Timestamp {
        let id = u128::from_be_bytes(*self.as_bytes());
        Timestamp::from_millis(i64::try_from(id >> 80).unwrap_or(i64::MAX))
    }

    /// Big-endian, so that they sort as the ids do.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for ItemId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(text).map(Self)
    }
}

impl Origin {
    /// Of its text.
    pub(super) fn from_shown(text: &str) -> Self {
        match text.split_once("://") {
            Some((scheme, authority)) => Self::Forward {
                scheme: scheme.to_owned(),
                authority: authority.to_owned(),
            },
            None => Self::Upstream(text.to_owned()),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream(name) => f.write_str(name),
            Self::Forward { scheme, authority } => write!(f, "{scheme}://{authority}"),
        }
    }
}

impl Repeat {
    /// Whether it may be sent again although it may have been executed.
    pub const fn is_allowed(self) -> bool {
        !matches!(self, Self::Doubtful)
    }
}

impl State {
    /// The name in the API, the command line and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sending => "sending",
            Self::Waiting => "waiting",
            Self::Parked(_) => "parked",
            Self::Dead(_) => "dead",
            Self::Done(_) => "done",
            Self::Cancelled => "cancelled",
        }
    }

    /// Every name, in the order of a write's life.
    pub const NAMES: [&'static str; 7] = [
        "queued",
        "sending",
        "waiting",
        "parked",
        "dead",
        "done",
        "cancelled",
    ];

    /// Why it is parked or dead, or how it came to be done.
    pub const fn reason(self) -> Option<&'static str> {
        Some(match self {
            Self::Parked(Parked::Conflict) => "conflict",
            Self::Parked(Parked::Ambiguous) => "ambiguous",
            Self::Parked(Parked::Auth) => "auth",
            Self::Parked(Parked::Operator) => "operator",
            Self::Dead(Dead::Rejected) => "rejected",
            Self::Dead(Dead::Attempts) => "attempts",
            Self::Dead(Dead::Expired) => "expired",
            Self::Dead(Dead::Corrupt) => "corrupt",
            Self::Done(Done::Assumed) => "assumed",
            Self::Done(Done::Resolved) => "resolved",
            Self::Done(Done::Answered)
            | Self::Queued
            | Self::Sending
            | Self::Waiting
            | Self::Cancelled => return None,
        })
    }

    /// Whether it is still to be delivered without anybody's help.
    pub const fn is_pending(self) -> bool {
        matches!(self, Self::Queued | Self::Sending | Self::Waiting)
    }

    /// Whether it needs an operator.
    pub const fn is_stuck(self) -> bool {
        matches!(self, Self::Parked(_) | Self::Dead(_))
    }

    /// Whether it came to its end: only its receipt is left.
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Done(_) | Self::Cancelled)
    }
}

impl Item {
    /// Whether it holds its place in its lane, so that what comes after it waits.
    pub fn is_in_lane(&self) -> bool {
        self.state.is_pending() || (self.state.is_stuck() && self.on_stuck == OnStuck::Halt)
    }

    /// Whether its idempotency key stands for it. Not once its client has taken it back: nothing of it was sent, and the
    /// same request again is a new one.
    pub const fn holds_its_key(&self) -> bool {
        !matches!(self.state, State::Cancelled)
    }

    /// Attempts that count toward `queue.max_attempts`.
    pub fn counted_attempts(&self) -> u32 {
        let before = self.revived.map_or(0, |revival| revival.attempts);
        self.attempts.saturating_sub(before)
    }

    /// Since when it waits, as `queue.max_age` counts it.
    pub fn waits_since(&self) -> Timestamp {
        self.revived.map_or(self.accepted_at, |revival| revival.at)
    }

    /// Whether `sending` must be on disk before the first byte is sent, because a second sending after a crash would be a
    /// second effect, or would be answered differently.
    pub fn must_be_noted_before_sending(&self) -> bool {
        !(self.repeat == Repeat::Harmless && self.method == "PUT")
    }

    /// Whether it has a key that the origin executes once only, whatever else a second sending may do.
    pub const fn has_honoured_key(&self) -> bool {
        self.is_key_honoured && self.idempotency_key.is_some()
    }

    /// Whether a second sending is still allowed: not when its key may be forgotten already. A clock that was set, in either
    /// direction, does not say how long that is: then it is not.
    pub fn may_be_repeated(&self, now: Timestamp) -> bool {
        let Some(since) = self.ambiguous_since else {
            return true;
        };
        let ttl_millis = i64::try_from(self.idempotency_ttl.as_millis()).unwrap_or(i64::MAX);
        match self.repeat {
            Repeat::Harmless | Repeat::Conditional => true,
            Repeat::Keyed => (-CLOCK_SLACK_MILLIS..ttl_millis).contains(&now.millis_since(since)),
            Repeat::Doubtful => false,
        }
    }
}
