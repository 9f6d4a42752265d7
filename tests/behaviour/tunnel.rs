//! CONNECT: tunnels, and plain HTTP inside them.

use std::{sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore, ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::{Connection, Gateway, Origin, Reply, Request, within};

#[tokio::test]
async fn a_tunnel_carries_tls_to_the_origin_untouched() {
    let origin = TlsOrigin::start().await;
    let gateway = with_tunnel_port(origin.port).await;

    let (connection, answer) = gateway
        .client
        .connect_through(&format!("localhost:{}", origin.port))
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("cache-status"), None);
    let connector = TlsConnector::from(Arc::clone(&origin.client));
    let name = "localhost".try_into().unwrap();
    let tls = within(
        "the handshake",
        connector.connect(name, connection.into_stream()),
    )
    .await
    .unwrap();

    let mut inside = Connection::over(tls);
    let answer = inside.ask(&Request::get("/secret")).await;
    assert_eq!((answer.status, answer.text()), (200, "over TLS"));
    assert_eq!(answer.header("via"), None, "the tunnel was opened");
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 ready\r\n").await.unwrap();
        let mut said = [0; 4];
        stream.read_exact(&mut said).await.unwrap();
        stream.write_all(&said).await.unwrap();
    });
    let gateway = with_tunnel_port(port).await;

    let (mut connection, answer) = gateway
        .client
        .connect_through(&format!("127.0.0.1:{port}"))
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(connection.take(11).await, (b"220 ready\r\n".to_vec(), true));
    connection.send(b"QUIT").await;
    assert_eq!(connection.take(4).await, (b"QUIT".to_vec(), true));
    assert!(
        connection.until_end().await.is_empty(),
        "the end is passed on"
    );
}

#[tokio::test]
async fn a_quiet_tunnel_stays_open() {
    let mut tasks = JoinSet::new();
    let port = echo_once_switched(&mut tasks, b"").await;
    let gateway = with_tunnel_port(port).await;
    let authority = format!("127.0.0.1:{port}");
    let (mut connection, answer) = gateway.client.connect_through(&authority).await;
    assert_eq!(answer.status, 200);
    outlasts_minutes_of_quiet(&mut connection).await;
}

#[tokio::test]
async fn a_quiet_websocket_stays_open() {
    let switch =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut tasks = JoinSet::new();
    let port = echo_once_switched(&mut tasks, switch.as_bytes()).await;
    let gateway = Gateway::start("").await;
    let upgrade = Request::get(&format!("http://127.0.0.1:{port}/ws"))
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket");
    let mut connection = gateway.client.connect().await;
    assert_eq!(connection.ask(&upgrade).await.status, 101);
    outlasts_minutes_of_quiet(&mut connection).await;
}

/// Regression: what went through a tunnel was still taken for HTTP, and cut as a head that does not end, or as idling.
async fn outlasts_minutes_of_quiet(connection: &mut Connection) {
    for _ in 0..3 {
        connection.send(b"\x81\x02hi").await;
        assert_eq!(connection.take(4).await, (b"\x81\x02hi".to_vec(), true));
        tokio::time::pause();
        for _ in 0..20 {
            tokio::time::advance(Duration::from_secs(9)).await;
        }
        tokio::time::resume();
    }
}

/// An origin of one connection that sends back what it is sent; if it has a head to answer with, after a request.
async fn echo_once_switched(tasks: &mut JoinSet<()>, head: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !head.is_empty() && !request.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut request).await.unwrap();
        }
        stream.write_all(head).await.unwrap();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    port
}

#[tokio::test]
async fn any_method_and_any_first_segment_is_http_inside_connect() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on("/a", Reply::ok("hello"));
    for (first, rest) in [("G", "ET"), ("PROP", "FIND")] {
        let (mut inside, _) = connect_to(&gateway, &origin).await;
        inside.send(first.as_bytes()).await;
        // So that it is read by itself: by the time another is answered, the gateway has seen it.
        gateway.client.get("/healthz").await;
        let host = origin.address();
        let rest = format!("{rest} /a HTTP/1.1\r\nHost: {host}\r\n\r\n");
        inside.send(rest.as_bytes()).await;
        assert_eq!(inside.answer("GET").await.text(), "hello", "{first}");
    }
}

#[tokio::test]
async fn a_request_in_two_segments_is_served_in_a_tunnel_port_too() {
    let origin = Origin::start().await;
    let gateway = with_tunnel_port(origin.address().port()).await;
    origin.on("/a", Reply::ok("hello"));
    let (mut inside, _) = connect_to(&gateway, &origin).await;
    inside.send(b"G").await;
    gateway.client.get("/healthz").await;
    let rest = format!("ET /a HTTP/1.1\r\nHost: {}\r\n\r\n", origin.address());
    inside.send(rest.as_bytes()).await;
    inside.answer("GET").await.assert_says(&["fwd=uri-miss"]);
}

#[tokio::test]
async fn a_client_that_waits_in_the_middle_of_a_method_speaks_something_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'G');
        stream.write_all(b"go on").await.unwrap();
    });
    let gateway = with_tunnel_port(port).await;
    let authority = format!("127.0.0.1:{port}");
    let (mut connection, _) = gateway.client.connect_through(&authority).await;
    connection.send(b"G").await;
    assert_eq!(connection.take(5).await, (b"go on".to_vec(), true));
}

#[tokio::test]
async fn plain_http_inside_connect_is_served_and_cached() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on("/a", Reply::ok("hello").cache_control("max-age=300"));

    for expected in [["fwd=uri-miss", "stored"], ["hit", "ttl=300"]] {
        let (mut inside, answer) = connect_to(&gateway, &origin).await;
        assert_eq!(answer.status, 200);
        let inner = Request::get("/a").header("Host", &origin.address().to_string());
        let answer = inside.ask(&inner).await;
        assert_eq!(answer.text(), "hello");
        answer.assert_says(&expected);
    }
    gateway
        .client
        .get(&origin.url("/a"))
        .await
        .assert_says(&["hit"]);
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn plain_http_inside_a_tunnel_port_is_served_the_same_way() {
    let origin = Origin::start().await;
    let gateway = with_tunnel_port(origin.address().port()).await;
    origin.on("/a", Reply::ok("hello").cache_control("max-age=300"));
    for expected in ["fwd=uri-miss", "hit"] {
        let (mut inside, _) = connect_to(&gateway, &origin).await;
        let inner = Request::get("/a").header("Host", &origin.address().to_string());
        inside.ask(&inner).await.assert_says(&[expected]);
    }
}

#[tokio::test]
async fn connect_to_another_port_dials_nothing_until_http_arrives() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let (mut inside, answer) = connect_to(&gateway, &origin).await;
    assert_eq!((answer.status, origin.connections()), (200, 0));

    // A TLS client hello: not plain HTTP, and this port is no tunnel.
    inside
        .send(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")
        .await;
    inside.until_end().await;
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn requests_inside_connect_are_pinned_to_its_authority() {
    let (origin, other) = (Origin::start().await, Origin::start().await);
    let gateway = Gateway::start("").await;
    other.on("/a", Reply::ok("other"));
    let (mut inside, _) = connect_to(&gateway, &origin).await;
    inside.send_request(&Request::get(&other.url("/a"))).await;
    inside.try_head().await;
    assert_eq!(other.connections(), 0);
}

#[tokio::test]
async fn connect_to_a_denied_address_is_refused_before_anything_is_dialled() {
    let origin = Origin::start().await;
    for ports in ["[443]", &format!("[{}]", origin.address().port())] {
        let gateway = Gateway::start(&format!(
            "[forward]\nallow_networks = []\nconnect_ports = {ports}"
        ))
        .await;
        let (_, answer) = connect_to(&gateway, &origin).await;
        answer.assert_problem(403, "forward-denied");
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn a_tunnel_to_a_dead_origin_is_refused() {
    let origin = Origin::start().await;
    let gateway = with_tunnel_port(origin.address().port()).await;
    origin.kill().await;
    let (_, answer) = connect_to(&gateway, &origin).await;
    answer.assert_problem(504, "offline-miss");
}

async fn connect_to(gateway: &Gateway, origin: &Origin) -> (Connection, crate::support::Answer) {
    let authority = origin.address().to_string();
    gateway.client.connect_through(&authority).await
}

async fn with_tunnel_port(port: u16) -> Gateway {
    Gateway::start(&format!("[forward]\nconnect_ports = [{port}]")).await
}

/// An origin that answers any request over TLS, and what a client needs to trust it.
struct TlsOrigin {
    port: u16,
    client: Arc<ClientConfig>,
    _tasks: JoinSet<()>,
}

impl TlsOrigin {
    async fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut tasks = JoinSet::new();
        tasks.spawn(answer_one(listener, TlsAcceptor::from(Arc::new(server))));
        Self {
            port,
            client: Arc::new(client),
            _tasks: tasks,
        }
    }
}

async fn answer_one(listener: TcpListener, acceptor: TlsAcceptor) {
    let (stream, _) = listener.accept().await.unwrap();
    let mut tls = acceptor.accept(stream).await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        tls.read_buf(&mut request).await.unwrap();
    }
    tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nover TLS")
        .await
        .unwrap();
    tls.shutdown().await.unwrap();
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
