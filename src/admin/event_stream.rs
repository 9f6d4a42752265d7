//! `events`: what happens, as server-sent events.
//!
//! Bounds: 64 streams at once; a comment every 15 s keeps a quiet one alive, and a client that reads nothing is cut as
//! everywhere on this listener. Streams end when the gateway drains.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    response::{
        IntoResponse, Response,
        sse::{Event as SentEvent, KeepAlive, Sse},
    },
};
use futures_util::stream::{self, Stream};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;

use super::{
    Api,
    events::{EventId, Kind, Next, Reader},
    extract::Parameters,
    problem::{Document, Kind as ProblemKind, Problem},
};

/// A quarter of the connections of the listener: watching must not keep anybody from acting.
const MAX_STREAMS: usize = 64;
// Below the idle timeouts of the proxies that may stand in between.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// A comma list of `queue`, `upstream`, `mode`, `purge`; all without it.
    types: Option<String>,
}

/// Places for streams of events.
#[derive(Clone, Debug)]
pub struct EventStreams(Arc<Semaphore>);

/// One client's stream.
struct Watching {
    reader: Reader,
    kinds: Option<Vec<Kind>>,
    ready: VecDeque<SentEvent>,
    api: Arc<Api>,
    shutdown: CancellationToken,
    _place: OwnedSemaphorePermit,
}

/// What happens, from now on, or from the event after `Last-Event-ID`. The last 1,024 are kept: when some that were to
/// come were forgotten, an event `lost` says how many (`missed`; null after a restart).
#[utoipa::path(get, path = "/api/v1/events", tag = "events", params(Wanted,
        ("Last-Event-ID" = Option<String>, Header, description = "id of the last event that was read")),
    responses((status = 200, body = String, content_type = "text/event-stream"),
        (status = 400, body = Document), (status = 503, description = "too many streams", body = Document)))]
pub(super) async fn watch(
    State(api): State<Arc<Api>>,
    Parameters(wanted): Parameters<Wanted>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let kinds = wanted.kinds()?;
    let last = last_event_id(&headers)?;
    let place = Arc::clone(&api.streams.0).try_acquire_owned();
    let place = place.map_err(|_| {
        Problem::new(
            ProblemKind::Overloaded,
            format!("there are {MAX_STREAMS} streams of events already"),
        )
    })?;
    let watching = Watching {
        reader: api.events.read(last),
        kinds,
        ready: VecDeque::new(),
        shutdown: api.shutdown.clone(),
        api,
        _place: place,
    };
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(watching.stream())
        .keep_alive(keep_alive)
        .into_response())
}

impl Default for EventStreams {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_STREAMS)))
    }
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<EventId>, Problem> {
    let Some(id) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let id = id.to_str().ok().and_then(|id| id.parse().ok());
    id.map(Some)
        .ok_or_else(|| Problem::bad_request("`Last-Event-ID` is not an id of an event"))
}

impl Wanted {
    fn kinds(&self) -> Result<Option<Vec<Kind>>, Problem> {
        let Some(list) = &self.types else {
            return Ok(None);
        };
        let kind = |name: &str| {
            Kind::from_name(name.trim())
                .ok_or_else(|| Problem::bad_request(format!("there is no type of events `{name}`")))
        };
        list.split(',')
            .map(kind)
            .collect::<Result<_, _>>()
            .map(Some)
    }
}

impl Watching {
    fn stream(self) -> impl Stream<Item = Result<SentEvent, Infallible>> {
        stream::unfold(self, async |mut watching| {
            let event = watching.next().await?;
            Some((Ok(event), watching))
        })
    }

    async fn next(&mut self) -> Option<SentEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            // Both branches are cancel-safe; at the end a stream stops even if there is always a next event.
            let next = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return None,
                next = self.reader.next() => next,
            };
            self.prepare(next);
        }
    }

    fn prepare(&mut self, next: Next) {
        let id = |number| self.api.events.id(number).to_string();
        match next {
            Next::Lost { missed, number } => {
                // Whoever is cut after this one goes on with the oldest that is left.
                let sent = SentEvent::default().id(id(number - 1)).event("lost");
                self.ready
                    .push_back(sent.data(json!({ "missed": missed }).to_string()));
            }
            Next::Events(events) => {
                let kinds = &self.kinds;
                let is_wanted = |kind| kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind));
                let wanted = events.iter().filter(|event| is_wanted(event.kind));
                let sent = wanted.map(|event| {
                    let sent = SentEvent::default().id(id(event.number));
                    sent.event(event.kind.as_str()).data(event.data.to_string())
                });
                self.ready.extend(sent);
            }
        }
    }
}
