//! The idle connections to one origin, the youngest taken first.
//!
//! Bounds: [`DIALS_MAX`] dials that nobody waits for any more, and [`CONNECTIONS_MAX`] connections, each for [`POOL_IDLE`]; a
//! task closes what has waited longer, and ends when nothing waits.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
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

/// Dials that are finished for whoever comes next. An origin that does not accept would otherwise have one of every request
/// that was served by another's connection.
const DIALS_MAX: usize = 64;

/// Idle connections.
#[derive(Default)]
pub(super) struct Idle {
    waiting: Mutex<Waiting>,
    /// Told of one that has become free.
    freed: Notify,
    dials: AtomicUsize,
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
    pub(super) fn take(&self, now: Instant) -> Option<Connection> {
        loop {
            let (since, mut connection) = self.waiting().connections.pop()?;
            if now.duration_since(since) < POOL_IDLE && connection.is_ready() {
                return Some(connection);
            }
        }
    }

    /// The next connection that becomes free.
    pub(super) async fn freed(&self) -> Connection {
        loop {
            self.freed.notified().await;
            if let Some(connection) = self.take(Instant::now()) {
                return connection;
            }
        }
    }

    /// Finishes a dial that nobody waits for any more, unless too many are under way.
    pub(super) fn finish(
        self: &Arc<Self>,
        dialling: impl Future<Output = Option<Connection>> + Send + 'static,
    ) {
        if self.dials.fetch_add(1, Ordering::Relaxed) >= DIALS_MAX {
            self.dials.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let idle = Arc::clone(self);
        ConnectionTasks::run(async move {
            if let Some(connection) = dialling.await {
                idle.put(connection);
            }
            idle.dials.fetch_sub(1, Ordering::Relaxed);
        });
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
