//! The table over HTTP/2, where an origin can say that it took no notice of a request.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{self, SendResponse},
};
use http::{Method, Request, Response, request};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{Got, KINDS, Queued, Unknown, WRITE, ask_each, got, location, site};

/// A request as the origin saw it.
struct Seen {
    head: request::Parts,
    /// `None`: it was not executed.
    body: Option<Vec<u8>>,
}

/// What an origin does, and what it has seen.
#[derive(Default)]
struct Shared {
    /// The word it has for each write, instead of executing it.
    word: Mutex<Option<Reason>>,
    seen: Mutex<Vec<Seen>>,
}

/// An origin that speaks HTTP/2 in the clear.
struct Http2Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Http2Origin {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let mut tasks = JoinSet::new();
        let of_all = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&of_all)));
            }
        });
        Self {
            address,
            shared,
            _tasks: tasks,
        }
    }

    fn resets(&self, word: Option<Reason>) {
        *self.shared.word.lock().unwrap() = word;
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let Ok(mut connection) = server::handshake(stream).await else {
        return;
    };
    let mut exchanges = JoinSet::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let word = *shared.word.lock().unwrap();
        match word.filter(|_| request.method() != Method::GET) {
            Some(word) => {
                let (head, _) = request.into_parts();
                let mut seen = shared.seen.lock().unwrap();
                seen.push(Seen { head, body: None });
                respond.send_reset(word);
            }
            None => {
                exchanges.spawn(execute(request, respond, Arc::clone(&shared)));
            }
        }
    }
}

async fn execute(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: Arc<Shared>,
) {
    let (head, mut content) = request.into_parts();
    let mut body = Vec::new();
    while let Some(Ok(data)) = content.data().await {
        body.extend(&data);
    }
    let body = Some(body);
    shared.seen.lock().unwrap().push(Seen { head, body });
    // A client that has gone needs no answer.
    if let Ok(mut answer) = respond.send_response(Response::new(()), false) {
        let _ = answer.send_data("well".into(), true);
    }
}

/// Each kind of write is reset with this word, until its client has been answered. `attempts`: so many count.
async fn check(word: Reason, expected: [Got; 3], attempts: usize) {
    let origin = Http2Origin::start().await;
    let upstream = format!("url = \"http://{}\"\nhttp2 = true", origin.address);
    let site = site(WRITE, &upstream).await;
    site.hold_deliveries("pause").await;
    origin.resets(Some(word));
    let answers = ask_each(&site).await;
    origin.resets(None);
    site.hold_deliveries("resume").await;
    for (kind, answer) in KINDS.iter().zip(&answers) {
        let what = format!("{} {}: {answer:?}", kind.method, kind.path);
        assert_eq!(got(answer, &what), kind.of(expected), "{what}");
        if kind.of(expected) == Queued {
            site.until(&location(answer), "done").await;
        }
    }
    site.let_deliveries_pass().await;
    let seen = origin.shared.seen.lock().unwrap();
    for kind in &KINDS {
        let of_kind = seen.iter().filter(|seen| seen.head.uri.path() == kind.path);
        let (executed, reset): (Vec<_>, Vec<_>) = of_kind.partition(|seen| seen.body.is_some());
        assert!(!reset.is_empty(), "{}", kind.path);
        let count = usize::from(kind.of(expected) == Queued);
        assert_eq!(executed.len(), count, "{}", kind.path);
        for delivery in executed {
            let headers = &delivery.head.headers;
            assert_eq!(headers["hardtack-attempt"], (attempts + 1).to_string());
            let body = delivery.body.as_deref().map(String::from_utf8_lossy);
            assert_eq!(body.unwrap(), format!("to {}", kind.path));
            for reset in &reset {
                let key = |seen: &Seen| seen.head.headers.get("idempotency-key").cloned();
                assert_eq!(key(reset), key(delivery), "{}", kind.path);
            }
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_refused_was_not_executed() {
    check(Reason::REFUSED_STREAM, [Queued; 3], 0).await;
}

#[tokio::test]
async fn one_that_is_reset_otherwise_may_have_been() {
    for word in [Reason::INTERNAL_ERROR, Reason::CANCEL] {
        check(word, [Queued, Unknown(502), Queued], 1).await;
    }
}
