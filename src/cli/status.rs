//! `status`: the gateway at a glance.

use super::{
    CommandError, Reading,
    client::Client,
    human,
    output::{Colour, Paint, harmless, print, print_json},
};
use crate::admin::view::{Connectivity, Modes, Status, TierUse, queue::Queue};

pub(super) async fn show(reading: &Reading) -> Result<(), CommandError> {
    let client = Client::find(&reading.gateway)?;
    let answer = client.get(&["status"], &[]).await?;
    if reading.json {
        return print_json(&answer);
    }
    print(&render(&client.parse(answer)?, Paint::for_stdout()))
}

fn render(status: &Status, paint: Paint) -> String {
    let state = match (status.state.as_str(), status.degraded.as_slice()) {
        ("ready", []) => paint.paint(Colour::Good, "ready"),
        ("ready", limits) => paint.paint(
            Colour::Notable,
            &format!("ready, degraded: {}", limits.join(", ")),
        ),
        (other, _) => paint.paint(Colour::Notable, other),
    };
    let uptime = human::duration(status.uptime_secs);
    let head = format!(
        "hardtack {}, {state}, up {uptime}\n",
        harmless(&status.version)
    );
    let mut lines = vec![
        ("mode", mode(&status.mode)),
        ("memory", tier(&status.cache.memory)),
        ("disk", disk(status)),
        ("answers", answers(status)),
        ("queue", queue(&status.queue)),
        ("data", status.storage.dir.clone()),
        (
            "config",
            status
                .config
                .file
                .clone()
                .unwrap_or_else(|| "no file".to_owned()),
        ),
    ];
    if status.authentication_failures > 0 {
        let failures = human::count(status.authentication_failures, "request");
        lines.push((
            "refused",
            format!("{failures} to the admin API without a valid token"),
        ));
    }
    let upstreams = status
        .upstreams
        .iter()
        .map(|upstream| upstream_line(upstream, paint));
    lines
        .into_iter()
        .map(|(name, line)| format!("  {name:<9} {}\n", harmless(&line)))
        .chain(upstreams)
        .fold(head, |text, line| text + &line)
}

fn mode(modes: &Modes) -> String {
    let overrides = modes.overrides.iter().map(|found| {
        let scope = found.route.as_ref().map(|route| format!(" for {route}"));
        let until = found.until.as_ref().map(|until| format!(" until {until}"));
        let reason = found.reason.as_ref().map(|reason| format!(" ({reason})"));
        let [scope, until, reason] = [scope, until, reason].map(Option::unwrap_or_default);
        format!("; override {}{scope}{until}{reason}", found.mode)
    });
    overrides.fold(modes.mode.clone(), |text, found| text + &found)
}

fn tier(tier: &TierUse) -> String {
    let stored = human::count(tier.entries, "stored response");
    let (bytes, capacity) = (human::size(tier.bytes), human::size(tier.capacity_bytes));
    format!("{stored}, {bytes} of {capacity}")
}

fn disk(status: &Status) -> String {
    let suspended = if status.storage.suspended {
        "; storing is suspended"
    } else {
        ""
    };
    tier(&status.cache.disk) + suspended
}

fn answers(status: &Status) -> String {
    let requests = &status.cache.requests;
    let total: u64 = requests.values().sum();
    if total == 0 {
        return "none yet".to_owned();
    }
    let shares = requests.iter().map(|(cache, count)| {
        let percent = *count as f64 * 100.0 / total as f64;
        format!("{cache} {count} ({percent:.0} %)")
    });
    shares.collect::<Vec<_>>().join(", ")
}

/// `3 writes (2 waiting, 1 parked), 4.0 KiB of 1.0 GiB, oldest 5m; paused`.
fn queue(queue: &Queue) -> String {
    let total: u64 = queue.items.values().sum();
    let mut text = human::count(total, "write");
    let states = queue.items.iter().filter(|(_, count)| **count > 0);
    let states: Vec<_> = states
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    if !states.is_empty() {
        text.push_str(&format!(" ({})", states.join(", ")));
    }
    let (bytes, capacity) = (human::size(queue.bytes), human::size(queue.capacity_bytes));
    text.push_str(&format!(", {bytes} of {capacity}"));
    if let Some(age_secs) = queue.oldest_age_secs {
        text.push_str(&format!(", oldest {}", human::duration(age_secs)));
    }
    if queue.suspended {
        text.push_str("; accepting is suspended, the disk is full");
    }
    if queue.closed {
        text.push_str("; closed after an error of the gateway's own, until it is restarted");
    }
    for pause in &queue.pauses {
        let place = pause.origin.as_ref().map(|origin| format!(" to {origin}"));
        text.push_str(&format!("; paused{}", place.unwrap_or_default()));
    }
    let captive = queue
        .origins
        .iter()
        .filter(|origin| origin.phase == "captive");
    for origin in captive {
        text.push_str(&format!("; something else answers for {}", origin.origin));
    }
    if queue.damaged > 0 {
        text.push_str(&format!(
            "; {} damaged",
            human::count(queue.damaged, "record")
        ));
    }
    text
}

fn upstream_line(upstream: &Connectivity, paint: Paint) -> String {
    let colour = match upstream.connectivity.as_str() {
        "connected" => Colour::Good,
        _ => Colour::Bad,
    };
    let state = paint.paint(colour, &upstream.connectivity);
    let overridden = if upstream.overridden {
        " (override)"
    } else {
        ""
    };
    let (name, since) = (harmless(&upstream.name), harmless(&upstream.since));
    format!(
        "  {:<9} {name} {state} since {since}{overridden}\n",
        "upstream"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::render;
    use crate::{admin::view::Status, cli::output::Paint};

    #[test]
    fn a_status_reads_well() {
        let status: Status = serde_json::from_value(json!({
            "version": "0.1.0",
            "state": "ready",
            "degraded": ["upstream-disconnected"],
            "uptime_secs": 7_500,
            "now": "2025-11-21T11:28:55Z",
            "mode": {
                "mode": "offline",
                "routes": [],
                "overrides": [
                    {"route": null, "mode": "offline", "until": "2025-11-21T12:00:00Z", "reason": "drill"},
                ],
            },
            "upstreams": [
                {"name": "catalog", "connectivity": "disconnected", "since": "2025-11-21T11:00:00Z", "overridden": true},
            ],
            "cache": {
                "memory": {"entries": 1, "bytes": 1_536, "capacity_bytes": 268_435_456},
                "disk": {"entries": 12, "bytes": 3_145_728, "capacity_bytes": 10_737_418_240_u64},
                "requests": {"hit": 3, "miss": 1},
            },
            "queue": {
                "items": {"queued": 0, "waiting": 2, "parked": 1}, "bytes": 4_096,
                "capacity_items": 100_000, "capacity_bytes": 1_073_741_824_u64, "oldest_age_secs": 300,
                "pauses": [{"origin": "catalog", "since": "2025-11-21T11:00:00Z", "reason": null}],
                "origins": [{"origin": "catalog", "phase": "captive", "since": "2025-11-21T11:00:00Z", "remark": null}],
                "damaged": 1, "suspended": true, "closed": true, "seals_credentials": false,
            },
            "storage": {"dir": "/data", "suspended": true},
            "config": {"file": null},
            "authentication_failures": 2,
        }))
        .unwrap();
        let expected = "\
hardtack 0.1.0, ready, degraded: upstream-disconnected, up 2h 5m
  mode      offline; override offline until 2025-11-21T12:00:00Z (drill)
  memory    1 stored response, 1.5 KiB of 256 MiB
  disk      12 stored responses, 3.0 MiB of 10.0 GiB; storing is suspended
  answers   hit 3 (75 %), miss 1 (25 %)
  queue     3 writes (1 parked, 2 waiting), 4.0 KiB of 1.0 GiB, oldest 5m; accepting is suspended, the disk is full; closed after an error of the gateway's own, until it is restarted; paused to catalog; something else answers for catalog; 1 record damaged
  data      /data
  config    no file
  refused   2 requests to the admin API without a valid token
  upstream  catalog disconnected since 2025-11-21T11:00:00Z (override)
";
        assert_eq!(render(&status, Paint::none()), expected);
    }
}
