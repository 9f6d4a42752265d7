//! Who asks for a change: which token, from where. For the audit; what the token allows was checked before.

use std::{convert::Infallible, fmt, net::IpAddr};

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::tokens::Access;

/// The address of whoever is connected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// Whoever asks, as far as is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operator {
    pub(super) access: Access,
    pub(super) peer: Option<Peer>,
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.access {
            Access::Admin => "admin token",
            Access::Read => "read token",
        })?;
        match self.peer {
            Some(Peer(address)) => write!(f, " from {address}"),
            None => Ok(()),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Operator {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let operator = parts.extensions.get::<Self>().copied();
        Ok(operator.expect("the guard of every path below /api says who asks"))
    }
}
