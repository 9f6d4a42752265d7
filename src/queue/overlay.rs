//! What the reads of a client find of its own writes before these are delivered (read-your-writes): the representation that
//! its pending PUT, DELETE or merge PATCH will have left behind.
//!
//! Bounds: the last [`WRITES_MAX`] pending writes of a URL. Where one of them leaves behind what nobody but the origin can know
//! (a POST to the same URL, a PATCH of another kind, a PATCH of what is not known), there is no overlay.

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use serde_json::Value;

use super::{DeliveryBody, Item, ItemId, JournalError, PendingReads, Queue, journal::ContentError};

/// More writes to one URL are seldom pending; without their reading to the end there is no overlay.
const WRITES_MAX: usize = 64;

/// What a read finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// The last write that made it so.
    pub id: ItemId,
    /// What there is; `None`: nothing any more.
    pub representation: Option<Representation>,
}

/// A representation that a pending write leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Representation {
    /// Its `Content-*` fields.
    pub fields: Vec<(String, Vec<u8>)>,
    /// Its body.
    pub body: Bytes,
}

/// What is known of the target so far.
enum Known {
    /// As the origin, or the store, has it.
    Untouched,
    /// As a pending write leaves it.
    Left(Overlay),
    /// Only the origin will know.
    Nothing,
}

impl Queue {
    /// What a read of what is stored under this key by this principal finds of its pending writes; `None`: nothing that differs from what it would
    /// find without them, or nothing that is known. `stored`: the representation that is stored now, if a PATCH needs one.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn overlay(
        &self,
        key: &str,
        principal: &str,
        stored: impl Future<Output = Option<Representation>> + Send,
    ) -> Result<Option<Overlay>, JournalError> {
        let Some(pending) = self.inner.pending.ids(key, WRITES_MAX) else {
            return Ok(None);
        };
        let mut seen = Vec::with_capacity(pending.len());
        for id in pending {
            let item = self.inner.journal.item(id).await?;
            seen.extend(item.filter(|item| {
                item.stored_under == key
                    && item.principal == principal
                    && item.pending_reads == PendingReads::Overlay
            }));
        }
        // What was before the last whole representation makes no difference, and is not read.
        let is_whole = |item: &Item| matches!(item.method.as_str(), "PUT" | "DELETE");
        let from = seen.iter().rposition(is_whole).unwrap_or(0);
        let mut stored = Some(Box::pin(stored));
        let mut known = Known::Untouched;
        for item in &seen[from..] {
            known = self.after(known, item, &mut stored).await?;
        }
        Ok(match known {
            Known::Left(overlay) => Some(overlay),
            Known::Untouched | Known::Nothing => None,
        })
    }

    async fn after(
        &self,
        known: Known,
        item: &Item,
        stored: &mut Option<Pin<Box<impl Future<Output = Option<Representation>> + Send>>>,
    ) -> Result<Known, JournalError> {
        let left = |representation| {
            let id = item.id;
            Known::Left(Overlay { id, representation })
        };
        if item.method == "DELETE" {
            return Ok(left(None));
        }
        let Some((fields, body)) = self.written(item).await? else {
            return Ok(Known::Nothing);
        };
        Ok(match item.method.as_str() {
            "PUT" => left(Some(Representation { fields, body })),
            "PATCH" if is_of_type(&fields, "application/merge-patch+json") => {
                let base = match known {
                    Known::Left(overlay) => overlay.representation,
                    // Untouched it is for the first write only.
                    Known::Untouched => match stored.take() {
                        Some(stored) => stored.await,
                        None => None,
                    },
                    Known::Nothing => None,
                };
                let merged = base.and_then(|base| merged(&base, &body));
                merged.map_or(Known::Nothing, |merged| left(Some(merged)))
            }
            // What it does to its target only the origin knows.
            _ => Known::Nothing,
        })
    }

    /// The `Content-*` fields and the body of a write; `None` when they cannot be read.
    async fn written(
        &self,
        item: &Item,
    ) -> Result<Option<(Vec<(String, Vec<u8>)>, Bytes)>, JournalError> {
        let content = match self.inner.journal.content(item.id).await {
            Ok(content) => content,
            Err(ContentError::Unavailable(error)) => return Err(error),
            // Whoever delivers it finds out, and says so.
            Err(_) => return Ok(None),
        };
        let body = match content.body {
            DeliveryBody::Whole(body) => body,
            DeliveryBody::File { path, .. } => match tokio::fs::read(&path).await {
                Ok(body) => body.into(),
                // Delivered meanwhile.
                Err(_) => return Ok(None),
            },
        };
        let mut fields = content.fields;
        fields.retain(|(name, _)| name.starts_with("content-") && name != "content-length");
        Ok(Some((fields, body)))
    }
}

fn is_of_type(fields: &[(String, Vec<u8>)], wanted: &str) -> bool {
    let value = fields.iter().find(|(name, _)| name == "content-type");
    let essence = value.and_then(|(_, value)| value.split(|byte| *byte == b';').next());
    essence.is_some_and(|essence| essence.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
}

/// A JSON merge patch applied (RFC 7396). `None` where either is no JSON.
fn merged(base: &Representation, patch: &[u8]) -> Option<Representation> {
    let patch: Value = serde_json::from_slice(patch).ok()?;
    let mut document: Value = serde_json::from_slice(&base.body).ok()?;
    merge(&mut document, patch);
    let mut fields = base.fields.clone();
    // They are of the bytes that were.
    fields.retain(|(name, _)| name == "content-type" || name == "content-language");
    Some(Representation {
        fields,
        body: document.to_string().into(),
    })
}

/// RFC 7396 section 2. As deep as the patch, which the parser bounds.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Some(target) = target.as_object_mut() else {
        return;
    };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(&name);
        } else {
            merge(target.entry(name).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::merge;

    #[test]
    fn a_merge_patch_does_what_its_rfc_says() {
        // The cases of RFC 7396, appendix A.
        for (target, patch, expected) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (
                json!({"a":"b","b":"c"}),
                json!({"a":null}),
                json!({"b":"c"}),
            ),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (
                json!({"a":{"b":"c"}}),
                json!({"a":{"b":"d","c":null}}),
                json!({"a":{"b":"d"}}),
            ),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a":"b"}), json!(["c"]), json!(["c"])),
            (json!({"a":"foo"}), Value::Null, Value::Null),
            (json!({"a":"foo"}), json!("bar"), json!("bar")),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (
                json!({}),
                json!({"a":{"bb":{"ccc":null}}}),
                json!({"a":{"bb":{}}}),
            ),
        ] {
            let mut target = target;
            merge(&mut target, patch);
            assert_eq!(target, expected);
        }
    }
}
