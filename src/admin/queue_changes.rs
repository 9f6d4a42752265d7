//! Changes of queued writes, one at a time, and what holds deliveries back.

use std::{future::Future, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Request, State},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

use super::{
    Api, expiry,
    extract::{self, OptionalJson, Segment},
    operator::Operator,
    problem::{Document, Kind, Problem},
    queue::{item_id, item_view, pause},
    view::queue::{Pauses, QueueItem},
};
use crate::queue::{Edit, EditedBody, EditedKey, Item, OperateError, PauseListed};

// While the disk is full nothing is recorded, and who asked is told so before the command line gives up (10 s).
const PATIENCE: Duration = Duration::from_secs(8);
// For the fields and the path of an edit, beside its body.
const EDIT_HEAD_BYTES: u64 = 256 << 10;

/// Why, for the record.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Resolution {
    /// Why, for the record.
    #[serde(default)]
    reason: Option<String>,
}

/// What to hold back, or to let go on.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Held {
    /// Only deliveries to this upstream, or to this scheme and authority; all of them without it.
    #[serde(default)]
    origin: Option<String>,
    /// Why, for the record.
    #[serde(default)]
    reason: Option<String>,
}

/// What to change of a parked or dead write. Its method, its origin and its place in its lane stay.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WantedEdit {
    /// Another path and query, as in a request.
    path: Option<String>,
    /// Fields with another value; null takes one away.
    #[serde(default)]
    headers: BTreeMap<String, Option<String>>,
    /// Another body, as text.
    body: Option<String>,
    /// Another body, in base64.
    body_base64: Option<String>,
    /// The idempotency key, where it has one: `new` (without it, because it is another write now) or `keep`.
    #[serde(default)]
    key: WantedKey,
    /// Leave it parked instead of setting it on its way.
    #[serde(default)]
    stay_parked: bool,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum WantedKey {
    #[default]
    New,
    Keep,
}

/// Sets a waiting, parked or dead write on its way again, at once. That it may have been executed counts no longer.
#[utoipa::path(post, path = "/api/v1/queue/items/{id}/retry", tag = "queue", params(("id" = String, Path)),
    responses((status = 200, body = QueueItem), (status = 404, body = Document), (status = 409, body = Document)))]
pub(super) async fn retry(
    State(api): State<Arc<Api>>,
    operator: Operator,
    Segment(id): Segment,
) -> Result<Json<QueueItem>, Problem> {
    let (id, queue) = (item_id(&id)?, api.queue.clone());
    let by = operator.to_string();
    let item = to_its_end(&api, async move { queue.retry(id, &by).await }).await?;
    Ok(changed(&api, &item))
}

/// Removes a write for good, with its receipt.
#[utoipa::path(post, path = "/api/v1/queue/items/{id}/drop", tag = "queue", params(("id" = String, Path)),
    responses((status = 200, body = QueueItem), (status = 404, body = Document), (status = 409, body = Document)))]
pub(super) async fn drop_item(
    State(api): State<Arc<Api>>,
    operator: Operator,
    Segment(id): Segment,
) -> Result<Json<QueueItem>, Problem> {
    let (id, queue) = (item_id(&id)?, api.queue.clone());
    let by = operator.to_string();
    let item = to_its_end(&api, async move { queue.drop_item(id, &by).await }).await?;
    Ok(changed(&api, &item))
}

/// Declares a parked or dead write done, without sending it.
#[utoipa::path(post, path = "/api/v1/queue/items/{id}/resolve", tag = "queue", params(("id" = String, Path)),
    request_body = Option<Resolution>,
    responses((status = 200, body = QueueItem), (status = 404, body = Document), (status = 409, body = Document)))]
pub(super) async fn resolve(
    State(api): State<Arc<Api>>,
    operator: Operator,
    Segment(id): Segment,
    OptionalJson(wanted): OptionalJson<Resolution>,
) -> Result<Json<QueueItem>, Problem> {
    let reason = expiry::reason(wanted.reason)?;
    let (id, queue) = (item_id(&id)?, api.queue.clone());
    let by = operator.to_string();
    let resolving = async move { queue.resolve(id, reason.as_deref(), &by).await };
    let item = to_its_end(&api, resolving).await?;
    Ok(changed(&api, &item))
}

/// Changes a parked or dead write and sets it on its way again.
#[utoipa::path(post, path = "/api/v1/queue/items/{id}/edit", tag = "queue", params(("id" = String, Path)),
    request_body = WantedEdit,
    responses((status = 200, body = QueueItem), (status = 400, body = Document), (status = 404, body = Document),
        (status = 409, body = Document), (status = 413, body = Document)))]
pub(super) async fn edit(
    State(api): State<Arc<Api>>,
    operator: Operator,
    Segment(id): Segment,
    request: Request,
) -> Result<Json<QueueItem>, Problem> {
    let id = item_id(&id)?;
    // In base64 a body is longer by a third.
    let limit_bytes = api.queue.config().max_item_bytes.saturating_mul(4) / 3 + EDIT_HEAD_BYTES;
    let limit_bytes = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
    let wanted: WantedEdit = extract::read_json(request, limit_bytes).await?;
    let edit = wanted.edit()?;
    let queue = api.queue.clone();
    let by = operator.to_string();
    let item = to_its_end(&api, async move { queue.edit(id, edit, &by).await }).await?;
    Ok(changed(&api, &item))
}

/// Holds deliveries back, to one origin or all, until they are resumed; also across restarts.
#[utoipa::path(post, path = "/api/v1/queue/pause", tag = "queue", request_body = Option<Held>,
    responses((status = 200, body = Pauses), (status = 404, description = "no such upstream", body = Document)))]
pub(super) async fn hold(
    State(api): State<Arc<Api>>,
    operator: Operator,
    OptionalJson(held): OptionalJson<Held>,
) -> Result<Json<Pauses>, Problem> {
    check_origin(&api, held.origin.as_deref())?;
    let reason = expiry::reason(held.reason)?;
    let queue = api.queue.clone();
    let by = operator.to_string();
    let pausing = async move { queue.pause(held.origin.as_deref(), reason, &by).await };
    Ok(pauses(&to_its_end(&api, pausing).await?))
}

/// Lets deliveries go on.
#[utoipa::path(post, path = "/api/v1/queue/resume", tag = "queue", request_body = Option<Held>,
    responses((status = 200, body = Pauses)))]
pub(super) async fn resume(
    State(api): State<Arc<Api>>,
    operator: Operator,
    OptionalJson(held): OptionalJson<Held>,
) -> Result<Json<Pauses>, Problem> {
    let queue = api.queue.clone();
    let by = operator.to_string();
    let resuming = async move { queue.resume(held.origin.as_deref(), &by).await };
    Ok(pauses(&to_its_end(&api, resuming).await?))
}

/// Lets a change come to its end although whoever asked for it may hang up, and waits 8 s for it.
pub(super) async fn to_its_end<T: Send + 'static>(
    api: &Api,
    change: impl Future<Output = Result<T, OperateError>> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::time::timeout(PATIENCE, api.tasks.spawn(change)).await {
        Ok(Ok(changed)) => Ok(changed?),
        Ok(Err(_panicked)) => Err(Problem::new(Kind::Internal, "the change failed")),
        Err(_elapsed) => Err(Problem::new(
            Kind::QueueUnavailable,
            "the change is not on disk yet; it will be as soon as it can be written",
        )),
    }
}

fn changed(api: &Api, item: &Item) -> Json<QueueItem> {
    Json(item_view(item, api.queue.blocked_by(item.id)))
}

fn pauses(listed: &[PauseListed]) -> Json<Pauses> {
    Json(Pauses {
        pauses: listed.iter().map(pause).collect(),
    })
}

/// A name that no upstream has is a slip of the pen; of the others, one that was never seen may come.
fn check_origin(api: &Api, origin: Option<&str>) -> Result<(), Problem> {
    match origin {
        Some(name) if !name.contains("://") && api.upstreams.named(name).is_none() => {
            Err(Problem::not_found(format!("there is no upstream `{name}`")))
        }
        _ => Ok(()),
    }
}

impl WantedEdit {
    fn edit(self) -> Result<Edit, Problem> {
        let body = match (self.body, self.body_base64) {
            (None, None) => EditedBody::Same,
            (Some(text), None) => EditedBody::New(Bytes::from(text)),
            (None, Some(encoded)) => EditedBody::New(decoded(&encoded)?),
            (Some(_), Some(_)) => {
                return Err(Problem::bad_request(
                    "give either `body` or `body_base64`, not both",
                ));
            }
        };
        let fields = self.headers.into_iter().map(|(name, value)| {
            let value = value.map(String::into_bytes);
            (name.to_ascii_lowercase(), value)
        });
        Ok(Edit {
            path: self.path,
            fields: fields.collect(),
            body,
            key: match self.key {
                WantedKey::New => EditedKey::New,
                WantedKey::Keep => EditedKey::Same,
            },
            stays_parked: self.stay_parked,
        })
    }
}

fn decoded(encoded: &str) -> Result<Bytes, Problem> {
    let decoded = STANDARD.decode(encoded).map(Bytes::from);
    decoded.map_err(|_| Problem::bad_request("`body_base64` is not base64"))
}
