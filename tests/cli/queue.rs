//! `hardtack queue` before a running gateway.

use serde_json::Value;

use super::{
    Run, ask,
    support::{Origin, Process, Reply, Request, eventually, reverse_to},
};

/// A gateway process before an origin that refuses writes to `/bad` once, and is not asked before anything is queued.
async fn with_writes(paths: &[&str]) -> (Origin, Process, Vec<String>) {
    let origin = Origin::start().await;
    for path in ["/bad", "/bad/2"] {
        origin.on_each(path, |_, before| match before {
            0 => Reply::new(400, "no"),
            _ => Reply::new(201, "yes"),
        });
    }
    for path in ["/a", "/b", "/c"] {
        origin.on(path, Reply::new(204, ""));
    }
    let reverse = reverse_to(origin.address());
    let config = format!(
        r#"
        {reverse}
        write = {{ mode = "always", order_by = "path" }}
        [queue]
        recovery_spread = "0s"
        "#
    );
    let process = Process::start(&config).await;
    let mut ids = Vec::new();
    for path in paths {
        let request = Request::new("POST", path).body("hello");
        let answer = process.client.ask(request).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        ids.push(answer.json()["id"].as_str().unwrap().to_owned());
    }
    (origin, process, ids)
}

async fn state(process: &Process, id: &str) -> String {
    let shown = ask(process, &format!("queue show {id} --json")).await;
    let item = shown.expect(0).json();
    item["state"].as_str().unwrap().to_owned()
}

async fn until(process: &Process, id: &str, expected: &str) {
    eventually(&format!("{id} is {expected}"), async || {
        (state(process, id).await == expected).then_some(())
    })
    .await;
}

fn ids(run: &Run) -> Vec<String> {
    let lines = run.lines();
    let id = |line: &Value| line["id"].as_str().unwrap().to_owned();
    lines.iter().map(id).collect()
}

#[tokio::test]
async fn queued_writes_are_listed_shown_and_held_back() {
    let (origin, process, none) = with_writes(&[]).await;
    assert!(none.is_empty());
    let run = ask(&process, "queue pause --reason drill").await;
    assert!(run.expect(0).out.contains("paused everywhere"), "{run:?}");
    let mut written = Vec::new();
    for path in ["/a", "/b"] {
        let answer = process
            .client
            .ask(Request::new("PUT", path).body("x"))
            .await;
        written.push(answer.json()["id"].as_str().unwrap().to_owned());
    }
    let list = ask(&process, "queue ls").await;
    let lines: Vec<&str> = list.expect(0).out.lines().collect();
    assert_eq!(lines.len(), 3, "{list:?}");
    assert!(
        lines[1].contains("queued") && lines[1].contains(&written[0]),
        "{list:?}"
    );
    assert!(
        lines[2].ends_with(&format!("PUT {}", origin.url("/b"))),
        "{list:?}"
    );
    let list = ask(&process, "queue ls --json --q /b").await;
    assert_eq!(ids(list.expect(0)), written[1..]);
    let list = ask(&process, "queue ls --json --limit 1").await;
    assert!(list.expect(0).talk.contains("more"), "{list:?}");
    let lanes = ask(&process, "queue lanes").await;
    assert_eq!(lanes.expect(0).out.lines().count(), 3, "{lanes:?}");
    let shown = ask(&process, &format!("queue show {}", written[0])).await;
    assert!(shown.expect(0).out.contains("number 1"), "{shown:?}");
    let status = ask(&process, "status").await;
    assert!(
        status.expect(0).out.contains("2 writes (2 queued)"),
        "{status:?}"
    );
    ask(&process, "queue show 00").await.expect(1);
    ask(&process, "queue ls --state old").await.expect(2);
    ask(&process, "queue pause nobody").await.expect(1);

    let run = ask(&process, "queue resume").await;
    assert!(run.expect(0).out.contains("nothing is paused"), "{run:?}");
    for id in &written {
        until(&process, id, "done").await;
    }
}

#[tokio::test]
async fn what_cannot_be_taken_back_says_its_plan_and_needs_a_yes() {
    let (_origin, process, written) = with_writes(&["/bad", "/bad/2"]).await;
    for id in &written {
        until(&process, id, "dead").await;
    }
    for line in [
        format!("queue drop {}", written[0]),
        format!("queue resolve {}", written[0]),
        format!("queue edit {} --path /c", written[0]),
        "queue redrive --state dead".to_owned(),
        "queue retry --state dead".to_owned(),
    ] {
        let run = ask(&process, &line).await;
        run.expect(4);
        assert!(
            run.out.is_empty() && run.talk.contains("--yes"),
            "{line}: {run:?}"
        );
        assert!(run.talk.contains(&written[0]), "{line}: {run:?}");
    }
    assert_eq!(state(&process, &written[0]).await, "dead");
    let run = ask(&process, &format!("queue drop {} --yes", written[0])).await;
    assert!(run.expect(0).out.contains("dropped"), "{run:?}");
    ask(&process, &format!("queue show {}", written[0]))
        .await
        .expect(1);
    let resolve = format!("queue resolve {} --yes --reason seen --json", written[1]);
    let run = ask(&process, &resolve).await;
    assert_eq!(run.expect(0).json()["reason"], "resolved");
    // It has ended.
    ask(&process, &format!("queue retry {}", written[1]))
        .await
        .expect(4);
}

#[tokio::test]
async fn dead_writes_are_retried_edited_and_redriven() {
    let (origin, process, written) = with_writes(&["/bad", "/bad/2", "/bad/2"]).await;
    for id in &written[..2] {
        until(&process, id, "dead").await;
    }
    let run = ask(&process, &format!("queue retry {}", written[0])).await;
    assert!(
        run.expect(0).out.contains("waiting"),
        "nothing was executed: {run:?}"
    );
    until(&process, &written[0], "done").await;

    let plan = ask(&process, "queue redrive --dry-run --json").await;
    let plan = plan.expect(0).json();
    assert_eq!(plan["total"], 1);
    let id = plan["id"].as_str().unwrap();
    let run = ask(&process, &format!("queue redrive --plan {id} --yes")).await;
    assert!(
        run.expect(0).out.contains("1 queued write on their way"),
        "{run:?}"
    );
    for id in &written[1..] {
        until(&process, id, "done").await;
    }
    assert_eq!(origin.seen_at("/bad/2").len(), 3);
    let run = ask(&process, "queue redrive --yes").await;
    assert!(run.expect(0).out.contains("0 queued writes"), "{run:?}");
}

#[tokio::test]
async fn an_edit_takes_its_body_from_a_file() {
    let (origin, process, written) = with_writes(&["/bad"]).await;
    until(&process, &written[0], "dead").await;
    let body = process.data().with_file_name("body");
    std::fs::write(&body, b"\0\xff").unwrap();
    let edit = format!(
        "queue edit {} --yes --path /c --body {} -H x-new:1",
        written[0],
        body.display()
    );
    ask(&process, &edit).await.expect(0);
    origin.sees("/c", 1).await;
    let seen = &origin.seen_at("/c")[0];
    assert_eq!(
        (&*seen.body, seen.header("x-new")),
        (&b"\0\xff"[..], Some("1"))
    );
    let edit = format!("queue edit {} --yes --body /nowhere", written[0]);
    ask(&process, &edit).await.expect(2);
}

#[tokio::test]
async fn an_export_moves_to_another_gateway() {
    let (_origin, first, _) = with_writes(&[]).await;
    ask(&first, "queue pause").await.expect(0);
    for body in ["one", "two"] {
        let request = Request::new("PUT", "/a").body(body);
        assert_eq!(first.client.ask(request).await.status, 202);
    }
    let file = first.data().with_file_name("export");
    let export = format!("queue export --output {}", file.display());
    let run = ask(&first, &export).await;
    assert!(
        run.expect(0).talk.contains("2 queued writes exported"),
        "{run:?}"
    );
    let run = ask(&first, "queue export").await;
    assert_eq!(run.expect(0).lines().len(), 2);
    assert_eq!(run.out, std::fs::read_to_string(&file).unwrap());

    let (_origin, second, _) = with_writes(&[]).await;
    ask(&second, "queue pause").await.expect(0);
    let import = format!("queue import {}", file.display());
    let run = ask(&second, &import).await;
    assert!(
        run.expect(0).out.contains("2 queued writes imported"),
        "{run:?}"
    );
    let run = ask(&second, &format!("{import} --json")).await;
    assert_eq!(run.expect(0).json()["known"], 2);
    let (before, after) = (
        ask(&first, "queue ls --json").await,
        ask(&second, "queue ls --json").await,
    );
    assert_eq!(ids(&before), ids(&after));
    std::fs::write(&file, "nonsense\n").unwrap();
    let run = ask(&second, &import).await;
    assert!(run.expect(1).talk.contains("line 1"), "{run:?}");
    ask(&second, "queue import /nowhere").await.expect(2);
}
