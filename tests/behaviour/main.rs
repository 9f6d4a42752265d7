//! What the gateway does, seen from outside: a real client, a real gateway, a real origin, over loopback.
//!
//! One binary for all areas, because each test binary costs a link. Most tests run the gateway on their own runtime,
//! with a clock that they move; where a process matters (signals, kill -9, exit codes), they run the built binary.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod bodies;
mod collapse;
mod cookies;
mod deception;
mod directives;
mod evil_origin;
mod fast_path;
mod first_read;
mod http2;
mod interim;
mod invalidation;
mod keys;
mod limits;
mod modes;
mod no_vary_search;
mod open_proxy;
mod outage;
mod poisoning;
mod post;
mod privacy;
mod query;
mod ranges;
mod refresh_ahead;
mod refusals;
mod restart;
mod reverse;
mod shutdown;
mod stale_while_revalidate;
mod tags;
mod trailers;
mod tunnel;
mod writes;
