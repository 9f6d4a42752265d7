//! The effective request: what is sent upstream, and the key its response is filed under.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderValue, Method, Request, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::{Gateway, RouteConfig, problem::Problem, query::QueryContent, routes::Asked};
use crate::{
    policy::{self, CacheKey, CacheKind, QueryRules, Reason, Settings},
    upstream::Upstream,
};

/// The effective request.
#[derive(Clone, Debug)]
pub(crate) struct Effective {
    /// How it gets there.
    pub(crate) via: Via,
    /// Scheme of the effective URI.
    pub(crate) scheme: Scheme,
    /// Authority of the effective URI: dialled, SNI, and Host unless `host` is another.
    pub(crate) authority: Authority,
    /// Path and query as they are forwarded.
    pub(crate) path_and_query: PathAndQuery,
    /// The Host that is sent where the route preserves the client's; it is part of the key then.
    pub(crate) host: Option<HeaderValue>,
    /// The key, as text: built once, compared without copies.
    pub(crate) key: String,
    /// The content of a QUERY, where the key holds its digest.
    pub(crate) content: Option<QueryContent>,
}

/// How a request was addressed.
#[derive(Clone, Debug)]
pub(crate) enum Via {
    /// Through a route, to this configured upstream.
    Upstream(Arc<Upstream>),
    /// As a forward proxy.
    Forward,
}

impl Effective {
    /// Of a request that a route with an upstream takes; `authority` is whom the client asked.
    pub(crate) fn of_route<B>(
        gateway: &Gateway,
        route: &RouteConfig,
        request: &Request<B>,
        authority: &str,
    ) -> Result<Self, Problem> {
        let missing = || Problem::new(Reason::Internal, "the route's upstream does not exist");
        let name = route.upstream.as_deref().ok_or_else(missing)?;
        let upstream = gateway.upstreams.named(name).ok_or_else(missing)?;
        let (scheme, origin, base_path) = upstream.base();
        let (scheme, origin) = (scheme.clone(), origin.clone());
        let target = behind(base_path, target(request.uri()))?;
        let target = Target::of(request.method(), target, &route.cache.query);
        let preserved = route.preserve_host.then(|| authority.to_ascii_lowercase());
        let mut partition = Partition::default();
        if let Some(host) = &preserved {
            partition.add(CacheKey::HOST_PARTITION, host);
        }
        partition.add_credential(gateway, request.headers(), &route.cache);
        let mut effective = Self::new(Via::Upstream(upstream), scheme, origin, target, &partition);
        effective.host = preserved.and_then(|host| HeaderValue::try_from(host).ok());
        Ok(effective)
    }

    /// Of a forward-proxied request.
    ///
    /// One for the origin of a configured upstream stays in a partition of its own: that upstream may be allowed to dial
    /// where the forward proxy is not, and what it stored must not be had by the other way.
    pub(crate) fn of_forward<B>(
        gateway: &Gateway,
        scheme: Scheme,
        authority: Authority,
        request: &Request<B>,
        settings: &Settings,
    ) -> Self {
        let mut partition = Partition::default();
        if gateway.upstreams.is_configured_origin(&authority) {
            partition.add("forward", "");
        }
        partition.add_credential(gateway, request.headers(), settings);
        let target = Target::of(request.method(), target(request.uri()), &settings.query);
        Self::new(Via::Forward, scheme, authority, target, &partition)
    }

    fn new(
        via: Via,
        scheme: Scheme,
        authority: Authority,
        target: Target,
        partition: &Partition,
    ) -> Self {
        let filed = target.filed();
        let mut key = String::with_capacity(authority.as_str().len() + filed.len() + 10);
        CacheKey::write(
            &mut key,
            partition.name(),
            scheme.as_str(),
            authority.as_str(),
            filed,
        );
        Self {
            via,
            scheme,
            authority,
            path_and_query: target.forwarded,
            host: None,
            key,
            content: None,
        }
    }

    /// The key.
    pub(crate) fn cache_key(&self) -> CacheKey {
        CacheKey::from_text(&self.key)
    }

    /// The same with this content, and its digest in the key.
    pub(crate) fn with_content(&self, content: QueryContent, digest: &str) -> Self {
        Self {
            key: self.cache_key().with_query(digest).as_str().to_owned(),
            content: Some(content),
            ..self.clone()
        }
    }

    /// The method of whoever fills this key. What answers a HEAD is a stored response to a GET.
    pub(crate) fn method_of_fill(&self) -> Method {
        match self.content {
            Some(_) => Method::QUERY,
            None => Method::GET,
        }
    }

    /// Whether it is filed as it is forwarded. What is not may differ by what the key does not hold.
    pub(crate) fn is_filed_as_forwarded(&self) -> bool {
        self.key.ends_with(self.path_and_query.as_str())
    }

    /// The effective URI.
    pub(crate) fn uri(&self) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(self.path_and_query.clone())
            .build()
    }

    /// Where its path begins at a configured upstream: the path of the upstream's URL.
    pub(crate) fn base_path(&self) -> &str {
        match &self.via {
            Via::Upstream(upstream) => upstream.base().2,
            Via::Forward => "",
        }
    }

    /// The upstream it goes to.
    pub(crate) fn upstream(&self, gateway: &Gateway) -> Arc<Upstream> {
        match &self.via {
            Via::Upstream(upstream) => Arc::clone(upstream),
            Via::Forward => gateway.upstreams.implicit(&self.scheme, &self.authority),
        }
    }
}

/// The path and query of a request.
struct Target {
    forwarded: PathAndQuery,
    /// What stored responses are filed under, where that is another.
    filed: Option<String>,
}

impl Target {
    /// A read is forwarded under the operator's rules, and filed as it is forwarded. Anything else is forwarded as it came,
    /// but names what reads of the same target store.
    fn of(method: &Method, asked: PathAndQuery, rules: &QueryRules) -> Self {
        let (forwarded, filed) = match rules.apply(asked.as_str()) {
            Some(ruled) if policy::is_read_method(method) => {
                let ruled = PathAndQuery::try_from(ruled);
                (ruled.expect("parts of a target make a target"), None)
            }
            ruled => (asked, ruled),
        };
        Self { forwarded, filed }
    }

    fn filed(&self) -> &str {
        self.filed.as_deref().unwrap_or(self.forwarded.as_str())
    }
}

/// The partition a request may read and write: what tells its stored responses apart from others' of the same URI.
#[derive(Debug, Default)]
struct Partition(Option<String>);

impl Partition {
    fn add(&mut self, what: &str, value: &str) {
        let name = self.0.get_or_insert_default();
        if !name.is_empty() {
            name.push('+');
        }
        name.push_str(what);
        name.push_str(value);
    }

    fn add_credential(&mut self, gateway: &Gateway, headers: &HeaderMap, settings: &Settings) {
        if settings.kind == CacheKind::Private {
            self.add("", &gateway.identity.partition(headers));
        }
    }

    fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

/// Whether a route serves every path of its upstream, so that no spelling of a path leads out of what it serves.
pub(crate) fn takes_every_path(gateway: &Gateway, route: &RouteConfig) -> bool {
    let upstream = route
        .upstream
        .as_deref()
        .and_then(|name| gateway.upstreams.named(name));
    route.path == "/**" && upstream.is_some_and(|upstream| upstream.base().2.is_empty())
}

/// The effective upstream URI of a URL as a client writes it: of a reverse route, or for the forward proxy where that
/// changes anything.
pub(crate) fn effective_url(gateway: &Gateway, url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let authority = uri.authority().map_or("", Authority::as_str);
    let asked = Asked {
        authority,
        path: uri.path(),
        method: &Method::GET,
    };
    let Some(index) = gateway.routes.reverse(&asked) else {
        return forwarded_url(gateway, &uri, &asked);
    };
    let route = gateway.routes.get(index)?;
    let upstream = gateway.upstreams.named(route.upstream.as_deref()?)?;
    let (scheme, authority, base_path) = upstream.base();
    let target = behind(base_path, target(&uri)).ok()?;
    Some(url_of(scheme, authority, target, &route.cache.query))
}

/// What is forwarded for a URL that no reverse route takes; `None` where it is forwarded as it is. The URL of a configured
/// origin is an effective one already.
fn forwarded_url(gateway: &Gateway, uri: &Uri, asked: &Asked<'_>) -> Option<String> {
    let (scheme, authority, _) = (uri.scheme()?, uri.authority()?, uri.query()?);
    let route = gateway.routes.forward(asked);
    let route = route.and_then(|index| gateway.routes.get(index));
    let rules = &route.map_or(&gateway.settings, |route| &route.cache).query;
    if rules.is_empty() || gateway.upstreams.is_configured_origin(authority) {
        return None;
    }
    Some(url_of(scheme, authority, target(uri), rules))
}

fn url_of(
    scheme: &Scheme,
    authority: &Authority,
    asked: PathAndQuery,
    rules: &QueryRules,
) -> String {
    let target = Target::of(&Method::GET, asked, rules);
    let mut url = String::new();
    CacheKey::write(
        &mut url,
        None,
        scheme.as_str(),
        authority.as_str(),
        target.filed(),
    );
    url
}

fn behind(base_path: &str, asked: PathAndQuery) -> Result<PathAndQuery, Problem> {
    if base_path.is_empty() {
        return Ok(asked);
    }
    let detail = "the target does not fit behind the upstream's path";
    PathAndQuery::try_from(format!("{base_path}{asked}"))
        .map_err(|_| Problem::new(Reason::BadRequest, detail))
}

fn target(uri: &Uri) -> PathAndQuery {
    uri.path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"))
}
