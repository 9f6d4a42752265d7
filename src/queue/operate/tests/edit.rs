//! A write that an operator changes.

use std::fs;

use bytes::Bytes;
use ring::digest::{SHA256, digest};

use super::{AMBIGUOUS, BY, Bench, KEY, REJECTED, keyed, path};
use crate::queue::{
    DeliveryBody, Parked, State,
    operate::{Edit, EditedBody, EditedKey},
};

#[tokio::test]
async fn an_edited_write_is_another_request_with_another_key() {
    let bench = Bench::new().await;
    let before = bench.write_as("/a", REJECTED, keyed).await;
    let body = Bytes::from(vec![b'x'; 100_000]);
    let edit = Edit {
        path: Some("/b?c=1".to_owned()),
        fields: vec![
            (
                "content-type".to_owned(),
                Some(b"application/json".to_vec()),
            ),
            ("x-new".to_owned(), Some(b"1".to_vec())),
        ],
        body: EditedBody::New(body.clone()),
        ..Edit::default()
    };
    bench.queue.edit(before.id, edit, BY).await.unwrap();

    let bench = bench.reopened().await;
    let after = bench.item(before.id).await;
    assert_eq!(
        (path(&after), after.state),
        ("/b?c=1".to_owned(), State::Waiting)
    );
    let key = after.idempotency_key.clone().unwrap();
    assert!(key != "k-1" && !after.is_client_key);
    assert_eq!(after.body_sha256, digest(&SHA256, &body).as_ref());
    assert_eq!(after.body_bytes, 100_000);
    assert!(after.weight_bytes > 100_000);
    assert_eq!(bench.queue.summary().bytes, after.weight_bytes);
    let opened = bench.queue.inner.journal.content(after.id).await.unwrap();
    let DeliveryBody::File { path, .. } = opened.body else {
        panic!("a large body is in a file");
    };
    assert_eq!(fs::read(path).unwrap(), body);
    let value = |name: &str| {
        let field = opened.fields.iter().find(|(known, _)| known == name);
        String::from_utf8(field.unwrap().1.clone()).unwrap()
    };
    assert_eq!(value("content-type"), "application/json");
    assert_eq!(value("idempotency-key"), format!("\"{key}\""));
    assert_eq!(value("authorization"), "Bearer secret", "sealed anew");
    let audit = bench.queue.audit(None, 10).await.unwrap();
    assert!(
        !audit.items[0].detail.contains("application/json"),
        "no values: {audit:?}"
    );
}

#[tokio::test]
async fn an_edited_write_may_keep_its_key_and_stay_parked() {
    let bench = Bench::new().await;
    let before = bench.write_as("/a", AMBIGUOUS, keyed).await;
    let edit = Edit {
        key: EditedKey::Same,
        stays_parked: true,
        ..Edit::default()
    };
    bench.queue.edit(before.id, edit, BY).await.unwrap();
    let after = bench.item(before.id).await;
    assert_eq!(after.state, State::Parked(Parked::Operator));
    assert_eq!(after.idempotency_key.as_deref(), Some("k-1"));
    assert_eq!(bench.queue.index().next_due_at(&after.origin), None);
}

#[tokio::test]
async fn an_edit_that_makes_no_sense_changes_nothing() {
    let bench = Bench::new().await;
    let before = bench.write("/a", REJECTED).await;
    for edit in [
        Edit {
            path: Some("b".to_owned()),
            ..Edit::default()
        },
        Edit {
            fields: vec![("host".to_owned(), Some(b"evil.example".to_vec()))],
            ..Edit::default()
        },
        Edit {
            body: EditedBody::New(vec![0; (8 << 20) + 1].into()),
            ..Edit::default()
        },
    ] {
        assert!(bench.queue.edit(before.id, edit, BY).await.is_err());
        assert_eq!(bench.item(before.id).await, before);
    }
    assert!(
        bench.queue.retry(before.id, BY).await.is_ok(),
        "no claim is left"
    );
}

#[tokio::test]
async fn credentials_that_do_not_open_can_be_given_anew() {
    let bench = Bench::new().await;
    let write = bench.write("/a", State::Parked(Parked::Auth)).await;
    fs::write(bench.config.key_file.as_ref().unwrap(), format!("{KEY}-2")).unwrap();
    let bench = bench.reopened().await;
    let same = bench.queue.edit(write.id, Edit::default(), BY).await;
    assert!(same.unwrap_err().to_string().contains("authorization"));
    let given = Edit {
        fields: vec![("Authorization".to_owned(), Some(b"Bearer new".to_vec()))],
        ..Edit::default()
    };
    bench.queue.edit(write.id, given, BY).await.unwrap();
    let opened = bench.queue.inner.journal.content(write.id).await.unwrap();
    let expected = ("authorization".to_owned(), b"Bearer new".to_vec());
    assert!(opened.fields.contains(&expected));
}
