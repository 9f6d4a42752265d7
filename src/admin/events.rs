//! What happens, for those who watch: the last 1,024 events, and whoever waits for the next one.
//!
//! Invariants: events are numbered without a gap, and a reader that missed some is told so; nobody who makes an event waits
//! for a reader. A reader has no buffer of its own, only a place in the ring, so that a slow one costs nothing. Bounds: 1,024
//! events, each a few hundred bytes. After a restart the numbers begin anew, and the ids say of which run they are.

use std::{
    collections::VecDeque,
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::{text, upstreams::connectivity_name};
use crate::{clock::SharedClock, queue, upstream::Transition};

const KEPT: usize = 1_024;

/// What happened, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A queued write has another state.
    Queue,
    /// An upstream was lost or is back, or an operator spoke about it.
    Upstream,
    /// An operator set a mode, or took it back.
    Mode,
    /// An operator purged.
    Purge,
}

/// An event.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) number: u64,
    pub(super) kind: Kind,
    pub(super) data: Value,
}

/// The id of an event: the run of the gateway, and a number within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EventId {
    /// When the run began, in milliseconds.
    pub(super) run: i64,
    pub(super) number: u64,
}

/// What a reader gets next.
#[derive(Debug)]
pub(super) enum Next {
    /// Events, at least one.
    Events(Vec<Arc<Event>>),
    /// So many were forgotten before they could be read (`None`: nobody knows how many); the next one is `number`.
    Lost { missed: Option<u64>, number: u64 },
}

/// The events of this run.
pub struct Events {
    run: i64,
    ring: Mutex<Ring>,
    newest: watch::Sender<u64>,
    clock: SharedClock,
}

#[derive(Default)]
struct Ring {
    events: VecDeque<Arc<Event>>,
    /// The number of the last event; they begin with 1.
    last: u64,
}

/// A place in the events.
pub(super) struct Reader {
    events: Arc<Events>,
    newest: watch::Receiver<u64>,
    next: u64,
    is_new_run: bool,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Queue, Self::Upstream, Self::Mode, Self::Purge];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Upstream => "upstream",
            Self::Mode => "mode",
            Self::Purge => "purge",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl Events {
    /// None yet.
    pub fn new(clock: SharedClock) -> Arc<Self> {
        Arc::new(Self {
            run: clock.now().as_millis(),
            ring: Mutex::default(),
            newest: watch::Sender::new(0),
            clock,
        })
    }

    /// Adds an event. `data` is an object; the time is put in.
    pub(super) fn add(&self, kind: Kind, mut data: Value) {
        data["at"] = json!(text::rfc3339(self.clock.now()));
        let mut ring = self.ring();
        ring.last += 1;
        let number = ring.last;
        if ring.events.len() == KEPT {
            ring.events.pop_front();
        }
        ring.events
            .push_back(Arc::new(Event { number, kind, data }));
        drop(ring);
        // Numbers may arrive here out of order; the newest counts.
        self.newest.send_if_modified(|newest| {
            let is_newer = number > *newest;
            *newest = number.max(*newest);
            is_newer
        });
    }

    /// The id of the event with this number.
    pub(super) const fn id(&self, number: u64) -> EventId {
        EventId {
            run: self.run,
            number,
        }
    }

    /// A reader of what comes after `last`; without it, of what happens from now on.
    pub(super) fn read(self: &Arc<Self>, last: Option<EventId>) -> Reader {
        let newest = self.newest.subscribe();
        let now = self.ring().last;
        let (next, is_new_run) = match last {
            None => (now + 1, false),
            // A number that was not given yet is of a run that began at the same time, or invented.
            Some(last) if last.run == self.run && last.number <= now => (last.number + 1, false),
            Some(_) => (1, true),
        };
        Reader {
            events: Arc::clone(self),
            newest,
            next,
            is_new_run,
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// What comes next, when it comes. Cancel-safe.
    pub(super) async fn next(&mut self) -> Next {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            if self.newest.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    fn take(&mut self) -> Option<Next> {
        // Before the ring is looked at, so that what is added meanwhile wakes.
        self.newest.mark_unchanged();
        let events = Arc::clone(&self.events);
        let ring = events.ring();
        let oldest = ring.last + 1 - ring.events.len() as u64;
        if std::mem::take(&mut self.is_new_run) {
            self.next = oldest;
            return Some(Next::Lost {
                missed: None,
                number: oldest,
            });
        }
        if self.next < oldest {
            let missed = oldest - std::mem::replace(&mut self.next, oldest);
            return Some(Next::Lost {
                missed: Some(missed),
                number: oldest,
            });
        }
        let known = usize::try_from(self.next - oldest).unwrap_or(usize::MAX);
        let new: Vec<_> = ring.events.iter().skip(known).cloned().collect();
        self.next += new.len() as u64;
        (!new.is_empty()).then_some(Next::Events(new))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.run, self.number)
    }
}

impl FromStr for EventId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (run, number) = text.split_once('-').ok_or(())?;
        Ok(Self {
            run: i64::from_str_radix(run, 16).map_err(drop)?,
            number: number.parse().map_err(drop)?,
        })
    }
}

/// Makes events of what the upstreams and the queue tell, until `shutdown`.
pub(super) async fn collect(
    events: Arc<Events>,
    mut transitions: broadcast::Receiver<Transition>,
    mut changes: broadcast::Receiver<queue::Changed>,
    shutdown: CancellationToken,
) {
    loop {
        // All branches are cancel-safe: a message that was not received stays in its channel.
        tokio::select! {
            () = shutdown.cancelled() => return,
            transition = transitions.recv() => match transition {
                Ok(transition) => events.add(Kind::Upstream, of_transition(&transition)),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    events.add(Kind::Upstream, json!({ "missed": missed }));
                }
                Err(broadcast::error::RecvError::Closed) => return,
            },
            change = changes.recv() => match change {
                Ok(change) => events.add(Kind::Queue, of_change(&change)),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    events.add(Kind::Queue, json!({ "missed": missed }));
                }
                Err(broadcast::error::RecvError::Closed) => return,
            },
        }
    }
}

fn of_transition(transition: &Transition) -> Value {
    json!({
        "upstream": transition.upstream,
        "connectivity": connectivity_name(transition.connectivity),
        "overridden": transition.overridden,
    })
}

fn of_change(change: &queue::Changed) -> Value {
    json!({
        "id": change.id.to_string(),
        "seq": change.seq,
        "state": change.state.as_str(),
        "reason": change.state.reason(),
        "origin": change.origin.to_string(),
        "route": change.route,
        "lane_id": change.lane_id.to_string(),
        "attempts": change.attempts,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::{EventId, Events, KEPT, Kind, Next, Reader};
    use crate::{clock::VirtualClock, policy::Timestamp};

    fn events(start_secs: i64) -> Arc<Events> {
        let start = Timestamp::from_secs(start_secs);
        Events::new(Arc::new(VirtualClock::new(start)))
    }

    fn add(events: &Events, count: usize) {
        for _ in 0..count {
            events.add(Kind::Mode, json!({}));
        }
    }

    async fn numbers(reader: &mut Reader) -> Vec<u64> {
        match reader.next().await {
            Next::Events(events) => events.iter().map(|event| event.number).collect(),
            lost @ Next::Lost { .. } => panic!("{lost:?}"),
        }
    }

    #[tokio::test]
    async fn a_reader_gets_what_happens_from_now_on() {
        let events = events(1);
        add(&events, 3);
        let mut reader = events.read(None);
        assert!(futures_util::poll!(Box::pin(reader.next())).is_pending());
        add(&events, 2);
        assert_eq!(numbers(&mut reader).await, [4, 5]);
        assert!(futures_util::poll!(Box::pin(reader.next())).is_pending());
    }

    #[tokio::test]
    async fn a_reader_that_was_cut_goes_on_where_it_was() {
        let events = events(1);
        add(&events, 5);
        let mut reader = events.read(Some(events.id(3)));
        assert_eq!(numbers(&mut reader).await, [4, 5]);
        let mut reader = events.read(Some(events.id(5)));
        assert!(futures_util::poll!(Box::pin(reader.next())).is_pending());
    }

    #[tokio::test]
    async fn a_reader_is_told_what_it_missed() {
        let events = events(1);
        add(&events, KEPT + 10);
        let mut reader = events.read(Some(events.id(2)));
        let lost = reader.next().await;
        assert!(
            matches!(
                lost,
                Next::Lost {
                    missed: Some(8),
                    number: 11
                }
            ),
            "{lost:?}"
        );
        let numbers = numbers(&mut reader).await;
        assert_eq!((numbers.len(), numbers[0]), (KEPT, 11));
        // One that reads too slowly while it is connected, too.
        add(&events, 2 * KEPT);
        assert!(matches!(
            reader.next().await,
            Next::Lost { missed: Some(missed), .. } if missed == KEPT as u64
        ));
    }

    #[tokio::test]
    async fn ids_of_another_run_are_not_taken_for_ours() {
        let (before, after) = (events(1), events(2));
        add(&before, 5);
        add(&after, 2);
        for last in [before.id(5), after.id(9)] {
            let mut reader = after.read(Some(last));
            assert!(matches!(
                reader.next().await,
                Next::Lost {
                    missed: None,
                    number: 1
                }
            ));
            assert_eq!(numbers(&mut reader).await, [1, 2]);
        }
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        for id in [
            EventId { run: 0, number: 1 },
            EventId {
                run: 1_763_724_535_123,
                number: u64::MAX,
            },
        ] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for wrong in ["", "1", "-1", "x-1", "1-x", "1-"] {
            assert_eq!(wrong.parse::<EventId>(), Err(()), "{wrong}");
        }
    }
}
