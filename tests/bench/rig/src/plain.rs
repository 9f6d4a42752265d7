//! What large answers cost without an HTTP library: a loop that looks at the first line of a request and answers with a
//! head that was made once, and with a body from memory, by one `writev` of both, or from a file, by sendfile.
//!
//! Two steps away from the floor, so that they can be told apart: without hyper, and without the copy of the body. There is
//! no third, hyper's heads with bodies by sendfile: a connection that hyper serves is hyper's, and it writes what bodies give
//! it as bytes in memory.
//!
//! Bounds: [`HEAD_BYTES_MAX`] of a request. What it does not do: bodies of requests, fields, Age, Date, time limits.

use std::{
    fs::File,
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use rustix::{fs::sendfile, net::SendFlags};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpListener, TcpStream},
    runtime::Builder,
};

use crate::{Listen, listen, origin::Bodies};

/// Of one request, or of as many as come at once.
const HEAD_BYTES_MAX: usize = 8_192;

const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    listen: Listen,
    /// Bodies are files in this directory, which is there, and go by sendfile.
    #[arg(long)]
    sendfile: Option<PathBuf>,
}

struct Stored {
    request_line: String,
    head: String,
    body: Body,
}

enum Body {
    Memory(Bytes),
    File { file: File, bytes: usize },
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let directory = arguments.sendfile.as_deref();
    let stored: Arc<[Stored]> = Bodies::new()
        .all()
        .map(|(name, body)| Stored::new(name, body, directory))
        .collect::<io::Result<_>>()?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(arguments.listen.threads)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listen::bind(arguments.listen.listen, false)?)?;
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                let stored = Arc::clone(&stored);
                // Whoever measures may close whenever it likes.
                stream.set_nodelay(true).ok();
                tokio::spawn(async move { serve(stream, &stored).await.ok() });
            }
        }
    })
}

/// Answers one request after the other, until the client closes.
async fn serve(mut stream: TcpStream, stored: &[Stored]) -> io::Result<()> {
    let mut received = Vec::with_capacity(HEAD_BYTES_MAX);
    loop {
        let Some(end) = head_end(&received) else {
            let left = HEAD_BYTES_MAX - received.len();
            if (&mut stream)
                .take(left as u64)
                .read_buf(&mut received)
                .await?
                == 0
            {
                return Ok(());
            }
            continue;
        };
        let found = stored
            .iter()
            .find(|stored| received.starts_with(stored.request_line.as_bytes()));
        match found {
            Some(found) => found.send(&mut stream).await?,
            None => stream.write_all(NOT_FOUND).await?,
        }
        received.drain(..end);
    }
}

fn head_end(received: &[u8]) -> Option<usize> {
    let at = received.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(at + 4)
}

impl Stored {
    fn new(name: &str, body: Bytes, directory: Option<&Path>) -> io::Result<Self> {
        let bytes = body.len();
        let path = format!("/size/{name}");
        let tag = path.replace('/', "-");
        Ok(Self {
            request_line: format!("GET {path} HTTP/1.1\r\n"),
            head: format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncache-control: public, max-age=3600\r\n\
                 last-modified: Sat, 01 Nov 2025 00:00:00 GMT\r\netag: \"{tag}\"\r\ncontent-length: {bytes}\r\n\r\n"
            ),
            body: match directory {
                None => Body::Memory(body),
                Some(directory) => {
                    let path = directory.join(name);
                    std::fs::write(&path, &body)?;
                    let file = File::open(path)?;
                    Body::File { file, bytes }
                }
            },
        })
    }

    async fn send(&self, stream: &mut TcpStream) -> io::Result<()> {
        match &self.body {
            Body::Memory(body) => send_memory(stream, self.head.as_bytes(), body).await,
            Body::File { file, bytes } => {
                send_more(stream, self.head.as_bytes()).await?;
                send_file(stream, file, *bytes).await
            }
        }
    }
}

async fn send_memory(stream: &mut TcpStream, head: &[u8], body: &[u8]) -> io::Result<()> {
    let mut both = [IoSlice::new(head), IoSlice::new(body)];
    let mut left = &mut both[..];
    while !left.is_empty() {
        let sent = stream.write_vectored(left).await?;
        IoSlice::advance_slices(&mut left, sent);
    }
    Ok(())
}

/// Sends a head that leaves together with the body after it.
async fn send_more(stream: &TcpStream, mut head: &[u8]) -> io::Result<()> {
    while !head.is_empty() {
        let send = || Ok(rustix::net::send(stream, head, SendFlags::MORE)?);
        let sent = stream.async_io(Interest::WRITABLE, send).await?;
        head = &head[sent..];
    }
    Ok(())
}

async fn send_file(stream: &TcpStream, file: &File, bytes: usize) -> io::Result<()> {
    let (mut offset, mut left) = (0, bytes);
    while left > 0 {
        let send = || Ok(sendfile(stream, file, Some(&mut offset), left)?);
        match stream.async_io(Interest::WRITABLE, send).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            sent => left -= sent,
        }
    }
    Ok(())
}
