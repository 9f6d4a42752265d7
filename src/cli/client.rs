//! Finds the gateway and speaks its admin API.
//!
//! Bounds: 10 s a request, bytes of an answer. No proxy is used, whatever the environment says: the gateway may be that
//! proxy. A token from a data directory goes to the gateway of that directory or to this machine, never to an address
//! from the command line or the environment that lies elsewhere.

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use reqwest::{Method, StatusCode, Url, header::CONTENT_TYPE, redirect};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{CommandError, Gateway};
use crate::{
    admin::{self, ADMIN_TOKEN_FILE, ProblemDocument, READ_TOKEN_FILE, read_token, view::Page},
    app::GATEWAY_FILE,
    config::{self, Flags, Sources},
};

const LARGEST_PAGE: usize = 1_000;
const REQUEST_TIME: Duration = Duration::from_secs(10);
// A page of 1,000 entries with long URLs is below 10 MiB.
const MAX_ANSWER_BYTES: usize = 32 << 20;
// An export takes as long as it takes, as long as something comes.
const TRANSFER_TIME: Duration = Duration::from_secs(24 * 60 * 60);
const PIECE_TIME: Duration = Duration::from_secs(60);

/// The part of `gateway.json` that is read here.
#[derive(Debug, Deserialize)]
struct GatewayFile {
    admin: SocketAddr,
}

/// Whether a list goes on behind what was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum More {
    Nothing,
    NotShown,
}

/// A client of one gateway.
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Result<String, CommandError>,
}

/// Where the address of the gateway came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// `--admin` or `HARDTACK_ADMIN`.
    Named,
    /// `gateway.json`.
    DataDir,
}

impl Client {
    /// A client of the gateway that `gateway`, the environment or the data directory names.
    pub(super) fn find(gateway: &Gateway) -> Result<Self, CommandError> {
        let local = Local::find(gateway);
        let (base, source) = address(gateway, local.as_ref())?;
        let trusted = source == Source::DataDir || gateway.data_dir.is_some() || is_loopback(&base);
        let token = token(local.as_ref().filter(|_| trusted), &base);
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .timeout(REQUEST_TIME)
            .tls_backend_preconfigured(tls())
            .build()
            .map_err(|source| unreachable_gateway(&base, source))?;
        Ok(Self { http, base, token })
    }

    /// GET of something under `/api/v1`; `path` is its segments, not yet encoded.
    pub(super) async fn get(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<Value, CommandError> {
        let mut url = self.api(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.ask(Method::GET, url, None).await
    }

    /// The items of a list, page by page, until there are `limit`; whether there are more.
    pub(super) async fn list(
        &self,
        path: &[&str],
        filters: Vec<(&str, String)>,
        limit: usize,
        mut show: impl FnMut(Vec<Value>) -> Result<(), CommandError>,
    ) -> Result<More, CommandError> {
        let mut left = limit;
        let mut cursor = None;
        loop {
            let mut query = filters.clone();
            query.push(("limit", left.min(LARGEST_PAGE).to_string()));
            query.extend(cursor.map(|cursor| ("cursor", cursor)));
            let page: Page<Value> = self.parse(self.get(path, &query).await?)?;
            left = left.saturating_sub(page.items.len());
            show(page.items)?;
            cursor = page.next_cursor;
            match cursor {
                None => return Ok(More::Nothing),
                Some(_) if left == 0 => return Ok(More::NotShown),
                Some(_) => {}
            }
        }
    }

    /// Reads an answer as what it should be.
    pub(super) fn parse<T: DeserializeOwned>(&self, value: Value) -> Result<T, CommandError> {
        serde_json::from_value(value).map_err(|error| self.foreign(error))
    }

    /// A change of something under `/api/v1`.
    pub(super) async fn change(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<Value, CommandError> {
        self.ask(method, self.api(path), body).await
    }

    /// The body of a GET, piece by piece.
    pub(super) async fn download(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        mut take: impl FnMut(&[u8]) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        let mut url = self.api(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let failed = |source| unreachable_gateway(&self.base, source);
        let request = self.authorized(self.http.get(url))?.timeout(TRANSFER_TIME);
        let mut response = request.send().await.map_err(failed)?;
        if !response.status().is_success() {
            let (status, body) = (response.status(), self.whole(response).await?);
            return self.answered(status, &body).map(drop);
        }
        loop {
            let piece = tokio::time::timeout(PIECE_TIME, response.chunk()).await;
            let piece = piece.map_err(|_| self.foreign("nothing comes any more"))?;
            match piece.map_err(failed)? {
                Some(piece) => take(&piece)?,
                None => return Ok(()),
            }
        }
    }

    /// A POST of lines of JSON.
    pub(super) async fn upload(
        &self,
        path: &[&str],
        lines: Vec<u8>,
    ) -> Result<Value, CommandError> {
        let request = self.http.post(self.api(path)).timeout(PIECE_TIME);
        let request = request
            .header(CONTENT_TYPE, "application/x-ndjson")
            .body(lines);
        let (status, body) = self.send(self.authorized(request)?).await?;
        self.answered(status, &body)
    }

    /// What a probe says, without a token: the status, and the body if it is JSON.
    pub(super) async fn probe(&self, path: &str) -> Result<(StatusCode, Value), CommandError> {
        let mut url = self.base.clone();
        url.set_path(path);
        let request = self.http.get(url);
        let (status, body) = self.send(request).await?;
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    async fn ask(
        &self,
        method: Method,
        url: Url,
        body: Option<&Value>,
    ) -> Result<Value, CommandError> {
        let mut request = self.authorized(self.http.request(method, url))?;
        if let Some(body) = body {
            request = request.json(body);
        }
        let (status, body) = self.send(request).await?;
        self.answered(status, &body)
    }

    fn authorized(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::RequestBuilder, CommandError> {
        match &self.token {
            Ok(token) => Ok(request.bearer_auth(token)),
            Err(_) => Err(CommandError::NoToken {
                url: self.base.to_string(),
            }),
        }
    }

    /// The answer, or the problem it is.
    fn answered(&self, status: StatusCode, body: &[u8]) -> Result<Value, CommandError> {
        if status.is_success() {
            return serde_json::from_slice(body).map_err(|error| self.foreign(error));
        }
        match serde_json::from_slice::<ProblemDocument>(body) {
            Ok(problem) => Err(CommandError::Problem {
                problem: Box::new(problem),
            }),
            Err(_) => Err(self.foreign(format!("status {status}"))),
        }
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<(StatusCode, Vec<u8>), CommandError> {
        let failed = |source| unreachable_gateway(&self.base, source);
        let response = request.send().await.map_err(failed)?;
        Ok((response.status(), self.whole(response).await?))
    }

    async fn whole(&self, mut response: reqwest::Response) -> Result<Vec<u8>, CommandError> {
        let failed = |source| unreachable_gateway(&self.base, source);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(self.foreign("the answer is too large"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn api(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .expect("an http URL has a path")
            .clear()
            .extend(["api", "v1"])
            .extend(path);
        url
    }

    fn foreign(&self, why: impl ToString) -> CommandError {
        CommandError::Foreign {
            url: self.base.to_string(),
            why: why.to_string(),
        }
    }
}

fn unreachable_gateway(base: &Url, source: reqwest::Error) -> CommandError {
    CommandError::Unreachable {
        url: base.to_string(),
        source: source.without_url(),
    }
}

fn address(gateway: &Gateway, local: Option<&Local>) -> Result<(Url, Source), CommandError> {
    let named = gateway.admin.clone().or_else(|| variable("HARDTACK_ADMIN"));
    if let Some(named) = named {
        return Ok((parse_address(&named)?, Source::Named));
    }
    let file = local
        .map_or_else(PathBuf::new, |local| local.data_dir.clone())
        .join(GATEWAY_FILE);
    let found = fs::read(&file)
        .ok()
        .and_then(|text| serde_json::from_slice::<GatewayFile>(&text).ok())
        .ok_or(CommandError::NoGateway { file })?;
    let url = format!("http://{}", reachable(found.admin));
    Ok((parse_address(&url)?, Source::DataDir))
}

/// A URL, or a bare `host:port`.
fn parse_address(address: &str) -> Result<Url, CommandError> {
    let wrong = || CommandError::Address {
        address: address.to_owned(),
    };
    let with_scheme = match address.contains("://") {
        true => address.to_owned(),
        false => format!("http://{address}"),
    };
    let mut url: Url = with_scheme.parse().map_err(|_| wrong())?;
    let plain = url.username().is_empty() && url.password().is_none() && url.path() == "/";
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !plain {
        return Err(wrong());
    }
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

/// The address at which a listener on any address is reached, with a Host that it knows.
pub(super) fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port())
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || literal.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The token of the environment, else the one that allows most of those that lie on this machine.
fn token(local: Option<&Local>, base: &Url) -> Result<String, CommandError> {
    if let Some(token) = variable("HARDTACK_TOKEN") {
        return Ok(token);
    }
    let files = local.map(Local::token_files).unwrap_or_default();
    let found = files.iter().find_map(|file| read_token(file).ok());
    found.ok_or_else(|| CommandError::NoToken {
        url: base.to_string(),
    })
}

/// What this machine knows about its gateway.
struct Local {
    data_dir: PathBuf,
    admin: Option<admin::Config>,
}

impl Local {
    /// The data directory as named, or as the configuration that the environment names says, or the user's.
    fn find(gateway: &Gateway) -> Option<Self> {
        let file = variable("HARDTACK_CONFIG").map(PathBuf::from);
        let sources = Sources::of_process(file.as_deref(), Flags::default());
        let configured = sources.ok().and_then(|sources| config::load(&sources).ok());
        // A file that became wrong since the start does not keep anybody from the gateway that runs.
        let config = configured.or_else(|| config::load(&Sources::default()).ok());
        let (configured_dir, admin) = config
            .map(|config| (config.storage.dir, config.admin))
            .unzip();
        let data_dir = gateway.data_dir.clone().or(configured_dir)?;
        Some(Self { data_dir, admin })
    }

    fn token_files(&self) -> Vec<PathBuf> {
        let configured = self.admin.iter();
        let configured = configured.flat_map(|admin| [&admin.token_file, &admin.read_token_file]);
        let made = [ADMIN_TOKEN_FILE, READ_TOKEN_FILE].map(|name| self.data_dir.join(name));
        configured.flatten().cloned().chain(made).collect()
    }
}

/// A variable that is set to something.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// TLS for an admin API behind a TLS proxy: the system's trust store, else the compiled-in one.
pub(super) fn tls() -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[cfg(test)]
mod tests {
    use super::{is_loopback, parse_address, reachable};

    #[test]
    fn addresses_of_gateways_are_urls_or_host_and_port() {
        for (address, expected) in [
            ("127.0.0.1:8081", Some("http://127.0.0.1:8081/")),
            ("localhost:8081", Some("http://localhost:8081/")),
            ("[::1]:8081", Some("http://[::1]:8081/")),
            ("https://gateway.example/", Some("https://gateway.example/")),
            ("http://u:p@gateway.example", None),
            ("http://gateway.example/api", None),
            ("ftp://gateway.example", None),
            ("http://", None),
            ("", None),
        ] {
            let parsed = parse_address(address).ok();
            assert_eq!(
                parsed.as_ref().map(reqwest::Url::as_str),
                expected,
                "{address}"
            );
        }
    }

    #[test]
    fn only_this_machine_gets_the_token_of_the_data_directory() {
        for (address, expected) in [
            ("127.0.0.1:8081", true),
            ("127.8.8.8:8081", true),
            ("localhost:8081", true),
            ("[::1]:8081", true),
            ("10.0.0.1:8081", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
        ] {
            assert_eq!(
                is_loopback(&parse_address(address).unwrap()),
                expected,
                "{address}"
            );
        }
    }

    #[test]
    fn a_listener_on_any_address_is_reached_over_loopback() {
        for (listener, expected) in [
            ("0.0.0.0:8081", "127.0.0.1:8081"),
            ("[::]:8081", "[::1]:8081"),
            ("10.0.0.1:8081", "10.0.0.1:8081"),
        ] {
            assert_eq!(
                reachable(listener.parse().unwrap()),
                expected.parse().unwrap()
            );
        }
    }
}
