//! What the API says of queued writes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Field;

/// A queued write in a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct QueueItem {
    /// Its id (UUIDv7): ids increase in order of acceptance.
    pub id: String,
    /// `queued`, `sending`, `waiting`, `parked`, `dead`, `done` or `cancelled`.
    pub state: String,
    /// Why it is parked (`conflict`, `ambiguous`, `auth`, `operator`) or dead (`rejected`, `attempts`, `expired`, `corrupt`),
    /// or how it came to be done (`assumed`, `resolved`).
    #[schema(required)]
    pub reason: Option<String>,
    /// Where it goes: the name of an upstream, or scheme and authority of a forward-proxied request.
    pub origin: String,
    /// The route that took it.
    pub route: String,
    /// The name of its lane, unique within the origin.
    pub lane: String,
    /// The id of its lane.
    pub lane_id: String,
    /// Running number in order of acceptance.
    pub seq: u64,
    /// Its method.
    pub method: String,
    /// The effective upstream URI.
    pub url: String,
    /// SHA-256 of its body, in hexadecimal digits.
    pub body_sha256: String,
    /// Bytes of its body.
    pub body_bytes: u64,
    /// The key it is sent with.
    #[schema(required)]
    pub idempotency_key: Option<String>,
    /// Attempts that reached the origin.
    pub attempts: u32,
    /// When it was accepted (RFC 3339).
    pub accepted_at: String,
    /// Before when it is not tried (RFC 3339); null when it is not to be tried.
    #[schema(required)]
    pub next_at: Option<String>,
    /// The write at the head of its lane, which goes first.
    #[schema(required)]
    pub blocked_by: Option<String>,
    /// The last attempt.
    #[schema(required)]
    pub last: Option<Attempt>,
    /// What an operator should know.
    #[schema(required)]
    pub remark: Option<String>,
    /// When it came to its end (RFC 3339).
    #[schema(required)]
    pub ended_at: Option<String>,
}

/// An attempt to deliver a write.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Attempt {
    /// When it began (RFC 3339).
    pub at: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// The origin's status.
    #[schema(required)]
    pub status: Option<u16>,
    /// What went wrong, when there was no answer.
    #[schema(required)]
    pub error: Option<String>,
}

/// A queued write with everything that may be shown of it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct QueueItemDetail {
    /// What a list says of it.
    #[serde(flatten)]
    pub item: QueueItem,
    /// What a second sending may do: `harmless`, `keyed`, `conditional` or `doubtful`.
    pub repeat: String,
    /// What it does to its lane when it is parked or dead: `halt` or `continue`.
    pub on_stuck: String,
    /// Since when it may have been executed without anybody's knowing (RFC 3339).
    #[schema(required)]
    pub ambiguous_since: Option<String>,
    /// Until when its origin asked to be left alone (RFC 3339).
    #[schema(required)]
    pub floor_until: Option<String>,
    /// When an operator last set it on its way again (RFC 3339).
    #[schema(required)]
    pub revived_at: Option<String>,
    /// What it counts toward `queue.max_bytes`.
    pub weight_bytes: u64,
    /// The fields it is sent with; of those that are sealed the value is `[sealed]`. Null when it has ended, or its record
    /// is damaged.
    #[schema(required)]
    pub headers: Option<Vec<Field>>,
    /// The origin's answer.
    #[schema(required)]
    pub answer: Option<Answer>,
    /// What can be done with it now, and where: `self`, `receipt`, and for example `retry`.
    pub links: BTreeMap<String, String>,
}

/// The origin's answer to a write.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its fields, except that cookies are hidden.
    pub headers: Vec<Field>,
    /// Bytes of its body that are kept.
    pub body_bytes: u64,
    /// Whether there were more.
    pub truncated: bool,
}

/// A lane: what is delivered one after the other.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Lane {
    /// Its id.
    pub id: String,
    /// Its name, unique within the origin.
    pub name: String,
    /// Where it goes.
    pub origin: String,
    /// How many writes are in it.
    pub items: u64,
    /// The write at its head.
    pub head: String,
    /// The state of its head.
    pub head_state: String,
    /// Why its head is parked or dead.
    #[schema(required)]
    pub head_reason: Option<String>,
    /// Whether it stands until an operator has seen to its head.
    pub halted: bool,
    /// When its head was accepted (RFC 3339).
    pub oldest: String,
    /// Before when its head is not tried (RFC 3339); null when it is halted.
    #[schema(required)]
    pub next_at: Option<String>,
}

/// Deliveries that are held back.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Pause {
    /// To where; null: all of them.
    #[schema(required)]
    pub origin: Option<String>,
    /// Since when (RFC 3339).
    pub since: String,
    /// Why, for the record.
    #[schema(required)]
    pub reason: Option<String>,
}

/// What is paused.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Pauses {
    /// Every pause in force.
    pub pauses: Vec<Pause>,
}

/// The queue at a glance.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Queue {
    /// Writes by state; ended ones are not counted.
    pub items: BTreeMap<String, u64>,
    /// What they weigh.
    pub bytes: u64,
    /// How many there may be.
    pub capacity_items: u64,
    /// What they may weigh.
    pub capacity_bytes: u64,
    /// Age of the oldest.
    #[schema(required)]
    pub oldest_age_secs: Option<u64>,
    /// What is held back.
    pub pauses: Vec<Pause>,
    /// How far the deliveries to each origin are; only those that have some.
    pub origins: Vec<Delivering>,
    /// Records and bodies that turned out damaged, since the start.
    pub damaged: u64,
    /// Whether no write is accepted because the disk is full, or nearly.
    pub suspended: bool,
    /// Whether no write is accepted or delivered before a restart, after an error of the gateway's own.
    #[serde(default)]
    pub closed: bool,
    /// Whether there is a key to seal credentials with (`queue.key_file`): without one, writes that have some are refused.
    pub seals_credentials: bool,
}

/// How far the deliveries to an origin are.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Delivering {
    /// Where to.
    pub origin: String,
    /// `disconnected`, `recovering`, `captive`, `canary`, `slow-start` or `steady`.
    pub phase: String,
    /// Since when (RFC 3339).
    pub since: String,
    /// What was seen of what answers in its place.
    #[schema(required)]
    pub remark: Option<String>,
}

/// Work on many writes, planned, under way or ended.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// Its id. It is forgotten 10 min after it was planned or has ended, and at the end of the process.
    pub id: String,
    /// `planned`, `running` or `ended`.
    pub state: String,
    /// How many writes it is about.
    pub total: u64,
    /// How many it was done to.
    pub done: u64,
    /// To how many it could not be done.
    pub failed: u64,
    /// Some of the writes, at most 20.
    pub sample: Vec<String>,
    /// Why it could not be done to some, at most 20.
    pub failures: Vec<Failure>,
}

/// Why something could not be done to a write.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// Its id.
    pub id: String,
    /// Why.
    pub why: String,
}

/// What became of an import.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Imported {
    /// Writes that are in the queue now.
    pub imported: u64,
    /// Writes that were there already.
    pub known: u64,
    /// Lines that were refused.
    pub refused: u64,
    /// Why some were, at most 100.
    pub refusals: Vec<Refusal>,
}

/// A line of an import that was refused.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Refusal {
    /// Its number, from 1.
    pub line: u64,
    /// Why.
    pub why: String,
}

/// Who changed what, when.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Audit {
    /// Its running number.
    pub number: u64,
    /// When (RFC 3339).
    pub at: String,
    /// Which token, from where.
    pub actor: String,
    /// What was done: `retry`, `drop`, `edit`, `resolve`, `redrive`, `pause`, `resume`, `import`, `mode`, `override`,
    /// `purge`.
    pub action: String,
    /// To which queued write.
    #[schema(required)]
    pub item: Option<String>,
    /// In a sentence.
    pub detail: String,
}
