//! A queued write as one line of JSON, whole: what an export writes and an import reads.
//!
//! ```text
//! {"format": 2, "item": {..}, "fields": [{"name": .., "value": ..}], "sealed": {..}, "body": "base64"}
//! ```
//!
//! Sealed fields stay sealed: only a gateway with the same key in its `queue.key_file` can send them. Fields whose value is not
//! UTF-8 have `value_base64` instead of `value`.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::super::{Content, Item, Sealed, StoredBody, journal::Field};

/// The number of this form. Another one is not read.
const FORMAT: u32 = 2;

/// A queued write, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    format: u32,
    pub(super) item: Item,
    fields: Vec<RecordField>,
    sealed: Option<RecordSealed>,
    body: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordField {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordSealed {
    names: Vec<String>,
    key_id: String,
    nonce: String,
    ciphertext: String,
}

/// Why a line was not imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// Not a line of an export.
    #[error("this is not a queued write as an export writes it: {0}")]
    Malformed(String),
    /// A line of a version that is not known.
    #[error("this line has format {0}, which this version does not know")]
    Format(u32),
    /// It has come to its end: there is nothing to deliver.
    #[error("the write is {0}")]
    Ended(&'static str),
    /// The body is not the one that was accepted.
    #[error("the body is not the one that was accepted: its SHA-256 differs")]
    Body,
    /// It would be older than what is accepted from now on.
    #[error("the write was accepted in the future; is the clock right?")]
    Future,
    /// Its credentials do not open here.
    #[error("{0}; put the key that sealed them into queue.key_file and import again")]
    Sealed(String),
    /// There is no room.
    #[error("{0}")]
    Full(String),
    /// It could not be recorded.
    #[error("{0}")]
    Journal(String),
}

impl Record {
    pub(super) fn new(item: Item, content: &Content, body: &[u8]) -> Self {
        Self {
            format: FORMAT,
            item,
            fields: content.fields.iter().map(RecordField::of).collect(),
            sealed: content.sealed.as_ref().map(RecordSealed::of),
            body: STANDARD.encode(body),
        }
    }

    /// Reads a line.
    ///
    /// # Errors
    /// When it is not one of an export of this version.
    pub fn parse(line: &[u8]) -> Result<Self, ImportError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let malformed = |error: serde_json::Error| ImportError::Malformed(error.to_string());
        let Format { format } = serde_json::from_slice(line).map_err(malformed)?;
        if format != FORMAT {
            return Err(ImportError::Format(format));
        }
        serde_json::from_slice(line).map_err(malformed)
    }

    /// The parts, checked.
    pub(super) fn take_apart(self) -> Result<(Item, Content, Bytes), ImportError> {
        let item = self.item;
        if item.state.is_ended() {
            return Err(ImportError::Ended(item.state.as_str()));
        }
        let malformed = |what: &str| ImportError::Malformed(format!("{what} cannot be decoded"));
        let body = STANDARD
            .decode(self.body)
            .map_err(|_| malformed("`body`"))?;
        let is_same = digest(&SHA256, &body).as_ref() == item.body_sha256;
        if !is_same || body.len() as u64 != item.body_bytes {
            return Err(ImportError::Body);
        }
        let fields = self.fields.into_iter().map(RecordField::take_apart);
        let fields = fields.collect::<Option<_>>();
        let sealed = self.sealed.map(|sealed| {
            let sealed = sealed.take_apart();
            sealed.ok_or_else(|| malformed("`sealed`"))
        });
        let body = Bytes::from(body);
        let content = Content {
            fields: fields.ok_or_else(|| malformed("a field"))?,
            sealed: sealed.transpose()?,
            body: StoredBody::Inline(Bytes::new()),
        };
        Ok((item, content, body))
    }
}

impl RecordField {
    fn of((name, value): &Field) -> Self {
        let text = std::str::from_utf8(value).ok().map(str::to_owned);
        Self {
            name: name.clone(),
            value_base64: text.is_none().then(|| STANDARD.encode(value)),
            value: text,
        }
    }

    /// `None` when it is not a field that can be sent.
    fn take_apart(self) -> Option<Field> {
        let value = match (self.value, self.value_base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(encoded)) => STANDARD.decode(encoded).ok()?,
            _ => return None,
        };
        let name = http::HeaderName::from_bytes(self.name.as_bytes()).ok()?;
        http::HeaderValue::from_bytes(&value).ok()?;
        Some((name.as_str().to_owned(), value))
    }
}

impl RecordSealed {
    fn of(sealed: &Sealed) -> Self {
        Self {
            names: sealed.names.clone(),
            key_id: STANDARD.encode(sealed.key_id),
            nonce: STANDARD.encode(sealed.nonce),
            ciphertext: STANDARD.encode(&sealed.ciphertext),
        }
    }

    fn take_apart(self) -> Option<Sealed> {
        let decode = |text: &str| STANDARD.decode(text).ok();
        Some(Sealed {
            names: self.names,
            key_id: decode(&self.key_id)?.try_into().ok()?,
            nonce: decode(&self.nonce)?.try_into().ok()?,
            ciphertext: decode(&self.ciphertext)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ring::digest::{SHA256, digest};

    use super::{ImportError, Record};
    use crate::queue::{Content, Done, Item, Sealed, State, StoredBody, tests::item};

    fn record(body: &[u8]) -> Record {
        let mut item = item();
        item.body_bytes = body.len() as u64;
        item.body_sha256
            .copy_from_slice(digest(&SHA256, body).as_ref());
        let content = Content {
            fields: vec![
                ("content-type".to_owned(), b"text/plain".to_vec()),
                ("x-odd".to_owned(), b"caf\xe9".to_vec()),
            ],
            sealed: Some(Sealed {
                names: vec!["authorization".to_owned()],
                key_id: [1; 8],
                nonce: [2; 12],
                ciphertext: vec![3; 40],
            }),
            body: StoredBody::Inline(Bytes::copy_from_slice(body)),
        };
        Record::new(item, &content, body)
    }

    fn line(record: &Record) -> serde_json::Value {
        serde_json::to_value(record).unwrap()
    }

    fn parse(line: &serde_json::Value) -> Result<(), ImportError> {
        Record::parse(line.to_string().as_bytes())?
            .take_apart()
            .map(drop)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let body = b"\0\xff{}";
        let before = record(body);
        let after = Record::parse(line(&before).to_string().as_bytes()).unwrap();
        assert_eq!(after, before);
        let (item, content, found) = after.take_apart().unwrap();
        assert_eq!((item, &*found), (before.item, &body[..]));
        assert_eq!(content.fields[1].1, b"caf\xe9");
        assert_eq!(content.sealed.unwrap().ciphertext, [3; 40]);
    }

    #[test]
    fn what_is_no_whole_write_is_refused() {
        let good = line(&record(b"x"));
        assert!(parse(&good).is_ok());
        let mut other_body = good.clone();
        other_body["body"] = "eQ==".into();
        assert!(matches!(parse(&other_body), Err(ImportError::Body)));
        let mut newer = good.clone();
        newer["format"] = 3.into();
        assert!(matches!(parse(&newer), Err(ImportError::Format(3))));
        let mut ended = record(b"x");
        ended.item = Item {
            state: State::Done(Done::Answered),
            ..ended.item
        };
        assert!(matches!(
            parse(&line(&ended)),
            Err(ImportError::Ended("done"))
        ));
        for (place, value) in [
            ("/body", "!"),
            ("/fields/0/name", "a b"),
            ("/fields/0/value", "a\nb"),
            ("/sealed/nonce", "AAAA"),
            ("/item/id", "no id"),
        ] {
            let mut wrong = good.clone();
            *wrong.pointer_mut(place).unwrap() = value.into();
            assert!(
                matches!(parse(&wrong), Err(ImportError::Malformed(_))),
                "{place}"
            );
        }
        for text in ["", "{}", "[2]", "null"] {
            let parsed = Record::parse(text.as_bytes());
            assert!(matches!(parsed, Err(ImportError::Malformed(_))), "{text}");
        }
    }
}
