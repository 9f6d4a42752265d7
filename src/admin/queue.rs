//! `queue/items` and `queue/lanes`: what waits, and in which order.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};
use http::HeaderName;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Api,
    entries::{fields, limit},
    extract::{Parameters, Segment},
    problem::{Document, Problem},
    text,
    view::{
        Field, Page,
        queue::{
            Answer, Attempt, Delivering, Lane, Pause, Queue as QueueView, QueueItem,
            QueueItemDetail,
        },
    },
};
use crate::{
    policy::Timestamp,
    queue::{
        self, Content, Filter, Inspected, Item, ItemId, LaneListed, LanePlace, OnStuck,
        PauseListed, Queue, Repeat, Shown, State as ItemState,
    },
};

/// What is shown of a field that is sealed.
const SEALED: &str = "[sealed]";
/// What is shown of a field that is not, and should be.
const HIDDEN: &str = "[hidden]";

/// Filters, all of which must hold.
#[derive(Clone, Debug, Default, Deserialize, IntoParams, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filters {
    /// A comma list of states; without it those that have not come to their end.
    #[serde(default)]
    pub(super) state: Option<String>,
    /// The name of an upstream, or scheme and authority.
    #[serde(default)]
    pub(super) origin: Option<String>,
    /// The name of a lane, or its id.
    #[serde(default)]
    pub(super) lane: Option<String>,
    /// Accepted longer ago than this, such as `1h30m`.
    #[serde(default)]
    pub(super) age: Option<String>,
    /// The method, URL, lane, id or reason contains this text.
    #[serde(default)]
    pub(super) q: Option<String>,
}

/// Filters and paging.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParameters {
    /// A comma list of states; without it those that have not come to their end.
    state: Option<String>,
    /// The name of an upstream, or scheme and authority.
    origin: Option<String>,
    /// The name of a lane, or its id.
    lane: Option<String>,
    /// Accepted longer ago than this, such as `1h30m`.
    age: Option<String>,
    /// The method, URL, lane, id or reason contains this text.
    q: Option<String>,
    /// At most this many items: 1 to 1000, 100 without it.
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Which lanes, and paging.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LaneParameters {
    /// The name of an upstream, or scheme and authority.
    origin: Option<String>,
    /// At most this many items: 1 to 1000, 100 without it.
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Queued writes in order of acceptance, page by page. A page may be short, even empty, and still have a next one: at most
/// 20,000 writes are looked at for one.
#[utoipa::path(get, path = "/api/v1/queue/items", tag = "queue", params(ListParameters),
    responses((status = 200, body = Page<QueueItem>), (status = 400, body = Document)))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<Page<QueueItem>>, Problem> {
    let limit = limit(parameters.limit)?;
    let cursor = parameters.cursor.as_deref().map(|cursor| {
        let id = cursor.parse::<ItemId>();
        id.map_err(|_| Problem::bad_request("`cursor` is not one of this list"))
    });
    let filter = parameters.filters().checked(api.clock.now())?;
    let page = api.queue.list(&filter, cursor.transpose()?, limit).await?;
    Ok(Json(Page {
        items: page.items.iter().map(item).collect(),
        next_cursor: page.next.map(|id| id.to_string()),
    }))
}

/// One queued write, or the receipt of one.
#[utoipa::path(get, path = "/api/v1/queue/items/{id}", tag = "queue", params(("id" = String, Path)),
    responses((status = 200, body = QueueItemDetail), (status = 404, body = Document)))]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Segment(id): Segment,
) -> Result<Json<QueueItemDetail>, Problem> {
    let inspected = api.queue.inspect(item_id(&id)?).await?;
    Ok(Json(detail(&api.queue, &inspected)))
}

/// The lanes that are not empty, by origin.
#[utoipa::path(get, path = "/api/v1/queue/lanes", tag = "queue", params(LaneParameters),
    responses((status = 200, body = Page<Lane>), (status = 400, body = Document)))]
pub(super) async fn lanes(
    State(api): State<Arc<Api>>,
    Parameters(parameters): Parameters<LaneParameters>,
) -> Result<Json<Page<Lane>>, Problem> {
    let limit = limit(parameters.limit)?;
    let cursor = parameters.cursor.as_deref().map(|cursor| {
        let place = cursor.parse::<LanePlace>();
        place.map_err(|_| Problem::bad_request("`cursor` is not one of this list"))
    });
    let (origin, cursor) = (parameters.origin.as_deref(), cursor.transpose()?);
    let page = api.queue.lanes(origin, cursor.as_ref(), limit).await?;
    Ok(Json(Page {
        items: page.items.iter().map(lane).collect(),
        next_cursor: page.next.map(|place| place.to_string()),
    }))
}

impl ListParameters {
    fn filters(self) -> Filters {
        Filters {
            state: self.state,
            origin: self.origin,
            lane: self.lane,
            age: self.age,
            q: self.q,
        }
    }
}

impl Filters {
    pub(super) fn checked(self, now: Timestamp) -> Result<Filter, Problem> {
        let state = |name: &str| {
            let known = ItemState::NAMES.iter().find(|known| **known == name.trim());
            known
                .copied()
                .ok_or_else(|| Problem::bad_request(format!("`{name}` is no value of `state`")))
        };
        let states = self.state.as_deref();
        let states = states.map(|list| list.split(',').map(state).collect::<Result<_, _>>());
        let age = self.age.as_deref().map(|age| {
            let age = text::parse_duration(age);
            age.ok_or_else(|| Problem::bad_request("`age` is a duration such as `30m` or `1h30m`"))
        });
        let before = age.transpose()?.map(|age| {
            let age_millis = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            Timestamp::from_millis(now.as_millis().saturating_sub(age_millis))
        });
        Ok(Filter {
            states: states.transpose()?,
            origin: self.origin,
            lane: self.lane,
            accepted_before: before,
            text: self.q,
        })
    }
}

/// The id of a queued write in a path.
pub(super) fn item_id(id: &str) -> Result<ItemId, Problem> {
    id.parse()
        .map_err(|_| Problem::not_found(format!("there is no queued write `{id}`")))
}

/// The summary in `status`.
pub(super) fn summary(api: &Api, now: Timestamp) -> QueueView {
    let summary = api.queue.summary();
    let config = api.queue.config();
    let states = ItemState::NAMES.iter().zip(summary.counts);
    let left = states.take(ItemState::NAMES.len() - ENDED_STATES);
    QueueView {
        items: left
            .map(|(name, count)| ((*name).to_owned(), count as u64))
            .collect(),
        bytes: summary.bytes,
        capacity_items: config.max_items as u64,
        capacity_bytes: config.max_bytes,
        oldest_age_secs: summary.oldest.map(|oldest| age_secs(oldest, now)),
        pauses: summary.pauses.iter().map(pause).collect(),
        origins: summary.origins.iter().map(delivering).collect(),
        damaged: summary.damaged,
        suspended: summary.is_suspended,
        closed: summary.is_closed,
        seals_credentials: summary.can_seal,
    }
}

/// `done` and `cancelled`, the last two names.
pub(super) const ENDED_STATES: usize = 2;

/// A clock that was set back makes nothing younger than new.
pub(super) fn age_secs(since: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.millis_since(since)).unwrap_or(0) / 1_000
}

pub(super) fn item(shown: &Shown) -> QueueItem {
    item_view(&shown.item, shown.blocked_by)
}

/// A write that was just changed: whether another goes first is not known to whoever changed it.
pub(super) fn item_view(item: &Item, blocked_by: Option<ItemId>) -> QueueItem {
    QueueItem {
        id: item.id.to_string(),
        state: item.state.as_str().to_owned(),
        reason: item.state.reason().map(str::to_owned),
        origin: item.origin.to_string(),
        route: item.route.clone(),
        lane: item.lane.clone(),
        lane_id: item.lane_id.to_string(),
        seq: item.seq,
        method: item.method.clone(),
        url: item.url.clone(),
        body_sha256: hex(&item.body_sha256),
        body_bytes: item.body_bytes,
        idempotency_key: item.idempotency_key.clone(),
        attempts: item.attempts,
        accepted_at: text::rfc3339(item.accepted_at),
        next_at: item.state.is_pending().then(|| text::rfc3339(item.next_at)),
        blocked_by: blocked_by.map(|id| id.to_string()),
        last: item.last.as_ref().map(attempt),
        remark: item.remark.clone(),
        ended_at: item.ended_at.map(text::rfc3339),
    }
}

pub(super) fn pause(pause: &PauseListed) -> Pause {
    Pause {
        origin: pause.origin.as_ref().map(ToString::to_string),
        since: text::rfc3339(pause.since),
        reason: pause.reason.clone(),
    }
}

fn attempt(attempt: &queue::Attempt) -> Attempt {
    Attempt {
        at: text::rfc3339(attempt.at),
        took_ms: attempt.took_millis,
        status: attempt.status,
        error: attempt.error.clone(),
    }
}

fn detail(queue: &Queue, inspected: &Inspected) -> QueueItemDetail {
    let shown = &inspected.shown;
    let write = &shown.item;
    QueueItemDetail {
        item: item(shown),
        repeat: repeat_name(write.repeat).to_owned(),
        on_stuck: on_stuck_name(write.on_stuck).to_owned(),
        ambiguous_since: write.ambiguous_since.map(text::rfc3339),
        floor_until: write.floor_until.map(text::rfc3339),
        revived_at: write.revived.map(|revival| text::rfc3339(revival.at)),
        weight_bytes: write.weight_bytes,
        headers: inspected.content.as_ref().map(|content| {
            // What became sensitive since it was stored is hidden too.
            redacted(content, |name| queue.is_sensitive(name))
        }),
        answer: inspected.answer.as_ref().map(answer),
        links: links(write),
    }
}

/// The fields of the request, without what is sealed or should be.
fn redacted(content: &Content, is_sensitive: impl Fn(&HeaderName) -> bool) -> Vec<Field> {
    let is_sensitive =
        |name: &str| HeaderName::try_from(name).is_ok_and(|name| is_sensitive(&name));
    let shown = content.fields.iter().map(|(name, value)| Field {
        name: name.clone(),
        value: match is_sensitive(name) {
            true => HIDDEN.to_owned(),
            false => String::from_utf8_lossy(value).into_owned(),
        },
    });
    let names = content.sealed.iter().flat_map(|sealed| &sealed.names);
    let sealed = names.map(|name| Field {
        name: name.clone(),
        value: SEALED.to_owned(),
    });
    shown.chain(sealed).collect()
}

fn answer(answer: &queue::Answer) -> Answer {
    let headers = answer.fields.iter();
    Answer {
        status: answer.status,
        headers: fields(headers.map(|(name, value)| (name.as_str(), value.as_slice()))),
        body_bytes: answer.body.len() as u64,
        truncated: answer.is_truncated,
    }
}

/// Where it is, and what can be done with it in this state.
fn links(write: &Item) -> BTreeMap<String, String> {
    let id = write.id;
    let own = format!("/api/v1/queue/items/{id}");
    let receipt = format!("/.well-known/hardtack/queue/{id}");
    let state = write.state;
    let is_retriable = state.is_stuck() || state == ItemState::Waiting;
    let is_droppable = !state.is_ended() && state != ItemState::Sending;
    let actions = [
        ("retry", is_retriable),
        ("drop", is_droppable),
        ("edit", state.is_stuck()),
        ("resolve", state.is_stuck()),
    ];
    let actions = actions.into_iter().filter(|(_, holds)| *holds);
    let actions = actions.map(|(name, _)| (name.to_owned(), format!("{own}/{name}")));
    let always = [
        ("self".to_owned(), own.clone()),
        ("receipt".to_owned(), receipt),
    ];
    always.into_iter().chain(actions).collect()
}

fn lane(lane: &LaneListed) -> Lane {
    let is_halted = lane.head_state.is_stuck();
    Lane {
        id: lane.id.to_string(),
        name: lane.name.clone(),
        origin: lane.origin.to_string(),
        items: lane.items as u64,
        head: lane.head.to_string(),
        head_state: lane.head_state.as_str().to_owned(),
        head_reason: lane.head_state.reason().map(str::to_owned),
        halted: is_halted,
        oldest: text::rfc3339(lane.oldest),
        next_at: (!is_halted).then(|| text::rfc3339(lane.next_at)),
    }
}

fn delivering(status: &queue::OriginStatus) -> Delivering {
    Delivering {
        origin: status.origin.to_string(),
        phase: status.phase.as_str().to_owned(),
        since: text::rfc3339(status.since),
        remark: status.remark.clone(),
    }
}

const fn repeat_name(repeat: Repeat) -> &'static str {
    match repeat {
        Repeat::Harmless => "harmless",
        Repeat::Keyed => "keyed",
        Repeat::Conditional => "conditional",
        Repeat::Doubtful => "doubtful",
    }
}

const fn on_stuck_name(on_stuck: OnStuck) -> &'static str {
    match on_stuck {
        OnStuck::Halt => "halt",
        OnStuck::Continue => "continue",
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything written to it");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::{Filters, redacted};
    use crate::{
        policy::Timestamp,
        queue::{Content, Sealed, StoredBody},
    };

    const NOW: Timestamp = Timestamp::from_secs(10_000);

    #[test]
    fn filters_take_states_and_an_age() {
        let filters = Filters {
            state: Some("parked, dead".to_owned()),
            age: Some("1h".to_owned()),
            ..Filters::default()
        };
        let filter = filters.checked(NOW).unwrap();
        assert_eq!(filter.states.as_deref(), Some(&["parked", "dead"][..]));
        assert_eq!(filter.accepted_before, Some(Timestamp::from_secs(6_400)));
        for (state, age) in [(Some("old"), None), (Some(""), None), (None, Some("1"))] {
            let filters = Filters {
                state: state.map(str::to_owned),
                age: age.map(str::to_owned),
                ..Filters::default()
            };
            assert!(filters.checked(NOW).is_err(), "{state:?} {age:?}");
        }
    }

    #[test]
    fn of_a_sealed_field_only_the_name_is_shown() {
        let content = Content {
            fields: ["accept", "x-token"]
                .map(|name| (name.to_owned(), b"*/*".to_vec()))
                .to_vec(),
            sealed: Some(Sealed {
                names: vec!["authorization".to_owned()],
                key_id: [0; 8],
                nonce: [0; 12],
                ciphertext: Vec::new(),
            }),
            body: StoredBody::Inline(bytes::Bytes::new()),
        };
        let shown = redacted(&content, |name| name == "x-token");
        let shown: Vec<_> = shown
            .iter()
            .map(|field| (&*field.name, &*field.value))
            .collect();
        assert_eq!(
            shown,
            [
                ("accept", "*/*"),
                ("x-token", "[hidden]"),
                ("authorization", "[sealed]"),
            ]
        );
    }
}
