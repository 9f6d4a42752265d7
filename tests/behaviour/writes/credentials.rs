//! Credentials of queued writes: sealed on disk, or not kept at all.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Site, write};
use crate::support::{Reply, Request, eventually};

const ALWAYS: &str = r#"mode = "always", order_by = "none""#;

/// Fields whose values are secret.
const SECRETS: [(&str, &str); 3] = [
    ("Authorization", "Bearer a-secret-that-is-on-no-disk"),
    ("Cookie", "session=a-secret-that-is-on-no-disk"),
    ("X-Api-Key", "a-secret-that-is-on-no-disk"),
];

const SECRET: &[u8] = b"a-secret-that-is-on-no-disk";

struct Keys {
    dir: TempDir,
}

impl Keys {
    fn new(keys: &str) -> Self {
        let keys = keys.to_owned();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("queue.key"), keys).unwrap();
        Self { dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> String {
        config(&self.file("queue.key"))
    }
}

fn config(key_file: &Path) -> String {
    format!("[queue]\nkey_file = \"{}\"", key_file.display())
}

const FIRST: &str = "the first key, of more than 32 characters\n";
const SECOND: &str = "the second key, of more than 32 characters\n";

#[tokio::test]
async fn without_a_key_no_write_with_a_credential_is_queued() {
    for mode in ["always", "on-failure"] {
        let site = Site::start(&format!("mode = \"{mode}\"")).await;
        site.origin.on("/a", Reply::ok("made"));
        site.lose_origin().await;
        for (name, value) in SECRETS {
            let answer = site.ask(write("PUT", "/a").header(name, value)).await;
            answer.assert_problem(503, "credential-not-storable");
        }
        assert!(!site.gateway.has_on_disk(SECRET));
        assert!(!site.gateway.has_on_disk(b"to /a"));
        site.origin.revive();
        site.let_deliveries_pass().await;
        assert_eq!(site.count("/a"), 0);
    }
}

#[tokio::test]
async fn without_a_key_it_is_passed_on_all_the_same_while_all_is_well() {
    let site = Site::start(r#"mode = "on-failure""#).await;
    site.origin.on("/a", Reply::ok("made"));
    for (name, value) in SECRETS {
        let answer = site.ask(write("PUT", "/a").header(name, value)).await;
        assert_eq!((answer.status, answer.text()), (200, "made"));
    }
    assert_eq!(site.count("/a"), 3);
}

#[tokio::test]
async fn a_sealed_credential_is_delivered_and_never_on_disk_in_the_clear() {
    let keys = Keys::new(FIRST);
    let site = Site::start_with(ALWAYS, &keys.config()).await;
    site.origin.on("/a", Reply::ok("made"));
    site.lose_origin().await;
    let mut request = write("PUT", "/a").header("X-Plain", "this-is-no-secret");
    for (name, value) in SECRETS {
        request = request.header(name, value);
    }
    let receipt = site.queue(request).await;
    assert!(site.gateway.has_on_disk(b"this-is-no-secret"));
    assert!(!site.gateway.has_on_disk(SECRET));
    let receipt_text = site.operator.get(&receipt).await;
    assert!(!receipt_text.text().contains("a-secret"));

    let site = site.restart(ALWAYS, &keys.config()).await;
    site.origin.revive();
    site.until(&receipt, "done").await;
    let seen = &site.origin.seen_at("/a")[0];
    for (name, value) in SECRETS {
        assert_eq!(seen.header(name), Some(value));
    }
    assert!(!site.gateway.has_on_disk(SECRET));
}

#[tokio::test]
async fn fields_that_the_operator_names_are_sealed_too() {
    let keys = Keys::new(FIRST);
    let more = format!("{}\nsensitive_headers = [\"x-mine\"]", keys.config());
    let site = Site::start_with(ALWAYS, &more).await;
    site.lose_origin().await;
    let secret = |name| write("PUT", "/a").header(name, "a-secret-that-is-on-no-disk");
    site.queue(secret("X-Mine")).await;
    assert!(!site.gateway.has_on_disk(SECRET));
}

#[tokio::test]
async fn a_new_key_opens_what_the_old_one_has_sealed_as_long_as_that_is_kept() {
    let keys = Keys::new(FIRST);
    let site = Site::start_with(ALWAYS, &keys.config()).await;
    site.origin.on("/a", Reply::ok("made"));
    site.origin.on("/b", Reply::ok("made"));
    site.lose_origin().await;
    let (name, value) = SECRETS[0];
    let first = site.queue(write("PUT", "/a").header(name, value)).await;
    let rotated = Keys::new(&format!("{SECOND}{FIRST}"));
    let site = site.restart(ALWAYS, &rotated.config()).await;
    let second = site.queue(write("PUT", "/b").header(name, value)).await;
    let lost = Keys::new(SECOND);
    let site = site.restart(ALWAYS, &lost.config()).await;
    site.origin.revive();
    site.until(&second, "done").await;
    assert_eq!(site.until(&first, "parked").await["reason"], "auth");
    assert_eq!((site.count("/a"), site.count("/b")), (0, 1));
}

#[tokio::test]
async fn a_write_that_is_signed_cannot_be_kept() {
    let keys = Keys::new(FIRST);
    for (name, value) in [
        ("Signature-Input", "sig1=(\"@method\");created=1"),
        ("DPoP", "eyJ"),
        ("Authorization", "AWS4-HMAC-SHA256 Credential=x"),
        ("Authorization", "Signature keyId=x"),
    ] {
        let site = Site::start_with(r#"mode = "on-failure""#, &keys.config()).await;
        site.origin.on("/a", Reply::ok("made"));
        let signed = || write("PUT", "/a").header(name, value);
        assert_eq!(site.ask(signed()).await.status, 200, "{name}");
        site.lose_origin().await;
        let answer = site.ask(signed()).await;
        answer.assert_problem(503, "credential-not-storable");
        site.origin.revive();
        site.let_deliveries_pass().await;
        assert_eq!(site.count("/a"), 1, "{name}");
    }
}

/// With an Authorization for deliveries in a file.
async fn with_source(keys: &Keys) -> Site {
    let file = keys.file("credential");
    std::fs::write(&file, "Bearer first\n").unwrap();
    let write = format!("{ALWAYS}, credential_file = \"{}\"", file.display());
    Site::start(&write).await
}

#[tokio::test]
async fn a_route_may_have_a_credential_of_its_own() {
    let keys = Keys::new("");
    let site = with_source(&keys).await;
    site.origin.on("/a", Reply::ok("made"));
    site.lose_origin().await;
    // The client's own is not kept, so no key is needed.
    let (name, value) = SECRETS[0];
    let receipt = site.queue(write("PUT", "/a").header(name, value)).await;
    assert!(!site.gateway.has_on_disk(SECRET));
    assert!(!site.gateway.has_on_disk(b"Bearer first"));
    site.origin.revive();
    site.until(&receipt, "done").await;
    let seen = &site.origin.seen_at("/a")[0];
    assert_eq!(seen.all("authorization"), ["Bearer first"]);
}

#[tokio::test]
async fn its_credential_is_read_anew_when_it_is_refused() {
    let keys = Keys::new("");
    let site = with_source(&keys).await;
    site.origin
        .on_each("/a", |seen, _| match seen.header("authorization") {
            Some("Bearer second") => Reply::ok("made"),
            _ => Reply::new(401, "expired"),
        });
    let receipt = site.queue(write("POST", "/a")).await;
    site.origin.sees("/a", 1).await;
    std::fs::write(keys.file("credential"), "Bearer second\n").unwrap();
    site.until(&receipt, "done").await;
    let seen = site.origin.seen_at("/a");
    let last = seen.last().unwrap();
    assert_eq!(last.header("authorization"), Some("Bearer second"));
}

#[tokio::test]
async fn while_its_file_holds_no_credential_nothing_is_sent_and_an_operator_sees_why() {
    let too_large = vec![b'x'; (64 << 10) + 1];
    for (text, why) in [(&too_large[..], "larger than 64 KiB"), (b"\n", "empty")] {
        let keys = Keys::new("");
        let site = with_source(&keys).await;
        site.origin.on("/a", Reply::ok("made"));
        std::fs::write(keys.file("credential"), text).unwrap();
        let receipt = site.queue(write("POST", "/a")).await;
        let id = receipt.rsplit('/').next().unwrap();
        let item = format!("/api/v1/queue/items/{id}");
        eventually("the write is put off", || async {
            let shown = site.gateway.admin.get(&item).await.json();
            let remark = shown["remark"].as_str().unwrap_or_default();
            remark.contains(why).then_some(())
        })
        .await;
        assert_eq!(site.count("/a"), 0, "{why}");
        std::fs::write(keys.file("credential"), "Bearer second\n").unwrap();
        let done = site.until(&receipt, "done").await;
        assert_eq!(done["attempts"], 1, "{why}");
    }
}

#[tokio::test]
async fn two_users_with_the_same_key_have_two_writes() {
    let keys = Keys::new(FIRST);
    let write = r#"mode = "always", idempotency = "pass""#;
    let site = Site::start_with(write, &keys.config()).await;
    site.lose_origin().await;
    let request = |user: &str, body: &'static str| {
        let request = Request::new("POST", "/a").header("Authorization", user);
        request.header("Idempotency-Key", "\"k\"").body(body)
    };
    let one = site.queue(request("Bearer one", "x")).await;
    let other = site.queue(request("Bearer other", "y")).await;
    assert_ne!(one, other);
    assert_eq!(site.queue(request("Bearer one", "x")).await, one);
}
