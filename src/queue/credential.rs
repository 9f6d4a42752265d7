//! The Authorization of deliveries that a file holds, for routes that keep no credential of their clients.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use http::HeaderValue;

/// Larger files are taken for a mistake: no origin takes a field of this size.
const MAX_BYTES: u64 = 64 << 10;

/// The value in this file, without the whitespace around it. Reads a little more than 64 KiB at most; blocks.
///
/// # Errors
/// When it cannot be read, is larger, or holds no value of a field; an empty one is a file that is being written.
pub fn read_credential(path: &Path) -> io::Result<HeaderValue> {
    let mut text = Vec::new();
    File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut text)?;
    let unusable = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    if text.len() as u64 > MAX_BYTES {
        return Err(unusable("it is larger than 64 KiB"));
    }
    let value = text.trim_ascii();
    if value.is_empty() {
        return Err(unusable("it is empty"));
    }
    let value = HeaderValue::from_bytes(value);
    let mut value = value.map_err(|_| unusable("it is not the value of a field"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::{MAX_BYTES, read_credential};

    #[test]
    fn a_credential_is_one_value_of_bounded_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credential");
        let largest = vec![b'x'; MAX_BYTES as usize];
        for (text, expected) in [
            (&b"Bearer x\n"[..], Ok(&b"Bearer x"[..])),
            (&largest, Ok(&largest)),
            (
                &[&largest[..], b"x"].concat(),
                Err("it is larger than 64 KiB"),
            ),
            (b" \n", Err("it is empty")),
            (b"a\nb", Err("it is not the value of a field")),
        ] {
            std::fs::write(&path, text).unwrap();
            let found = read_credential(&path).map_err(|error| error.to_string());
            let found = found.as_ref().map(|value| value.as_bytes());
            assert_eq!(found.map_err(String::as_str), expected);
        }
    }

    /// A delivery read such a file until memory ran out.
    #[cfg(unix)]
    #[test]
    fn a_file_without_end_is_given_up() {
        let error = read_credential("/dev/zero".as_ref()).unwrap_err();
        assert_eq!(error.to_string(), "it is larger than 64 KiB");
    }
}
