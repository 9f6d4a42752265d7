//! Receipts, for clients: what has become of a queued write, and what the origin said to it.
//!
//! Whoever reads or takes back a write shows the credential that it was sent with, or comes from the address that it came from
//! without one; or shows the admin token. To anybody else there is no such write: also to a client that has renewed its token
//! since, which is not taken for somebody who guesses the admin token for that (`admin::Authentication`).

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{Path, State as Extracted},
    http::{HeaderMap, StatusCode, header},
    response::Response,
    routing::get,
};
use http::HeaderValue;
use tracing::warn;

use super::{
    prefer::{PREFERENCE_APPLIED, Preferences},
    principal,
    receipt::{self, Receipt},
    settled,
};
use crate::{
    policy::Reason,
    proxy::{Gateway, Shown, own_paths::Asker, problem::Problem},
    queue::{CancelError, Item, ItemId, JournalError},
};

/// The routes of receipts.
pub(crate) fn router() -> Router<Arc<Gateway>> {
    Router::new()
        .route(
            "/.well-known/hardtack/queue/{id}",
            get(show).delete(take_back),
        )
        .route("/.well-known/hardtack/queue/{id}/response", get(response))
}

type Asked = (
    Extracted<Arc<Gateway>>,
    Path<String>,
    Extension<Asker>,
    HeaderMap,
);

/// An answer, or why there is none.
type Answered = Result<Response, Box<Problem>>;

async fn show((Extracted(gateway), Path(id), Extension(asker), headers): Asked) -> Response {
    let shown = async {
        let item = find(&gateway, &id, asker, &headers).await?;
        Ok(shown(&gateway, item, Preferences::of(&headers)).await)
    };
    answer(shown.await, asker)
}

async fn shown(gateway: &Gateway, item: Item, preferences: Preferences) -> Response {
    let item = match preferences.wait {
        Some(wait) => settled(gateway, item, wait).await,
        None => item,
    };
    // What cannot be read now is left out: the state is what counts.
    let answer = gateway.queue.answer(item.id).await.ok().flatten();
    let mut receipt = Receipt::of(gateway, &item);
    if let Some(answer) = &answer {
        receipt = receipt.answered(answer);
    }
    let mut response = json_response(receipt, &item);
    let headers = response.headers_mut();
    if item.state.is_pending() {
        let secs = receipt::retry_after_secs(&item, gateway.clock.now());
        headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    let applied = Preferences {
        respond_async: false,
        ..preferences
    };
    let applied = applied.applied();
    if let Some(Ok(value)) = applied.map(HeaderValue::try_from) {
        headers.insert(PREFERENCE_APPLIED, value);
    }
    response
}

async fn response((Extracted(gateway), Path(id), Extension(asker), headers): Asked) -> Response {
    let replayed = async {
        let item = find(&gateway, &id, asker, &headers).await?;
        let kept = gateway.queue.answer(item.id).await;
        let kept = kept.map_err(|error| unreadable(&error))?;
        let kept = kept.ok_or_else(|| not_found("the origin has not answered it"))?;
        let mut response = receipt::of_origin(&kept).map(axum::body::Body::new);
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response.extensions_mut().insert(item.id);
        Ok(response)
    };
    answer(replayed.await, asker)
}

async fn take_back((Extracted(gateway), Path(id), Extension(asker), headers): Asked) -> Response {
    let taken_back = async {
        let item = find(&gateway, &id, asker, &headers).await?;
        let queue = gateway.queue.clone();
        // To its end, whatever the client does.
        let cancelling = gateway
            .tasks
            .spawn(async move { queue.cancel(item.id).await });
        let cancelled = cancelling.await;
        let cancelled = cancelled.map_err(|_| {
            Box::new(Problem::new(
                Reason::Internal,
                "the write was not taken back",
            ))
        })?;
        let item = cancelled.map_err(|error| uncancelled(&error))?;
        Ok(json_response(Receipt::of(&gateway, &item), &item))
    };
    answer(taken_back.await, asker)
}

/// The write that is asked for, if it is the asker's.
async fn find(
    gateway: &Gateway,
    id: &str,
    asker: Asker,
    headers: &HeaderMap,
) -> Result<Item, Box<Problem>> {
    let missing = || not_found("there is no such write, or it is not yours");
    let id: ItemId = id.parse().map_err(|_| missing())?;
    let item = gateway.queue.item(id).await;
    let item = item
        .map_err(|error| unreadable(&error))?
        .ok_or_else(missing)?;
    if item.principal == principal(gateway, headers, asker.address) {
        return Ok(item);
    }
    match (gateway.is_operator)(headers.clone()).await {
        Shown::Token => Ok(item),
        Shown::NotIt => Err(missing()),
        Shown::TooManyGuesses => Err(Box::new(Problem {
            retry_after: Some(Duration::from_secs(1)),
            ..Problem::new(Reason::RateLimited, "too many wrong credentials at once")
        })),
    }
}

fn answer(answered: Answered, asker: Asker) -> Response {
    answered.unwrap_or_else(|problem| {
        let reason = problem.reason;
        let response = problem.into_response(asker.request);
        let mut response = response.map(axum::body::Body::new);
        // For the access event.
        response.extensions_mut().insert(reason);
        response
    })
}

fn not_found(what: &str) -> Box<Problem> {
    Box::new(Problem::new(Reason::NotFound, what))
}

fn unreadable(error: &JournalError) -> Box<Problem> {
    warn!(%error, "A receipt cannot be read.");
    let detail = "the queue cannot be read now";
    Box::new(Problem::new(Reason::QueueUnavailable, detail))
}

fn uncancelled(error: &CancelError) -> Box<Problem> {
    Box::new(match error {
        CancelError::TooLate(_) => Problem::new(Reason::NotInThisState, error.to_string()),
        CancelError::Unknown => Problem::new(Reason::NotFound, error.to_string()),
        CancelError::Journal(error @ JournalError::Unknown) => {
            Problem::new(Reason::OutcomeUnknown, error.to_string())
        }
        _ => {
            warn!(%error, "A write could not be taken back.");
            Problem::new(Reason::QueueUnavailable, "the queue cannot be written now")
        }
    })
}

fn json_response(receipt: Receipt<'_>, item: &Item) -> Response {
    let response = receipt.into_response(StatusCode::OK);
    let mut response = response.map(axum::body::Body::new);
    // For the access event.
    response.extensions_mut().insert(item.id);
    response
}
