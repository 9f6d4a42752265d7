//! A fill: one request to the origin on behalf of everyone who waits for this key, and of the store.
//!
//! It runs on the tracker and survives the client that started it. It judges the head, publishes what it came to, then
//! copies the body for its readers. The store has the whole body before the readers see its end; a client that knows its
//! length sees it end before that. Who asks when all of it is there waits for the store, so whoever asks next gets a hit.
//!
//! A body that only the close of its connection delimits is handed on and not stored, because a crash of the origin looks
//! the same. The one exception: its head names a transfer coding other than chunked, so that the origin could not have
//! said the length (RFC 9112 section 6.3), and gives it explicit freshness. It is stored then if the close was in order
//! and it is neither empty nor shorter than a stored one with the same strong validator; such a shorter one has broken
//! off, for its readers too.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, watch},
    time::timeout,
};
use tracing::debug;

use super::{
    Gateway,
    arrival::Arrival,
    collapse::Target,
    effective::Via,
    failure::Failed,
    growing::{BrokenOff, Growing, Reader},
    keeping::{CopyError, Keeping, Whole},
    parts::{self, Completing, Rest},
    question::{Answered, Question},
    request, trailers,
};
use crate::{
    policy::{
        self, CacheKey, Extent, Failure, Judgement, Mode, Reason, RequestHead, ResponseHead,
        Settings, StoredHead,
    },
    store::{Published, StoredResponse, Ticket},
    telemetry::OutcomeLabels,
    upstream::ResponseBody,
};

/// How long a request waits for a body that is all there to be in the store: far longer than to copy the largest there may be.
/// An origin may hold back the end of a body whose last byte has come.
const PUBLISHING_MAX: Duration = Duration::from_secs(1);

/// A fill under way.
#[derive(Debug)]
pub(crate) struct Fill {
    /// What it fills.
    pub(crate) target: Target,
    /// What was current when it started.
    pub(crate) ticket: Ticket,
    outcome: watch::Sender<Outcome>,
    growing: Arc<Growing>,
    // Those who wait for its end.
    ended: Notify,
    // Whether the request that started it had a cookie: the answer may be that user's.
    personal: AtomicBool,
    // Kept for the request that started the fill, so that a window never finds itself without readers too early.
    first_reader: Mutex<Option<Reader>>,
    // The answer that cannot be shared: for the request that started the fill, and nobody else.
    unshared: Mutex<Option<Response<ResponseBody>>>,
    // The fields of an answer that is shared as the origin sent them, or as a 304 left them: what is stored may lack some.
    received: Mutex<Option<HeaderMap>>,
}

/// What a fill came to.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// Nothing yet.
    Pending,
    /// A response that is being stored; its body grows.
    Storing(Arc<Storing>),
    /// A 304: the body of this stored response stands, under this head.
    Freshened(Arc<StoredResponse>, Arc<StoredHead>),
    /// A response that cannot be shared, and why. Others go their own way.
    Unshared(Reason),
    /// An error answer for which the stored response may stand in.
    ErrorAnswer(StatusCode),
    /// No answer.
    Failed(Failed),
}

/// A response that is being stored.
#[derive(Debug)]
pub(crate) struct Storing {
    /// Its head.
    pub(crate) head: Arc<StoredHead>,
    /// Its length, where the origin said so.
    pub(crate) length: Option<u64>,
    /// The fields that are to follow the body, and are not stored.
    pub(crate) trailers: Option<HeaderValue>,
    /// The status the origin answered with: not that of the head where a part was completed.
    pub(crate) answered: StatusCode,
}

/// What a fill needs of the request that started it.
pub(crate) struct Plan {
    /// Where it goes, by which route.
    pub(crate) arrival: Arrival,
    /// The fields of the request that started it.
    pub(crate) headers: HeaderMap,
    /// The response that is validated, or that may stand in for an error.
    pub(crate) stored: Option<Arc<StoredResponse>>,
    /// Whether that is stored under the key that is filled, so that the answer says something about it.
    pub(crate) is_validation: bool,
    /// Whether its validators are sent.
    pub(crate) validate: bool,
    /// What becomes of the client's own conditions and range.
    pub(crate) conditions: request::Conditions,
    /// The stored part that has not got what is wanted.
    pub(crate) part: Option<Arc<StoredResponse>>,
    /// How it is completed, if it is.
    pub(crate) completing: Option<Completing>,
    /// The mode in force.
    pub(crate) mode: Mode,
    /// Whether others may have its answer, if that lets them.
    pub(crate) is_shared: bool,
    /// Its place among those that nobody asked for, held until it has ended.
    pub(crate) _place: Option<OwnedSemaphorePermit>,
}

impl Fill {
    /// A fill that has not started.
    pub(crate) fn new(target: Target, ticket: Ticket) -> Arc<Self> {
        let growing = Arc::new(Growing::default());
        Arc::new(Self {
            target,
            ticket,
            outcome: watch::Sender::new(Outcome::Pending),
            first_reader: Mutex::new(growing.reader()),
            growing,
            ended: Notify::new(),
            personal: AtomicBool::new(false),
            unshared: Mutex::new(None),
            received: Mutex::new(None),
        })
    }

    /// Waits for what it comes to.
    pub(crate) async fn outcome(&self) -> Outcome {
        let mut watched = self.outcome.subscribe();
        // The sender lives in `self`, so the channel cannot be closed here.
        match watched
            .wait_for(|outcome| !matches!(outcome, Outcome::Pending))
            .await
        {
            Ok(outcome) => outcome.clone(),
            Err(_) => Outcome::Failed(Failed::internal()),
        }
    }

    /// Whether it has come to something already: who joins now did not wait for it.
    pub(crate) fn is_decided(&self) -> bool {
        !matches!(*self.outcome.borrow(), Outcome::Pending)
    }

    /// The head of what it stores, once that is known.
    pub(crate) fn head(&self) -> Option<Arc<StoredHead>> {
        match &*self.outcome.borrow() {
            Outcome::Storing(storing) => Some(Arc::clone(&storing.head)),
            Outcome::Freshened(_, head) => Some(Arc::clone(head)),
            _ => None,
        }
    }

    /// Whether the request that started it had a cookie.
    pub(crate) fn is_personal(&self) -> bool {
        self.personal.load(Ordering::Relaxed)
    }

    /// A reader of the growing body; `None` when its beginning is no longer kept.
    pub(crate) fn reader(&self) -> Option<Reader> {
        self.growing.reader()
    }

    /// Whether a client may have had its whole answer already. Who asks after that first waits for it to be in the store.
    pub(crate) fn is_complete(&self) -> bool {
        self.growing.is_complete()
    }

    /// Waits, not for long, until what it brought is in the store and nobody can join any more.
    pub(crate) async fn ended(&self) {
        let ended = self.ended.notified();
        if !self.growing.is_finished() {
            // Beyond that the request follows after all.
            let _ = timeout(PUBLISHING_MAX, ended).await;
        }
    }

    fn end(&self, end: Result<Option<HeaderMap>, BrokenOff>) {
        self.growing.finish(end);
        self.ended.notify_waiters();
    }

    /// The body that it copies.
    pub(super) fn growing(&self) -> &Arc<Growing> {
        &self.growing
    }

    /// Keeps fields for the request that started it, and nobody else.
    pub(super) fn keep_for_the_starter(&self, received: HeaderMap) {
        *lock(&self.received) = Some(received);
    }

    pub(super) fn came_to(&self, outcome: Outcome) {
        self.outcome.send_replace(outcome);
    }
}

/// The request that started a fill: it has the first reader, the answer that cannot be shared, and what only its own
/// client may see of one that can. Dropping it (the client has gone, or there never was one) gives them up.
pub(crate) struct Starter {
    /// The fill.
    pub(crate) fill: Arc<Fill>,
}

impl Starter {
    /// The first reader, once.
    pub(crate) fn take_reader(&self) -> Option<Reader> {
        lock(&self.fill.first_reader).take()
    }

    /// The answer that cannot be shared, once.
    pub(crate) fn take_unshared(&self) -> Option<Response<ResponseBody>> {
        lock(&self.fill.unshared).take()
    }

    /// `head`, which is shared, with the fields that the origin sent for this request.
    pub(crate) fn as_received(&self, head: &StoredHead) -> Option<StoredHead> {
        let received = lock(&self.fill.received).take()?;
        Some(head.with_headers(&received))
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        let _ = (self.take_reader(), self.take_unshared());
        *lock(&self.fill.received) = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is replaced whole, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a fill on the tracker. `early`: the origin has answered already.
pub(crate) fn start(
    gateway: &Arc<Gateway>,
    fill: Arc<Fill>,
    plan: Plan,
    early: Option<Answered>,
) -> Starter {
    let starter = Starter {
        fill: Arc::clone(&fill),
    };
    let personal = plan.headers.contains_key(header::COOKIE);
    fill.personal.store(personal, Ordering::Relaxed);
    let gateway = Arc::clone(gateway);
    let tasks = gateway.tasks.clone();
    tasks.spawn(async move {
        let guard = Guard {
            gateway: Arc::clone(&gateway),
            fill: Arc::clone(&fill),
        };
        run(&gateway, &fill, plan, early).await;
        drop(guard);
    });
    starter
}

/// Whatever happens to the fill, a panic included, nobody waits for it for ever.
struct Guard {
    gateway: Arc<Gateway>,
    fill: Arc<Fill>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.gateway.fills.leave(&self.fill);
        self.fill.end(Err(BrokenOff));
        self.fill.outcome.send_if_modified(|outcome| {
            let pending = matches!(outcome, Outcome::Pending);
            if pending {
                *outcome = Outcome::Failed(Failed::internal());
            }
            pending
        });
    }
}

async fn run(gateway: &Arc<Gateway>, fill: &Arc<Fill>, plan: Plan, mut early: Option<Answered>) {
    let Some(effective) = plan.arrival.effective() else {
        return;
    };
    let settings = plan.arrival.settings(gateway).under(plan.mode);
    let upstream = effective.upstream(gateway);
    let mut validate = plan.validate;
    let mut completing = plan.completing.as_ref();
    loop {
        let mut answered = match early.take() {
            Some(answered) => answered,
            None => {
                let question = Question {
                    gateway,
                    upstream: &upstream,
                    arrival: &plan.arrival,
                    effective,
                    headers: &plan.headers,
                    conditions: plan.conditions,
                    validated: plan.stored.as_deref().filter(|_| validate),
                    completing,
                };
                match question.ask().await {
                    Ok(answered) => answered,
                    Err(failed) => return failed_to_ask(gateway, fill, &plan, failed),
                }
            }
        };
        let stored = plan.stored.as_ref().map(|stored| &stored.head);
        let method = effective.method_of_fill();
        let request = RequestHead::new(&method, &plan.headers, false);
        if let Some(part) = completing.take() {
            match parts::complete(gateway, fill, &plan, part, &request, &settings, answered).await {
                Rest::Taken => return,
                Rest::Unusable => continue,
                Rest::Anew(anew) => answered = *anew,
            }
        }
        match policy::judge(&request, &answered.head(), stored, &settings) {
            // Once: without conditions of ours an origin has no reason to answer so.
            Judgement::AskUnconditionally if validate => validate = false,
            // It answers the client's own conditions, and says nothing about what is stored.
            Judgement::Freshen(_) if !validate => {
                return hand_over(fill, answered.response, Reason::Status);
            }
            // An error takes no usable part's place.
            Judgement::Store(head) if plan.part.is_some() && head.status.is_server_error() => {
                return hand_over(fill, answered.response, Reason::Status);
            }
            judgement => return settle(gateway, fill, &plan, &settings, judgement, answered).await,
        }
    }
}

fn failed_to_ask(gateway: &Gateway, fill: &Fill, plan: &Plan, failed: Failed) {
    debug!(key = %fill.target.key, error = %failed, "A fill got no answer.");
    // While the upstream is disconnected its own state keeps requests from it, and the key must be free when it is back;
    // and that we are overloaded is not the origin's failure.
    let is_the_origins = !matches!(
        failed.failure(),
        Some(Failure::Disconnected | Failure::Overloaded) | None
    );
    if plan.stored.is_some() && is_the_origins {
        gateway
            .hold_down
            .failed(&fill.target.key, gateway.clock.now(), None);
    }
    if plan.stored.is_some() {
        count(gateway, plan, "error");
    }
    fill.came_to(Outcome::Failed(failed));
}

async fn settle(
    gateway: &Arc<Gateway>,
    fill: &Arc<Fill>,
    plan: &Plan,
    settings: &Settings,
    judgement: Judgement,
    answered: Answered,
) {
    let status = answered.response.status();
    if let Judgement::ServeStale(_) = judgement {
        let retry_after = policy::retry_after(answered.response.headers(), gateway.clock.now());
        gateway
            .hold_down
            .failed(&fill.target.key, gateway.clock.now(), retry_after);
        count(gateway, plan, "error");
        return fill.came_to(Outcome::ErrorAnswer(status));
    }
    gateway.hold_down.succeeded(&fill.target.key);
    if plan.is_shared {
        let (key, answer) = (&fill.target.key, answered.head());
        note_whether_shared(gateway, key, &plan.headers, &judgement, &answer);
    }
    match judgement {
        Judgement::Store(head) => {
            count(gateway, plan, "replaced");
            store(gateway, fill, plan, settings, *head, answered.response).await;
        }
        Judgement::Freshen(head) => {
            count(gateway, plan, "not_modified");
            fill.came_to(freshen(
                gateway,
                fill,
                plan,
                *head,
                answered.response.headers(),
            ));
        }
        Judgement::Pass(reason) => {
            count(gateway, plan, "replaced");
            hand_over(fill, answered.response, reason);
        }
        Judgement::AskUnconditionally | Judgement::ServeStale(_) => {
            hand_over(fill, answered.response, Reason::Status);
        }
    }
}

/// What the next request for the key will want to know.
pub(super) fn note_whether_shared(
    gateway: &Gateway,
    key: &CacheKey,
    headers: &HeaderMap,
    judgement: &Judgement,
    answer: &ResponseHead<'_>,
) {
    let status = answer.status;
    let is_in_trouble = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
    match judgement {
        // Of an origin in trouble one answer at a time is enough.
        Judgement::Pass(_) if !is_in_trouble => {
            gateway.passes.note(key, headers, answer.response_time);
        }
        _ => gateway.passes.forget(key, headers),
    }
}

fn hand_over(fill: &Fill, response: Response<ResponseBody>, reason: Reason) {
    *lock(&fill.unshared) = Some(response);
    fill.came_to(Outcome::Unshared(reason));
}

fn freshen(
    gateway: &Gateway,
    fill: &Fill,
    plan: &Plan,
    head: StoredHead,
    not_modified: &HeaderMap,
) -> Outcome {
    let Some(stored) = &plan.stored else {
        return Outcome::Failed(Failed::internal());
    };
    *lock(&fill.received) = Some(policy::updated_fields(&stored.head, not_modified));
    gateway
        .store
        .freshen(fill.ticket, &fill.target.key, stored, head.clone());
    Outcome::Freshened(Arc::clone(stored), Arc::new(head))
}

/// Takes a response for the store. What cannot be stored whole goes to the starter alone, unbuffered.
async fn store(
    gateway: &Gateway,
    fill: &Arc<Fill>,
    plan: &Plan,
    settings: &Settings,
    head: StoredHead,
    response: Response<ResponseBody>,
) {
    let until_close = response.body().is_close_delimited();
    if until_close && !may_end_by_close(&head, response.body(), settings) {
        return hand_over(fill, response, Reason::CloseDelimited);
    }
    let length = http_body::Body::size_hint(response.body()).exact();
    if length.is_some_and(|length| Extent::of(&head, length).is_none()) {
        return hand_over(fill, response, Reason::Partial);
    }
    let mut keeping = Keeping::new(
        &fill.growing,
        &gateway.in_flight_bytes,
        gateway.max_object_bytes,
    );
    if length.is_some_and(|length| keeping.reserve(length).is_err()) {
        return hand_over(fill, response, Reason::TooLarge);
    }
    let head = Arc::new(head);
    let promised = trailers::promised(response.headers());
    let (received, body) = response.into_parts();
    fill.keep_for_the_starter(received.headers);
    fill.growing.expect(length);
    fill.came_to(Outcome::Storing(Arc::new(Storing {
        head: Arc::clone(&head),
        length,
        trailers: promised,
        answered: received.status,
    })));
    let mut end = keeping.copy(body).await;
    if until_close {
        end = end.and_then(|(whole, trailers)| {
            let whole = whole.until_close(least_bytes(plan, &head))?;
            Ok((whole, trailers))
        });
    }
    finish(gateway, fill, plan, settings, &head, end).await;
}

/// Whether the close of its connection may be the end of a body that is stored. A part that ends so may be any part of
/// what it claims.
fn may_end_by_close(head: &StoredHead, body: &ResponseBody, settings: &Settings) -> bool {
    body.is_transfer_coded() && !head.is_part() && head.has_explicit_freshness(settings)
}

/// Publishes a body that was copied to its end, and lets its readers see that.
pub(super) async fn finish(
    gateway: &Gateway,
    fill: &Arc<Fill>,
    plan: &Plan,
    settings: &Settings,
    head: &StoredHead,
    end: Result<(Whole, Option<HeaderMap>), CopyError>,
) {
    if let Ok((Whole::Kept(body), _)) = &end {
        let published = parts::publish(gateway, fill, plan, settings, head, body.clone()).await;
        if published != Published::Stored {
            debug!(key = %fill.target.key, ?published, "A response was not stored as it should have been.");
        }
    }
    if let Err(error) = &end {
        debug!(key = %fill.target.key, %error, "A body was not copied to its end.");
    }
    // Whoever asks from here on finds the stored response, so nobody need join any more.
    gateway.fills.leave(fill);
    fill.end(end.map(|(_, trailers)| trailers).map_err(|_| BrokenOff));
}

/// How long a body under `head` is at least: as long as the stored one, if they are the same.
fn least_bytes(plan: &Plan, head: &StoredHead) -> u64 {
    let same = |stored: &&Arc<StoredResponse>| head.has_strong_tag_of(&stored.head);
    let own = plan.stored.as_ref().filter(|_| plan.is_validation);
    let stored = own.filter(same);
    stored.map_or(0, |stored| stored.body.len())
}

fn count(gateway: &Gateway, plan: &Plan, outcome: &'static str) {
    if plan.stored.is_none() || !plan.is_validation {
        return;
    }
    let upstream = match plan.arrival.effective().map(|effective| &effective.via) {
        Some(Via::Upstream(upstream)) => upstream.name().to_owned(),
        _ => "forward".to_owned(),
    };
    gateway
        .metrics
        .revalidations
        .get_or_create(&OutcomeLabels { upstream, outcome })
        .inc();
}

/// How long a request with a stored copy in hand waits for the origin; `None`: as long as it takes.
pub(crate) fn patience(settings: &Settings, stored: Option<&StoredResponse>) -> Option<Duration> {
    (stored.is_some() && !settings.fresh_timeout.is_zero()).then_some(settings.fresh_timeout)
}
