//! One delivery: a claimed write is read, sent once, judged, and what became of it recorded.
//!
//! Invariants: `sending` is on disk before the first byte of what must not be sent twice; the claim is given back on every way
//! out, by the record of the new state or by its guard; what a panic leaves open counts as an attempt without an answer. Once
//! the journal has a change it owns the claim: a delivery that is cut after that loses nothing.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::{
    Replay,
    claim::Claim,
    settle::{keep_floor, settle, uncut},
};
use crate::{
    policy::{self, Suspicion, Timestamp},
    queue::{
        Answer, Attempt, Dead, Delivery, Item, ItemId, LaneId, Occasion, Outlet, Parked, Proof,
        Received, SendError, State, Unverified,
        journal::{Change, ContentError, JournalError, Opened},
        verdict::{self, Effect, Judged, Trial, Unsent, Verdict},
    },
};

/// What is put off for a reason of its own is looked at again after this.
const DEFERRED_FOR: Duration = Duration::from_secs(5);

/// The number of the attempt, in what is sent.
const ATTEMPT: HeaderName = HeaderName::from_static("hardtack-attempt");

/// What was handed back is tried again after a part of this.
const LATER: Duration = Duration::from_secs(10);

/// What is known of the origin when a delivery begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) trial: Trial,
    pub(super) proof: Proof,
}

/// What a delivery that ended says of the origin.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) sign: Sign,
    /// How long the origin asks to be left alone.
    pub(super) floor: Option<Duration>,
}

/// How the origin does.
#[derive(Debug)]
pub(super) enum Sign {
    /// It answered, and not with a failure of its own.
    Well,
    /// It failed, gave no answer, or handed the request back, for a write of this lane.
    Failing(LaneId),
    /// There is no connection to be had.
    Disconnected,
    /// It has no room.
    Busy,
    /// Something else answered, and what was seen of it.
    Captive(String),
    /// It, or something else, refused this write with a page.
    Doubted(ItemId, String),
    /// Nothing was learnt: nothing was to be sent.
    Nothing,
    /// Nothing was learnt, and the write is where it was: the disk, or a panic.
    Stalled,
}

/// A write while it is delivered.
struct Delivering<O: Outlet> {
    replay: Arc<Replay<O>>,
    claim: Claim,
    item: Item,
    standing: Standing,
    /// Whether `sending` is on disk.
    is_noted: bool,
}

/// A write as it goes out.
struct Outgoing {
    delivery: Delivery,
    accepts_html: bool,
}

/// Delivers a write that was claimed.
pub(super) async fn deliver<O: Outlet>(
    replay: Arc<Replay<O>>,
    id: ItemId,
    standing: Standing,
) -> Finished {
    let claim = Claim::of(&replay.index, id);
    let item = match replay.journal.claimed(id).await {
        Ok(item) => replay.places.follow(item),
        Err(error) => {
            warn!(%id, %error, "Cannot read a queued write; trying again.");
            return Finished::of(Sign::Stalled);
        }
    };
    let delivering = Delivering {
        replay,
        claim,
        item,
        standing,
        is_noted: false,
    };
    delivering.run().await
}

impl<O: Outlet> Delivering<O> {
    async fn run(mut self) -> Finished {
        if !self.item.state.is_pending() {
            return self.not_pending().await;
        }
        let now = self.replay.clock.now();
        self.item = uncut(self.item, now);
        if let Some((state, remark)) = self.replay.obstacle(&self.item, now) {
            return self.stop(state, remark).await;
        }
        let opened = match self.replay.journal.content(self.item.id).await {
            Ok(opened) => opened,
            Err(error) => return self.unreadable(error).await,
        };
        let Some(outgoing) = self.outgoing(opened) else {
            let remark = "its method, URL or fields are none".to_owned();
            return self.stop(State::Dead(Dead::Corrupt), remark).await;
        };
        if self.note_sending(now).await.is_err() {
            return Finished::of(Sign::Stalled);
        }
        self.send(outgoing, now).await
    }

    /// Says in memory, and where a crash must not be forgotten on disk, that the write is on its way.
    async fn note_sending(&mut self, now: Timestamp) -> Result<(), JournalError> {
        self.replay.index().mark_sending(self.item.id);
        let mut sending = self.item.clone();
        sending.state = State::Sending;
        if sending.must_be_noted_before_sending() {
            sending.attempts = sending.attempts.saturating_add(1);
            sending.last = Some(Attempt {
                at: now,
                took_millis: 0,
                status: None,
                error: None,
            });
            self.replay
                .journal
                .record(Change::Update(sending.clone()))
                .await?;
            self.is_noted = true;
        }
        self.replay.announce(&sending);
        Ok(())
    }

    async fn send(self, outgoing: Outgoing, began_at: Timestamp) -> Finished {
        let began = Instant::now();
        let Outgoing {
            delivery,
            accepts_html,
        } = outgoing;
        let sent = unless_it_panics(self.replay.outlet.send(delivery)).await;
        let answer = sent.unwrap_or_else(|| Err(SendError::Unknown("sending it panicked".into())));
        if let Err(SendError::Deferred(why)) = &answer {
            let why = why.clone();
            return self.defer(why).await;
        }
        let attempt = Attempt {
            at: began_at,
            took_millis: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            status: answer.as_ref().ok().map(|received| received.answer.status),
            error: answer.as_ref().err().map(ToString::to_string),
        };
        let verdict = self.judge(answer.as_ref(), accepts_html).await;
        self.replay.count(&verdict);
        if let (Verdict::Captive(Suspicion::Html), Some(400..=499)) = (&verdict, attempt.status) {
            let why = Suspicion::Html.as_str().to_owned();
            let sign = Sign::Doubted(self.item.id, why);
            return self.give_back(sign, Duration::ZERO).await;
        }
        if let Some((sign, pause)) = without_attempt(&verdict, self.item.lane_id) {
            return self.give_back(sign, pause).await;
        }
        let now = self.replay.clock.now();
        let headers = answer.as_ref().ok().map(|received| &received.headers);
        let floor = headers.and_then(|headers| policy::retry_after(headers, now));
        let sign = sign_of(&verdict, &attempt, self.item.lane_id);
        let mut item = settle(&self.item, &verdict, attempt, &self.replay.config, now);
        keep_floor(&mut item, floor, now);
        self.record(item, answer.ok().map(|received| received.answer))
            .await;
        Finished { sign, floor }
    }

    /// Puts the write off for a reason of its own: no attempt was made, and nothing was learnt of the origin.
    async fn defer(mut self, why: String) -> Finished {
        let mut item = self.item.clone();
        if item.remark.as_ref() != Some(&why) {
            warn!(id = %item.id, route = item.route, why, "A queued write is put off.");
        }
        item.remark = Some(why);
        item.next_at = self.replay.clock.now().plus(DEFERRED_FOR);
        self.hand_over(Change::Update(item.clone()), &item).await;
        Finished::of(Sign::Nothing)
    }

    /// What follows from the answer. One that looks like a captive portal's is only believed to be the origin's when that can
    /// be proven now: a probe that passed an hour ago says nothing of the network of today. And what must not be executed twice
    /// is only believed not to have been when a portal answers whoever asks at this moment.
    async fn judge(&self, answer: Result<&Received, &SendError>, accepts_html: bool) -> Verdict {
        let mut judged = Judged {
            item: &self.item,
            accepts_html,
            has_credential_source: self.replay.outlet.has_credential_source(&self.item.route),
            trial: self.standing.trial,
            proof: Proof::Unproven,
        };
        let doubted = verdict::judge(answer, &judged);
        let is_worth_asking = match doubted {
            Verdict::Suspect(_) => true,
            Verdict::Captive(_) => self.standing.proof == Proof::Proven,
            _ => false,
        };
        if !is_worth_asking {
            return doubted;
        }
        let verified = unless_it_panics(self.verify()).await;
        match (verified, doubted) {
            (Some(Err(Unverified::Portal(_))), Verdict::Suspect(suspicion)) => {
                return Verdict::Captive(suspicion);
            }
            (Some(Ok(proof)), _) => judged.proof = proof,
            _ => {}
        }
        verdict::judge(answer, &judged)
    }

    async fn verify(&self) -> Result<Proof, Unverified> {
        let outlet = &self.replay.outlet;
        outlet.verify(&self.item.origin, Occasion::Doubt).await
    }

    /// Records what became of the write, and tells who waits for it.
    async fn record(mut self, item: Item, answer: Option<Answer>) {
        log(&item);
        if let (true, Some(answer)) = (item.state.is_ended(), &answer) {
            // The answer is known: that a stored response could not be invalidated does not make it unknown.
            if unless_it_panics(self.replay.outlet.delivered(&item, answer))
                .await
                .is_none()
            {
                error!(id = %item.id, "Invalidating after a delivery panicked.");
            }
        }
        if item.state.is_ended() {
            self.replay.count_delay(&item);
            let change = Change::End {
                item: item.clone(),
                answer,
            };
            self.hand_over(change, &item).await;
        } else {
            let change = match answer.filter(|_| item.state.is_stuck()) {
                Some(answer) => Change::Answered {
                    item: item.clone(),
                    answer,
                },
                None => Change::Update(item.clone()),
            };
            self.hand_over(change, &item).await;
        }
    }

    /// Its record was damaged, and was made again, parked or dead: from now on it is that on disk and in memory too.
    async fn not_pending(mut self) -> Finished {
        let item = self.item.clone();
        if item.state.is_stuck() {
            log(&item);
            self.hand_over(Change::Update(item.clone()), &item).await;
        } else {
            self.claim.hand_over();
            self.replay.index().change(&item);
        }
        Finished::of(Sign::Nothing)
    }

    /// Parks it, or gives it up, without an attempt.
    async fn stop(mut self, state: State, remark: String) -> Finished {
        let mut item = self.item.clone();
        item.state = state;
        item.remark = Some(remark);
        log(&item);
        self.hand_over(Change::Update(item.clone()), &item).await;
        Finished::of(Sign::Nothing)
    }

    async fn unreadable(self, error: ContentError) -> Finished {
        match error {
            ContentError::Sealed(error) => {
                self.stop(State::Parked(Parked::Auth), error.to_string())
                    .await
            }
            ContentError::Damaged => {
                let remark = "its body or its fields are damaged".to_owned();
                self.stop(State::Dead(Dead::Corrupt), remark).await
            }
            ContentError::Unavailable(error) => {
                warn!(id = %self.item.id, %error, "Cannot read a queued write; trying again.");
                Finished::of(Sign::Stalled)
            }
        }
    }

    /// Puts the write back as it was: no attempt was made. Of the lanes that are due it comes last, so that another's head is
    /// tried next.
    async fn give_back(mut self, sign: Sign, pause: Duration) -> Finished {
        let mut item = self.item.clone();
        item.next_at = self.replay.clock.now().plus(pause);
        if self.is_noted {
            self.hand_over(Change::Update(item.clone()), &item).await;
        } else {
            self.claim.hand_over();
            self.replay.index().change(&item);
            self.replay.announce(&item);
        }
        Finished::of(sign)
    }

    /// Gives a change, and with it the claim, to the journal.
    async fn hand_over(&mut self, change: Change, item: &Item) {
        self.claim.hand_over();
        match self.replay.journal.record(change).await {
            Ok(()) => self.replay.announce(item),
            // Only at shutdown: at the next start it is what the disk says.
            Err(error) => warn!(id = %item.id, %error, "The end of a delivery was not recorded."),
        }
    }

    fn outgoing(&self, opened: Opened) -> Option<Outgoing> {
        let mut headers = HeaderMap::with_capacity(opened.fields.len() + 1);
        for (name, value) in opened.fields {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            headers.append(name, HeaderValue::from_bytes(&value).ok()?);
        }
        let attempt = self.item.attempts.saturating_add(1);
        headers.insert(ATTEMPT, HeaderValue::from(attempt));
        let accepts_html = policy::accepts_html(&headers);
        let delivery = Delivery {
            origin: self.item.origin.clone(),
            route: self.item.route.clone(),
            method: Method::from_bytes(self.item.method.as_bytes()).ok()?,
            uri: self.item.url.parse().ok()?,
            stored_under: self.item.stored_under.clone(),
            headers,
            body: opened.body,
            repeatable: self.item.repeat.is_allowed(),
            attempt,
        };
        Some(Outgoing {
            delivery,
            accepts_html,
        })
    }
}

impl Finished {
    const fn of(sign: Sign) -> Self {
        Self { sign, floor: None }
    }
}

/// `None` when it panicked: whoever is called must not take the claim along.
async fn unless_it_panics<T>(future: impl Future<Output = T>) -> Option<T> {
    AssertUnwindSafe(future).catch_unwind().await.ok()
}

/// What is known of the origin when no attempt was made, and for how long the write is left alone.
fn without_attempt(verdict: &Verdict, lane: LaneId) -> Option<(Sign, Duration)> {
    Some(match verdict {
        // Perhaps for a reason of its own: the origin is only left alone when it does so to others too.
        Verdict::Unsent(Unsent::HandedBack) => {
            (Sign::Failing(lane), LATER.mul_f64(fastrand::f64()))
        }
        Verdict::Unsent(Unsent::Disconnected) => (Sign::Disconnected, Duration::ZERO),
        Verdict::Unsent(Unsent::Busy) => (Sign::Busy, Duration::ZERO),
        Verdict::Captive(suspicion) => {
            let why = suspicion.as_str().to_owned();
            (Sign::Captive(why), Duration::ZERO)
        }
        _ => return None,
    })
}

fn sign_of(verdict: &Verdict, attempt: &Attempt, lane: LaneId) -> Sign {
    match (verdict, attempt.status) {
        (Verdict::Suspect(suspicion), _) => Sign::Captive(suspicion.as_str().to_owned()),
        (Verdict::Retry(Effect::Possible), _) => Sign::Failing(lane),
        (_, Some(408 | 421 | 425 | 429 | 500 | 502..=504 | 506..)) => Sign::Failing(lane),
        (_, Some(_)) => Sign::Well,
        // Parked without an answer: it failed too. What can never be sent says nothing.
        (Verdict::Park(Parked::Ambiguous, _), None) => Sign::Failing(lane),
        (_, None) => Sign::Nothing,
    }
}

fn log(item: &Item) {
    let (id, origin, route) = (item.id, &item.origin, &item.route);
    let (state, reason) = (item.state.as_str(), item.state.reason());
    let attempts = item.attempts;
    let status = item.last.as_ref().and_then(|last| last.status);
    if item.state.is_stuck() {
        warn!(%id, %origin, route, state, reason, attempts, status, "A queued write needs an operator.");
    } else if item.state.is_ended() {
        info!(%id, %origin, route, state, reason, attempts, status, "A queued write was delivered.");
    } else {
        debug!(%id, %origin, route, state, attempts, status, "A queued write is to be sent again.");
    }
}
