//! Writes on their way upstream: on which connections they may go, and how long they may wait for a permit.
//!
//! A pooled connection that the origin closes at the very moment cannot be told from an origin that executed the request
//! and died. So a write that must not be executed twice goes on a connection of its own, and one that may is repeated
//! once when its pooled connection turns out dead.

use std::path::PathBuf;

use bytes::Bytes;
use http::{Method, Request, Response, header};

use super::{
    body::ResponseBody,
    content::FileContent,
    error::{ForwardError, of_content},
    forward::{Outgoing, Way},
    group::Upstream,
    upload::Offer,
};

/// The content of a write, whole: every attempt sends it from the beginning.
#[derive(Clone, Debug)]
pub enum WriteBody {
    /// In memory.
    Memory(Bytes),
    /// In a file that holds exactly this.
    File {
        /// The file.
        path: PathBuf,
        /// Its length.
        length_bytes: u64,
    },
}

/// How a write is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sending {
    /// Whether it may be sent twice.
    pub repeat: Repeat,
    /// Whether it waits for its turn.
    pub patience: Patience,
}

/// Whether one call may send a request twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Not idempotent and without a key that the origin honours: on a fresh connection, once.
    Never,
    /// Idempotent, conditional or keyed: on a pooled connection, and once more on a fresh one when that turns out dead.
    Once,
}

/// What to do when every permit of an upstream is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Waits in line, at most 1 s.
    Wait,
    /// Gives up at once, also when somebody else waits: live traffic goes first.
    AtOnce,
}

impl Upstream {
    /// As [`Upstream::send`], for a write with its content.
    ///
    /// # Errors
    /// As [`Upstream::send`]; [`ForwardError::Content`] when a file is not what it was said to be, and
    /// [`ForwardError::Overloaded`] at once where it is not to wait.
    pub async fn send_write(
        &self,
        request: Request<WriteBody>,
        sending: Sending,
    ) -> Result<Response<ResponseBody>, ForwardError> {
        self.touch();
        // Before the file is looked at: nothing would come of it.
        self.refuse_while_disconnected()?;
        let (mut head, body) = request.into_parts();
        if body.is_empty() && head.method != Method::DELETE {
            // The client library says nothing of no content, and there are origins that answer that with 411.
            // RFC 9110 section 8.6: said where the method gives content a meaning.
            head.headers.insert(header::CONTENT_LENGTH, 0.into());
        }
        let outgoing = Outgoing {
            way: match sending.repeat {
                Repeat::Never => Way::Fresh,
                Repeat::Once => Way::Twice,
            },
            ..Outgoing::of_parts(head, body.offer().await?)
        };
        self.send_outgoing(&outgoing, sending.patience).await
    }
}

impl WriteBody {
    const fn is_empty(&self) -> bool {
        match self {
            Self::Memory(content) => content.is_empty(),
            Self::File { length_bytes, .. } => *length_bytes == 0,
        }
    }

    async fn offer(self) -> Result<Offer, ForwardError> {
        match self {
            Self::Memory(content) => Ok(Offer::whole(content)),
            Self::File { path, length_bytes } => FileContent::open(path, length_bytes)
                .await
                .map(Offer::file)
                .map_err(|error| of_content(error.into())),
        }
    }
}
