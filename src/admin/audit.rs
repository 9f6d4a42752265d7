//! `audit`: who changed what, when. The last 10,000 changes are kept, in the queue's journal.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State};
use serde::Deserialize;
use tracing::warn;
use utoipa::IntoParams;

use super::{
    Api,
    entries::limit,
    extract::Parameters,
    operator::Operator,
    problem::{Document, Problem},
    text,
    view::{Page, queue::Audit},
};
use crate::queue;

// What was done is done, whether or not it could be written down.
const PATIENCE: Duration = Duration::from_secs(2);

/// Paging.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Paging {
    /// At most this many items: 1 to 1000, 100 without it.
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Who changed what, the newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", params(Paging),
    responses((status = 200, body = Page<Audit>), (status = 400, body = Document)))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Parameters(paging): Parameters<Paging>,
) -> Result<Json<Page<Audit>>, Problem> {
    let limit = limit(paging.limit)?;
    let before = paging.cursor.as_deref().map(|cursor| {
        let number = cursor.parse::<u64>();
        number.map_err(|_| Problem::bad_request("`cursor` is not one of this list"))
    });
    let page = api.queue.audit(before.transpose()?, limit).await?;
    Ok(Json(Page {
        items: page.items.into_iter().map(view).collect(),
        next_cursor: page.next.map(|number| number.to_string()),
    }))
}

/// Writes down what was done elsewhere than in the queue. That fails nothing: what was done is in the log too.
pub(super) async fn note(api: &Api, operator: Operator, action: &'static str, detail: String) {
    let queue = api.queue.clone();
    let noting = api.tasks.spawn(async move {
        if let Err(error) = queue.note(&operator.to_string(), action, detail).await {
            warn!(%error, action, "Cannot write down what an operator did.");
        }
    });
    // While the disk is full it goes on behind the answer.
    let _ = tokio::time::timeout(PATIENCE, noting).await;
}

fn view(entry: queue::Audit) -> Audit {
    Audit {
        number: entry.number,
        at: text::rfc3339(entry.at),
        actor: entry.actor,
        action: entry.action,
        item: entry.item.map(|id| id.to_string()),
        detail: entry.detail,
    }
}
