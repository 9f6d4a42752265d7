//! TLS to origins: the system's trust anchors, else the ones compiled in, with an explicit cryptography provider.

use std::{io, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tracing::warn;

use super::{client::Protocols, dialled::Dialled, error::DialError};

/// Time for a handshake.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// The trust anchors of the process. `SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured.
pub(super) fn roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        // Images without a trust store (scratch) end here.
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

const HTTP2: &[u8] = b"h2";

const HTTP1: &[u8] = b"http/1.1";

/// A client configuration with these anchors, which offers these protocols.
pub(super) fn client_config(
    mut roots: RootCertStore,
    extra: &[CertificateDer<'static>],
    protocols: Protocols,
) -> Arc<ClientConfig> {
    let (_, rejected) = roots.add_parsable_certificates(extra.iter().cloned());
    if rejected > 0 {
        warn!(rejected, "Some configured trust anchors are unusable.");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = match protocols {
        Protocols::Http1 => vec![HTTP1.to_vec()],
        Protocols::Http2 => vec![HTTP2.to_vec(), HTTP1.to_vec()],
    };
    Arc::new(config)
}

/// What the origin chose of what it was offered.
pub(super) fn chosen(stream: &TlsStream<Dialled>) -> Protocols {
    match stream.get_ref().1.alpn_protocol() {
        Some(HTTP2) => Protocols::Http2,
        _ => Protocols::Http1,
    }
}

/// The handshake, under its time limit.
pub(super) async fn handshake(
    config: Arc<ClientConfig>,
    host: &str,
    stream: Dialled,
) -> Result<TlsStream<Dialled>, DialError> {
    let failed = |source: io::Error| DialError::Tls {
        host: host.to_owned(),
        source: Arc::new(source),
    };
    let name = server_name(host).map_err(failed)?;
    match timeout(
        HANDSHAKE_TIMEOUT,
        TlsConnector::from(config).connect(name, stream),
    )
    .await
    {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(failed(io::Error::new(
            io::ErrorKind::TimedOut,
            "the handshake took too long",
        ))),
    }
}

fn server_name(host: &str) -> io::Result<ServerName<'static>> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    ServerName::try_from(bare.to_owned()).map_err(io::Error::other)
}
