//! Upstreams that speak HTTP/2: what the origin sees, what the client gets, and what becomes of an origin that is gone.

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, Version, header, request};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::support::{Gateway, Request, Reserved, eventually, reverse_to};

type Log = Arc<Mutex<Vec<Seen>>>;

/// A request as the origin saw it.
#[derive(Clone)]
struct Seen {
    head: Arc<request::Parts>,
    body: Bytes,
}

/// An origin made with a library: it answers with what it was sent, and a trailer.
struct Http2Origin {
    reserved: Reserved,
    log: Log,
    tasks: JoinSet<()>,
}

impl Http2Origin {
    /// One that knows HTTP/2 only, in the clear.
    async fn in_the_clear() -> Self {
        let mut origin = Self::prepare();
        origin.listen();
        origin
    }

    /// One with TLS that knows these protocols, and its certificate.
    async fn over_tls(protocols: &[&str]) -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let mut origin = Self::prepare();
        let (listener, log) = (origin.listener(), Arc::clone(&origin.log));
        origin.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                connections.spawn(serve(stream, is_http2, Arc::clone(&log)));
            }
        });
        (origin, made.cert.pem())
    }

    fn prepare() -> Self {
        Self {
            reserved: Reserved::new(),
            log: Log::default(),
            tasks: JoinSet::new(),
        }
    }

    fn address(&self) -> SocketAddr {
        self.reserved.address
    }

    fn listener(&self) -> TcpListener {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address()).unwrap();
        socket.listen(16).unwrap()
    }

    fn listen(&mut self) {
        let (listener, log) = (self.listener(), Arc::clone(&self.log));
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, true, Arc::clone(&log)));
            }
        });
    }

    /// Closes everything; connects are refused from now on.
    async fn kill(&mut self) {
        self.tasks.shutdown().await;
    }

    fn seen(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    is_http2: bool,
    log: Log,
) {
    let service = service_fn(move |request| answer(request, Arc::clone(&log)));
    let io = TokioIo::new(stream);
    // A connection that ends with an error has ended.
    if is_http2 {
        let _ = http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, service)
            .await;
    } else {
        let _ = http1::Builder::new().serve_connection(io, service).await;
    }
}

async fn answer(
    request: http::Request<Incoming>,
    log: Log,
) -> Result<
    Response<impl http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static>,
    Infallible,
> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let text = format!("{} {}", head.uri.path_and_query().unwrap(), body.len());
    log.lock().unwrap().push(Seen {
        head: Arc::new(head),
        body,
    });
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    let frames = [Frame::data(Bytes::from(text)), Frame::trailers(trailers)];
    let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok)));
    let response = Response::builder()
        .header(header::CACHE_CONTROL, "max-age=300")
        .header(header::TRAILER, "X-Sum")
        .body(body);
    Ok(response.unwrap())
}

fn http2_to(address: SocketAddr) -> String {
    reverse_to(address).replace("url =", "http2 = true\nurl =")
}

fn over_tls_to(port: u16, certificate: &Path) -> String {
    format!(
        r#"
        [upstreams.origin]
        url = "https://localhost:{port}"
        http2 = true
        ca_file = "{}"
        [[routes]]
        name = "all"
        upstream = "origin"
        "#,
        certificate.display()
    )
}

#[tokio::test]
async fn an_origin_that_speaks_only_http2_is_read_and_written() {
    let origin = Http2Origin::in_the_clear().await;
    let gateway = Gateway::start(&http2_to(origin.address())).await;
    let target = "/a/%2e%2e/b'?q=%41&r=[]";
    let first = gateway.client.get(target).await;
    assert_eq!(first.text(), format!("{target} 0"));
    first.assert_says(&["fwd=uri-miss", "fwd-status=200", "stored", "ttl=300"]);
    gateway.client.get(target).await.assert_says(&["hit"]);
    let content = vec![b'x'; 300_000];
    let write = Request::new("POST", "/orders")
        .header("Host", "shop.example")
        .header("Connection", "X-Private")
        .header("X-Private", "1")
        .body(content.clone());
    assert_eq!(gateway.client.ask(write).await.text(), "/orders 300000");

    let [read, write] = origin.seen().try_into().ok().unwrap();
    let authority = origin.address().to_string();
    for seen in [&read, &write] {
        assert_eq!(seen.head.version, Version::HTTP_2);
        assert_eq!(seen.head.uri.authority().unwrap().as_str(), authority);
        assert_eq!(seen.head.headers["host"], *authority);
        for name in ["connection", "x-private", "transfer-encoding"] {
            assert!(!seen.head.headers.contains_key(name), "{name}");
        }
    }
    assert!(write.body == content);
}

#[tokio::test]
async fn trailers_pass_from_http2() {
    let origin = Http2Origin::in_the_clear().await;
    let gateway = Gateway::start(&http2_to(origin.address())).await;
    let asked = Request::get("/a")
        .header("TE", "trailers")
        .header("Connection", "TE");
    let answer = gateway.client.ask(asked).await;
    assert_eq!(answer.text(), "/a 0");
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "42".to_owned())]);
    assert_eq!(origin.seen()[0].head.headers["te"], "trailers");
}

#[tokio::test]
async fn over_tls_the_origin_chooses_the_protocol() {
    for (protocols, chosen) in [
        (&["h2", "http/1.1"][..], Version::HTTP_2),
        (&["h2"], Version::HTTP_2),
        (&["http/1.1"], Version::HTTP_11),
        (&[], Version::HTTP_11),
    ] {
        let (origin, certificate) = Http2Origin::over_tls(protocols).await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        std::fs::write(&path, certificate).unwrap();
        let gateway = Gateway::start(&over_tls_to(origin.address().port(), &path)).await;
        let asked = Request::get("/a")
            .header("TE", "trailers")
            .header("Connection", "TE");
        let answer = gateway.client.ask(asked).await;
        assert_eq!(
            (answer.status, answer.text()),
            (200, "/a 0"),
            "{protocols:?}"
        );
        let seen = &origin.seen()[0].head;
        assert_eq!(seen.version, chosen, "{protocols:?}");
        assert_eq!(seen.headers["te"], "trailers");
    }
}

#[tokio::test]
async fn an_origin_that_speaks_http2_may_go_and_come_back() {
    let mut origin = Http2Origin::in_the_clear().await;
    let gateway = Gateway::start(&http2_to(origin.address())).await;
    assert_eq!(gateway.client.get("/a").await.status, 200);
    origin.kill().await;
    gateway.clock.step_secs(1_000);
    let found = gateway.client.get("/a").await;
    found.assert_says(&["fwd=stale", "detail=disconnected"]);
    let unknown = gateway.client.get("/b").await;
    unknown.assert_problem(504, "offline-miss");
    origin.listen();
    let back = eventually("the prober finds the origin", || async {
        let answer = gateway.client.get("/b").await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(back.text(), "/b 0");
}
