//! The body of a write: gathered whole before anything is sent ([`Gathering`](crate::queue::Gathering) says where), and sent from
//! there.

use http_body::Body as _;
use http_body_util::BodyExt;
use ring::digest::{SHA256, digest};

use crate::{
    queue::{NewBody, Queue, Refused},
    upstream::{RequestBody, WriteBody},
};

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub(super) enum GatherError {
    #[error("the request body broke off: {0}")]
    BrokenOff(String),
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Reads a body to its end.
///
/// # Errors
/// See [`GatherError`]; nothing is left behind.
pub(super) async fn gather(queue: &Queue, mut body: RequestBody) -> Result<NewBody, GatherError> {
    let mut gathering = queue.gather(body.size_hint().lower())?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| GatherError::BrokenOff(error.to_string()))?;
        // Trailers belong to the message, not to its content.
        if let Ok(data) = frame.into_data() {
            gathering.add(data).await?;
        }
    }
    Ok(gathering.finish())
}

/// SHA-256 of a gathered body.
pub(super) fn sha256(body: &NewBody) -> [u8; 32] {
    match body {
        NewBody::Inline(bytes) => {
            let mut hash = [0; 32];
            hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
            hash
        }
        NewBody::Spooled(file) => file.sha256(),
    }
}

/// The same body, to be sent.
pub(super) fn to_send(body: &NewBody) -> WriteBody {
    match body {
        NewBody::Inline(bytes) => WriteBody::Memory(bytes.clone()),
        NewBody::Spooled(file) => WriteBody::File {
            path: file.path().to_owned(),
            length_bytes: file.bytes(),
        },
    }
}
