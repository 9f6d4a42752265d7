//! One probe: what is asked, what the answer must be, and what it proves about who answers.
//!
//! A captive portal answers too. Only a probe that says what to expect tells it from the origin where there is no TLS;
//! what passes makes an upstream connected, and what is answered wrongly leaves it as it was. Without a probe a portal can still
//! give itself away: it answers a path that no origin has.
//!
//! Bounds: 10 s for one probe, of whose answer at most 64 KiB are read.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use http::{
    Method, Request, Response, StatusCode, Uri, Version, header,
    uri::{PathAndQuery, Scheme},
};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{
    ProbeConfig,
    error::{ForwardError, chain, classify, from_dial},
    group::{Kind, Origin, Upstream},
    upload::Upload,
};
use crate::policy::{self, Connectivity, Mode, Suspicion};

// A probe answers "is it there", so it need not wait as long as a request.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of an answer is searched for the expected text.
const SEARCHED_BYTES: usize = 64 * 1024;

/// What is known of who answers for an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// Its probe has just passed, or TLS proves it on every connection.
    Proven,
    /// Nothing: plain HTTP without a probe. Anybody on the way could answer.
    Unproven,
}

/// Why a probe did not pass. The text says all of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// Nothing may be sent: an operator's word, or the mode `offline`.
    #[error("nothing is sent to the upstream by an operator's word")]
    Forbidden,
    /// No connection, or no whole answer on it.
    #[error("{}", chain(.0))]
    NoAnswer(ForwardError),
    /// The status is not the expected one; without one, it is of a server's error.
    #[error("the probe was answered with {0}")]
    Status(StatusCode),
    /// The answer lacks the expected text.
    #[error("the probe's answer lacks the expected text")]
    Body,
    /// A path that no origin has was answered as a captive portal answers everything.
    #[error("a captive portal, as it seems: a path that no origin has was asked for, and {}; if the origin answers so, it needs a \
             `probe`, or its route `answers_html`", .0.as_str())]
    Portal(Suspicion),
}

impl Upstream {
    /// Finds out who answers: runs the configured probe, once and now, on a fresh connection to the origin that a request
    /// would reach. Without a probe nothing is asked. TLS proves every answer, whatever the probe says of the origin's health.
    ///
    /// # Errors
    /// See [`ProbeError`]. A failed probe shows in the status as any other.
    pub async fn verify(&self) -> Result<Verified, ProbeError> {
        let has_tls = self.has_tls();
        let Some(probe) = self.probe_config() else {
            return Ok(if has_tls {
                Verified::Proven
            } else {
                Verified::Unproven
            });
        };
        if !self.may_be_probed() {
            return Err(ProbeError::Forbidden);
        }
        let result = self.probe_reached_origin(probe).await;
        self.note_probe(&result);
        match result {
            Err(error) if has_tls && !matches!(error, ProbeError::NoAnswer(_)) => {
                warn!(upstream = %self.name, %error, "The probe failed; TLS proves who answers all the same.");
                Ok(Verified::Proven)
            }
            result => result.map(|()| Verified::Proven),
        }
    }

    /// Looks whether a captive portal answers: asks for a path that no origin has, and that no cache on the way knows. It says
    /// nothing for what it does not see: some portals answer some paths only.
    ///
    /// # Errors
    /// [`ProbeError::Portal`] when one does, others when nothing can be asked.
    pub async fn look(&self) -> Result<(), ProbeError> {
        if !self.may_be_probed() {
            return Err(ProbeError::Forbidden);
        }
        let mut result = Ok(());
        for origin in self.in_order() {
            result = in_time(self.look_at(origin)).await;
            if !is_unreachable(&result) {
                break;
            }
        }
        if let Err(ProbeError::NoAnswer(error)) = &result
            && !matches!(error, ForwardError::Connect { .. })
        {
            // Some origins do not answer what they do not know. Whether this one answers anything, that does not say.
            return Ok(());
        }
        self.note_probe(&result);
        result
    }

    async fn look_at(&self, origin: &Origin) -> Result<(), ProbeError> {
        let path = format!("/.well-known/hardtack-look-{:016x}", fastrand::u64(..));
        let response = self.ask_fresh(origin, &path).await?;
        let url = format!("{}://{}{path}", origin.scheme, origin.authority);
        let (status, headers) = (response.status(), response.headers());
        match policy::suspicion(status.as_u16(), headers, &url) {
            // An error page is what an origin has for a path that it has not.
            Some(_) if status.is_client_error() => Ok(()),
            Some(suspicion) => Err(ProbeError::Portal(suspicion)),
            None => Ok(()),
        }
    }

    /// Asks one origin after another whether it is there. One that passes is enough.
    pub(super) async fn probe(&self) {
        if !self.may_be_probed() {
            return;
        }
        let mut failure = None;
        for origin in &self.origins {
            match self.probe_origin(origin).await {
                Ok(()) => return self.note_probe(&Ok(())),
                Err(error) => failure = Some(error),
            }
        }
        self.note_probe(&Err(failure.expect("an upstream has an origin")));
    }

    pub(super) fn probe_config(&self) -> Option<&ProbeConfig> {
        match &self.kind {
            Kind::Configured { probe } => probe.as_ref(),
            Kind::Implicit => None,
        }
    }

    fn has_tls(&self) -> bool {
        self.origins.iter().all(|one| one.scheme == Scheme::HTTPS)
    }

    fn may_be_probed(&self) -> bool {
        let forbidden = self
            .link
            .override_in_force()
            .is_some_and(|word| word.connectivity == Connectivity::Disconnected);
        // In the mode `offline` nothing at all is sent upstream.
        let offline = self.common.modes.effective(None, self.common.clock.now()) == Mode::Offline;
        !forbidden && !offline
    }

    /// The first origin that can be connected to is the one that requests reach: what it answers decides.
    async fn probe_reached_origin(&self, probe: &ProbeConfig) -> Result<(), ProbeError> {
        let mut result = Ok(());
        for origin in self.in_order() {
            result = in_time(self.ask_probe(origin, probe)).await;
            if !is_unreachable(&result) {
                break;
            }
        }
        result
    }

    fn note_probe(&self, result: &Result<(), ProbeError>) {
        let now = self.common.clock.now();
        let Err(error) = result else {
            self.stats.probed(now, true, None);
            return self.reached();
        };
        let text = error.to_string();
        debug!(upstream = %self.name, error = %text, "Probe failed.");
        if matches!(error, ProbeError::NoAnswer(ForwardError::Connect { .. })) {
            self.lost(&text);
        }
        self.stats.probed(now, false, Some(text));
    }

    async fn probe_origin(&self, origin: &Origin) -> Result<(), ProbeError> {
        let Some(probe) = self.probe_config() else {
            return self
                .clients
                .connector
                .connect(&origin.scheme, &origin.authority)
                .await
                .map(drop)
                .map_err(|error| ProbeError::NoAnswer(from_dial(error, &origin.authority)));
        };
        in_time(self.ask_probe(origin, probe)).await
    }

    async fn ask_probe(&self, origin: &Origin, probe: &ProbeConfig) -> Result<(), ProbeError> {
        let response = self.ask_fresh(origin, &probe.path).await?;
        probe.judge(response).await
    }

    async fn ask_fresh(
        &self,
        origin: &Origin,
        path: &str,
    ) -> Result<Response<Incoming>, ProbeError> {
        // Always a new connection: a pooled one would not show whether one can connect.
        let asked = self.clients.any.fresh.request(request(origin, path));
        asked
            .await
            .map_err(|error| ProbeError::NoAnswer(classify(error, &origin.authority, None)))
    }
}

const fn is_unreachable(result: &Result<(), ProbeError>) -> bool {
    matches!(
        result,
        Err(ProbeError::NoAnswer(ForwardError::Connect { .. }))
    )
}

async fn in_time(asked: impl Future<Output = Result<(), ProbeError>>) -> Result<(), ProbeError> {
    let limit = PROBE_TIMEOUT;
    let timed_out = |_| Err(ProbeError::NoAnswer(ForwardError::TimedOut { limit }));
    timeout(limit, asked).await.unwrap_or_else(timed_out)
}

impl ProbeConfig {
    async fn judge(&self, response: Response<Incoming>) -> Result<(), ProbeError> {
        let status = response.status();
        let is_expected = match self.status {
            Some(expected) => status == expected,
            None => !status.is_server_error(),
        };
        if !is_expected {
            return Err(ProbeError::Status(status));
        }
        match &self.body {
            Some(text) if !contains(response.into_body(), text.as_bytes()).await? => {
                Err(ProbeError::Body)
            }
            _ => Ok(()),
        }
    }
}

/// Whether the text stands in the first 64 KiB.
async fn contains(mut body: Incoming, text: &[u8]) -> Result<bool, ProbeError> {
    let mut read = Vec::new();
    while read.len() < SEARCHED_BYTES {
        let Some(frame) = body.frame().await else {
            break;
        };
        let frame = frame.map_err(|error| {
            let source = error.into();
            ProbeError::NoAnswer(ForwardError::Broken { source })
        })?;
        let part = frame.into_data().unwrap_or_else(|_| Bytes::new());
        // The text may begin in what came before.
        let begin = read.len().saturating_sub(text.len());
        let rest = SEARCHED_BYTES - read.len();
        read.extend_from_slice(&part[..part.len().min(rest)]);
        if read[begin..]
            .windows(text.len().max(1))
            .any(|window| window.starts_with(text))
        {
            return Ok(true);
        }
    }
    Ok(text.is_empty())
}

fn request(origin: &Origin, path: &str) -> Request<Upload> {
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
