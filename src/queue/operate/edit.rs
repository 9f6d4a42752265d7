//! A parked or dead write with another target, other fields, another body.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Uri, uri::PathAndQuery};
use ring::digest::{SHA256, digest};

use super::{
    super::{
        INLINE_BODY_MAX_BYTES, Item, ItemId, Queue, Repeat,
        journal::{Change, Field, NewBody},
        names_a_state, weight_bytes,
    },
    OperateError, STUCK,
    change::{parked, revived, was},
};
use crate::policy::CacheKey;

/// Fields that belong to a connection or to its framing (RFC 9110 sections 7.6.1 and 8.6): whoever sends makes them.
const NOT_OURS: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Fields that say what the old body was (RFC 9530, RFC 3230, RFC 1864).
const DIGESTS: [&str; 4] = ["content-digest", "content-md5", "digest", "repr-digest"];

/// What to change of a write. Its method, its origin and its place in its lane stay.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    /// Another path and query.
    pub path: Option<String>,
    /// Fields with another value, or (`None`) taken away.
    pub fields: Vec<(String, Option<Vec<u8>>)>,
    /// Another body.
    pub body: EditedBody,
    /// The idempotency key.
    pub key: EditedKey,
    /// Whether it stays parked, for a look before it goes.
    pub stays_parked: bool,
}

/// The body of an edited write.
#[derive(Clone, Debug, Default)]
pub enum EditedBody {
    /// As it was.
    #[default]
    Same,
    /// This one.
    New(Bytes),
}

/// The idempotency key of an edited write, if it has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EditedKey {
    /// Another one: it is another write to the origin.
    #[default]
    New,
    /// The same: to the origin it is the write that it knows.
    Same,
}

impl Queue {
    /// Changes a parked or dead write and sets it on its way again, unless it is to stay parked.
    ///
    /// # Errors
    /// See [`OperateError`]; nothing is changed then.
    pub async fn edit(&self, id: ItemId, edit: Edit, by: &str) -> Result<Item, OperateError> {
        let limit_bytes = self.inner.config.max_item_bytes;
        if matches!(&edit.body, EditedBody::New(body) if body.len() as u64 > limit_bytes) {
            return Err(OperateError::TooLarge { limit_bytes });
        }
        let (claim, before) = self.take(id, STUCK).await?;
        let mut fields = self.fields_to_edit(id, &edit).await?;
        apply_fields(&mut fields, &edit)?;
        let key = edited_key(&before, &mut fields, &edit)?;
        let url = edited_url(&before.url, edit.path.as_deref())?;
        let mut item = Item {
            stored_under: edited_target(&before, &url),
            url,
            repeat: repeat_of(&before, &fields, key.as_deref()),
            is_client_key: before.is_client_key && key == before.idempotency_key,
            idempotency_key: key,
            // What was sent before was another request.
            ambiguous_since: None,
            ..revived(&before, self.inner.clock.now())
        };
        if edit.stays_parked {
            item = parked(item);
        }
        item.remark = Some(format!("an operator edited it; {}", was(&before)));
        let body = match edit.body.clone() {
            EditedBody::Same => None,
            EditedBody::New(body) => Some(self.new_body(&mut item, body).await?),
        };
        item.weight_bytes = weight_bytes(&item, &fields, item.body_bytes);
        let audit = self.entry(by, "edit", Some(id), described(&edit, &before));
        let change = Change::Replace {
            item: item.clone(),
            fields,
            body,
        };
        self.settle(claim, change, Some(audit)).await?;
        self.changed(&item);
        Ok(item)
    }

    /// Every field of the request, those that are sealed opened. Where they do not open, an edit that gives each of them
    /// anew, or takes it away, is still possible.
    async fn fields_to_edit(&self, id: ItemId, edit: &Edit) -> Result<Vec<Field>, OperateError> {
        let stored = self.inner.journal.stored_content(id).await?;
        let stored = stored.ok_or_else(|| {
            OperateError::Invalid("its request is damaged and cannot be edited".to_owned())
        })?;
        match self.inner.journal.opened(id, &stored) {
            Ok(fields) => Ok(fields),
            Err(error) => {
                let names = stored.sealed.map(|sealed| sealed.names).unwrap_or_default();
                let is_given = |name: &String| {
                    edit.fields
                        .iter()
                        .any(|(given, _)| given.eq_ignore_ascii_case(name))
                };
                if names.iter().all(is_given) {
                    return Ok(stored.fields);
                }
                Err(OperateError::Invalid(format!(
                    "{error}: give new values for {}, or take them away",
                    names.join(", ")
                )))
            }
        }
    }

    /// The body as the journal takes it; what the item says of it is brought up to date.
    pub(super) async fn new_body(
        &self,
        item: &mut Item,
        body: Bytes,
    ) -> Result<NewBody, OperateError> {
        item.body_bytes = body.len() as u64;
        item.body_sha256
            .copy_from_slice(digest(&SHA256, &body).as_ref());
        if body.len() <= INLINE_BODY_MAX_BYTES {
            return Ok(NewBody::Inline(body));
        }
        let failed = |error: std::io::Error| OperateError::Unavailable(error.to_string());
        let mut file = self.spool().await.map_err(failed)?;
        file.write(body).await.map_err(failed)?;
        file.finish();
        Ok(NewBody::Spooled(file))
    }
}

fn apply_fields(fields: &mut Vec<Field>, edit: &Edit) -> Result<(), OperateError> {
    if matches!(edit.body, EditedBody::New(_)) {
        fields.retain(|(name, _)| !DIGESTS.contains(&name.as_str()));
        fields.retain(|(name, _)| name != "content-length");
    }
    for (name, value) in &edit.fields {
        let known = HeaderName::from_bytes(name.as_bytes());
        let name = known
            .map_err(|_| OperateError::Invalid(format!("`{name}` is not the name of a field")))?;
        if NOT_OURS.contains(&name.as_str()) {
            return Err(OperateError::Invalid(format!(
                "the field {name} is made for each sending"
            )));
        }
        let place = fields.iter().position(|(known, _)| known == name.as_str());
        fields.retain(|(known, _)| known != name.as_str());
        let Some(value) = value else {
            continue;
        };
        if HeaderValue::from_bytes(value).is_err() {
            return Err(OperateError::Invalid(format!(
                "the value of {name} has characters that a field must not have"
            )));
        }
        let place = place.map_or(fields.len(), |place| place.min(fields.len()));
        fields.insert(place, (name.as_str().to_owned(), value.clone()));
    }
    Ok(())
}

/// The key the write has now; its field is changed along.
fn edited_key(
    before: &Item,
    fields: &mut [Field],
    edit: &Edit,
) -> Result<Option<String>, OperateError> {
    let Some(old) = &before.idempotency_key else {
        return Ok(None);
    };
    let quoted = format!("\"{old}\"");
    let has_key = |value: &[u8]| value == old.as_bytes() || value == quoted.as_bytes();
    let Some((_, value)) = fields.iter_mut().find(|(_, value)| has_key(value)) else {
        // The edit took the field away, or gave it another value.
        return Ok(None);
    };
    if edit.key == EditedKey::Same {
        return Ok(Some(old.clone()));
    }
    let new = new_key()?;
    *value = match value.first() {
        Some(b'"') => format!("\"{new}\"").into_bytes(),
        _ => new.clone().into_bytes(),
    };
    Ok(Some(new))
}

/// A random UUID (RFC 9562 section 5.4).
fn new_key() -> Result<String, OperateError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| OperateError::Unavailable(error.to_string()))?;
    let uuid = uuid::Builder::from_random_bytes(bytes).into_uuid();
    Ok(uuid.hyphenated().to_string())
}

/// What a second sending of the edited write may do.
fn repeat_of(before: &Item, fields: &[Field], key: Option<&str>) -> Repeat {
    let mut values = fields.iter().filter(|(name, _)| name == "if-match");
    let is_conditional = values.any(|(_, value)| names_a_state(value));
    match before.repeat {
        Repeat::Harmless => Repeat::Harmless,
        Repeat::Keyed if key.is_some() => Repeat::Keyed,
        _ if is_conditional => Repeat::Conditional,
        _ => Repeat::Doubtful,
    }
}

/// What another URL is stored under: the same partition of the cache.
fn edited_target(before: &Item, url: &str) -> String {
    if url == before.url {
        return before.stored_under.clone();
    }
    match CacheKey::from_text(&before.stored_under).partition() {
        Some(partition) => format!("~{partition} {url}"),
        None => url.to_owned(),
    }
}

fn edited_url(url: &str, path: Option<&str>) -> Result<String, OperateError> {
    let Some(path) = path else {
        return Ok(url.to_owned());
    };
    let wrong = || {
        OperateError::Invalid("the path begins with `/` and is written as in a request".to_owned())
    };
    let path = Some(path).filter(|path| path.starts_with('/') && !path.contains('#'));
    let path: PathAndQuery = path.and_then(|path| path.parse().ok()).ok_or_else(wrong)?;
    let mut parts = url.parse::<Uri>().map_err(|_| wrong())?.into_parts();
    parts.path_and_query = Some(path);
    let uri = Uri::from_parts(parts).map_err(|_| wrong())?;
    Ok(uri.to_string())
}

/// What was changed, without any value: some are secrets.
fn described(edit: &Edit, before: &Item) -> String {
    let mut changed = vec![was(before)];
    changed.extend(
        edit.path
            .as_ref()
            .map(|_| format!("another path than that of {}", before.url)),
    );
    let names = edit.fields.iter().map(|(name, value)| match value {
        Some(_) => format!("field {name}"),
        None => format!("without field {name}"),
    });
    changed.extend(names);
    if let EditedBody::New(body) = &edit.body {
        changed.push(format!("a body of {} bytes", body.len()));
    }
    if before.idempotency_key.is_some() && edit.key == EditedKey::New {
        changed.push("a new idempotency key".to_owned());
    }
    if edit.stays_parked {
        changed.push("stays parked".to_owned());
    }
    changed.join("; ")
}

#[cfg(test)]
mod tests {
    use super::{
        Edit, EditedBody, EditedKey, Field, apply_fields, edited_key, edited_url, repeat_of,
    };
    use crate::queue::{Item, Repeat, tests::item};

    fn fields() -> Vec<Field> {
        [
            ("accept", "*/*"),
            ("idempotency-key", "\"k-1\""),
            ("content-type", "text/plain"),
            ("content-digest", "sha-256=:x:"),
        ]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
        .to_vec()
    }

    fn keyed() -> Item {
        Item {
            idempotency_key: Some("k-1".to_owned()),
            repeat: Repeat::Keyed,
            ..item()
        }
    }

    #[test]
    fn fields_are_replaced_in_their_place_added_and_taken_away() {
        let mut fields = fields();
        let edit = Edit {
            fields: vec![
                ("Accept".to_owned(), Some(b"text/html".to_vec())),
                ("content-type".to_owned(), None),
                ("x-new".to_owned(), Some(b"1".to_vec())),
            ],
            ..Edit::default()
        };
        apply_fields(&mut fields, &edit).unwrap();
        let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["accept", "idempotency-key", "content-digest", "x-new"]
        );
        assert_eq!(fields[0].1, b"text/html");
    }

    #[test]
    fn a_new_body_takes_the_digest_of_the_old_one_along() {
        let mut fields = fields();
        let edit = Edit {
            body: EditedBody::New("x".into()),
            ..Edit::default()
        };
        apply_fields(&mut fields, &edit).unwrap();
        assert!(fields.iter().all(|(name, _)| name != "content-digest"));
    }

    #[test]
    fn fields_that_are_none_or_not_ours_are_refused() {
        for (name, value) in [
            ("a b", "x"),
            ("", "x"),
            ("Host", "x"),
            ("content-length", "3"),
            ("Transfer-Encoding", "chunked"),
            ("x-a", "a\r\nb: c"),
        ] {
            let edit = Edit {
                fields: vec![(name.to_owned(), Some(value.as_bytes().to_vec()))],
                ..Edit::default()
            };
            assert!(
                apply_fields(&mut fields(), &edit).is_err(),
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn a_key_is_new_unless_it_is_to_be_kept() {
        let mut new = fields();
        let key = edited_key(&keyed(), &mut new, &Edit::default())
            .unwrap()
            .unwrap();
        assert_ne!(key, "k-1");
        assert_eq!(new[1].1, format!("\"{key}\"").into_bytes());
        let keep = Edit {
            key: EditedKey::Same,
            ..Edit::default()
        };
        let mut same = fields();
        let key = edited_key(&keyed(), &mut same, &keep).unwrap();
        assert_eq!((key.as_deref(), same), (Some("k-1"), fields()));
        assert_eq!(edited_key(&item(), &mut fields(), &keep).unwrap(), None);
    }

    #[test]
    fn what_a_second_sending_may_do_follows_from_the_edit() {
        let conditional = [("if-match".to_owned(), b"\"1\"".to_vec())];
        for (before, fields, key, expected) in [
            (Repeat::Harmless, &[][..], None, Repeat::Harmless),
            (Repeat::Keyed, &[], Some("k"), Repeat::Keyed),
            (Repeat::Keyed, &[], None, Repeat::Doubtful),
            (Repeat::Doubtful, &conditional, None, Repeat::Conditional),
            (Repeat::Conditional, &[], None, Repeat::Doubtful),
            (Repeat::Conditional, &conditional, None, Repeat::Conditional),
        ] {
            let before = Item {
                repeat: before,
                ..item()
            };
            assert_eq!(repeat_of(&before, fields, key), expected, "{before:?}");
        }
    }

    #[test]
    fn only_path_and_query_of_a_url_change() {
        let url = "http://api.example:81/orders?a=1";
        assert_eq!(edited_url(url, None).unwrap(), url);
        for (path, expected) in [
            ("/x?y=%2f", Some("http://api.example:81/x?y=%2f")),
            (
                "//evil.example/x",
                Some("http://api.example:81//evil.example/x"),
            ),
            ("x", None),
            ("", None),
            ("http://evil.example/", None),
            ("/a b", None),
            ("/a#b", None),
        ] {
            assert_eq!(
                edited_url(url, Some(path)).ok().as_deref(),
                expected,
                "{path}"
            );
        }
    }
}
