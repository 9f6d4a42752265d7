//! `cache`: list, show and purge stored responses.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    CommandError, Reading,
    client::Client,
    confirm::{Confirmation, confirm},
    human,
    listing::{self, Amount},
    output::{Colour, Paint, complain, harmless, print, print_json},
    table::{self, Align, Cell, Column},
};
use crate::admin::view::{Entry, EntryDetail, Purged, State, Tier};

/// What to do with stored responses.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// List stored responses
    Ls(Box<Filters>),
    /// Show one stored response
    Show {
        /// Its id, as `cache ls` shows it
        id: String,
        #[command(flatten)]
        reading: Reading,
    },
    /// Mark stored responses stale, or remove them
    Purge(Purge),
}

/// Which stored responses to list; every filter has to hold.
#[derive(Debug, Args)]
pub struct Filters {
    /// Of this host, or host:port
    #[arg(long)]
    host: Option<String>,
    /// With a path that starts so
    #[arg(long, value_name = "PATH")]
    path_prefix: Option<String>,
    /// Tagged so by its origin
    #[arg(long)]
    tag: Option<String>,
    /// With this text in the URL
    #[arg(long, value_name = "TEXT")]
    q: Option<String>,
    /// fresh, stale, or both with a comma
    #[arg(long)]
    state: Option<String>,
    /// memory, disk, or both with a comma
    #[arg(long)]
    tier: Option<String>,
    /// Most hits, oldest or largest first; by URL without it
    #[arg(long, value_parser = ["-hits", "age", "size"], allow_hyphen_values = true)]
    sort: Option<String>,
    #[command(flatten)]
    amount: Amount,
    #[command(flatten)]
    reading: Reading,
}

/// What to purge, and how.
#[derive(Debug, Args)]
pub struct Purge {
    #[command(flatten)]
    selector: Selector,
    /// Remove instead of marking stale: then there is nothing to serve while the origin is gone
    #[arg(long)]
    hard: bool,
    /// Only say what would be purged
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    reading: Reading,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Selector {
    /// Every variant of this URL
    url: Option<String>,
    /// Every URL that starts so
    #[arg(long, value_name = "URL")]
    prefix: Option<String>,
    /// Every URL of this host, or host:port
    #[arg(long)]
    host: Option<String>,
    /// Whatever its origin tagged so, with Surrogate-Key or Cache-Tag
    #[arg(long)]
    tag: Option<String>,
}

impl CacheCommand {
    pub(super) async fn execute(self) -> Result<(), CommandError> {
        match self {
            CacheCommand::Ls(filters) => filters.list().await,
            CacheCommand::Show { id, reading } => {
                listing::show(&["cache", "entries", &id], &reading, render_detail).await
            }
            CacheCommand::Purge(purge) => purge.execute().await,
        }
    }
}

impl Filters {
    async fn list(self) -> Result<(), CommandError> {
        let path = ["cache", "entries"];
        listing::list(&path, self.query(), &self.amount, &self.reading, render).await
    }

    fn query(&self) -> Vec<(&'static str, String)> {
        let filters = [
            ("host", &self.host),
            ("path_prefix", &self.path_prefix),
            ("tag", &self.tag),
            ("q", &self.q),
            ("state", &self.state),
            ("tier", &self.tier),
            ("sort", &self.sort),
        ];
        let given = filters
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.clone()?)));
        given.collect()
    }
}

impl Purge {
    async fn execute(self) -> Result<(), CommandError> {
        let client = Client::find(&self.reading.gateway)?;
        let (plan, answer) = self.ask(&client, true).await?;
        if self.dry_run {
            return self.tell(&plan, &answer, "would be");
        }
        if plan.count > 0 {
            plan_text(&plan, self.hard).lines().for_each(complain);
            let confirmation = if self.yes {
                Confirmation::Given
            } else {
                Confirmation::Ask
            };
            confirm("Go on?", confirmation)?;
        }
        let (done, answer) = self.ask(&client, false).await?;
        self.tell(&done, &answer, "")
    }

    async fn ask(&self, client: &Client, dry_run: bool) -> Result<(Purged, Value), CommandError> {
        let Selector {
            url,
            prefix,
            host,
            tag,
        } = &self.selector;
        let body = json!({
            "url": url, "prefix": prefix, "host": host, "tag": tag, "soft": !self.hard,
            "dry_run": dry_run,
        });
        let answer = client
            .change(Method::POST, &["cache", "purge"], Some(&body))
            .await?;
        Ok((client.parse(answer.clone())?, answer))
    }

    fn tell(&self, purged: &Purged, answer: &Value, would: &str) -> Result<(), CommandError> {
        if self.reading.json {
            return print_json(answer);
        }
        let would = if would.is_empty() {
            String::new()
        } else {
            format!("{would} ")
        };
        print(&format!(
            "{} {would}{}\n",
            human::count(purged.count, "stored response"),
            done_word(self.hard)
        ))
    }
}

const fn done_word(hard: bool) -> &'static str {
    if hard { "removed" } else { "marked stale" }
}

fn plan_text(plan: &Purged, hard: bool) -> String {
    let count = human::count(plan.count, "stored response");
    let mut text = format!("{count} will be {}:\n", done_word(hard));
    for url in &plan.sample {
        text.push_str(&format!("  {}\n", harmless(url)));
    }
    let shown = plan.sample.len() as u64;
    if plan.count > shown {
        text.push_str("  and others\n");
    }
    text
}

fn render(entries: &[Entry], paint: Paint) -> String {
    let columns = [
        ("STATE", Align::Left),
        ("AGE", Align::Right),
        ("TTL", Align::Right),
        ("TIER", Align::Left),
        ("SIZE", Align::Right),
        ("HITS", Align::Right),
        ("STATUS", Align::Right),
        ("ID", Align::Left),
        ("URL", Align::Left),
    ]
    .map(|(title, align)| Column { title, align });
    let rows: Vec<_> = entries.iter().map(row).collect();
    table::render(columns, &rows, paint)
}

fn row(entry: &Entry) -> [Cell; 9] {
    [
        state(entry.state),
        human::duration(entry.age_secs).into(),
        human::signed_duration(entry.ttl_secs).into(),
        tier(entry.tier).into(),
        human::size(entry.size_bytes).into(),
        entry.hits.to_string().into(),
        entry.status.to_string().into(),
        entry.id.as_str().into(),
        asked(entry).into(),
    ]
}

/// What it answers: a URL, or a QUERY of one.
fn asked(entry: &Entry) -> String {
    match entry.method.as_str() {
        "GET" => entry.url.clone(),
        method => format!("{method} {}", entry.url),
    }
}

fn state(state: State) -> Cell {
    match state {
        State::Fresh => Cell::coloured(Colour::Good, "fresh"),
        State::Stale => Cell::coloured(Colour::Notable, "stale"),
    }
}

const fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Memory => "memory",
        Tier::Disk => "disk",
    }
}

fn render_detail(detail: &EntryDetail, paint: Paint) -> String {
    let entry = &detail.entry;
    let window = human::duration;
    let windows = format!(
        "revalidating {}, on errors {}, offline {}",
        window(detail.windows.stale_while_revalidate_secs),
        window(detail.windows.stale_if_error_secs),
        window(detail.windows.stale_offline_secs),
    );
    let age = human::duration(entry.age_secs);
    let ttl = human::signed_duration(entry.ttl_secs);
    let mut facts = vec![
        ("id", entry.id.clone()),
        (
            "freshness",
            format!("age {age}, {ttl} left, stored {}", entry.stored_at),
        ),
        ("stale use", windows),
        (
            "body",
            format!("{} in {}", human::size(entry.size_bytes), tier(entry.tier)),
        ),
        ("hits", entry.hits.to_string()),
        ("variants", detail.variants.len().to_string()),
    ];
    for (name, names) in [("tags", &detail.tags), ("groups", &detail.groups)] {
        facts.extend((!names.is_empty()).then(|| (name, names.join(", "))));
    }
    facts.extend((detail.mark != "none").then(|| ("mark", detail.mark.clone())));
    facts.extend(
        entry
            .partition
            .clone()
            .map(|partition| ("partition", partition)),
    );
    let state = match entry.state {
        State::Fresh => paint.paint(Colour::Good, "fresh"),
        State::Stale => paint.paint(Colour::Notable, "stale"),
    };
    let head = format!("{} {state}\n", harmless(&asked(entry)));
    let status = format!("\n  {}\n", entry.status);
    let (facts, fields) = (listing::facts(&facts), listing::fields(&detail.headers));
    head + &facts + &status + &fields
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{plan_text, render, render_detail};
    use crate::{
        admin::view::{EntryDetail, Purged},
        cli::output::Paint,
    };

    fn entry() -> Value {
        json!({
            "id": "0123456789abcdef0123456789abcdef",
            "method": "GET",
            "url": "http://a.example/x\u{1b}",
            "partition": null,
            "status": 200,
            "content_type": "text/plain",
            "state": "stale",
            "age_secs": 192,
            "ttl_secs": -12,
            "tier": "disk",
            "size_bytes": 1_536,
            "hits": 7,
            "stored_at": "2025-11-21T11:28:55Z",
        })
    }

    #[test]
    fn a_list_is_aligned_and_obeys_no_origin() {
        let mut query = entry();
        query["method"] = json!("QUERY");
        let entries = [entry(), query].map(|entry| serde_json::from_value(entry).unwrap());
        let expected = "\
STATE     AGE   TTL  TIER     SIZE  HITS  STATUS  ID                                URL
stale  3m 12s  -12s  disk  1.5 KiB     7     200  0123456789abcdef0123456789abcdef  http://a.example/x\\u{1b}
stale  3m 12s  -12s  disk  1.5 KiB     7     200  0123456789abcdef0123456789abcdef  QUERY http://a.example/x\\u{1b}
";
        assert_eq!(render(&entries, Paint::none()), expected);
    }

    #[test]
    fn a_detail_shows_fields_and_windows() {
        let mut detail = entry();
        detail["mark"] = json!("stale");
        detail["authorized"] = json!(false);
        detail["validators"] = json!({"etag": "\"1\"", "last_modified": null});
        detail["windows"] = json!({
            "stale_while_revalidate_secs": 0, "stale_if_error_secs": 3_600, "stale_offline_secs": 604_800,
        });
        detail["tags"] = json!(["news", "front\u{1b}"]);
        detail["groups"] = json!([]);
        detail["headers"] = json!([{"name": "etag", "value": "\"1\""}]);
        detail["variants"] = json!([entry(), entry()]);
        let detail: EntryDetail = serde_json::from_value(detail).unwrap();
        let expected = "\
http://a.example/x\\u{1b} stale
  id         0123456789abcdef0123456789abcdef
  freshness  age 3m 12s, -12s left, stored 2025-11-21T11:28:55Z
  stale use  revalidating 0s, on errors 1h, offline 7d
  body       1.5 KiB in disk
  hits       7
  variants   2
  tags       news, front\\u{1b}
  mark       stale

  200
  etag: \"1\"
";
        assert_eq!(render_detail(&detail, Paint::none()), expected);
    }

    #[test]
    fn a_plan_names_a_sample() {
        let plan = Purged {
            count: 3,
            sample: vec!["http://a/1".to_owned(), "http://a/2".to_owned()],
        };
        let expected = "\
3 stored responses will be removed:
  http://a/1
  http://a/2
  and others
";
        assert_eq!(plan_text(&plan, true), expected);
    }
}
