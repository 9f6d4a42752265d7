//! The prober: one task per upstream that finds out whether a lost upstream is back, and, where a probe is configured,
//! whether a connected one is still there.
//!
//! Bounds: at most one per upstream, from half a second to 30 s between two tries; the one of an implicit upstream ends
//! after 10 min in which nobody asked for it or waited for it to be connected (then the next request finds out by
//! itself).

use std::{sync::Weak, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::group::{Kind, Upstream};
use crate::policy::Connectivity;

const FIRST_PAUSE: Duration = Duration::from_millis(500);

const LAST_PAUSE: Duration = Duration::from_secs(30);

const FORGET_UNASKED: Duration = Duration::from_secs(600);

/// Probes until the upstream is connected and no active probe is configured, or the upstream is gone, or shutdown.
pub(super) async fn run(upstream: Weak<Upstream>, shutdown: CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = watch_over(upstream) => {}
    }
}

async fn watch_over(upstream: Weak<Upstream>) {
    let mut backoff = Backoff::default();
    loop {
        let Some(strong) = upstream.upgrade() else {
            return;
        };
        let Some(pause) = strong.next_pause(&mut backoff) else {
            return;
        };
        let mut changes = strong.subscribe();
        // While it waits the prober does not keep a forgotten upstream alive.
        drop(strong);
        tokio::select! {
            biased;
            changed = changes.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            () = sleep(pause) => {}
        }
        if let Some(strong) = upstream.upgrade() {
            strong.probe().await;
        }
    }
}

impl Upstream {
    /// How long to wait for the next probe; `None` when none is needed.
    fn next_pause(&self, backoff: &mut Backoff) -> Option<Duration> {
        self.count_disconnected();
        if self.is_forgotten() {
            // The next request finds out by itself.
            debug!(upstream = %self.name, "Nobody asks for this upstream any more; its prober ends.");
            self.link.recover();
        }
        match (self.link.measured(), self.probe_config()) {
            (Connectivity::Disconnected, _) => Some(backoff.next()),
            (Connectivity::Connected, Some(probe)) => {
                backoff.reset();
                Some(probe.interval)
            }
            (Connectivity::Connected, None) if self.link.release_prober() => None,
            // Lost again at this very moment.
            (Connectivity::Connected, None) => Some(backoff.next()),
        }
    }

    fn is_forgotten(&self) -> bool {
        matches!(self.kind, Kind::Implicit)
            && !self.link.is_awaited()
            && self.unasked_for() >= FORGET_UNASKED
    }
}

/// Pauses that double, each with jitter, so that many gateways do not probe in step.
#[derive(Debug)]
struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LAST_PAUSE);
        pause.mul_f64(0.75 + fastrand::f64() / 4.0)
    }

    fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Backoff, LAST_PAUSE};

    #[test]
    fn pauses_double_from_half_a_second_to_thirty() {
        let mut backoff = Backoff::default();
        let mut expected = Duration::from_millis(500);
        for _ in 0..10 {
            let pause = backoff.next();
            assert!(
                pause <= expected && pause >= expected.mul_f64(0.75),
                "{pause:?}"
            );
            expected = (expected * 2).min(LAST_PAUSE);
        }
    }
}
