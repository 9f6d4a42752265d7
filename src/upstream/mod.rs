//! The forward path: upstreams (groups of origins), their connectivity, and one pooled client whose connector filters
//! addresses.
//!
//! Invariants: every address is checked as it is dialled; a configured upstream's leave to dial private addresses never
//! serves a forward-proxied request (its pool is its own); whoever waits for an origin holds a permit of its upstream; a
//! disconnected upstream costs one prober and no connect attempts of requests. Redirects are never followed.
//!
//! Bounds: permits and waiting places per upstream, 4,096 implicit upstreams, 32 lookups of names at a time, 4,096
//! names whose last good addresses are kept. Every wait has a limit: a permit 1 s, DNS 2 s, TLS 3 s, connect and first
//! byte as configured, 60 s between two parts of a body.
//!
//! Absent on purpose, until they come: breakers and balance between origins (a short hold-down in `group` keeps their
//! place), adaptive limits (`permits`).

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{StatusCode, Uri};
use ipnet::IpNet;
use rustls::pki_types::CertificateDer;

mod registry;

mod exchange;
mod forward;
mod group;
mod sending;

mod connectivity;
mod probe;
mod verify;

mod client;
mod connection;
mod dial;
mod dialled;
mod filter;
mod frames;
mod idle;
mod resolve;
mod tls;

mod body;
mod content;
mod interim;
mod permits;
mod timer;
mod upload;

mod error;
mod stats;

#[cfg(test)]
mod tests;

pub use self::{
    body::ResponseBody,
    connectivity::{ConnectivityOverride, Transition},
    error::{BodyError, ForwardError},
    forward::Whole,
    group::Upstream,
    interim::OnInterim,
    registry::Upstreams,
    sending::{Patience, Repeat, Sending, WriteBody},
    stats::UpstreamStatus,
    verify::{ProbeError, Verified},
};
pub(crate) use self::{content::FileContent, timer::Timer};

/// Checked configuration of this module.
#[derive(Clone, Debug)]
pub struct Config {
    /// Upstreams by name.
    pub upstreams: BTreeMap<String, UpstreamConfig>,
    /// Whether forward-proxied requests may not reach private networks.
    pub deny_private_networks: bool,
    /// Exceptions, by CIDR.
    pub allow_networks: Vec<IpNet>,
    /// Requests in flight per upstream, and how many more may wait for a permit (at most 1 s).
    pub max_in_flight: usize,
    /// See `max_in_flight`.
    pub max_waiting: usize,
}

/// One `[upstreams.NAME]` table, checked.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// The origins, most preferred first: scheme and authority, with an optional base path.
    pub urls: Vec<Uri>,
    /// Time for one TCP connect.
    pub connect_timeout: Duration,
    /// Time from the request's end to the response head.
    pub first_byte_timeout: Duration,
    /// Whether HTTP/2 is spoken: offered over TLS, and taken for granted in the clear.
    pub http2: bool,
    /// Active probe, if configured.
    pub probe: Option<ProbeConfig>,
    /// Trust anchors besides the system's, for origins with a private authority.
    pub extra_roots: Vec<CertificateDer<'static>>,
}

/// An active probe.
#[derive(Clone, Debug)]
pub struct ProbeConfig {
    /// Path and query of the GET.
    pub path: String,
    /// Time between probes while connected.
    pub interval: Duration,
    /// The status that the answer must have; `None`: any below 500.
    pub status: Option<StatusCode>,
    /// Text that the first 64 KiB of the answer must contain.
    pub body: Option<String>,
}

/// A body on its way upstream. Boxed: it is off the way of a hit.
pub type RequestBody = http_body_util::combinators::UnsyncBoxBody<Bytes, BodyError>;
