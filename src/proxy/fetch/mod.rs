//! A read that needs the origin: join the fill of its key, or start it, and answer with what it comes to.
//!
//! ```text
//! held down? ─► joining: start or follow a fill ─► wait ─► settle ─► replies
//!             └► or ask for itself alone ────────────────────────────┘
//! ```

use std::sync::Arc;

pub(crate) use self::behind::{Place, behind};
use self::joining::Part;
use super::{
    Gateway,
    arrival::Arrival,
    cache_status::CacheStatus,
    collapse::{Extent, Target},
    failure::Failed,
    fill::{self, Fill, Plan},
    parts::{self, Completing},
    problem::Problem,
    question::{Answered, Question},
    request::Conditions,
    respond::Reply,
};
use crate::{
    policy::{
        self, CacheKey, Connectivity, Decision, FieldSet, Forward, ForwardReason, Judgement,
        Lookup, Mode, Reason, RequestHead, Reuse, Settings, VariantKey,
    },
    store::StoredResponse,
};

mod behind;
mod joining;
mod replies;

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

    /// Whether the request asks for a range, or has conditions that only the origin may evaluate (RFC 9111 section 4.3.2):
    /// then these go as they are.
    fn is_for_the_origin_alone(&self) -> bool {
        self.request.has(FieldSet::RANGE) || self.request.has(FieldSet::ORIGIN_CONDITIONS)
    }

    fn target(&self, variant: Option<VariantKey>) -> Target {
        Target {
            key: self.key.clone(),
            variant,
            extent: Extent::Whole,
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

    fn has_own_conditions_for_a_range(&self) -> bool {
        self.request.has(FieldSet::RANGE) && self.request.has(FieldSet::CACHE_CONDITIONS)
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
}
