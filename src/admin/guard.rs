//! Who may ask: the checks before any handler, in this order: Host, token, what the token allows, Origin.
//!
//! `/livez`, `/readyz` and `/metrics` need neither a known Host nor a token: kubelet and Prometheus use addresses.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
};
use http::{
    HeaderMap, HeaderValue, Method, Uri,
    header::{CACHE_CONTROL, HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS},
    request::Parts,
    uri::Authority,
};

use super::{
    authentication::{Authentication, Unauthenticated},
    operator::{Operator, Peer},
    problem::{Kind, Problem},
    tokens::Access,
};

/// What the checks need to know.
pub(super) struct Guard {
    authentication: Arc<Authentication>,
    allowed_hosts: Vec<String>,
}

impl Guard {
    pub(super) fn new(authentication: Arc<Authentication>, allowed_hosts: Vec<String>) -> Self {
        Self {
            authentication,
            allowed_hosts,
        }
    }

    /// What the token allows; `None` where none is needed.
    async fn check(&self, request: &Parts) -> Result<Option<Access>, Problem> {
        let path = request.uri.path();
        if is_probe(path) {
            return Ok(None);
        }
        self.check_host(request)?;
        if !is_api(path) {
            return Ok(None);
        }
        let access = self.authenticate(&request.headers).await?;
        check_access(access, &request.method)?;
        check_origin(request)?;
        Ok(Some(access))
    }

    fn check_host(&self, request: &Parts) -> Result<(), Problem> {
        let refused = || {
            Problem::new(
                Kind::HostNotAllowed,
                "the Host of this request is not one of admin.allowed_hosts",
            )
        };
        let named = authority(request).ok_or_else(refused)?;
        // An absolute-form target and a Host field may differ; neither may name somebody else.
        let target = request.uri.authority();
        let all_ours = [Some(&named), target]
            .into_iter()
            .flatten()
            .all(|name| self.is_ours(name));
        all_ours.then_some(()).ok_or_else(refused)
    }

    fn is_ours(&self, authority: &Authority) -> bool {
        let host = authority.host();
        !authority.as_str().contains('@')
            && self
                .allowed_hosts
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(host))
    }

    async fn authenticate(&self, headers: &HeaderMap) -> Result<Access, Problem> {
        let access = self.authentication.access(headers).await;
        access.map_err(|why| match why {
            Unauthenticated::NoToken => Problem::new(
                Kind::Unauthorized,
                "send the content of admin.token or read.token as `Authorization: Bearer ...`",
            ),
            Unauthenticated::ClientsToken | Unauthenticated::WrongToken => {
                Problem::new(Kind::WrongToken, "this token is not valid here")
            }
            Unauthenticated::TooManyGuesses => {
                Problem::new(Kind::RateLimited, "too many wrong tokens at once")
            }
        })
    }
}

/// Puts the checks before every route of `router`, and before its fallbacks.
pub(super) fn protect(router: Router, guard: Guard) -> Router {
    router.layer(from_fn_with_state(Arc::new(guard), check))
}

async fn check(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (mut head, body) = request.into_parts();
    if let Some(access) = guard.check(&head).await? {
        let peer = head.extensions.get::<Peer>().copied();
        head.extensions.insert(Operator { access, peer });
    }
    let mut response = next.run(Request::from_parts(head, body)).await;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

fn is_probe(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/metrics")
}

fn is_api(path: &str) -> bool {
    path.strip_prefix("/api")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The authority of the one Host field, or of the target where there is none (HTTP/2 has none).
fn authority(request: &Parts) -> Option<Authority> {
    let mut hosts = request.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Authority::try_from(host.as_bytes()).ok(),
        (None, _) => request.uri.authority().cloned(),
        (Some(_), Some(_)) => None,
    }
}

fn check_access(access: Access, method: &Method) -> Result<(), Problem> {
    if access == Access::Admin || matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    Err(Problem::new(
        Kind::ReadOnlyToken,
        "the read token may only GET; changes need the admin token",
    ))
}

/// Refuses what a browser sends for a page of another site.
fn check_origin(request: &Parts) -> Result<(), Problem> {
    let headers = &request.headers;
    let own = authority(request);
    let origin_is_ours = headers.get_all(ORIGIN).iter().all(|origin| {
        let origin = Uri::try_from(origin.as_bytes()).ok();
        origin.is_some_and(|origin| origin.authority() == own.as_ref())
    });
    // RFC 9110 has no say on Sec-Fetch-Site; browsers set it and pages cannot (Fetch Metadata).
    let site_is_ours = headers
        .get_all("sec-fetch-site")
        .iter()
        .all(|site| matches!(site.as_bytes(), b"same-origin" | b"none"));
    if origin_is_ours && site_is_ours {
        return Ok(());
    }
    Err(Problem::new(
        Kind::CrossOrigin,
        "this request comes from a page of another site",
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::{Router, body::Body, extract::Request, routing};
    use http::StatusCode;
    use http_body_util::BodyExt;
    use tower_service::Service;

    use super::{Guard, protect};
    use crate::{
        admin::{
            authentication::{Authentication, DELAYED_REFUSALS},
            problem::{Document, Problem},
            tokens::Tokens,
        },
        telemetry::Metrics,
    };

    const ADMIN: &str = "Bearer admin-admin-admin";
    const READ: &str = "Bearer read-read-read-read";

    fn router() -> Router {
        router_with(Metrics::new())
    }

    fn router_with(metrics: Arc<Metrics>) -> Router {
        let tokens = Tokens::for_test("admin-admin-admin", "read-read-read-read");
        let guard = Guard::new(
            Arc::new(Authentication::new(tokens, metrics)),
            ["localhost", "127.0.0.1", "[::1]"]
                .map(str::to_owned)
                .to_vec(),
        );
        let known = routing::get(async || "known").put(async || "changed");
        let router = Router::new()
            .route("/livez", routing::get(async || "alive"))
            .route("/api/v1/known", known)
            .fallback(async || Problem::not_found("no such path"));
        protect(router, guard)
    }

    /// `fields` is a list of `name: value`.
    fn request(method: &str, target: &str, fields: &[&str]) -> Request {
        let mut request = Request::builder().method(method).uri(target);
        for field in fields {
            let (name, value) = field.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        request.body(Body::empty()).unwrap()
    }

    async fn check(method: &str, target: &str, fields: &[&str], expected: u16) {
        let response = router()
            .call(request(method, target, fields))
            .await
            .unwrap();
        assert_eq!(response.status(), expected, "{method} {target} {fields:?}");
        if response.status().is_success() {
            return;
        }
        let authenticates = response.headers().contains_key("www-authenticate");
        assert_eq!(authenticates, expected == 401);
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let document: Document = serde_json::from_slice(&body).unwrap();
        assert_eq!(document.status, expected);
        assert_eq!(
            document.r#type,
            format!("urn:hardtack:problem:{}", document.reason)
        );
    }

    fn auth(token: &str) -> String {
        format!("authorization: {token}")
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_valid_token_every_api_path_is_401_existing_or_not() {
        let host = "host: localhost:8081";
        for target in [
            "/api/v1/known",
            "/api/v1/unknown",
            "/api",
            "/api/",
            "/api/v2",
            "/api//",
        ] {
            check("GET", target, &[host], 401).await;
            check("PUT", target, &[host], 401).await;
            check("OPTIONS", target, &[host], 401).await;
            for wrong in [
                "Bearer x",
                "Basic admin-admin-admin",
                "admin-admin-admin",
                "Bearer",
            ] {
                check("GET", target, &[host, &auth(wrong)], 401).await;
            }
            check("GET", target, &[host, &auth(ADMIN), &auth(ADMIN)], 401).await;
        }
        check("GET", "/api/v1/known", &[host, &auth(ADMIN)], 200).await;
        check(
            "GET",
            "/api/v1/known",
            &[host, "authorization: bearer admin-admin-admin"],
            200,
        )
        .await;
        check("GET", "/api/v1/unknown", &[host, &auth(ADMIN)], 404).await;
        check("GET", "/apis", &[host], 404).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_read_token_only_reads() {
        let host = "host: localhost:8081";
        check("GET", "/api/v1/known", &[host, &auth(READ)], 200).await;
        check("HEAD", "/api/v1/known", &[host, &auth(READ)], 200).await;
        check("PUT", "/api/v1/known", &[host, &auth(ADMIN)], 200).await;
        for method in ["PUT", "POST", "DELETE", "PATCH", "PURGE"] {
            check(method, "/api/v1/known", &[host, &auth(READ)], 403).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_is_not_ours_is_misdirected_except_for_probes() {
        for host in [
            "localhost",
            "LOCALHOST:9",
            "127.0.0.1:8081",
            "[::1]:8081",
            "[::1]",
        ] {
            check(
                "GET",
                "/api/v1/known",
                &[&format!("host: {host}"), &auth(ADMIN)],
                200,
            )
            .await;
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1:8081",
            "u@localhost",
            "",
            "::1",
        ] {
            let host = format!("host: {host}");
            check("GET", "/api/v1/known", &[&host, &auth(ADMIN)], 421).await;
            check("GET", "/", &[&host], 421).await;
            check("GET", "/livez", &[&host], 200).await;
        }
        check("GET", "/api/v1/known", &[&auth(ADMIN)], 421).await;
        let two = ["host: localhost", "host: evil.example", &auth(ADMIN)];
        check("GET", "/api/v1/known", &two, 421).await;
        let absolute = "http://evil.example/api/v1/known";
        check("GET", absolute, &["host: localhost", &auth(ADMIN)], 421).await;
        check(
            "GET",
            "http://localhost/api/v1/known",
            &["host: localhost", &auth(ADMIN)],
            200,
        )
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_of_another_site_is_refused() {
        let host = "host: localhost:8081";
        for (field, expected) in [
            ("origin: http://localhost:8081", 200),
            ("origin: http://localhost:3000", 403),
            ("origin: http://evil.example", 403),
            ("origin: null", 403),
            ("sec-fetch-site: same-origin", 200),
            ("sec-fetch-site: none", 200),
            ("sec-fetch-site: cross-site", 403),
            ("sec-fetch-site: same-site", 403),
        ] {
            check(
                "PUT",
                "/api/v1/known",
                &[host, &auth(ADMIN), field],
                expected,
            )
            .await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_tokens_wait_and_only_so_many_at_once() {
        let mut router = router();
        let wrong = ["host: localhost", "authorization: Bearer wrong"];
        let mut waiting = Vec::new();
        for _ in 0..DELAYED_REFUSALS {
            let mut refused = Box::pin(router.call(request("GET", "/api", &wrong)));
            assert!(
                futures_util::poll!(&mut refused).is_pending(),
                "no answer at once"
            );
            waiting.push(refused);
        }
        let beyond = router.call(request("GET", "/api", &wrong)).await.unwrap();
        assert_eq!(beyond.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(beyond.headers()["retry-after"], "1");
        let right = ["host: localhost", &auth(ADMIN)];
        let right = router
            .call(request("GET", "/api/v1/known", &right))
            .await
            .unwrap();
        assert_eq!(
            right.status(),
            200,
            "a valid token never waits behind wrong ones"
        );
        for refused in waiting {
            assert_eq!(refused.await.unwrap().status(), 401);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_of_authentication_are_counted() {
        let metrics = Metrics::new();
        let mut router = router_with(metrics.clone());
        for (fields, expected) in [
            (vec![], 1),
            (vec![auth("Bearer wrong")], 2),
            (vec![auth(ADMIN)], 2),
        ] {
            let mut all = vec!["host: localhost"];
            all.extend(fields.iter().map(String::as_str));
            router.call(request("GET", "/api", &all)).await.unwrap();
            assert_eq!(metrics.admin_authentication_failures.get(), expected);
        }
    }
}
