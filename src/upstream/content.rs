//! Content that lies in a file: opened and measured before anything is sent, and read anew by every attempt.
//!
//! The file is opened once and read by position, so that attempts do not disturb each other and a file that is removed
//! meanwhile is still whole. Bounds: one piece of 64 KiB in memory per attempt.

use std::{fs::File, io, os::unix::fs::FileExt, path::PathBuf, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::task::spawn_blocking;

/// What is read at a time: few enough system calls, and little enough memory for hundreds of uploads.
const PIECE_BYTES: u64 = 64 * 1024;

/// An open file with the content of a request.
#[derive(Debug)]
pub(crate) struct FileContent {
    file: File,
    path: PathBuf,
    length_bytes: u64,
}

/// Why content cannot be read from its file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContentError {
    #[error("cannot open {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} holds {found_bytes} bytes instead of {expected_bytes}", path.display())]
    Length {
        path: PathBuf,
        found_bytes: u64,
        expected_bytes: u64,
    },
    #[error("cannot read {} from byte {offset} on", path.display())]
    Read {
        path: PathBuf,
        offset: u64,
        #[source]
        source: io::Error,
    },
}

impl FileContent {
    /// Opens a file that must hold exactly so many bytes.
    pub(crate) async fn open(path: PathBuf, length_bytes: u64) -> Result<Arc<Self>, ContentError> {
        let opened = path.clone();
        let file = blocking(move || {
            let file = File::open(&opened)?;
            let found_bytes = file.metadata()?.len();
            Ok((file, found_bytes))
        });
        match file.await {
            Ok((file, found_bytes)) if found_bytes == length_bytes => Ok(Arc::new(Self {
                file,
                path,
                length_bytes,
            })),
            Ok((_, found_bytes)) => Err(ContentError::Length {
                path,
                found_bytes,
                expected_bytes: length_bytes,
            }),
            Err(source) => Err(ContentError::Open { path, source }),
        }
    }

    pub(crate) fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// All of it from the beginning, piece by piece; nothing is read before it is asked for.
    pub(crate) fn pieces(
        self: Arc<Self>,
    ) -> impl Stream<Item = Result<Bytes, ContentError>> + Send + 'static {
        stream::try_unfold((self, 0), async |(content, offset)| {
            if offset == content.length_bytes {
                return Ok(None);
            }
            let piece = Arc::clone(&content).piece(offset).await?;
            let next = offset + piece.len() as u64;
            Ok(Some((piece, (content, next))))
        })
    }

    async fn piece(self: Arc<Self>, offset: u64) -> Result<Bytes, ContentError> {
        let content = Arc::clone(&self);
        let read = blocking(move || {
            let rest_bytes = content.length_bytes - offset;
            let size = usize::try_from(rest_bytes.min(PIECE_BYTES)).expect("at most 64 KiB");
            let mut piece = vec![0; size];
            content.file.read_exact_at(&mut piece, offset)?;
            Ok(Bytes::from(piece))
        });
        read.await.map_err(|source| ContentError::Read {
            path: self.path.clone(),
            offset,
            source,
        })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    // It fails to run only while the runtime shuts down.
    spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

impl ContentError {
    /// Whether it was found before the first byte of a request.
    pub(super) const fn is_before_sending(&self) -> bool {
        match self {
            Self::Open { .. } | Self::Length { .. } => true,
            Self::Read { .. } => false,
        }
    }
}
