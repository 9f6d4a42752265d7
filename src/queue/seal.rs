//! Credentials at rest: fields that are never stored in the clear, sealed with a key of `queue.key_file`.
//!
//! Each write has a key of its own, derived from the file's by HKDF-SHA256 (RFC 5869) with its id, and is sealed by
//! ChaCha20-Poly1305 (RFC 8439) under a random nonce. Its id and the names of the fields are associated data: what was sealed
//! for one write opens for no other. The first key seals, every key opens, so that keys can be replaced one after the other.
//! Neither keys nor what was sealed show in `Debug` or in errors.

use std::{fmt, fs, io, path::Path, path::PathBuf};

use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Prk, Salt},
};

use super::item::{ItemId, Sealed};

/// Shorter keys are taken for a mistake: 32 characters of base64 hold 192 bits.
const KEY_CHARACTERS_MIN: usize = 32;

const SALT: &[u8] = b"hardtack queue seal 1";

type Field = (String, Vec<u8>);

/// The keys of `queue.key_file`.
pub(super) struct Keyring(Vec<Key>);

struct Key {
    id: [u8; 8],
    secret: Prk,
}

/// Why the key file is not one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("cannot read the queue's key file {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A key is too short to be safe.
    #[error("{}, line {line}: a key has at least {KEY_CHARACTERS_MIN} characters", path.display())]
    Short {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// There is none in it.
    #[error("{} has no key in it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Why sealed fields do not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OpenSealedError {
    /// The key is not in the key file any more.
    #[error("the key that sealed the credentials is not in the key file")]
    UnknownKey,
    /// They are not what was sealed for this write.
    #[error("the sealed credentials are damaged")]
    Damaged,
}

/// Whether this is a file with proper keys.
///
/// # Errors
/// With what is wrong with it, and in which line.
pub fn check_key_file(path: &Path) -> io::Result<()> {
    match Keyring::read(path) {
        Ok(_) => Ok(()),
        Err(KeyFileError::Io { source, .. }) => Err(source),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

impl Keyring {
    /// Without keys: nothing can be sealed.
    pub(super) const fn empty() -> Self {
        Self(Vec::new())
    }

    /// The keys of this file: one a line; empty lines and those that begin with `#` do not count.
    ///
    /// # Errors
    /// See [`KeyFileError`].
    pub(super) fn read(path: &Path) -> Result<Self, KeyFileError> {
        let text = fs::read_to_string(path).map_err(|source| KeyFileError::Io {
            path: path.to_owned(),
            source,
        })?;
        let mut keys = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line.chars().count() < KEY_CHARACTERS_MIN {
                return Err(KeyFileError::Short {
                    path: path.to_owned(),
                    line: number + 1,
                });
            }
            keys.push(Key::new(line.as_bytes()));
        }
        if keys.is_empty() {
            return Err(KeyFileError::Empty {
                path: path.to_owned(),
            });
        }
        Ok(Self(keys))
    }

    /// Whether nothing can be sealed.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Seals these fields for this write; `None` without a key.
    pub(super) fn seal(&self, id: ItemId, fields: &[Field]) -> Option<Sealed> {
        let key = self.0.first()?;
        let names: Vec<_> = fields.iter().map(|(name, _)| name.clone()).collect();
        let mut ciphertext =
            postcard::to_stdvec(fields).expect("text and bytes are what postcard takes");
        let mut nonce = [0; NONCE_LEN];
        // A nonce that is not random enough would be worse than no queue.
        getrandom::fill(&mut nonce).ok()?;
        key.of_write(id)
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(associated(id, &names)),
                &mut ciphertext,
            )
            .ok()?;
        Some(Sealed {
            names,
            key_id: key.id,
            nonce,
            ciphertext,
        })
    }

    /// The fields that were sealed for this write.
    ///
    /// # Errors
    /// See [`OpenSealedError`].
    pub(super) fn open(&self, id: ItemId, sealed: &Sealed) -> Result<Vec<Field>, OpenSealedError> {
        let mut is_known = false;
        for key in self.0.iter().filter(|key| key.id == sealed.key_id) {
            is_known = true;
            let mut bytes = sealed.ciphertext.clone();
            let opened = key.of_write(id).open_in_place(
                Nonce::assume_unique_for_key(sealed.nonce),
                Aad::from(associated(id, &sealed.names)),
                &mut bytes,
            );
            if let Ok(opened) = opened {
                return postcard::from_bytes(opened).map_err(|_| OpenSealedError::Damaged);
            }
        }
        Err(if is_known {
            OpenSealedError::Damaged
        } else {
            OpenSealedError::UnknownKey
        })
    }
}

impl Key {
    fn new(secret: &[u8]) -> Self {
        let secret = Salt::new(HKDF_SHA256, SALT).extract(secret);
        let mut id = [0; 8];
        let derived: [u8; 32] = derive(&secret, &[b"name"]);
        id.copy_from_slice(&derived[..8]);
        Self { id, secret }
    }

    /// The key of one write.
    fn of_write(&self, id: ItemId) -> LessSafeKey {
        let key: [u8; 32] = derive(&self.secret, &[b"write", id.as_bytes()]);
        let key = UnboundKey::new(&CHACHA20_POLY1305, &key).expect("a key of 256 bits");
        LessSafeKey::new(key)
    }
}

fn derive(secret: &Prk, info: &[&[u8]]) -> [u8; 32] {
    let mut key = [0; 32];
    secret
        .expand(info, HKDF_SHA256)
        .and_then(|derived| derived.fill(&mut key))
        .expect("HKDF gives up to 255 hashes, and this is one");
    key
}

/// The id is of one length and no name has a line break, so that there is one way to read it.
fn associated(id: ItemId, names: &[String]) -> Vec<u8> {
    let mut associated = id.as_bytes().to_vec();
    associated.extend_from_slice(names.join("\n").as_bytes());
    associated
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::{ItemId, KeyFileError, Keyring, OpenSealedError};

    const ONE: &str = "one-0123456789abcdefghijklmnopqrstuvwxyz";
    const TWO: &str = "two-0123456789abcdefghijklmnopqrstuvwxyz";

    fn id(number: u8) -> ItemId {
        ItemId::from_bytes([number; 16])
    }

    fn fields() -> Vec<(String, Vec<u8>)> {
        vec![
            ("authorization".to_owned(), b"Bearer secret".to_vec()),
            ("cookie".to_owned(), b"\xff=1".to_vec()),
        ]
    }

    fn read(text: &str) -> Result<Keyring, KeyFileError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        fs::write(&path, text).unwrap();
        Keyring::read(&path)
    }

    #[test]
    fn what_was_sealed_opens_for_its_write_only() {
        let keyring = read(ONE).unwrap();
        let sealed = keyring.seal(id(1), &fields()).unwrap();
        assert_eq!(sealed.names, ["authorization", "cookie"]);
        assert_eq!(keyring.open(id(1), &sealed), Ok(fields()));
        assert_eq!(keyring.open(id(2), &sealed), Err(OpenSealedError::Damaged));
        assert!(!sealed.ciphertext.windows(6).any(|part| part == b"secret"));
        let again = keyring.seal(id(1), &fields()).unwrap();
        assert_ne!(again.nonce, sealed.nonce);
        assert_ne!(again.ciphertext, sealed.ciphertext);
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let old = read(ONE).unwrap().seal(id(1), &fields()).unwrap();
        let both = read(&format!("# new\n{TWO}\n\n  {ONE}  \n")).unwrap();
        assert_eq!(both.open(id(1), &old), Ok(fields()));
        let new = both.seal(id(1), &fields()).unwrap();
        assert_eq!(read(TWO).unwrap().open(id(1), &new), Ok(fields()));
        let unknown = read(ONE).unwrap().open(id(1), &new);
        assert_eq!(unknown, Err(OpenSealedError::UnknownKey));
        let none = Keyring::empty().open(id(1), &new);
        assert_eq!(none, Err(OpenSealedError::UnknownKey));
        assert_eq!(Keyring::empty().seal(id(1), &fields()), None);
    }

    #[test]
    fn what_was_tampered_with_does_not_open() {
        let keyring = read(ONE).unwrap();
        let sealed = keyring.seal(id(1), &fields()).unwrap();
        for at in 0..sealed.ciphertext.len() {
            let mut tampered = sealed.clone();
            tampered.ciphertext[at] ^= 1;
            let opened = keyring.open(id(1), &tampered);
            assert_eq!(opened, Err(OpenSealedError::Damaged), "{at}");
        }
        let mut tampered = sealed.clone();
        tampered.nonce[3] ^= 1;
        assert!(keyring.open(id(1), &tampered).is_err());
        let mut tampered = sealed;
        tampered.names[0] = "x-harmless".to_owned();
        assert!(keyring.open(id(1), &tampered).is_err());
    }

    #[test]
    fn a_file_without_proper_keys_says_what_is_wrong_and_where() {
        let short = read("# comment\nshort\n").unwrap_err();
        assert!(matches!(short, KeyFileError::Short { line: 2, .. }));
        assert!(short.to_string().contains("line 2"), "{short}");
        assert!(!short.to_string().contains("short\n"));
        assert!(matches!(
            read("# nothing\n\n"),
            Err(KeyFileError::Empty { .. })
        ));
        let missing = Keyring::read(&PathBuf::from("/nowhere/keys"));
        assert!(matches!(missing, Err(KeyFileError::Io { .. })));
    }

    #[test]
    fn keys_do_not_show() {
        assert_eq!(format!("{:?}", read(ONE).unwrap()), "Keyring(1 keys)");
    }
}
