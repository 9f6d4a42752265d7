//! `[upstreams.NAME]`.

use std::collections::BTreeMap;

use http::{StatusCode, Uri};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use crate::{
    config::{
        names::{OriginUrl, PathAndQuery},
        problem::Problem,
        reader::{Sourced, options},
        tree::Origin,
        units::Timeout,
        value::{FilePath, Integer, Named, TextValue},
    },
    upstream::{ProbeConfig, UpstreamConfig},
};

options! {
    /// A group of origins that reverse routes send requests to.
    struct Upstream {
        /// Scheme and authority of its only origin, with an optional base path. Queued writes are delivered where it is by then,
        /// below the base path of then.
        url: Option<Sourced<OriginUrl>> = absent,
        /// Instead of `url`: several origins, most preferred first.
        urls: Vec<Sourced<OriginUrl>> = [],
        /// Time for one TCP connect.
        connect_timeout: Timeout = "2s",
        /// Time from the end of the request to the head of the response.
        first_byte_timeout: Timeout = "60s",
        /// Whether HTTP/2 is spoken: over TLS if the origin chooses it, over `http://` without asking. The client's Host,
        /// interim responses and WebSocket do not go with it; an upgrade is tried over HTTP/1.1.
        http2: bool = false,
        /// PEM file with certificates of a private authority, trusted besides the system's.
        ca_file: FilePath = "",
        /// Active probe; passive detection always works.
        probe: Option<Probe> = absent,
    }
    later { priority, weight }
}

options! {
    /// Asks an upstream how it is, before clients do.
    struct Probe {
        /// Path and query of the GET.
        path: PathAndQuery = required,
        /// Time between probes while connected.
        interval: Timeout = "10s",
        /// Status that the answer must have; left out: any below 500. With it, or with `body`, a captive portal is not
        /// taken for the upstream.
        status: Option<Integer<200, 599>> = absent,
        /// Text that the first 64 KiB of the answer must contain.
        body: Option<ProbeText> = absent,
    }
}

/// What an answer must contain.
#[derive(Clone, Debug)]
pub(in crate::config) struct ProbeText(String);

impl TextValue for ProbeText {
    const EXPECTED: &'static str = "a text of 1 to 1,024 bytes";

    fn parse(text: &str) -> Result<Self, String> {
        match text.len() {
            0 => Err("nothing is in every answer".to_owned()),
            1..=1_024 => Ok(Self(text.to_owned())),
            _ => Err("too long".to_owned()),
        }
    }
}

/// Every upstream by name.
pub(in crate::config) fn upstreams(
    named: &Sourced<Named<Upstream>>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, UpstreamConfig> {
    let check = |found: &crate::config::value::NamedTable<Upstream>| {
        let config = found.table.check(&found.name, found.origin, problems);
        (found.name.clone(), config)
    };
    named.0.iter().map(check).collect()
}

impl Probe {
    fn config(&self) -> ProbeConfig {
        let status: Option<u16> = self.status.value.map(Integer::get);
        ProbeConfig {
            path: self.path.0.clone(),
            interval: self.interval.0,
            status: status.and_then(|status| StatusCode::from_u16(status).ok()),
            body: self.body.value.as_ref().map(|text| text.0.clone()),
        }
    }
}

impl Upstream {
    fn check(&self, name: &str, origin: Origin, problems: &mut Vec<Problem>) -> UpstreamConfig {
        if name == "forward" {
            let title = "`upstreams.forward`: this name is taken";
            let label = "in metrics it means every forward-proxied origin";
            problems.push(Problem::error(origin, title).label(label));
        }
        UpstreamConfig {
            extra_roots: self.extra_roots(name, problems),
            urls: self.origins(name, origin, problems),
            connect_timeout: self.connect_timeout.value.0,
            first_byte_timeout: self.first_byte_timeout.value.0,
            http2: self.http2.value,
            probe: self.probe.value.as_ref().map(Probe::config),
        }
    }

    fn extra_roots(&self, name: &str, problems: &mut Vec<Problem>) -> Vec<CertificateDer<'static>> {
        let Some(path) = &self.ca_file.0 else {
            return Vec::new();
        };
        let read =
            CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let label = match read {
            Ok(found) if !found.is_empty() => return found,
            Ok(_) => "no certificate in it".to_owned(),
            Err(error) => error.to_string(),
        };
        let title = format!("`upstreams.{name}.ca_file`: not a file of PEM certificates");
        problems.push(Problem::error(self.ca_file.origin, title).label(label));
        Vec::new()
    }

    fn origins(&self, name: &str, origin: Origin, problems: &mut Vec<Problem>) -> Vec<Uri> {
        let title = |what: &str| format!("`upstreams.{name}`: {what}");
        if let (Some(url), [first, ..]) = (&self.url.value, self.urls.as_slice()) {
            let problem = Problem::error(first.origin, title("both `url` and `urls`"));
            problems.push(problem.label("leave out one of them"));
            return vec![url.0.clone()];
        }
        let origins: Vec<_> = self.url.iter().chain(self.urls.iter()).collect();
        let refused = [self.url.origin, self.urls.origin].contains(&Origin::Refused);
        if origins.is_empty() && !refused {
            let problem = Problem::error(origin, title("no origin"));
            problems.push(problem.label("add `url = \"http://…\"`"));
        }
        for (position, repeated) in origins.iter().enumerate() {
            if origins[..position]
                .iter()
                .any(|one| one.value == repeated.value)
            {
                let problem = Problem::error(repeated.origin, title("the same origin twice"));
                problems.push(problem.label("this is in the list already"));
            }
        }
        origins.into_iter().map(|found| found.0.clone()).collect()
    }
}
