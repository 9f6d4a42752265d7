//! `queue retry`, `drop`, `edit`, `resolve`, `redrive`, `pause`, `resume`: what changes queued writes.

use std::{fs, path::PathBuf, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{
    CommandError, Exit, Reading,
    client::Client,
    confirm::{Confirmation, confirm},
    human,
    output::{Paint, complain, harmless, print, print_json},
    queue::{Filters, render, state},
};
use crate::admin::view::queue::{Operation, Pauses, QueueItem};

// Often enough to look alive, seldom enough to cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Which writes to try again: some by their ids, or all that match.
#[derive(Debug, Args)]
pub struct Retry {
    /// Their ids, as `queue ls` shows them
    #[arg(value_name = "ID", required_unless_present_any = ["state", "origin", "lane", "age", "q"],
        conflicts_with_all = ["state", "origin", "lane", "age", "q"])]
    ids: Vec<String>,
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    asking: Asking,
}

/// Which writes to remove.
#[derive(Debug, Args)]
pub struct Drop {
    /// Their ids, as `queue ls` shows them
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    asking: Asking,
}

/// Which writes are done.
#[derive(Debug, Args)]
pub struct Resolve {
    /// Their ids, as `queue ls` shows them
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

/// What to change of a write.
#[derive(Debug, Args)]
pub struct Edit {
    /// Its id, as `queue ls` shows it
    id: String,
    /// Another path and query
    #[arg(long)]
    path: Option<String>,
    /// A field with another value, or, without a value, taken away; may be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Another body: the content of this file
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// Send the same idempotency key again: to the origin it is the write that it knows
    #[arg(long)]
    keep_key: bool,
    /// Leave it parked instead of setting it on its way
    #[arg(long)]
    stay_parked: bool,
    #[command(flatten)]
    asking: Asking,
}

/// Which writes to redrive.
#[derive(Debug, Args)]
pub struct Redrive {
    #[command(flatten)]
    filters: Filters,
    /// Run this plan, which --dry-run has made
    #[arg(long, value_name = "ID", conflicts_with_all = ["state", "origin", "lane", "age", "q", "dry_run"])]
    plan: Option<String>,
    /// Only say which these are, and make a plan
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    asking: Asking,
}

/// What to hold back, or to let go on.
#[derive(Debug, Args)]
pub struct Held {
    /// Only deliveries to this upstream, or to this scheme and authority
    origin: Option<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    reading: Reading,
}

/// Whether to ask first.
#[derive(Debug, Args)]
struct Asking {
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    reading: Reading,
}

impl Retry {
    pub(super) async fn execute(self) -> Result<(), CommandError> {
        let client = Client::find(&self.asking.reading.gateway)?;
        if self.ids.is_empty() {
            return redrive(
                &client,
                &json!({ "filter": self.filters.json() }),
                &self.asking,
            )
            .await;
        }
        let items = found(&client, &self.ids).await?;
        let is_ambiguous = |item: &QueueItem| item.reason.as_deref() == Some("ambiguous");
        if items.iter().any(is_ambiguous) {
            let plan = "may have been executed already, and will be sent a second time";
            self.asking.confirm(&items, plan)?;
        }
        self.asking.do_each(&client, &items, "retry", None).await
    }
}

impl Drop {
    pub(super) async fn execute(self) -> Result<(), CommandError> {
        let client = Client::find(&self.asking.reading.gateway)?;
        let items = found(&client, &self.ids).await?;
        self.asking
            .confirm(&items, "will be removed for good and never delivered")?;
        self.asking.do_each(&client, &items, "drop", None).await
    }
}

impl Resolve {
    pub(super) async fn execute(self) -> Result<(), CommandError> {
        let client = Client::find(&self.asking.reading.gateway)?;
        let items = found(&client, &self.ids).await?;
        self.asking
            .confirm(&items, "will count as done and not be sent any more")?;
        let body = json!({ "reason": self.reason });
        self.asking
            .do_each(&client, &items, "resolve", Some(&body))
            .await
    }
}

impl Edit {
    pub(super) async fn execute(self) -> Result<(), CommandError> {
        let body = self.wanted()?;
        let client = Client::find(&self.asking.reading.gateway)?;
        let items = found(&client, std::slice::from_ref(&self.id)).await?;
        self.asking
            .confirm(&items, "will be changed; what it was is not kept")?;
        self.asking
            .do_each(&client, &items, "edit", Some(&body))
            .await
    }

    fn wanted(&self) -> Result<Value, CommandError> {
        let body = self.body.as_ref().map(|path| {
            let read = fs::read(path).map_err(|source| CommandError::File {
                attempt: "read",
                path: path.clone(),
                source,
            });
            read.map(|bytes| STANDARD.encode(bytes))
        });
        let headers = self.headers.iter().map(|header| {
            let (name, value) = header.split_once(':').unwrap_or((header, ""));
            let value = Some(value.trim()).filter(|value| !value.is_empty());
            (name.trim().to_owned(), json!(value))
        });
        Ok(json!({
            "path": self.path,
            "headers": headers.collect::<Map<_, _>>(),
            "body_base64": body.transpose()?,
            "key": if self.keep_key { "keep" } else { "new" },
            "stay_parked": self.stay_parked,
        }))
    }
}

impl Redrive {
    pub(super) async fn execute(self) -> Result<(), CommandError> {
        let client = Client::find(&self.asking.reading.gateway)?;
        if let Some(plan) = &self.plan {
            let operation = client.get(&["operations", plan], &[]).await?;
            let operation: Operation = client.parse(operation)?;
            self.asking.confirm_operation(&operation)?;
            return run(&client, plan, &self.asking).await;
        }
        let wanted = json!({ "filter": self.filters.json() });
        if !self.dry_run {
            return redrive(&client, &wanted, &self.asking).await;
        }
        let (operation, answer) = plan(&client, &wanted).await?;
        if self.asking.reading.json {
            return print_json(&answer);
        }
        let plan = &operation.id;
        print(&plan_text(&operation))?;
        complain(&format!(
            "Run it with `queue redrive --plan {plan}` within 10 min."
        ));
        Ok(())
    }
}

impl Held {
    pub(super) async fn execute(self, verb: &str) -> Result<(), CommandError> {
        let client = Client::find(&self.reading.gateway)?;
        let body = json!({ "origin": self.origin, "reason": self.reason });
        let answer = client
            .change(Method::POST, &["queue", verb], Some(&body))
            .await?;
        if self.reading.json {
            return print_json(&answer);
        }
        print(&paused(&client.parse(answer)?))
    }
}

impl Asking {
    /// Says what will happen to which writes, and asks.
    fn confirm(&self, items: &[QueueItem], what: &str) -> Result<(), CommandError> {
        render(items, Paint::none()).lines().for_each(complain);
        let count = human::count(items.len() as u64, "queued write");
        complain(&format!("{count} {what}."));
        confirm("Go on?", self.confirmation())
    }

    fn confirm_operation(&self, operation: &Operation) -> Result<(), CommandError> {
        plan_text(operation).lines().for_each(complain);
        confirm("Go on?", self.confirmation())
    }

    const fn confirmation(&self) -> Confirmation {
        if self.yes {
            Confirmation::Given
        } else {
            Confirmation::Ask
        }
    }

    /// Does it to each, one after the other; the first that it cannot be done to is the last.
    async fn do_each(
        &self,
        client: &Client,
        items: &[QueueItem],
        verb: &str,
        body: Option<&Value>,
    ) -> Result<(), CommandError> {
        for item in items {
            let path = ["queue", "items", item.id.as_str(), verb];
            let answer = client.change(Method::POST, &path, body).await?;
            if self.reading.json {
                print_json(&answer)?;
                continue;
            }
            let after: QueueItem = client.parse(answer)?;
            let outcome = match verb {
                "drop" => "dropped".to_owned(),
                _ => state(&after),
            };
            print(&format!("{} {}\n", harmless(&after.id), harmless(&outcome)))?;
        }
        Ok(())
    }
}

/// The writes of these ids, so that whoever is asked sees what they are.
async fn found(client: &Client, ids: &[String]) -> Result<Vec<QueueItem>, CommandError> {
    let mut items = Vec::new();
    for id in ids {
        let item = client.get(&["queue", "items", id], &[]).await?;
        items.push(client.parse(item)?);
    }
    Ok(items)
}

async fn plan(client: &Client, wanted: &Value) -> Result<(Operation, Value), CommandError> {
    let mut wanted = wanted.clone();
    wanted["dry_run"] = true.into();
    let answer = client
        .change(Method::POST, &["queue", "redrive"], Some(&wanted))
        .await?;
    Ok((client.parse(answer.clone())?, answer))
}

/// Plans, asks, and runs.
async fn redrive(client: &Client, wanted: &Value, asking: &Asking) -> Result<(), CommandError> {
    let (operation, answer) = plan(client, wanted).await?;
    if operation.total == 0 {
        return match asking.reading.json {
            true => print_json(&answer),
            false => print(&plan_text(&operation)),
        };
    }
    asking.confirm_operation(&operation)?;
    run(client, &operation.id, asking).await
}

/// Runs a plan and waits until it has ended.
async fn run(client: &Client, plan: &str, asking: &Asking) -> Result<(), CommandError> {
    let body = json!({ "plan": plan });
    let mut answer = client
        .change(Method::POST, &["queue", "redrive"], Some(&body))
        .await?;
    loop {
        let operation: Operation = client.parse(answer.clone())?;
        if operation.state == "ended" {
            return ended(&operation, &answer, asking);
        }
        tokio::time::sleep(LOOK_EVERY).await;
        answer = client.get(&["operations", plan], &[]).await?;
    }
}

fn ended(operation: &Operation, answer: &Value, asking: &Asking) -> Result<(), CommandError> {
    if asking.reading.json {
        print_json(answer)?;
    } else {
        let done = human::count(operation.done, "queued write");
        print(&format!(
            "{done} on their way again, {} not\n",
            operation.failed
        ))?;
    }
    for failure in &operation.failures {
        complain(&format!(
            "{}: {}",
            harmless(&failure.id),
            harmless(&failure.why)
        ));
    }
    match operation.failed {
        0 => Ok(()),
        _ => Err(CommandError::Told(Exit::Failed)),
    }
}

fn plan_text(operation: &Operation) -> String {
    let count = human::count(operation.total, "queued write");
    let mut text =
        format!("{count} will be tried again, also if they may have been executed already:\n");
    for id in &operation.sample {
        text.push_str(&format!("  {}\n", harmless(id)));
    }
    if operation.total > operation.sample.len() as u64 {
        text.push_str("  and others\n");
    }
    text
}

fn paused(pauses: &Pauses) -> String {
    if pauses.pauses.is_empty() {
        return "nothing is paused\n".to_owned();
    }
    let line = |pause: &crate::admin::view::queue::Pause| {
        let place = pause.origin.as_deref().unwrap_or("everywhere");
        let reason = pause.reason.as_ref().map(|reason| format!(" ({reason})"));
        let line = format!(
            "paused {place} since {}{}",
            pause.since,
            reason.unwrap_or_default()
        );
        format!("{}\n", harmless(&line))
    };
    pauses.pauses.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{paused, plan_text};

    #[test]
    fn a_plan_names_a_sample() {
        let operation = serde_json::from_value(json!({
            "id": "redrive-1", "state": "planned", "total": 3, "done": 0, "failed": 0,
            "sample": ["a", "b"], "failures": [],
        }));
        let expected = "\
3 queued writes will be tried again, also if they may have been executed already:
  a
  b
  and others
";
        assert_eq!(plan_text(&operation.unwrap()), expected);
    }

    #[test]
    fn pauses_say_where_since_when_and_why() {
        let pauses = serde_json::from_value(json!({"pauses": [
            {"origin": null, "since": "2025-11-21T11:28:55Z", "reason": "drill"},
            {"origin": "api", "since": "2025-11-21T11:28:56Z", "reason": null},
        ]}));
        let expected = "\
paused everywhere since 2025-11-21T11:28:55Z (drill)
paused api since 2025-11-21T11:28:56Z
";
        assert_eq!(paused(&pauses.unwrap()), expected);
    }
}
