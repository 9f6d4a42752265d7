//! Part in a fill: started or followed, waited for, and left for another if what it comes to is not for this request.

use std::sync::Arc;

use http::header;

use super::{Fetch, Settled, Sharing};
use crate::{
    policy::{self, Failure, Lookup, Reuse, StoredHead, VariantKey},
    proxy::{
        access::CacheUse,
        cache_status::CacheStatus,
        collapse::Role,
        fill::{self, Fill, Outcome, Starter, Storing},
        respond::{self, Content, Reply},
    },
    store::Resource,
};

/// A request that follows a fill, or started it.
pub(super) struct Part {
    pub(super) fill: Arc<Fill>,
    /// `None`: it follows.
    pub(super) starter: Option<Starter>,
    /// It came when the head was there already, and did not wait for it.
    pub(super) late: bool,
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
    pub(super) fn as_received(&self, head: &StoredHead) -> Option<StoredHead> {
        self.starter.as_ref()?.as_received(head)
    }
}

impl Fetch<'_> {
    pub(super) async fn attempt(&self, sharing: Sharing) -> Settled {
        let mut begun = self.begin(&sharing);
        if let Begun::Part(part) = &begun
            && part.late
            && part.fill.is_complete()
        {
            part.fill.ended().await;
            begun = self.begin(&sharing);
        }
        let part = match begun {
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

    fn begin(&self, sharing: &Sharing) -> Begun {
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
                fills.join(store, self.target(variant.clone()), named.as_ref(), look)
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

    /// `None`: the request's patience (`fresh_timeout`) ran out; the fill goes on.
    async fn wait(&self, fill: &Fill) -> Option<Outcome> {
        match fill::patience(self.settings, self.stored.as_deref()) {
            None => Some(fill.outcome().await),
            Some(patience) => tokio::time::timeout(patience, fill.outcome()).await.ok(),
        }
    }

    pub(super) fn settle(&self, part: &Part, outcome: Outcome) -> Settled {
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
}
