//! The `write` of a route.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue, StatusCode, uri::Scheme};

use super::Route;
use crate::{
    config::{
        names::FieldLine,
        problem::Problem,
        reader::options,
        tree::Origin,
        units::Timeout,
        value::{FilePath, Integer, Text, TextValue, choices},
    },
    queue::{
        Idempotency, KeyFormat, OnStuck, OrderBy, PendingReads, ResponseTemplate, WriteMode,
        WriteSettings, read_credential,
    },
    upstream::UpstreamConfig,
};

options! {
    /// What becomes of POST, PUT, PATCH and DELETE.
    struct Write {
        /// "off": passed on, as without a gateway. "on-failure": queued where the origin cannot take them. "always": queued,
        /// and delivered behind.
        mode: WriteMode = "off",
        /// What is delivered one after the other, in order of acceptance: everything for the "origin", of the "route", for the
        /// "path", with one value of "header:NAME"; or "none".
        order_by: OrderBy = "route",
        /// Idempotency keys: "off", "pass" (a client's is understood), or "inject" (and one is made where there is none).
        idempotency: Idempotency = "off",
        /// Whether the origin executes a key once only. Then what may have been executed is sent again.
        honoured: bool = false,
        /// The field of the key.
        idempotency_header: HeaderName = "idempotency-key",
        /// How a made key is written: "structured", in quotes, or "raw".
        idempotency_format: KeyFormat = "structured",
        /// How long the origin remembers a key.
        idempotency_ttl: Timeout = "24h",
        /// Whether a 503 without Retry-After proves that the origin has executed nothing.
        trust_503: bool = false,
        /// What a write that needs an operator does to its lane: "halt" or "continue". Left out: "continue" where the order is
        /// by "origin" or "none", else "halt".
        on_stuck: Option<OnStuck> = absent,
        /// Reads of a URL with pending writes: "mark", told how many; "overlay", answered as if they were delivered, to
        /// the client whose writes they are.
        pending_reads: PendingReads = "mark",
        /// What the client gets instead of the receipt.
        response: Option<Template> = absent,
        /// Whether the origin's answers may be HTML. If not, HTML means a captive portal, and nothing is delivered to it.
        answers_html: bool = false,
        /// File with the Authorization of deliveries, read anew for each. The client's own is then not stored. Empty: none.
        credential_file: FilePath = "",
    }
}

options! {
    /// An answer. In `headers` and `body`, {id}, {location}, {lane} and {accepted_at} stand for the receipt's.
    struct Template {
        /// Status.
        status: Integer<200, 599> = 202,
        /// Fields, each as "name: value".
        headers: Vec<FieldLine> = [],
        /// Body.
        body: Text = "",
    }
}

choices! { WriteMode, r#""off", "on-failure" or "always""#, [
    "off" => WriteMode::Off,
    "on-failure" => WriteMode::OnFailure,
    "always" => WriteMode::Always,
]}
choices! { Idempotency, r#""off", "pass" or "inject""#, [
    "off" => Idempotency::Off,
    "pass" => Idempotency::Pass,
    "inject" => Idempotency::Inject,
]}
choices! { KeyFormat, r#""structured" or "raw""#, [
    "structured" => KeyFormat::Structured,
    "raw" => KeyFormat::Raw,
]}
choices! { OnStuck, r#""halt" or "continue""#, [
    "halt" => OnStuck::Halt,
    "continue" => OnStuck::Continue,
]}
choices! { PendingReads, r#""mark" or "overlay""#, [
    "mark" => PendingReads::Mark,
    "overlay" => PendingReads::Overlay,
]}

impl TextValue for OrderBy {
    const EXPECTED: &'static str = r#""origin", "route", "path", "header:NAME" or "none""#;
    const CHOICES: &'static [&'static str] = &["origin", "route", "path", "none"];

    fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "origin" => OrderBy::Origin,
            "route" => OrderBy::Route,
            "path" => OrderBy::Path,
            "none" => OrderBy::None,
            other => {
                let name = other.strip_prefix("header:").ok_or("none of these")?;
                OrderBy::Header(HeaderName::parse(name)?)
            }
        })
    }
}

impl Write {
    pub(in crate::config) fn settings(&self) -> WriteSettings {
        let order_by = self.order_by.value.clone();
        let own = match order_by {
            OrderBy::Origin | OrderBy::None => OnStuck::Continue,
            OrderBy::Route | OrderBy::Path | OrderBy::Header(_) => OnStuck::Halt,
        };
        WriteSettings {
            mode: self.mode.value,
            order_by,
            idempotency: self.idempotency.value,
            honoured: self.honoured.value,
            idempotency_header: self.idempotency_header.value.clone(),
            idempotency_format: self.idempotency_format.value,
            idempotency_ttl: self.idempotency_ttl.0,
            trust_503: self.trust_503.value,
            on_stuck: self.on_stuck.value.unwrap_or(own),
            pending_reads: self.pending_reads.value,
            response: self.response.value.as_ref().map(Template::template),
            answers_html: self.answers_html.value,
            credential_file: self.credential_file.0.clone(),
        }
    }
}

impl Template {
    fn template(&self) -> ResponseTemplate {
        let fields = self.headers.iter().map(|line| line.0.clone());
        ResponseTemplate {
            status: StatusCode::from_u16(self.status.get()).unwrap_or(StatusCode::ACCEPTED),
            headers: fields.collect::<Vec<(HeaderName, HeaderValue)>>(),
            body: self.body.0.clone(),
        }
    }
}

/// Compares the `write` of a route with everything else.
pub(in crate::config) fn check_write(
    route: &Route,
    upstreams: &BTreeMap<String, UpstreamConfig>,
    has_keys: bool,
    problems: &mut Vec<Problem>,
) {
    let write = &route.write;
    if write.mode.value == WriteMode::Off {
        return;
    }
    let (name, at) = (&route.name.0, write.mode.origin);
    if write.honoured.value && write.idempotency.value == Idempotency::Off {
        let title = format!("route `{name}`: `honoured` without idempotency keys");
        let problem = Problem::warning(write.honoured.origin, title);
        problems.push(problem.help("say `idempotency = \"pass\"` or \"inject\""));
    }
    if let Some(path) = &write.credential_file.0
        && let Err(error) = read_credential(path)
    {
        let title = format!("route `{name}`: `write.credential_file` cannot be read");
        let origin = write.credential_file.origin;
        problems.push(Problem::error(origin, title).label(error.to_string()));
    }
    if !has_keys && write.credential_file.0.is_none() {
        let title = format!("route `{name}`: writes with credentials are never queued");
        let problem = Problem::warning(at, title);
        problems.push(problem.help("name a file of keys to seal them with: `queue.key_file`"));
    }
    let upstream = route.upstream.value.as_ref();
    let upstream = upstream.and_then(|upstream| upstreams.get(&upstream.0));
    let is_plain = |upstream: &&UpstreamConfig| {
        let mut urls = upstream.urls.iter();
        urls.any(|url| url.scheme() == Some(&Scheme::HTTP)) && upstream.probe.is_none()
    };
    if upstream.filter(is_plain).is_some() && at != Origin::Refused {
        let title = format!("route `{name}`: nothing proves that its origin is the origin");
        // Not where the warning before stands: of two at one place the second is taken for the first again.
        let problem = Problem::warning(route.upstream.origin, title);
        problems.push(problem.help(
            "over http:// a captive portal may answer in its place: give the upstream a `probe`",
        ));
    }
}
