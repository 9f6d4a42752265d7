//! What the reads of a client find of its own writes before these are delivered (read-your-writes): the representation that
//! its pending PUT, DELETE or merge PATCH will have left behind.
//!
//! Bounds: the last [`WRITES_MAX`] pending writes of a URL; in memory what is patched, up to [`PATCHED_MAX_BYTES`], while a large
//! body of a PUT stays in its file. Where a write leaves behind what nobody but the origin can know (a POST to the same URL, a
//! PATCH of another kind, a PATCH of what is not known, or is too large), there is no overlay: the read is only marked.

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use serde_json::Value;

use super::{DeliveryBody, Item, ItemId, JournalError, PendingReads, Queue, journal::ContentError};

/// More writes to one URL are seldom pending; without their reading to the end there is no overlay.
const WRITES_MAX: usize = 64;

/// A larger representation, or patch, is not read: all of it would have to be in memory, for each read.
pub const PATCHED_MAX_BYTES: u64 = 1024 * 1024;

/// What a read finds.
#[derive(Clone, Debug)]
pub struct Overlay {
    /// The last write that made it so.
    pub id: ItemId,
    /// What there is; `None`: nothing any more.
    pub representation: Option<Representation>,
}

/// A representation that a pending write leaves behind.
#[derive(Clone, Debug)]
pub struct Representation {
    /// Its `Content-*` fields.
    pub fields: Vec<(String, Vec<u8>)>,
    /// Its body. Once the write is delivered its file is gone.
    pub body: DeliveryBody,
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
                // It may have ended since.
                item.state.is_pending()
                    && self.inner.places.key(item) == key
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
        match item.method.as_str() {
            "DELETE" => return Ok(left(None)),
            "PUT" | "PATCH" => {}
            // What it does to its target only the origin knows.
            _ => return Ok(Known::Nothing),
        }
        let Some(written) = self.written(item).await? else {
            return Ok(Known::Nothing);
        };
        if item.method == "PUT" {
            return Ok(left(Some(written)));
        }
        if !is_of_type(&written.fields, "application/merge-patch+json") {
            return Ok(Known::Nothing);
        }
        let base = match known {
            Known::Left(overlay) => overlay.representation,
            // Untouched it is for the first write only.
            Known::Untouched => match stored.take() {
                Some(stored) => stored.await,
                None => None,
            },
            Known::Nothing => None,
        };
        let patched = match base {
            Some(base) => patched(base, written.body).await,
            None => None,
        };
        Ok(patched.map_or(Known::Nothing, |patched| left(Some(patched))))
    }

    /// The `Content-*` fields and the body of a write; `None` when they cannot be read.
    async fn written(&self, item: &Item) -> Result<Option<Representation>, JournalError> {
        let content = match self.inner.journal.content(item.id).await {
            Ok(content) => content,
            Err(ContentError::Unavailable(error)) => return Err(error),
            // Whoever delivers it finds out, and says so.
            Err(_) => return Ok(None),
        };
        let mut fields = content.fields;
        fields.retain(|(name, _)| name.starts_with("content-") && name != "content-length");
        let body = content.body;
        Ok(Some(Representation { fields, body }))
    }
}

/// A representation with a patch applied; `None` where that cannot be known.
async fn patched(base: Representation, patch: DeliveryBody) -> Option<Representation> {
    let (document, patch) = (in_memory(base.body).await?, in_memory(patch).await?);
    let document = merged(&document, &patch)?;
    let mut fields = base.fields;
    // They are of the bytes that were.
    fields.retain(|(name, _)| name == "content-type" || name == "content-language");
    let body = DeliveryBody::Whole(document);
    Some(Representation { fields, body })
}

/// A body of at most [`PATCHED_MAX_BYTES`]; `None`: it is larger, or was delivered meanwhile.
async fn in_memory(body: DeliveryBody) -> Option<Bytes> {
    match body {
        DeliveryBody::Whole(body) => Some(body).filter(|body| may_be_patched(body.len() as u64)),
        DeliveryBody::File { path, bytes } if may_be_patched(bytes) => {
            tokio::fs::read(path).await.ok().map(Bytes::from)
        }
        DeliveryBody::File { .. } => None,
    }
}

const fn may_be_patched(bytes: u64) -> bool {
    bytes <= PATCHED_MAX_BYTES
}

fn is_of_type(fields: &[(String, Vec<u8>)], wanted: &str) -> bool {
    let value = fields.iter().find(|(name, _)| name == "content-type");
    let essence = value.and_then(|(_, value)| value.split(|byte| *byte == b';').next());
    essence.is_some_and(|essence| essence.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
}

/// A JSON merge patch applied (RFC 7396). `None` where either is no JSON, or what comes of it too large.
fn merged(base: &[u8], patch: &[u8]) -> Option<Bytes> {
    let patch: Value = serde_json::from_slice(patch).ok()?;
    let mut document: Value = serde_json::from_slice(base).ok()?;
    merge(&mut document, patch);
    let text = Bytes::from(document.to_string());
    Some(text).filter(|text| may_be_patched(text.len() as u64))
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
    use std::sync::Arc;

    use bytes::Bytes;
    use serde_json::{Value, json};
    use tokio_util::task::TaskTracker;

    use super::{PATCHED_MAX_BYTES, Representation, merge};
    use crate::{
        clock::VirtualClock,
        policy::Timestamp,
        queue::{
            Appended, Config, DeliveryBody, Item, NewWrite, PendingReads, Places, Queue,
            tests::{config, item},
        },
        telemetry::Metrics,
    };

    const URL: &str = "http://api.example/orders";

    async fn queue(dir: &tempfile::TempDir) -> Queue {
        let config = Config {
            dir: dir.path().to_owned(),
            ..config()
        };
        let clock = Arc::new(VirtualClock::new(Timestamp::from_secs(0)));
        let tasks = TaskTracker::new();
        let opened = Queue::open(config, Places::default(), clock, Metrics::new(), &tasks).await;
        opened.unwrap()
    }

    async fn write(queue: &Queue, method: &str, content_type: &str, body: String) {
        let mut gathering = queue.gather(0).unwrap();
        gathering.add(Bytes::from(body)).await.unwrap();
        let body = gathering.finish();
        let write = NewWrite {
            item: Item {
                method: method.to_owned(),
                body_bytes: body.bytes(),
                pending_reads: PendingReads::Overlay,
                ..item()
            },
            fields: vec![("content-type".to_owned(), content_type.into())],
            body,
            key: None,
        };
        let appended = queue.append(write).await.unwrap();
        assert!(matches!(appended, Appended::New(_)));
    }

    async fn found(queue: &Queue) -> Option<Representation> {
        let stored = std::future::ready(None);
        let overlay = queue.overlay(URL, "", stored).await.unwrap()?;
        overlay.representation
    }

    /// A JSON string of so many bytes.
    fn text(bytes: u64) -> String {
        json!("x".repeat(usize::try_from(bytes).unwrap() - 2)).to_string()
    }

    #[tokio::test]
    async fn a_large_body_stays_in_its_file_and_a_small_one_is_at_hand() {
        let dir = tempfile::tempdir().unwrap();
        let queue = queue(&dir).await;
        write(&queue, "PUT", "application/json", text(100)).await;
        let small = found(&queue).await.unwrap().body;
        assert!(matches!(small, DeliveryBody::Whole(body) if body.len() == 100));
        write(&queue, "PUT", "application/json", text(100_000)).await;
        let large = found(&queue).await.unwrap().body;
        assert!(matches!(large, DeliveryBody::File { bytes: 100_000, .. }));
        queue.close().await;
    }

    #[tokio::test]
    async fn what_is_too_large_is_not_patched() {
        let merge_patch = "application/merge-patch+json";
        for (base_bytes, patch_bytes, is_patched) in [
            (PATCHED_MAX_BYTES, 10, true),
            (PATCHED_MAX_BYTES + 1, 10, false),
            (10, PATCHED_MAX_BYTES, true),
            (10, PATCHED_MAX_BYTES + 1, false),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let queue = queue(&dir).await;
            write(&queue, "PUT", "application/json", text(base_bytes)).await;
            write(&queue, "PATCH", merge_patch, text(patch_bytes)).await;
            let found = found(&queue).await;
            assert_eq!(found.is_some(), is_patched, "{base_bytes}, {patch_bytes}");
            queue.close().await;
        }
    }

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
