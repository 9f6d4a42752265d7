//! Who may be dialled: spellings of addresses, exceptions, our own listeners, pools that are kept apart; and TLS.

use std::sync::Arc;

use http::{Uri, uri::Scheme};
use tokio::{net::TcpListener, task::JoinSet};

use super::{
    super::{Config, ConnectivityOverride, ForwardError, Upstreams},
    support::{Bench, OK, Origin, Reply, config, get, read, upstream},
};
use crate::policy::Connectivity;

async fn forward(upstreams: &Upstreams, url: &str) -> Result<(u16, String), ForwardError> {
    let uri: Uri = url.parse().unwrap();
    let implicit = upstreams.implicit(uri.scheme().unwrap(), uri.authority().unwrap());
    Ok(read(implicit.send(get(&implicit, uri.path())).await?).await)
}

fn with_loopback() -> Config {
    let mut config = config([]);
    config.allow_networks = vec!["127.0.0.0/8".parse().unwrap()];
    config
}

#[tokio::test]
async fn every_spelling_of_a_private_address_is_refused() {
    let origin = Origin::always(Reply::Answer(OK)).await;
    let bench = Bench::new(config([]));
    let port = origin.address.port();
    for host in [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "0x7f000001",
        "127.0.0.1.",
        "0",
        "0.0.0.0",
        "localhost",
        "LOCALHOST",
        "[::1]",
        "[::]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[0:0:0:0:0:ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "169.254.169.254",
        "[fe80::1]",
    ] {
        let url = format!("http://{host}:{port}/");
        let error = forward(&bench.upstreams, &url).await.unwrap_err();
        // Where the resolver does not know a spelling that is as good.
        let refused = matches!(
            error,
            ForwardError::Denied { .. } | ForwardError::Connect { .. }
        );
        assert!(refused && error.never_sent(), "{host}: {error:?}");
        let authority = format!("{host}:{port}").parse().unwrap();
        assert!(bench.upstreams.dial(&authority).await.is_err(), "{host}");
    }
    assert_eq!(origin.accepted(), 0);
}

#[tokio::test]
async fn the_usual_spellings_end_in_the_filter_not_in_the_resolver() {
    let bench = Bench::new(config([]));
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0177.0.0.1",
        "localhost",
        "[::1]",
    ] {
        let error = forward(&bench.upstreams, &format!("http://{host}:9/"))
            .await
            .unwrap_err();
        assert!(
            matches!(error, ForwardError::Denied { .. }),
            "{host}: {error:?}"
        );
    }
    // A refused address says nothing about the upstream's link.
    for status in bench.upstreams.status() {
        assert_eq!(status.connectivity, Connectivity::Connected);
    }
}

#[tokio::test]
async fn an_allowed_network_is_reached_but_never_our_own_listener() {
    let origin = Origin::always(Reply::Answer(OK)).await;
    let own = Origin::always(Reply::Answer(OK)).await;
    let bench = Bench::with_listeners(with_loopback(), vec![own.address]);
    for host in ["127.0.0.1", "127.1"] {
        let url = format!("http://{host}:{}/", origin.address.port());
        assert_eq!(forward(&bench.upstreams, &url).await.unwrap().0, 200);
        let own_url = format!("http://{host}:{}/", own.address.port());
        let error = forward(&bench.upstreams, &own_url).await.unwrap_err();
        assert!(matches!(error, ForwardError::Denied { .. }), "{error:?}");
    }
    let authority = origin.url().authority().unwrap().clone();
    assert!(bench.upstreams.dial(&authority).await.is_ok());
    let own_authority = own.url().authority().unwrap().clone();
    assert!(bench.upstreams.dial(&own_authority).await.is_err());
    assert_eq!(own.accepted(), 0);
}

#[tokio::test]
async fn a_listener_on_every_address_is_found_under_each() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut config = config([]);
    config.deny_private_networks = false;
    let bench = Bench::with_listeners(config, vec![address]);
    for host in ["127.0.0.1", "127.0.0.7", "localhost", "[::ffff:127.0.0.1]"] {
        let authority = format!("{host}:{}", address.port()).parse().unwrap();
        let error = bench.upstreams.dial(&authority).await.unwrap_err();
        assert!(
            matches!(error, ForwardError::Denied { .. }),
            "{host}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_configured_upstreams_connections_are_not_lent_to_forward_requests() {
    let origin = Origin::always(Reply::Answer(OK)).await;
    let bench = Bench::of(vec![origin.url()]);
    bench.get("/").await.unwrap();
    let url = origin.url().to_string();
    let error = forward(&bench.upstreams, &url).await.unwrap_err();
    assert!(matches!(error, ForwardError::Denied { .. }), "{error:?}");
    assert_eq!((origin.accepted(), origin.heads().len()), (1, 1));
}

#[tokio::test]
async fn the_origin_of_a_configured_upstream_is_known_in_every_spelling() {
    let bench = Bench::of(vec!["http://api.example".parse().unwrap()]);
    for (authority, expected) in [
        ("api.example", true),
        ("API.example:80", true),
        ("api.example:8080", false),
        ("other.example", false),
    ] {
        let authority = authority.parse().unwrap();
        assert_eq!(
            bench.upstreams.is_configured_origin(&authority),
            expected,
            "{authority}"
        );
    }
}

#[tokio::test]
async fn implicit_upstreams_are_shared_and_bounded() {
    let bench = Bench::new(config([]));
    let implicit = |host: &str| {
        bench
            .upstreams
            .implicit(&Scheme::HTTP, &host.parse().unwrap())
    };
    assert!(Arc::ptr_eq(
        &implicit("example.org"),
        &implicit("EXAMPLE.org")
    ));
    assert_eq!(implicit("example.org").name(), "http://example.org");
    let word = ConnectivityOverride {
        connectivity: Connectivity::Disconnected,
        until: None,
        reason: None,
    };
    bench
        .upstreams
        .set_override("http://example.org", Some(word));
    for n in 0..5_000 {
        implicit(&format!("host-{n}.example"));
    }
    let connectivity = implicit("example.org").connectivity();
    assert_eq!(
        connectivity,
        Connectivity::Disconnected,
        "an operator's word is kept"
    );
    let known = bench.upstreams.status();
    assert!(known.len() <= 4_096);
    assert!(
        known
            .iter()
            .any(|status| status.name == "http://host-4999.example")
    );
}

#[derive(Clone, Copy, PartialEq)]
enum Close {
    InOrder,
    Abrupt,
}

/// A TLS origin that answers so and closes: its certificate for `localhost` and its port.
async fn tls_origin(
    tasks: &mut JoinSet<()>,
    reply: &'static str,
    close: Close,
) -> (rustls::pki_types::CertificateDer<'static>, u16) {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = issued.cert.der().clone();
    let key =
        rustls::pki_types::PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tasks.spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut request = [0; 1_024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(reply.as_bytes()).await;
            // Without it the connection ends without the alert that TLS closes with.
            if close == Close::InOrder {
                let _ = stream.shutdown().await;
            }
        }
    });
    (certificate, port)
}

#[tokio::test]
async fn a_tls_origin_is_trusted_by_its_anchor_and_name_only() {
    let mut tasks = JoinSet::new();
    let (certificate, port) = tls_origin(&mut tasks, OK, Close::InOrder).await;
    let with = |host: &str, trusted: bool| {
        let mut upstream = upstream(vec![format!("https://{host}:{port}").parse().unwrap()]);
        upstream.extra_roots = if trusted {
            vec![certificate.clone()]
        } else {
            Vec::new()
        };
        Bench::new(config([("api", upstream)]))
    };
    assert_eq!(with("localhost", true).get("/").await.unwrap().0, 200);
    for bench in [with("localhost", false), with("127.0.0.1", true)] {
        let error = bench.get("/").await.unwrap_err();
        assert!(matches!(error, ForwardError::Connect { .. }), "{error:?}");
        assert_eq!(bench.api().connectivity(), Connectivity::Disconnected);
    }
}

#[tokio::test]
async fn a_tls_connection_that_ends_without_the_closing_alert_ends_no_body() {
    let until_close = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello";
    for (close, is_whole) in [(Close::InOrder, true), (Close::Abrupt, false)] {
        let mut tasks = JoinSet::new();
        let (certificate, port) = tls_origin(&mut tasks, until_close, close).await;
        let mut upstream = upstream(vec![format!("https://localhost:{port}").parse().unwrap()]);
        upstream.extra_roots = vec![certificate];
        let bench = Bench::new(config([("api", upstream)]));
        let api = bench.api();
        let response = api.send(get(&api, "/")).await.unwrap();
        assert!(response.body().is_close_delimited());
        let body = http_body_util::BodyExt::collect(response.into_body()).await;
        assert_eq!(body.is_ok(), is_whole, "a truncation looks like an end");
    }
}
