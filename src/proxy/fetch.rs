//! A read that needs the origin: join the fill of its key, or start it, and answer with what it comes to.

use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, header};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Gateway,
    access::{CacheUse, RequestId},
    arrival::Arrival,
    body::Body,
    cache_status::CacheStatus,
    collapse::{Extent, Role, Target},
    equivalent,
    failure::Failed,
    fill::{self, Fill, Outcome, Plan, Starter, Storing},
    parts::{self, Completing},
    problem::Problem,
    question::{Answered, Question},
    request::Conditions,
    respond::{self, Content, Reply, count_stale},
    trailers,
};
use crate::{
    policy::{
        self, CacheKey, Connectivity, Decision, Failure, FieldSet, Forward, ForwardReason,
        Judgement, Lookup, Mode, OnFailure, Reason, RequestHead, Reuse, Settings, StoredHead,
        VariantKey,
    },
    store::{Resource, StoredResponse},
    telemetry::RouteLabels,
    upstream::ResponseBody,
};

/// A place among the fills behind answers, where these are counted.
pub(crate) type Place = OwnedSemaphorePermit;

/// What a read that needs the origin knows.
pub(crate) struct Fetch<'a> {
    pub(crate) gateway: &'a Arc<Gateway>,
    pub(crate) arrival: &'a Arrival,
    pub(crate) key: &'a CacheKey,
    pub(crate) request: RequestHead<'a>,
    /// The stored response that is validated, or stands in.
    pub(crate) stored: Option<Arc<StoredResponse>>,
    /// The key it is stored under: another one only where it stands in for want of one of its own.
    pub(crate) stored_key: &'a CacheKey,
    /// The stored part that has not got what is asked for.
    pub(crate) part: Option<Arc<StoredResponse>>,
    pub(crate) forward: Forward,
    pub(crate) mode: Mode,
    /// The settings as they hold under the mode.
    pub(crate) settings: &'a Settings,
}

/// Whether the request may share a fill with others, and which.
#[derive(Clone, PartialEq, Eq)]
enum Sharing {
    /// The fill of the key, or of this variant of it.
    Join(Option<VariantKey>),
    Alone,
}

/// What a fill was to a request.
enum Settled {
    /// Its answer.
    Reply(Reply),
    /// Not for this request: then so.
    Again(Sharing),
}

/// A request that follows a fill, or started it.
struct Part {
    fill: Arc<Fill>,
    /// `None`: it follows.
    starter: Option<Starter>,
    /// It came when the head was there already, and did not wait for it.
    late: bool,
}

/// What became of a request that needs the origin.
enum Begun {
    /// It has part in a fill.
    Part(Part),
    /// It needs the origin no more.
    Answered(Reply),
}

impl Part {
    /// The head for the client that started the fill, with what is withheld from others; `None` for whoever follows.
    fn as_received(&self, head: &StoredHead) -> Option<StoredHead> {
        self.starter.as_ref()?.as_received(head)
    }
}

impl Fetch<'_> {
    /// The answer.
    pub(crate) async fn answer(&self) -> Reply {
        if let Some(reply) = self.held_down() {
            return reply;
        }
        if self.forward.fill_behind
            && let Some(part) = &self.part
        {
            parts::fill_behind(
                self.gateway,
                self.arrival,
                self.key,
                &self.request,
                part,
                self.mode,
            );
        }
        let shared = self.forward.collapse && !self.is_for_the_origin_alone();
        let mut sharing = if shared {
            Sharing::Join(None)
        } else {
            Sharing::Alone
        };
        // First the fill of the key; if its answer is another variant, the fill of this one; if neither is for this
        // request, its own, or none at all where its answer would be nobody else's.
        for _ in 0..3 {
            let is_for_itself = shared && !matches!(sharing, Sharing::Join(Some(_)));
            let settled = if is_for_itself && self.is_passed() {
                self.answer_for_itself().await
            } else {
                self.attempt(sharing).await
            };
            match settled {
                Settled::Reply(reply) => return reply,
                Settled::Again(again) => sharing = again,
            }
        }
        let detail = "the origin gave no answer that could be used";
        Reply::problem(Problem::new(Reason::UpstreamError, detail), self.arrival.id)
    }

    /// Whether the answer will be this request's alone, as the last one was its own request's.
    fn is_passed(&self) -> bool {
        let has_nothing = self.stored.is_none() && self.part.is_none();
        has_nothing
            && self
                .gateway
                .passes
                .holds(self.key, self.request.headers, self.gateway.clock.now())
    }

    /// Asks the origin without a fill. An answer that can be shared after all becomes one.
    async fn answer_for_itself(&self) -> Settled {
        // From before the question: what is purged while the answer is under way stays so.
        let ticket = self.gateway.store.ticket();
        let answered = match self.ask().await {
            Ok(answered) => answered,
            Err(failed) => return Settled::Reply(self.for_failure(&failed)),
        };
        let head = answered.head();
        let judgement = policy::judge(&self.request, &head, None, self.settings);
        let headers = self.request.headers;
        fill::note_whether_shared(self.gateway, self.key, headers, &judgement, &head);
        if let Judgement::Pass(reason) = judgement {
            return Settled::Reply(self.pass(answered.response, reason));
        }
        let fill = Fill::new(self.target(None), ticket);
        let plan = self.plan(true);
        let starter = fill::start(self.gateway, Arc::clone(&fill), plan, Some(answered));
        let outcome = fill.outcome().await;
        let part = Part {
            fill,
            starter: Some(starter),
            late: false,
        };
        self.settle(&part, outcome)
    }

    async fn ask(&self) -> Result<Answered, Failed> {
        let effective = self.arrival.effective().ok_or_else(Failed::internal)?;
        let upstream = effective.upstream(self.gateway);
        let question = Question {
            gateway: self.gateway,
            upstream: &upstream,
            arrival: self.arrival,
            effective,
            headers: self.request.headers,
            conditions: Conditions::Drop,
            validated: None,
            completing: None,
        };
        question.ask().await
    }

    /// A key whose origin failed a moment ago is not asked again while a stored response may stand in.
    fn held_down(&self) -> Option<Reply> {
        let stored = self.stored.as_ref()?;
        let now = self.gateway.clock.now();
        if self.forward.why != ForwardReason::Stale || !self.gateway.hold_down.holds(self.key, now)
        {
            return None;
        }
        let reuse = policy::while_held_down(&self.request, &stored.head, self.settings, now)?;
        let status = CacheStatus {
            ttl_secs: Some(reuse.ttl_secs),
            detail: reuse.detail,
            ..CacheStatus::default()
        };
        Some(self.stale(stored, &reuse, &status))
    }

    async fn attempt(&self, sharing: Sharing) -> Settled {
        let part = match self.begin(sharing) {
            Begun::Part(part) => part,
            Begun::Answered(reply) => return Settled::Reply(reply),
        };
        let outcome = match self.wait(&part.fill).await {
            Some(outcome) => outcome,
            None => match self.stand_in(Failure::FreshTimeout, None) {
                Ok(reply) => return Settled::Reply(reply),
                Err(_) => part.fill.outcome().await,
            },
        };
        self.settle(&part, outcome)
    }

    fn begin(&self, sharing: Sharing) -> Begun {
        let is_shared = matches!(sharing, Sharing::Join(_));
        let role = match sharing {
            Sharing::Join(variant) => {
                let (fills, store) = (&self.gateway.fills, &self.gateway.store);
                // Who had waited for another variant's fill fills its own by name.
                let named = match variant {
                    None => self.missing_variant().map(|name| self.target(Some(name))),
                    Some(_) => None,
                };
                let look = || self.published_meanwhile();
                fills.join(store, self.target(variant), named.as_ref(), look)
            }
            Sharing::Alone => {
                Role::Start(Fill::new(self.target(None), self.gateway.store.ticket()))
            }
        };
        match role {
            Role::Found((resource, index, reuse)) => {
                Begun::Answered(self.hit(&resource, &resource.variants[index], &reuse))
            }
            Role::Follow(fill) => Begun::Part(Part {
                late: fill.is_decided(),
                fill,
                starter: None,
            }),
            Role::Start(fill) => {
                let plan = self.plan(is_shared);
                let starter = fill::start(self.gateway, Arc::clone(&fill), plan, None);
                Begun::Part(Part {
                    fill,
                    starter: Some(starter),
                    late: false,
                })
            }
        }
    }

    /// The variant that this request asks for, where others are stored and it is not.
    fn missing_variant(&self) -> Option<VariantKey> {
        let resource = self.gateway.store.peek(self.key.as_str())?;
        let heads = resource.variants.iter().map(|stored| &stored.head);
        let newest = resource.variants.first()?;
        let is_missing = policy::select(self.request.headers, heads).is_none();
        is_missing.then(|| VariantKey::new(self.request.headers, &newest.head.headers))
    }

    fn target(&self, variant: Option<VariantKey>) -> Target {
        Target {
            key: self.key.clone(),
            variant,
            extent: Extent::Whole,
        }
    }

    /// What can be reused by now as if it had been there when the request came.
    fn published_meanwhile(&self) -> Option<(Arc<Resource>, usize, Reuse)> {
        let resource = self.gateway.store.peek(self.key.as_str())?;
        let heads = resource.variants.iter().map(|stored| &stored.head);
        let index = policy::select(self.request.headers, heads)?;
        let stored = &resource.variants[index];
        let found = Lookup::of(&self.request, &stored.head, stored.body.len());
        let reuse = self.reuse(found)?;
        Some((resource, index, reuse))
    }

    fn hit(&self, resource: &Resource, stored: &StoredResponse, reuse: &Reuse) -> Reply {
        self.gateway.store.touch(resource, stored);
        let status = CacheStatus {
            ttl_secs: Some(reuse.ttl_secs),
            ..CacheStatus::default()
        };
        let (store, key) = (&self.gateway.store, &resource.key);
        Reply {
            response: respond::from_store(store, key, &self.request, stored, reuse, &status),
            cache: CacheUse::Hit,
            reason: None,
        }
    }

    fn plan(&self, is_shared: bool) -> Plan {
        let completing = (self.forward.why == ForwardReason::Partial)
            .then(|| {
                Completing::of(
                    self.gateway,
                    &self.request,
                    self.part.as_ref()?,
                    self.settings,
                )
            })
            .flatten();
        Plan {
            arrival: self.arrival.clone(),
            headers: self.request.headers.clone(),
            stored: self.stored.clone(),
            is_validation: self.stored_key == self.key,
            // Of a range the validators of what is stored may be asked about, but not beside the client's own conditions.
            validate: self.forward.validate && !self.has_own_conditions_for_a_range(),
            conditions: if self.is_for_the_origin_alone() {
                Conditions::Keep
            } else {
                Conditions::Drop
            },
            part: self.part.clone(),
            completing,
            mode: self.mode,
            is_shared,
            _place: None,
        }
    }

    /// Whether the request asks for a range, or has conditions that only the origin may evaluate (RFC 9111 section 4.3.2):
    /// then these go as they are.
    fn is_for_the_origin_alone(&self) -> bool {
        self.request.has(FieldSet::RANGE) || self.request.has(FieldSet::ORIGIN_CONDITIONS)
    }

    fn has_own_conditions_for_a_range(&self) -> bool {
        self.request.has(FieldSet::RANGE) && self.request.has(FieldSet::CACHE_CONDITIONS)
    }

    /// `None`: the request's patience (`fresh_timeout`) ran out; the fill goes on.
    async fn wait(&self, fill: &Fill) -> Option<Outcome> {
        match fill::patience(self.settings, self.stored.as_deref()) {
            None => Some(fill.outcome().await),
            Some(patience) => tokio::time::timeout(patience, fill.outcome()).await.ok(),
        }
    }

    fn settle(&self, part: &Part, outcome: Outcome) -> Settled {
        let reply = match outcome {
            Outcome::Pending => None,
            Outcome::Storing(storing) => return self.follow(part, &storing),
            Outcome::Freshened(_, head) if !self.may_follow(part, &head) => None,
            Outcome::Freshened(stored, head) => self.freshened(part, &stored, &head),
            Outcome::Unshared(reason) => {
                let response = part.starter.as_ref().and_then(Starter::take_unshared);
                response.map(|response| self.pass(response, reason))
            }
            Outcome::ErrorAnswer(status) => self.stand_in(Failure::Broken, Some(status)).ok(),
            Outcome::Failed(failed) => Some(self.for_failure(&failed)),
        };
        reply.map_or(Settled::Again(Sharing::Alone), Settled::Reply)
    }

    fn follow(&self, part: &Part, storing: &Storing) -> Settled {
        let started = part.starter.is_some();
        if !started
            && policy::select(self.request.headers, std::iter::once(&*storing.head)).is_none()
        {
            if part.fill.target.variant.is_some() {
                return Settled::Again(Sharing::Alone);
            }
            let variant = VariantKey::new(self.request.headers, &storing.head.headers);
            return Settled::Again(Sharing::Join(Some(variant)));
        }
        if !self.may_follow(part, &storing.head) {
            return Settled::Again(Sharing::Alone);
        }
        let reader = match &part.starter {
            Some(starter) => starter.take_reader(),
            None => part.fill.reader(),
        };
        let Some(reader) = reader else {
            return Settled::Again(Sharing::Alone);
        };
        let freshness = storing
            .head
            .freshness(self.settings, self.gateway.clock.now());
        let status = CacheStatus {
            forward: Some(self.forward.why),
            forward_status: started.then_some(storing.answered),
            stored: started,
            collapsed: !started,
            ttl_secs: started.then(|| freshness.ttl_secs()),
            detail: None,
        };
        let content = Content::Growing(reader, storing.length);
        let age_secs = (!started).then(|| freshness.age_secs());
        let received = part.as_received(&storing.head);
        let head = received.as_ref().unwrap_or(&storing.head);
        let mut response = respond::from_head(&self.request, head, content, age_secs, &status);
        self.promise_trailers(&mut response, storing.trailers.clone());
        let cache = if started {
            CacheUse::Miss
        } else {
            self.count_collapsed()
        };
        Settled::Reply(Reply {
            response,
            cache,
            reason: None,
        })
    }

    /// Whether the answer to another's request is this one's too. Who waited for an answer may have one that is good for
    /// no later request, unless a cookie is in play: without the origin's leave to reuse it, it is one user's.
    fn may_follow(&self, part: &Part, head: &StoredHead) -> bool {
        let has_cookie = || self.request.headers.contains_key(header::COOKIE);
        let free =
            part.starter.is_some() || !(part.late || part.fill.is_personal() || has_cookie());
        free || self.is_reusable(head)
    }

    /// Whether a response whose body is still coming could be reused if it were whole: what a request that did not wait
    /// for the origin may have.
    fn is_reusable(&self, head: &StoredHead) -> bool {
        self.reuse(Lookup::Stored(head)).is_some()
    }

    /// How what is found could be reused without a word to the origin.
    fn reuse(&self, found: Lookup<'_>) -> Option<Reuse> {
        let now = self.gateway.clock.now();
        let (mode, settings) = (self.mode, self.settings);
        let connectivity = Connectivity::Connected;
        match policy::decide(&self.request, found, connectivity, mode, settings, now) {
            Decision::Reuse(reuse) if reuse.detail.is_none() => Some(reuse),
            _ => None,
        }
    }

    fn freshened(&self, part: &Part, stored: &StoredResponse, head: &StoredHead) -> Option<Reply> {
        policy::select(self.request.headers, std::iter::once(head))?;
        let started = part.starter.is_some();
        let freshness = head.freshness(self.settings, self.gateway.clock.now());
        let status = CacheStatus {
            forward: Some(self.forward.why),
            forward_status: started.then_some(StatusCode::NOT_MODIFIED),
            stored: started,
            collapsed: !started,
            ttl_secs: Some(freshness.ttl_secs()),
            detail: None,
        };
        let content = Content::Stored(&self.gateway.store, self.key, stored);
        let age_secs = Some(freshness.age_secs());
        let received = part.as_received(head);
        let head = received.as_ref().unwrap_or(head);
        let response = respond::from_head(&self.request, head, content, age_secs, &status);
        let cache = if started {
            CacheUse::Validated
        } else {
            self.count_collapsed()
        };
        Some(Reply {
            response,
            cache,
            reason: None,
        })
    }

    /// Hands an answer on that is not stored.
    fn pass(&self, response: Response<ResponseBody>, reason: Reason) -> Reply {
        let status = CacheStatus {
            forward: Some(self.forward.why),
            forward_status: Some(response.status()),
            detail: Some(reason),
            ..CacheStatus::default()
        };
        let promised = trailers::promised(response.headers());
        let mut response = response.map(Body::upstream);
        self.promise_trailers(&mut response, promised);
        status.append_to(response.headers_mut());
        Reply {
            response,
            cache: CacheUse::Miss,
            reason: Some(reason),
        }
    }

    fn promise_trailers(&self, response: &mut Response<Body>, promised: Option<HeaderValue>) {
        trailers::promise(
            response,
            promised,
            self.arrival.version,
            self.request.headers,
        );
    }

    fn for_failure(&self, failed: &Failed) -> Reply {
        let id = self.arrival.id;
        let Some(failure) = failed.failure() else {
            return Reply::problem(failed.to_problem(None), id);
        };
        match self.stand_in(failure, None) {
            Ok(reply) => reply,
            Err(reason) => Reply::problem(failed.to_problem(Some(reason)), id),
        }
    }

    /// The stored response in the origin's stead, or the reason why not.
    fn stand_in(
        &self,
        failure: Failure,
        forward_status: Option<StatusCode>,
    ) -> Result<Reply, Reason> {
        let head = self.stored.as_ref().map(|stored| &stored.head);
        let now = self.gateway.clock.now();
        let reuse = match policy::on_failure(&self.request, failure, head, self.settings, now) {
            OnFailure::ServeStale(reuse) => reuse,
            OnFailure::Problem(reason) => return Err(reason),
        };
        let Some(stored) = &self.stored else {
            return Err(Reason::Internal);
        };
        let status = CacheStatus {
            forward: Some(self.forward.why),
            forward_status,
            detail: reuse.detail,
            ..CacheStatus::default()
        };
        Ok(self.stale(stored, &reuse, &status))
    }

    fn stale(&self, stored: &StoredResponse, reuse: &Reuse, status: &CacheStatus) -> Reply {
        count_stale(
            self.gateway,
            self.arrival.route_name(self.gateway),
            reuse.ttl_secs,
        );
        let response = respond::from_store(
            &self.gateway.store,
            self.stored_key,
            &self.request,
            stored,
            reuse,
            status,
        );
        Reply {
            response,
            cache: CacheUse::Stale,
            reason: reuse.detail,
        }
    }

    fn count_collapsed(&self) -> CacheUse {
        let route = self.arrival.route_name(self.gateway).to_owned();
        self.gateway
            .metrics
            .collapsed_requests
            .get_or_create(&RouteLabels { route })
            .inc();
        CacheUse::Collapsed
    }
}

/// Validates a stored response behind an answer that was given already: one fill per key, whoever asks. A part is
/// validated with the range that was asked for, so that not the whole comes where it has changed.
///
/// `admit` is asked when there is need for a fill, and must be quick: `None` forbids it, and a place that it gives is held
/// until the fill has ended. Whether a fill was started.
pub(crate) fn behind(
    gateway: &Arc<Gateway>,
    arrival: &Arrival,
    key: &CacheKey,
    request: &Request<impl Sized>,
    stored: &Arc<StoredResponse>,
    mode: Mode,
    admit: impl FnOnce() -> Option<Option<Place>>,
) -> bool {
    if gateway.hold_down.holds(key, gateway.clock.now()) {
        return false;
    }
    let (extent, conditions) = if stored.head.is_part() {
        (Extent::Part, Conditions::Keep)
    } else {
        (Extent::Whole, Conditions::Drop)
    };
    let target = Target {
        key: key.clone(),
        variant: None,
        extent,
    };
    let mut place = None;
    let look = || {
        let resource = gateway.store.peek(key.as_str());
        if resource.is_some_and(|resource| resource.has_newer_than(stored)) {
            return Some(());
        }
        match admit() {
            Some(admitted) => place = admitted,
            None => return Some(()),
        }
        None
    };
    let Role::Start(fill) = gateway.fills.join(&gateway.store, target, None, look) else {
        return false;
    };
    let mut headers = request.headers().clone();
    if extent == Extent::Whole {
        headers.remove(header::RANGE);
    }
    let plan = Plan {
        arrival: Arrival {
            id: RequestId::next(),
            interim: None,
            ..equivalent::arrival_for(arrival, key)
        },
        headers,
        stored: Some(Arc::clone(stored)),
        is_validation: true,
        validate: true,
        conditions,
        part: None,
        completing: None,
        mode,
        is_shared: false,
        _place: place,
    };
    drop(fill::start(gateway, fill, plan, None));
    true
}
