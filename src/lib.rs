//! hardtack: an offline-first edge caching gateway.
//!
//! The modules stand in reading order. Dependencies run one way, from the bottom of this list to its top is forbidden
//! and `tests/architecture.rs` holds it: `app -> cli, proxy, admin -> protect -> store, upstream -> policy`.

pub mod policy;

pub mod clock;
mod database;
pub mod modes;
pub mod telemetry;

pub mod store;
pub mod upstream;

pub mod protect;
pub mod queue;

pub mod admin;
pub mod proxy;

pub mod config;

pub mod app;
pub mod cli;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;

#[cfg(feature = "benchmarks")]
#[doc(hidden)]
pub mod benchmarks;
