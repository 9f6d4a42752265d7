//! The answer to a POST that is a representation of its target, and says so: it is kept for later reads (RFC 9110 section
//! 9.3.3). Whether it is one is the policy's to say.
//!
//! The client reads the body as it grows, and the store has it whole before the client sees its end, as with a fill; it
//! goes on without the client. Bounds are those of a fill ([`super::keeping`]); nobody else can follow it.

use std::sync::Arc;

use http::Response;
use tracing::debug;

use super::{
    Gateway,
    body::Body,
    growing::{BrokenOff, Growing},
    keeping::{Keeping, Whole},
};
use crate::{
    policy::{CacheKey, StoredHead},
    store::{Published, Ticket},
    upstream::ResponseBody,
};

/// What is to be stored of an answer, once its body is whole.
pub(crate) struct Kept {
    /// Where it is filed.
    pub(crate) key: CacheKey,
    /// Its head.
    pub(crate) head: Box<StoredHead>,
    /// What was current when the target was invalidated: a purge since then wins.
    pub(crate) ticket: Ticket,
}

/// Whether a body can be kept whole at all.
pub(crate) fn may_be_kept(gateway: &Gateway, body: &ResponseBody) -> bool {
    let length = http_body::Body::size_hint(body).lower();
    !body.is_close_delimited() && length <= gateway.max_object_bytes
}

/// Hands an answer on as it comes, and publishes it when it is whole.
pub(crate) fn keep(
    gateway: &Arc<Gateway>,
    kept: Kept,
    response: Response<ResponseBody>,
) -> Response<Body> {
    let growing = Arc::new(Growing::default());
    let reader = growing.reader().expect("nobody reads it yet");
    let length = http_body::Body::size_hint(response.body()).exact();
    let (head, body) = response.into_parts();
    let tasks = gateway.tasks.clone();
    let gateway = Arc::clone(gateway);
    tasks.spawn(async move {
        let ending = Ending(growing);
        let growing = &ending.0;
        let keeping = Keeping::new(growing, &gateway.in_flight_bytes, gateway.max_object_bytes);
        match keeping.copy(body).await {
            Ok((Whole::Kept(body), trailers)) => {
                let (key, head) = (&kept.key, *kept.head);
                let published = gateway.store.publish(kept.ticket, key, head, body);
                if published != Published::Stored {
                    debug!(%key, ?published, "The answer to a POST was not stored as it should have been.");
                }
                growing.finish(Ok(trailers));
            }
            Ok((Whole::PassedOn, trailers)) => growing.finish(Ok(trailers)),
            Err(error) => debug!(key = %kept.key, %error, "A body was not copied to its end."),
        }
    });
    Response::from_parts(head, Body::growing(reader, length))
}

/// Whatever happens to the copy, its reader sees an end.
struct Ending(Arc<Growing>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.finish(Err(BrokenOff));
    }
}
