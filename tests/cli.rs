//! The command line as scripts and people use it: the built binary, its exit codes, and what stands on which stream.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "each test binary uses its part")]
mod support;

#[path = "cli/queue.rs"]
mod queue;

use std::{os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};

use support::{Origin, Process, Reply, Request, noise, reverse_to, run_to_exit};

/// What a command came to.
#[derive(Debug)]
struct Run {
    code: i32,
    out: String,
    talk: String,
}

impl Run {
    #[track_caller]
    fn expect(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// One JSON value a line.
    fn lines(&self) -> Vec<Value> {
        let lines = self.out.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("NDJSON"))
            .collect()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).expect("JSON")
    }
}

async fn run_with(line: &str, environment: &[(&str, &str)]) -> Run {
    let words: Vec<&str> = line.split_whitespace().collect();
    let exit = run_to_exit(&words, environment).await;
    Run {
        code: exit.code.expect("no signal"),
        out: exit.stdout,
        talk: exit.stderr,
    }
}

/// Runs a command that finds the gateway through its data directory.
async fn ask(process: &Process, line: &str) -> Run {
    let data = process.data();
    run_with(&format!("{line} --data-dir {}", data.display()), &[]).await
}

/// A gateway process before an origin, with `/a` and `/b` stored.
async fn with_two_stored() -> (Origin, Process) {
    let origin = Origin::start().await;
    let process = Process::start(&reverse_to(origin.address())).await;
    for path in ["/a", "/b"] {
        origin.on(path, Reply::ok(noise(1_500)).cache_control("max-age=3600"));
        process.client.get(path).await;
    }
    (origin, process)
}

#[tokio::test]
async fn usage_and_configuration_errors_are_2_and_write_no_data() {
    for line in [
        "nonsense",
        "run --mode sometimes",
        "run --config /nonexistent/hardtack.toml",
        "--config /nonexistent/hardtack.toml",
        "check --config /nonexistent/hardtack.toml",
        "check --listen nowhere",
        "config show --config /nonexistent/hardtack.toml",
        "cache purge",
        "cache purge http://a.example/ --host a.example",
        "cache ls --limit many",
        "cache ls --sort name",
        "upstream offline",
        "completions cobol",
        "status --admin http://u:p@127.0.0.1:1",
        "status --admin ftp://127.0.0.1:1",
    ] {
        let run = run_with(line, &[("HOME", "/nonexistent")]).await;
        run.expect(2);
        assert!(
            run.out.is_empty() && !run.talk.is_empty(),
            "{line}: {run:?}"
        );
    }
}

#[tokio::test]
async fn help_version_and_completions_are_data() {
    for (line, said) in [
        ("--help", "healthcheck"),
        ("--version", env!("CARGO_PKG_VERSION")),
        ("cache purge --help", "--dry-run"),
        ("completions bash", "hardtack"),
        ("completions zsh", "hardtack"),
        ("completions fish", "hardtack"),
        ("config schema", "max_stale_offline"),
        ("config reference", "max_stale_offline"),
    ] {
        let run = run_with(line, &[]).await;
        run.expect(0);
        assert!(run.out.contains(said), "{line}: {run:?}");
        assert!(run.talk.is_empty(), "{line}: {run:?}");
    }
}

#[tokio::test]
async fn the_configuration_in_force_is_shown_with_its_origins() {
    let home = [
        ("HOME", "/nonexistent"),
        ("HARDTACK_STORAGE__MEMORY", "64MiB"),
    ];
    let run = run_with("config show --json --listen 127.0.0.1:7070", &home).await;
    run.expect(0);
    assert_eq!(run.json()["storage"]["memory"], "64MiB");
    let run = run_with("config show --origin", &home).await;
    run.expect(0);
    assert!(run.out.contains("HARDTACK_STORAGE__MEMORY"), "{run:?}");
    run_with("check", &home).await.expect(0);
}

#[tokio::test]
async fn without_a_gateway_commands_say_so_with_3() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().display();
    for command in [
        "status",
        "cache ls",
        "cache show 00",
        "upstream ls",
        "upstream auto x",
        "queue ls",
        "queue drop 00",
        "queue export",
        "healthcheck",
    ] {
        let run = run_with(&format!("{command} --data-dir {data}"), &[]).await;
        run.expect(3);
        assert!(run.talk.contains("gateway.json"), "{run:?}");
    }
    let reserved = support::Reserved::new();
    let token = [("HARDTACK_TOKEN", "0123456789abcdef")];
    let line = format!("status --admin {} --data-dir {data}", reserved.address);
    let run = run_with(&line, &token).await;
    run.expect(3);
    assert!(run.talk.contains(&reserved.address.to_string()), "{run:?}");
}

#[tokio::test]
async fn a_running_gateway_is_found_through_its_data_directory() {
    let (_origin, process) = with_two_stored().await;
    let status = ask(&process, "status").await;
    status.expect(0);
    assert!(status.out.contains(env!("CARGO_PKG_VERSION")), "{status:?}");
    assert!(
        status.out.contains("ready") && !status.out.contains('\u{1b}'),
        "{status:?}"
    );
    let status = ask(&process, "status --json").await;
    assert_eq!(status.expect(0).json()["state"], "ready");
}

#[tokio::test]
async fn the_environment_names_a_gateway_and_no_proxy_is_asked() {
    let (_origin, process) = with_two_stored().await;
    let token = std::fs::read_to_string(process.data().join("read.token")).unwrap();
    let admin = format!("http://{}", process.admin.address);
    // Nobody listens there.
    let reserved = support::Reserved::new();
    let dead = format!("http://{}", reserved.address);
    let environment = [
        ("HARDTACK_ADMIN", admin.as_str()),
        ("HARDTACK_TOKEN", token.trim()),
        ("http_proxy", &dead),
        ("HTTP_PROXY", &dead),
        ("all_proxy", &dead),
    ];
    let run = run_with("cache ls --json", &environment).await;
    assert_eq!(run.expect(0).lines().len(), 2);
    // The read token may not change anything, and a wrong one may do nothing at all.
    let run = run_with("upstream offline origin", &environment).await;
    run.expect(4);
    let wrong = [
        ("HARDTACK_ADMIN", admin.as_str()),
        ("HARDTACK_TOKEN", "not-the-right-token"),
    ];
    run_with("status", &wrong).await.expect(4);
}

#[tokio::test]
async fn the_token_of_this_machine_is_not_sent_elsewhere() {
    let (_origin, process) = with_two_stored().await;
    let data = process.data();
    let environment = [("HARDTACK_STORAGE__DIR", data.to_str().unwrap())];
    // Reaches this machine all the same, but does not say so: it could be anybody's.
    let elsewhere = format!("0.0.0.0:{}", process.admin.address.port());
    let run = run_with(&format!("status --admin {elsewhere}"), &environment).await;
    run.expect(2);
    assert!(run.talk.contains("token"), "{run:?}");
    let here = format!("status --admin {}", process.admin.address);
    run_with(&here, &environment).await.expect(0);
}

#[tokio::test]
async fn stored_responses_are_listed_and_shown() {
    let (origin, process) = with_two_stored().await;
    let list = ask(&process, "cache ls").await;
    list.expect(0);
    let lines: Vec<&str> = list.out.lines().collect();
    assert_eq!(lines.len(), 3, "{list:?}");
    assert!(
        lines[1].contains("fresh") && lines[1].contains("1.5 KiB"),
        "{list:?}"
    );
    assert!(lines[1].ends_with(&origin.url("/a")), "{list:?}");

    let list = ask(&process, "cache ls --json --limit 1").await;
    list.expect(0);
    assert_eq!(list.lines().len(), 1);
    assert!(list.talk.contains("more"), "{list:?}");
    let list = ask(
        &process,
        "cache ls --json --all --path-prefix /b --sort -hits",
    )
    .await;
    let [entry] = &list.expect(0).lines()[..] else {
        panic!("{list:?}");
    };
    assert_eq!(entry["url"], origin.url("/b"));

    let id = entry["id"].as_str().unwrap();
    let shown = ask(&process, &format!("cache show {id}")).await;
    assert!(
        shown.expect(0).out.contains("cache-control: max-age=3600"),
        "{shown:?}"
    );
    let shown = ask(&process, &format!("cache show {id} --json")).await;
    assert_eq!(shown.expect(0).json()["id"], id);
    ask(&process, "cache show 00").await.expect(1);
    ask(&process, "cache ls --state old").await.expect(2);
}

#[tokio::test]
async fn a_purge_says_its_plan_and_needs_a_yes() {
    let (origin, process) = with_two_stored().await;
    let purge = format!("cache purge --prefix {}", origin.url("/"));
    let plan = ask(&process, &format!("{purge} --hard --dry-run")).await;
    assert!(
        plan.expect(0).out.contains("2 stored responses"),
        "{plan:?}"
    );

    let refused = ask(&process, &format!("{purge} --hard")).await;
    refused.expect(4);
    assert!(refused.out.is_empty(), "{refused:?}");
    for said in ["2 stored responses", &origin.url("/a"), "--yes"] {
        assert!(refused.talk.contains(said), "{said}: {refused:?}");
    }
    assert_eq!(ask(&process, "cache ls --json").await.lines().len(), 2);

    let soft = ask(
        &process,
        &format!("cache purge {} --yes --json", origin.url("/a")),
    )
    .await;
    assert_eq!(soft.expect(0).json()["count"], 1);
    assert_eq!(
        ask(&process, "cache ls --json --state stale")
            .await
            .lines()
            .len(),
        1
    );
    ask(&process, &format!("{purge} --hard --yes"))
        .await
        .expect(0);
    assert!(
        ask(&process, "cache ls --json")
            .await
            .expect(0)
            .lines()
            .is_empty()
    );
}

#[tokio::test]
async fn what_is_tagged_is_listed_shown_and_purged_by_its_tag() {
    let (origin, process) = with_two_stored().await;
    let reply = Reply::ok("v").cache_control("max-age=300");
    origin.on("/tagged", reply.header("Cache-Tag", "news, front"));
    process.client.get(&origin.url("/tagged")).await;
    let listed = ask(&process, "cache ls --json --tag news").await;
    let lines = listed.expect(0).lines();
    assert_eq!(lines.len(), 1, "{listed:?}");
    let id = lines[0]["id"].as_str().unwrap().to_owned();
    let shown = ask(&process, &format!("cache show {id}")).await;
    assert!(shown.expect(0).out.contains("news, front"), "{shown:?}");
    let purged = ask(&process, "cache purge --tag news --hard --yes --json").await;
    assert_eq!(purged.expect(0).json()["count"], 1);
    assert_eq!(ask(&process, "cache ls --json").await.lines().len(), 2);
    ask(&process, "cache purge --tag news --host a")
        .await
        .expect(2);
}

#[tokio::test]
async fn upstreams_are_listed_and_taken_offline_and_back() {
    let (origin, process) = with_two_stored().await;
    // An implicit one, whose name has slashes and a colon.
    let implicit = format!("http://localhost:{}", origin.address().port());
    let request = Request::get(&format!("{implicit}/a"));
    process.client.ask(request).await;
    let list = ask(&process, "upstream ls --json").await;
    let names: Vec<Value> = list
        .expect(0)
        .lines()
        .iter()
        .map(|line| line["name"].clone())
        .collect();
    assert_eq!(names, [json!("origin"), json!(implicit)]);

    for name in ["origin", &implicit] {
        let run = ask(
            &process,
            &format!("upstream offline {name} --for 30m --reason drill"),
        )
        .await;
        assert!(run.expect(0).out.contains("disconnected"), "{run:?}");
        let list = ask(&process, "upstream ls").await;
        let line = list
            .expect(0)
            .out
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap();
        assert!(line.contains("offline"), "{line}");
        ask(&process, &format!("upstream online {name}"))
            .await
            .expect(0);
        let run = ask(&process, &format!("upstream auto {name}")).await;
        assert!(!run.expect(0).out.contains("override"), "{run:?}");
    }
    ask(&process, "upstream offline nobody").await.expect(1);
    ask(&process, "upstream offline origin --for ever")
        .await
        .expect(2);
}

#[tokio::test]
async fn a_healthcheck_needs_no_token() {
    let (_origin, process) = with_two_stored().await;
    let admin = process.admin.address;
    for line in ["healthcheck", "healthcheck --ready"] {
        let run = run_with(&format!("{line} --admin {admin}"), &[]).await;
        run.expect(0);
    }
    ask(&process, "upstream offline origin").await.expect(0);
    let run = ask(&process, "healthcheck --ready").await;
    assert!(run.expect(0).out.contains("degraded"), "{run:?}");
}

#[tokio::test]
async fn what_answers_may_be_no_gateway() {
    let origin = Origin::start().await;
    let page = Reply::ok("<html>hello</html>").header("Content-Type", "text/html");
    origin.on("/api/v1/status", page);
    let environment = [("HARDTACK_TOKEN", "0123456789abcdef")];
    let run = run_with(
        &format!("status --admin {}", origin.address()),
        &environment,
    )
    .await;
    run.expect(1);
    assert!(run.talk.contains("does not speak"), "{run:?}");
    let elsewhere = Reply::new(302, "").header("Location", "http://evil.example/");
    origin.on("/api/v1/status", elsewhere);
    run_with(
        &format!("status --admin {}", origin.address()),
        &environment,
    )
    .await
    .expect(1);
}

#[tokio::test]
async fn a_start_says_where_it_listens_and_what_it_caches() {
    let (_origin, process) = with_two_stored().await;
    let data = process.data();
    let log = std::fs::read_to_string(data.with_file_name("log")).unwrap();
    for said in [
        process.client.address.to_string(),
        process.admin.address.to_string(),
        data.display().to_string(),
        "gateway.toml".to_owned(),
        "CONNECT".to_owned(),
        "curl".to_owned(),
    ] {
        assert!(log.contains(&said), "{said} is not in\n{log}");
    }
    for name in ["admin.token", "read.token", "gateway.json"] {
        assert_eq!(mode(&data.join(name)), 0o600, "{name}");
    }
    assert_eq!(mode(&data), 0o700);
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_starter_is_written_once_and_is_good() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hardtack.toml");
    let init = format!("init -o {}", file.display());
    run_with(&init, &[]).await.expect(0);
    run_with(&init, &[]).await.expect(1);
    let home = [("HOME", "/nonexistent")];
    run_with(&format!("check --config {}", file.display()), &home)
        .await
        .expect(0);
    let named = [
        ("HOME", "/nonexistent"),
        ("HARDTACK_CONFIG", file.to_str().unwrap()),
    ];
    let run = run_with("check", &named).await;
    assert!(run.expect(0).out.contains("hardtack.toml"), "{run:?}");
    std::fs::write(&file, "[listen]\nproxi = 1\n[cache]\nkind = \"x\"\n").unwrap();
    let run = run_with("check", &named).await;
    run.expect(2);
    assert!(
        run.talk.contains("proxi") && run.talk.contains("kind"),
        "all at once: {run:?}"
    );
}

#[tokio::test]
async fn the_demo_tells_of_an_outage_with_real_answers() {
    let told = run_with("demo", &[]).await;
    told.expect(0);
    for line in [
        "fwd=uri-miss; fwd-status=200; stored",
        "hardtack; hit; ttl=",
        "fwd=stale; detail=disconnected",
        "offline-miss",
        "202 Accepted",
        "Hardtack-Overlay: ",
        "biscuit number 2",
        "state: done",
    ] {
        assert!(told.out.contains(line), "{line} in {}", told.out);
    }
    assert!(!told.out.contains("held-down"), "{}", told.out);
}
