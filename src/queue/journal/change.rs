//! What can be asked of the journal's writer.

use bytes::Bytes;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::{
    super::item::{Answer, Item, ItemId, Origin},
    spool::SpoolFile,
};
use crate::policy::Timestamp;

/// What is kept of the body of an answer to a write that is parked or dead: enough to see why. Such answers count toward
/// nothing, so they must be small: there are at most `queue.max_items` of them.
const STUCK_ANSWER_MAX_BYTES: usize = 4 * 1024;

/// A field's name, in lower case, and its value.
pub type Field = (String, Vec<u8>);

/// A write to be appended.
#[derive(Debug)]
pub struct NewWrite {
    /// With any `id` and `seq`: the journal gives them.
    pub item: Item,
    /// Every field to send, in order. The journal seals what is sensitive.
    pub fields: Vec<Field>,
    /// The body.
    pub body: NewBody,
    /// By which a repetition of the client's is recognised.
    pub key: Option<KeyHash>,
}

/// The body of a write to be appended.
#[derive(Debug)]
pub enum NewBody {
    /// At most [`INLINE_BODY_MAX_BYTES`](super::INLINE_BODY_MAX_BYTES).
    Inline(Bytes),
    /// In a finished spool file.
    Spooled(SpoolFile),
}

/// What came of appending a write.
#[derive(Debug)]
pub enum Appended {
    /// It is on disk.
    New(Item),
    /// It had been appended before, under the same idempotency key; this is what became of it.
    Known(Item),
}

/// The hash of an idempotency key with whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyHash([u8; 32]);

/// A change of what was appended.
#[derive(Debug)]
pub(in crate::queue) enum Change {
    /// The write's state, or what is known of it.
    Update(Item),
    /// The write is parked or dead for what the origin answered, which its receipt is to say.
    Answered {
        /// As it is now.
        item: Item,
        /// The origin's answer, of which `Set-Cookie` and sensitive fields are not kept. Of its body 4 KiB are kept, and it then says that it is truncated.
        answer: Answer,
    },
    /// The write came to its end. What is left is its receipt.
    End {
        /// Done or cancelled.
        item: Item,
        /// The origin's answer, if there is one; of its fields `Set-Cookie` and sensitive ones are not kept.
        answer: Option<Answer>,
    },
    /// The write has other fields, and perhaps another body.
    Replace {
        /// With everything that follows from them.
        item: Item,
        /// Every field to send.
        fields: Vec<Field>,
        /// `None`: as before.
        body: Option<NewBody>,
    },
    /// A write of another queue, with its id. It goes into the room reserved for it, unless there is a record of it: that is
    /// [`JournalError::Exists`](super::JournalError::Exists), and the room is still reserved.
    Import {
        /// With any `seq`: the journal gives it, none to what is not imported.
        item: Item,
        /// Every field to send.
        fields: Vec<Field>,
        /// The body.
        body: NewBody,
    },
    /// The write is forgotten, receipt and all.
    Remove(ItemId),
    /// These pauses are in force, and no others.
    Pause(Vec<Pause>),
    /// Nothing but the audit entry beside it.
    Note,
}

/// Deliveries that are held back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::queue) struct Pause {
    /// To where; `None`: all of them.
    pub(in crate::queue) origin: Option<Origin>,
    /// Since when.
    pub(in crate::queue) since: Timestamp,
    /// What the operator said.
    pub(in crate::queue) reason: Option<String>,
}

/// Who changed what, when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::queue) struct AuditEntry {
    /// When.
    pub(in crate::queue) at: Timestamp,
    /// Who, as far as is known.
    pub(in crate::queue) actor: String,
    /// What was done: `retry`, `edit`, `drop`, ...
    pub(in crate::queue) action: String,
    /// To which write.
    pub(in crate::queue) item: Option<ItemId>,
    /// In a sentence. No secrets.
    pub(in crate::queue) detail: String,
}

impl Pause {
    /// Of everything, where it cannot be read what was paused: one too many is safe, one too few is not.
    pub(super) fn of_everything(since: Timestamp) -> Self {
        Self {
            origin: None,
            since,
            reason: Some("The record of what was paused is damaged.".to_owned()),
        }
    }
}

impl NewBody {
    /// Its length.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Inline(body) => body.len() as u64,
            Self::Spooled(file) => file.bytes(),
        }
    }
}

impl Change {
    /// As it goes to the writer: with no number yet, and no more of an answer than is kept.
    pub(super) fn prepared(mut self, is_secret: impl Fn(&str) -> bool) -> Self {
        if let Self::Import { item, .. } = &mut self {
            item.seq = 0;
        }
        self.with_kept_answer(is_secret)
    }

    /// Whether applying it, which is done, has changed nothing because there was a record already.
    pub(super) const fn is_existing(&self) -> bool {
        matches!(self, Self::Import { item, .. } if item.seq == 0)
    }

    /// With no more of an answer than is kept. Its secret fields are not: a session that the origin opens is for
    /// whoever sent the write, and nobody else who gets at its receipt or at the files.
    fn with_kept_answer(mut self, is_secret: impl Fn(&str) -> bool) -> Self {
        if let Self::Answered { answer, .. }
        | Self::End {
            answer: Some(answer),
            ..
        } = &mut self
        {
            answer.fields.retain(|(name, _)| !is_secret(name));
        }
        if let Self::Answered { answer, .. } = &mut self
            && answer.body.len() > STUCK_ANSWER_MAX_BYTES
        {
            answer.body = Bytes::copy_from_slice(&answer.body[..STUCK_ANSWER_MAX_BYTES]);
            answer.is_truncated = true;
        }
        self
    }
}

impl KeyHash {
    /// Of this idempotency key, sent by this principal with this method to this URL.
    pub fn new(principal: &str, method: &str, url: &str, key: &str) -> Self {
        let mut context = Context::new(&SHA256);
        for part in [principal, method, url, key] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part.as_bytes());
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        Self(hash)
    }

    pub(super) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(super) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::KeyHash;

    #[test]
    fn keys_of_others_are_other_keys() {
        let key = KeyHash::new("me", "POST", "http://a.example/", "1");
        assert_eq!(key, KeyHash::new("me", "POST", "http://a.example/", "1"));
        for other in [
            KeyHash::new("you", "POST", "http://a.example/", "1"),
            KeyHash::new("me", "PATCH", "http://a.example/", "1"),
            KeyHash::new("me", "POST", "http://a.example/1", ""),
            KeyHash::new("me", "POST", "http://a.example/", "2"),
        ] {
            assert_ne!(key, other);
        }
    }
}
