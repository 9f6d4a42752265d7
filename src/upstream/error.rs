//! What can go wrong on the way to an origin, and how to tell the kinds apart.
//!
//! The client library wraps errors of the connector and of bodies; they are recovered by walking `source()`, because
//! its own predicates do not say enough.

use std::{error::Error, io, iter, net::SocketAddr, sync::Arc, time::Duration};

use super::{client::ConnectionHistory, connection::Unanswered, content::ContentError};

/// An error of a body being copied.
pub type BodyError = Box<dyn Error + Send + Sync>;

/// Why a forward failed before a complete response head.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// The upstream is known to be disconnected, or an override says so; nothing was tried.
    #[error("the upstream is disconnected")]
    Disconnected,
    /// No connection to be had: refused, unreachable, timeout, DNS, TLS.
    #[error("cannot connect to {authority}")]
    Connect {
        /// Whom.
        authority: String,
        /// Why.
        #[source]
        source: BodyError,
    },
    /// The address filter refused the address.
    #[error("the address {address} may not be dialled for this request")]
    Denied {
        /// The address.
        address: SocketAddr,
    },
    /// No response head in time.
    #[error("no answer from the origin within {limit:?}")]
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// Reset, end of stream or garbage before the head was whole.
    #[error("the origin broke off before its response head was whole")]
    Broken {
        /// Why.
        #[source]
        source: BodyError,
    },
    /// The client's body failed while it was copied: not the origin's fault.
    #[error("the request body broke off")]
    RequestBody {
        /// Why.
        #[source]
        source: BodyError,
    },
    /// The content of the request cannot be read from its file: ours, neither the origin's fault nor the client's.
    #[error("the content of the request cannot be read")]
    Content {
        /// Why.
        #[source]
        source: BodyError,
    },
    /// No permit of the upstream within the time one may wait.
    #[error("too many requests wait for this upstream")]
    Overloaded,
}

impl ForwardError {
    /// Whether it is certain that the origin has executed nothing of this request: it did not leave, or the origin says
    /// by HTTP/2 that it took no notice of it. `false` means that the origin may have executed all of it.
    pub fn never_sent(&self) -> bool {
        match self {
            Self::Disconnected | Self::Connect { .. } | Self::Denied { .. } | Self::Overloaded => {
                true
            }
            Self::Broken { source } => source.is::<Unsent>(),
            Self::Content { source } => source
                .downcast_ref()
                .is_some_and(ContentError::is_before_sending),
            Self::TimedOut { .. } | Self::RequestBody { .. } => false,
        }
    }
}

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("the port is none")]
    InvalidPort,
    #[error("the address {address} may not be dialled for this request")]
    Denied { address: SocketAddr },
    #[error("cannot resolve {host}")]
    Resolve {
        host: String,
        #[source]
        source: Arc<io::Error>,
    },
    #[error("tried {address}")]
    Connect {
        address: SocketAddr,
        #[source]
        source: Arc<io::Error>,
    },
    #[error("no connection within {limit:?}")]
    ConnectTimedOut { limit: Duration },
    #[error("cannot agree on TLS with {host}")]
    Tls {
        host: String,
        #[source]
        source: Arc<io::Error>,
    },
}

/// What the client library is told of the request body's own failure. Over HTTP/2 it does not hand this on, so the
/// failure itself waits in the upload's progress.
#[derive(Debug, thiserror::Error)]
#[error("the request body broke off")]
pub(super) struct UploadError;

/// Marks the failure of a request that the origin has provably not executed.
#[derive(Debug, thiserror::Error)]
#[error("the request was not sent")]
pub(super) struct Unsent(#[source] BodyError);

/// A response body that stood still.
#[derive(Debug, thiserror::Error)]
#[error("the origin sent nothing for {limit:?} in mid-body")]
pub(super) struct StalledBody {
    pub(super) limit: Duration,
}

/// A 101 that nobody asked for.
#[derive(Debug, thiserror::Error)]
#[error("the origin switched protocols unasked")]
pub(super) struct UnaskedUpgrade;

/// An origin that sends interim responses instead of an answer.
#[derive(Debug, thiserror::Error)]
#[error("the origin sent too many interim responses")]
pub(super) struct InterimFlood;

/// The client library's error in our terms. `history` is that of the connection that the request was given, if it had
/// come so far.
pub(super) fn classify(
    error: hyper_util::client::legacy::Error,
    authority: &http::uri::Authority,
    history: Option<&ConnectionHistory>,
) -> ForwardError {
    if let Some(dial) = find::<DialError>(&error) {
        return from_dial(dial.clone(), authority);
    }
    // Without an error of the connector it is the pool's: the connection that was to be shared came to nothing.
    let is_unsent = match history {
        None => true,
        Some(history) => {
            error.is_connect() || is_handed_back(&error) || is_disowned(&error, history)
        }
    };
    let source = if is_unsent {
        Unsent(error.into()).into()
    } else {
        error.into()
    };
    ForwardError::Broken { source }
}

/// An exchange without an answer, on a connection of our own, in terms of the seam.
pub(super) fn from_unanswered(Unanswered { error, is_unsent }: Unanswered) -> ForwardError {
    let source = if is_unsent {
        Unsent(error.into()).into()
    } else {
        error.into()
    };
    ForwardError::Broken { source }
}

/// The connection was found closed before the first byte of the request was written.
fn is_handed_back(error: &(dyn Error + 'static)) -> bool {
    find::<hyper::Error>(error).is_some_and(hyper::Error::is_canceled)
}

/// The origin says that it took no notice of the request (RFC 9113 sections 6.8 and 8.7).
fn is_disowned(error: &(dyn Error + 'static), history: &ConnectionHistory) -> bool {
    let Some(error) = find::<h2::Error>(error).filter(|error| error.is_remote()) else {
        return false;
    };
    let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    is_refused || (error.is_go_away() && history.some_are_disowned())
}

/// The failure of a request body: a client's, or of the file in which we keep it.
pub(super) fn of_content(source: BodyError) -> ForwardError {
    if source.is::<ContentError>() {
        ForwardError::Content { source }
    } else {
        ForwardError::RequestBody { source }
    }
}

/// A failed dial in terms of the seam.
pub(super) fn from_dial(error: DialError, authority: &http::uri::Authority) -> ForwardError {
    match error {
        DialError::Denied { address } => ForwardError::Denied { address },
        other => ForwardError::Connect {
            authority: authority.to_string(),
            source: other.into(),
        },
    }
}

/// The error and its causes in one line.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    causes(error)
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&cause| cause.source())
}
