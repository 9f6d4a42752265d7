//! `queue/export` and `queue/import`: queued writes as NDJSON, whole, one a line.
//!
//! Bounds: an export holds one write at a time and ends when the gateway drains; a line of an import is about as long as
//! `queue.max_item` in base64, 64 lines or 16 MiB are held at once, and a client has 10 s for the next bytes.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use axum::{
    Json,
    body::{Body, BodyDataStream},
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http::{HeaderMap, header::CONTENT_TYPE};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    Api,
    extract::Parameters,
    operator::Operator,
    problem::{Document, Kind, Problem},
    queue::Filters,
    queue_changes::to_its_end,
    view::queue::{Imported, Refusal},
};
use crate::queue::{self, Filter, ImportError, ItemId, OperateError, Queue, Record};

const NDJSON: &str = "application/x-ndjson";
const PAGE: usize = 256;
const BATCH_LINES: usize = 64;
const BATCH_BYTES: usize = 16 << 20;
const MAX_REFUSALS: usize = 100;
// For everything of a line but the body.
const LINE_HEAD_BYTES: u64 = 1 << 20;
const READ_TIME: Duration = Duration::from_secs(10);

/// The writes that match, in order of acceptance, whole: sealed fields as they are sealed, bodies in base64. A write that is
/// damaged is a line with `error` and `id`.
#[utoipa::path(get, path = "/api/v1/queue/export", tag = "queue", params(Filters),
    responses((status = 200, body = String, content_type = "application/x-ndjson"), (status = 400, body = Document)))]
pub(super) async fn export(
    State(api): State<Arc<Api>>,
    Parameters(filters): Parameters<Filters>,
) -> Result<Response, Problem> {
    let filter = filters.checked(api.clock.now())?;
    let export = Export {
        queue: api.queue.clone(),
        filter,
        shutdown: api.shutdown.clone(),
        ids: VecDeque::new(),
        after: None,
        is_last_page: false,
    };
    let lines = stream::unfold(export, async |mut export| {
        let line = export.next().await?;
        Some((line, export))
    });
    let body = Body::from_stream(lines);
    Ok(([(CONTENT_TYPE, NDJSON)], body).into_response())
}

/// Appends the writes of an export that are not there yet, with their ids. Lines that cannot be taken are refused one by one,
/// so that the same import can be repeated once what was wrong is right.
#[utoipa::path(post, path = "/api/v1/queue/import", tag = "queue",
    request_body(content = String, content_type = "application/x-ndjson"),
    responses((status = 200, body = Imported), (status = 415, body = Document)))]
pub(super) async fn import(
    State(api): State<Arc<Api>>,
    operator: Operator,
    request: Request,
) -> Result<Json<Imported>, Problem> {
    if !is_ndjson(request.headers()) {
        return Err(Problem::new(
            Kind::NotJson,
            "send an export as `Content-Type: application/x-ndjson`",
        ));
    }
    let limit_bytes = api.queue.config().max_item_bytes.saturating_mul(4) / 3 + LINE_HEAD_BYTES;
    let mut lines = Lines {
        body: request.into_body().into_data_stream(),
        buffer: BytesMut::new(),
        limit_bytes: usize::try_from(limit_bytes).unwrap_or(usize::MAX),
        number: 0,
        is_at_end: false,
    };
    let mut imported = Imported::default();
    let read = import_all(&api, &mut lines, &mut imported).await;
    let counts = format!(
        "{} imported, {} known, {} refused",
        imported.imported, imported.known, imported.refused
    );
    let (queue, by, told) = (api.queue.clone(), operator.to_string(), counts.clone());
    to_its_end(&api, async move { queue.note_import(&by, told).await }).await?;
    match read {
        Ok(()) => Ok(Json(imported)),
        Err(problem) => Err(problem.after(&counts)),
    }
}

async fn import_all(api: &Api, lines: &mut Lines, imported: &mut Imported) -> Result<(), Problem> {
    loop {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_LINES && bytes < BATCH_BYTES {
            let Some(line) = lines.next().await? else {
                break;
            };
            let number = lines.number;
            match line.and_then(|line| {
                bytes += line.len();
                Record::parse(&line)
            }) {
                Ok(record) => batch.push((number, record)),
                Err(error) => imported.refuse(number, &error),
            }
        }
        if batch.is_empty() && lines.is_at_end {
            return Ok(());
        }
        let queue = api.queue.clone();
        let outcomes = to_its_end(api, async move { Ok(queue.import(batch).await) }).await?;
        for (number, outcome) in outcomes {
            match outcome {
                Ok(queue::Imported::New) => imported.imported += 1,
                Ok(queue::Imported::Known) => imported.known += 1,
                Err(error) => imported.refuse(number, &error),
            }
        }
    }
}

fn is_ndjson(headers: &HeaderMap) -> bool {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| {
        let essence = essence.trim();
        [NDJSON, "application/jsonl"]
            .iter()
            .any(|known| essence.eq_ignore_ascii_case(known))
    })
}

/// An export under way.
struct Export {
    queue: Queue,
    filter: Filter,
    shutdown: CancellationToken,
    ids: VecDeque<ItemId>,
    after: Option<ItemId>,
    is_last_page: bool,
}

impl Export {
    /// An error cuts the connection, so that nobody takes half an export for a whole one.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if self.shutdown.is_cancelled() {
                return Some(Err(io::ErrorKind::Interrupted.into()));
            }
            let Some(id) = self.ids.pop_front() else {
                if self.is_last_page {
                    return None;
                }
                if let Err(error) = self.turn_page().await {
                    return Some(Err(io::Error::other(error)));
                }
                continue;
            };
            match self.queue.record(id).await {
                Ok(Some(record)) => return Some(Ok(line(&record))),
                Ok(None) => {}
                Err(error) => {
                    let error = json!({ "id": id.to_string(), "error": error.to_string() });
                    return Some(Ok(line(&error)));
                }
            }
        }
    }

    async fn turn_page(&mut self) -> Result<(), OperateError> {
        let page = self.queue.list(&self.filter, self.after, PAGE).await?;
        self.ids
            .extend(page.items.iter().map(|shown| shown.item.id));
        self.is_last_page = page.next.is_none();
        self.after = page.next;
        Ok(())
    }
}

fn line(value: &impl serde::Serialize) -> Bytes {
    let mut line = serde_json::to_vec(value).expect("strings and numbers are JSON");
    line.push(b'\n');
    line.into()
}

/// The lines of a body.
struct Lines {
    body: BodyDataStream,
    buffer: BytesMut,
    limit_bytes: usize,
    /// Of the last line.
    number: u64,
    is_at_end: bool,
}

impl Lines {
    /// The next line that is not empty; one that is too long is told so and skipped.
    async fn next(&mut self) -> Result<Option<Result<Bytes, ImportError>>, Problem> {
        loop {
            let Some(line) = self.line().await? else {
                return Ok(None);
            };
            self.number += 1;
            match line {
                Some(line) if line.trim_ascii().is_empty() => {}
                Some(line) => return Ok(Some(Ok(line))),
                None => {
                    let limit = format!("a line may have {} bytes", self.limit_bytes);
                    return Ok(Some(Err(ImportError::Malformed(limit))));
                }
            }
        }
    }

    async fn line(&mut self) -> Result<Option<Option<Bytes>>, Problem> {
        let (mut searched, mut is_too_long) = (0, false);
        loop {
            let newline = self.buffer[searched..]
                .iter()
                .position(|byte| *byte == b'\n');
            if let Some(at) = newline {
                let mut line = self.buffer.split_to(searched + at + 1);
                line.truncate(searched + at);
                return Ok(Some((!is_too_long).then(|| line.freeze())));
            }
            if self.buffer.len() > self.limit_bytes {
                is_too_long = true;
                self.buffer.clear();
            }
            searched = self.buffer.len();
            if !self.fill().await? {
                let rest = self.buffer.split().freeze();
                let is_line = is_too_long || !rest.is_empty();
                return Ok(is_line.then(|| (!is_too_long).then_some(rest)));
            }
        }
    }

    /// Reads more; `false` at the end.
    async fn fill(&mut self) -> Result<bool, Problem> {
        if self.is_at_end {
            return Ok(false);
        }
        match tokio::time::timeout(READ_TIME, self.body.next()).await {
            Ok(Some(Ok(bytes))) => self.buffer.extend_from_slice(&bytes),
            Ok(None) => self.is_at_end = true,
            Ok(Some(Err(error))) => {
                return Err(Problem::bad_request(format!("the body broke off: {error}")));
            }
            Err(_elapsed) => {
                return Err(Problem::new(
                    Kind::BodyTimeout,
                    format!("no byte came for {} s", READ_TIME.as_secs()),
                ));
            }
        }
        Ok(!self.is_at_end)
    }
}

impl Imported {
    fn refuse(&mut self, line: u64, error: &ImportError) {
        self.refused += 1;
        if self.refusals.len() < MAX_REFUSALS {
            self.refusals.push(Refusal {
                line,
                why: error.to_string(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use bytes::{Bytes, BytesMut};
    use futures_util::stream;

    use super::Lines;

    /// The lines of a body that comes in these pieces; `!` is one that is too long.
    async fn lines(pieces: &[&'static str]) -> Vec<String> {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|piece| Ok::<_, std::io::Error>(Bytes::from(*piece)))
            .collect();
        let mut lines = Lines {
            body: Body::from_stream(stream::iter(pieces)).into_data_stream(),
            buffer: BytesMut::new(),
            limit_bytes: 5,
            number: 0,
            is_at_end: false,
        };
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            let line = line.map_or("!".into(), |line| {
                String::from_utf8_lossy(&line).into_owned()
            });
            found.push(format!("{}:{line}", lines.number));
        }
        found
    }

    #[tokio::test]
    async fn lines_are_found_however_the_body_comes() {
        assert_eq!(lines(&["a\nb\n"]).await, ["1:a", "2:b"]);
        assert_eq!(lines(&["a", "\n", "b"]).await, ["1:a", "2:b"]);
        assert_eq!(lines(&["a\n\n", " \nb"]).await, ["1:a", "4:b"]);
        assert_eq!(
            lines(&["12345\n", "123", "456", "789\nb"]).await,
            ["1:12345", "2:!", "3:b"]
        );
        assert_eq!(lines(&["123456", "7"]).await, ["1:!"]);
        assert!(lines(&[]).await.is_empty());
    }
}
