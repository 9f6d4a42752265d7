//! Connections to an origin that are driven by the requests that use them.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
    task::JoinSet,
};

use super::{
    super::RequestBody,
    support::{Bench, OK, Origin, Reply, get, read, read_head, request},
};

// Elsewhere a connection stands a moment later.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_request_is_sent_as_soon_as_it_is_asked_for_on_a_new_connection_too() {
    use std::io::Read;

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let bench = Bench::of(vec![url.parse().unwrap()]);
    let api = bench.api();
    let mut answer = pin!(api.send(get(&api, "/")));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(answer.as_mut().poll(&mut cx).is_pending());
    // Nothing but that look moved anything, and nothing is waited for.
    listener.set_nonblocking(true).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut head = [0; 16];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head, *b"GET / HTTP/1.1\r\n");
}

#[tokio::test(start_paused = true)]
async fn content_is_sent_to_its_end_though_the_answer_came_before() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut origin = JoinSet::new();
    origin.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await.unwrap();
        stream.write_all(OK.as_bytes()).await.unwrap();
        let mut content = [0; 4];
        stream.read_exact(&mut content).await.unwrap();
        content
    });
    let bench = Bench::of(vec![url.parse().unwrap()]);
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let frames = stream::unfold(receiver, async |mut receiver| {
        Some((Ok(Frame::data(receiver.recv().await?)), receiver))
    });
    let asked = request(&bench.api(), "POST", "/")
        .header("content-length", "4")
        .body(RequestBody::new(StreamBody::new(Box::pin(frames))))
        .unwrap();
    let answer = read(bench.api().send(asked).await.unwrap()).await;
    assert_eq!(answer, (200, "ok".to_owned()));
    // Longer than a connection is waited for that is to be used again.
    tokio::time::advance(Duration::from_secs(10)).await;
    sender.send(Bytes::from_static(b"late")).await.unwrap();
    assert_eq!(origin.join_next().await.unwrap().unwrap(), *b"late");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_reads_leaves_its_connection_if_it_is_here() {
    let origin = Origin::always(Reply::Answer(OK)).await;
    let bench = Bench::of(vec![origin.url()]);
    for path in ["/1", "/2"] {
        let answer = bench.api().send(get(&bench.api(), path)).await.unwrap();
        drop(answer);
    }
    assert_eq!(bench.get("/3").await.unwrap(), (200, "ok".to_owned()));
    assert_eq!(origin.accepted(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_reads_closes_its_connection_if_it_is_still_to_come() {
    const HALF: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha";
    let origin = Origin::new(|connection, _| match connection {
        0 => Reply::Silence(HALF),
        _ => Reply::Answer(OK),
    })
    .await;
    let bench = Bench::of(vec![origin.url()]);
    let answer = bench.api().send(get(&bench.api(), "/1")).await.unwrap();
    drop(answer);
    assert_eq!(bench.get("/2").await.unwrap(), (200, "ok".to_owned()));
    assert_eq!(origin.accepted(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_a_request_brings_about_itself_does_not_wake_it() {
    let origin = Origin::always(Reply::Answer(OK)).await;
    let bench = Bench::of(vec![origin.url()]);
    // A connection to use.
    bench.get("/1").await.unwrap();
    let (answer, own_wakes) = counting_own_wakes(bench.get("/2")).await;
    assert_eq!(answer.unwrap(), (200, "ok".to_owned()));
    // Each would be a poll for nothing, of everything that the request is part of.
    assert_eq!(own_wakes, 0);
    assert_eq!(origin.accepted(), 1);
}

/// What `work` comes to, and how often it was woken while it was being polled.
async fn counting_own_wakes<T>(work: impl Future<Output = T>) -> (T, usize) {
    let mut work = pin!(work);
    let mut watch = None;
    let result = poll_fn(|cx| {
        let watch: &Arc<Watch> = watch.get_or_insert_with(|| Arc::new(Watch::of(cx.waker())));
        watch.is_polling.store(true, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(watch));
        let polled = work.as_mut().poll(&mut Context::from_waker(&waker));
        watch.is_polling.store(false, Ordering::Relaxed);
        polled
    })
    .await;
    let own_wakes = watch.map_or(0, |watch| watch.own_wakes.load(Ordering::Relaxed));
    (result, own_wakes)
}

struct Watch {
    task: Waker,
    is_polling: AtomicBool,
    own_wakes: AtomicUsize,
}

impl Watch {
    fn of(task: &Waker) -> Self {
        Self {
            task: task.clone(),
            is_polling: AtomicBool::new(false),
            own_wakes: AtomicUsize::new(0),
        }
    }
}

impl Wake for Watch {
    fn wake(self: Arc<Self>) {
        if self.is_polling.load(Ordering::Relaxed) {
            self.own_wakes.fetch_add(1, Ordering::Relaxed);
        }
        self.task.wake_by_ref();
    }
}
