//! `healthcheck`: for containers and scripts. Needs no token.

use clap::Args;

use super::{
    CommandError, Reading,
    client::Client,
    output::{print, print_json},
};
use crate::admin::view::Health;

/// Which question to ask.
#[derive(Debug, Args)]
pub struct Healthcheck {
    #[command(flatten)]
    reading: Reading,
    /// Ask whether it takes requests, not only whether it is alive
    #[arg(long)]
    ready: bool,
}

impl Healthcheck {
    /// Done when the gateway says yes.
    pub(super) async fn execute(self) -> Result<(), CommandError> {
        let client = Client::find(&self.reading.gateway)?;
        let path = if self.ready { "/readyz" } else { "/livez" };
        let (status, body) = client.probe(path).await?;
        let health: Health = client.parse(body.clone())?;
        if !status.is_success() {
            return Err(CommandError::Unhealthy {
                state: health.status,
            });
        }
        if self.reading.json {
            return print_json(&body);
        }
        let limits = match health.degraded.as_slice() {
            [] => String::new(),
            limits => format!(", degraded: {}", limits.join(", ")),
        };
        print(&format!("{}{limits}\n", health.status))
    }
}
