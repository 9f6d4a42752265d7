//! The body of a write: whole before anything is sent, so that it can be sent again, and so that an upload that breaks off
//! reaches no origin. Up to 64 KiB in memory, beyond in a file; never more than `queue.max_item`.

use bytes::BytesMut;
use http_body::Body as _;
use http_body_util::BodyExt;
use ring::digest::{SHA256, digest};

use crate::{
    queue::{INLINE_BODY_MAX_BYTES, NewBody, Queue, SpoolFile},
    upstream::{RequestBody, WriteBody},
};

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub(super) enum GatherError {
    #[error("the body is larger than queue.max_item, {max_bytes} bytes")]
    TooLarge { max_bytes: u64 },
    #[error("the request body broke off: {0}")]
    BrokenOff(String),
    #[error("the body cannot be written to the disk")]
    Spool(#[source] std::io::Error),
}

/// Reads a body to its end.
///
/// # Errors
/// See [`GatherError`]; nothing is left behind.
pub(super) async fn gather(queue: &Queue, mut body: RequestBody) -> Result<NewBody, GatherError> {
    let max_bytes = queue.config().max_item_bytes;
    if body.size_hint().lower() > max_bytes {
        return Err(GatherError::TooLarge { max_bytes });
    }
    let mut memory = BytesMut::new();
    let mut spooled: Option<SpoolFile> = None;
    let mut read_bytes: u64 = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| GatherError::BrokenOff(error.to_string()))?;
        // Trailers belong to the message, not to its content.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        read_bytes += data.len() as u64;
        if read_bytes > max_bytes {
            return Err(GatherError::TooLarge { max_bytes });
        }
        match &mut spooled {
            Some(file) => file.write(data).await.map_err(GatherError::Spool)?,
            None if memory.len() + data.len() <= INLINE_BODY_MAX_BYTES => {
                memory.extend_from_slice(&data);
            }
            None => {
                let mut file = queue.spool().await.map_err(GatherError::Spool)?;
                let read = std::mem::take(&mut memory).freeze();
                file.write(read).await.map_err(GatherError::Spool)?;
                file.write(data).await.map_err(GatherError::Spool)?;
                spooled = Some(file);
            }
        }
    }
    match spooled {
        None => Ok(NewBody::Inline(memory.freeze())),
        Some(mut file) => {
            file.finish().await.map_err(GatherError::Spool)?;
            Ok(NewBody::Spooled(file))
        }
    }
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
