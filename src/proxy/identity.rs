//! What makes this gateway itself: a random id per data directory, for loop detection, and the secret that partitions
//! private caches. Both live in the file `identity` (mode 0600) and survive restarts.

use std::{
    fs::OpenOptions,
    io::{self, Read, Write},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use crate::policy::CacheKey;

/// Who this gateway is.
#[derive(Clone)]
pub struct Identity {
    id: String,
    /// By the version of the request that is passed on: 1.0, 1.1, 2.0.
    via: [HeaderValue; 3],
    secret: [u8; 32],
}

const FILE: &str = "identity";
const FILE_BYTES: usize = 32 + 8;

impl Identity {
    /// Loads the identity of the data directory, or makes it. A file of the wrong size is replaced.
    ///
    /// # Errors
    /// When the file can be neither read nor written, or the system gives no randomness.
    pub fn load_or_create(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        let mut bytes = Vec::new();
        match OpenOptions::new().read(true).open(&path) {
            Ok(file) => {
                file.take(FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if bytes.len() != FILE_BYTES {
            bytes = vec![0; FILE_BYTES];
            getrandom::fill(&mut bytes).map_err(io::Error::other)?;
            let temporary = dir.join("identity.new");
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)?;
        }
        Ok(Self::from_bytes(&bytes))
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let (secret, id) = bytes.split_at(32);
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let via = [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2].map(|version| {
            let text = format!("{} hardtack ({id})", via_version(version));
            HeaderValue::try_from(text).expect("a version and hexadecimal digits")
        });
        Self {
            id,
            via,
            secret: secret.try_into().expect("split at 32"),
        }
    }

    /// The partition of a credential, `Authorization` and `Cookie`: a keyed hash, so that the credential cannot be guessed
    /// from a key. Requests without a credential share one partition of their own.
    pub(crate) fn partition(&self, headers: &HeaderMap) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        for name in [header::AUTHORIZATION, header::COOKIE] {
            for value in headers.get_all(name) {
                hasher.update(&(value.len() as u64).to_be_bytes());
                hasher.update(value.as_bytes());
            }
            // No value is this long: what belongs to one field is never taken for the other's.
            hasher.update(&u64::MAX.to_be_bytes());
        }
        let hash = hasher.finalize().to_hex();
        hash[..CacheKey::CREDENTIAL_DIGITS].to_owned()
    }

    /// Who sends a request, as far as that is known: a keyed hash of every field that may be a credential, and of the address
    /// where there is none.
    pub(crate) fn principal<'a>(
        &self,
        headers: &HeaderMap,
        credentials: impl Iterator<Item = &'a HeaderName>,
        address: Option<IpAddr>,
    ) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        // No length of a credential: this is none of a partition.
        hasher.update(b"principal\xff\xff\xff");
        let mut is_anonymous = true;
        for name in credentials {
            for value in headers.get_all(name) {
                is_anonymous = false;
                hasher.update(&(value.len() as u64).to_be_bytes());
                hasher.update(value.as_bytes());
            }
            hasher.update(&u64::MAX.to_be_bytes());
        }
        if let Some(address) = address.filter(|_| is_anonymous) {
            hasher.update(address.to_canonical().to_string().as_bytes());
        }
        let hash = hasher.finalize().to_hex();
        hash[..CacheKey::CREDENTIAL_DIGITS].to_owned()
    }

    /// What stands for the value of a field where that is not to be shown: keyed, so that nobody who sees it, here or in an
    /// export, can try out values.
    pub(crate) fn value_digest(&self, value: &[u8]) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        // No length of a credential: the digest is none of a partition.
        hasher.update(b"value\xff\xff\xff");
        hasher.update(value);
        let hash = hasher.finalize().to_hex();
        hash[..CacheKey::CREDENTIAL_DIGITS].to_owned()
    }

    /// The digest of a QUERY: of its content and of what says how that is to be read. Keyed, because a key may be shown and
    /// the content may not, and so that nobody can look for two contents of one digest.
    pub(crate) fn query_digest(&self, headers: &HeaderMap, content: &[u8]) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        // No length of a credential: the digest is none of a partition.
        hasher.update(b"QUERY\xff\xff\xff");
        for name in [
            header::CONTENT_TYPE,
            header::CONTENT_ENCODING,
            header::CONTENT_LANGUAGE,
        ] {
            for value in headers.get_all(name) {
                hasher.update(&(value.len() as u64).to_be_bytes());
                hasher.update(value.as_bytes());
            }
            hasher.update(&u64::MAX.to_be_bytes());
        }
        let hash = hasher.update(content).finalize().to_hex();
        hash[..32].to_owned()
    }

    /// Whether a request has passed this gateway before.
    pub(crate) fn has_seen(&self, headers: &HeaderMap) -> bool {
        headers.get_all(header::VIA).iter().any(|value| {
            value
                .as_bytes()
                .windows(self.id.len())
                .any(|window| window == self.id.as_bytes())
        })
    }

    /// The Via member for a request going upstream: it names this very gateway, so that a loop is found and a chain of
    /// two gateways is none.
    pub(crate) fn via_upstream(&self, received: Version) -> HeaderValue {
        let [http_10, http_11, http_2] = &self.via;
        let via = match received {
            Version::HTTP_2 => http_2,
            Version::HTTP_10 => http_10,
            _ => http_11,
        };
        via.clone()
    }
}

/// The Via member for an answer.
pub(crate) fn via_downstream(received: Version) -> HeaderValue {
    match received {
        Version::HTTP_2 => HeaderValue::from_static("2.0 hardtack"),
        Version::HTTP_10 => HeaderValue::from_static("1.0 hardtack"),
        _ => HeaderValue::from_static("1.1 hardtack"),
    }
}

const fn via_version(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2.0",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::Identity;
    use http::{HeaderMap, Version, header};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_identity_survives_and_its_file_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(dir.path()).unwrap();
        let again = Identity::load_or_create(dir.path()).unwrap();
        assert_eq!((&first.id, first.secret), (&again.id, again.secret));
        let mode = std::fs::metadata(dir.path().join("identity"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_gateway_knows_its_own_trace_and_not_anothers() {
        let here = Identity::load_or_create(tempfile::tempdir().unwrap().path()).unwrap();
        let other = Identity::load_or_create(tempfile::tempdir().unwrap().path()).unwrap();
        let mut headers = HeaderMap::new();
        headers.append(header::VIA, other.via_upstream(Version::HTTP_11));
        assert!(!here.has_seen(&headers));
        headers.append(header::VIA, here.via_upstream(Version::HTTP_11));
        assert!(here.has_seen(&headers));
    }

    #[test]
    fn a_query_is_named_by_its_content_and_by_how_that_is_read() {
        let identity = Identity::load_or_create(tempfile::tempdir().unwrap().path()).unwrap();
        let digest = |fields: &[(&'static str, &'static str)], content: &[u8]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, value.parse().unwrap());
            }
            identity.query_digest(&headers, content)
        };
        let json = &[("content-type", "application/json")][..];
        assert_eq!(digest(json, b"{}"), digest(json, b"{}"));
        assert_eq!(digest(json, b"{}").len(), 32);
        let others = [
            digest(json, b"{ }"),
            digest(&[], b"{}"),
            digest(&[("content-language", "application/json")], b"{}"),
            digest(
                &[
                    ("content-type", "application/json"),
                    ("content-encoding", "gzip"),
                ],
                b"{}",
            ),
            digest(
                &[("content-type", "application/json"), ("content-type", "x")],
                b"{}",
            ),
            digest(&[("content-type", "text/plain")], b"{}"),
        ];
        assert!(others.iter().all(|other| *other != digest(json, b"{}")));
        let same = digest(
            &[("content-type", "application/json"), ("accept", "x")],
            b"{}",
        );
        assert_eq!(same, digest(json, b"{}"));
    }

    #[test]
    fn credentials_have_partitions_of_their_own() {
        let identity = Identity::load_or_create(tempfile::tempdir().unwrap().path()).unwrap();
        let with = |name: header::HeaderName, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            identity.partition(&headers)
        };
        for name in [header::AUTHORIZATION, header::COOKIE] {
            assert_ne!(with(name.clone(), "a"), with(name.clone(), "b"));
            assert_eq!(with(name.clone(), "a"), with(name.clone(), "a"));
            assert_ne!(with(name, "a"), identity.partition(&HeaderMap::new()));
        }
        assert_ne!(with(header::AUTHORIZATION, "a"), with(header::COOKIE, "a"));
    }
}
