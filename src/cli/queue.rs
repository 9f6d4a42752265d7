//! `queue`: list and show queued writes and their lanes.

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::{
    CommandError, Reading,
    client::Client,
    human,
    listing::{self, Amount},
    output::{Colour, Paint, harmless, print, print_json},
    queue_changes::{Drop, Edit, Held, Redrive, Resolve, Retry},
    queue_transfer::{Export, Import},
    table::{self, Align, Cell, Column},
};
use crate::admin::view::queue::{Lane, QueueItem, QueueItemDetail};

/// What to do with queued writes.
#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// List queued writes, in order of acceptance
    Ls(Box<List>),
    /// Show one queued write, or the receipt of one
    Show {
        /// Its id, as `queue ls` shows it
        id: String,
        #[command(flatten)]
        reading: Reading,
    },
    /// List the lanes that are not empty: what is delivered one after the other
    Lanes(Lanes),
    /// Try writes again that wait, are parked or dead
    Retry(Retry),
    /// Remove writes for good
    Drop(Drop),
    /// Change a parked or dead write, and set it on its way again
    Edit(Box<Edit>),
    /// Declare parked or dead writes done, without sending them
    Resolve(Resolve),
    /// Set all parked or dead writes that match on their way again
    Redrive(Redrive),
    /// Hold deliveries back until they are resumed
    Pause(Held),
    /// Let deliveries go on
    Resume(Held),
    /// Write queued writes out, whole, one line of JSON each
    Export(Export),
    /// Read an export in; what is there already stays as it is
    Import(Import),
}

/// Which queued writes; every filter has to hold.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Filters {
    /// queued, sending, waiting, parked, dead, done, cancelled, or several with commas
    #[arg(long)]
    pub(super) state: Option<String>,
    /// To this upstream, or this scheme and authority
    #[arg(long)]
    pub(super) origin: Option<String>,
    /// In the lane of this name or id
    #[arg(long)]
    pub(super) lane: Option<String>,
    /// Accepted longer ago than this, such as 30m or 1h30m
    #[arg(long, value_name = "DURATION")]
    pub(super) age: Option<String>,
    /// With this text in the method, URL, lane, id or reason
    #[arg(long, value_name = "TEXT")]
    pub(super) q: Option<String>,
}

/// Which queued writes to list.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    amount: Amount,
    #[command(flatten)]
    reading: Reading,
}

/// Which lanes to list.
#[derive(Debug, Args)]
pub struct Lanes {
    /// To this upstream, or this scheme and authority
    #[arg(long)]
    origin: Option<String>,
    #[command(flatten)]
    reading: Reading,
}

impl QueueCommand {
    pub(super) async fn execute(self) -> Result<(), CommandError> {
        match self {
            Self::Ls(list) => list.execute().await,
            Self::Show { id, reading } => {
                listing::show(&["queue", "items", &id], &reading, render_detail).await
            }
            Self::Lanes(lanes) => lanes.execute().await,
            Self::Retry(retry) => retry.execute().await,
            Self::Drop(drop) => drop.execute().await,
            Self::Edit(edit) => edit.execute().await,
            Self::Resolve(resolve) => resolve.execute().await,
            Self::Redrive(redrive) => redrive.execute().await,
            Self::Pause(held) => held.execute("pause").await,
            Self::Resume(held) => held.execute("resume").await,
            Self::Export(export) => export.execute().await,
            Self::Import(import) => import.execute().await,
        }
    }
}

impl Filters {
    fn given(&self) -> impl Iterator<Item = (&'static str, String)> {
        let filters = [
            ("state", &self.state),
            ("origin", &self.origin),
            ("lane", &self.lane),
            ("age", &self.age),
            ("q", &self.q),
        ];
        filters
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.clone()?)))
    }

    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        self.given().collect()
    }

    pub(super) fn json(&self) -> Value {
        let given = self
            .given()
            .map(|(name, value)| (name.to_owned(), value.into()));
        Value::Object(given.collect::<Map<_, _>>())
    }
}

impl List {
    async fn execute(self) -> Result<(), CommandError> {
        let query = self.filters.query();
        let path = ["queue", "items"];
        listing::list(&path, query, &self.amount, &self.reading, render).await
    }
}

impl Lanes {
    async fn execute(self) -> Result<(), CommandError> {
        let client = Client::find(&self.reading.gateway)?;
        let json = self.reading.json;
        let query = self.origin.map(|origin| ("origin", origin));
        let query = query.into_iter().collect();
        let mut lanes = Vec::new();
        client
            .list(&["queue", "lanes"], query, usize::MAX, |page| {
                if json {
                    return page.iter().try_for_each(print_json);
                }
                for lane in page {
                    lanes.push(client.parse::<Lane>(lane)?);
                }
                Ok(())
            })
            .await?;
        if json || lanes.is_empty() {
            return Ok(());
        }
        print(&render_lanes(&lanes, Paint::for_stdout()))
    }
}

/// A table of queued writes.
pub(super) fn render(items: &[QueueItem], paint: Paint) -> String {
    let columns = [
        ("STATE", Align::Left),
        ("ACCEPTED", Align::Left),
        ("TRIES", Align::Right),
        ("SIZE", Align::Right),
        ("ID", Align::Left),
        ("LANE", Align::Left),
        ("REQUEST", Align::Left),
    ]
    .map(|(title, align)| Column { title, align });
    let rows: Vec<_> = items.iter().map(row).collect();
    table::render(columns, &rows, paint)
}

fn row(item: &QueueItem) -> [Cell; 7] {
    [
        Cell::coloured(colour(&item.state), &state(item)),
        item.accepted_at.as_str().into(),
        item.attempts.to_string().into(),
        human::size(item.body_bytes).into(),
        item.id.as_str().into(),
        item.lane.as_str().into(),
        format!("{} {}", item.method, item.url).into(),
    ]
}

/// `parked: conflict`.
pub(super) fn state(item: &QueueItem) -> String {
    match &item.reason {
        Some(reason) => format!("{}: {reason}", item.state),
        None => item.state.clone(),
    }
}

fn colour(state: &str) -> Colour {
    match state {
        "done" => Colour::Good,
        "parked" => Colour::Notable,
        "dead" => Colour::Bad,
        _ => Colour::Dim,
    }
}

fn render_lanes(lanes: &[Lane], paint: Paint) -> String {
    let columns = [
        ("ORIGIN", Align::Left),
        ("LANE", Align::Left),
        ("WRITES", Align::Right),
        ("HEAD", Align::Left),
        ("SINCE", Align::Left),
        ("NEXT", Align::Left),
        ("HEAD ID", Align::Left),
    ]
    .map(|(title, align)| Column { title, align });
    let row = |lane: &Lane| -> [Cell; 7] {
        let head = match &lane.head_reason {
            Some(reason) => format!("{}: {reason}", lane.head_state),
            None => lane.head_state.clone(),
        };
        [
            lane.origin.as_str().into(),
            lane.name.as_str().into(),
            lane.items.to_string().into(),
            Cell::coloured(colour(&lane.head_state), &head),
            lane.oldest.as_str().into(),
            lane.next_at.as_deref().unwrap_or("-").into(),
            lane.head.as_str().into(),
        ]
    };
    let rows: Vec<_> = lanes.iter().map(row).collect();
    table::render(columns, &rows, paint)
}

fn render_detail(detail: &QueueItemDetail, paint: Paint) -> String {
    let item = &detail.item;
    let head = format!(
        "{} {} {}\n",
        harmless(&item.method),
        harmless(&item.url),
        paint.paint(colour(&item.state), &harmless(&state(item)))
    );
    let mut text = head;
    text.push_str(&listing::facts(&facts(detail)));
    text.push('\n');
    text.push_str(&listing::fields(
        detail.headers.as_deref().unwrap_or_default(),
    ));
    if let Some(answer) = &detail.answer {
        text.push_str(&format!("\n  {}\n", answer.status));
        text.push_str(&listing::fields(&answer.headers));
    }
    text
}

fn facts(detail: &QueueItemDetail) -> Vec<(&'static str, String)> {
    let item = &detail.item;
    let mut facts = vec![
        ("id", item.id.clone()),
        ("origin", item.origin.clone()),
        ("route", item.route.clone()),
        ("lane", item.lane.clone()),
        (
            "accepted",
            format!("{}, number {}", item.accepted_at, item.seq),
        ),
        (
            "body",
            format!(
                "{}, SHA-256 {}",
                human::size(item.body_bytes),
                item.body_sha256
            ),
        ),
        ("attempts", item.attempts.to_string()),
    ];
    let optional = [
        ("key", item.idempotency_key.clone()),
        ("next", item.next_at.clone()),
        ("behind", item.blocked_by.clone()),
        ("last", item.last.as_ref().map(last)),
        (
            "ambiguous",
            detail
                .ambiguous_since
                .clone()
                .map(|since| format!("since {since}")),
        ),
        ("revived", detail.revived_at.clone()),
        ("remark", item.remark.clone()),
        ("ended", item.ended_at.clone()),
    ];
    let known = optional.into_iter();
    facts.extend(known.filter_map(|(name, fact)| Some((name, fact?))));
    facts
}

fn last(attempt: &crate::admin::view::queue::Attempt) -> String {
    let outcome = match (attempt.status, &attempt.error) {
        (Some(status), _) => status.to_string(),
        (None, Some(error)) => error.clone(),
        (None, None) => "no answer".to_owned(),
    };
    format!("{outcome} at {}, after {} ms", attempt.at, attempt.took_ms)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{render, render_detail, render_lanes};
    use crate::cli::output::Paint;

    fn item() -> Value {
        json!({
            "id": "0190b6d4-7c00-7000-8000-000000000001", "state": "parked", "reason": "conflict",
            "origin": "api", "route": "orders", "lane": "route:orders", "lane_id": "00", "seq": 7,
            "method": "POST", "url": "http://a.example/x\u{1b}", "body_sha256": "ab", "body_bytes": 1_536,
            "idempotency_key": "k", "attempts": 2, "accepted_at": "2025-11-21T11:28:55Z",
            "next_at": null, "blocked_by": null,
            "last": {"at": "2025-11-21T11:30:00Z", "took_ms": 12, "status": 409, "error": null},
            "remark": null, "ended_at": null,
        })
    }

    #[test]
    fn a_list_is_aligned_and_obeys_no_client() {
        let items = [serde_json::from_value(item()).unwrap()];
        let expected = "\
STATE             ACCEPTED              TRIES     SIZE  ID                                    LANE          REQUEST
parked: conflict  2025-11-21T11:28:55Z      2  1.5 KiB  0190b6d4-7c00-7000-8000-000000000001  route:orders  POST http://a.example/x\\u{1b}
";
        assert_eq!(render(&items, Paint::none()), expected);
    }

    #[test]
    fn a_detail_shows_what_is_known_and_the_request() {
        let mut detail = item();
        for (name, value) in [
            ("repeat", json!("keyed")),
            ("on_stuck", json!("halt")),
            ("ambiguous_since", json!(null)),
            ("floor_until", json!(null)),
            ("revived_at", json!(null)),
            ("weight_bytes", json!(2_048)),
            (
                "headers",
                json!([{"name": "authorization", "value": "[sealed]"}]),
            ),
            ("answer", json!(null)),
            ("links", json!({})),
        ] {
            detail[name] = value;
        }
        let expected = "\
POST http://a.example/x\\u{1b} parked: conflict
  id         0190b6d4-7c00-7000-8000-000000000001
  origin     api
  route      orders
  lane       route:orders
  accepted   2025-11-21T11:28:55Z, number 7
  body       1.5 KiB, SHA-256 ab
  attempts   2
  key        k
  last       409 at 2025-11-21T11:30:00Z, after 12 ms

  authorization: [sealed]
";
        let detail = serde_json::from_value(detail).unwrap();
        assert_eq!(render_detail(&detail, Paint::none()), expected);
    }

    #[test]
    fn lanes_show_their_heads() {
        let lane = json!({
            "id": "00", "name": "route:orders", "origin": "api", "items": 3, "head": "0190b6d4",
            "head_state": "dead", "head_reason": "rejected", "halted": true,
            "oldest": "2025-11-21T11:28:55Z", "next_at": null,
        });
        let expected = "\
ORIGIN  LANE          WRITES  HEAD            SINCE                 NEXT  HEAD ID
api     route:orders       3  dead: rejected  2025-11-21T11:28:55Z  -     0190b6d4
";
        let lanes = [serde_json::from_value(lane).unwrap()];
        assert_eq!(render_lanes(&lanes, Paint::none()), expected);
    }
}
