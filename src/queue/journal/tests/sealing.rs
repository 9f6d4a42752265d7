//! Credentials on disk: sealed, or not there.

use std::fs;

use super::*;
use crate::queue::{journal::ContentError, seal::OpenSealedError};

const KEY: &str = "0123456789abcdefghijklmnopqrstuvwxyz";
const OTHER_KEY: &str = "zyxwvutsrqponmlkjihgfedcba9876543210";
const SECRET: &[u8] = b"Bearer very-secret-token";

fn fields() -> Vec<(String, Vec<u8>)> {
    vec![
        ("x-plain".to_owned(), b"1".to_vec()),
        ("authorization".to_owned(), SECRET.to_vec()),
        ("x-api-key".to_owned(), SECRET.to_vec()),
    ]
}

fn with_credentials(fixture: &Fixture) -> NewWrite {
    NewWrite {
        fields: fields(),
        ..fixture.write("body")
    }
}

/// A queue with this key file, in a directory of its own beside it.
async fn sealed(dir: &Arc<TempDir>, keys: &str) -> Fixture {
    let file = dir.path().join("keys");
    fs::write(&file, keys).unwrap();
    let mut config = config(&dir.path().join("queue"));
    config.key_file = Some(file);
    config.sensitive_headers = vec![http::HeaderName::from_static("x-api-key")];
    let backing = Backing::directory(config.dir.clone());
    Fixture::open(dir.clone(), config, backing).await.unwrap()
}

#[tokio::test]
async fn a_sealed_credential_comes_back_and_is_nowhere_in_the_files() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let fixture = sealed(&dir, KEY).await;
    let item = appended(fixture.journal.append(with_credentials(&fixture)).await);
    fixture.close().await;
    for entry in fs::read_dir(dir.path().join("queue")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let content = fs::read(&path).unwrap();
            let found = content.windows(SECRET.len()).any(|part| part == SECRET);
            assert!(!found, "{}", path.display());
        }
    }
    let fixture = sealed(&dir, &format!("{OTHER_KEY}\n{KEY}")).await;
    let opened = fixture.journal.content(item.id).await.unwrap();
    assert_eq!(opened.fields, fields());
    let stored = fixture.journal.stored_content(item.id).await.unwrap();
    assert_eq!(
        stored.unwrap().sealed.unwrap().names,
        ["authorization", "x-api-key"]
    );
    fixture.close().await;
    let fixture = sealed(&dir, OTHER_KEY).await;
    let opened = fixture.journal.content(item.id).await;
    assert!(matches!(
        opened,
        Err(ContentError::Sealed(OpenSealedError::UnknownKey))
    ));
    assert_eq!(fixture.journal.damage(), 0, "a key can come back");
}

#[tokio::test]
async fn without_a_key_a_credential_is_refused_and_not_stored() {
    let fixture = Fixture::new().await;
    assert!(!fixture.journal.can_seal());
    let refused = fixture.journal.append(with_credentials(&fixture)).await;
    assert!(matches!(refused, Err(AppendError::CredentialNotStorable)));
    let item = fixture.append("body").await;
    let replace = Change::Replace {
        item: item.clone(),
        fields: fields(),
        body: None,
    };
    let refused = fixture.journal.record(replace).await;
    assert!(matches!(refused, Err(JournalError::CredentialNotStorable)));
    assert_eq!(fixture.all().await, [item]);
}
