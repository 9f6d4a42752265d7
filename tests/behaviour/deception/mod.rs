//! Poisoning and deception, as one table: what was tried, what the client that tried got, what the next one got, and
//! what the origin saw of it.
//!
//! The origin is as gullible as origins come: it lets any field, method or body change its answer and says that everybody
//! may have it for five minutes. `docs/poisoning.md` is what is observed here, so that it cannot go stale: a difference
//! fails, and `HARDTACK_WRITE_DOCS=1` writes it anew.

use std::{fmt::Write as _, path::Path};

use crate::support::{Answer, Connection, Gateway, Origin, Reply, Request, reverse_to};

mod fields;
mod floods;
mod origins;
mod targets;
mod users;

/// What the next client must get.
#[derive(Clone, Copy)]
enum Next {
    /// This, which is what it would have got without the attack.
    Unharmed(&'static str),
    /// This, which is another's: the origin said that everybody may have it, and no cache can know better.
    OriginsWord(&'static str),
    /// No answer: a refusal of the gateway's own, which says nothing of anybody's.
    Nothing,
}

use Next::{Nothing, OriginsWord, Unharmed};

/// An origin, a gateway before it, and what was observed so far.
struct Stage {
    origin: Origin,
    gateway: Gateway,
    document: String,
    paths: usize,
}

impl Stage {
    async fn start() -> Self {
        let origin = Origin::start().await;
        let gateway = Gateway::start(&reverse_to(origin.address())).await;
        Self {
            origin,
            gateway,
            document: String::new(),
            paths: 0,
        }
    }

    fn section(&mut self, title: &str, who: &str) {
        let head = "| Tried | Answer | Next client | Origin saw | |\n|---|---|---|---|---|";
        write!(self.document, "\n## {title}\n\n{who}\n\n{head}\n").unwrap();
    }

    /// A path that nobody asked for yet.
    fn path(&mut self) -> String {
        self.paths += 1;
        format!("/{}", self.paths)
    }

    /// A path that the gullible origin answers.
    fn gullible(&mut self) -> String {
        let path = self.path();
        self.origin.on_each(&path, |seen, _| {
            let evil = |text: &str| text.contains("evil");
            let is_touched = seen.headers.iter().any(|(_, value)| evil(value))
                || !seen.body.is_empty()
                || !matches!(seen.method.as_str(), "GET" | "HEAD");
            let body = if is_touched { "evil" } else { "page" };
            Reply::ok(body).cache_control("max-age=300")
        });
        path
    }

    /// A path whose answer depends on who asks, by cookie or credentials.
    fn account(&mut self, path: &str, answer: fn(Reply) -> Reply) {
        self.origin.on_each(path, move |seen, _| {
            let user = seen.header("cookie").or(seen.header("authorization"));
            answer(Reply::ok(format!(
                "account of {}",
                user.unwrap_or("nobody")
            )))
        });
    }

    /// One client asks so, then another.
    async fn row(&mut self, tried: &str, first: &Request, second: &Request, next: Next) {
        let before = self.origin.seen().len();
        let first = self.gateway.client.ask(first.clone()).await;
        self.judge(tried, &first, second, next, before).await;
    }

    /// One client sends these bytes, in which `{origin}` stands for the origin's authority, then another asks.
    async fn raw(&mut self, tried: &str, message: &str, second: &Request, next: Next) {
        let before = self.origin.seen().len();
        let message = message.replace("{origin}", &self.origin.address().to_string());
        let mut connection = self.gateway.client.connect().await;
        connection.send(message.as_bytes()).await;
        let first = connection.answer("GET").await;
        drop(connection);
        self.judge(tried, &first, second, next, before).await;
    }

    async fn judge(
        &mut self,
        tried: &str,
        first: &Answer,
        second: &Request,
        next: Next,
        before: usize,
    ) {
        let second = self.gateway.client.ask(second.clone()).await;
        let verdict = match next {
            Unharmed(expected) => {
                assert_eq!(second.text(), expected, "{tried}");
                "unharmed"
            }
            OriginsWord(expected) => {
                assert_eq!(second.text(), expected, "{tried}");
                "the origin's word"
            }
            Nothing => {
                second.problem();
                "unharmed"
            }
        };
        let seen = self.origin.seen().split_off(before);
        let is_touched = seen.iter().any(|seen| {
            let mut values = seen.headers.iter().map(|(_, value)| value.as_str());
            seen.target.contains("evil")
                || seen.body.windows(4).any(|part| part == b"evil")
                || values.any(|value| value.contains("evil"))
        });
        let saw = match (seen.len(), is_touched) {
            (0, _) => "nothing".to_owned(),
            (1, false) => "1 request".to_owned(),
            (1, true) => "1 request, with it".to_owned(),
            (_, false) => "several requests".to_owned(),
            (_, true) => "several requests, with it".to_owned(),
        };
        let (first, second) = (told(first), told(&second));
        self.note(&[tried, &first, &second, &saw, verdict]);
    }

    fn note(&mut self, cells: &[&str]) {
        writeln!(self.document, "| {} |", cells.join(" | ")).unwrap();
    }
}

/// An answer in a few words.
fn told(answer: &Answer) -> String {
    if answer.header("content-type") == Some("application/problem+json") {
        return format!("{} `{}`", answer.status, answer.problem());
    }
    if answer.header("cache-status").is_none() {
        return format!("{}", answer.status);
    }
    let status = answer.cache_status();
    let detail = status.iter().find_map(|part| part.strip_prefix("detail="));
    let how = match detail {
        _ if answer.says("stored") => ", stored".to_owned(),
        Some(detail) if answer.says("hit") => format!(", stored before, `{detail}`"),
        Some(detail) => format!(", `{detail}`"),
        None if answer.says("hit") => ", a hit".to_owned(),
        None => String::new(),
    };
    let body = answer.text();
    let shown = if body.is_empty() || body.len() > 40 {
        String::new()
    } else {
        format!(" \"{body}\"")
    };
    format!("{}{shown}{how}", answer.status)
}

fn get(path: &str) -> Request {
    Request::get(path)
}

#[tokio::test]
async fn no_attack_changes_what_another_client_gets() {
    let mut stage = Stage::start().await;
    fields::unkeyed_fields(&mut stage).await;
    targets::spellings(&mut stage).await;
    users::deception(&mut stage).await;
    targets::methods_and_bodies(&mut stage).await;
    fields::heads(&mut stage).await;
    origins::errors(&mut stage).await;
    origins::framing(&mut stage).await;
    targets::ranges_and_conditions(&mut stage).await;
    fields::hop_by_hop(&mut stage).await;
    floods::variants(&mut stage).await;
    compare_with_the_document(&stage.document);
}

async fn connect(stage: &Stage) -> Connection {
    stage.gateway.client.connect().await
}

const HEADING: &str = "# Poisoning and deception

What was tried to make one client get what another one made of it, or what is another one's. The table is written and
checked by `tests/behaviour/deception/`: a real client, a real gateway, and an origin that lets any field, method or
body change its answer and says that everybody may have it for five minutes. Each row begins with nothing stored, unless
it says otherwise.

*Unharmed*: the next client got what it would have got without the attack. *The origin's word*: it got what the origin
had said everybody may have, or let be guessed by a `Last-Modified` of long ago; a cache cannot know better, and the remedy
is `Vary`, `private` or `no-store` at the origin.
A word in code behind an answer says why it was not stored.
";

fn compare_with_the_document(rows: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/poisoning.md");
    let observed = format!("{HEADING}{rows}");
    if std::env::var_os("HARDTACK_WRITE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &observed).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    for (observed, written) in observed.lines().zip(written.lines()) {
        assert_eq!(observed, written, "docs/poisoning.md says otherwise");
    }
    assert_eq!(
        observed.lines().count(),
        written.lines().count(),
        "rows came or went"
    );
}
