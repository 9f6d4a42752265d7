//! The prober: one task per upstream that finds out whether a lost upstream is back, and, where a probe is configured,
//! whether a connected one is still there.
//!
//! Bounds: at most one per upstream, from half a second to 30 s between two tries; the one of an implicit upstream ends
//! after 10 min in which nobody asked for it or waited for it to be connected (then the next request finds out by
//! itself).

use std::{sync::Weak, time::Duration};

use http::{Method, Request, Uri, Version, header, uri::PathAndQuery};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    ProbeConfig,
    error::{ForwardError, chain, classify, from_dial},
    group::{Kind, Origin, Upstream},
    upload::Upload,
};
use crate::policy::{Connectivity, Mode};

const FIRST_PAUSE: Duration = Duration::from_millis(500);

const LAST_PAUSE: Duration = Duration::from_secs(30);

const FORGET_UNASKED: Duration = Duration::from_secs(600);

// A probe answers "is it there", so it need not wait as long as a request.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

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

    fn probe_config(&self) -> Option<&ProbeConfig> {
        match &self.kind {
            Kind::Configured { probe } => probe.as_ref(),
            Kind::Implicit => None,
        }
    }

    /// Asks one origin after another whether it is there.
    async fn probe(&self) {
        let forbidden = self
            .link
            .override_in_force()
            .is_some_and(|word| word.connectivity == Connectivity::Disconnected);
        // In the mode `offline` nothing at all is sent upstream.
        let offline = self.common.modes.effective(None, self.common.clock.now()) == Mode::Offline;
        if forbidden || offline {
            return;
        }
        let mut failure = None;
        for origin in &self.origins {
            match self.probe_origin(origin).await {
                Ok(()) => {
                    self.stats.probed(self.common.clock.now(), true, None);
                    self.reached();
                    return;
                }
                Err(error) => failure = Some(error),
            }
        }
        let Some(error) = failure else { return };
        let text = chain(&error);
        debug!(upstream = %self.name, error = %text, "Probe failed.");
        if matches!(error, ProbeError::Unreachable(ForwardError::Connect { .. })) {
            self.lost(&text);
        }
        self.stats
            .probed(self.common.clock.now(), false, Some(text));
    }

    async fn probe_origin(&self, origin: &Origin) -> Result<(), ProbeError> {
        let Some(probe) = self.probe_config() else {
            return self
                .clients
                .connector
                .connect(&origin.scheme, &origin.authority)
                .await
                .map(drop)
                .map_err(|error| ProbeError::Unreachable(from_dial(error, &origin.authority)));
        };
        let request = probe_request(origin, &probe.path);
        // Always a new connection: a pooled one would not show whether one can connect.
        match timeout(PROBE_TIMEOUT, self.clients.fresh.request(request)).await {
            Err(_) => Err(ProbeError::Unreachable(ForwardError::TimedOut {
                limit: PROBE_TIMEOUT,
            })),
            Ok(Err(error)) => Err(ProbeError::Unreachable(classify(
                error,
                &origin.authority,
                None,
            ))),
            Ok(Ok(response)) if response.status().is_server_error() => {
                Err(ProbeError::Unwell(response.status()))
            }
            Ok(Ok(_)) => Ok(()),
        }
    }
}

/// Why a probe did not succeed.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error(transparent)]
    Unreachable(ForwardError),
    #[error("the probe was answered with {0}")]
    Unwell(http::StatusCode),
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

fn probe_request(origin: &Origin, path: &str) -> Request<Upload> {
    let path = path.parse().unwrap_or_else(|_| {
        warn!(path, "The probe's path is no path; probing / instead.");
        PathAndQuery::from_static("/")
    });
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(origin.scheme.clone());
    parts.authority = Some(origin.authority.clone());
    parts.path_and_query = Some(path);
    let uri = Uri::from_parts(parts).expect("scheme, authority and path are all there");
    Request::builder()
        .method(Method::GET)
        .uri(uri)
        .version(Version::HTTP_11)
        .header(header::HOST, origin.authority.as_str())
        .header(
            header::USER_AGENT,
            concat!("hardtack/", env!("CARGO_PKG_VERSION")),
        )
        .body(Upload::empty())
        .expect("every part is valid")
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
