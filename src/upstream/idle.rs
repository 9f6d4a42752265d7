//! The idle connections to one origin, the youngest taken first.
//!
//! Bounds: [`CONNECTIONS_MAX`], each for [`POOL_IDLE`]; a task closes what has waited longer, and ends when nothing waits.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{client::ConnectionTasks, connection::Connection};

// Servers close idle connections after 5 s and more (Node's default); reuse of a closing one fails.
pub(super) const POOL_IDLE: Duration = Duration::from_secs(4);

/// A new one is opened only when none waits, so there are hardly more than permits, of which more would be unusual.
const CONNECTIONS_MAX: usize = 4_096;

/// Idle connections.
#[derive(Default)]
pub(super) struct Idle {
    waiting: Mutex<Waiting>,
    /// Told of one that has become free.
    freed: Notify,
}

#[derive(Default)]
struct Waiting {
    /// In the order in which they came.
    connections: Vec<(Instant, Connection)>,
    /// Whether a task sees to the old ones.
    is_watched: bool,
}

impl Idle {
    /// The youngest connection that can take a request.
    pub(super) fn take(&self) -> Option<Connection> {
        loop {
            let (since, mut connection) = self.waiting().connections.pop()?;
            if since.elapsed() < POOL_IDLE && connection.is_ready() {
                return Some(connection);
            }
        }
    }

    /// The next connection that becomes free.
    pub(super) async fn freed(&self) -> Connection {
        loop {
            self.freed.notified().await;
            if let Some(connection) = self.take() {
                return connection;
            }
        }
    }

    /// Keeps a connection for whoever comes next; one too many is closed.
    pub(super) fn put(self: &Arc<Self>, connection: Connection) {
        let mut waiting = self.waiting();
        if waiting.connections.len() >= CONNECTIONS_MAX {
            return;
        }
        waiting.connections.push((Instant::now(), connection));
        self.freed.notify_one();
        if !waiting.is_watched {
            waiting.is_watched = true;
            ConnectionTasks::run(Arc::clone(self).close_what_waits_too_long());
        }
    }

    async fn close_what_waits_too_long(self: Arc<Self>) {
        loop {
            let oldest = self.waiting().connections.first().map(|(since, _)| *since);
            sleep_until(oldest.unwrap_or_else(Instant::now) + POOL_IDLE).await;
            let mut waiting = self.waiting();
            let old = waiting
                .connections
                .partition_point(|(since, _)| since.elapsed() >= POOL_IDLE);
            let closed: Vec<_> = waiting.connections.drain(..old).collect();
            waiting.is_watched = !waiting.connections.is_empty();
            let goes_on = waiting.is_watched;
            drop(waiting);
            drop(closed);
            if !goes_on {
                return;
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Every section leaves what is inside consistent, so a panic elsewhere does not spoil it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Idle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Idle")
            .field("connections", &self.waiting().connections.len())
            .finish_non_exhaustive()
    }
}
