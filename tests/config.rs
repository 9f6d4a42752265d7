//! Configuration: what is accepted, what it means, and how mistakes are told.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use hardtack::{
    cli::config_command::{self, Status},
    config::{self, Annotate, Config, Flags, ListenAddress, STARTER, Sources, load},
    policy::{
        CacheKind, ClientCacheControl, CookiePolicy, Mode, Overridable, Overrides,
        ParameterPattern, QueryRules, Settings,
    },
    telemetry::{LogFormat, Sampling},
};
use proptest::prelude::*;

fn file(toml: &str) -> Sources {
    let path = PathBuf::from("/etc/hardtack/hardtack.toml");
    Sources {
        file: Some((path, toml.to_owned())),
        ..Sources::default()
    }
}

fn variables(pairs: &[(&str, &str)]) -> Sources {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Sources {
        environment: pairs.iter().map(owned).collect(),
        ..Sources::default()
    }
}

fn ok(sources: &Sources) -> Config {
    load(sources).unwrap_or_else(|errors| panic!("{errors}"))
}

fn errors(sources: &Sources) -> String {
    match load(sources) {
        Ok(_) => panic!("accepted: {sources:?}"),
        Err(errors) => errors.to_string(),
    }
}

/// Exactly one error, with each of these in it.
fn refused(toml: &str, fragments: &[&str]) {
    let errors = load(&file(toml)).expect_err(toml);
    assert_eq!(errors.count, 1, "{toml}\n{errors}");
    for fragment in fragments {
        let errors = errors.to_string();
        assert!(errors.contains(fragment), "{fragment:?} not in\n{errors}");
    }
}

fn tcp(address: &str) -> ListenAddress {
    ListenAddress::Tcp(address.parse().expect("an address"))
}

#[test]
fn nothing_at_all_is_a_configuration() {
    let config = ok(&Sources::default());
    assert_eq!(config.proxy_listeners, [tcp("127.0.0.1:8080")]);
    assert_eq!(config.admin_listener.to_string(), "127.0.0.1:8081");
    assert_eq!(config.shutdown_grace, Duration::from_secs(20));
    assert_eq!(config.mode, Mode::Auto);
    assert_eq!(config.cache, Settings::default());
    assert_eq!(config.cache.refresh_ahead_percent, 0);
    assert_eq!(config.refresh_ahead_rate.unwrap().per_second.get(), 10);
    assert_eq!(config.storage.memory_bytes, 256 << 20);
    assert_eq!(config.storage.disk_bytes, 10 << 30);
    assert_eq!(config.storage.max_object_bytes, 64 << 20);
    assert_eq!(config.storage.disk_free_min_bytes, 1 << 30);
    let rate = config.limits.per_client.unwrap();
    assert_eq!((rate.per_second.get(), rate.burst.get()), (100, 200));
    assert_eq!(config.limits.max_head_bytes, 32 << 10);
    assert!(config.upstream.deny_private_networks);
    assert_eq!(config.forward.connect_ports, [443]);
    assert!(config.warnings.is_empty());
}

#[test]
fn every_option_means_what_it_says() {
    let config = ok(&file(
        r#"
config_version = 1
mode = "prefer-cache"
[listen]
proxy = ["127.0.0.1:1", "unix:/run/h.sock"]
admin = "[::1]:2"
shutdown_grace = "1m30s"
[storage]
dir = "data"
memory = "1MiB"
disk = "2MiB"
max_object = "3KiB"
disk_free_min = "4"
[cache]
kind = "private"
default_ttl = "1s"
stale_while_revalidate = "2s"
stale_if_error = "3s"
fresh_timeout = "4ms"
max_stale_offline = "5d"
refresh_ahead = 20
refresh_ahead_hits = 21
refresh_ahead_rate = "22/s"
override = ["must-revalidate", "no-store"]
set_cookie = "strip"
ignore_query = ["utm_*", "fbclid"]
sort_query = true
client_cache_control = "ignore"
negative_ttl = "6s"
targeted_fields = ["Surrogate-Control"]
tags_header = ["X-Tags"]
[upstreams.catalog]
urls = ["https://a.example", "http://10.0.0.1:3000/base"]
connect_timeout = "6s"
first_byte_timeout = "7s"
http2 = false
probe = { path = "/healthz?x", interval = "8s", status = 204, body = "well" }
[[routes]]
name = "read"
match = { host = "API.example:80", path = "/v1/**", methods = ["GET", "PURGE"] }
upstream = "catalog"
mode = "online"
cache = { default_ttl = "9s", override = [], refresh_ahead = 0 }
preserve_host = true
[limits]
per_client = { rate = "10/s", burst = 11, key = "ip" }
exempt_loopback = false
max_connections = 12
max_connections_per_client = 13
max_in_flight_per_upstream = 14
max_waiting_per_upstream = 0
max_head = "16KiB"
trusted_proxies = ["10.0.0.0/8", "::1"]
[forward]
enabled = true
allow_clients = ["192.168.0.0/16"]
credentials = ["user:pass:word"]
allow = ["*.Example.com"]
deny_private_networks = false
allow_networks = ["127.0.0.0/8"]
connect_ports = [443, 8443]
upgrade_to_https = ["api.example.com"]
[admin]
allowed_hosts = ["gateway.example"]
[telemetry]
log = { format = "json", level = "warn,hardtack::upstream=debug" }
access = { hits = "none", other = "1/10" }
"#,
    ));
    assert_eq!(config.mode, Mode::PreferCache);
    assert_eq!(config.proxy_listeners[0], tcp("127.0.0.1:1"));
    assert_eq!(
        config.proxy_listeners[1],
        ListenAddress::Unix("/run/h.sock".into())
    );
    assert_eq!(config.admin_listener.to_string(), "[::1]:2");
    assert_eq!(config.shutdown_grace, Duration::from_secs(90));
    assert_eq!(config.storage.dir, PathBuf::from("/etc/hardtack/data"));
    let bytes = [
        config.storage.memory_bytes,
        config.storage.disk_bytes,
        config.storage.max_object_bytes,
        config.storage.disk_free_min_bytes,
    ];
    assert_eq!(bytes, [1 << 20, 2 << 20, 3 << 10, 4]);
    let cache = Settings {
        kind: CacheKind::Private,
        default_ttl: Duration::from_secs(1),
        stale_while_revalidate: Duration::from_secs(2),
        stale_if_error: Duration::from_secs(3),
        fresh_timeout: Duration::from_millis(4),
        max_stale_offline: Duration::from_secs(5 * 86_400),
        refresh_ahead_percent: 20,
        refresh_ahead_hits: 21,
        overrides: Overrides::default()
            .with(Overridable::MustRevalidate)
            .with(Overridable::NoStore),
        set_cookie: CookiePolicy::Strip,
        query: QueryRules {
            ignored: ["utm_*", "fbclid"]
                .map(|name| ParameterPattern::parse(name).unwrap())
                .into(),
            sorted: true,
        },
        client_cache_control: ClientCacheControl::Ignore,
        negative_ttl: Duration::from_secs(6),
        targeted_fields: vec!["surrogate-control".parse().unwrap()],
        tag_fields: vec!["x-tags".parse().unwrap()],
    };
    assert_eq!(config.cache, cache);
    let ahead = config.refresh_ahead_rate.unwrap();
    assert_eq!((ahead.per_second.get(), ahead.burst.get()), (22, 22));

    let upstream = &config.upstream.upstreams["catalog"];
    assert_eq!(
        upstream.urls,
        ["https://a.example", "http://10.0.0.1:3000/base"]
    );
    assert_eq!(upstream.connect_timeout, Duration::from_secs(6));
    assert_eq!(upstream.first_byte_timeout, Duration::from_secs(7));
    assert!(!upstream.http2);
    let probe = upstream.probe.as_ref().unwrap();
    assert_eq!(
        (probe.path.as_str(), probe.interval.as_secs()),
        ("/healthz?x", 8)
    );
    assert_eq!(probe.status.unwrap(), 204);
    assert_eq!(probe.body.as_deref(), Some("well"));
    assert_eq!(
        (config.upstream.max_in_flight, config.upstream.max_waiting),
        (14, 0)
    );
    assert!(!config.upstream.deny_private_networks);
    assert_eq!(
        config.upstream.allow_networks,
        ["127.0.0.0/8".parse().unwrap()]
    );

    let [route] = config.routes.as_slice() else {
        panic!("{:?}", config.routes)
    };
    assert_eq!(
        (route.name.as_str(), route.host.as_str()),
        ("read", "api.example:80")
    );
    assert_eq!(route.path, "/v1/**");
    assert_eq!(route.methods, ["GET", "PURGE"]);
    assert_eq!(route.upstream.as_deref(), Some("catalog"));
    assert_eq!(route.mode, Some(Mode::Online));
    assert!(route.preserve_host);
    let own = Settings {
        default_ttl: Duration::from_secs(9),
        refresh_ahead_percent: 0,
        overrides: Overrides::default(),
        ..cache
    };
    assert_eq!(route.cache, own);

    let limits = &config.limits;
    let rate = limits.per_client.unwrap();
    assert_eq!((rate.per_second.get(), rate.burst.get()), (10, 11));
    assert!(!limits.exempt_loopback);
    assert_eq!(
        (limits.max_connections, limits.max_connections_per_client),
        (12, 13)
    );
    assert_eq!(limits.max_head_bytes, 16 << 10);
    assert_eq!(
        limits.trusted_proxies,
        ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]
    );

    let forward = &config.forward;
    assert!(forward.enabled);
    assert_eq!(forward.allow_clients, ["192.168.0.0/16".parse().unwrap()]);
    assert_eq!(forward.credentials, ["user:pass:word"]);
    assert_eq!(forward.allow, ["*.example.com"]);
    assert_eq!(forward.connect_ports, [443, 8443]);
    assert_eq!(forward.upgrade_to_https, ["api.example.com"]);

    assert_eq!(config.admin.allowed_hosts, ["gateway.example"]);
    assert_eq!(config.telemetry.log_format, LogFormat::Json);
    assert_eq!(config.telemetry.log_level, "warn,hardtack::upstream=debug");
    assert_eq!(config.telemetry.access_hits, Sampling::None);
    assert_eq!(
        config.telemetry.access_other,
        Sampling::OneIn(10.try_into().unwrap())
    );
}

#[test]
fn three_mistakes_are_three_pointed_errors() {
    let toml = r#"[listen]
proxi = "127.0.0.1:8080"

[limits.per_client]
rate = "fast"

[[routes]]
name = "read"
upstream = "katalog"

[upstreams.catalog]
url = "http://127.0.0.1:3000"
"#;
    let expected = r#"error: unknown option `listen.proxi`
 --> /etc/hardtack/hardtack.toml:2:1
  |
2 | proxi = "127.0.0.1:8080"
  | ^^^^^ did you mean `proxy`?
  |
  = help: `listen` takes `proxy`, `admin`, `shutdown_grace`

error: `limits.per_client.rate`: expected a rate such as "100/s", or "off"
 --> /etc/hardtack/hardtack.toml:5:8
  |
5 | rate = "fast"
  |        ^^^^^^ no `/s` at its end

error: route `read`: unknown upstream `katalog`
 --> /etc/hardtack/hardtack.toml:9:12
  |
9 | upstream = "katalog"
  |            ^^^^^^^^^ did you mean "catalog"?
  |
  = help: there is `catalog`"#;
    assert_eq!(errors(&file(toml)), expected);
    let outcome = config_command::check(&file(toml));
    assert_eq!(outcome.status, Status::Invalid);
    assert_eq!(outcome.status.exit_code(), 2);
    assert!(outcome.talk.ends_with("3 errors\n"), "{}", outcome.talk);
}

#[test]
fn mistakes_are_pointed_at() {
    let table: &[(&str, &[&str])] = &[
        // Types and names.
        ("listen = 3", &["`listen`: expected a table", ":1:10"]),
        ("mode = 3", &["expected \"auto\"", "this is an integer"]),
        ("mode = \"offlien\"", &["did you mean \"offline\"?"]),
        ("config_version = 2", &["the integer 1", "too large"]),
        (
            "[lisen]",
            &["unknown option `lisen`", "`listen`?", "the top level takes"],
        ),
        (
            "[storage]\nmax_head = \"1KiB\"",
            &["that name is `limits.max_head`"],
        ),
        (
            "[queue]\nmax_item = \"2GiB\"",
            &["`queue.max_item`", "would not fit into `queue.max_bytes`"],
        ),
        (
            "[queue]\nkey_file = \"/nowhere/queue.key\"",
            &["`queue.key_file`", "not a file of keys"],
        ),
        (
            "[cache]\nset_cookie = \"sotre\"",
            &["`cache.set_cookie`", "did you mean \"store\"?"],
        ),
        (
            "[cache]\nignore_query = [\"a\", \"utm_*=*\"]",
            &["`cache.ignore_query.1`", "'=' is not part of a name"],
        ),
        (
            "[[routes]]\nname = \"a\"\ninvalidates = [\"/x\"]",
            &["`invalidates` without `upstream`"],
        ),
        (
            "[[routes]]\nname = \"a\"\nwrite = { mode = \"on-failure\", order_by = \"header\" }",
            &["`routes.0.write.order_by`", "header:NAME"],
        ),
        (
            "[[routes]]\nname = \"a\"\nwrite = { mode = \"allways\" }",
            &["did you mean \"always\"?"],
        ),
        (
            "[[routes]]\nname = \"a\"\nwrite = { response = { headers = [\"x\"] } }",
            &["`routes.0.write.response.headers.0`", "no `:` in it"],
        ),
        (
            "[forward]\nenabled = \"no\"",
            &["true or false", "this is a string"],
        ),
        (
            "[limits]\nmax_connections = 1.5",
            &["from 1 to 1000000", "a float"],
        ),
        ("[limits]\nmax_connections = 0", &["too small"]),
        (
            "[limits]\nmax_connections = 99999999999999999999",
            &["too large"],
        ),
        ("[forward]\nallow = \"*\"", &["expected a list"]),
        (
            "[forward]\nconnect_ports = [443, 0]",
            &["`forward.connect_ports.1`", ":2:23"],
        ),
        ("upstreams = []", &["expected a table"]),
        ("routes = {}", &["expected a list"]),
        ("routes = [1]", &["`routes.0`: expected a table"]),
        ("a = 1979-05-27", &["unknown option `a`"]),
        // Quantities.
        (
            "[listen]\nshutdown_grace = \"20\"",
            &["the unit is missing", "^^^^"],
        ),
        ("[storage]\nmemory = \"1 MB\"", &["not a unit"]),
        ("[storage]\nmemory = \"0\"", &["above zero", "this is zero"]),
        (
            "[limits]\nmax_head = \"1KiB\"",
            &["\"8KiB\" to \"1MiB\"", "too small"],
        ),
        ("[limits]\nper_client.rate = \"0/s\"", &["lets nobody in"]),
        ("[limits]\nper_client.burst = 0", &["too small"]),
        (
            "[telemetry]\naccess.hits = \"2/3\"",
            &["share such as \"1/100\""],
        ),
        (
            "[telemetry]\nlog.level = \"inof\"",
            &["did you mean `info`?"],
        ),
        (
            "[upstreams.a]\nurl = \"http://a\"\nconnect_timeout = \"0s\"",
            &["above zero"],
        ),
        // Addresses and patterns.
        ("[listen]\nproxy = \"localhost:80\"", &["`127.0.0.1`"]),
        ("[listen]\nproxy = []", &["this list is empty"]),
        (
            "[listen]\nproxy = \"127.0.0.1:8081\"",
            &["the same address", "`listen.admin`"],
        ),
        (
            "[listen]\nproxy = [\"[::1]:1\", \"[::1]:1\"]",
            &["the same address twice", ":2:21"],
        ),
        (
            "[forward]\nallow_clients = [\"10.0.0.0/33\"]",
            &["CIDR", "`/33`"],
        ),
        (
            "[forward]\nallow = [\"a.example:80\"]",
            &["expected a host"],
        ),
        (
            "[admin]\nallowed_hosts = [\"a:80\"]",
            &["a host without a port"],
        ),
        (
            "[cache]\noverride = [\"no-stroe\"]",
            &["did you mean \"no-store\"?"],
        ),
        (
            "[cache]\ntargeted_fields = [\"a b\"]",
            &["the name of a header field"],
        ),
        (
            "[[routes]]\nname = \"a\"\nmatch.host = \"http://a\"",
            &["expected a host"],
        ),
        (
            "[[routes]]\nname = \"a\"\nmatch.path = \"v1\"",
            &["starts with `/`"],
        ),
        (
            "[[routes]]\nname = \"a\"\nmatch.methods = [\"get\"]",
            &["did you mean \"GET\"?"],
        ),
        ("[[routes]]\nname = \"a b\"", &["' ' is none of these"]),
        (
            "[[routes]]\nmode = \"auto\"",
            &["`routes.0.name`: missing", ":1:1", "`name` must be"],
        ),
        (
            "[upstreams.\"a b\"]\nurl = \"http://a\"",
            &["expected a name"],
        ),
        (
            "[upstreams.a]\nurl = \"a.example\"",
            &["`http://` or `https://`"],
        ),
        (
            "[upstreams.a]\nurl = \"http://u:p@a\"",
            &["password does not belong"],
        ),
        ("[upstreams.a]", &["no origin", ":1:12", "add `url"]),
        (
            "[upstreams.a]\nurl = \"http://a\"\nurls = [\"http://b\"]",
            &["both `url` and `urls`"],
        ),
        (
            "[upstreams.a]\nurls = [\"http://b\", \"http://b\"]",
            &["same origin twice"],
        ),
        (
            "[upstreams.a]\nurl = \"http://a\"\nprobe = {}",
            &["`upstreams.a.probe.path`: missing"],
        ),
        (
            "[upstreams.a]\nurl = \"http://a\"\nprobe = { path = \"/\", status = 101 }",
            &["`upstreams.a.probe.status`", "from 200 to 599"],
        ),
        (
            "[upstreams.a]\nurl = \"http://a\"\nprobe = { path = \"/\", body = \"\" }",
            &["`upstreams.a.probe.body`", "nothing is in every answer"],
        ),
        (
            "[upstreams.a]\nurl = \"http://a\"\nhttp2 = true\n[[routes]]\nname = \"a\"\nupstream = \"a\"\npreserve_host = true",
            &["`preserve_host` and `http2`", ":7:17"],
        ),
        (
            "[upstreams.forward]\nurl = \"http://a\"",
            &["this name is taken"],
        ),
        // Between options.
        (
            "[storage]\nmax_object = \"11GiB\"",
            &["`storage.max_object`", ":2:14", "`storage.disk`"],
        ),
        (
            "[storage]\ndisk = \"1MiB\"",
            &["`storage.max_object`", ":2:8"],
        ),
        (
            "[storage]\ndisk = \"0\"\nmax_object = \"1GiB\"",
            &["bytes of `storage.memory`"],
        ),
        (
            "[[routes]]\nname = \"a\"\nupstream = \"b\"",
            &["unknown upstream `b`", "no upstream at all"],
        ),
        (
            "[[routes]]\nname = \"a\"\nmatch.path = \"/a\"\n[[routes]]\nname = \"a\"",
            &["a second route `a`", ":5:8"],
        ),
        (
            "[forward]\ncredentials_file = \"no-such\"",
            &["`forward.credentials_file`", "No such file"],
        ),
        (
            "[admin]\ntoken_file = \"no-such\"",
            &["`admin.token_file`", "No such file"],
        ),
        // Not TOML.
        ("[listen", &["not TOML: unclosed table", ":1:8"]),
        ("[storage]\ndir = /var/lib", &["not TOML", ":2:"]),
        (
            "mode = \"auto\"\nmode = \"auto\"",
            &["duplicate key", ":2:1"],
        ),
        // A mistake that every route takes over is one mistake.
        (
            "[cache]\ndefault_ttl = \"1\"\n[[routes]]\nname = \"a\"\nmatch.path = \"/a\"\n[[routes]]\nname = \"b\"",
            &["`cache.default_ttl`"],
        ),
    ];
    for (toml, fragments) in table {
        refused(toml, fragments);
    }
}

#[test]
fn a_syntax_error_does_not_hide_other_mistakes() {
    let toml = "[storage]\ndir = /var/lib\nmemori = \"1MiB\"\n[limits]\nmax_connections = 0\n";
    let errors = load(&file(toml)).unwrap_err();
    assert_eq!(errors.count, 3, "{errors}");
}

#[test]
fn a_file_that_is_missing_is_an_error_that_names_it() {
    let path = PathBuf::from("/no/such/hardtack.toml");
    let errors = Sources::of_process(Some(&path), Flags::default()).unwrap_err();
    assert_eq!(errors.count, 1);
    let text = errors.to_string();
    assert!(text.contains("/no/such/hardtack.toml"), "{text}");
    assert!(text.contains("hardtack init"), "{text}");
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let mut sources = file(
        "mode = \"offline\"\n[listen]\nadmin = \"127.0.0.1:1\"\nproxy = \"127.0.0.1:2\"\nshutdown_grace = \"3s\"",
    );
    sources.environment = variables(&[
        ("HARDTACK_LISTEN__ADMIN", "127.0.0.1:11"),
        ("HARDTACK_LISTEN__PROXY", "127.0.0.1:12"),
        ("HARDTACK_STORAGE__DIR", "/var/lib/env"),
    ])
    .environment;
    sources.flags = Flags {
        listen: Some("127.0.0.1:22".to_owned()),
        data_dir: Some("relative".to_owned()),
        mode: Some("online".to_owned()),
        log_format: Some("json".to_owned()),
        ..Flags::default()
    };
    let config = ok(&sources);
    assert_eq!(config.shutdown_grace, Duration::from_secs(3));
    assert_eq!(config.admin_listener.to_string(), "127.0.0.1:11");
    assert_eq!(config.proxy_listeners, [tcp("127.0.0.1:22")]);
    assert_eq!(config.storage.dir, PathBuf::from("relative"));
    assert_eq!(config.mode, Mode::Online);
    assert_eq!(config.telemetry.log_format, LogFormat::Json);
}

#[test]
fn variables_have_the_type_of_their_option() {
    let mut sources = variables(&[
        ("HARDTACK_FORWARD__ENABLED", "false"),
        ("HARDTACK_FORWARD__CONNECT_PORTS", "443, 8443"),
        ("HARDTACK_FORWARD__ALLOW_CLIENTS", "[\"10.0.0.0/8\"]"),
        ("HARDTACK_LISTEN__PROXY", "[::1]:8080,127.0.0.1:8080"),
        (
            "HARDTACK_LIMITS__PER_CLIENT",
            "{ rate = \"1/s\", burst = 2 }",
        ),
        ("HARDTACK_LIMITS__PER_CLIENT__RATE", "3/s"),
        ("HARDTACK_LIMITS__MAX_CONNECTIONS", "4"),
        ("HARDTACK_UPSTREAMS__MY_API__URL", "http://127.0.0.1:5"),
        ("HARDTACK_UPSTREAMS__OTHER__URL", "http://127.0.0.1:6"),
    ]);
    sources.file = file("[upstreams.My-API]\nconnect_timeout = \"7s\"").file;
    let config = ok(&sources);
    assert!(!config.forward.enabled);
    assert_eq!(config.forward.connect_ports, [443, 8443]);
    assert_eq!(config.forward.allow_clients.len(), 1);
    assert_eq!(
        config.proxy_listeners,
        [tcp("[::1]:8080"), tcp("127.0.0.1:8080")]
    );
    let rate = config.limits.per_client.unwrap();
    assert_eq!((rate.per_second.get(), rate.burst.get()), (3, 2));
    assert_eq!(config.limits.max_connections, 4);
    let upstream = &config.upstream.upstreams["My-API"];
    assert_eq!(upstream.urls, ["http://127.0.0.1:5"]);
    assert_eq!(upstream.connect_timeout, Duration::from_secs(7));
    assert!(config.upstream.upstreams.contains_key("other"));
}

#[test]
fn variables_that_are_no_configuration_are_left_alone() {
    ok(&variables(&[
        ("HARDTACK_CONFIG", "/x"),
        ("HARDTACK_ADMIN", "http://127.0.0.1:8081"),
        ("HARDTACK_TOKEN", "t"),
        ("HARDTACK_PORT", "tcp://10.0.0.1:8080"),
        ("HARDTACK_SERVICE_HOST", "10.0.0.1"),
        ("OTHER__THING", "x"),
    ]));
}

#[test]
fn a_variable_for_nothing_is_not_left_out_in_silence() {
    let variable = &[("HARDTACK_ROUTES__0__MODE", "online")];
    let text = errors(&variables(variable));
    assert!(text.contains("`routes`: expected a list"), "{text}");
    let mut sources = file("[[routes]]\nname = \"a\"");
    sources.environment = variables(variable).environment;
    let text = errors(&sources);
    assert!(text.contains("HARDTACK_ROUTES__0__MODE=online"), "{text}");
    assert!(text.contains("no table"), "{text}");
}

#[test]
fn mistakes_in_variables_and_flags_name_them() {
    let mut sources = variables(&[
        ("HARDTACK_LIMITS__PERCLIENT__RATE", "5/s"),
        ("HARDTACK_FORWARD__ALLOW_CLIENTS", "10.0.0.0/8, home"),
    ]);
    sources.flags.admin = Some("8081".to_owned());
    let expected = r#"error: `forward.allow_clients.1`: expected a network in CIDR notation, such as "10.0.0.0/8"
 --> environment:1:45
  |
1 | HARDTACK_FORWARD__ALLOW_CLIENTS=10.0.0.0/8, home
  |                                             ^^^^ not an IP address

error: unknown option `limits.perclient`
 --> environment:1:18
  |
1 | HARDTACK_LIMITS__PERCLIENT__RATE=5/s
  |                  ^^^^^^^^^ did you mean `per_client`?
  |
  = help: `limits` takes `per_client`, `exempt_loopback`, `max_connections`, `max_connections_per_client`, `max_in_flight_per_upstream`, `max_waiting_per_upstream`, `max_head`, `trusted_proxies`

error: `listen.admin`: expected an IP address and a port, such as "127.0.0.1:8081"
 --> command line:1:9
  |
1 | --admin 8081
  |         ^^^^ no port, `:8080`, at its end"#;
    assert_eq!(errors(&sources), expected);
}

#[test]
fn an_open_proxy_is_refused_with_what_to_add() {
    let exposed = |toml: &str| {
        let mut sources = file(toml);
        sources.flags.listen = Some("0.0.0.0:8080".to_owned());
        sources.flags.upstream = Some("http://origin.example".to_owned());
        sources
    };
    let text = errors(&exposed(""));
    for part in [
        "--listen 0.0.0.0:8080",
        "HARDTACK_FORWARD__ENABLED=false",
        "[forward]\n",
        "enabled = false\n",
        "allow_clients = [\"10.0.0.0/8\", \"192.168.0.0/16\"]",
        "HARDTACK_FORWARD__CREDENTIALS_FILE=",
    ] {
        assert!(text.contains(part), "{part:?} not in\n{text}");
    }
    for toml in [
        "[forward]\nenabled = false",
        "[forward]\nallow_clients = [\"10.0.0.0/8\"]",
        "[forward]\ncredentials = [\"user:password\"]",
    ] {
        ok(&exposed(toml));
    }
    let mut sources = exposed("");
    sources.environment = variables(&[("HARDTACK_FORWARD__ENABLED", "false")]).environment;
    let config = ok(&sources);
    assert_eq!(config.routes[0].upstream.as_deref(), Some("default"));

    // Every address but loopback counts, and sockets of files do not.
    for (listen, open) in [
        ("[::]:80", true),
        ("10.0.0.1:80", true),
        ("[::ffff:10.0.0.1]:80", true),
        ("127.0.0.1:1,192.0.2.1:1", true),
        ("127.0.0.9:80", false),
        ("[::1]:80", false),
        ("[::ffff:127.0.0.1]:80", false),
        ("unix:/run/h.sock", false),
    ] {
        let flags = Flags {
            listen: Some(listen.to_owned()),
            ..Flags::default()
        };
        let sources = Sources {
            flags,
            ..Sources::default()
        };
        assert_eq!(load(&sources).is_err(), open, "{listen}");
    }
    // A list that was refused for another mistake is not taken for an empty one.
    let text = errors(&exposed("[forward]\nallow_clients = [\"10.0.0/8\"]"));
    assert!(!text.contains("open to everyone"), "{text}");
}

#[test]
fn the_upstream_flag_adds_the_last_route() {
    let mut sources = file(
        "[upstreams.a]\nurl = \"http://a.example\"\n[[routes]]\nname = \"a\"\nmatch.path = \"/a/**\"\nupstream = \"a\"\n[cache]\ndefault_ttl = \"5s\"",
    );
    sources.flags.upstream = Some("http://127.0.0.1:3000".to_owned());
    let config = ok(&sources);
    let names: Vec<_> = config.routes.iter().map(|route| &route.name).collect();
    assert_eq!(names, ["a", "default"]);
    let last = &config.routes[1];
    assert_eq!((last.host.as_str(), last.path.as_str()), ("*", "/**"));
    assert!(last.methods.is_empty());
    assert_eq!(last.cache.default_ttl, Duration::from_secs(5));
    assert_eq!(
        config.upstream.upstreams["default"].urls,
        ["http://127.0.0.1:3000"]
    );

    let mut sources = file("[upstreams.default]\nurl = \"http://a.example\"");
    sources.flags.upstream = Some("http://127.0.0.1:3000".to_owned());
    let text = errors(&sources);
    assert!(text.contains("--upstream http://127.0.0.1:3000"), "{text}");
    assert!(text.contains("an upstream `default` already"), "{text}");

    sources = Sources::default();
    sources.flags.upstream = Some("127.0.0.1:3000".to_owned());
    let text = errors(&sources);
    assert!(text.contains("no `http://`"), "{text}");
}

#[test]
fn a_route_that_is_never_reached_is_a_warning() {
    let route = |name: &str, rest: &str| format!("[[routes]]\nname = \"{name}\"\n{rest}\n");
    let upstream = "[upstreams.u]\nurl = \"http://u.example\"\n";
    let to_u = "upstream = \"u\"";
    for (first, second, warned) in [
        (to_u, to_u, true),
        (to_u, "match.path = \"/a\"\nupstream = \"u\"", true),
        ("match.path = \"/a\"\nupstream = \"u\"", to_u, false),
        ("match.methods = [\"GET\"]\nupstream = \"u\"", to_u, false),
        ("match.host = \"a.example\"\nupstream = \"u\"", to_u, false),
        // A route without an upstream is for forward requests only.
        ("", to_u, false),
        (to_u, "", true),
    ] {
        let toml = format!("{upstream}{}{}", route("a", first), route("b", second));
        let warnings = ok(&file(&toml)).warnings;
        assert_eq!(warnings.len(), usize::from(warned), "{toml}{warnings:?}");
    }
}

#[test]
fn what_a_queue_cannot_keep_or_prove_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(path("key"), "a key of at least thirty-two characters\n").unwrap();
    std::fs::write(path("credential"), "Bearer x\n").unwrap();
    let key = format!("[queue]\nkey_file = {:?}\n", path("key"));
    let credential = format!(", credential_file = {:?}", path("credential"));
    let probe = "probe = { path = \"/healthz\" }\n";
    let (unkept, unproven) = (
        "writes with credentials are never queued",
        "give the upstream a `probe`",
    );
    for (queue, upstream, write, expected) in [
        ("", "", "", &[][..]),
        ("", "", "mode = \"off\"", &[]),
        ("", "", "mode = \"always\"", &[unkept, unproven]),
        (&key, "", "mode = \"on-failure\"", &[unproven]),
        (
            "",
            "",
            &format!("mode = \"always\"{credential}"),
            &[unproven],
        ),
        ("", probe, "mode = \"always\"", &[unkept]),
        (&key, probe, "mode = \"always\"", &[]),
        (
            &key,
            probe,
            "mode = \"always\", honoured = true",
            &["`honoured` without idempotency keys"],
        ),
    ] {
        let upstream = format!("[upstreams.u]\nurl = \"http://u.example\"\n{upstream}");
        let route = format!("[[routes]]\nname = \"r\"\nupstream = \"u\"\nwrite = {{ {write} }}\n");
        let toml = [queue, &upstream, &route].concat();
        let warnings = ok(&file(&toml)).warnings;
        assert_eq!(warnings.len(), expected.len(), "{toml}{warnings:?}");
        for said in expected {
            let is_said = warnings.iter().any(|warning| warning.contains(said));
            assert!(is_said, "{toml}{warnings:?}");
        }
    }
}

#[test]
fn a_file_that_holds_no_credential_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("credential");
    let write = format!(
        "mode = \"always\", credential_file = {:?}",
        path.display().to_string()
    );
    let toml = format!("[[routes]]\nname = \"r\"\nwrite = {{ {write} }}\n");
    refused(&toml, &["`write.credential_file` cannot be read"]);
    let too_large = vec![b'x'; (64 << 10) + 1];
    for (text, why) in [(&too_large[..], "larger than 64 KiB"), (b"\n", "empty")] {
        std::fs::write(&path, text).unwrap();
        refused(&toml, &["`write.credential_file` cannot be read", why]);
    }
}

#[test]
fn a_gateway_that_serves_nothing_is_a_warning() {
    let config = ok(&variables(&[("HARDTACK_FORWARD__ENABLED", "false")]));
    let [warning] = config.warnings.as_slice() else {
        panic!("{:?}", config.warnings)
    };
    assert!(warning.contains("nothing to serve"), "{warning}");
    assert!(
        warning.contains("HARDTACK_FORWARD__ENABLED=false"),
        "{warning}"
    );
}

#[test]
fn credentials_may_stand_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hardtack.toml");
    std::fs::write(
        dir.path().join("proxy"),
        "# of the team\nanna:one\n\nben:two\n",
    )
    .unwrap();
    std::fs::write(dir.path().join("bad"), "anna:one\nben\n").unwrap();
    std::fs::write(dir.path().join("token"), "abc\n").unwrap();
    let at = |toml: &str| Sources {
        file: Some((path.clone(), toml.to_owned())),
        ..Sources::default()
    };
    let config = ok(&at(
        "[forward]\ncredentials = [\"root:x\"]\ncredentials_file = \"proxy\"\n[admin]\ntoken_file = \"token\"",
    ));
    assert_eq!(
        config.forward.credentials,
        ["root:x", "anna:one", "ben:two"]
    );
    assert_eq!(config.admin.token_file, Some(dir.path().join("token")));
    let text = errors(&at("[forward]\ncredentials_file = \"bad\""));
    assert!(text.contains("line 2: no `:`"), "{text}");
    assert!(!text.contains("anna"), "{text}");
}

#[test]
fn secrets_are_not_shown() {
    let toml = "[forward]\ncredentials = [\"anna:hunter2\"]\n";
    let text = config::show(&file(toml), Annotate::Origins).unwrap();
    assert!(text.contains("credentials = [\"***\"]"), "{text}");
    for toml in [
        "[forward]\ncredentials = [\"anna:hunter2\", \"hunter2\"]",
        "[forward]\ncredential = [\"anna:hunter2\"]",
        "forward = { credentials = \"anna:hunter2\", x = 1 }",
    ] {
        let text = errors(&file(toml));
        assert!(text.contains("forward"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    let text = errors(&file(
        "[upstreams.a]\nurl = \"http://anna:hunter2@a.example\"",
    ));
    assert!(text.contains("a user or password"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    let text = errors(&variables(&[("HARDTACK_FORWARD__CREDENTIALS", "hunter2")]));
    assert!(!text.contains("hunter2"), "{text}");
    let debug = format!(
        "{:?}",
        load(&file("[forward]\ncredentials = [\"hunter2\"]"))
    );
    assert!(!debug.contains("hunter2"), "{debug}");
}

#[test]
fn show_says_where_each_value_comes_from() {
    let mut sources =
        file("[storage]\ndir = \"data\"\n[upstreams.a]\nurl = \"http://a.example\"\n");
    sources.environment = variables(&[("HARDTACK_FORWARD__CONNECT_PORTS", "443,444")]).environment;
    sources.flags.mode = Some("offline".to_owned());
    let text = config::show(&sources, Annotate::Origins).unwrap();
    for (line, origin) in [
        ("mode = \"offline\"", "--mode"),
        (
            "dir = \"/etc/hardtack/data\"",
            "/etc/hardtack/hardtack.toml:2",
        ),
        (
            "url = \"http://a.example\"",
            "/etc/hardtack/hardtack.toml:4",
        ),
        (
            "connect_ports = [443, 444]",
            "HARDTACK_FORWARD__CONNECT_PORTS",
        ),
        ("per_client.rate = \"100/s\"", "default"),
    ] {
        let shown = text.lines().find(|shown| shown.starts_with(line));
        let shown = shown.unwrap_or_else(|| panic!("{line:?} not in\n{text}"));
        assert_eq!(shown.split_once("  # ").unwrap().1, origin);
    }
}

#[test]
fn what_is_shown_means_the_same_again() {
    let mut sources = file(
        "[storage]\ndir = \"/data\"\n[cache]\nkind = \"private\"\n[upstreams.\"a.b\"]\nurl = \"http://a.example\"\nprobe.path = \"/\"\n[[routes]]\nname = \"a\"\ncache.default_ttl = \"1s\"\nmatch.methods = [\"GET\"]\n[listen]\nproxy = [\"127.0.0.1:1\", \"[::1]:1\"]",
    );
    sources.flags.upstream = Some("http://127.0.0.1:3000".to_owned());
    let shown = config::show(&sources, Annotate::Nothing).unwrap();
    let again = ok(&file(&shown));
    assert_eq!(format!("{again:?}"), format!("{:?}", ok(&sources)));
    let annotated = config::show(&sources, Annotate::Origins).unwrap();
    assert_eq!(format!("{:?}", ok(&file(&annotated))), format!("{again:?}"));
}

#[test]
fn the_reference_changes_nothing_and_is_the_checked_in_sample() {
    let reference = config::reference();
    let sample = include_str!("../config/hardtack.toml");
    assert!(
        reference == sample,
        "config/hardtack.toml is not what `hardtack config reference` prints:\n{reference}"
    );
    let mut config = ok(&file(&reference));
    config.file = None;
    assert_eq!(
        format!("{config:?}"),
        format!("{:?}", ok(&Sources::default()))
    );
    ok(&file(&uncommented(&reference)));
}

#[test]
fn the_starter_is_good_with_its_examples_and_without() {
    ok(&file(STARTER));
    let config = ok(&file(&uncommented(STARTER)));
    assert_eq!(config.routes.len(), 1);
}

/// With every example, `#name = value`, in force.
fn uncommented(toml: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(example) if !example.starts_with(' ') && !example.is_empty() => example.to_owned(),
        _ => line.to_owned(),
    };
    toml.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_schema_and_the_reference_know_the_same_options() {
    let schema = config::json_schema();
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    assert_eq!(schema["additionalProperties"], false);
    let mut names = BTreeSet::new();
    leaves(&schema, &mut names);
    assert!(names.len() > 40, "{names:?}");
    let reference = config::reference();
    for name in &names {
        let mentioned = |line: &str| {
            let line = line.trim_start_matches('#');
            line.split_once(" = ")
                .is_some_and(|(key, _)| key.rsplit('.').next() == Some(name))
        };
        assert!(reference.lines().any(mentioned), "`{name}` not mentioned");
    }
    // Names that the interface fixes.
    for name in [
        "max_stale_offline",
        "first_byte_timeout",
        "burst",
        "token_file",
    ] {
        assert!(names.contains(name), "{names:?}");
    }
    assert_eq!(
        schema["properties"]["routes"]["items"]["required"][0],
        "name"
    );
    assert_eq!(schema["properties"]["mode"]["default"], "auto");
    assert_eq!(
        schema["properties"]["mode"]["enum"],
        serde_json::json!(Mode::ALL)
    );
    let overridable = &schema["properties"]["cache"]["properties"]["override"]["items"]["enum"];
    assert_eq!(
        *overridable,
        serde_json::json!(Overridable::ALL.map(Overridable::as_str))
    );
}

fn leaves(schema: &serde_json::Value, names: &mut BTreeSet<String>) {
    for nested in ["items", "additionalProperties"] {
        if schema[nested].is_object() {
            leaves(&schema[nested], names);
        }
    }
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    for (name, property) in properties {
        let before = names.len();
        leaves(property, names);
        if names.len() == before && property["type"] != "object" {
            names.insert(name.clone());
        }
    }
}

#[test]
fn init_writes_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hardtack.toml");
    assert_eq!(config_command::init(None).output, STARTER);
    assert_eq!(config_command::init(Some(&path)).status, Status::Ok);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), STARTER);
    std::fs::write(&path, "mine").unwrap();
    assert_eq!(config_command::init(Some(&path)).status, Status::Failed);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
}

/// Text that is often nearly a configuration.
fn nearly_toml() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("listen"),
        Just("proxy"),
        Just("routes"),
        Just("cache"),
        Just("match"),
        Just("name"),
        Just("upstreams"),
        Just("forward"),
        Just("credentials"),
        Just("limits"),
        Just("rate"),
        Just("per_client"),
        Just("storage"),
        Just("dir"),
        Just("mode"),
        Just("é"),
        Just("\"x y\""),
    ];
    let value = prop_oneof![
        Just("\"a\"".to_owned()),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        Just("{ a = 1".to_owned()),
        Just("[1, \"é\", true]".to_owned()),
        Just("\"0.0.0.0:1\"".to_owned()),
        Just("\"10s\"".to_owned()),
        Just("'''\na\u{1F9C0}\n'''".to_owned()),
        Just("\"\u{7}".to_owned()),
        Just("1e9".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        "\\PC{0,12}",
    ];
    let line = prop_oneof![
        (name.clone(), value.clone()).prop_map(|(name, value)| format!("{name} = {value}")),
        (name.clone(), name.clone(), value).prop_map(|(a, b, value)| format!("{a}.{b} = {value}")),
        name.clone().prop_map(|name| format!("[{name}]")),
        name.clone().prop_map(|name| format!("[[{name}]]")),
        (name.clone(), name).prop_map(|(a, b)| format!("[{a}.{b}]")),
        "\\PC{0,20}",
    ];
    let end = prop_oneof![Just("\n"), Just("\r\n"), Just("\r")];
    prop::collection::vec((line, end), 0..12).prop_map(|lines| {
        lines
            .into_iter()
            .flat_map(|(line, end)| [line, end.to_owned()])
            .collect()
    })
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(
        toml in prop_oneof![nearly_toml(), "\\PC*", "(?s).{0,64}"],
        name in "(LISTEN|FORWARD|STORAGE|ROUTES|UPSTREAMS|[A-Z_]{0,6})__([A-Z_]{0,9}|PROXY|CREDENTIALS|A__URL)",
        value in "\\PC{0,24}",
        flag in proptest::option::of("\\PC{0,12}"),
    ) {
        let mut sources = file(&toml);
        sources.environment = vec![(format!("HARDTACK_{name}"), value)];
        sources.flags = Flags { listen: flag.clone(), upstream: flag, ..Flags::default() };
        match load(&sources) {
            Ok(_) => drop(config::show(&sources, Annotate::Origins).unwrap()),
            Err(errors) => prop_assert!(errors.count > 0 && !errors.to_string().is_empty()),
        }
    }
}

#[test]
fn the_budget_of_refresh_ahead_is_one_for_all_routes() {
    let route = "[[routes]]\nname = \"a\"\nmatch.path = \"/a/**\"\n";
    let off = ok(&file(&format!(
        "[cache]\nrefresh_ahead_rate = \"off\"\n{route}"
    )));
    assert_eq!(off.refresh_ahead_rate, None);
    refused(
        &format!("{route}cache.refresh_ahead_rate = \"1/s\""),
        &["route `a`", "no option of a route", "`[cache]`"],
    );
    refused(
        &format!(
            "[cache]\nrefresh_ahead_rate = \"1/s\"\n{route}cache.refresh_ahead_rate = \"2/s\""
        ),
        &["route `a`", "no option of a route"],
    );
    refused(
        "[cache]\nrefresh_ahead = 51",
        &["`cache.refresh_ahead`", "50"],
    );
}
