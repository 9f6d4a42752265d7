//! A client that sends any bytes and reads what comes back, HTTP/1.1, one connection at a time.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use super::within;

/// Sends requests to one listener, each on a connection of its own.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    bearer: Option<String>,
}

/// A request to send. An absolute URL as target goes out in absolute-form, a path in origin-form.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Bytes,
}

/// A response, as far as it came.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In the order of the wire; values as Latin-1.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// What stood behind a chunked body.
    pub(crate) trailers: Vec<(String, String)>,
    /// Whether the body came to the end its framing announced.
    pub(crate) is_complete: bool,
}

/// One connection.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            bearer: None,
        }
    }

    /// Sends this bearer token along.
    pub(crate) fn with_bearer(self, token: String) -> Self {
        Self {
            bearer: Some(token),
            ..self
        }
    }

    /// To another listener, with the same token.
    pub(crate) fn at(&self, address: SocketAddr) -> Self {
        Self {
            address,
            bearer: self.bearer.clone(),
        }
    }

    /// The token it sends along.
    #[allow(dead_code, reason = "not every binary that shares this asks")]
    pub(crate) fn bearer(&self) -> Option<&str> {
        self.bearer.as_deref()
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.ask(Request::get(target)).await
    }

    pub(crate) async fn ask(&self, mut request: Request) -> Answer {
        if let Some(token) = &self.bearer {
            request = request.header("Authorization", &format!("Bearer {token}"));
        }
        self.connect().await.ask(&request).await
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.address).await
    }

    /// A connection on which `CONNECT authority` was answered, and that answer.
    pub(crate) async fn connect_through(&self, authority: &str) -> (Connection, Answer) {
        let mut connection = self.connect().await;
        let answer = connection.ask(&Request::new("CONNECT", authority)).await;
        (connection, answer)
    }
}

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.header("Content-Length", &length)
    }

    fn bytes(&self, listener: SocketAddr) -> Vec<u8> {
        let host = match self.target.split_once("://") {
            Some((_, rest)) => rest.split('/').next().unwrap_or(rest).to_owned(),
            None if self.method == "CONNECT" => self.target.clone(),
            None => listener.to_string(),
        };
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.has("host") {
            head.push_str(&format!("Host: {host}\r\n"));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        [head.as_bytes(), &self.body].concat()
    }

    fn has(&self, name: &str) -> bool {
        let mut names = self.headers.iter().map(|(name, _)| name);
        names.any(|known| known.eq_ignore_ascii_case(name))
    }
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = within("connecting", TcpStream::connect(address))
            .await
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// Over any stream, such as one with TLS.
    pub(crate) fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            buffer: Vec::new(),
        }
    }

    /// The stream, when nothing is left over in the buffer.
    pub(crate) fn into_stream(self) -> impl AsyncRead + AsyncWrite + Send + Unpin + 'static {
        assert!(self.buffer.is_empty(), "left over: {:?}", self.buffer);
        self.stream
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let sending = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        // A peer that refuses may close while bytes are still on their way; what it answered is what counts.
        let _ = within("sending", sending).await;
    }

    pub(crate) async fn send_request(&mut self, request: &Request) {
        // Origin-form on a bare stream: the listener's name does not matter there.
        let bytes = request.bytes(([127, 0, 0, 1], 80).into());
        self.send(&bytes).await;
    }

    pub(crate) async fn ask(&mut self, request: &Request) -> Answer {
        self.send_request(request).await;
        self.answer(&request.method).await
    }

    /// The next response, whole or as far as it comes.
    pub(crate) async fn answer(&mut self, method: &str) -> Answer {
        let head = self.head().await;
        self.rest_of(head, method).await
    }

    /// The head of the next response, without interim ones.
    pub(crate) async fn head(&mut self) -> Answer {
        loop {
            let answer = self
                .try_head()
                .await
                .expect("the connection ended instead of an answer");
            if answer.status >= 200 || answer.status == 101 {
                return answer;
            }
        }
    }

    /// The head of the next response, or `None` at the connection's end.
    pub(crate) async fn try_head(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at;
            }
            if !self.fill().await {
                return None;
            }
        };
        let head: String = self.buffer[..end].iter().map(|b| char::from(*b)).collect();
        self.buffer.drain(..end + 4);
        Some(Answer::from_head(&head))
    }

    /// Reads the body of `head`, which [`Connection::head`] returned.
    pub(crate) async fn rest_of(&mut self, mut head: Answer, method: &str) -> Answer {
        let connected = method == "CONNECT" && head.status == 200;
        if method == "HEAD" || connected || matches!(head.status, 101 | 204 | 304) {
            head.is_complete = true;
            return head;
        }
        if head.header("transfer-encoding").is_some() {
            (head.body, head.is_complete) = self.chunks(&mut head.trailers).await;
        } else if let Some(length) = head.header("content-length") {
            let length = length.parse().expect("a length");
            (head.body, head.is_complete) = self.take(length).await;
        } else {
            head.body = self.until_end().await;
            head.is_complete = true;
        }
        head
    }

    /// Waits until at least one byte that was not consumed yet is here: after a head, the body's first.
    pub(crate) async fn first_byte(&mut self) {
        if self.buffer.is_empty() {
            assert!(
                self.fill().await,
                "the connection ended before a first byte"
            );
        }
    }

    /// Exactly `count` bytes, and whether they all came.
    pub(crate) async fn take(&mut self, count: usize) -> (Vec<u8>, bool) {
        while self.buffer.len() < count {
            if !self.fill().await {
                return (std::mem::take(&mut self.buffer), false);
            }
        }
        (self.buffer.drain(..count).collect(), true)
    }

    /// Everything up to the connection's end, in order or by reset.
    pub(crate) async fn until_end(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.buffer)
    }

    async fn chunks(&mut self, trailers: &mut Vec<(String, String)>) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        loop {
            let Some(line) = self.line().await else {
                return (body, false);
            };
            let size = usize::from_str_radix(line.trim(), 16).expect("a chunk size");
            if size == 0 {
                return (body, self.trailers(trailers).await);
            }
            let (data, is_whole) = self.take(size).await;
            body.extend(data);
            if !is_whole || !self.take(2).await.1 {
                return (body, false);
            }
        }
    }

    /// Reads up to the empty line, and says whether it came.
    async fn trailers(&mut self, trailers: &mut Vec<(String, String)>) -> bool {
        while let Some(line) = self.line().await {
            match line.split_once(':') {
                Some((name, value)) => trailers.push((name.to_owned(), value.trim().to_owned())),
                None => return line.is_empty(),
            }
        }
        false
    }

    async fn line(&mut self) -> Option<String> {
        let end = loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                break at;
            }
            if !self.fill().await {
                return None;
            }
        };
        let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 2);
        Some(line)
    }

    /// Reads more; `false` at the connection's end.
    async fn fill(&mut self) -> bool {
        let read = within(
            "the peer sends or closes",
            self.stream.read_buf(&mut self.buffer),
        );
        matches!(read.await, Ok(count) if count > 0)
    }
}

impl Answer {
    fn from_head(head: &str) -> Self {
        let mut lines = head.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line.split(' ').nth(1).and_then(|s| s.parse().ok());
        Self {
            status: status.unwrap_or_else(|| panic!("not a status line: {status_line}")),
            headers: lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect(),
            body: Vec::new(),
            trailers: Vec::new(),
            is_complete: false,
        }
    }

    /// The first value of a field.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.headers.iter();
        fields
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    /// Every value of a field, as one list.
    pub(crate) fn list(&self, name: &str) -> String {
        let fields = self.headers.iter();
        let named = fields.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let values: Vec<_> = named.map(|(_, value)| value.as_str()).collect();
        values.join(", ")
    }

    /// The parameters of the last member of Cache-Status, which must be ours: `hit`, `ttl=212`.
    ///
    /// Structured fields allow spaces between parameters; none of ours has a string, so a semicolon always parts two.
    pub(crate) fn cache_status(&self) -> Vec<String> {
        let members = self.list("cache-status");
        let last = members.rsplit(", ").next().unwrap_or_default();
        let mut parameters = last.split(';').map(|part| part.trim().to_owned());
        let name = parameters.next();
        assert_eq!(
            name.as_deref(),
            Some("hardtack"),
            "{members:?} of {} {:?}",
            self.status,
            self.headers
        );
        parameters.collect()
    }

    /// Whether our member of Cache-Status has a parameter: `hit`, `fwd=stale`, `detail=disconnected`.
    pub(crate) fn says(&self, parameter: &str) -> bool {
        self.cache_status().iter().any(|known| known == parameter)
    }

    /// The reason of a problem document, which must be well formed.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{} {:?} {}",
            self.status,
            self.headers,
            String::from_utf8_lossy(&self.body)
        );
        assert_eq!(self.header("cache-status"), None, "a problem is not cached");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        for member in ["type", "title", "detail", "instance"] {
            assert!(problem[member].is_string(), "{member} in {problem}");
        }
        problem["reason"].as_str().expect("a reason").to_owned()
    }

    /// Fails the test unless this is the problem with `status` and `reason`.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, reason: &str) {
        assert_eq!((self.status, self.problem().as_str()), (status, reason));
    }

    /// Fails the test unless every parameter is in our member of Cache-Status.
    #[track_caller]
    pub(crate) fn assert_says(&self, parameters: &[&str]) {
        for parameter in parameters {
            assert!(
                self.says(parameter),
                "{} {:?}: expected {parameter}",
                self.status,
                self.cache_status()
            );
        }
    }
}
