//! What a start says to whoever started it.

use std::net::SocketAddr;

use super::{client::reachable, human};
use crate::{
    admin::ADMIN_TOKEN_FILE,
    app::Running,
    config::{Config, ListenAddress},
    store::Stats,
};

/// Listeners, what is cached and what is only tunnelled, the data directory, the configuration, and a line to try.
pub fn banner(running: &Running) -> String {
    let stats = running.store.stats();
    render(
        running.config(),
        &running.proxy_listeners,
        running.admin_listener,
        stats,
    )
}

fn render(config: &Config, proxy: &[ListenAddress], admin: SocketAddr, stats: Stats) -> String {
    let listeners: Vec<String> = proxy.iter().map(ToString::to_string).collect();
    let mut lines = vec![
        ("proxy", listeners.join(", ")),
        ("admin", admin_line(config, admin)),
        ("cached", cached_line(config)),
    ];
    if config.forward.enabled {
        lines.push(("tunnel", tunnel_line(config)));
    }
    lines.push(("data", data_line(config, stats)));
    let file = config.file.as_ref().map(|file| file.display().to_string());
    lines.push((
        "config",
        file.unwrap_or_else(|| "no file: defaults, environment and flags".to_owned()),
    ));
    lines.extend(try_line(config, proxy).map(|line| ("try", line)));
    let version = env!("CARGO_PKG_VERSION");
    lines
        .into_iter()
        .fold(format!("hardtack {version}\n"), |text, (name, line)| {
            format!("{text}  {name:<7} {line}\n")
        })
}

fn admin_line(config: &Config, admin: SocketAddr) -> String {
    let made = || config.storage.dir.join(ADMIN_TOKEN_FILE);
    let token = config.admin.token_file.clone().unwrap_or_else(made);
    format!("http://{}, token in {}", reachable(admin), token.display())
}

fn cached_line(config: &Config) -> String {
    let reverse = config
        .routes
        .iter()
        .filter(|route| route.upstream.is_some());
    let names: Vec<&str> = reverse.map(|route| route.name.as_str()).collect();
    let forward = config
        .forward
        .enabled
        .then(|| "http:// through the proxy".to_owned());
    let reverse = (!names.is_empty()).then(|| format!("reverse routes ({})", names.join(", ")));
    let both: Vec<String> = forward.into_iter().chain(reverse).collect();
    if both.is_empty() {
        "nothing: there is no route with an upstream".to_owned()
    } else {
        both.join("; ")
    }
}

fn tunnel_line(config: &Config) -> String {
    let upgraded = match config.forward.upgrade_to_https.len() {
        0 => String::new(),
        hosts => format!(
            " ({} asked for with http:// {} fetched with https://)",
            human::count(hosts as u64, "host"),
            if hosts == 1 { "is" } else { "are" }
        ),
    };
    format!(
        "https:// through CONNECT is passed on, not cached; a reverse route or forward.upgrade_to_https caches it{upgraded}"
    )
}

fn data_line(config: &Config, stats: Stats) -> String {
    let stored = human::count(stats.disk_entries, "stored response");
    format!(
        "{}: {stored}, {}",
        config.storage.dir.display(),
        human::size(stats.disk_bytes)
    )
}

/// A command that works as it stands.
fn try_line(config: &Config, proxy: &[ListenAddress]) -> Option<String> {
    let has_reverse = config.routes.iter().any(|route| route.upstream.is_some());
    let listener = match proxy.first()? {
        ListenAddress::Tcp(address) => format!("http://{}", reachable(*address)),
        ListenAddress::Unix(path) if has_reverse => {
            return Some(format!(
                "curl -i --unix-socket {} http://localhost/",
                path.display()
            ));
        }
        ListenAddress::Unix(_) => return None,
    };
    if has_reverse {
        Some(format!("curl -i {listener}/"))
    } else if config.forward.enabled {
        Some(format!("curl -i -x {listener} http://example.com/"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::{
        config::{self, Flags, Sources},
        store::Stats,
    };

    fn banner(toml: &str, upstream: Option<&str>) -> String {
        let text = format!("{toml}\n[storage]\ndir = \"/data\"\n");
        let sources = Sources {
            file: Some(("/etc/hardtack.toml".into(), text)),
            flags: Flags {
                upstream: upstream.map(str::to_owned),
                ..Flags::default()
            },
            ..Sources::default()
        };
        let config = config::load(&sources).unwrap();
        let stats = Stats {
            disk_entries: 12,
            disk_bytes: 3 << 20,
            ..Stats::default()
        };
        let admin = "0.0.0.0:8081".parse().unwrap();
        render(&config, &config.proxy_listeners, admin, stats)
    }

    #[test]
    fn a_start_says_where_it_listens_and_what_it_caches() {
        let text = banner("", None);
        for said in [
            "proxy   127.0.0.1:8080\n",
            "admin   http://127.0.0.1:8081, token in /data/admin.token\n",
            "cached  http:// through the proxy\n",
            "https:// through CONNECT is passed on, not cached",
            "data    /data: 12 stored responses, 3.0 MiB\n",
            "config  /etc/hardtack.toml\n",
            "try     curl -i -x http://127.0.0.1:8080 http://example.com/\n",
        ] {
            assert!(text.contains(said), "{said:?} is not in\n{text}");
        }
    }

    #[test]
    fn a_reverse_gateway_is_tried_without_a_proxy() {
        let text = banner("[forward]\nenabled = false", Some("http://origin.example"));
        assert!(
            text.contains("try     curl -i http://127.0.0.1:8080/\n"),
            "{text}"
        );
        assert!(text.contains("cached  reverse routes ("), "{text}");
        assert!(!text.contains("CONNECT"), "{text}");
    }
}
