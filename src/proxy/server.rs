//! The accept loop: bounded connections, an end when the gateway drains.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tracing::warn;

use super::{
    Gateway,
    connection::{self, Peer},
};

/// A bound listener.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// Binds TCP.
///
/// # Errors
/// When the address is taken or may not be bound.
pub async fn bind_tcp(address: SocketAddr) -> io::Result<Listener> {
    TcpListener::bind(address).await.map(Listener::Tcp)
}

/// Binds a Unix socket with mode 0600. A socket file left over by a process that has gone is replaced.
///
/// # Errors
/// When something listens there, or the path cannot be bound.
pub async fn bind_unix(path: &Path) -> io::Result<Listener> {
    if tokio::net::UnixStream::connect(path).await.is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    if std::fs::symlink_metadata(path)
        .is_ok_and(|found| std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()))
    {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(Listener::Unix(listener))
}

/// Accepts until the gateway drains.
pub async fn run(gateway: Arc<Gateway>, listener: Listener) {
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = gateway.draining.cancelled() => return,
        };
        match accepted {
            Ok(accepted) => admit(&gateway, accepted),
            Err(error) => {
                // Out of descriptors, mostly. Waiting lets connections end; spinning would not.
                warn!(%error, "Cannot accept a connection.");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(tokio::net::UnixStream),
}

async fn accept(listener: &Listener) -> io::Result<Accepted> {
    match listener {
        Listener::Tcp(listener) => listener
            .accept()
            .await
            .map(|(stream, peer)| Accepted::Tcp(stream, peer)),
        Listener::Unix(listener) => listener
            .accept()
            .await
            .map(|(stream, _)| Accepted::Unix(stream)),
    }
}

fn admit(gateway: &Arc<Gateway>, accepted: Accepted) {
    let address = match &accepted {
        Accepted::Tcp(_, peer) => Some(peer.ip().to_canonical()),
        Accepted::Unix(_) => None,
    };
    // Over the limit the connection is closed without a word: an answer would cost what the limit protects.
    let counted_as = address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let Some(permit) = gateway.admission.admit_connection(counted_as) else {
        return;
    };
    let gateway_of_task = Arc::clone(gateway);
    gateway.tasks.spawn(async move {
        let nothing_read = BytesMut::new();
        match accepted {
            Accepted::Tcp(stream, _) => {
                // Small answers must not wait for a delayed acknowledgement.
                let _ = stream.set_nodelay(true);
                let peer = Peer::new(address, stream.local_addr().ok(), permit);
                connection::serve(gateway_of_task, stream, nothing_read, peer).await;
            }
            Accepted::Unix(stream) => {
                let peer = Peer::new(None, None, permit);
                connection::serve(gateway_of_task, stream, nothing_read, peer).await;
            }
        }
    });
}
