//! Receipts, for clients: what has become of a queued write, and what the origin said to it.
//!
//! Whoever reads or takes back a write shows the credential that it was sent with, or comes from the address that it came from
//! without one; or shows the admin token. To anybody else there is no such write.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{Path, State as Extracted},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use http::HeaderValue;
use serde_json::json;
use tracing::warn;

use super::{
    prefer::{PREFERENCE_APPLIED, Preferences},
    principal, receipt, settled,
};
use crate::{
    proxy::{Gateway, Shown, own_paths::Asker},
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

async fn show((Extracted(gateway), Path(id), Extension(asker), headers): Asked) -> Response {
    let item = match find(&gateway, &id, asker, &headers).await {
        Ok(item) => item,
        Err(refusal) => return refusal,
    };
    let preferences = Preferences::of(&headers);
    let Some(wait) = preferences.wait else {
        return shown(&gateway, &item).await;
    };
    let item = settled(&gateway, item, wait).await;
    let mut response = shown(&gateway, &item).await;
    let applied = Preferences {
        respond_async: false,
        ..preferences
    };
    if let Some(value) = applied
        .applied()
        .and_then(|text| HeaderValue::try_from(text).ok())
    {
        response.headers_mut().insert(PREFERENCE_APPLIED, value);
    }
    response
}

async fn shown(gateway: &Gateway, item: &Item) -> Response {
    let mut value = receipt::receipt(gateway, item);
    // What cannot be read now is left out: the state is what counts.
    if let Ok(Some(answer)) = gateway.queue.answer(item.id).await {
        value["response"] = receipt::head_of(&answer);
    }
    let mut response = json_response(StatusCode::OK, &value);
    if item.state.is_pending() {
        let secs = receipt::retry_after_secs(item, gateway.clock.now());
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    response
}

async fn response((Extracted(gateway), Path(id), Extension(asker), headers): Asked) -> Response {
    let item = match find(&gateway, &id, asker, &headers).await {
        Ok(item) => item,
        Err(refusal) => return refusal,
    };
    match gateway.queue.answer(item.id).await {
        Ok(Some(answer)) => {
            let mut response = receipt::of_origin(&answer).map(axum::body::Body::new);
            let headers = response.headers_mut();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Ok(None) => refusal(StatusCode::NOT_FOUND, "the origin has not answered it"),
        Err(error) => unreadable(&error),
    }
}

async fn take_back((Extracted(gateway), Path(id), Extension(asker), headers): Asked) -> Response {
    let item = match find(&gateway, &id, asker, &headers).await {
        Ok(item) => item,
        Err(refusal) => return refusal,
    };
    let queue = gateway.queue.clone();
    // To its end, whatever the client does.
    let cancelling = gateway
        .tasks
        .spawn(async move { queue.cancel(item.id).await });
    match cancelling.await {
        Ok(Ok(item)) => json_response(StatusCode::OK, &receipt::receipt(&gateway, &item)),
        Ok(Err(error @ CancelError::TooLate(_))) => {
            refusal(StatusCode::CONFLICT, &error.to_string())
        }
        Ok(Err(CancelError::Unknown)) => missing(),
        Ok(Err(error)) => {
            warn!(%error, "A write could not be taken back.");
            refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                "the queue cannot be written now",
            )
        }
        Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "a fault of the gateway"),
    }
}

async fn find(
    gateway: &Gateway,
    id: &str,
    Asker(address): Asker,
    headers: &HeaderMap,
) -> Result<Item, Response> {
    let id: ItemId = id.parse().map_err(|_| missing())?;
    let item = gateway.queue.item(id).await;
    let item = item
        .map_err(|error| unreadable(&error))?
        .ok_or_else(missing)?;
    if item.principal == principal(gateway, headers, address) {
        return Ok(item);
    }
    match (gateway.is_operator)(headers.clone()).await {
        Shown::Token => Ok(item),
        Shown::NotIt => Err(missing()),
        Shown::TooManyGuesses => Err(refusal(
            StatusCode::TOO_MANY_REQUESTS,
            "too many wrong credentials at once",
        )),
    }
}

fn missing() -> Response {
    refusal(
        StatusCode::NOT_FOUND,
        "there is no such write, or it is not yours",
    )
}

fn unreadable(error: &JournalError) -> Response {
    warn!(%error, "A receipt cannot be read.");
    refusal(
        StatusCode::SERVICE_UNAVAILABLE,
        "the queue cannot be read now",
    )
}

fn refusal(status: StatusCode, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or_default();
    let document = json!({ "title": title, "status": status.as_u16(), "detail": detail });
    let mut response = json_response(status, &document);
    let headers = response.headers_mut();
    let value = HeaderValue::from_static("application/problem+json");
    headers.insert(header::CONTENT_TYPE, value);
    response
}

fn json_response(status: StatusCode, value: &serde_json::Value) -> Response {
    receipt::json_response(status, value)
        .map(axum::body::Body::new)
        .into_response()
}
