//! Writes whose records are damaged: made again from what is left, and shown to an operator.

use super::super::{
    item::{
        Content, Dead, Item, ItemId, OnStuck, Origin, Parked, PendingReads, Repeat, State,
        StoredBody,
    },
    lane::LaneId,
};
use crate::policy::Timestamp;

/// Whether a write had come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HadEnded {
    Yes,
    Unknown,
}

const FROM_CONTENT: &str = "The record of its progress is damaged; it may have been delivered.";
const WITHOUT_CONTENT: &str = "Its fields and its body are damaged.";
const FROM_SCAN: &str = "It was found in what is left of a damaged database, perhaps as it was some time ago; it may have been \
                         delivered, or taken back.";
const ENDED_SINCE: &str = "It was found in what is left of a damaged database, where it had come to its end: it was delivered, or \
                           taken back.";
const PLACEHOLDER: &str = "Its records are damaged; nothing is known but that it was accepted.";

/// The write as it was accepted, parked: what became of it since is not known.
pub(super) fn from_content(accepted: Item) -> Item {
    park(accepted, FROM_CONTENT)
}

/// A write as it was found in a damaged database that has, or may have, lost commits: it is not known whether it became anything else since. One that
/// is stuck stays what it is; `had_ended`, where another record says so.
pub(super) fn from_scan(item: Item, had_ended: HadEnded) -> Item {
    let remark = match had_ended {
        HadEnded::Yes => ENDED_SINCE,
        HadEnded::Unknown => FROM_SCAN,
    };
    match item.state.is_stuck() {
        true => Item {
            remark: Some(remark.to_owned()),
            ..item
        },
        false => park(item, remark),
    }
}

/// A write that can never be sent, because what would be sent is lost.
pub(super) fn without_content(item: Item) -> Item {
    Item {
        state: State::Dead(Dead::Corrupt),
        remark: Some(WITHOUT_CONTENT.to_owned()),
        ..item
    }
}

/// In place of a content that is lost: no body answers to it.
pub(super) fn lost_content() -> Content {
    Content {
        fields: Vec::new(),
        sealed: None,
        body: StoredBody::File {
            name: "lost".to_owned(),
            bytes: 0,
            checksum: 0,
        },
    }
}

fn park(item: Item, remark: &str) -> Item {
    Item {
        state: State::Parked(Parked::Ambiguous),
        ambiguous_since: item.ambiguous_since.or(Some(item.accepted_at)),
        remark: Some(remark.to_owned()),
        ..item
    }
}

/// A write of which only the id is left.
pub(super) fn placeholder(id: ItemId) -> Item {
    let origin = Origin::Upstream(String::new());
    Item {
        id,
        seq: 0,
        state: State::Dead(Dead::Corrupt),
        lane_id: LaneId::new(&origin, ""),
        origin,
        route: String::new(),
        lane: String::new(),
        on_stuck: OnStuck::Continue,
        method: String::new(),
        url: String::new(),
        stored_under: String::new(),
        base_path: String::new(),
        principal: String::new(),
        client: 0,
        address: 0,
        body_bytes: 0,
        body_sha256: [0; 32],
        weight_bytes: 0,
        repeat: Repeat::Doubtful,
        idempotency_key: None,
        is_client_key: false,
        is_key_honoured: false,
        idempotency_ttl: std::time::Duration::ZERO,
        trust_503: false,
        answers_html: false,
        pending_reads: PendingReads::Mark,
        accepted_at: accepted_at(id),
        attempts: 0,
        ambiguous_since: None,
        next_at: accepted_at(id),
        floor_until: None,
        last: None,
        remark: Some(PLACEHOLDER.to_owned()),
        ended_at: None,
        revived: None,
    }
}

/// The time in an id.
fn accepted_at(id: ItemId) -> Timestamp {
    let millis = u128::from_be_bytes(*id.as_bytes()) >> 80;
    Timestamp::from_millis(i64::try_from(millis).unwrap_or_default())
}
