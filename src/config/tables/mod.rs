//! One file for each table: its options, and the module's configuration they become.

mod admin;
mod cache;
mod forward;
mod limits;
mod listen;
mod queue;
mod routes;
mod storage;
mod telemetry;
mod upstreams;
mod write;

pub(super) use admin::Admin;
pub(super) use cache::Cache;
pub(super) use forward::Forward;
pub(super) use limits::Limits;
pub(super) use listen::Listen;
pub(super) use queue::Queue;
pub(super) use routes::{Route, routes};
pub(super) use storage::{Storage, user_data_dir};
pub(super) use telemetry::Telemetry;
pub(super) use upstreams::{Upstream, upstreams};
pub(super) use write::{Write, check_write};
