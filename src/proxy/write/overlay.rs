//! Reads while writes wait: marked with how many are pending, or answered as if the client's own were delivered.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::BodyExt;
use tracing::warn;

use super::{principal, receipt};
use crate::{
    policy::{self, Reason},
    proxy::{
        Gateway,
        access::CacheUse,
        arrival::Arrival,
        body::Body,
        effective::Effective,
        ranges::Source,
        respond::{self, Reply},
    },
    queue::{Answer, DeliveryBody, Overlay, PATCHED_MAX_BYTES, Representation},
    upstream::FileContent,
};

/// How many writes to the URL are pending.
const HARDTACK_PENDING_WRITES: HeaderName = HeaderName::from_static("hardtack-pending-writes");
/// The write that an answer comes from.
const HARDTACK_OVERLAY: HeaderName = HeaderName::from_static("hardtack-overlay");

/// Says how many writes are pending, if any are.
pub(crate) fn mark(gateway: &Gateway, effective: &Effective, headers: &mut HeaderMap) {
    let pending = gateway.queue.pending_writes(&effective.key);
    if pending > 0 {
        headers.insert(HARDTACK_PENDING_WRITES, HeaderValue::from(pending));
    }
}

/// Whether a read of this may have another answer than the stored one: then it is no plain hit.
pub(crate) fn has_overlay(gateway: &Gateway, effective: &Effective) -> bool {
    gateway.queue.pending_writes(&effective.key) > 0
}

/// The answer to a read that the client's own pending writes give; `None` where they give none.
pub(crate) async fn overlay(
    gateway: &Arc<Gateway>,
    arrival: &Arrival,
    effective: &Effective,
    method: &Method,
    headers: &HeaderMap,
) -> Option<Reply> {
    let key = effective.cache_key();
    let principal = principal(gateway, headers, arrival.client);
    let stored = stored(gateway, effective, headers);
    let found = gateway
        .queue
        .overlay(key.as_str(), &principal, stored)
        .await;
    let found = found.unwrap_or_else(|error| {
        warn!(%key, %error, "Pending writes cannot be read; the read is answered without them.");
        None
    })?;
    reply(found, method).await
}

/// `None` when the write was delivered just now: its body is gone, and what the origin made of it is the answer.
async fn reply(found: Overlay, method: &Method) -> Option<Reply> {
    let mut response = match found.representation {
        Some(representation) => whole(representation).await?,
        None => respond::text(StatusCode::NOT_FOUND, String::new()),
    };
    if *method == Method::HEAD {
        let length = http_body::Body::size_hint(response.body()).exact();
        response = Response::from_parts(response.into_parts().0, Body::empty());
        if let Some(length) = length {
            response
                .headers_mut()
                .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
    }
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let id = found.id.to_string();
    let id = HeaderValue::try_from(id).expect("hexadecimal digits and hyphens");
    headers.insert(HARDTACK_OVERLAY, id);
    Some(Reply {
        response,
        cache: CacheUse::None,
        reason: Some(Reason::Overlay),
    })
}

async fn whole(representation: Representation) -> Option<Response<Body>> {
    let mut response = receipt::of_origin(&Answer {
        status: StatusCode::OK.as_u16(),
        fields: representation.fields,
        body: Bytes::new(),
        is_truncated: false,
    });
    *response.body_mut() = match representation.body {
        DeliveryBody::Whole(body) => Body::whole(body),
        DeliveryBody::File { path, bytes } => {
            // Once it is open it stays whole, also when the write is delivered meanwhile.
            let content = FileContent::open(path, bytes).await.ok()?;
            Body::blocks(content.pieces(), bytes)
        }
    };
    Some(response)
}

/// The stored representation that a PATCH would be applied to.
async fn stored(
    gateway: &Gateway,
    effective: &Effective,
    headers: &HeaderMap,
) -> Option<Representation> {
    let key = effective.cache_key();
    let resource = gateway.store.lookup(&key).await.ok().flatten()?;
    let heads = resource.variants.iter().map(|stored| &stored.head);
    let stored = &resource.variants[policy::select(headers, heads)?];
    let is_plain = stored.head.status == StatusCode::OK
        && !stored.head.headers.contains_key(header::CONTENT_ENCODING);
    if !is_plain || stored.body.len() > PATCHED_MAX_BYTES {
        return None;
    }
    let source = Source {
        store: &gateway.store,
        key: &key,
        stored,
    };
    let body = source
        .body(0..stored.body.len())
        .collect()
        .await
        .ok()?
        .to_bytes();
    let fields = stored.head.headers.iter();
    let fields = fields.filter(|(name, _)| name.as_str().starts_with("content-"));
    let fields = fields.map(|(name, value)| (name.as_str().to_owned(), value.to_vec()));
    Some(Representation {
        fields: fields.collect(),
        body: DeliveryBody::Whole(body),
    })
}
