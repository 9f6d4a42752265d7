//! Never an open proxy by accident, and never a way into the networks behind it.

use crate::support::{Gateway, Origin, Process, Reply, Request, reverse_to, run_to_exit};

#[tokio::test]
async fn an_open_listener_without_a_say_who_may_use_it_is_refused_at_start() {
    // As a container's first command would: no home, no environment.
    let data = tempfile::tempdir().unwrap();
    let refused = run_to_exit(
        &[
            "run",
            "--listen",
            "0.0.0.0:0",
            "--admin",
            "127.0.0.1:0",
            "--upstream",
            "http://127.0.0.1:9",
            "--data-dir",
            data.path().to_str().unwrap(),
        ],
        &[],
    )
    .await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    for help in [
        "0.0.0.0:0",
        "allow_clients",
        "enabled = false",
        "HARDTACK_FORWARD__ENABLED=false",
    ] {
        assert!(
            refused.stderr.contains(help),
            "{help} in {}",
            refused.stderr
        );
    }
    assert!(refused.stdout.is_empty(), "data on stdout, talk on stderr");
}

#[tokio::test]
async fn a_container_serves_its_upstream_once_the_forward_proxy_is_off() {
    let origin = Origin::start().await;
    origin.on("/a", Reply::ok("hello").cache_control("max-age=300"));
    let gateway = Process::start_like_a_container(
        &["--upstream", &origin.url("")],
        &[("HARDTACK_FORWARD__ENABLED", "false")],
    )
    .await;
    gateway
        .client
        .get("/a")
        .await
        .assert_says(&["fwd=uri-miss", "stored"]);
    gateway.client.get("/a").await.assert_says(&["hit"]);
    let forwarded = gateway.client.get("http://other.example/").await;
    forwarded.assert_problem(403, "forward-denied");
}

#[tokio::test]
async fn private_addresses_are_refused_however_they_are_spelled() {
    let origin = Origin::start().await;
    let gateway = Gateway::start("[forward]\nallow_networks = []").await;
    let port = origin.address().port();
    for host in [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "localhost",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "[fc00::1]",
        "[fe80::1]",
    ] {
        let answer = gateway.client.get(&format!("http://{host}:{port}/")).await;
        assert_eq!(
            answer.status,
            403,
            "{host}: {}",
            String::from_utf8_lossy(&answer.body)
        );
        answer.assert_problem(403, "forward-denied");
    }
    // Whatever the resolver makes of these, nothing of it may be dialled.
    for host in [
        "2130706433",
        "0177.0.0.1",
        "0x7f.1",
        "127.1",
        "0x7f000001",
        "localhost.",
    ] {
        let answer = gateway.client.get(&format!("http://{host}:{port}/")).await;
        assert!(answer.status >= 400, "{host}: {}", answer.status);
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn an_allowed_network_may_be_reached() {
    let (origin, gateway) = (
        Origin::start().await,
        Gateway::start("[forward]\nallow_networks = [\"127.0.0.1/32\"]").await,
    );
    origin.on("/a", Reply::ok("hello"));
    assert_eq!(gateway.client.get(&origin.url("/a")).await.text(), "hello");
    let elsewhere = gateway.client.get("http://127.0.0.2:1/").await;
    elsewhere.assert_problem(403, "forward-denied");
}

#[tokio::test]
async fn an_upstreams_leave_to_be_private_gives_forwarded_requests_nothing() {
    let origin = Origin::start().await;
    let config = format!(
        "[forward]\nallow_networks = []\n{}",
        reverse_to(origin.address())
    );
    let gateway = Gateway::start(&config).await;
    origin.on("/a", Reply::ok("hello").cache_control("max-age=300"));
    assert_eq!(gateway.client.get("/a").await.text(), "hello");
    let connections = origin.connections();

    let forwarded = gateway.client.get(&origin.url("/b")).await;
    forwarded.assert_problem(403, "forward-denied");
    assert_eq!(origin.connections(), connections);
}

#[tokio::test]
async fn the_forward_proxy_cannot_reach_the_admin_listener() {
    let gateway = Gateway::start("").await;
    let admin = gateway.admin.address;
    for host in [admin.to_string(), format!("localhost:{}", admin.port())] {
        let answer = gateway.client.get(&format!("http://{host}/livez")).await;
        assert_eq!(answer.status, 403, "{host}");
        answer.assert_problem(403, "forward-denied");
    }
}

#[tokio::test]
async fn only_allowed_hosts_can_be_reached() {
    let (origin, gateway) = (
        Origin::start().await,
        Gateway::start("[forward]\nallow = [\"*.example\", \"localhost\"]").await,
    );
    origin.on("/a", Reply::ok("hello"));
    gateway
        .client
        .get(&origin.url("/a"))
        .await
        .assert_problem(403, "forward-denied");
    let allowed = format!("http://localhost:{}/a", origin.address().port());
    assert_eq!(gateway.client.get(&allowed).await.text(), "hello");
}

#[tokio::test]
async fn only_allowed_clients_may_use_the_forward_proxy() {
    let origin = Origin::start().await;
    let config = format!(
        "[forward]\nallow_clients = [\"10.0.0.0/8\"]\n{}",
        reverse_to(origin.address())
    );
    let gateway = Gateway::start(&config).await;
    origin.on("/a", Reply::ok("hello"));
    let forwarded = gateway.client.get(&origin.url("/a")).await;
    forwarded.assert_problem(403, "forward-denied");
    let (_, tunnel) = gateway.client.connect_through("origin.example:443").await;
    tunnel.assert_problem(403, "forward-denied");
    let reverse = gateway.client.get("/a").await;
    assert_eq!(reverse.text(), "hello", "reverse routes are open");
}

#[tokio::test]
async fn a_forward_proxy_with_credentials_asks_for_them() {
    let (origin, gateway) = (
        Origin::start().await,
        Gateway::start("[forward]\ncredentials = [\"ann:secret\"]").await,
    );
    origin.on("/a", Reply::ok("hello"));
    let url = origin.url("/a");
    let refused = gateway.client.get(&url).await;
    refused.assert_problem(407, "proxy-authentication-required");
    assert!(
        refused
            .header("proxy-authenticate")
            .is_some_and(|v| v.starts_with("Basic"))
    );

    let with = |credentials| Request::get(&url).header("Proxy-Authorization", credentials);
    let wrong = gateway.client.ask(with("Basic YW5uOndyb25n")).await;
    wrong.assert_problem(407, "proxy-authentication-required");
    let right = gateway.client.ask(with("Basic YW5uOnNlY3JldA==")).await;
    assert_eq!(right.text(), "hello");
    assert_eq!(origin.seen()[0].header("proxy-authorization"), None);
}
