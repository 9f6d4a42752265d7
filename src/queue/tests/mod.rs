//! What the tests of the queue share.

use std::{path::PathBuf, time::Duration};

use super::{
    Config, Item, ItemId, LaneId, OnStuck, Origin, PendingReads, Repeat, ReplayRate, State,
};
use crate::policy::Timestamp;

/// A queue without room for more than tests need.
pub(super) fn config() -> Config {
    Config {
        dir: PathBuf::new(),
        max_items: 1_000,
        max_bytes: 1 << 30,
        max_item_bytes: 8 << 20,
        max_lane_items: 1_000,
        max_client_items: 1_000,
        max_age: Duration::from_secs(72 * 60 * 60),
        max_attempts: 50,
        replay_rate: ReplayRate {
            deliveries: 1_000,
            per: Duration::from_secs(1),
        },
        recovery_spread: Duration::ZERO,
        receipt_ttl: Duration::from_secs(24 * 60 * 60),
        key_file: None,
        sensitive_headers: Vec::new(),
    }
}

/// A write that was just accepted.
pub(super) fn item() -> Item {
    let origin = Origin::Upstream("api".to_owned());
    Item {
        id: ItemId::from_bytes([0; 16]),
        seq: 0,
        state: State::Queued,
        route: "orders".to_owned(),
        lane: "route:orders".to_owned(),
        lane_id: LaneId::new(&origin, "route:orders"),
        origin,
        on_stuck: OnStuck::Halt,
        method: "POST".to_owned(),
        url: "http://api.example/orders".to_owned(),
        stored_under: "http://api.example/orders".to_owned(),
        base_path: String::new(),
        principal: String::new(),
        client: 0,
        address: 0,
        body_bytes: 0,
        body_sha256: [0; 32],
        weight_bytes: 1_000,
        repeat: Repeat::Doubtful,
        idempotency_key: None,
        is_client_key: false,
        is_key_honoured: false,
        idempotency_ttl: Duration::from_secs(24 * 60 * 60),
        trust_503: false,
        answers_html: false,
        pending_reads: PendingReads::Mark,
        accepted_at: Timestamp::from_secs(0),
        attempts: 0,
        ambiguous_since: None,
        next_at: Timestamp::from_secs(0),
        floor_until: None,
        last: None,
        remark: None,
        ended_at: None,
        revived: None,
    }
}
