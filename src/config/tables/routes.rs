//! `[[routes]]`.

use http::Method;

use std::collections::BTreeMap;

use super::{Cache, Write, check_write};
use crate::{
    config::{
        names::{AuthorityPattern, PathPattern},
        problem::Problem,
        reader::{Sourced, options},
        tree::Origin,
        value::{Name, no_such},
    },
    policy::Mode,
    proxy::RouteConfig,
    upstream::UpstreamConfig,
};

options! {
    /// Requests that are treated alike. The first match wins. Forward requests match too, for policy; a route only for
    /// them needs no upstream.
    struct Route {
        /// Its name in logs and metrics.
        name: Name = required,
        /// Which requests. What is left out matches everything.
        r#match: Match = {},
        /// Where reverse requests go: the name of an upstream.
        upstream: Option<Name> = absent,
        /// "auto", "online", "prefer-cache" or "offline"; left out: the mode of the gateway.
        mode: Option<Mode> = absent,
        /// Options of `[cache]` that differ for this route.
        cache: Cache = {},
        /// Whether the client's Host is passed on instead of the upstream's authority.
        preserve_host: bool = false,
        /// Path patterns, as in `match.path`, of what a successful request with an unsafe method makes unusable until it is
        /// validated: whatever is stored of the route's upstream under such a path, with any query.
        invalidates: Vec<PathPattern> = [],
        /// What becomes of writes.
        write: Write = {},
    }
}

options! {
    /// What a request must have to match a route.
    struct Match {
        /// "*", a host, `host:port`, or "*.suffix".
        host: AuthorityPattern = "*",
        /// `*` stands for anything within a segment, `**` for any number of segments.
        path: PathPattern = "/**",
        /// Empty: all.
        methods: Vec<Method> = [],
    }
}

/// Every route, in order, checked against the upstreams and against each other.
pub(in crate::config) fn routes(
    routes: &[Route],
    cache: &Cache,
    upstreams: &BTreeMap<String, UpstreamConfig>,
    has_keys: bool,
    problems: &mut Vec<Problem>,
) -> Vec<RouteConfig> {
    let names: Vec<&str> = upstreams.keys().map(String::as_str).collect();
    let checked: Vec<RouteConfig> = routes.iter().map(Route::config).collect();
    for (position, route) in routes.iter().enumerate() {
        check_upstream(route, &names, problems);
        check_budget(route, cache, problems);
        check_invalidates(route, problems);
        check_host(route, upstreams, problems);
        check_write(route, upstreams, has_keys, problems);
        let (before, this) = (&checked[..position], &checked[position]);
        if before.iter().any(|other| other.name == this.name) {
            let title = format!("`routes.{position}.name`: a second route `{}`", this.name);
            let problem = Problem::error(route.name.origin, title);
            problems.push(problem.label("names of routes differ"));
        } else if let Some(other) = before.iter().find(|other| covers(other, this)) {
            let title = format!("route `{}` is never reached", this.name);
            let label = format!("route `{}` above matches all of it", other.name);
            problems.push(Problem::warning(route.name.origin, title).label(label));
        }
    }
    checked
}

fn check_upstream(route: &Route, upstreams: &[&str], problems: &mut Vec<Problem>) {
    let Sourced {
        value: Some(name),
        origin,
    } = &route.upstream
    else {
        return;
    };
    if !upstreams.contains(&name.0.as_str()) && *origin != Origin::Refused {
        let (label, help) = no_such("upstream", &name.0, upstreams);
        let title = format!("route `{}`: unknown upstream `{}`", route.name.0, name.0);
        problems.push(Problem::error(*origin, title).label(label).help(help));
    }
}

/// A route has taken over what `[cache]` says; another rate would be one that nothing keeps.
fn check_budget(route: &Route, cache: &Cache, problems: &mut Vec<Problem>) {
    let own = &route.cache.refresh_ahead_rate;
    if own.value != cache.refresh_ahead_rate.value && own.origin != Origin::Refused {
        let title = format!(
            "route `{}`: `refresh_ahead_rate` is no option of a route",
            route.name.0
        );
        let problem = Problem::error(own.origin, title).label("one budget for all routes");
        problems.push(problem.help("write it in `[cache]`"));
    }
}

/// Over HTTP/2 the host that is asked for is the one that is connected to.
fn check_host(
    route: &Route,
    upstreams: &BTreeMap<String, UpstreamConfig>,
    problems: &mut Vec<Problem>,
) {
    let upstream = route.upstream.value.as_ref();
    let upstream = upstream.and_then(|name| upstreams.get(&name.0));
    if route.preserve_host.value && upstream.is_some_and(|upstream| upstream.http2) {
        let title = format!("route `{}`: `preserve_host` and `http2`", route.name.0);
        let label = "the upstream speaks HTTP/2, which takes no other Host than its own";
        let problem = Problem::error(route.preserve_host.origin, title).label(label);
        problems.push(problem.help("leave out one of them"));
    }
}

/// What a route without an upstream invalidates is nobody's.
fn check_invalidates(route: &Route, problems: &mut Vec<Problem>) {
    let Sourced { value, origin } = &route.invalidates;
    if route.upstream.value.is_none() && !value.is_empty() && *origin != Origin::Refused {
        let title = format!("route `{}`: `invalidates` without `upstream`", route.name.0);
        let label = "these are paths of the route's upstream";
        problems.push(Problem::error(*origin, title).label(label));
    }
}

/// Whether everything that `later` matches is taken by `earlier`. Errs on the side of no.
fn covers(earlier: &RouteConfig, later: &RouteConfig) -> bool {
    let host = earlier.host == "*" || earlier.host == later.host;
    let path = earlier.path == "/**" || earlier.path == later.path;
    let methods = earlier.methods.is_empty()
        || !later.methods.is_empty()
            && later
                .methods
                .iter()
                .all(|one| earlier.methods.contains(one));
    // A route without an upstream takes no reverse request.
    let kind = earlier.upstream.is_some() || later.upstream.is_none();
    host && path && methods && kind
}

impl Route {
    fn config(&self) -> RouteConfig {
        RouteConfig {
            name: self.name.0.clone(),
            host: self.r#match.host.0.clone(),
            path: self.r#match.path.0.clone(),
            methods: self.r#match.methods.value.clone(),
            upstream: self.upstream.as_ref().map(|name| name.0.clone()),
            mode: self.mode.value,
            cache: self.cache.settings(),
            preserve_host: self.preserve_host.value,
            invalidates: self
                .invalidates
                .iter()
                .map(|pattern| pattern.0.clone())
                .collect(),
            write: self.write.settings(),
        }
    }
}
