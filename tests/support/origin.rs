//! A real origin on loopback that answers from a script, misbehaves on cue, and logs every request it saw whole.
//!
//! Raw TCP, because an HTTP library would refuse to misbehave. HTTP/1.1 only.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Reserved, within};

/// An origin. It listens until it is killed or dropped.
pub(crate) struct Origin {
    reserved: Reserved,
    shared: Arc<Shared>,
    life: Mutex<Life>,
}

/// A request as the origin saw it, complete with its body.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    /// In the order of the wire; values as Latin-1, so that 8-bit bytes can be compared.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// What the origin answers, and how well it behaves while it does.
#[derive(Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
    etag: Option<String>,
    framing: Framing,
    held: Option<Cue>,
    parts: usize,
    drip: Option<Cue>,
    last_words: Option<Step>,
    script: Option<Vec<Step>>,
}

/// One thing the origin does to a connection.
#[derive(Clone)]
pub(crate) enum Step {
    /// Sends these bytes.
    Send(Bytes),
    /// Waits for a cue.
    Await(Cue),
    /// Closes the connection in order.
    Close,
    /// Resets the connection.
    Reset,
    /// Waits for the next request on the connection, and resets it with nothing of that read.
    ResetUnread,
    /// Sends back whatever arrives, until the peer closes.
    Echo,
}

/// A signal from the test to the origin, which holds until it is given, and never again after that.
#[derive(Clone)]
pub(crate) struct Cue(Arc<Semaphore>);

#[derive(Clone, Copy, PartialEq)]
enum Framing {
    Length,
    Chunked,
    UntilClose,
}

struct Shared {
    replies: Mutex<HashMap<String, Handler>>,
    /// Answers in place of all others while it is there.
    impostor: Mutex<Option<Reply>>,
    log: watch::Sender<Vec<Seen>>,
    connections: AtomicUsize,
    broken: watch::Sender<usize>,
    snubs: AtomicBool,
}

type Handler = Arc<dyn Fn(&Seen, usize) -> Reply + Send + Sync>;

struct Life {
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Whether the connection is good for another request.
#[derive(PartialEq)]
enum Then {
    Next,
    Over,
}

impl Origin {
    pub(crate) async fn start() -> Self {
        let reserved = Reserved::new();
        let shared = Arc::new(Shared {
            replies: Mutex::default(),
            impostor: Mutex::default(),
            log: watch::Sender::new(Vec::new()),
            connections: AtomicUsize::new(0),
            broken: watch::Sender::new(0),
            snubs: AtomicBool::new(false),
        });
        let life = Mutex::new(Life::begin(reserved.address, Arc::clone(&shared)));
        Self {
            reserved,
            shared,
            life,
        }
    }

    /// Answers every request for `path` (with its query) so.
    pub(crate) fn on(&self, path: &str, reply: Reply) -> &Self {
        self.on_each(path, move |_, _| reply.clone())
    }

    /// Answers requests for `path` as the function says, given the request and how many came before it.
    pub(crate) fn on_each(
        &self,
        path: &str,
        reply: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static,
    ) -> &Self {
        let mut replies = self.shared.replies.lock().unwrap();
        replies.insert(path.to_owned(), Arc::new(reply));
        drop(replies);
        self
    }

    /// Answers every request so, whatever its path, until it is `None` again: somebody else answers at this address.
    pub(crate) fn replaced_by(&self, impostor: Option<Reply>) {
        *self.shared.impostor.lock().unwrap() = impostor;
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.reserved.address
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.reserved.address)
    }

    /// Every request seen so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.log.borrow().clone()
    }

    /// Every request for `path` seen so far.
    pub(crate) fn seen_at(&self, path: &str) -> Vec<Seen> {
        let mut seen = self.seen();
        seen.retain(|seen| seen.target == path);
        seen
    }

    /// Waits until `count` requests for `path` have been seen.
    pub(crate) async fn sees(&self, path: &str, count: usize) {
        let mut log = self.shared.log.subscribe();
        let enough = |log: &Vec<Seen>| log.iter().filter(|s| s.target == path).count() >= count;
        within("the origin sees the request", log.wait_for(enough))
            .await
            .unwrap();
    }

    /// Waits until a request has broken off before its end.
    pub(crate) async fn sees_a_broken_request(&self) {
        let mut broken = self.shared.broken.subscribe();
        within("a request breaks off", broken.wait_for(|count| *count > 0))
            .await
            .unwrap();
    }

    /// How many connections were accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Closes the listener and every connection. From then on connects are refused.
    pub(crate) async fn kill(&self) {
        let tasks = {
            let life = self.life.lock().unwrap();
            life.stop.cancel();
            life.tasks.clone()
        };
        within("the origin ends", tasks.wait()).await;
    }

    /// Whether connections that begin from now on are accepted, and reset with nothing read once something was sent.
    pub(crate) fn snub(&self, whether: bool) {
        self.shared.snubs.store(whether, Ordering::Relaxed);
    }

    /// Listens again, on the same address.
    pub(crate) fn revive(&self) {
        *self.life.lock().unwrap() = Life::begin(self.address(), Arc::clone(&self.shared));
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.life.lock().unwrap().stop.cancel();
    }
}

impl Seen {
    /// The first value of a field.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// Every value of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.headers.iter();
        let named = fields.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }
}

impl Cue {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets every wait pass, from now on.
    pub(crate) fn open(&self) {
        self.0.close();
    }

    async fn pass(&self) {
        // There is never a permit: this ends when the semaphore is closed, which is what opens the cue.
        let _ = self.0.acquire().await;
    }
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            etag: None,
            framing: Framing::Length,
            held: None,
            parts: 1,
            drip: None,
            last_words: None,
            script: None,
        }
    }

    pub(crate) fn ok(body: impl Into<Bytes>) -> Self {
        Self::new(200, body)
    }

    /// Exactly these steps, and nothing of the origin's own making.
    pub(crate) fn script(steps: impl Into<Vec<Step>>) -> Self {
        Self {
            script: Some(steps.into()),
            ..Self::ok("")
        }
    }

    /// Exactly these bytes, then the connection's end.
    pub(crate) fn raw(bytes: impl Into<Bytes>) -> Self {
        Self::script([Step::Send(bytes.into()), Step::Close])
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn cache_control(self, value: &str) -> Self {
        self.header("Cache-Control", value)
    }

    /// With this entity tag; a request whose If-None-Match equals it gets a 304.
    pub(crate) fn etag(mut self, value: &str) -> Self {
        self.etag = Some(value.to_owned());
        self.header("ETag", value)
    }

    /// Waits for the cue before the head.
    pub(crate) fn held(mut self, cue: &Cue) -> Self {
        self.held = Some(cue.clone());
        self
    }

    /// Sends the body in that many parts, and waits for the cue before each but the first.
    pub(crate) fn dripped(mut self, parts: usize, cue: &Cue) -> Self {
        self.parts = parts;
        self.drip = Some(cue.clone());
        self
    }

    /// Never sends the last part of the body (of two, unless it drips), but does this instead.
    pub(crate) fn ends_early(mut self, with: Step) -> Self {
        self.parts = self.parts.max(2);
        self.last_words = Some(with);
        self
    }

    pub(crate) fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked;
        self
    }

    /// Marks the body's end by closing the connection.
    pub(crate) fn until_close(mut self) -> Self {
        self.framing = Framing::UntilClose;
        self
    }

    fn steps(&self, request: &Seen) -> Vec<Step> {
        if let Some(script) = &self.script {
            return script.clone();
        }
        let not_modified = self
            .etag
            .as_deref()
            .is_some_and(|etag| request.header("if-none-match") == Some(etag));
        let status = if not_modified { 304 } else { self.status };
        let bodiless = not_modified || request.method == "HEAD" || matches!(status, 204 | 304);

        let mut steps: Vec<Step> = self.held.iter().cloned().map(Step::Await).collect();
        steps.push(Step::Send(self.head(status, bodiless).into()));
        if !bodiless {
            self.body_steps(&mut steps);
        }
        steps
    }

    fn head(&self, status: u16, bodiless: bool) -> String {
        let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match self.framing {
            Framing::Length if bodiless && status != 200 => {}
            Framing::Length => head.push_str(&format!("Content-Length: {}\r\n", self.body.len())),
            Framing::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
            Framing::UntilClose => head.push_str("Connection: close\r\n"),
        }
        head.push_str("\r\n");
        head
    }

    fn body_steps(&self, steps: &mut Vec<Step>) {
        let size = self.body.len().div_ceil(self.parts).max(1);
        let parts = self.body.len().div_ceil(size).max(1);
        for part in 0..parts {
            if part > 0 {
                steps.extend(self.drip.iter().cloned().map(Step::Await));
            }
            let is_last = part + 1 == parts;
            if let (true, Some(last_words)) = (is_last, &self.last_words) {
                steps.push(last_words.clone());
                return;
            }
            let end = self.body.len().min((part + 1) * size);
            steps.push(Step::Send(self.framed(self.body.slice(part * size..end))));
        }
        match self.framing {
            Framing::Length => {}
            Framing::Chunked => steps.push(Step::Send(Bytes::from_static(b"0\r\n\r\n"))),
            Framing::UntilClose => steps.push(Step::Close),
        }
    }

    fn framed(&self, part: Bytes) -> Bytes {
        // An empty chunk would be the last one.
        if self.framing != Framing::Chunked || part.is_empty() {
            return part;
        }
        let mut chunk = format!("{:x}\r\n", part.len()).into_bytes();
        chunk.extend_from_slice(&part);
        chunk.extend_from_slice(b"\r\n");
        chunk.into()
    }
}

impl Life {
    fn begin(address: SocketAddr, shared: Arc<Shared>) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(1024).unwrap();

        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let accepting = accept(listener, shared, stop.clone(), tasks.clone());
        let until = stop.clone();
        tasks.spawn(async move { until.run_until_cancelled_owned(accepting).await });
        tasks.close();
        Self { stop, tasks }
    }
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let serving = serve(stream, Arc::clone(&shared));
        let until = stop.clone();
        tasks.spawn(async move { until.run_until_cancelled_owned(serving).await });
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    // Responses are small and interactive; without this each waits for the peer's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    if shared.snubs.load(Ordering::Relaxed) {
        let _ = reset_unread(&stream).await;
        return;
    }
    let mut buffer = Vec::new();
    loop {
        let request = match read_request(&mut stream, &mut buffer).await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(_) => return shared.broken.send_modify(|count| *count += 1),
        };
        let steps = shared.answer(request);
        match play(&mut stream, steps).await {
            Ok(Then::Next) => {}
            Ok(Then::Over) | Err(_) => return,
        }
    }
}

impl Shared {
    fn answer(&self, request: Seen) -> Vec<Step> {
        let handler = self.replies.lock().unwrap().get(&request.target).cloned();
        // Logged last, so that whoever waits for the log finds the answer decided.
        let before = |log: &Vec<Seen>| log.iter().filter(|s| s.target == request.target).count();
        let nth = before(&self.log.borrow());
        let impostor = self.impostor.lock().unwrap().clone();
        let reply = match (impostor, handler) {
            (Some(impostor), _) => impostor,
            (None, Some(handler)) => handler(&request, nth),
            (None, None) => Reply::new(404, "no script for this path"),
        };
        let steps = reply.steps(&request);
        self.log.send_modify(|log| log.push(request));
        steps
    }
}

async fn play(stream: &mut TcpStream, steps: Vec<Step>) -> io::Result<Then> {
    for step in steps {
        match step {
            Step::Send(bytes) => stream.write_all(&bytes).await?,
            Step::Await(cue) => cue.pass().await,
            Step::Close => {
                stream.shutdown().await?;
                return Ok(Then::Over);
            }
            Step::Reset => {
                stream.set_zero_linger()?;
                return Ok(Then::Over);
            }
            Step::ResetUnread => {
                reset_unread(stream).await?;
                return Ok(Then::Over);
            }
            Step::Echo => {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await?;
                return Ok(Then::Over);
            }
        }
    }
    Ok(Then::Next)
}

/// Whoever drops the stream then resets the connection.
async fn reset_unread(stream: &TcpStream) -> io::Result<()> {
    stream.readable().await?;
    stream.set_zero_linger()
}

/// Reads one request. `None`: the peer closed between requests.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Seen>> {
    let head_end = loop {
        if let Some(at) = find(buffer, b"\r\n\r\n") {
            break at;
        }
        match fill(stream, buffer).await {
            Ok(()) => {}
            // A client may drop an idle connection as it likes; only a begun request can break off.
            Err(_) if buffer.is_empty() => return Ok(None),
            Err(error) => return Err(error),
        }
    };
    // Latin-1, so that every byte survives as one character.
    let head: String = buffer[..head_end].iter().map(|b| char::from(*b)).collect();
    buffer.drain(..head_end + 4);

    let mut lines = head.split("\r\n");
    let mut request_line = lines.next().unwrap_or_default().split(' ');
    let mut word = || request_line.next().unwrap_or_default().to_owned();
    let mut seen = Seen {
        method: word(),
        target: word(),
        headers: lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect(),
        body: Vec::new(),
    };
    let length = seen.header("content-length").and_then(|v| v.parse().ok());
    let chunked = seen
        .header("transfer-encoding")
        .is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    seen.body = if chunked {
        read_chunks(stream, buffer).await?
    } else {
        take(stream, buffer, length.unwrap_or(0)).await?
    };
    Ok(Some(seen))
}

async fn read_chunks(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = loop {
            match find(buffer, b"\r\n") {
                Some(at) => break at,
                None => fill(stream, buffer).await?,
            }
        };
        let line = String::from_utf8_lossy(&buffer[..line_end]).into_owned();
        buffer.drain(..line_end + 2);
        let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        // Trailers are not expected here: after the last chunk comes an empty line, like after every other.
        body.extend(take(stream, buffer, size).await?);
        take(stream, buffer, 2).await?;
        if size == 0 {
            return Ok(body);
        }
    }
}

async fn take(stream: &mut TcpStream, buffer: &mut Vec<u8>, count: usize) -> io::Result<Vec<u8>> {
    while buffer.len() < count {
        fill(stream, buffer).await?;
    }
    Ok(buffer.drain(..count).collect())
}

async fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<()> {
    match stream.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}
