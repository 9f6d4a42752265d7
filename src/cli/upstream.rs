//! `upstream`: list them, or say that one is online or offline, whatever was measured.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    CommandError, Gateway, Reading,
    client::Client,
    output::{Colour, Paint, harmless, print, print_json},
    table::{self, Align, Cell, Column},
};
use crate::admin::view::Upstream;

/// What to do with upstreams.
#[derive(Debug, Subcommand)]
pub enum UpstreamCommand {
    /// List upstreams
    Ls(Reading),
    /// Take an upstream for offline: nothing is sent there
    Offline(Override),
    /// Take an upstream for online, whatever was measured
    Online(Override),
    /// Let what is measured count again
    Auto {
        /// Name of the upstream, as `upstream ls` shows it
        name: String,
        #[command(flatten)]
        gateway: Gateway,
    },
}

/// An override to put on.
#[derive(Debug, Args)]
pub struct Override {
    /// Name of the upstream, as `upstream ls` shows it
    name: String,
    /// For how long, such as 30m or 1h30m; until taken back without it
    #[arg(long = "for", value_name = "DURATION")]
    duration: Option<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    gateway: Gateway,
}

impl UpstreamCommand {
    pub(super) async fn execute(self) -> Result<(), CommandError> {
        match self {
            UpstreamCommand::Ls(reading) => list(&reading).await,
            UpstreamCommand::Offline(wanted) => wanted.put("offline").await,
            UpstreamCommand::Online(wanted) => wanted.put("online").await,
            UpstreamCommand::Auto { name, gateway } => {
                change(&gateway, Method::DELETE, &name, None).await
            }
        }
    }
}

impl Override {
    async fn put(self, mode: &str) -> Result<(), CommandError> {
        let body = json!({ "mode": mode, "for": self.duration, "reason": self.reason });
        change(&self.gateway, Method::PUT, &self.name, Some(&body)).await
    }
}

async fn change(
    gateway: &Gateway,
    method: Method,
    name: &str,
    body: Option<&Value>,
) -> Result<(), CommandError> {
    let client = Client::find(gateway)?;
    let answer = client
        .change(method, &["upstreams", name, "override"], body)
        .await?;
    let upstream: Upstream = client.parse(answer)?;
    let until = upstream
        .r#override
        .as_ref()
        .map(|found| match &found.until {
            Some(until) => format!(", {} by override until {until}", found.mode),
            None => format!(", {} by override until taken back", found.mode),
        });
    let until = until.unwrap_or_default();
    print(&format!(
        "{} is {}{until}\n",
        harmless(&upstream.name),
        harmless(&upstream.connectivity)
    ))
}

async fn list(reading: &Reading) -> Result<(), CommandError> {
    let client = Client::find(&reading.gateway)?;
    let mut upstreams = Vec::new();
    client
        .list(&["upstreams"], Vec::new(), usize::MAX, |page| {
            if reading.json {
                return page.iter().try_for_each(print_json);
            }
            for item in page {
                upstreams.push(client.parse::<Upstream>(item)?);
            }
            Ok(())
        })
        .await?;
    if reading.json {
        return Ok(());
    }
    print(&render(&upstreams, Paint::for_stdout()))
}

fn render(upstreams: &[Upstream], paint: Paint) -> String {
    let columns = [
        ("NAME", Align::Left),
        ("STATE", Align::Left),
        ("SINCE", Align::Left),
        ("OVERRIDE", Align::Left),
        ("ANSWERED", Align::Right),
        ("FAILED", Align::Right),
        ("P50", Align::Right),
        ("P99", Align::Right),
        ("LAST ERROR", Align::Left),
    ]
    .map(|(title, align)| Column { title, align });
    let rows: Vec<_> = upstreams.iter().map(row).collect();
    table::render(columns, &rows, paint)
}

fn row(upstream: &Upstream) -> [Cell; 9] {
    let colour = match upstream.connectivity.as_str() {
        "connected" => Colour::Good,
        _ => Colour::Bad,
    };
    let overridden = upstream
        .r#override
        .as_ref()
        .map_or("-".to_owned(), |found| {
            let until = found.until.as_ref().map(|until| format!(" until {until}"));
            format!("{}{}", found.mode, until.unwrap_or_default())
        });
    let millis = |millis: Option<f64>| millis.map_or("-".to_owned(), |ms| format!("{ms:.1} ms"));
    let error = upstream
        .last_error
        .as_ref()
        .map_or("-".to_owned(), |error| {
            format!("{} ({})", error.what, error.at)
        });
    [
        upstream.name.as_str().into(),
        Cell::coloured(colour, &upstream.connectivity),
        upstream.since.as_str().into(),
        overridden.into(),
        upstream.succeeded.to_string().into(),
        upstream.failed.to_string().into(),
        millis(upstream.latency_p50_ms).into(),
        millis(upstream.latency_p99_ms).into(),
        error.into(),
    ]
}
