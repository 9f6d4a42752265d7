//! What was stored survives a kill -9 and answers while the origin is still gone.

use std::{os::unix::fs::PermissionsExt, path::Path};

use crate::support::{Origin, Process, Reply, digest, eventually, files_below, noise, run_to_exit};

#[tokio::test]
async fn stored_answers_survive_kill_9_byte_for_byte() {
    let (origin, gateway) = (Origin::start().await, Process::start("").await);
    let bodies = [
        ("/1-KiB", noise(1 << 10)),
        ("/1-MiB", noise(1 << 20)),
        ("/20-MiB", noise(20 << 20)),
    ];
    for (path, body) in &bodies {
        origin.on(path, Reply::ok(body.clone()).cache_control("max-age=3600"));
        let answer = gateway.client.get(&origin.url(path)).await;
        assert_eq!(digest(&answer.body), digest(body));
    }
    // Born stale: reused only when the origin is gone.
    origin.on("/stale", Reply::ok("old").etag("\"1\""));
    gateway.client.get(&origin.url("/stale")).await;
    has_on_disk(&gateway, 4).await;

    let home = gateway.kill().await;
    origin.kill().await;
    let gateway = home.start().await;

    for (path, body) in &bodies {
        let answer = gateway.client.get(&origin.url(path)).await;
        answer.assert_says(&["hit"]);
        assert_eq!(digest(&answer.body), digest(body), "{path}");
    }
    let stale = gateway.client.get(&origin.url("/stale")).await;
    assert_eq!((stale.status, stale.text()), (200, "old"));
    stale.assert_says(&["fwd=stale", "detail=disconnected"]);
}

#[tokio::test]
async fn a_corrupt_body_file_is_never_served_as_if_it_were_whole() {
    let (origin, gateway) = (Origin::start().await, Process::start("").await);
    let body = noise(1 << 20);
    origin.on("/a", Reply::ok(body.clone()).cache_control("max-age=3600"));
    gateway.client.get(&origin.url("/a")).await;
    has_on_disk(&gateway, 1).await;
    let data = gateway.data();
    let home = gateway.kill().await;

    let body_file = files_below(&data)
        .into_iter()
        .find(|file| std::fs::read(file).is_ok_and(|bytes| contains(&bytes, &body[..64])))
        .expect("the body in a file");
    let mut bytes = std::fs::read(&body_file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&body_file, bytes).unwrap();

    let gateway = home.start().await;
    let damaged = gateway.client.get(&origin.url("/a")).await;
    assert!(
        !damaged.is_complete || damaged.body == body,
        "a corrupt body looked whole"
    );
    let refetched = gateway.client.get(&origin.url("/a")).await;
    assert_eq!(digest(&refetched.body), digest(&body));
}

#[tokio::test]
async fn a_second_gateway_on_the_same_data_is_refused_and_says_what_is_taken() {
    let gateway = Process::start("").await;
    let data = gateway.data();
    let second = run_to_exit(
        &[
            "run",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--data-dir",
            data.to_str().unwrap(),
        ],
        &[],
    )
    .await;
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains(data.to_str().unwrap()), "{second:?}");
    assert_eq!(gateway.admin.get("/livez").await.status, 200);
}

#[tokio::test]
async fn nobody_else_may_read_the_data_directory() {
    let (origin, gateway) = (Origin::start().await, Process::start("").await);
    origin.on(
        "/a",
        Reply::ok(noise(1 << 20)).cache_control("max-age=3600"),
    );
    gateway.client.get(&origin.url("/a")).await;
    has_on_disk(&gateway, 1).await;

    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&gateway.data()), 0o700);
    for file in files_below(&gateway.data()) {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

async fn has_on_disk(gateway: &Process, entries: u32) {
    let line = format!("hardtack_cache_entries{{tier=\"disk\"}} {entries}");
    eventually("the store has written", || async {
        let metrics = gateway.admin.get("/metrics").await;
        metrics.text().lines().any(|l| l == line).then_some(())
    })
    .await;
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle)
}
